#include "data/text_repair.h"

#include "data/code_pages.h"
#include "data/mojibake.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned char byte;

static bool in(byte b, byte first, byte last)
{
    return b >= first && b <= last;
}

/* ---- bytes that were lost on the way ---------------------------------------------------------------------- */

enum { LOST = 0x1a, BLANK = ' ', NBSP = 0xa0 };

/* A continuation byte next to a space that was probably 0xa0, because the result is a likely character. */
static bool is_likely(byte b)
{
    return in(b, 0x80, 0x84) || in(b, 0x86, 0x9f) || in(b, 0xa1, 0xbf);
}

/* Length of the UTF-8 sequence at p in which a space replaces 0xa0; 0 = none. */
static size_t lacks_nbsp(const byte *p, size_t n)
{
    if (n >= 2 && p[1] == BLANK && memchr("\xc2\xc3\xc5\xce\xd0\xd9", p[0], 6)) return 2;
    if (n >= 3 && in(p[0], 0xe2, 0xe3) && p[1] == BLANK && is_likely(p[2])) return 3;
    if (n >= 3 && in(p[0], 0xe0, 0xe3) && is_likely(p[1]) && p[2] == BLANK) return 3;
    if (n < 4 || p[0] != 0xf0) return 0;
    int blanks = 0, continuations = 0;
    for (int i = 1; i < 4; i++) {
        blanks += p[i] == BLANK;
        continuations += in(p[i], 0x80, 0xbf);
    }
    return blanks == 1 && continuations == 2 ? 4 : 0;
}

static bool starts(const byte *p, size_t n, const char *what)
{
    return n >= strlen(what) && memcmp(p, what, strlen(what)) == 0;
}

/* "Ã la": the word is "à" and keeps its space, unless a Portuguese word continues. */
static bool is_word_a_grave(const byte *p, size_t n)
{
    return starts(p, n, "\xc3 ") && !starts(p + 2, n - 2, " ") && !starts(p + 2, n - 2, "quele") &&
           !starts(p + 2, n - 2, "quela") && !starts(p + 2, n - 2, "quilo") && !starts(p + 2, n - 2, "s ");
}

static void restore_nbsp(struct mode_str *s)
{
    bool found = false;
    const byte *p = (const byte *)s->data;
    for (size_t i = 0; i < s->len && !found; i++) found = lacks_nbsp(p + i, s->len - i) > 0;
    if (!found) return;
    struct mode_str out = {0};
    for (size_t i = 0; i < s->len; i++) {
        mode_str_add(&out, p + i, 1);
        if (is_word_a_grave(p + i, s->len - i)) mode_str_add(&out, "\xa0", 1); /* and the space follows */
    }
    byte *q = (byte *)out.data;
    for (size_t i = 0, n; i < out.len; i += n ? n : 1) {
        n = lacks_nbsp(q + i, out.len - i);
        for (size_t k = 0; k < n; k++)
            if (q[i + k] == BLANK) q[i + k] = NBSP;
    }
    mode_str_clear(s);
    *s = out;
}

/* A byte of a damaged sequence: a continuation byte, a lost one, or a question mark in its place. */
enum place { NO_PLACE, KEPT, GONE, ASKED };

static enum place place_of(byte b)
{
    return in(b, 0x80, 0xbf) ? KEPT : b == LOST ? GONE : b == '?' ? ASKED : NO_PLACE;
}

/* A surrogate pair, each half in three bytes, whose third and last byte are not both kept. */
static bool is_lossy_pair(const byte *p)
{
    enum place third = place_of(p[2]), last = place_of(p[5]);
    return p[0] == 0xed && in(p[1], 0xa0, 0xaf) && p[3] == 0xed && in(p[4], 0xb0, 0xbf) && third && last &&
           (third > KEPT || last > KEPT);
}

