#include "data/html_text.h"

#include "data/code_pages.h"
#include "data/html_entities.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_NAME = MODE_HTML_MAX_NAME };

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_ascii_letter(uint32_t c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z' && c < 0x80;
}

static int hex_value(uint32_t c)
{
    if (is_digit(c)) return (int)c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? (int)c - 'a' + 10 : -1;
}

/* "#123", "#x1f": code points read, 0 when there is no number; the number saturates. */
static size_t read_number(const uint32_t *p, size_t n, uint32_t *value)
{
    size_t i = 1;
    *value = 0;
    if (n < 2 || p[0] != '#') return 0;
    if (is_digit(p[1])) {
        for (; i < n && is_digit(p[i]); i++) *value = *value > 0x10ffff ? *value : *value * 10 + (p[i] - '0');
        return i;
    }
    if (n < 3 || (p[1] | 0x20) != 'x' || hex_value(p[2]) < 0) return 0;
    for (i = 2; i < n && hex_value(p[i]) >= 0; i++)
        *value = *value > 0x10ffff ? *value : *value * 16 + (uint32_t)hex_value(p[i]);
    return i;
}

static void add_numbered(struct mode_runes *out, uint32_t c)
{
    if (c == 0 || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
        mode_runes_add(out, 0xfffd);
    else if (c >= 0x80 && c <= 0x9f)
        mode_runes_add(out, mode_cp1252_to_rune((uint8_t)c));
    else if (!((c < 0x20 && c != '\t' && c != '\n' && c != '\f' && c != '\r') || c == 0x7f ||
               (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe))
        mode_runes_add(out, c);
}

static void add_entity(struct mode_runes *out, const struct mode_html_entity *e)
{
    mode_runes_add(out, e->rune);
    if (e->second) mode_runes_add(out, e->second);
}

/* Upper case of c, which may be two or three characters. */
static void add_upper(struct mode_runes *out, uint32_t c)
{
    static const struct {
        uint16_t rune;
        char upper[4];
    } longer[] = {{0xdf, "SS"}, {0xfb00, "FF"}, {0xfb01, "FI"}, {0xfb02, "FL"}, {0xfb03, "FFI"}, {0xfb04, "FFL"}};
    for (size_t i = 0; i < sizeof longer / sizeof longer[0]; i++) {
        if (longer[i].rune != c) continue;
        for (const char *p = longer[i].upper; *p; p++) mode_runes_add(out, (unsigned char)*p);
        return;
    }
    if (c == 0x149) mode_runes_add(out, 0x2bc);
    mode_runes_add(out, c == 0x149 ? 'N' : (uint32_t)utf8proc_toupper((utf8proc_int32_t)c));
}

/* Decodes the reference whose '&' precedes p; returns the code points consumed, 0 = none. */
static size_t take_open(struct mode_runes *out, const uint32_t *p, size_t n)
{
    uint32_t c;
    size_t len = read_number(p, n, &c);
    if (len) {
        add_numbered(out, c);
        return len + (len < n && p[len] == ';');
    }
    char name[MAX_NAME + 1];
    while (len < n && len < MAX_NAME && p[len] > ' ' && p[len] < 0x7f && !strchr("<&#;", (int)p[len])) {
        name[len] = (char)p[len];
        len++;
    }
    name[len] = '\0';
    const struct mode_html_entity *e = len < n && p[len] == ';' ? mode_html_entity_find(name) : NULL;
    if (e) {
        add_entity(out, e);
        return len + 1;
    }
    for (; len > 1; name[--len] = '\0') { /* the longest name (without semicolon) that the text starts with */
        e = mode_html_entity_find(name);
        if (!e || !e->is_open) continue;
        add_entity(out, e);
        return len;
    }
    return 0;
}

/* Whether the lenient parser would match a prefix of name; its capitals are then ambiguous. */
static bool starts_with_open_name(const char *name)
{
    char s[MAX_NAME + 1];
    size_t len = strlen(name);
    memcpy(s, name, len + 1);
    for (; len > 1; s[--len] = '\0') {
        const struct mode_html_entity *e = mode_html_entity_find(s);
        if (e && e->is_open) return true;
    }
    return false;
}

static size_t take_strict(struct mode_runes *out, const uint32_t *p, size_t n)
{
    enum { LONGEST = 24 };
    char name[MAX_NAME + 1], lower[MAX_NAME + 1];
    uint32_t c;
    size_t len = read_number(p, n, &c);
    if (len) {
        if (len > LONGEST + 1 || len >= n || p[len] != ';' || c == ';') return 0;
        add_numbered(out, c);
        return len + 1;
    }
    bool has_lower = false;
    while (len < n && len < LONGEST && p[len] < 0x80 && (is_ascii_letter(p[len]) || is_digit(p[len]))) {
        has_lower |= p[len] >= 'a' && p[len] <= 'z';
        name[len] = (char)p[len];
        lower[len] = (char)(p[len] >= 'A' && p[len] <= 'Z' ? p[len] + 32 : p[len]);
        len++;
    }
    if (len == 0 || len >= n || p[len] != ';') return 0;
    name[len] = lower[len] = '\0';
    const struct mode_html_entity *e = mode_html_entity_find(name);
    if (e) {
        add_entity(out, e);
        return len + 1;
    }
    if (has_lower || !(e = mode_html_entity_find(lower)) || starts_with_open_name(name)) return 0;
    add_upper(out, e->rune);
    if (e->second) add_upper(out, e->second);
    return len + 1;
}

static void unescape(struct mode_runes *r, size_t take(struct mode_runes *, const uint32_t *, size_t))
{
    struct mode_runes out = {0};
    bool found = false;
    for (size_t i = 0; i < r->len; i++) found |= r->data[i] == '&';
    if (!found) return;
    for (size_t i = 0; i < r->len;) {
        size_t used = r->data[i] == '&' ? take(&out, r->data + i + 1, r->len - i - 1) : 0;
        if (used)
            i += used + 1;
        else
            mode_runes_add(&out, r->data[i++]);
    }
    mode_runes_clear(r);
    *r = out;
}

void mode_html_unescape(struct mode_runes *r)
{
    unescape(r, take_open);
}

void mode_html_unescape_strict(struct mode_runes *r)
{
    unescape(r, take_strict);
}
