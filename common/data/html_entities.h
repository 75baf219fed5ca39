/* html_entities.h - the named character references of HTML.
 *
 * Source: the HTML standard, section "Named character references" (all 2,125 names). */
#ifndef MODE_DATA_HTML_ENTITIES_H
#define MODE_DATA_HTML_ENTITIES_H

#include <stdbool.h>
#include <stdint.h>

enum { MODE_HTML_MAX_NAME = 31 };

struct mode_html_entity {
    char name[MODE_HTML_MAX_NAME + 1]; /* without & and ; */
    uint32_t rune, second;             /* second: 0 = only one */
    bool is_open;                      /* understood without a semicolon too */
};

/* NULL when there is no such name. */
const struct mode_html_entity *mode_html_entity_find(const char *name);

#endif
