/* text_repair.h - undo UTF-8 that was read as some one-byte encoding ("cafÃ©", "itâ€™s", "–ø—Ä–∏–≤–µ—Ç").
 *
 * A line that looks damaged (mojibake.h) and is made of the characters of one code page is turned back into that page's
 * bytes; where these are UTF-8, that was the text. Bytes that were lost on the way (a no-break space that became a
 * blank, a byte that nobody could read) are put back as far as they can be. Where no one page fits the line, its
 * damaged stretches are repaired each on its own. All of it until nothing changes, which undoes repeated damage.
 *
 * Does what ftfy 6.3's fix_encoding does. */
#ifndef MODE_DATA_TEXT_REPAIR_H
#define MODE_DATA_TEXT_REPAIR_H

#include "data/unicode.h"

void mode_text_repair(struct mode_runes *r);

#endif
