#include "base/str.h"

#include "base/error.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mode_xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    MODE_ASSERT(p);
    return p;
}

void *mode_xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    MODE_ASSERT(p);
    return p;
}

void *mode_xrealloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    MODE_ASSERT(p);
    return p;
}

char *mode_xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(mode_xmalloc(n), s, n);
}

char *mode_xasprintf(const char *fmt, ...)
{
    char *p = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&p, fmt, ap);
    va_end(ap);
    MODE_ASSERT(n >= 0);
    return p;
}

static void str_reserve(struct mode_str *s, size_t more)
{
    size_t want = s->len + more + 1;
    if (want <= s->cap) return;
    size_t cap = s->cap ? s->cap : 64;
    while (cap < want) cap *= 2;
    s->data = mode_xrealloc(s->data, cap);
    s->cap = cap;
}

void mode_str_add(struct mode_str *s, const void *data, size_t n)
{
    str_reserve(s, n);
    if (n) memcpy(s->data + s->len, data, n);
    s->len += n;
    s->data[s->len] = '\0';
}

void mode_str_add_cstr(struct mode_str *s, const char *text)
{
    mode_str_add(s, text, strlen(text));
}

void mode_str_add_char(struct mode_str *s, char c)
{
    mode_str_add(s, &c, 1);
}

void mode_str_printf(struct mode_str *s, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    MODE_ASSERT(n >= 0);
    str_reserve(s, (size_t)n);
    vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
    va_end(again);
    s->len += (size_t)n;
}

void mode_str_add_html(struct mode_str *s, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&': mode_str_add_cstr(s, "&amp;"); break;
        case '<': mode_str_add_cstr(s, "&lt;"); break;
        case '>': mode_str_add_cstr(s, "&gt;"); break;
        case '"': mode_str_add_cstr(s, "&quot;"); break;
        case '\'': mode_str_add_cstr(s, "&#39;"); break;
        default: mode_str_add_char(s, *text);
        }
    }
}

void mode_str_reset(struct mode_str *s)
{
    s->len = 0;
    if (s->data) s->data[0] = '\0';
}

void mode_str_clear(struct mode_str *s)
{
    free(s->data);
    *s = (struct mode_str){0};
}

size_t mode_str_distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    if (na > 63 || nb > 63) return SIZE_MAX;
    size_t row[64];
    for (size_t j = 0; j <= nb; j++) row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}