/* Length of a sequence at p with lost bytes, 0 = none. At most one byte may be a question mark. */
static size_t lossy(const byte *p, size_t n)
{
    if (n >= 2 && ((in(p[0], 0xc2, 0xdf) && p[1] == LOST) || (in(p[0], 0xc2, 0xc3) && p[1] == '?'))) return 2;
    if (n >= 6 && is_lossy_pair(p)) return 6;
    size_t len = in(p[0], 0xe0, 0xef) ? 3 : in(p[0], 0xf0, 0xf4) ? 4 : 0;
    if (len > 0 && len <= n) {
        int kept = 0, gone = 0, asked = 0;
        for (size_t i = 1; i < len; i++) {
            enum place k = place_of(p[i]);
            kept += k == KEPT;
            gone += k == GONE;
            asked += k == ASKED;
        }
        if ((size_t)(kept + gone + asked) == len - 1 && asked <= 1 && gone + asked > 0) return len;
    }
    return p[0] == LOST;
}

static void replace_lossy(struct mode_str *s)
{
    struct mode_str out = {0};
    const byte *p = (const byte *)s->data;
    for (size_t i = 0, n; i < s->len; i += n ? n : 1) {
        n = lossy(p + i, s->len - i);
        if (n)
            mode_str_add(&out, "\xef\xbf\xbd", 3);
        else
            mode_str_add(&out, p + i, 1);
    }
    mode_str_clear(s);
    *s = out;
}

/* ---- from a page's bytes to what they were ---------------------------------------------------------------- */

/* Strict UTF-8, and its two common dialects: U+0000 as two bytes, surrogate pairs of three bytes each. False when s is
 * anything else. */
static bool decode(struct mode_runes *out, const struct mode_str *s)
{
    const byte *p = (const byte *)s->data;
    for (size_t i = 0; i < s->len;) {
        size_t left = s->len - i;
        if (left >= 2 && p[i] == 0xc0 && p[i + 1] == 0x80) {
            mode_runes_add(out, 0);
            i += 2;
        } else if (left >= 6 && p[i] == 0xed && in(p[i + 1], 0xa0, 0xaf) && in(p[i + 2], 0x80, 0xbf) &&
                   p[i + 3] == 0xed && in(p[i + 4], 0xb0, 0xbf) && in(p[i + 5], 0x80, 0xbf)) {
            mode_runes_add(out, 0x10000 + ((uint32_t)(p[i + 1] & 0x0f) << 16) + ((uint32_t)(p[i + 2] & 0x3f) << 10) +
                                    ((uint32_t)(p[i + 4] & 0x0f) << 6) + (p[i + 5] & 0x3f));
            i += 6;
        } else {
            size_t at = i;
            uint32_t c = mode_utf8_next(s->data, s->len, &at);
            if (c == 0xfffd && !(at - i == 3 && p[i] == 0xef && p[i + 1] == 0xbf && p[i + 2] == 0xbd)) return false;
            mode_runes_add(out, c);
            i = at;
        }
    }
    return true;
}

/* r as the bytes of a page; false when it has other characters too. */
static bool encode(struct mode_str *out, enum mode_code_page page, const struct mode_runes *r)
{
    mode_str_reset(out);
    for (size_t i = 0; i < r->len; i++) {
        int b = mode_page_byte(page, r->data[i]);
        if (b < 0) return false;
        mode_str_add_char(out, (char)b);
    }
    return true;
}

/* The whole text from one page; r is replaced when that works. */
static bool repair_whole(struct mode_runes *r)
{
    struct mode_str s = {0};
    struct mode_runes out = {0};
    bool done = false;
    for (int page = 0; page < MODE_N_PAGES && !done; page++) {
        if (!encode(&s, page, r)) continue;
        if (page != MODE_PAGE_MACROMAN) restore_nbsp(&s); /* there these are a dash and a space */
        if (mode_page_is_windows(page)) replace_lossy(&s);
        out.len = 0;
        done = decode(&out, &s);
    }
    mode_str_clear(&s);
    if (done) {
        mode_runes_clear(r);
        *r = out;
    } else
        mode_runes_clear(&out);
    return done;
}

/* ---- stretches of damage in a text that is otherwise sound ----------------------------------------------- */

enum { FIRST_OF_2 = 1, FIRST_OF_3 = 2, FIRST_OF_4 = 4, CONTINUATION = 8 };

