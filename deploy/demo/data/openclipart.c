/* Open Clip Art Library: drawings in folders, with titles and keywords in their RDF. */
#include "data/holdout.h"
#include "data/items.h"

#include "base/file.h"
#include "base/parallel.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOT                   "usr/share/openclipart/svg"
#define KEYWORDS_MAX           24
#define STAR_POINTS_MAX        12
#define TITLE_SHARED_MAX       4 /* a title shared by more files names a collection */
#define DESCRIPTION_SHARED_MAX 3

struct record { /* what one file says about itself */
    char *title, *description, *creator;
    int n_keywords;
    char *keyword[KEYWORDS_MAX];
    bool is_gpl;
    char *second_folder; /* a symbolic link in another folder points here */
};

/* --- metadata --- */

static bool named(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, name);
}

/* First element called name below node, in document order; not inside an Agent unless agents is true. */
static const xmlNode *find(const xmlNode *node, const char *name, bool agents)
{
    for (const xmlNode *c = node->children; c; c = c->next) {
        if (named(c, name)) return c;
        if (!agents && named(c, "Agent")) continue;
        const xmlNode *below = find(c, name, agents);
        if (below) return below;
    }
    return NULL;
}

static char *content(const xmlNode *node)
{
    if (!node) return NULL;
    xmlChar *raw = xmlNodeGetContent(node);
    char *text = mode_demo_clean(raw ? (const char *)raw : "");
    xmlFree(raw);
    if (*text) return text;
    free(text);
    return NULL;
}

static void add_keyword(struct record *r, const char *word)
{
    if (r->n_keywords == KEYWORDS_MAX) return;
    char *clean = mode_demo_clean(word);
    if (*clean)
        r->keyword[r->n_keywords++] = clean;
    else
        free(clean);
}

static void read_keywords(struct record *r, const xmlNode *node)
{
    for (const xmlNode *c = node->children; c; c = c->next) {
        if (named(c, "Agent")) continue;
        if (named(c, "li")) {
            char *text = content(c), *rest = text, *word;
            while (rest && (word = strsep(&rest, ",;")) != NULL) add_keyword(r, word);
            free(text);
        } else {
            read_keywords(r, c);
        }
    }
}

static void read_record(struct record *r, const char *path)
{
    xmlDoc *doc = xmlReadFile(
        path, NULL, XML_PARSE_RECOVER | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NONET | XML_PARSE_HUGE);
    const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    const xmlNode *work = root ? find(root, "Work", true) : NULL;
    if (work) {
        r->title = content(find(work, "title", false));
        r->description = content(find(work, "description", false));
        read_keywords(r, work);
        const xmlNode *creator = find(work, "creator", true);
        const xmlNode *name = creator ? find(creator, "title", true) : NULL;
        r->creator = content(name ? name : creator);
        const xmlNode *licence = find(work, "license", true);
        xmlChar *resource = licence ? xmlGetProp(licence, (const xmlChar *)"resource") : NULL;
        r->is_gpl = resource && strstr((const char *)resource, "GPL");
        xmlFree(resource);
    }
    xmlFreeDoc(doc);
}

struct reading {
    const struct mode_demo_files *files;
    const char *dir;
    struct record *records;
};

static void read_item(void *ctx, int64_t i, int thread)
{
    (void)thread;
    struct reading *r = ctx;
    char *path = mode_path_join(r->dir, r->files->path[i]);
    read_record(&r->records[i], path);
    free(path);
}

static void record_clear(struct record *r)
{
    for (int i = 0; i < r->n_keywords; i++) free(r->keyword[i]);
    free(r->title);
    free(r->description);
    free(r->creator);
    free(r->second_folder);
}

/* --- how many files share a text --- */

