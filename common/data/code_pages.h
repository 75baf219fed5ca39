/* code_pages.h - the one-byte encodings that UTF-8 is wrongly read as.
 *
 * Source: the Unicode consortium's mapping tables. In the Windows pages bytes without a character stand for the C1
 * control of the same number, and byte 0x1a for U+FFFD: what is left of a byte that somebody could not read. */
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

/* The byte of c in the page, -1 when it has none. */
int mode_page_byte(enum mode_code_page page, uint32_t c);
/* The character of a byte of Windows-1252; the five bytes it leaves open stay control characters. */
uint32_t mode_cp1252_to_rune(uint8_t byte);

#endif
