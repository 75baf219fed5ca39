#include "data/unicode.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void mode_runes_add(struct mode_runes *r, uint32_t c)
{
    if (r->len == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 64;
        r->data = mode_xrealloc(r->data, r->cap * sizeof *r->data);
    }
    r->data[r->len++] = c;
}

void mode_runes_add_all(struct mode_runes *r, const uint32_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) mode_runes_add(r, data[i]);
}

void mode_runes_clear(struct mode_runes *r)
{
    free(r->data);
    *r = (struct mode_runes){0};
}

/* ---- UTF-8 ---------------------------------------------------------------------------------------------- */

uint32_t mode_utf8_next(const char *text, size_t n_bytes, size_t *at)
{
    const unsigned char *p = (const unsigned char *)text + *at;
    size_t left = n_bytes - *at, need;
    uint32_t c = p[0];
    unsigned low = 0x80, high = 0xbf; /* of the second byte: rules out overlong forms, surrogates, > U+10FFFF */
    ++*at;
    if (c < 0x80) return c;
    if (c >= 0xc2 && c <= 0xdf) {
        need = 1;
        c &= 0x1f;
    } else if (c >= 0xe0 && c <= 0xef) {
        if (c == 0xe0) low = 0xa0;
        if (c == 0xed) high = 0x9f;
        need = 2;
        c &= 0x0f;
    } else if (c >= 0xf0 && c <= 0xf4) {
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
        need = 3;
        c &= 0x07;
    } else
        return 0xfffd;
    for (size_t i = 1; i <= need; i++) {
        if (i >= left || p[i] < low || p[i] > high) return 0xfffd;
        c = c << 6 | (p[i] & 0x3f);
        low = 0x80;
        high = 0xbf;
        ++*at;
    }
    return c;
}

int mode_utf8_put(uint32_t c, char out[4])
{
    return (int)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

void mode_runes_from_utf8(struct mode_runes *r, const char *text, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes;) mode_runes_add(r, mode_utf8_next(text, n_bytes, &at));
}

/* ---- normal forms --------------------------------------------------------------------------------------- */

/* Nothing below U+0300 composes with a predecessor, nor is a composition that NFC would undo. */
static bool below(const struct mode_runes *r, uint32_t limit)
{
    for (size_t i = 0; i < r->len; i++)
        if (r->data[i] >= limit) return false;
    return true;
}

static void normalise(struct mode_runes *r, utf8proc_option_t options)
{
    struct mode_str s = {0};
    utf8proc_uint8_t *out = NULL;
    for (size_t i = 0; i < r->len; i++) {
        char b[4];
        mode_str_add(&s, b, (size_t)mode_utf8_put(r->data[i], b));
    }
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s.data, (utf8proc_ssize_t)s.len, &out,
                                      UTF8PROC_STABLE | options);
    MODE_ASSERT(n >= 0); /* the input is well formed: it was encoded here */
    r->len = 0;
    mode_runes_from_utf8(r, (const char *)out, (size_t)n);
    free(out);
    mode_str_clear(&s);
}

void mode_runes_nfc(struct mode_runes *r)
{
    if (!below(r, 0x300)) normalise(r, UTF8PROC_COMPOSE);
}

void mode_runes_nfd(struct mode_runes *r)
{
    if (!below(r, 0xc0)) normalise(r, UTF8PROC_DECOMPOSE);
}

/* ---- classes -------------------------------------------------------------------------------------------- */

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool mode_rune_is_letter(uint32_t c)
{
    if (c < 0x80) return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool mode_rune_is_number(uint32_t c)
{
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool mode_rune_is_mark(uint32_t c)
{
    return c >= 0x300 && category(c) == UTF8PROC_CATEGORY_MN;
}

bool mode_rune_is_punct(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool mode_rune_is_other(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO ||
           k == UTF8PROC_CATEGORY_CS;
}

bool mode_rune_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* ---- lower case ----------------------------------------------------------------------------------------- */

static bool is_cased(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT || c == 0xaa ||
           c == 0xba;
}

/* Characters that do not end a word for the sigma rule (Unicode: Case_Ignorable). */
static bool is_case_ignorable(uint32_t c)
{
    static const uint32_t inner[] = {'\'', '.', ':', 0xb7, 0x387, 0x55f, 0x5f4, 0x2018, 0x2019, 0x2024, 0x2027};
    for (size_t i = 0; i < sizeof inner / sizeof inner[0]; i++)
        if (c == inner[i]) return true;
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK;
}

static bool ends_a_word(const struct mode_runes *r, size_t i)
{
    size_t before = i, after = i + 1;
    while (before > 0 && is_case_ignorable(r->data[before - 1])) before--;
    while (after < r->len && is_case_ignorable(r->data[after])) after++;
    return before > 0 && is_cased(r->data[before - 1]) && !(after < r->len && is_cased(r->data[after]));
}

void mode_runes_lower(struct mode_runes *r, bool final_sigma)
{
    enum { SIGMA = 0x3a3, I_WITH_DOT = 0x130, DOT_ABOVE = 0x307 };
    bool longer = false;
    struct mode_runes out = {0};
    for (size_t i = 0; i < r->len; i++) longer |= r->data[i] == I_WITH_DOT || r->data[i] == SIGMA;
    for (size_t i = 0; i < r->len; i++) {
        uint32_t c = r->data[i], lower;
        if (c < 0x80)
            lower = c >= 'A' && c <= 'Z' ? c + 32 : c;
        else if (c == SIGMA)
            lower = final_sigma && ends_a_word(r, i) ? 0x3c2 : 0x3c3;
        else if (c == I_WITH_DOT)
            lower = 'i';
        else
            lower = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        if (!longer)
            r->data[i] = lower;
        else {
            mode_runes_add(&out, lower);
            if (c == I_WITH_DOT) mode_runes_add(&out, DOT_ABOVE);
        }
    }
    if (longer) {
        mode_runes_clear(r);
        *r = out;
    }
}
