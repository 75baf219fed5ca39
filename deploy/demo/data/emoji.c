/* Noto Color Emoji: pictures from the font's CBDT table, words from the Unicode CLDR. */
#include "data/holdout.h"
#include "data/items.h"

#include "base/file.h"

#include <ctype.h>
#include <hb-ot.h>
#include <hb.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define FONT          "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
#define SEQUENCES     "usr/share/unicode/emoji/emoji-test.txt"
#define WORDS         "usr/share/unicode/cldr/common/annotations/en.xml"
#define WORDS_DERIVED "usr/share/unicode/cldr/common/annotationsDerived/en.xml"
#define STRIKE_PPEM   109 /* of the font's one set of bitmaps */
#define SEQUENCE_MAX  16
#define KEYWORDS_MAX  8

/* --- words --- */

struct annotation {
    char *sequence;        /* UTF-8 without U+FE0F */
    char *name, *keywords; /* keywords divided by | */
};
struct annotations {
    size_t n, cap;
    struct annotation *entry;
};

static int by_sequence(const void *a, const void *b)
{
    return strcmp(((const struct annotation *)a)->sequence, ((const struct annotation *)b)->sequence);
}

static char *attribute(xmlNode *node, const char *name)
{
    xmlChar *value = xmlGetProp(node, (const xmlChar *)name);
    char *copy = value ? mode_xstrdup((const char *)value) : NULL;
    xmlFree(value);
    return copy;
}

/* A sequence has two lines, keywords and then the name (type="tts"), next to each other. */
static enum mode_status annotations_read(struct annotations *a, const char *path, struct mode_error *err)
{
    if (!mode_file_exists(path))
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "%s does not exist: it comes with the Debian package unicode-cldr-core. "
                         "HINT: run deploy/demo/packages.sh, which fetches and unpacks it",
                         path);
    xmlDoc *doc = xmlReadFile(path, NULL, XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NONET);
    xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    if (!root) {
        xmlFreeDoc(doc);
        return MODE_FAIL(err, MODE_E_FORMAT, "%s is not well-formed XML", path);
    }
    for (xmlNode *list = root->children; list; list = list->next) {
        if (list->type != XML_ELEMENT_NODE || strcmp((const char *)list->name, "annotations") != 0) continue;
        for (xmlNode *c = list->children; c; c = c->next) {
            if (c->type != XML_ELEMENT_NODE || strcmp((const char *)c->name, "annotation") != 0) continue;
            char *sequence = attribute(c, "cp"), *type = attribute(c, "type");
            xmlChar *text = xmlNodeGetContent(c);
            if (sequence && text) {
                struct annotation *last = a->n ? &a->entry[a->n - 1] : NULL;
                if (!last || strcmp(last->sequence, sequence) != 0) {
                    if (a->n == a->cap) {
                        a->cap = a->cap ? a->cap * 2 : 4096;
                        a->entry = mode_xrealloc(a->entry, a->cap * sizeof *a->entry);
                    }
                    last = &a->entry[a->n++];
                    *last = (struct annotation){.sequence = mode_xstrdup(sequence)};
                }
                char **field = type && !strcmp(type, "tts") ? &last->name : &last->keywords;
                free(*field);
                *field = mode_xstrdup((const char *)text);
            }
            xmlFree(text);
            free(sequence);
            free(type);
        }
    }
    xmlFreeDoc(doc);
    return MODE_OK;
}

static void annotations_clear(struct annotations *a)
{
    for (size_t i = 0; i < a->n; i++) {
        free(a->entry[i].sequence);
        free(a->entry[i].name);
        free(a->entry[i].keywords);
    }
    free(a->entry);
}

static const struct annotation *annotation_of(const struct annotations *a, const uint32_t *code, int n)
{
    struct mode_str s = {0};
    for (int i = 0; i < n; i++) {
        uint8_t utf8[4];
        if (code[i] == 0xfe0f) continue;
        mode_str_add(&s, utf8, (size_t)utf8proc_encode_char((int32_t)code[i], utf8));
    }
    struct annotation key = {.sequence = s.data};
    const struct annotation *found = s.data && a->n ? bsearch(&key, a->entry, a->n, sizeof *a->entry, by_sequence)
                                                    : NULL;
    mode_str_clear(&s);
    return found;
}

/* --- glyphs --- */

struct font {
    hb_face_t *face;
    hb_font_t *font;
    hb_buffer_t *buffer;
    size_t n_pictures, cap;
    hb_blob_t **picture;
};

static void font_close(void *owner)
{
    struct font *f = owner;
    for (size_t i = 0; i < f->n_pictures; i++) hb_blob_destroy(f->picture[i]);
    free(f->picture);
    hb_buffer_destroy(f->buffer);
    hb_font_destroy(f->font);
    hb_face_destroy(f->face);
    free(f);
}

