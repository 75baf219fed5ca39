/* code_pages.h - the single-byte encodings as which UTF-8 is often misread.
 *
 * Source: the Unicode consortium's mapping tables. In the Windows pages undefined bytes map to the C1 control of the
 * same number, and byte 0x1a to U+FFFD: the replacement that some other program wrote for a byte it could not
 * decode. */
#ifndef MODE_DATA_CODE_PAGES_H
#define MODE_DATA_CODE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

/* In the order in which they are tried. */
enum mode_code_page {
    MODE_PAGE_LATIN1,
    MODE_PAGE_1252,
    MODE_PAGE_1251,
    MODE_PAGE_1250,
    MODE_PAGE_1253,
    MODE_PAGE_1254,
    MODE_PAGE_1257,
    MODE_PAGE_LATIN2,
    MODE_PAGE_MACROMAN,
    MODE_PAGE_437,
    MODE_N_PAGES
};

static inline bool mode_page_is_windows(enum mode_code_page page)
{
    return page >= MODE_PAGE_1252 && page <= MODE_PAGE_1257;
}

/* The byte that encodes c in the page, -1 if none does. */
int mode_page_byte(enum mode_code_page page, uint32_t c);
/* The character of a byte of Windows-1252; the five undefined bytes become control characters. */
uint32_t mode_cp1252_to_rune(uint8_t byte);

#endif
