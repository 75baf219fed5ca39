/* mode tokenize - texts in, token ids out. */
#include "base/file.h"
#include "base/options.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "merges.h"
#include "ranges.h"
#include "verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *tokenizer, *merges, *clean;
    int64_t context;
    bool pad, lengths;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, tokenizer, "tokenizer", "clip", "clip|bert:DIR",
                 "CLIP's byte-BPE, or the WordPiece of a Hugging Face folder"),
    MERGES_OPTION(struct options, merges),
    MODE_OPT_STR(struct options, clean, "clean", "openai", "openai|hf",
                 "clip only: repair, unescape HTML, lower case, as open_clip; or Hugging Face's NFC and lower case"),
    MODE_OPT_INT(struct options, context, "context", "0", "N",
                 "context length, special tokens included: 2 (clip with openai cleaning: 1, the end token) to 1048576; "
                 "0 = 77 (clip), 512 (bert)"),
    MODE_OPT_FLAG(
        struct options, pad, "pad",
        "fill every result up to the context: with 0 (clip), <|endoftext|> (clip with hf cleaning), [PAD] (bert)"),
    MODE_OPT_FLAG(struct options, lengths, "lengths",
                  "print the number of ids of each text, special tokens included, instead of the ids"),
    MODE_OPT_END};

static const char usage[] = "mode tokenize [options] < texts > ids";
static const char prose[] =
    "Reads one text per line from stdin and prints one JSON array of ids per line. Ids include the start and end "
    "token; a text that is too long is truncated and still ends with the end token. A line ends at its newline, which "
    "the last one may lack; all other bytes, carriage returns and NULs too, belong to the text. Invalid UTF-8 is read "
    "as U+FFFD: one for each maximal subpart of an ill-formed sequence, and one for each other byte.";

static enum mode_status open_tokenizer(struct mode_tokenizer **t, struct options *o, struct mode_error *err)
{
    static const char bert[] = "bert:";
    bool is_clip = strcmp(o->tokenizer, "clip") == 0;
    if (o->context == 0) o->context = is_clip ? 77 : 512;
    /* with one id open_clip gives the end token; Hugging Face always gives two */
    const bool is_openai = is_clip && strcmp(o->clean, "openai") == 0;
    if (o->context < (is_openai ? 1 : 2) || o->context > 1 << 20)
        return MODE_FAIL(err, MODE_E_USAGE, "--context: %lld is out of range, expected %d to %d%s",
                         (long long)o->context, is_openai ? 1 : 2, 1 << 20,
                         is_openai ? "" : ": the start and the end token are always there");
    if (strncmp(o->tokenizer, bert, sizeof bert - 1) == 0)
        return mode_tokenizer_open_bert(t, o->tokenizer + sizeof bert - 1, err);
    if (!is_clip) return MODE_FAIL(err, MODE_E_USAGE, "--tokenizer: \"%s\" is neither clip nor bert:DIR", o->tokenizer);
    enum mode_status st = merges_find(&o->merges, err);
    if (st) return st;
    if (strcmp(o->clean, "openai") == 0) return mode_tokenizer_open_clip(t, o->merges, MODE_CLIP_CLEAN_OPENAI, err);
    if (strcmp(o->clean, "hf") == 0) return mode_tokenizer_open_clip(t, o->merges, MODE_CLIP_CLEAN_HF, err);
    return MODE_FAIL(err, MODE_E_USAGE, "--clean: \"%s\" is neither openai nor hf", o->clean);
}

static void add_number(struct mode_str *s, int32_t id)
{
    char digits[12];
    int n = sizeof digits;
    do digits[--n] = (char)('0' + id % 10);
    while (id /= 10);
    mode_str_add(s, digits + n, sizeof digits - (size_t)n);
}

static void add_ids(struct mode_str *s, const int32_t *ids, int n, int all, int32_t pad)
{
    mode_str_add_char(s, '[');
    for (int i = 0; i < all; i++) {
        if (i) mode_str_add_char(s, ',');
        add_number(s, i < n ? ids[i] : pad);
    }
    mode_str_add_char(s, ']');
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_tokenizer *t = NULL;
    struct mode_str line_out = {0};
    int32_t *ids = NULL;
    char *line = NULL;
    size_t cap = 0;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (!st) st = arguments_check(n_args, 0, argv, "texts come from stdin", err);
    if (!st && o.lengths && o.pad)
        st = MODE_FAIL(err, MODE_E_USAGE,
                       "--lengths counts ids, --pad makes all results equally long: give one of them");
    if (!st) st = open_tokenizer(&t, &o, err);
    if (st) goto out;
    ids = mode_xmalloc((size_t)o.context * sizeof *ids);
    for (ssize_t len; (len = getline(&line, &cap, stdin)) >= 0;) {
        if (len > 0 && line[len - 1] == '\n') len--;
        int n = mode_tokenizer_encode(t, line, (size_t)len, ids, (int)o.context);
        mode_str_reset(&line_out);
        if (o.lengths)
            add_number(&line_out, n);
        else
            add_ids(&line_out, ids, n, o.pad ? (int)o.context : n, mode_tokenizer_pad_id(t));
        mode_str_add_char(&line_out, '\n');
        if (fwrite(line_out.data, 1, line_out.len, stdout) != line_out.len) break;
    }
    if (ferror(stdin))
        st = mode_input_fail(err, errno, "stdin", "be read");
    else if (fflush(stdout) != 0 || ferror(stdout))
        st = MODE_FAIL(err, MODE_E_IO, "writing stdout failed: %s", strerror(errno));
out:
    free(line);
    free(ids);
    mode_str_clear(&line_out);
    mode_tokenizer_close(&t);
    return st;
}

const struct mode_verb mode_verb_tokenize = {"tokenize", "texts to token ids (CLIP's BPE or BERT's WordPiece)", run};
