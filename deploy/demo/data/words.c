#include "data/words.h"

#include "base/str.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define TEXT_MIN_CHARS 3
#define TEXT_MAX_CHARS 200

/* One entity at s ("&...;"): its code point and its length in bytes, or 0 when it is none we know. */
static int entity(const char *s, int32_t *code)
{
    static const struct {
        const char *name;
        int32_t code;
    } known[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}, {"nbsp", ' '}};
    const char *end = strchr(s, ';');
    if (!end || end - s > 10 || end - s < 3) return 0;
    size_t n = (size_t)(end - s) - 1;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == n && !memcmp(s + 1, known[i].name, n)) {
            *code = known[i].code;
            return (int)n + 2;
        }
    if (s[1] != '#') return 0;
    bool hex = s[2] == 'x' || s[2] == 'X';
    char *stop = NULL;
    long value = strtol(s + (hex ? 3 : 2), &stop, hex ? 16 : 10);
    if (stop != end || value < 1 || value > 0x10ffff || !utf8proc_codepoint_valid((int32_t)value)) return 0;
    *code = (int32_t)value;
    return (int)n + 2;
}

static bool is_space(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return c < 0x20 || c == 0x7f || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL ||
           k == UTF8PROC_CATEGORY_ZP || k == UTF8PROC_CATEGORY_CC;
}

char *mode_demo_clean(const char *raw)
{
    struct mode_str s = {0};
    mode_str_add_cstr(&s, "");
    bool gap = false;
    int chars = 0;
    const uint8_t *p = (const uint8_t *)raw, *end = p + strlen(raw);
    while (p < end && chars < TEXT_MAX_CHARS) {
        int32_t c = 0;
        utf8proc_ssize_t n = *p == '&' ? entity((const char *)p, &c) : 0;
        if (!n) n = utf8proc_iterate(p, end - p, &c);
        if (n < 1) { /* not UTF-8: drop the byte */
            p++;
            continue;
        }
        p += n;
        if (is_space(c)) {
            gap = s.len > 0;
            continue;
        }
        if (gap) {
            if (++chars == TEXT_MAX_CHARS) break;
            mode_str_add_char(&s, ' ');
            gap = false;
        }
        uint8_t utf8[4];
        mode_str_add(&s, utf8, (size_t)utf8proc_encode_char(c, utf8));
        chars++;
    }
    return s.data;
}

static size_t count_chars(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((uint8_t)*text & 0xc0) != 0x80;
    return n;
}

char *mode_demo_fold(const char *text)
{
    uint8_t *out = NULL;
    utf8proc_ssize_t n = utf8proc_map((const uint8_t *)text, 0, &out,
                                      UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);
    if (n < 0) { /* not UTF-8 */
        free(out);
        return mode_xstrdup(text);
    }
    return (char *)out;
}

bool mode_demo_contains(const char *text, const char *needle)
{
    char *a = mode_demo_fold(text), *b = mode_demo_fold(needle);
    bool yes = strstr(a, b) != NULL;
    free(a);
    free(b);
    return yes;
}

bool mode_demo_texts_add(struct mode_demo_texts *t, const char *raw)
{
    if (t->n == MODE_DEMO_TEXTS_MAX) return false;
    char *text = mode_demo_clean(raw), *folded = mode_demo_fold(text);
    bool take = count_chars(text) >= TEXT_MIN_CHARS;
    for (int i = 0; take && i < t->n; i++) {
        char *other = mode_demo_fold(t->text[i]);
        take = strcmp(folded, other) != 0;
        free(other);
    }
    free(folded);
    if (take)
        t->text[t->n++] = text;
    else
        free(text);
    return take;
}

void mode_demo_texts_clear(struct mode_demo_texts *t)
{
    for (int i = 0; i < t->n; i++) free(t->text[i]);
    t->n = 0;
}