/* What c may be in UTF-8 that was read as Latin-1 or a Windows page. */
static unsigned clues(uint32_t c)
{
    unsigned set = 0;
    if (c < 0x80 || c == 0xfffd) return c == ' ' ? CONTINUATION : 0;
    for (int page = MODE_PAGE_LATIN1; page <= MODE_PAGE_1257; page++) {
        int b = mode_page_byte(page, c);
        if (b >= 0x80 && b <= 0xbf) set |= CONTINUATION;
        if (b >= 0xc2 && b <= 0xdf) set |= FIRST_OF_2;
        if (b >= 0xe0 && b <= 0xef) set |= FIRST_OF_3;
        if (b == 0xf0 || b == 0xf3) set |= FIRST_OF_4;
    }
    return set;
}

/* A continuation that is not likely meant literally: not a dash, quote or ellipsis. */
static bool is_strict(uint32_t c)
{
    switch (c) {
    case ' ':
    case 0x2013:
    case 0x2014:
    case 0x2015:
    case 0x2018:
    case 0x2019:
    case 0x201a:
    case 0x201c:
    case 0x201d:
    case 0x201e:
    case 0x2022:
    case 0x2026: return false;
    default: return (clues(c) & CONTINUATION) != 0;
    }
}

/* Length of the one sequence at r[i], 0 = none. */
static size_t sequence(const struct mode_runes *r, size_t i)
{
    unsigned first = clues(r->data[i]);
    size_t n = first & FIRST_OF_2 ? 2 : first & FIRST_OF_3 ? 3 : first & FIRST_OF_4 ? 4 : 0;
    if (n == 0 || i + n > r->len) return 0;
    for (size_t k = 1; k < n; k++)
        if (!(clues(r->data[i + k]) & CONTINUATION)) return 0;
    return n;
}

static void repair(struct mode_runes *r, int depth);

static bool same(const struct mode_runes *a, const struct mode_runes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len * sizeof *a->data) == 0);
}

/* Every stretch of sequences on its own; true when something changed. */
static bool repair_stretches(struct mode_runes *r, int depth)
{
    struct mode_runes out = {0};
    for (size_t i = 0; i < r->len;) {
        size_t end = i, n;
        if (i == 0 || !is_strict(r->data[i - 1]))
            while (end < r->len && (n = sequence(r, end)) > 0) end += n;
        if (end == i)
            mode_runes_add(&out, r->data[i++]);
        else {
            struct mode_runes part = {0};
            mode_runes_add_all(&part, r->data + i, end - i);
            if (part.len < r->len && mode_text_is_bad(part.data, part.len)) repair(&part, depth + 1);
            mode_runes_add_all(&out, part.data, part.len);
            mode_runes_clear(&part);
            i = end;
        }
    }
    bool changed = !same(&out, r);
    mode_runes_clear(r);
    *r = out;
    return changed;
}

/* Reads C1 controls as Windows-1252. all: only if all of them are defined there. True when something changed. */
static bool read_c1(struct mode_runes *r, bool all)
{
    bool changed = false;
    for (size_t i = 0; i < r->len && all; i++) {
        uint32_t c = r->data[i];
        if (c >= 0x80 && c <= 0x9f && mode_cp1252_to_rune((uint8_t)c) == c) return false;
    }
    for (size_t i = 0; i < r->len; i++) {
        uint32_t c = r->data[i];
        if (c < 0x80 || c > 0x9f) continue;
        r->data[i] = mode_cp1252_to_rune((uint8_t)c);
        changed |= r->data[i] != c;
    }
    return changed;
}

static bool is_latin1(const struct mode_runes *r)
{
    for (size_t i = 0; i < r->len; i++)
        if (r->data[i] > 0xff) return false;
    return true;
}

static void repair(struct mode_runes *r, int depth)
{
    /* Correct texts end after the first round, damaged ones after a few: these bound adversarial texts. */
    enum { MAX_ROUNDS = 1000, MAX_DEPTH = 32 };
    if (depth > MAX_DEPTH) return;
    for (int round = 0; round < MAX_ROUNDS && mode_text_is_bad(r->data, r->len); round++) {
        struct mode_runes before = {0};
        bool changed = true;
        mode_runes_add_all(&before, r->data, r->len);
        if (repair_whole(r))
            changed = !same(&before, r);
        else if (!repair_stretches(r, depth) && !(is_latin1(r) && read_c1(r, true)))
            changed = read_c1(r, false);
        mode_runes_clear(&before);
        if (!changed) break;
    }
}

void mode_text_repair(struct mode_runes *r)
{
    repair(r, 0);
}
