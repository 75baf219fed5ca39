/* mojibake.h - detects UTF-8 text that was decoded with a wrong encoding.
 *
 * Certain character pairs are rare in correct text and frequent in mojibake, such as an accented small letter before a
 * currency sign, or a C1 control anywhere. Source: the heuristic of ftfy 6.3 (its character classes and pairs), which
 * open_clip's text cleaning relies on; the code is our own. */
#ifndef MODE_DATA_MOJIBAKE_H
#define MODE_DATA_MOJIBAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether a pair among the n code points indicates damage. */
bool mode_text_is_bad(const uint32_t *p, size_t n);

#endif