const char *mode_demo_article(const char *word)
{
    return strchr("aeiouAEIOU", *word) && *word ? "an" : "a";
}

/* --- lists of words --- */

#define PARTS_MAX 64
struct parts {
    int n;
    char *part[PARTS_MAX];
};

/* Split at any byte of seps; further parts than PARTS_MAX are dropped. */
static void split(struct parts *p, const char *text, const char *seps)
{
    p->n = 0;
    while (*text && p->n < PARTS_MAX) {
        text += strspn(text, seps);
        size_t n = strcspn(text, seps);
        if (!n) break;
        char *part = mode_xmalloc(n + 1);
        memcpy(part, text, n);
        part[n] = 0;
        p->part[p->n++] = part;
        text += n;
    }
}

static void parts_clear(struct parts *p)
{
    for (int i = 0; i < p->n; i++) free(p->part[i]);
    p->n = 0;
}

static char *join(const struct parts *p, int n)
{
    struct mode_str s = {0};
    mode_str_add_cstr(&s, "");
    for (int i = 0; i < n; i++) {
        if (i) mode_str_add_char(&s, ' ');
        mode_str_add_cstr(&s, p->part[i]);
    }
    return s.data;
}

static bool is_number(const char *s)
{
    return *s && s[strspn(s, "0123456789")] == 0;
}

static bool starts_with(const char *s, const char *prefix)
{
    return strncasecmp(s, prefix, strlen(prefix)) == 0;
}

static bool in_list(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (!strcasecmp(word, *list)) return true;
    return false;
}

/* --- openclipart --- */

#define NAME_SEPARATORS "_-. \t\r\n"

char *mode_demo_title(const char *raw)
{
    char *clean = mode_demo_clean(raw);
    struct parts p;
    split(&p, clean, NAME_SEPARATORS);
    int n = p.n;
    while (n > 0 && is_number(p.part[n - 1])) n--;
    char *title = join(&p, n);
    parts_clear(&p);
    free(clean);
    return title;
}

static bool is_of_creator(const char *part, const struct parts *creator)
{
    for (int i = 0; i < creator->n; i++) {
        const char *name = creator->part[i];
        if (!strcasecmp(part, name)) return true;
        if (strlen(part) >= 2 && starts_with(name, part)) return true;
        if (strlen(name) >= 3 && starts_with(part, name)) return true;
    }
    return false;
}

char *mode_demo_stem_words(const char *stem, const char *creator)
{
    struct parts p, c;
    split(&p, stem, NAME_SEPARATORS);
    split(&c, creator ? creator : "", NAME_SEPARATORS ",;()<>@/&'\"");
    int n = p.n;
    while (n > 1) { /* the last part left is the name, whatever it is */
        const char *last = p.part[n - 1];
        if (!is_number(last) && strlen(last) > 1 && !is_of_creator(last, &c)) break;
        n--;
    }
    char *words = join(&p, n);
    parts_clear(&p);
    parts_clear(&c);
    return words;
}

bool mode_demo_title_is_own(const char *title)
{
    static const char *const collections[] = {
        "gramastar", "Part of ",   "Lemon SVG",  "Various Clip", "Clipart by", "SVG Gradient", "SVG Road", "AIGA",
        "Etiquette", "gold-theme", "gold theme", "R16",          "untitled",   "my ",          "new ",     NULL};
    if (!*title || !strcasecmp(title, "people") || strchr(title, '@') || mode_demo_contains(title, ".svg"))
        return false;
    for (const char *const *c = collections; *c; c++)
        if (starts_with(title, *c)) return false;
    int digits = 0;
    for (const char *p = title; *p; p++) {
        digits = isdigit((unsigned char)*p) ? digits + 1 : 0;
        if (digits == 4) return false;
    }
    return true;
}

