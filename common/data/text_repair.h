/* text_repair.h - undo UTF-8 that was read as Latin-1 or Windows-1252 ("cafÃ©", "itâ€™s").
 *
 * A pass looks for runs of characters whose Windows-1252 (or Latin-1) bytes are a UTF-8 sequence, and replaces those
 * that are hardly ever meant: sequences of three and four bytes, two-byte sequences led by Â and Ã, and others whose
 * second character is not ordinary punctuation or that stand next to each other. Callers repeat until nothing
 * changes, which undoes repeated damage.
 *
 * This is the common part of what the ftfy library repairs, by rules of our own: damage through other code pages
 * (Windows-1250/51/53, MacRoman, ...) stays. */
#ifndef MODE_DATA_TEXT_REPAIR_H
#define MODE_DATA_TEXT_REPAIR_H

#include "data/unicode.h"

/* The character of a byte of Windows-1252; the five bytes it leaves open stay control characters. */
uint32_t mode_cp1252_to_rune(uint8_t byte);
/* One pass over r; true when something was replaced. */
bool mode_text_repair(struct mode_runes *r);

#endif
