#include "data/clip_vocab.h"

#include "base/file.h"
#include "base/str.h"
#include "data/tokenizer_impl.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define START "<|startoftext|>"
#define END   "<|endoftext|>"

static enum mode_status write_json(const char *dir, const char *name, json_t *root, size_t flags,
                                   struct mode_error *err)
{
    char *path = mode_path_join(dir, name), *text = root ? json_dumps(root, flags) : NULL;
    enum mode_status st = text ? mode_file_write_atomic(path, text, strlen(text), err)
                               : MODE_FAIL(err, MODE_E_FORMAT, "%s: cannot be written as JSON", path);
    free(text);
    free(path);
    json_decref(root);
    return st;
}

/* Ids are places: the bytes, the bytes at the end of a word, the merges, start and end. */
static json_t *vocabulary(const char *merges, size_t n_merges)
{
    struct mode__bpe_byte bytes[256];
    struct mode_str joined = {0};
    json_t *ids = json_object();
    json_int_t id = 0;
    mode__bpe_byte_names(bytes);
    for (int i = 0; i < 256; i++) json_object_set_new(ids, bytes[i].name, json_integer(id++));
    for (int i = 0; i < 256; i++) {
        mode_str_reset(&joined);
        mode_str_printf(&joined, "%s</w>", bytes[i].name);
        json_object_set_new(ids, joined.data, json_integer(id++));
    }
    for (size_t i = 0; i < n_merges; i++) {
        const char *end = strchr(merges, '\n'), *blank = memchr(merges, ' ', (size_t)(end - merges));
        mode_str_reset(&joined);
        mode_str_add(&joined, merges, (size_t)(blank - merges));
        mode_str_add(&joined, blank + 1, (size_t)(end - blank - 1));
        json_object_set_new(ids, joined.data, json_integer(id++));
        merges = end + 1;
    }
    json_object_set_new(ids, START, json_integer(id++));
    json_object_set_new(ids, END, json_integer(id++));
    mode_str_clear(&joined);
    return ids;
}

/* Not normalized: found in the text as it is, so that "<|STARTOFTEXT|>" in a caption is no start token. */
static json_t *special(const char *text)
{
    return json_pack("{s:s, s:b, s:b, s:b, s:b}", "content", text, "lstrip", 0, "normalized", 0, "rstrip", 0,
                     "single_word", 0);
}

/* "a b" as they stand in merges.txt: tokenizers of every age read that, pairs only those since 0.20. */
static json_t *merge_list(const char *merges, size_t n_merges)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n_merges; i++) {
        const char *end = strchr(merges, '\n');
        json_array_append_new(list, json_stringn(merges, (size_t)(end - merges)));
        merges = end + 1;
    }
    return list;
}

static json_t *added(const char *text, json_int_t id)
{
    json_t *token = special(text);
    json_object_set_new(token, "id", json_integer(id));
    json_object_set_new(token, "special", json_true());
    return token;
}

/* The whole tokenizer in one file, for the tokenizers library: NFC, one blank for white space, lower case, CLIP's words,
 * bytes, merges, and the two tokens around a text. */
static json_t *whole(const json_t *vocab, const char *merges, size_t n_merges)
{
    static const char words[] = "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|"
                                "[^\\s\\p{L}\\p{N}]+";
    const json_int_t start = json_integer_value(json_object_get(vocab, START)), end = start + 1;
    json_t *normalizer = json_pack("{s:s, s:[{s:s}, {s:s, s:{s:s}, s:s}, {s:s}]}", "type", "Sequence", "normalizers",
                                   "type", "NFC", "type", "Replace", "pattern", "Regex", "\\s+", "content", " ", "type",
                                   "Lowercase");
    json_t *cut = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b, s:b}]}", "type", "Sequence",
                            "pretokenizers", "type", "Split", "pattern", "Regex", words, "behavior", "Removed",
                            "invert", 1, "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1);
    json_t *around = json_pack("{s:s, s:[s, I], s:[s, I], s:b, s:b}", "type", "RobertaProcessing", "sep", END, end,
                               "cls", START, start, "trim_offsets", 0, "add_prefix_space", 0);
    json_t *decoder = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1,
                                "use_regex", 1);
    json_t *model = json_pack("{s:s, s:n, s:s, s:s, s:s, s:b, s:O, s:o}", "type", "BPE", "dropout", "unk_token", END,
                              "continuing_subword_prefix", "", "end_of_word_suffix", "</w>", "fuse_unk", 0, "vocab",
                              vocab, "merges", merge_list(merges, n_merges));
    return json_pack("{s:s, s:n, s:n, s:[o, o], s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added(START, start), added(END, end), "normalizer", normalizer, "pre_tokenizer",
                     cut, "post_processor", around, "decoder", decoder, "model", model);
}

enum mode_status mode_clip_vocab_write(const char *dir, const char *merges_path, int context, struct mode_error *err)
{
    struct mode_tokenizer *check = NULL;
    struct mode_str text = {0}, out = {0};
    char *path = mode_path_join(dir, "merges.txt");
    json_t *vocab = NULL;
    /* opening proves that every line is a merge, so that below nothing can be missing */
    enum mode_status st = mode_tokenizer_open_clip(&check, merges_path, MODE_CLIP_CLEAN_OPENAI, err);
    if (!st) st = mode__bpe_text(&text, merges_path, err);
    if (st) goto out;
    const size_t n_merges = (size_t)check->start - 2 * 256;
    char *to = text.data;
    for (const char *from = text.data; *from; from++)
        if (*from != '\r') *to++ = *from;
    *to = 0;
    const char *first = strchr(text.data, '\n') + 1, *end = first;
    for (size_t i = 0; i < n_merges; i++) end = strchr(end, '\n') + 1;
    vocab = vocabulary(first, n_merges);
    if (json_object_size(vocab) != n_merges + 2 * 256 + 2) {
        st = MODE_FAIL(
            err, MODE_E_FORMAT,
            "%s: two merges give the same token (%zu different ones of %zu), which vocab.json cannot express",
            merges_path, json_object_size(vocab), n_merges + 2 * 256 + 2);
        goto out;
    }
    mode_str_add_cstr(&out, "#version: 0.2\n");
    mode_str_add(&out, first, (size_t)(end - first));
    if ((st = mode_file_write_atomic(path, out.data, out.len, err)) ||
        (st = write_json(dir, "vocab.json", json_incref(vocab), JSON_COMPACT, err)) ||
        (st = write_json(dir, "tokenizer.json", whole(vocab, first, n_merges), JSON_COMPACT, err)) ||
        (st = write_json(dir, "special_tokens_map.json",
                         json_pack("{s:o, s:o, s:s, s:o}", "bos_token", special(START), "eos_token", special(END),
                                   "pad_token", END, "unk_token", special(END)),
                         JSON_INDENT(2), err)))
        goto out;
    st = write_json(dir, "tokenizer_config.json",
                    json_pack("{s:b, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:i}", "add_prefix_space", 0, "bos_token",
                              START, "eos_token", END, "pad_token", END, "unk_token", END, "tokenizer_class",
                              "CLIPTokenizer", "errors", "replace", "do_lower_case", 1, "model_max_length", context),
                    JSON_INDENT(2), err);
out:
    json_decref(vocab);
    mode_tokenizer_close(&check);
    mode_str_clear(&text);
    mode_str_clear(&out);
    free(path);
    return st;
}