bool mode_demo_keyword_is_useful(const char *keyword)
{
    static const char *const empty[] = {"hash",
                                        "magick",
                                        "unsorted",
                                        "theme",
                                        "icons",
                                        "icon",
                                        "special",
                                        "lemon_theme_icon",
                                        "clipart",
                                        "signs_and_symbols",
                                        "numbers",
                                        "geometry",
                                        "united_nations_member",
                                        NULL};
    return strlen(keyword) > 1 && !in_list(keyword, empty);
}

int mode_demo_star_points(const char *stem)
{
    if (strncmp(stem, "star_", 5)) return 0;
    char *end = NULL;
    long n = strtol(stem + 5, &end, 10);
    return end > stem + 5 && !strncmp(end, "pt", 2) && n > 0 && n < 1000 ? (int)n : 0;
}

bool mode_demo_card_parse(const char *stem, char *suit, int *rank)
{
    static const char *const ranks[] = {"a", "2", "3", "4", "5", "6", "7", "8", "9", "10", "j", "q", "k"};
    struct parts p;
    bool ok = false;
    split(&p, stem, "_");
    if (p.n == 3 && strlen(p.part[1]) == 1 && strchr("cdhs", p.part[1][0]))
        for (int i = 0; i < 13; i++)
            if (!strcmp(p.part[2], ranks[i])) {
                *suit = p.part[1][0];
                *rank = i + 1;
                ok = true;
            }
    parts_clear(&p);
    return ok;
}

const char *mode_demo_card_suit(char suit)
{
    return suit == 'c' ? "clubs" : suit == 'd' ? "diamonds" : suit == 'h' ? "hearts" : "spades";
}

const char *mode_demo_card_rank(int rank)
{
    static const char *const names[] = {"ace",   "two",  "three", "four", "five",  "six", "seven",
                                        "eight", "nine", "ten",   "jack", "queen", "king"};
    return rank >= 1 && rank <= 13 ? names[rank - 1] : "?";
}

/* --- icons --- */

/* "com.github.author.app" is a reverse-domain name; "text-x.tex" and "app-1.2" are not. */
static const char *last_of_domain(const char *name)
{
    static const char *const roots[] = {
        "com.", "org.", "net.", "io.", "de.", "fr.",   "app.", "dev.",  "me.",  "eu.",    "in.", "ch.", "nl.", "us.",
        "uk.",  "ca.",  "at.",  "se.", "cc.", "info.", "xyz.", "page.", "moe.", "rocks.", "co.", "gg.", "tv.", "ru.",
        "it.",  "es.",  "br.",  "pl.", "cz.", "be.",   "fi.",  "no.",   "dk.",  "im.",    "ai.", "sh.", NULL};
    for (const char *const *r = roots; *r; r++) {
        if (!starts_with(name, *r)) continue;
        const char *dot = strrchr(name, '.');
        const char *first = strchr(name, '.');
        return dot > first && dot[1] ? dot + 1 : name;
    }
    return name;
}

char *mode_demo_icon_words(const char *name)
{
    static const char *const empty[] = {"gnome",    "gtk",         "kde",    "stock",   "org",  "com",   "x",
                                        "vnd",      "application", "apps",   "mate",    "xfce", "xfce4", "generic",
                                        "symbolic", "github",      "gitlab", "default", "de",   NULL};
    struct mode_str spaced = {0};
    const char *p = last_of_domain(name);
    mode_str_add_cstr(&spaced, "");
    for (const char *q = p; *q; q++) {
        if (q > p && islower((unsigned char)q[-1]) && isupper((unsigned char)*q)) mode_str_add_char(&spaced, ' ');
        mode_str_add_char(&spaced, (char)tolower((unsigned char)*q));
    }
    struct parts all, kept = {0};
    split(&all, spaced.data, "-_.+ ");
    for (int i = 0; i < all.n; i++)
        if (!in_list(all.part[i], empty)) kept.part[kept.n++] = all.part[i];
    char *words = kept.n ? join(&kept, kept.n) : join(&all, all.n);
    parts_clear(&all);
    mode_str_clear(&spaced);
    return words;
}

