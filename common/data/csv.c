#include "data/csv.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

void mode_csv_init(struct mode_csv *c, char *text, size_t size, char separator, const char *name)
{
    *c = (struct mode_csv){
        .at = text, .end = text + size, .next_line = 1, .separator = separator, .name = name, .line = 1};
}

void mode_csv_clear(struct mode_csv *c)
{
    free(c->field);
    *c = (struct mode_csv){0};
}

static bool is_line_end(const struct mode_csv *c, const char *p)
{
    return p == c->end || *p == '\n' || (*p == '\r' && p + 1 < c->end && p[1] == '\n');
}

static void add_field(struct mode_csv *c, char *field)
{
    if (c->n_fields == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 8;
        c->field = mode_xrealloc(c->field, c->cap * sizeof *c->field);
    }
    c->field[c->n_fields++] = field;
}

/* Reads the quoted field at *p and moves *p past it. Its text is moved left over the quotes, in place; *to: its end. */
static enum mode_status read_quoted(struct mode_csv *c, char **p, char **to, struct mode_error *err)
{
    const uint64_t begin = c->next_line;
    char *from = *p + 1;
    for (*to = *p; from < c->end; *(*to)++ = *from++) {
        if (*from == '\n') c->next_line++;
        if (*from != '"') continue;
        if (from + 1 < c->end && from[1] == '"') {
            from++;
            continue;
        }
        *p = ++from;
        if (is_line_end(c, from) || *from == c->separator) return MODE_OK;
        return MODE_FAIL(
            err, MODE_E_FORMAT,
            "%s, line %llu: \"%.1s\" after the quote that ends field %zu, expected the separator or the end of "
            "the line. HINT: a quote within a quoted field is written twice",
            c->name, (unsigned long long)c->next_line, from, c->n_fields + 1);
    }
    return MODE_FAIL(err, MODE_E_FORMAT,
                     "%s, line %llu: the quote that begins field %zu is never closed. HINT: a field that begins with a "
                     "quote ends with one, and a quote within it is written twice",
                     c->name, (unsigned long long)begin, c->n_fields + 1);
}

enum mode_status mode_csv_next(struct mode_csv *c, bool *got, struct mode_error *err)
{
    enum mode_status st;
    char *p = c->at;
    c->n_fields = 0;
    *got = false;
    while (p < c->end && is_line_end(c, p)) {
        p += *p == '\r' ? 2 : 1;
        c->next_line++;
    }
    c->line = c->next_line;
    c->at = p;
    if (p == c->end) return MODE_OK;
    for (bool more = true; more;) {
        char *begin = p, *to;
        if (p < c->end && *p == '"') {
            if ((st = read_quoted(c, &p, &to, err))) return st;
        } else {
            while (!is_line_end(c, p) && *p != c->separator) p++;
            to = p;
        }
        if (memchr(begin, '\0', (size_t)(to - begin)))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s, line %llu: holds a NUL byte: is it a text in UTF-8?", c->name,
                             (unsigned long long)c->line);
        add_field(c, begin);
        more = p < c->end && *p == c->separator;
        if (!more && p < c->end) {
            p += *p == '\r';
            c->next_line++;
        }
        if (p < c->end) p++;
        *to = '\0'; /* only now: this byte may be the separator or line end just examined */
    }
    c->at = p;
    *got = true;
    return MODE_OK;
}
