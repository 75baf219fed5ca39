#include "data/mojibake.h"

#include "data/unicode.h"

enum {
    C1 = 1 << 0,
    BAD = 1 << 1, /* hardly ever meant */
    LAW = 1 << 2,
    CUR = 1 << 3, /* currency */
    START = 1 << 4,
    END = 1 << 5, /* opening and closing punctuation */
    NUM = 1 << 6,
    KAO = 1 << 7, /* characters of kaomoji */
    UPACC = 1 << 8,
    LOACC = 1 << 9, /* accented letters, upper and lower case */
    UPCOM = 1 << 10,
    LOCOM = 1 << 11, /* common letters of other alphabets */
    BOX = 1 << 12,
    COMMON = 1 << 13, /* found in any text */
};

static const struct class
{
    uint16_t first, last, set;
} classes[] = {
    {0x80, 0x9f, C1},          {0xa0, 0xa0, COMMON},      {0xa1, 0xa1, START},      {0xa2, 0xa3, CUR},
    {0xa4, 0xa4, BAD},         {0xa5, 0xa5, CUR},         {0xa6, 0xa6, BAD},        {0xa7, 0xa7, LAW},
    {0xa8, 0xa8, BAD},         {0xa9, 0xa9, START},       {0xaa, 0xaa, BAD},        {0xab, 0xab, START},
    {0xac, 0xac, BAD},         {0xad, 0xad, COMMON},      {0xae, 0xae, END},        {0xaf, 0xaf, BAD},
    {0xb0, 0xb0, KAO},         {0xb1, 0xb3, NUM},         {0xb4, 0xb4, COMMON},     {0xb5, 0xb5, NUM},
    {0xb6, 0xb6, LAW},         {0xb7, 0xb7, COMMON},      {0xb8, 0xb8, BAD},        {0xb9, 0xb9, NUM},
    {0xba, 0xba, BAD},         {0xbb, 0xbb, END},         {0xbc, 0xbe, NUM},        {0xbf, 0xbf, START},
    {0xc0, 0xd1, UPACC},       {0xd2, 0xd6, KAO},         {0xd7, 0xd7, NUM},        {0xd8, 0xd8, UPACC},
    {0xd9, 0xdb, KAO},         {0xdc, 0xdc, KAO | UPACC}, {0xdd, 0xdd, UPACC},      {0xde, 0xde, UPCOM},
    {0xdf, 0xf1, LOACC},       {0xf2, 0xf6, KAO},         {0xf7, 0xf7, NUM},        {0xf8, 0xfb, KAO},
    {0xfc, 0xfc, KAO | LOACC}, {0x100, 0x100, UPACC},     {0x101, 0x101, LOACC},    {0x102, 0x102, UPACC},
    {0x103, 0x103, LOACC},     {0x104, 0x104, UPACC},     {0x105, 0x105, LOACC},    {0x106, 0x106, UPACC},
    {0x107, 0x107, LOACC},     {0x10c, 0x10c, UPACC},     {0x10d, 0x10d, LOACC},    {0x10e, 0x10e, UPACC},
    {0x10f, 0x10f, LOACC},     {0x110, 0x110, UPACC},     {0x111, 0x111, LOACC},    {0x112, 0x112, UPACC},
    {0x113, 0x113, LOACC},     {0x116, 0x116, UPACC},     {0x117, 0x117, LOACC},    {0x118, 0x118, UPACC},
    {0x119, 0x119, LOACC},     {0x11a, 0x11a, UPACC},     {0x11b, 0x11b, LOACC},    {0x11e, 0x11e, UPACC},
    {0x11f, 0x11f, LOACC},     {0x122, 0x122, UPACC},     {0x123, 0x123, LOACC},    {0x12a, 0x12a, UPACC},
    {0x12b, 0x12b, LOACC},     {0x12f, 0x12f, LOACC},     {0x130, 0x130, UPACC},    {0x136, 0x136, UPACC},
    {0x137, 0x137, LOACC},     {0x139, 0x139, UPACC},     {0x13a, 0x13a, LOACC},    {0x13b, 0x13b, UPACC},
    {0x13c, 0x13c, LOACC},     {0x13d, 0x13d, UPACC},     {0x13e, 0x13e, LOACC},    {0x141, 0x141, UPACC},
    {0x142, 0x142, LOACC},     {0x143, 0x143, UPACC},     {0x145, 0x145, UPACC},    {0x147, 0x147, UPACC},
    {0x14c, 0x14c, KAO},       {0x150, 0x150, KAO},       {0x152, 0x152, UPACC},    {0x153, 0x153, LOACC},
    {0x155, 0x155, LOACC},     {0x158, 0x158, UPACC},     {0x15a, 0x15a, UPACC},    {0x15b, 0x15b, LOACC},
    {0x15e, 0x15e, UPACC},     {0x15f, 0x15f, LOACC},     {0x160, 0x160, UPACC},    {0x161, 0x161, LOACC},
    {0x162, 0x162, UPACC},     {0x164, 0x164, UPACC},     {0x165, 0x165, LOACC},    {0x16a, 0x16a, KAO},
    {0x16e, 0x16e, UPACC},     {0x170, 0x170, UPACC},     {0x172, 0x172, KAO},      {0x178, 0x179, UPACC},
    {0x17a, 0x17a, LOACC},     {0x17b, 0x17b, UPACC},     {0x17c, 0x17c, LOACC},    {0x17d, 0x17d, UPACC},
    {0x17e, 0x17e, LOACC},     {0x192, 0x192, BAD},       {0x2c6, 0x2c7, BAD},      {0x2d8, 0x2d8, BAD},
    {0x2db, 0x2dc, BAD},       {0x2dd, 0x2dd, END},       {0x384, 0x385, START},    {0x386, 0x386, UPCOM},
    {0x388, 0x38a, UPCOM},     {0x38c, 0x38c, UPCOM},     {0x38e, 0x38f, UPCOM},    {0x391, 0x3ab, UPCOM},
    {0x3ac, 0x3c9, LOCOM},     {0x401, 0x42f, UPCOM},     {0x430, 0x45f, LOCOM},    {0x490, 0x490, UPACC},
    {0x491, 0x491, LOACC},     {0x2013, 0x2015, COMMON},  {0x2018, 0x2018, START},  {0x2019, 0x2019, COMMON},
    {0x201a, 0x201a, START},   {0x201c, 0x201c, START},   {0x201d, 0x201d, END},    {0x201e, 0x201e, START},
    {0x2020, 0x2021, BAD},     {0x2022, 0x2022, START},   {0x2026, 0x2026, COMMON}, {0x2030, 0x2030, BAD},
    {0x2039, 0x2039, START},   {0x203a, 0x203a, END},     {0x2044, 0x2044, NUM},    {0x20a7, 0x20a7, CUR},
    {0x20ac, 0x20ac, CUR},     {0x2116, 0x2116, NUM},     {0x2122, 0x2122, END},    {0x2202, 0x2202, NUM},
    {0x2206, 0x2206, NUM},     {0x220f, 0x220f, NUM},     {0x2211, 0x2211, NUM},    {0x221a, 0x221a, NUM},
    {0x221e, 0x221e, NUM},     {0x2229, 0x2229, NUM},     {0x222b, 0x222b, NUM},    {0x2248, 0x2248, NUM},
    {0x2260, 0x2261, NUM},     {0x2264, 0x2265, NUM},     {0x2310, 0x2310, BAD},    {0x2502, 0x2502, BOX},
    {0x250c, 0x250c, BOX},     {0x2510, 0x2510, BOX},     {0x2518, 0x2518, BOX},    {0x251c, 0x251c, BOX},
    {0x2524, 0x2524, BOX},     {0x252c, 0x252c, BOX},     {0x253c, 0x253c, BOX},    {0x2550, 0x256c, BOX},
    {0x2580, 0x2580, BOX},     {0x2584, 0x2584, BOX},     {0x2588, 0x2588, BOX},    {0x258c, 0x258c, BOX},
    {0x2590, 0x2593, BOX},     {0x25ca, 0x25ca, BAD},     {0xf8ff, 0xf8ff, START},  {0xfb01, 0xfb02, LOACC},
    {0xfffd, 0xfffd, BAD},
};

