#include "pipeline/pairs.h"

#include "base/file.h"
#include "base/str.h"
#include "data/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t MAX_LIST = (size_t)1 << 36;
static const char blanks[] = " \t\r\n\v\f";

static bool is_blank(const char *s)
{
    return s[strspn(s, blanks)] == '\0';
}

/* Move at to the first line that is neither empty nor a comment, past a byte order mark. */
static void skip_comments(struct mode_pairs *l)
{
    static const char mark[] = "\xef\xbb\xbf";
    if ((size_t)(l->end - l->at) >= 3 && memcmp(l->at, mark, 3) == 0) l->at += 3;
    for (;; l->line++) {
        char *next = memchr(l->at, '\n', (size_t)(l->end - l->at));
        const bool empty = next && (next == l->at || (next == l->at + 1 && *l->at == '\r'));
        if (!next || (!empty && *l->at != '#')) return;
        l->at = next + 1;
    }
}

/* Index of the column with that name; n_fields: none. */
static enum mode_status find_column(size_t *column, const struct mode_csv *c, const char *key, struct mode_error *err)
{
    *column = c->n_fields;
    for (size_t i = 0; i < c->n_fields; i++) {
        if (strcmp(c->field[i], key) != 0) continue;
        if (*column < c->n_fields)
            return MODE_FAIL(err, MODE_E_FORMAT, "%s, line %llu: the header has the column \"%s\" twice", c->name,
                             (unsigned long long)c->line, key);
        *column = i;
    }
    return MODE_OK;
}

/* The error for a first record that is not a header with the two columns; shows its fields. */
static enum mode_status fail_header(const struct mode_pairs *l, const struct mode_csv *c, const char *hint,
                                    struct mode_error *err)
{
    struct mode_str got = {0};
    for (size_t i = 0; i < c->n_fields && i < 8; i++) mode_str_printf(&got, "%s\"%.60s\"", i ? ", " : "", c->field[i]);
    char *shown = mode_utf8_cleaned(got.data, got.len);
    enum mode_status st = MODE_FAIL(err, MODE_E_FORMAT,
                                    "%s, line %llu: expected a header with the columns \"%s\" (picture) and \"%s\" "
                                    "(caption), got %zu: %s%s. HINT: %s",
                                    l->name, (unsigned long long)l->line, l->o.img_key, l->o.caption_key, c->n_fields,
                                    shown, c->n_fields > 8 ? " ..." : "", hint);
    free(shown);
    mode_str_clear(&got);
    return st;
}

/* Parse the first record with this separator and look up the two columns. c->n_fields is 0 if it is not CSV. The parser
 * writes into its input, so it gets a copy of text [n], which the caller frees with c. */
static enum mode_status read_header(struct mode_csv *c, char **copy, size_t *picture, size_t *caption,
                                    const struct mode_pairs *l, const char *text, size_t n, char separator,
                                    struct mode_error *err)
{
    bool got;
    *copy = mode_xasprintf("%.*s", (int)n, text);
    mode_csv_init(c, *copy, strlen(*copy), separator, l->name);
    c->next_line = l->line;
    enum mode_status st = mode_csv_next(c, &got, err);
    if (st) c->n_fields = 0;
    if (!st) st = find_column(picture, c, l->o.img_key, err);
    if (!st) st = find_column(caption, c, l->o.caption_key, err);
    return st;
}

/* Fails if the first record would be a header with another separator. c: the record, with the separator given. */
static enum mode_status refuse_other_header(const struct mode_pairs *l, const struct mode_csv *c, size_t n,
                                            struct mode_error *err)
{
    static const char others[] = ",;|";
    enum mode_status st = MODE_OK;
    for (const char *s = others; !st && *s; s++) {
        char hint[64], *copy;
        struct mode_csv other;
        size_t picture, caption;
        const bool is_header = !read_header(&other, &copy, &picture, &caption, l, l->at, n, *s, NULL) &&
                               picture < other.n_fields && caption < other.n_fields;
        snprintf(hint, sizeof hint, "--csv-separator '%c'", *s);
        if (is_header) st = fail_header(l, c, hint, err);
        mode_csv_clear(&other);
        free(copy);
    }
    return st;
}

static enum mode_status choose_format(struct mode_pairs *l, struct mode_error *err)
{
    enum { LONGEST = 1 << 16 }; /* of a first record */
    const char *const key_hint = "--csv-img-key and --csv-caption-key name them, --csv-separator says what is between";
    const size_t rest = (size_t)(l->end - l->at), n = rest < LONGEST ? rest : LONGEST;
    const bool keys = strcmp(l->o.img_key, MODE_PAIRS_IMG_KEY) != 0 ||
                      strcmp(l->o.caption_key, MODE_PAIRS_CAPTION_KEY) != 0;
    const bool tab = l->o.separator == '\t';
    struct mode_error why;
    struct mode_csv c;
    char *copy;
    size_t picture, caption;
    if (n == 0) return MODE_OK;
    enum mode_status st = read_header(&c, &copy, &picture, &caption, l, l->at, n, l->o.separator, &why);
    const size_t found = st ? 0 : (picture < c.n_fields) + (caption < c.n_fields);
    if (st && (keys || !tab || c.n_fields)) {
        if (err) *err = why;
        goto out;
    }
    st = MODE_OK; /* a plain list has no quoting: a quote is an ordinary character */
    if (found == 2) {
        l->is_csv = l->has_header = true;
        l->picture = picture;
        l->caption = caption;
        l->n_columns = c.n_fields;
    } else if (found == 1 || keys) {
        st = fail_header(l, &c, key_hint, err);
    } else if (!tab && c.n_fields == 2) {
        l->is_csv = true;
        l->caption = 1;
        l->n_columns = 2;
    } else if (!tab) {
        st = fail_header(l, &c,
                         "--csv-img-key and --csv-caption-key name the columns; without a header there must be two, "
                         "picture and caption",
                         err);
    }
    if (!st && !found && !l->is_csv) st = refuse_other_header(l, &c, n, err);
    if (l->is_csv) {
        bool got;
        mode_csv_init(&l->csv, l->at, (size_t)(l->end - l->at), l->o.separator, l->name);
        l->csv.next_line = l->line;
        if (found == 2) st = mode_csv_next(&l->csv, &got, err);
    }
out:
    mode_csv_clear(&c);
    free(copy);
    return st;
}

