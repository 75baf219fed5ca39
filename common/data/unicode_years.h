/* unicode_years.h - where the reference libraries use another Unicode version than utf8proc 2.8 (Unicode 15.0).
 *
 * Models were trained on the originals' ids, so each tokenizer must classify a character as its original does: CPython
 * 3.11 has Unicode 14 (normal forms, lower case), the regex module Unicode 17 (letters, numbers), Hugging Face's
 * tokenizers Unicode 16 in its regular expressions, 17 in its lower case, 12 in its normal forms and 8 in BERT's marks,
 * punctuation and controls. The lists of code points were found by querying the libraries for every code point
 * (tests/golden/check_tokenizers.py repeats that). */
#ifndef MODE_DATA_UNICODE_YEARS_H
#define MODE_DATA_UNICODE_YEARS_H

#include <stdbool.h>
#include <stdint.h>

enum mode_unicode_list {
    MODE_LIST_PYTHON_LETTERS, /* unassigned for utf8proc, a letter for the regex module */
    MODE_LIST_PYTHON_NUMBERS,
    MODE_LIST_HF_LETTERS, /* the same for Hugging Face's regular expressions */
    MODE_LIST_HF_NUMBERS,
    MODE_LIST_BERT_NOT_OTHER, /* C* for utf8proc, not for BERT's cleaning */
    MODE_LIST_BERT_NOT_MARK,
    MODE_LIST_BERT_NOT_PUNCT,
    MODE_LIST_HF_STARTERS,     /* of combining class 0 and without composition there */
    MODE_LIST_PYTHON_STARTERS, /* the same in CPython */
    MODE_LIST_PYTHON_NOT_IGNORABLE
};

bool mode_unicode_in(enum mode_unicode_list list, uint32_t c);
/* Lower case of capitals added after Unicode 15; c for any other. */
uint32_t mode_unicode_young_lower(uint32_t c);

#endif