static unsigned class_of(uint32_t c)
{
    size_t low = 0, high = sizeof classes / sizeof classes[0];
    if (c < 0x80 || (c >= 0x500 && c < 0x2000) || (c >= 0x2600 && c < 0xf8ff) || c > 0xfffd) return 0;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c > classes[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    return low < sizeof classes / sizeof classes[0] && c >= classes[low].first ? classes[low].set : 0;
}

/* Any first followed by any second. */
static const struct pair {
    uint16_t first, second;
} pairs[] = {
    {BAD | LOACC | UPACC | BOX | START | END | CUR | NUM | LAW, BAD},
    {BAD, LOACC | UPACC | BOX | START | END | CUR | NUM | LAW},
    {LOACC | LOCOM | BOX | END | CUR | NUM, UPACC},
    {BOX | END | CUR | NUM, LOACC},
    {LOACC | BOX | END, CUR},
    {UPACC | BOX, NUM | LAW},
    {CUR | NUM | BOX, START},
    {BOX, KAO},
    {LOACC | UPACC | CUR | NUM | START | END | LAW, BOX},
    {BOX, END},
};

static bool one_of(uint32_t c, const uint16_t *list)
{
    for (; *list; list++)
        if (*list == c) return true;
    return false;
}

static bool is_small(uint32_t c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_latin(uint32_t c)
{
    return is_small(c | 0x20) && c < 0x80;
}

static bool is_blank(uint32_t c)
{
    return mode_rune_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

/* Pairs of single characters: a first, then what may follow. */
static bool is_known_pair(uint32_t a, uint32_t b, unsigned kb)
{
    static const uint16_t after_latin_lead[] = {0x20ac, 0x153, 0x160, 0x161, 0xa2, 0xa3,   0x178,  0x17e, 0xa0, 0xad,
                                                0xae,   0xa9,  0xb0,  0xb7,  0xbb, 0x2013, 0x2014, 0xb4,  0};
    static const uint16_t after_agrave[] = {0xb2, 0xb5, 0xb9, 0xbc, 0xbd, 0xbe, 0};
    static const uint16_t after_root[] = {0xb1,   0x2202, 0x2020, 0x2260, 0xae, 0x2122, 0xb4,
                                          0x2264, 0x2265, 0xa5,   0xb5,   0xf8, 0};
    switch (a) {
    case 0xc2:
    case 0xc3:
    case 0xce:
    case 0xd0: return kb & (START | END) || one_of(b, after_latin_lead) || (a == 0xc3 && b == 0xa1);
    case 0xd7: return b == 0xb2 || b == 0xb3;
    case 0xe0: return one_of(b, after_agrave);
    case 0x101: return b == 0x20ac;
    case 0x152:
    case 0x153: return !is_latin(b);
    case 0x221a: return one_of(b, after_root);
    case 0x2248: return b == 0xb0 || b == 0xa2;
    case 0x432: return b == 0x402;
    default: return false;
    }
}

static bool is_word(uint32_t c)
{
    return c == '_' || mode_rune_is_letter(c, MODE_AS_PYTHON) || mode_rune_is_number(c, MODE_AS_PYTHON);
}

/* Three in a row; p[0] has the class ka, and so on. */
static bool is_known_triple(const uint32_t *p, unsigned ka, unsigned kb, unsigned kc)
{
    static const uint16_t after_mac_a[] = {0xec, 0xee,   0xef, 0xf2, 0xf4,  0xfa, 0xf9,
                                           0xfb, 0x2020, 0xb0, 0xa2, 0x3c0, 0};
    static const uint16_t after_mac_quote[] = {0xe0, 0xe4, 0xb0, 0xea, 0};
    static const uint16_t after_greek_euro[] = {0x2122, 0xa0, 0x386, 0xad, 0xae, 0xb0, 0};
    static const uint16_t cyrillic[] = {0x412, 0x413, 0x420, 0x421, 0}, greek[] = {0x392, 0x393, 0x39e, 0x39f, 0};
    uint32_t a = p[0], b = p[1], c = p[2];
    if (is_latin(a) && kb & (LOCOM | UPCOM) && kc & BAD) return true;
    if (is_blank(a) && kb & UPACC && kc & CUR) return true;
    if (ka & (LOACC | UPACC | BOX | CUR | END) && kb & START && kc & NUM) return true;
    if (ka & (LOACC | UPACC | CUR | NUM | BOX | LAW) && kb & END && kc & START) return true;
    if (is_small(a) && kb & UPACC && kc & (START | CUR)) return true;
    if (ka & (LOACC | UPACC) && kb & (START | END) && is_word(c)) return true;
    if (a == 0x201a && b == 0xc4 && one_of(c, after_mac_a)) return true;
    if (a == 0x201a && (b == 0xe2 || b == 0xf3) && one_of(c, after_mac_quote)) return true;
    if (a == 0x3b2 && b == 0x20ac && one_of(c, after_greek_euro)) return true;
    if (ka & UPCOM && kc & UPCOM && (kb & (C1 | BAD | START | END | CUR) || b == 0xb0 || b == 0xb5))
        if ((one_of(a, cyrillic) && one_of(c, cyrillic)) || (b != 0xb5 && one_of(a, greek) && one_of(c, greek)))
            return true;
    /* a no-break space that became a space */
    if ((b == 0xc2 || b == 0xc3) && c == ' ' && is_small(a)) return true;
    return b == 0xc2 && (kc & (START | END) || c == ' ') &&
           (is_small(a) || a == '.' || a == ',' || a == '?' || a == '!' || ka & END);
}

/* Arabic letters, in pairs. */
static bool is_arabic_half(uint32_t a, uint32_t b, unsigned kb)
{
    static const uint16_t after[] = {0x178, 0x160, 0xae, 0xb0, 0xb5, 0xbb, 0};
    return (a == 0xd8 || a == 0xd9) && (kb & (COMMON | CUR | BAD | NUM | START) || one_of(b, after));
}

/* Rules about four and five characters. */
static bool is_known_phrase(const uint32_t *p, size_t n, const unsigned *k)
{
    if (is_arabic_half(p[0], p[1], k[1]) && is_arabic_half(p[2], p[3], k[3])) return true;
    if (is_small(p[0]) && is_blank(p[1]) && (p[2] == 0xc2 || p[2] == 0xc3) && p[3] == ' ') return true;
    return n > 6 && p[0] == 0x413 && p[1] == 0x45e && p[2] == 0x412 && p[3] == 0x402 && p[4] == 0x412 && p[5] != '\n' &&
           (is_latin(p[6]) || p[6] == ' ');
}

bool mode_text_is_bad(const uint32_t *p, size_t n)
{
    if (n > 1 && (p[0] == 0xc2 || p[0] == 0xc3) && p[1] == ' ') return true;
    unsigned k[4] = {0};
    for (size_t i = 0; i < 3 && i < n; i++) k[i + 1] = class_of(p[i]);
    for (size_t i = 0; i < n; i++, p++) {
        size_t left = n - i;
        k[0] = k[1], k[1] = k[2], k[2] = k[3];
        k[3] = left > 3 ? class_of(p[3]) : 0;
        if (k[0] & C1) return true;
        if (left < 2) return false;
        if (!(k[0] | k[1] | k[2])) continue;
        for (size_t r = 0; r < sizeof pairs / sizeof pairs[0]; r++)
            if (k[0] & pairs[r].first && k[1] & pairs[r].second) return true;
        if (k[0] & UPACC && p[1] == 0xb0) return true;
        if (is_known_pair(p[0], p[1], k[1])) return true;
        if (left > 2 && is_known_triple(p, k[0], k[1], k[2])) return true;
        if (left > 3 && is_known_phrase(p, left, k)) return true;
    }
    return false;
}
