#include "data/text_clean.h"

#include "data/code_pages.h"
#include "data/html_text.h"
#include "data/text_repair.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- the steps of repair that look at single characters -------------------------------------------------- */

static const struct ligature {
    uint16_t rune;
    uint16_t parts[3];
} ligatures[] = {
    {0x132, {'I', 'J'}},    {0x133, {'i', 'j'}},   {0x149, {0x2bc, 'n'}},     {0x1c4, {'D', 0x17d}},
    {0x1c5, {'D', 0x17e}},  {0x1c6, {'d', 0x17e}}, {0x1c7, {'L', 'J'}},       {0x1c8, {'L', 'j'}},
    {0x1c9, {'l', 'j'}},    {0x1ca, {'N', 'J'}},   {0x1cb, {'N', 'j'}},       {0x1cc, {'n', 'j'}},
    {0x1f1, {'D', 'Z'}},    {0x1f2, {'D', 'z'}},   {0x1f3, {'d', 'z'}},       {0xfb00, {'f', 'f'}},
    {0xfb01, {'f', 'i'}},   {0xfb02, {'f', 'l'}},  {0xfb03, {'f', 'f', 'i'}}, {0xfb04, {'f', 'f', 'l'}},
    {0xfb05, {0x17f, 't'}}, {0xfb06, {'s', 't'}},
};

static bool add_ligature(struct mode_runes *out, uint32_t c)
{
    for (size_t i = 0; i < sizeof ligatures / sizeof ligatures[0]; i++) {
        if (ligatures[i].rune != c) continue;
        for (int k = 0; k < 3 && ligatures[i].parts[k]; k++) mode_runes_add(out, ligatures[i].parts[k]);
        return true;
    }
    return false;
}

/* Full-width and half-width forms to their ordinary ones. */
static void add_width(struct mode_runes *out, uint32_t c)
{
    utf8proc_int32_t buf[16];
    int boundclass = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, buf, 16, UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE,
                                                 &boundclass);
    for (utf8proc_ssize_t i = 0; i < n && i < 16; i++) mode_runes_add(out, (uint32_t)buf[i]);
}

static bool is_unwanted_control(uint32_t c)
{
    return c < 9 || c == 0x0b || (c >= 0x0e && c < 0x20) || c == 0x7f || (c >= 0x206a && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff9 && c <= 0xfffc);
}

/* Python's \d: Unicode 14's decimal digits. */
static bool is_decimal(uint32_t c)
{
    if (c < 0x80) return c >= '0' && c <= '9';
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND && !(c >= 0x11f50 && c <= 0x11f59) &&
           !(c >= 0x1e4f0 && c <= 0x1e4f9);
}

/* Length of a terminal colour code at r[i], 0 if there is none. */
static size_t terminal_escape(const struct mode_runes *r, size_t i)
{
    if (r->data[i] != 0x1b || i + 1 >= r->len || r->data[i + 1] != '[') return 0;
    size_t k = i + 2;
    while (k < r->len && (r->data[k] == ';' || is_decimal(r->data[k]))) k++;
    return k < r->len && (r->data[k] | 0x20) >= 'a' && (r->data[k] | 0x20) <= 'z' && r->data[k] < 0x80 ? k + 1 - i : 0;
}

/* Replaces single characters: C1 controls, ligatures, widths. */
static void spell_out(struct mode_runes *r)
{
    struct mode_runes out = {0};
    for (size_t i = 0; i < r->len; i++) {
        uint32_t c = r->data[i];
        if (c < 0x80)
            mode_runes_add(&out, c);
        else if (c <= 0x9f)
            mode_runes_add(&out, mode_cp1252_to_rune((uint8_t)c));
        else if (((c >= 0x132 && c <= 0x1f3) || (c >= 0xfb00 && c <= 0xfb06)) && add_ligature(&out, c))
            continue;
        else if (c == 0x3000)
            mode_runes_add(&out, ' ');
        else if (c >= 0xff01 && c < 0xfff0)
            add_width(&out, c);
        else
            mode_runes_add(&out, c);
    }
    mode_runes_clear(r);
    *r = out;
}

