/* Icon themes: the words are the icons' names. Papirus, Oxygen and Breeze are trained on; GNOME and Tango are held out
 * completely, and evaluate the names that the others have too; Papirus' coloured folders are a series of colour x
 * kind. */
#include "data/holdout.h"
#include "data/items.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MIN        32
#define SIZE_MAX_WANTED 256

enum layout { SIZE_CONTEXT, CONTEXT_SIZE, CONTEXT_ONLY };

struct theme {
    enum mode_demo_source source;
    const char *dir, *label, *ending;
    enum layout layout;
    const char *skipped_context; /* or NULL */
    bool held;
};

static const struct theme themes[] = {
    {MODE_DEMO_PAPIRUS, "usr/share/icons/Papirus/64x64", "Papirus", ".svg", CONTEXT_ONLY, NULL, false},
    {MODE_DEMO_OXYGEN, "usr/share/icons/oxygen/base", "Oxygen", ".png", SIZE_CONTEXT, NULL, false},
    {MODE_DEMO_BREEZE, "usr/share/icons/breeze", "Breeze", ".svg", CONTEXT_SIZE, "actions", false},
    {MODE_DEMO_GNOME, "usr/share/icons/gnome", "GNOME", ".png", SIZE_CONTEXT, NULL, true},
    {MODE_DEMO_TANGO, "usr/share/icons/Tango/scalable", "Tango", ".svg", CONTEXT_ONLY, NULL, true},
};

struct icon {
    const char *path; /* relative to the theme */
    char *context, *name;
    int size;
};

/* "48x48" or "48" -> 48; -1 for "scalable", "16@2x" and the like. */
static int parse_size(const char *text, size_t n)
{
    int size = 0;
    size_t i = 0;
    for (; i < n && i < 4 && text[i] >= '0' && text[i] <= '9'; i++) size = size * 10 + (text[i] - '0');
    if (i == 0 || (i < n && text[i] != 'x')) return -1;
    return size;
}

/* false: not a picture in this theme's layout, or of a size or context that we do not use. */
static bool icon_parse(struct icon *icon, const struct theme *th, const char *path)
{
    const char *first = strchr(path, '/');
    if (!mode_demo_path_ends(path, th->ending) || !first) return false;
    const char *second = strchr(first + 1, '/');
    const char *context = path;
    size_t context_n = (size_t)(first - path);
    icon->size = SIZE_MAX_WANTED;
    if (th->layout == CONTEXT_ONLY) {
        if (second) return false;
    } else {
        if (!second || strchr(second + 1, '/')) return false;
        const char *size = first + 1;
        size_t size_n = (size_t)(second - size);
        if (th->layout == SIZE_CONTEXT) {
            context = first + 1;
            context_n = (size_t)(second - context);
            size = path;
            size_n = (size_t)(first - path);
        }
        icon->size = parse_size(size, size_n);
        if (icon->size < SIZE_MIN || icon->size > SIZE_MAX_WANTED) return false;
    }
    icon->path = path;
    icon->context = mode_xasprintf("%.*s", (int)context_n, context);
    icon->name = mode_demo_path_stem(path);
    if (mode_demo_icon_kind(icon->context) && !mode_demo_path_ends(icon->name, "-symbolic") &&
        !(th->skipped_context && !strcmp(icon->context, th->skipped_context)))
        return true;
    free(icon->context);
    free(icon->name);
    return false;
}

static int by_name_then_size(const void *a, const void *b)
{
    const struct icon *x = a, *y = b;
    int c = strcmp(x->context, y->context);
    if (!c) c = strcmp(x->name, y->name);
    return c ? c : y->size - x->size; /* the largest first */
}

static void add_folder(struct mode_demo_item *it, const char *colour, const char *kind_name)
{
    const char *words = mode_demo_colour_words(colour);
    char *kind = mode_demo_icon_words(kind_name), *text;
    if (*kind) {
        text = mode_xasprintf("%s %s folder icon with %s %s symbol", mode_demo_article(words), words,
                              mode_demo_article(kind), kind);
        mode_demo_texts_add(&it->texts, text);
        free(text);
        text = mode_xasprintf("%s %s folder", words, kind);
    } else {
        text = mode_xasprintf("%s %s folder icon", mode_demo_article(words), words);
        mode_demo_texts_add(&it->texts, text);
        free(text);
        text = mode_xasprintf("%s folder", words);
    }
    mode_demo_texts_add(&it->texts, text);
    free(text);
    it->series = MODE_DEMO_SERIES_FOLDER;
    it->held = mode_demo_holdout_folder(colour, kind_name);
    if (it->held) {
        mode_demo_item_label(it, MODE_DEMO_TASK_FOLDER_COLOUR, words);
        if (*kind) mode_demo_item_label(it, MODE_DEMO_TASK_FOLDER_KIND, kind);
    }
    free(kind);
}