/* Glyph of the sequence, 0 when the font draws it as several or not at all. */
static hb_codepoint_t glyph_of(struct font *f, const uint32_t *code, int n, bool with_selector)
{
    hb_buffer_clear_contents(f->buffer);
    for (int i = 0; i < n; i++)
        if (with_selector || code[i] != 0xfe0f) hb_buffer_add(f->buffer, code[i], (unsigned)i);
    hb_buffer_set_content_type(f->buffer, HB_BUFFER_CONTENT_TYPE_UNICODE);
    hb_buffer_set_direction(f->buffer, HB_DIRECTION_LTR);
    hb_buffer_set_script(f->buffer, HB_SCRIPT_COMMON);
    hb_buffer_set_language(f->buffer, hb_language_from_string("en", -1));
    hb_buffer_set_flags(f->buffer, HB_BUFFER_FLAG_REMOVE_DEFAULT_IGNORABLES);
    hb_shape(f->font, f->buffer, NULL, 0);
    unsigned length = 0;
    hb_glyph_info_t *info = hb_buffer_get_glyph_infos(f->buffer, &length);
    return length == 1 ? info[0].codepoint : 0;
}

/* The PNG of the glyph, borrowed from f; NULL when it has none. */
static const uint8_t *picture_of(struct font *f, hb_codepoint_t glyph, size_t *size)
{
    hb_blob_t *blob = hb_ot_color_glyph_reference_png(f->font, glyph);
    unsigned length = 0;
    const char *data = hb_blob_get_data(blob, &length);
    if (!length) {
        hb_blob_destroy(blob);
        return NULL;
    }
    if (f->n_pictures == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 4096;
        f->picture = mode_xrealloc(f->picture, f->cap * sizeof(hb_blob_t *));
    }
    f->picture[f->n_pictures++] = blob;
    *size = length;
    return (const uint8_t *)data;
}

/* --- the source --- */

/* "Smileys & Emotion" -> "smileys and emotion"; "food-vegetable" -> "food vegetable". */
static char *group_words(const char *name)
{
    struct mode_str s = {0};
    for (const char *p = name; *p; p++) {
        if (*p == '&')
            mode_str_add_cstr(&s, "and");
        else
            mode_str_add_char(&s, *p == '-' ? ' ' : (char)tolower((unsigned char)*p));
    }
    return s.data;
}

static void add_captions(struct mode_demo_texts *t, const struct annotation *a, const char *group, const char *subgroup,
                         bool is_flag)
{
    char *name = mode_demo_clean(a->name), *text;
    if (!strncmp(name, "flag: ", 6)) {
        text = mode_xasprintf("flag of %s", name + 6);
        free(name);
        name = text;
    }
    mode_demo_texts_add(t, name);
    if (!is_flag) {
        text = mode_xasprintf("%s emoji, %s, %s", name, group, subgroup);
        mode_demo_texts_add(t, text);
        free(text);
    }
    if (a->keywords && strcmp(a->keywords, "flag") != 0) {
        struct mode_str s = {0};
        int n = 0;
        char *words = mode_xstrdup(a->keywords), *rest = words, *word;
        mode_str_printf(&s, "%s: ", name);
        while (n < KEYWORDS_MAX && (word = strsep(&rest, "|")) != NULL) {
            char *clean = mode_demo_clean(word);
            if (*clean && strcasecmp(clean, name)) mode_str_printf(&s, "%s%s", n++ ? ", " : "", clean);
            free(clean);
        }
        if (n) mode_demo_texts_add(t, s.data);
        free(words);
        mode_str_clear(&s);
    }
    free(name);
}

