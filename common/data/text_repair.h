/* text_repair.h - undoes UTF-8 that was decoded as some single-byte encoding ("cafÃ©", "itâ€™s", "–ø—Ä–∏–≤–µ—Ç").
 *
 * A line that looks damaged (mojibake.h) and consists of characters of one code page is encoded in that page; if the
 * bytes are valid UTF-8, they are the original text. Lost bytes (a no-break space that became a space, a byte that was
 * replaced) are restored where possible. If no single page fits the line, each damaged stretch is repaired on its own.
 * The steps repeat until nothing changes, which undoes repeated damage.
 *
 * Equivalent to ftfy 6.3's fix_encoding. */
#ifndef MODE_DATA_TEXT_REPAIR_H
#define MODE_DATA_TEXT_REPAIR_H

#include "data/unicode.h"

void mode_text_repair(struct mode_runes *r);

#endif