/* Names of the themes that are trained on, sorted at the first held-out theme. */
struct names {
    int64_t n, cap;
    char **name;
    bool sorted;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_add(struct names *names, const char *name)
{
    if (names->n == names->cap) {
        names->cap = names->cap ? names->cap * 2 : 1024;
        names->name = mode_xrealloc(names->name, (size_t)names->cap * sizeof(char *));
    }
    names->name[names->n++] = mode_xstrdup(name);
    names->sorted = false;
}

static bool names_have(struct names *names, char *name)
{
    if (!names->sorted && names->n) qsort(names->name, (size_t)names->n, sizeof(char *), by_text);
    names->sorted = true;
    return names->n && bsearch(&name, names->name, (size_t)names->n, sizeof(char *), by_text);
}

static void names_clear(struct names *names)
{
    for (int64_t i = 0; i < names->n; i++) free(names->name[i]);
    free(names->name);
}

static void add_icon(struct mode_demo_item *it, struct names *names, const struct theme *th, const struct icon *icon)
{
    char colour[64], kind[64];
    if (th->source == MODE_DEMO_PAPIRUS && !strcmp(icon->context, "places") &&
        mode_demo_folder_parse(icon->name, colour, kind)) {
        add_folder(it, colour, kind);
        return;
    }
    char *words = mode_demo_icon_words(icon->name), *text, *longer;
    if (!strcmp(icon->context, "emotes")) {
        if (!strncmp(words, "face ", 5)) memmove(words, words + 5, strlen(words + 5) + 1);
        text = mode_xasprintf("%s smiley face", words);
        longer = mode_xasprintf("emoticon: %s", words);
    } else {
        text = mode_xasprintf("%s%s", words, mode_demo_path_ends(words, " icon") ? "" : " icon");
        longer = mode_xasprintf("%s %s icon: %s", th->label, mode_demo_icon_kind(icon->context), words);
    }
    mode_demo_texts_add(&it->texts, text);
    mode_demo_texts_add(&it->texts, longer);
    it->held = th->held;
    if (!th->held)
        names_add(names, words);
    else if (names_have(names, words)) /* a seen name, in an unseen theme */
        mode_demo_item_label(it, MODE_DEMO_TASK_ICON_NAMES, words);
    free(text);
    free(longer);
    free(words);
}

static enum mode_status add_theme(struct mode_demo_set *set, struct names *names, const char *root,
                                  const struct theme *th, struct mode_error *err)
{
    char *dir = mode_path_join(root, th->dir);
    struct mode_demo_files files;
    enum mode_status st = mode_demo_files_list(&files, dir, mode_demo_source_info[th->source].package, err);
    if (st != MODE_OK) {
        free(dir);
        return st;
    }
    struct icon *icons = mode_xcalloc((size_t)files.n + 1, sizeof *icons);
    int64_t n = 0, smaller = 0;
    for (int64_t i = 0; i < files.n; i++) n += icon_parse(&icons[n], th, files.path[i]);
    if (n) qsort(icons, (size_t)n, sizeof *icons, by_name_then_size);
    for (int64_t i = 0; i < n; i++) {
        if (i && !strcmp(icons[i].context, icons[i - 1].context) && !strcmp(icons[i].name, icons[i - 1].name)) {
            smaller++;
            continue;
        }
        struct mode_demo_item *it = mode_demo_item_add(set, th->source);
        it->path = mode_path_join(dir, icons[i].path);
        it->is_svg = !strcmp(th->ending, ".svg");
        it->origin = mode_xstrdup(icons[i].path);
        it->category = mode_xstrdup(icons[i].context);
        add_icon(it, names, th, &icons[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        free(icons[i].context);
        free(icons[i].name);
    }
    mode_demo_tally(set, th->source, "a larger size was taken", smaller);
    mode_demo_tally(set, th->source, "of a size or kind not used", files.n - n);
    mode_demo_tally(set, th->source, "symbolic link", files.n_links);
    free(icons);
    mode_demo_files_clear(&files);
    free(dir);
    return MODE_OK;
}

enum mode_status mode_demo_icons(struct mode_demo_set *set, const char *root, struct mode_error *err)
{
    struct names names = {0};
    enum mode_status st = MODE_OK;
    for (size_t i = 0; st == MODE_OK && i < sizeof themes / sizeof *themes; i++)
        st = add_theme(set, &names, root, &themes[i], err);
    names_clear(&names);
    return st;
}
