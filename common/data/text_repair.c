#include "data/text_repair.h"

#include <string.h>

/* Windows-1252, bytes 0x80..0x9f. Source: the Unicode consortium's mapping table. */
static const uint16_t high_cp1252[32] = {
    0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
    0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178,
};
enum { NO_BYTE = -1, LOST = -2, REPLACEMENT = 0xfffd, NBSP = 0xa0, A_GRAVE = 0xe0 };

uint32_t mode_cp1252_to_rune(uint8_t byte)
{
    return byte >= 0x80 && byte <= 0x9f ? high_cp1252[byte - 0x80] : byte;
}

/* The byte that was read as c by Latin-1 or Windows-1252; LOST for the replacement character. */
static int byte_of(uint32_t c)
{
    if (c <= 0xff) return (int)c;
    if (c == REPLACEMENT) return LOST;
    for (int i = 0; i < 32; i++)
        if (high_cp1252[i] == c) return 0x80 + i;
    return NO_BYTE;
}

/* Characters that do stand after a letter in sound text: dots, dashes, quotes, marks of trade. */
static bool is_plausible(uint32_t c)
{
    static const uint16_t list[] = {NBSP,   0xab,   0xbb,   0xb7,   0xb4,   0xae,   0x2122, 0x2026, 0x2013, 0x2014,
                                    0x2018, 0x2019, 0x201a, 0x201c, 0x201d, 0x201e, 0x2022, 0x2039, 0x203a, 0xad};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (list[i] == c) return true;
    return false;
}

/* A UTF-8 sequence hidden at r[i]: how many characters it takes (0 = none) and what it says. */
static size_t hidden(const struct mode_runes *r, size_t i, uint32_t *meant)
{
    int lead = byte_of(r->data[i]);
    size_t n = lead >= 0xc2 && lead <= 0xdf   ? 2
               : lead >= 0xe0 && lead <= 0xef ? 3
               : lead >= 0xf0 && lead <= 0xf4 ? 4
                                              : 0;
    if (n == 0 || i + n > r->len) return 0;
    char bytes[4] = {(char)lead};
    bool lost = false;
    for (size_t k = 1; k < n; k++) {
        int b = byte_of(r->data[i + k]);
        if (b == LOST && n > 2) {
            lost = true;
            b = 0xa0; /* any legal continuation: what it was is lost, and the answer will say so */
        }
        if (b < 0x80 || b > 0xbf) return 0;
        bytes[k] = (char)b;
    }
    size_t at = 0;
    *meant = mode_utf8_next(bytes, n, &at);
    if (at != n || (*meant == REPLACEMENT && lead != 0xef)) return 0; /* overlong, a surrogate, too large */
    if (lost) *meant = REPLACEMENT;
    return n;
}

static bool is_lower_ascii(uint32_t c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_cp1252_letter(uint32_t c)
{
    return c == 0x152 || c == 0x153 || c == 0x160 || c == 0x161 || c == 0x178 || c == 0x17d || c == 0x17e;
}

/* Is the sequence of n characters at r[i] damage on its own evidence? For two characters the first reads as an
 * accented capital (or sharp s), and capitals do not stand inside a word of small letters. */
static bool is_damage(const struct mode_runes *r, size_t i, size_t n)
{
    uint32_t lead = r->data[i], second = r->data[i + 1];
    if (n == 4) return true;
    if (n == 3) return !(is_plausible(second) && is_plausible(r->data[i + 2]));
    if (lead != 0xdf && i > 0 && is_lower_ascii(r->data[i - 1])) return true;
    if (lead == 0xc2 || lead == 0xc3)
        return second != 0x2019 && second != 0x2026; /* a name in capitals, its 's or dots */
    if (is_cp1252_letter(second)) return false;
    if (!is_plausible(second)) return true;
    return second != 0x2019 && i + 2 < r->len && is_lower_ascii(r->data[i + 2]);
}

static bool follows(const struct mode_runes *r, size_t i, const char *word)
{
    for (; *word; word++, i++)
        if (i >= r->len || r->data[i] != (unsigned char)*word) return false;
    return true;
}

/* "Ã " and "Â ": the second byte was a no-break space, which something turned into a blank. Taken for damage where
 * the text has other damage, where a small letter stands before (a blank between is fine), or at the start. Returns
 * the characters used. */
static size_t spaced(struct mode_runes *out, const struct mode_runes *r, size_t i, bool has_damage)
{
    uint32_t c = r->data[i];
    if ((c != 0xc2 && c != 0xc3) || i + 1 >= r->len || r->data[i + 1] != ' ') return 0;
    bool after_letter = i > 0 && (is_lower_ascii(r->data[i - 1]) ||
                                  (mode_rune_is_space(r->data[i - 1]) && i > 1 && is_lower_ascii(r->data[i - 2])));
    if (i > 0 && !after_letter && !has_damage) return 0;
    if (c == 0xc2) {
        mode_runes_add(out, NBSP);
        return 2;
    }
    mode_runes_add(out, A_GRAVE);
    /* mostly the word "à" itself, whose blank stays; Portuguese "às" and "àquele" are one word */
    static const char *const joined[] = {" ", "quele", "quela", "quilo", "s "};
    for (size_t k = 0; k < sizeof joined / sizeof joined[0]; k++)
        if (follows(r, i + 2, joined[k])) return 2;
    return 1;
}

/* Is some hidden sequence damage for certain, and does every character beyond ASCII belong to one? Then all are. */
static void survey(const struct mode_runes *r, bool *has_damage, bool *throughout)
{
    uint32_t meant;
    *has_damage = false;
    *throughout = true;
    for (size_t i = 0, n; i < r->len; i += n ? n : 1) {
        n = r->data[i] < 0x80 ? 1 : hidden(r, i, &meant);
        *has_damage |= n > 1 && is_damage(r, i, n);
        *throughout &= n > 0;
    }
    *throughout &= *has_damage;
}

bool mode_text_repair(struct mode_runes *r)
{
    struct mode_runes out = {0};
    bool changed = false, has_lead = false;
    for (size_t i = 0; i < r->len && !has_lead; i++) has_lead = r->data[i] >= 0xc2 && r->data[i] <= 0xf4;
    if (!has_lead) return false;
    bool has_damage, throughout;
    survey(r, &has_damage, &throughout);
    for (size_t i = 0; i < r->len;) {
        uint32_t meant;
        size_t n = hidden(r, i, &meant);
        if (n == 0) {
            n = spaced(&out, r, i, has_damage);
            changed |= n > 0;
            if (n == 0) mode_runes_add(&out, r->data[i]);
            i += n ? n : 1;
            continue;
        }
        /* a chain of hidden sequences vouches for its members */
        size_t end = i, links = 0;
        bool damage = throughout;
        for (size_t m; end < r->len && (m = hidden(r, end, &meant)) > 0; end += m, links++)
            damage |= is_damage(r, end, m);
        damage |= links > 1;
        changed |= damage;
        while (i < end) {
            n = hidden(r, i, &meant);
            if (damage)
                mode_runes_add(&out, meant);
            else
                mode_runes_add_all(&out, r->data + i, n);
            i += n;
        }
    }
    mode_runes_clear(r);
    *r = out;
    return changed;
}