enum mode_status mode_pairs_read(char **text, size_t *size, const char *list, struct mode_error *err)
{
    return mode_file_read(list, MAX_LIST, text, size, err);
}

enum mode_status mode_pairs_take(struct mode_pairs *l, char *text, size_t size, const char *list,
                                 const struct mode_pairs_options *o, struct mode_error *err)
{
    enum mode_status st;
    *l = (struct mode_pairs){.name = list, .o = *o, .text = text, .line = 1};
    if (!l->o.img_key) l->o.img_key = MODE_PAIRS_IMG_KEY;
    if (!l->o.caption_key) l->o.caption_key = MODE_PAIRS_CAPTION_KEY;
    if (!l->o.separator) l->o.separator = '\t';
    l->at = l->text;
    l->end = l->text + size;
    const char *nul = memchr(l->text, '\0', size);
    skip_comments(l);
    if (nul) {
        uint64_t line = 1;
        for (const char *c = l->text; c < nul; c++) line += *c == '\n';
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s, line %llu: holds a NUL byte, expected a text in UTF-8", list,
                       (unsigned long long)line);
    } else
        st = choose_format(l, err);
    if (st) mode_pairs_close(l);
    return st;
}

enum mode_status mode_pairs_open(struct mode_pairs *l, const char *list, const struct mode_pairs_options *o,
                                 struct mode_error *err)
{
    char *text;
    size_t size;
    enum mode_status st = mode_pairs_read(&text, &size, list, err);
    *l = (struct mode_pairs){0};
    return st ? st : mode_pairs_take(l, text, size, list, o, err);
}

static void judge(struct mode_pair *pair, const struct mode_pairs *l, struct mode_error *err)
{
    if (!mode_utf8_is_text(pair->picture, strlen(pair->picture)) ||
        !mode_utf8_is_text(pair->captions, strlen(pair->captions))) {
        pair->fault = MODE_PAIR_BAD_TEXT;
        MODE_FAIL(err, MODE_E_FORMAT, "%s, line %llu: is not UTF-8", l->name, (unsigned long long)pair->line);
    } else if (is_blank(pair->captions)) {
        pair->fault = MODE_PAIR_NO_CAPTION;
        MODE_FAIL(err, MODE_E_FORMAT, "%s, line %llu: no caption for the picture", l->name,
                  (unsigned long long)pair->line);
    }
}

static enum mode_status next_record(struct mode_pairs *l, struct mode_pair *pair, bool *got, struct mode_error *err)
{
    enum mode_status st = mode_csv_next(&l->csv, got, err);
    if (st || !*got) return st;
    *pair = (struct mode_pair){.line = l->csv.line};
    if (l->csv.n_fields != l->n_columns) {
        pair->fault = MODE_PAIR_BAD_TEXT;
        MODE_FAIL(err, MODE_E_FORMAT, "%s, line %llu: expected %zu columns as in the first line, got %zu", l->name,
                  (unsigned long long)pair->line, l->n_columns, l->csv.n_fields);
        return MODE_OK;
    }
    pair->picture = l->csv.field[l->picture];
    pair->captions = l->csv.field[l->caption];
    judge(pair, l, err);
    return MODE_OK;
}

enum mode_status mode_pairs_next(struct mode_pairs *l, struct mode_pair *pair, bool *got, struct mode_error *err)
{
    if (l->is_csv) return next_record(l, pair, got, err);
    *got = false;
    while (!*got && l->at < l->end) {
        char *line = l->at, *end = memchr(line, '\n', (size_t)(l->end - line));
        if (!end) end = l->end;
        l->at = end < l->end ? end + 1 : end;
        *pair = (struct mode_pair){.line = l->line++, .picture = line};
        while (end > line && end[-1] == '\r') end--;
        *end = '\0';
        *got = end > line && *line != '#';
    }
    if (!*got) return MODE_OK;
    char *tab = strchr(pair->picture, '\t');
    if (tab) {
        *tab = '\0';
        pair->captions = tab + 1;
        pair->many = strchr(tab + 1, '\t') != NULL;
        judge(pair, l, err);
    } else if (!mode_utf8_is_text(pair->picture, strlen(pair->picture))) {
        pair->captions = (char *)(uintptr_t) "";
        judge(pair, l, err);
    } else {
        pair->fault = MODE_PAIR_NO_CAPTION;
        MODE_FAIL(err, MODE_E_FORMAT, "%s, line %llu: no tab and caption after the picture%s", l->name,
                  (unsigned long long)pair->line,
                  strchr(pair->picture, ',') ? "; for commas as separators: --csv-separator ," : "");
    }
    return MODE_OK;
}

void mode_pairs_close(struct mode_pairs *l)
{
    mode_csv_clear(&l->csv);
    free(l->text);
    *l = (struct mode_pairs){0};
}
