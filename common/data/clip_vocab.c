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
    MODE_ASSERT((json_int_t)json_object_size(ids) == id);
    mode_str_clear(&joined);
    return ids;
}

static json_t *special(const char *text, bool normalized)
{
    return json_pack("{s:s, s:b, s:b, s:b, s:b}", "content", text, "lstrip", 0, "normalized", (int)normalized, "rstrip",
                     0, "single_word", 0);
}

enum mode_status mode_clip_vocab_write(const char *dir, const char *merges_path, int context, struct mode_error *err)
{
    struct mode_tokenizer *check = NULL;
    struct mode_str text = {0}, out = {0};
    char *path = mode_path_join(dir, "merges.txt");
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
    mode_str_add_cstr(&out, "#version: 0.2\n");
    mode_str_add(&out, first, (size_t)(end - first));
    if ((st = mode_file_write_atomic(path, out.data, out.len, err)) ||
        (st = write_json(dir, "vocab.json", vocabulary(first, n_merges), JSON_COMPACT, err)) ||
        (st = write_json(dir, "special_tokens_map.json",
                         json_pack("{s:o, s:o, s:s, s:o}", "bos_token", special(START, true), "eos_token",
                                   special(END, true), "pad_token", END, "unk_token", special(END, true)),
                         JSON_INDENT(2), err)))
        goto out;
    st = write_json(dir, "tokenizer_config.json",
                    json_pack("{s:b, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:i}", "add_prefix_space", 0, "bos_token",
                              START, "eos_token", END, "pad_token", END, "unk_token", END, "tokenizer_class",
                              "CLIPTokenizer", "errors", "replace", "do_lower_case", 1, "model_max_length", context),
                    JSON_INDENT(2), err);
out:
    mode_tokenizer_close(&check);
    mode_str_clear(&text);
    mode_str_clear(&out);
    free(path);
    return st;
}
