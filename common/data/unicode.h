/* unicode.h - text as an array of code points, and the character properties that the tokenizers need.
 *
 *     struct mode_runes r = {0};
 *     mode_runes_from_utf8(&r, text, n_bytes);     // bad bytes become U+FFFD
 *     mode_runes_nfc(&r, MODE_AS_PYTHON);
 *     mode_runes_lower(&r, MODE_AS_PYTHON);
 *     mode_runes_clear(&r);
 *
 * Properties are those of utf8proc 2.8 (Unicode 15), except where a reference library uses another Unicode version:
 * unicode_years.h. */
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
/* Append the code points of text; each maximal subpart of an ill-formed sequence becomes one U+FFFD. */
void mode_runes_from_utf8(struct mode_runes *r, const char *text, size_t n_bytes);
/* Decodes the code point at *at and moves *at past it (at least one byte); U+FFFD for an ill-formed sequence. */
uint32_t mode_utf8_next(const char *text, size_t n_bytes, size_t *at);
/* Encodes c as UTF-8 into out; returns the number of bytes, 1..4. */
int mode_utf8_put(uint32_t c, char out[4]);

/* Which library's tables and rules apply. */
enum mode_unicode_as {
    MODE_AS_PYTHON, /* CPython 3.11's strings and the regex module           */
    MODE_AS_HF      /* Hugging Face's tokenizers library                     */
};

void mode_runes_nfc(struct mode_runes *r, enum mode_unicode_as as);
void mode_runes_nfd(struct mode_runes *r, enum mode_unicode_as as);
/* Full lower-casing. Python maps a word-final capital sigma to the final form, Hugging Face does not. */
void mode_runes_lower(struct mode_runes *r, enum mode_unicode_as as);

bool mode_rune_is_letter(uint32_t c, enum mode_unicode_as as); /* categories L* */
bool mode_rune_is_number(uint32_t c, enum mode_unicode_as as); /* categories N* */
bool mode_rune_is_space(uint32_t c);                           /* White_Space   */
/* The rest as in Hugging Face's BERT. */
bool mode_rune_is_mark(uint32_t c);  /* category Mn                                    */
bool mode_rune_is_punct(uint32_t c); /* categories P*, and the symbols of ASCII        */
bool mode_rune_is_other(uint32_t c); /* Cc, Cf, Co, Cs: control, format, private, lone */

#endif