/* Replaces quotes and line breaks by plain ones. */
static void make_plain(struct mode_runes *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->len; i++) {
        uint32_t c = r->data[i];
        if (c == 0x2bc || (c >= 0x2018 && c <= 0x201b))
            c = '\'';
        else if (c >= 0x201c && c <= 0x201f)
            c = '"';
        else if (c == '\r' && i + 1 < r->len && r->data[i + 1] == '\n')
            continue;
        else if (c == '\r' || c == 0x2028 || c == 0x2029 || c == 0x85)
            c = '\n';
        r->data[n++] = c;
    }
    r->len = n;
}

static void drop_controls(struct mode_runes *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->len; i++) {
        size_t escape = terminal_escape(r, i);
        if (escape)
            i += escape - 1;
        else if (!is_unwanted_control(r->data[i]))
            r->data[n++] = r->data[i];
    }
    r->len = n;
}

/* ---- one line -------------------------------------------------------------------------------------------- */

static bool same(const struct mode_runes *a, const struct mode_runes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len * sizeof *a->data) == 0);
}

/* Repairs until nothing changes. Every step but the composition shortens the text or maps to more normal characters, so
 * this terminates; the bound, in code points processed, is against adversarial texts (&amp;amp;amp;...). */
static void fix_line(struct mode_runes *line, bool may_unescape)
{
    enum { MAX_WORK = 1 << 26 };
    for (size_t work = 0; work < MAX_WORK; work += line->len + 1) {
        struct mode_runes before = {0};
        mode_runes_add_all(&before, line->data, line->len);
        if (may_unescape) mode_html_unescape_strict(line);
        mode_text_repair(line);
        spell_out(line);
        make_plain(line);
        drop_controls(line);
        mode_runes_nfc(line, MODE_AS_PYTHON);
        bool done = same(&before, line);
        mode_runes_clear(&before);
        if (done) break;
    }
}

/* Whether fix_line cannot change anything in r. */
static bool is_plain(const struct mode_runes *r)
{
    for (size_t i = 0; i < r->len; i++) {
        uint32_t c = r->data[i];
        if (c >= 0x7f || c == '&' || (c < 0x20 && c != '\n' && c != '\t')) return false;
    }
    return true;
}

/* Collapses runs of white space to one space and strips the ends. */
static void squeeze(struct mode_runes *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->len; i++) {
        if (!mode_rune_is_space(r->data[i]))
            r->data[n++] = r->data[i];
        else if (n > 0 && r->data[n - 1] != ' ')
            r->data[n++] = ' ';
    }
    r->len = n > 0 && r->data[n - 1] == ' ' ? n - 1 : n;
}

void mode_text_clean_openai(struct mode_runes *r)
{
    enum { LONGEST_LINE = 1000000 }; /* code points repaired at once */
    if (!is_plain(r)) {
        struct mode_runes out = {0}, line = {0};
        bool may_unescape = true; /* a text with a tag is HTML on purpose, from there on */
        for (size_t i = 0; i < r->len;) {
            line.len = 0;
            do {
                may_unescape &= r->data[i] != '<';
                mode_runes_add(&line, r->data[i++]);
            } while (i < r->len && r->data[i - 1] != '\n' && line.len < LONGEST_LINE);
            fix_line(&line, may_unescape);
            mode_runes_add_all(&out, line.data, line.len);
        }
        mode_runes_clear(&line);
        mode_runes_clear(r);
        *r = out;
        mode_html_unescape(r);
        mode_html_unescape(r);
    }
    squeeze(r);
    mode_runes_lower(r, MODE_AS_PYTHON);
}

void mode_text_clean_hf(struct mode_runes *r)
{
    mode_runes_nfc(r, MODE_AS_HF);
    squeeze(r);
    mode_runes_lower(r, MODE_AS_HF);
}
