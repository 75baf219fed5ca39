/* html_text.h - replaces character references (&amp; &#8217; &eacute;) by characters.
 *
 * Source: the HTML standard, section "character reference state". */
#ifndef MODE_DATA_HTML_TEXT_H
#define MODE_DATA_HTML_TEXT_H

#include "data/unicode.h"

/* Like browsers: the semicolon is optional after numbers and after the old Latin-1 names. */
void mode_html_unescape(struct mode_runes *r);
/* Only unambiguous references, closed by a semicolon; names in capitals stand for the capital (&EACUTE;). */
void mode_html_unescape_strict(struct mode_runes *r);

#endif
