#include "data/utf8.h"

#include "base/str.h"

#include <stdint.h>
#include <utf8proc.h>

/* Bytes of the character at p, 0 when there is none. */
static size_t character(const uint8_t *p, size_t n)
{
    utf8proc_int32_t c;
    if (*p < 0x80) return *p != 0;
    const utf8proc_ssize_t k = utf8proc_iterate(p, n < 4 ? (utf8proc_ssize_t)n : 4, &c);
    return k > 0 ? (size_t)k : 0;
}

bool mode_utf8_is_text(const char *s, size_t n)
{
    const uint8_t *p = (const uint8_t *)s;
    while (n > 0) {
        const size_t k = character(p, n);
        if (k == 0) return false;
        p += k;
        n -= k;
    }
    return true;
}

char *mode_utf8_cleaned(const char *s, size_t n)
{
    struct mode_str out = {0};
    mode_str_add(&out, s, 0);
    while (n > 0) {
        size_t k = character((const uint8_t *)s, n);
        if (k)
            mode_str_add(&out, s, k);
        else {
            mode_str_add_cstr(&out, "\xef\xbf\xbd");
            k = 1;
        }
        s += k;
        n -= k;
    }
    return out.data;
}