static void add_emoji(struct mode_demo_set *set, struct font *f, const struct annotations *words, const uint32_t *code,
                      int n, const char *fallback, const char *group, const char *subgroup)
{
    hb_codepoint_t glyph = glyph_of(f, code, n, false);
    if (!glyph) glyph = glyph_of(f, code, n, true);
    size_t size = 0;
    const uint8_t *data = glyph ? picture_of(f, glyph, &size) : NULL;
    if (!data) {
        mode_demo_tally(set, MODE_DEMO_NOTO, "the font has no picture of it", 1);
        return;
    }
    const struct annotation *a = annotation_of(words, code, n);
    /* emoji newer than the CLDR's words have only the name in the list of sequences */
    const struct annotation only_name = {.name = (char *)fallback};
    if (!a || !a->name) a = &only_name;
    bool is_flag = !strcmp(group, "Flags");
    char family[SEQUENCE_MAX * 4 + 1], *group_name = group_words(group), *subgroup_name = group_words(subgroup);
    struct mode_str origin = {0};
    struct mode_demo_item *it = mode_demo_item_add(set, MODE_DEMO_NOTO);
    it->data = data;
    it->size = size;
    for (int i = 0; i < n; i++) mode_str_printf(&origin, "%sU+%04X", i ? " " : "", (unsigned)code[i]);
    it->origin = origin.data;
    it->category = mode_xasprintf("%s/%s", group_name, subgroup_name);
    add_captions(&it->texts, a, group_name, subgroup_name, is_flag);
    mode_demo_emoji_family(code, n, family, sizeof family);
    it->held = !is_flag && mode_demo_holdout_emoji(family);
    if (it->held && !mode_demo_emoji_has_skin_tone(code, n)) {
        mode_demo_item_label(it, MODE_DEMO_TASK_EMOJI_GROUP, group_name);
        mode_demo_item_label(it, MODE_DEMO_TASK_EMOJI_SUBGROUP, subgroup_name);
        mode_demo_item_label(it, MODE_DEMO_TASK_RETRIEVAL_EMOJI, "");
    }
    free(group_name);
    free(subgroup_name);
}

/* "1F600 ; fully-qualified # <emoji> E1.0 grinning face" -> "grinning face" */
static const char *own_name(const char *line)
{
    const char *version = strstr(line, " E");
    const char *name = version ? strchr(version + 1, ' ') : NULL;
    return name ? name + 1 : "";
}

/* "# group: Flags" -> "Flags" in out; false when the line is another one. */
static bool heading(const char *line, const char *key, char out[64])
{
    size_t n = strlen(key);
    if (strncmp(line, key, n)) return false;
    const char *name = line + n;
    size_t i = 0;
    for (; name[i] && i < 63; i++) out[i] = name[i];
    out[i] = 0;
    return true;
}

static int sequence_parse(const char *line, uint32_t code[SEQUENCE_MAX])
{
    int n = 0;
    while (n < SEQUENCE_MAX) {
        char *end = NULL;
        unsigned long c = strtoul(line, &end, 16);
        if (end == line || c == 0 || c > 0x10ffff) break;
        code[n++] = (uint32_t)c;
        line = end;
    }
    return n;
}

enum mode_status mode_demo_emoji(struct mode_demo_set *set, const char *root, struct mode_error *err)
{
    char *font_path = mode_path_join(root, FONT), *list_path = mode_path_join(root, SEQUENCES);
    char *words_path = mode_path_join(root, WORDS), *derived_path = mode_path_join(root, WORDS_DERIVED);
    struct annotations words = {0};
    char *list = NULL;
    size_t list_size = 0;
    enum mode_status st = annotations_read(&words, words_path, err);
    if (st == MODE_OK) st = annotations_read(&words, derived_path, err);
    if (st != MODE_OK) goto out;
    qsort(words.entry, words.n, sizeof *words.entry, by_sequence);
    if (!mode_file_exists(list_path)) {
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s does not exist: it comes with the Debian package unicode-data. HINT: "
                       "run deploy/demo/packages.sh, which fetches and unpacks it",
                       list_path);
        goto out;
    }
    st = mode_file_read(list_path, 0, &list, &list_size, err);
    if (st != MODE_OK) goto out;

    hb_blob_t *blob = hb_blob_create_from_file_or_fail(font_path);
    if (!blob) {
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s does not exist: it comes with the Debian package "
                       "fonts-noto-color-emoji. HINT: run deploy/demo/packages.sh, which fetches and unpacks it",
                       font_path);
        goto out;
    }
    struct font *f = mode_xcalloc(1, sizeof *f);
    f->face = hb_face_create(blob, 0);
    hb_blob_destroy(blob);
    f->font = hb_font_create(f->face);
    hb_font_set_ppem(f->font, STRIKE_PPEM, STRIKE_PPEM);
    f->buffer = hb_buffer_create();
    MODE_ASSERT(!set->release);
    set->release = font_close;
    set->owner = f;
    if (!hb_ot_color_has_png(f->face)) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s has no CBDT table of PNG pictures; the newer COLRv1 fonts have none",
                       font_path);
        goto out;
    }
    char group[64] = "", subgroup[64] = "";
    for (char *rest = list, *line; (line = strsep(&rest, "\n")) != NULL;) {
        uint32_t code[SEQUENCE_MAX];
        if (heading(line, "# group: ", group) || heading(line, "# subgroup: ", subgroup)) continue;
        if (*line == '#' || !strstr(line, "; fully-qualified")) continue;
        int n = sequence_parse(line, code);
        if (n) add_emoji(set, f, &words, code, n, own_name(line), group, subgroup);
    }
out:
    free(list);
    annotations_clear(&words);
    free(font_path);
    free(list_path);
    free(words_path);
    free(derived_path);
    return st;
}