struct shared {
    int64_t n;
    char **text; /* folded, sorted */
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int shared_count(const struct shared *s, const char *text)
{
    char *folded = mode_demo_fold(text);
    int64_t lo = 0, hi = s->n;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (strcmp(s->text[mid], folded) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    int count = 0;
    while (lo < s->n && !strcmp(s->text[lo], folded)) count++, lo++;
    free(folded);
    return count;
}

static void shared_clear(struct shared *s)
{
    for (int64_t i = 0; i < s->n; i++) free(s->text[i]);
    free(s->text);
}

/* --- captions --- */

static char *folder_words(const char *name)
{
    return mode_demo_title(name);
}

/* "clip art of TITLE, food, fruit": the whole path of folders, without the words the title has; NULL when it has all.
 */
static char *placed_title(const char *title, const char *folders)
{
    struct mode_str s = {0};
    char *path = mode_xstrdup(folders), *rest = path, *folder;
    int n = 0;
    mode_str_printf(&s, "clip art of %s", title);
    while ((folder = strsep(&rest, "/")) != NULL) {
        char *words = folder_words(folder);
        if (!mode_demo_contains(title, words)) {
            mode_str_printf(&s, ", %s", words);
            n++;
        }
        free(words);
    }
    free(path);
    if (n) return s.data;
    mode_str_clear(&s);
    return NULL;
}

static void add_captions(struct mode_demo_texts *t, const struct record *r, const char *folders, const char *title,
                         bool with_description)
{
    char *placed = placed_title(title, folders);
    mode_demo_texts_add(t, title);
    if (placed) mode_demo_texts_add(t, placed);
    free(placed);

    struct mode_str s = {0};
    struct mode_demo_texts taken = {0}; /* at most 8 keywords, without repeats */
    mode_str_printf(&s, "%s: ", title);
    for (int i = 0; i < r->n_keywords; i++) {
        const char *k = r->keyword[i];
        if (!mode_demo_keyword_is_useful(k) || mode_demo_contains(title, k)) continue;
        if (r->creator && (mode_demo_contains(r->creator, k) || mode_demo_contains(k, r->creator))) continue;
        char *words = folder_words(k);
        bool is_new = mode_demo_texts_add(&taken, words);
        free(words);
        if (is_new) mode_str_printf(&s, "%s%s", taken.n > 1 ? ", " : "", taken.text[taken.n - 1]);
    }
    if (taken.n) mode_demo_texts_add(t, s.data);
    mode_demo_texts_clear(&taken);
    mode_str_clear(&s);

    if (with_description) mode_demo_texts_add(t, r->description);
}

static bool description_is_useful(const struct record *r, const struct shared *descriptions)
{
    const char *d = r->description;
    if (!d || strlen(d) < 12 || strlen(d) > 200 || strchr(d, '@') || strstr(d, "http")) return false;
    if (shared_count(descriptions, d) > DESCRIPTION_SHARED_MAX) return false;
    return !(r->title && !strcasecmp(r->title, d));
}

static bool add_card(struct mode_demo_item *it, const char *folders, const char *stem)
{
    if (strncmp(folders, "recreation/games/cards/", 23)) return false;
    const char *deck = folders + 23;
    if (strcmp(deck, "bordered") && strcmp(deck, "simple") && strcmp(deck, "white") && strcmp(deck, "ornamental"))
        return false;
    char suit;
    int rank;
    if (mode_demo_path_ends(stem, "_jk_b") || mode_demo_path_ends(stem, "_jk_r")) {
        char *text = mode_xasprintf("a joker playing card, %s", stem[strlen(stem) - 1] == 'b' ? "black" : "red");
        mode_demo_texts_add(&it->texts, text);
        free(text);
        return true;
    }
    if (!mode_demo_card_parse(stem, &suit, &rank)) return false;
    const char *s = mode_demo_card_suit(suit), *r = mode_demo_card_rank(rank);
    char *text = mode_xasprintf("%s of %s", r, s), *longer = mode_xasprintf("playing card, %s", text);
    mode_demo_texts_add(&it->texts, text);
    mode_demo_texts_add(&it->texts, longer);
    free(text);
    free(longer);
    it->held = mode_demo_holdout_card(suit, rank);
    if (it->held) {
        mode_demo_item_label(it, MODE_DEMO_TASK_CARD_SUIT, s);
        mode_demo_item_label(it, MODE_DEMO_TASK_CARD_RANK, r);
    }
    return true;
}

static bool in_folder(const char *folders, const char *name)
{
    const char *at = strstr(folders, name);
    size_t n = strlen(name);
    while (at && !((at == folders || at[-1] == '/') && (at[n] == 0 || at[n] == '/'))) at = strstr(at + 1, name);
    return at != NULL;
}

static void add_drawing(struct mode_demo_item *it, const struct record *r, const char *folders, const char *stem,
                        const struct shared *titles, const struct shared *descriptions)
{
    char *words = mode_demo_stem_words(stem, r->creator), *title = NULL;
    if (r->title && mode_demo_title_is_own(r->title) && shared_count(titles, r->title) <= TITLE_SHARED_MAX)
        title = mode_demo_title(r->title);
    if (!title || !*title) {
        free(title);
        title = mode_xstrdup(words);
    }
    char *main_text = title;
    if (in_folder(folders, "flags") && !mode_demo_contains(title, "flag"))
        main_text = mode_xasprintf("flag of %s", title);
    else if (in_folder(folders, "icons") && !mode_demo_contains(title, "icon"))
        main_text = mode_xasprintf("%s icon", title);
    add_captions(&it->texts, r, folders, main_text, description_is_useful(r, descriptions));
    if (main_text != title) free(main_text);

    char *folded = mode_demo_fold(words);
    it->held = !r->second_folder && mode_demo_holdout_clipart(folders, folded);
    free(folded);
    if (it->held) {
        char *top = mode_xasprintf("%.*s", (int)strcspn(folders, "/"), folders), *label = folder_words(top);
        mode_demo_item_label(it, MODE_DEMO_TASK_CLIPART_CATEGORY, label);
        mode_demo_item_label(it, MODE_DEMO_TASK_RETRIEVAL_CLIPART, "");
        free(top);
        free(label);
    }
    free(title);
    free(words);
}

/* --- the source --- */

/* A link is the same picture in a second category: its folder becomes a keyword of the target. */
static void read_links(const struct mode_demo_files *files, const char *dir, struct record *records)
{
    char *real_dir = realpath(dir, NULL);
    for (int64_t i = 0; real_dir && i < files->n_links; i++) {
        char *link = mode_path_join(dir, files->link[i]), *target = realpath(link, NULL);
        free(link);
        if (target && !strncmp(target, real_dir, strlen(real_dir))) {
            const char *relative = target + strlen(real_dir) + 1;
            char **at = bsearch(&relative, files->path, (size_t)files->n, sizeof *files->path, by_text);
            char *folder = mode_demo_path_folder(files->link[i]);
            if (at) {
                struct record *r = &records[at - files->path];
                char *own = mode_demo_path_folder(*at);
                if (strcmp(own, folder) != 0) {
                    add_keyword(r, mode_path_base(folder));
                    if (!r->second_folder) r->second_folder = mode_xstrdup(folder);
                }
                free(own);
            }
            free(folder);
        }
        free(target);
    }
    free(real_dir);
}

enum mode_status mode_demo_openclipart(struct mode_demo_set *set, const char *root, struct mode_error *err)
{
    char *dir = mode_path_join(root, ROOT);
    struct mode_demo_files files;
    enum mode_status st = mode_demo_files_list(&files, dir, "openclipart-svg", err);
    if (st != MODE_OK) {
        free(dir);
        return st;
    }
    struct record *records = mode_xcalloc((size_t)files.n + 1, sizeof *records);
    struct reading reading = {&files, dir, records};
    xmlInitParser();
    mode_parallel_for(files.n, read_item, &reading);
    read_links(&files, dir, records);

    struct shared titles = {.text = mode_xcalloc((size_t)files.n + 1, sizeof(char *))};
    struct shared descriptions = {.text = mode_xcalloc((size_t)files.n + 1, sizeof(char *))};
    for (int64_t i = 0; i < files.n; i++) {
        if (records[i].title) titles.text[titles.n++] = mode_demo_fold(records[i].title);
        if (records[i].description) descriptions.text[descriptions.n++] = mode_demo_fold(records[i].description);
    }
    qsort(titles.text, (size_t)titles.n, sizeof(char *), by_text);
    qsort(descriptions.text, (size_t)descriptions.n, sizeof(char *), by_text);

    for (int64_t i = 0; i < files.n; i++) {
        const struct record *r = &records[i];
        char *stem = mode_demo_path_stem(files.path[i]), *folders = mode_demo_path_folder(files.path[i]);
        int points = in_folder(folders, "stars") ? mode_demo_star_points(stem) : 0;
        if (!mode_demo_path_ends(files.path[i], ".svg")) {
            mode_demo_tally(set, MODE_DEMO_OPENCLIPART, "not an SVG file", 1);
        } else if (r->is_gpl) {
            mode_demo_tally(set, MODE_DEMO_OPENCLIPART, "marked GPL", 1);
        } else if (points > STAR_POINTS_MAX) {
            mode_demo_tally(set, MODE_DEMO_OPENCLIPART, "star with over 12 points", 1);
        } else {
            struct mode_demo_item *it = mode_demo_item_add(set, MODE_DEMO_OPENCLIPART);
            it->path = mode_path_join(dir, files.path[i]);
            it->is_svg = true;
            it->origin = mode_xstrdup(files.path[i]);
            it->category = mode_xstrdup(folders);
            if (points) {
                char *text = mode_xasprintf("a star polygon with %d points", points);
                mode_demo_texts_add(&it->texts, text);
                free(text);
            } else if (!add_card(it, folders, stem)) {
                add_drawing(it, r, folders, stem, &titles, &descriptions);
            }
        }
        free(stem);
        free(folders);
    }
    mode_demo_tally(set, MODE_DEMO_OPENCLIPART, "symbolic link (its folder became a keyword)", files.n_links);

    for (int64_t i = 0; i < files.n; i++) record_clear(&records[i]);
    free(records);
    shared_clear(&titles);
    shared_clear(&descriptions);
    mode_demo_files_clear(&files);
    free(dir);
    return MODE_OK;
}
