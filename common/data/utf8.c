#include "data/utf8.h"

#include <stdint.h>
#include <utf8proc.h>

bool mode_utf8_is_text(const char *s, size_t n)
{
    const uint8_t *p = (const uint8_t *)s;
    while (n > 0) {
        if (*p == 0) return false;
        if (*p < 0x80) {
            p++;
            n--;
            continue;
        }
        utf8proc_int32_t c;
        const utf8proc_ssize_t k = utf8proc_iterate(p, n < 4 ? (utf8proc_ssize_t)n : 4, &c);
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}
