/* unicode.h - text as an array of code points, and the few questions the tokenizers ask about one.
 *
 *     struct mode_runes r = {0};
 *     mode_runes_from_utf8(&r, text, n_bytes);     // bad bytes become U+FFFD
 *     mode_runes_nfc(&r);
 *     mode_runes_lower(&r, true);
 *     mode_runes_clear(&r);
 *
 * Properties are those of the utf8proc library (2.8: Unicode 15). */
#ifndef MODE_DATA_UNICODE_H
#define MODE_DATA_UNICODE_H

#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_runes {
    uint32_t *data;
    size_t len, cap;
};

void mode_runes_add(struct mode_runes *r, uint32_t c);
void mode_runes_add_all(struct mode_runes *r, const uint32_t *data, size_t n);
void mode_runes_clear(struct mode_runes *r);
/* Append the code points of text; each maximal ill-formed piece is one U+FFFD. */
void mode_runes_from_utf8(struct mode_runes *r, const char *text, size_t n_bytes);
/* One code point of text at *at, which moves past it (at least one byte); U+FFFD for an ill-formed piece. */
uint32_t mode_utf8_next(const char *text, size_t n_bytes, size_t *at);
/* Bytes of c's UTF-8 form, 1..4, into out. */
int mode_utf8_put(uint32_t c, char out[4]);

void mode_runes_nfc(struct mode_runes *r);
void mode_runes_nfd(struct mode_runes *r);
/* Full lower case. final_sigma: a capital sigma that ends a word becomes the final form. */
void mode_runes_lower(struct mode_runes *r, bool final_sigma);

bool mode_rune_is_letter(uint32_t c); /* categories L*                                  */
bool mode_rune_is_number(uint32_t c); /* categories N*                                  */
bool mode_rune_is_mark(uint32_t c);   /* category Mn                                    */
bool mode_rune_is_punct(uint32_t c);  /* categories P*                                  */
bool mode_rune_is_other(uint32_t c);  /* Cc, Cf, Co, Cs: control, format, private, lone */
bool mode_rune_is_space(uint32_t c);  /* White_Space                                    */

#endif