const char *mode_demo_icon_kind(const char *context)
{
    static const char *const kinds[][2] = {
        {"actions", "action"}, {"apps", "application"}, {"mimetypes", "file type"}, {"devices", "device"},
        {"places", "place"},   {"emblems", "emblem"},   {"status", "status"},       {"categories", "category"},
        {"applets", "applet"}, {"emotes", "emotes"},    {"preferences", "settings"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(context, kinds[i][0])) return kinds[i][1];
    return NULL;
}

static const char *const colours[][2] = {{"black", "black"},
                                         {"blue", "blue"},
                                         {"bluegrey", "blue grey"},
                                         {"brown", "brown"},
                                         {"carmine", "carmine"},
                                         {"cyan", "cyan"},
                                         {"darkcyan", "dark cyan"},
                                         {"deeporange", "deep orange"},
                                         {"green", "green"},
                                         {"grey", "grey"},
                                         {"indigo", "indigo"},
                                         {"magenta", "magenta"},
                                         {"orange", "orange"},
                                         {"palebrown", "pale brown"},
                                         {"paleorange", "pale orange"},
                                         {"pink", "pink"},
                                         {"red", "red"},
                                         {"teal", "teal"},
                                         {"violet", "violet"},
                                         {"white", "white"},
                                         {"yellow", "yellow"}};

const char *mode_demo_colour_words(const char *colour)
{
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++)
        if (!strcmp(colour, colours[i][0])) return colours[i][1];
    return colour;
}

bool mode_demo_folder_parse(const char *name, char colour[64], char kind[64])
{
    if (strncmp(name, "folder-", 7)) return false;
    const char *c = name + 7;
    size_t n = strcspn(c, "-");
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++) {
        if (strlen(colours[i][0]) != n || memcmp(c, colours[i][0], n)) continue;
        const char *k = c[n] ? c + n + 1 : "";
        if (strlen(k) >= 64) return false;
        memcpy(colour, c, n);
        colour[n] = 0;
        size_t j = 0;
        for (; k[j]; j++) kind[j] = k[j];
        kind[j] = 0;
        return true;
    }
    return false;
}

/* --- Tux Paint --- */

const char *mode_demo_fruit(const char *caption)
{
    /* looked for in this order: "mandarin orange" is no orange, "pineapple" no apple, "eggplant" first of all
     */
    static const char *const names[][2] = {{"pineapple", "pineapple"},
                                           {"mandarin", "mandarin orange"},
                                           {"chile pepper", "chile pepper"},
                                           {"eggplant", "eggplant"},
                                           {"pomegranate", "pomegranate"},
                                           {"cherimoya", "cherimoya"},
                                           {"apricot", "apricot"},
                                           {"cherr", "cherry"},
                                           {"strawberr", "strawberry"},
                                           {"raspberr", "raspberry"},
                                           {"apple", "apple"},
                                           {"avocado", "avocado"},
                                           {"banana", "banana"},
                                           {"grape", "grapes"},
                                           {"kiwi", "kiwi"},
                                           {"lemon", "lemon"},
                                           {"lime", "lime"},
                                           {"mango", "mango"},
                                           {"orange", "orange"},
                                           {"pear", "pear"},
                                           {"broccoli", "broccoli"},
                                           {"carrot", "carrot"},
                                           {"corn", "corn"},
                                           {"garlic", "garlic"},
                                           {"lettuce", "lettuce"},
                                           {"mushroom", "mushroom"},
                                           {"onion", "onion"},
                                           {"squash", "squash"},
                                           {"pumpkin", "pumpkin"},
                                           {"tomato", "tomato"},
                                           {"potato", "potato"},
                                           {"pepper", "pepper"},
                                           {"yam", "yam"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (mode_demo_contains(caption, names[i][0])) return names[i][1];
    return NULL;
}
