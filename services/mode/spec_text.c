#include "spec_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COLUMNS = 44 }; /* of a key and its value beside which a comment fits */

static size_t columns_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static char *in_a_line(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = ' ';
    return text;
}

static void write_row(struct spec_text *t, const struct spec_text_row *row, size_t at)
{
    const size_t columns = columns_of(row->key);
    const int indent = t->in_section ? 2 : 0;
    if (!*row->comment)
        mode_str_printf(&t->out, "%s\n", row->key);
    else if (columns > MOST_COLUMNS)
        mode_str_printf(&t->out, "%*s# %s\n%s\n", indent, "", row->comment, row->key);
    else
        mode_str_printf(&t->out, "%s%*s# %s\n", row->key, (int)(at - columns), "", row->comment);
}

static void write_rows(struct spec_text *t)
{
    size_t at = 0;
    for (size_t i = 0; i < t->n; i++) {
        const size_t columns = columns_of(t->row[i].key);
        if (columns <= MOST_COLUMNS && columns > at && *t->row[i].comment) at = columns;
    }
    for (size_t i = 0; i < t->n; i++) {
        write_row(t, &t->row[i], at + 2);
        free(t->row[i].key);
        free(t->row[i].comment);
    }
    t->n = 0;
}

static void add_row(struct spec_text *t, char *key, char *comment)
{
    t->row = mode_xrealloc(t->row, (t->n + 1) * sizeof *t->row);
    t->row[t->n++] = (struct spec_text_row){key, in_a_line(comment)};
}

static char *format(const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    const int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *text = mode_xmalloc((size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    return text;
}

void spec_text_section(struct spec_text *t, const char *name, const char *comment)
{
    write_rows(t);
    t->in_section = false;
    mode_str_printf(&t->out, "\n%s:%s%s\n", name, *comment ? "  # " : "", comment);
    t->in_section = true;
}

void spec_text_key(struct spec_text *t, const char *key, const char *value, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_row(t, mode_xasprintf("%s%s:%s%s", t->in_section ? "  " : "", key, *value ? " " : "", value), format(fmt, ap));
    va_end(ap);
}

void spec_text_example(struct spec_text *t, const char *key, const char *value, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_row(t, mode_xasprintf("%s# %s: %s", t->in_section ? "  " : "", key, value), format(fmt, ap));
    va_end(ap);
}

void spec_text_comment(struct spec_text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = format(fmt, ap);
    va_end(ap);
    add_row(t, mode_xasprintf("%s# %s", t->in_section ? "  " : "", in_a_line(text)), mode_xstrdup(""));
    free(text);
}

void spec_text_blank(struct spec_text *t)
{
    write_rows(t);
    t->in_section = false;
    mode_str_add_char(&t->out, '\n');
}

const char *spec_text_done(struct spec_text *t)
{
    write_rows(t);
    return t->out.data ? t->out.data : "";
}

void spec_text_clear(struct spec_text *t)
{
    write_rows(t);
    free(t->row);
    mode_str_clear(&t->out);
    *t = (struct spec_text){0};
}

/* Plain where no reader could take it for anything else. */
char *spec_text_string(const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./";
    static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off"};
    bool quote = !text[0] || text[strspn(text, plain)] || !strchr(plain, text[0]) || strchr("0123456789-.", text[0]);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) quote |= strcmp(text, words[i]) == 0;
    struct mode_str s = {0};
    if (quote) mode_str_add_char(&s, '"');
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            mode_str_printf(&s, "\\%c", c);
        else if (c < ' ' || c == 0x7f)
            mode_str_printf(&s, "\\x%02x", c);
        else
            mode_str_add_char(&s, (char)c);
    }
    if (quote) mode_str_add_char(&s, '"');
    return s.data;
}

char *spec_text_shell(const char *word)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:=,+@%^";
    struct mode_str s = {0};
    const bool quote = !*word || word[strspn(word, plain)];
    if (quote) mode_str_add_char(&s, '\'');
    for (const char *p = word; *p; p++) {
        if (*p == '\'')
            mode_str_add_cstr(&s, "'\\''");
        else
            mode_str_add_char(&s, (unsigned char)*p < ' ' || *p == 0x7f ? ' ' : *p);
    }
    if (quote) mode_str_add_char(&s, '\'');
    return s.data;
}
