/* mojibake.h - does a text look like UTF-8 that was read as something else?
 *
 * Certain neighbours hardly ever stand side by side in sound text and often do in damaged text: an accented small
 * letter before a currency sign, a C1 control anywhere. Source: the heuristic of ftfy 6.3 (its classes of characters
 * and its pairs), which open_clip's cleaning relies on; the code is ours. */
#ifndef MODE_DATA_MOJIBAKE_H
#define MODE_DATA_MOJIBAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Some pair in the n code points tells of damage. */
bool mode_text_is_bad(const uint32_t *p, size_t n);

#endif
