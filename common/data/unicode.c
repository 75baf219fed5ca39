#include "data/unicode.h"

#include "base/error.h"
#include "data/unicode_years.h"

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

static bool below(const struct mode_runes *r, uint32_t limit)
{
    for (size_t i = 0; i < r->len; i++)
        if (r->data[i] >= limit) return false;
    return true;
}

static int combining_class(uint32_t c)
{
    return c < 0x300 ? 0 : utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

/* Sorts the marks between two starters by class, stably. Texts are untrusted and a run may be the whole text, so long
 * runs use counting sort instead of insertion sort. */
static void order_marks(uint32_t *p, size_t n)
{
    enum { LONG = 24 };
    if (n <= LONG) {
        for (size_t i = 1; i < n; i++) {
            uint32_t c = p[i];
            size_t k = i;
            for (int class = combining_class(c); k > 0 && combining_class(p[k - 1]) > class; k--) p[k] = p[k - 1];
            p[k] = c;
        }
        return;
    }
    size_t at[257] = {0};
    uint32_t *sorted = mode_xmalloc(n * sizeof *sorted);
    for (size_t i = 0; i < n; i++) at[combining_class(p[i]) + 1]++;
    for (int class = 0; class < 256; class ++) at[class + 1] += at[class];
    for (size_t i = 0; i < n; i++) sorted[at[combining_class(p[i])]++] = p[i];
    memcpy(p, sorted, n * sizeof *p);
    free(sorted);
}

/* Append the normal form of n code points. */
static void add_normal(struct mode_runes *out, const uint32_t *p, size_t n, bool compose)
{
    utf8proc_int32_t parts[32];
    size_t begin = out->len;
    for (size_t i = 0; i < n; i++) {
        int ignored = 0;
        if (p[i] < 0xc0) {
            mode_runes_add(out, p[i]);
            continue;
        }
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)p[i], parts, 32,
                                                     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &ignored);
        MODE_ASSERT(k >= 1 && k <= 32);
        for (utf8proc_ssize_t j = 0; j < k; j++) mode_runes_add(out, (uint32_t)parts[j]);
    }
    for (size_t i = begin; i < out->len;) {
        size_t end = i;
        while (end < out->len && combining_class(out->data[end]) != 0) end++;
        order_marks(out->data + i, end - i);
        i = end + (end == i);
    }
    if (!compose || out->len == begin) return;
    utf8proc_ssize_t m = utf8proc_normalize_utf32((utf8proc_int32_t *)(out->data + begin),
                                                  (utf8proc_ssize_t)(out->len - begin),
                                                  UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    MODE_ASSERT(m > 0);
    out->len = begin + (size_t)m;
}

/* A character that the reference treats as a starter that does not combine splits the text into two independent
 * ones. */
static void normalise(struct mode_runes *r, enum mode_unicode_as as, bool compose)
{
    enum mode_unicode_list apart = as == MODE_AS_HF ? MODE_LIST_HF_STARTERS : MODE_LIST_PYTHON_STARTERS;
    struct mode_runes out = {0};
    for (size_t i = 0; i < r->len;) {
        size_t end = i;
        while (end < r->len && (r->data[end] < 0x7fd || !mode_unicode_in(apart, r->data[end]))) end++;
        add_normal(&out, r->data + i, end - i, compose);
        if (end < r->len) mode_runes_add(&out, r->data[end++]);
        i = end;
    }
    mode_runes_clear(r);
    *r = out;
}

void mode_runes_nfc(struct mode_runes *r, enum mode_unicode_as as)
{
    /* nothing below U+0300 composes with a predecessor or is changed by NFC */
    if (!below(r, 0x300)) normalise(r, as, true);
}

void mode_runes_nfd(struct mode_runes *r, enum mode_unicode_as as)
{
    if (!below(r, 0xc0)) normalise(r, as, false);
}

/* ---- classes -------------------------------------------------------------------------------------------- */

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool mode_rune_is_letter(uint32_t c, enum mode_unicode_as as)
{
    if (c < 0x80) return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    utf8proc_category_t k = category(c);
    if (k == UTF8PROC_CATEGORY_CN)
        return mode_unicode_in(as == MODE_AS_HF ? MODE_LIST_HF_LETTERS : MODE_LIST_PYTHON_LETTERS, c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool mode_rune_is_number(uint32_t c, enum mode_unicode_as as)
{
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t k = category(c);
    if (k == UTF8PROC_CATEGORY_CN)
        return mode_unicode_in(as == MODE_AS_HF ? MODE_LIST_HF_NUMBERS : MODE_LIST_PYTHON_NUMBERS, c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool mode_rune_is_mark(uint32_t c)
{
    if (c < 0x300) return false;
    return (category(c) == UTF8PROC_CATEGORY_MN && !mode_unicode_in(MODE_LIST_BERT_NOT_MARK, c)) || c == 0x1734;
}

bool mode_rune_is_punct(uint32_t c)
{
    if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t k = category(c);
    return (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO && !mode_unicode_in(MODE_LIST_BERT_NOT_PUNCT, c)) ||
           c == 0x166d || c == 0x111c9;
}

bool mode_rune_is_other(uint32_t c)
{
    if (c < 0x80) return c < 0x20 || c == 0x7f;
    utf8proc_category_t k = category(c);
    return (k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO ||
            k == UTF8PROC_CATEGORY_CS) &&
           !mode_unicode_in(MODE_LIST_BERT_NOT_OTHER, c);
}

bool mode_rune_is_space(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

/* ---- lower case ----------------------------------------------------------------------------------------- */

/* Unicode: Cased. */
static bool is_cased(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT || c == 0xaa ||
           c == 0xba || (c >= 0x2160 && c <= 0x217f) || (c >= 0x24b6 && c <= 0x24e9) ||
           (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

/* Unicode: Case_Ignorable, characters that do not end a word for the sigma rule. */
static bool is_case_ignorable(uint32_t c)
{
    static const uint16_t inner[] = {'\'',   '.',    ':',    0xb7,   0x387,  0x55f,  0x5f4,  0x2018, 0x2019,
                                     0x2024, 0x2027, 0xfe13, 0xfe52, 0xfe55, 0xff07, 0xff0e, 0xff1a};
    for (size_t i = 0; i < sizeof inner / sizeof inner[0]; i++)
        if (c == inner[i]) return true;
    utf8proc_category_t k = category(c);
    return (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
            k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK) &&
           !mode_unicode_in(MODE_LIST_PYTHON_NOT_IGNORABLE, c);
}

static bool ends_a_word(const struct mode_runes *r, size_t i)
{
    size_t before = i, after = i + 1;
    while (before > 0 && is_case_ignorable(r->data[before - 1])) before--;
    while (after < r->len && is_case_ignorable(r->data[after])) after++;
    return before > 0 && is_cased(r->data[before - 1]) && !(after < r->len && is_cased(r->data[after]));
}

void mode_runes_lower(struct mode_runes *r, enum mode_unicode_as as)
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
            lower = as == MODE_AS_PYTHON && ends_a_word(r, i) ? 0x3c2 : 0x3c3;
        else if (c == I_WITH_DOT)
            lower = 'i';
        else if ((lower = mode_unicode_young_lower(c)) != c)
            lower = as == MODE_AS_HF ? lower : c;
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
