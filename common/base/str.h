/* str.h - a growing byte string.
 *
 *     struct mode_str s = {0};
 *     mode_str_printf(&s, "%d shards", n);
 *     ...
 *     mode_str_clear(&s);
 *
 * data is always NUL-terminated once anything was added, and NULL before. Running out of memory aborts: sizes here are
 * chosen by this program, not by a peer. */
#ifndef MODE_BASE_STR_H
#define MODE_BASE_STR_H

#include <stdarg.h>
#include <stddef.h>

struct mode_str {
    char *data;
    size_t len, cap; /* bytes; cap counts the NUL */
};

void mode_str_add(struct mode_str *s, const void *data, size_t n);
void mode_str_add_cstr(struct mode_str *s, const char *text);
void mode_str_add_char(struct mode_str *s, char c);
void mode_str_printf(struct mode_str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Text with & < > " ' escaped, for HTML and SVG. */
void mode_str_add_html(struct mode_str *s, const char *text);
void mode_str_reset(struct mode_str *s); /* empty, keeps the memory */
void mode_str_clear(struct mode_str *s); /* empty, frees */

/* The ending of a counted noun: printf("%d shard%s", n, MODE_PLURAL(n)). */
#define MODE_PLURAL(n) ((n) == 1 ? "" : "s")

/* Levenshtein distance in bytes, for "did you mean" hints; SIZE_MAX for texts over 63 bytes. */
size_t mode_str_distance(const char *a, const char *b);

/* Allocation that aborts on exhaustion, for sizes chosen by us. Sizes chosen by a file or a peer go through
 * malloc and MODE_E_MEMORY. */
void *mode_xmalloc(size_t n);
void *mode_xcalloc(size_t n, size_t size);
void *mode_xrealloc(void *p, size_t n);
char *mode_xstrdup(const char *s);
char *mode_xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
