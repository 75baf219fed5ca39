/* text_clean.h - cleaning of a caption before CLIP's tokenizer splits it.
 *
 * Source: open_clip's cleaning (repair, unescape HTML twice, collapse white space, lower case) and Hugging Face's
 *          (NFC, blanks, lower case); docs/PARITY.md says where the first differs from the ftfy library. */
#ifndef MODE_DATA_TEXT_CLEAN_H
#define MODE_DATA_TEXT_CLEAN_H

#include "data/unicode.h"

/* Both replace r by its cleaned form. */
void mode_text_clean_openai(struct mode_runes *r);
void mode_text_clean_hf(struct mode_runes *r);

#endif
