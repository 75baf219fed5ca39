/* utf8.h - validates UTF-8 text.
 *
 * Threads: pure. */
#ifndef MODE_DATA_UTF8_H
#define MODE_DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Well-formed UTF-8 (no surrogates, no overlong forms, at most U+10FFFF) without a NUL. */
bool mode_utf8_is_text(const char *s, size_t n);
/* s with every byte that is not part of such text replaced by U+FFFD; the caller frees. */
char *mode_utf8_cleaned(const char *s, size_t n);

#endif
