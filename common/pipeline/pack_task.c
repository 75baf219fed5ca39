/* Pictures in class folders, COCO's captions or a list of pairs to a task in CLIP_benchmark's layout. */
#include "base/file.h"
#include "base/fresh.h"
#include "base/index.h"
#include "base/output.h"
#include "base/str.h"
#include "data/evalset.h"
#include "data/utf8.h"
#include "pipeline/pack_impl.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t MAX_JSON = (size_t)1 << 27; /* COCO's captions of all training pictures are 92 MB */

/* The files of a task, in the order of publication: test/ completes it. */
static const char *const parts[] = {"dataset_type.txt", "classnames.txt", "zeroshot_classification_templates.txt",
                                    "test"};
enum { TYPE, NAMES, TEMPLATES, TEST, PARTS };

static enum mode_status write_lines(const char *dir, const char *name, char *const *lines, int n,
                                    struct mode_error *err)
{
    struct mode_str s = {0};
    char *path = mode_path_join(dir, name);
    for (int i = 0; i < n; i++) mode_str_printf(&s, "%s\n", lines[i]);
    enum mode_status st = mode_file_write_atomic(path, s.data, s.len, err);
    mode_str_clear(&s);
    free(path);
    return st;
}

/* ----------------------------------------------------------------------------------------------- class folders */

struct classes {
    char **folder; /* [n] names of folders, sorted */
    char **name;   /* [n] class names */
    int n;
    char **template;
    int n_templates;
};

static bool is_number(const char *s)
{
    return *s && strspn(s, "0123456789") == strlen(s);
}

/* An ImageNet (WordNet) id: n01440764 */
static bool is_synset(const char *s)
{
    return strlen(s) == 9 && *s == 'n' && is_number(s + 1);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_number(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b, *p = x + strspn(x, "0"), *q = y + strspn(y, "0");
    if (strlen(p) != strlen(q)) return strlen(p) < strlen(q) ? -1 : 1;
    const int c = strcmp(p, q);
    return c ? c : strcmp(x, y);
}

static bool all(char *const *names, int n, bool (*is)(const char *))
{
    for (int i = 0; i < n; i++)
        if (!is(names[i])) return false;
    return true;
}

static enum mode_status find_folders(struct classes *c, const char *dir, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    DIR *d = mode_fresh_opendir(dir);
    if (!d) return mode_input_fail(err, errno, dir, "be read");
    for (struct dirent *e; !st && (e = readdir(d));) {
        struct stat sb;
        if (e->d_name[0] == '.') continue;
        char *path = mode_path_join(dir, e->d_name);
        if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) {
            c->folder = mode_xrealloc(c->folder, ((size_t)c->n + 1) * sizeof *c->folder);
            c->folder[c->n++] = mode_xstrdup(e->d_name);
        } else if (mode__pack_is_picture_name(e->d_name))
            st = MODE_FAIL(err, MODE_E_FORMAT,
                           "%s: is a picture beside the classes' folders; expected it in one of them", path);
        free(path);
    }
    closedir(d);
    if (st) return st;
    if (c->n == 0)
        return MODE_FAIL(err, MODE_E_NOINPUT, "%s: holds no folder; expected one per class, with its pictures", dir);
    qsort(c->folder, (size_t)c->n, sizeof *c->folder, all(c->folder, c->n, is_number) ? by_number : by_bytes);
    return MODE_OK;
}

static enum mode_status name_classes(struct classes *c, const struct mode_pack_task *t, struct mode_error *err)
{
    enum mode_status st;
    if (t->class_names) {
        int n;
        if ((st = mode_evalset_words_read(&c->name, &n, t->class_names, err)) || n != c->n) {
            if (!st)
                st = MODE_FAIL(err, MODE_E_FORMAT,
                               "%s: %d class names, but %s holds %d folders (%s to %s); expected one name for each",
                               t->class_names, n, t->source, c->n, c->folder[0], c->folder[c->n - 1]);
            mode_evalset_words_free(c->name, n);
            c->name = NULL;
        }
        return st;
    }
    if (all(c->folder, c->n, is_synset))
        return MODE_FAIL(err, MODE_E_USAGE,
                         "%s: folders like %s are named by numbers that say nothing to a model. HINT: --class-names "
                         "FILE, one name per line in the order of the folders",
                         t->source, c->folder[0]);
    c->name = mode_xcalloc((size_t)c->n, sizeof *c->name);
    for (int i = 0; i < c->n; i++) {
        char *name = c->name[i] = mode_xstrdup(c->folder[i]);
        for (char *p = name; *p; p++)
            if (*p == '_') *p = ' ';
        if (!mode_utf8_is_text(name, strlen(name)) || strpbrk(name, "\r\n") || !name[strspn(name, " \t")])
            return MODE_FAIL(err, MODE_E_FORMAT,
                             "%s: the name of folder %d is not a line of UTF-8 text. HINT: --class-names FILE",
                             t->source, i + 1);
    }
    return MODE_OK;
}

static enum mode_status pack_labelled(struct mode__packer *p, const char *path, const void *ctx, struct mode_error *err)
{
    const char *label = ctx;
    p->n->pairs++;
    return mode__pack_one(p, path, label, strlen(label), "cls", err);
}

static enum mode_status pack_classes(struct mode__packer *p, const struct mode_pack_task *t, const char *dir,
                                     struct mode_error *err)
{
    struct classes c = {0};
    enum mode_status st;
    if ((st = find_folders(&c, t->source, err)) || (st = name_classes(&c, t, err))) goto out;
    if (t->templates) {
        if ((st = mode_evalset_templates_read(&c.template, &c.n_templates, t->templates, err))) goto out;
    } else {
        c.template = mode_xmalloc(sizeof *c.template);
        c.template[c.n_templates++] = mode_xstrdup(MODE_PACK_TEMPLATE);
    }
    if ((st = write_lines(dir, parts[NAMES], c.name, c.n, err)) ||
        (st = write_lines(dir, parts[TEMPLATES], c.template, c.n_templates, err)))
        goto out;
    for (int i = 0; !st && i < c.n; i++) {
        char label[16], *folder = mode_path_join(t->source, c.folder[i]);
        const uint64_t before = p->n->pairs;
        snprintf(label, sizeof label, "%d", i);
        st = mode__pack_folder(p, folder, 1, pack_labelled, label, err);
        if (!st && p->n->pairs == before && !p->skip_bad)
            st = MODE_FAIL(err, MODE_E_FORMAT,
                           "%s: no .jpg, .jpeg, .png or .webp in the folder of a class. HINT: --skip-bad keeps a class "
                           "without pictures",
                           folder);
        free(folder);
    }
out:
    mode_evalset_words_free(c.folder, c.n);
    if (c.name) mode_evalset_words_free(c.name, c.n);
    mode_evalset_words_free(c.template, c.n_templates);
    return st;
}

/* ---------------------------------------------------------------------------------------------- COCO's captions */

struct coco {
    const char *path; /* for errors */
    size_t n;
    struct coco_image {
        json_int_t id;
        size_t at; /* in `images` */
    } * image;     /* [n] by id */
    size_t *first; /* [n + 1] captions of image i are caption[first[i]] .. caption[first[i + 1] - 1] */
    const char **caption;
};

static int by_id(const void *a, const void *b)
{
    const struct coco_image *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* The list `name`; checks that every item has an integer `number` and a string `text`. */
static enum mode_status need_list(const json_t **list, const char *path, const json_t *root, const char *name,
                                  const char *number, const char *text, struct mode_error *err)
{
    *list = json_object_get(root, name);
    if (!json_is_array(*list))
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: no list \"%s\"; expected COCO's captions: {\"images\": [{\"id\", \"file_name\"}], "
                         "\"annotations\": [{\"image_id\", \"caption\"}]}",
                         path, name);
    for (size_t i = 0; i < json_array_size(*list); i++) {
        const json_t *item = json_array_get(*list, i);
        if (!json_is_integer(json_object_get(item, number)) || !json_is_string(json_object_get(item, text)))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: item %zu of \"%s\" lacks an integer \"%s\" or a text \"%s\"",
                             path, i, name, number, text);
    }
    return MODE_OK;
}

static enum mode_status read_coco(struct coco *c, const json_t *images, const json_t *notes, struct mode_error *err)
{
    const size_t n_notes = json_array_size(notes);
    c->n = json_array_size(images);
    c->image = mode_xcalloc(c->n + 1, sizeof *c->image);
    c->first = mode_xcalloc(c->n + 2, sizeof *c->first);
    c->caption = mode_xcalloc(n_notes + 1, sizeof *c->caption);
    size_t *of = mode_xcalloc(n_notes + 1, sizeof *of); /* the image of each annotation */
    enum mode_status st = MODE_OK;
    for (size_t i = 0; i < c->n; i++)
        c->image[i] = (struct coco_image){json_integer_value(json_object_get(json_array_get(images, i), "id")), i};
    qsort(c->image, c->n, sizeof *c->image, by_id);
    for (size_t i = 1; !st && i < c->n; i++)
        if (c->image[i].id == c->image[i - 1].id)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: two of \"images\" have the id %lld", c->path,
                           (long long)c->image[i].id);
    for (size_t k = 0; !st && k < n_notes; k++) {
        const struct coco_image key = {json_integer_value(json_object_get(json_array_get(notes, k), "image_id")), 0},
                                *hit = bsearch(&key, c->image, c->n, sizeof key, by_id);
        if (!hit)
            st = MODE_FAIL(err, MODE_E_FORMAT,
                           "%s: item %zu of \"annotations\" is about image %lld, which \"images\" does "
                           "not have",
                           c->path, k, (long long)key.id);
        else
            c->first[(of[k] = hit->at) + 2]++;
    }
    for (size_t i = 2; i < c->n + 2; i++) c->first[i] += c->first[i - 1];
    for (size_t k = 0; !st && k < n_notes; k++) /* first[i + 1] advances to the end of image i: a counting sort */
        c->caption[c->first[of[k] + 1]++] = json_string_value(json_object_get(json_array_get(notes, k), "caption"));
    free(of);
    return st;
}

/* Add a caption as a line: trimmed, with inner line ends escaped as \n. False, and nothing added: it is blank. */
static bool add_line(struct mode_str *s, const char *text)
{
    static const char blank[] = " \t\r\n\v\f";
    text += strspn(text, blank);
    size_t n = strlen(text);
    while (n > 0 && strchr(blank, text[n - 1])) n--;
    if (n == 0) return false;
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\n')
            mode_str_add_cstr(s, "\\n");
        else
            mode_str_add_char(s, text[i]);
    mode_str_add_char(s, '\n');
    return true;
}

static bool leaves_folder(const char *path)
{
    const size_t n = strlen(path);
    return path[0] == '/' || strncmp(path, "../", 3) == 0 || strstr(path, "/../") ||
           (n >= 2 && strcmp(path + n - 2, "..") == 0);
}

static enum mode_status pack_captioned(struct mode__packer *p, const struct coco *c, size_t i, const char *file,
                                       const char *folder, struct mode_error *err)
{
    struct mode_str text = {0};
    size_t blank = 0;
    enum mode_status st;
    p->n->pairs++;
    for (size_t k = c->first[i]; k < c->first[i + 1]; k++) blank += !add_line(&text, c->caption[k]);
    if (c->first[i] == c->first[i + 1] || blank) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the image %s has %s", c->path, file,
                       blank ? "a blank caption" : "no caption");
        st = mode__pack_bad(p, &p->n->no_caption, st, err);
    } else if (leaves_folder(file)) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the file name %s leads out of the pictures' folder", c->path, file);
    } else {
        char *path = mode_path_join(folder, file);
        st = mode__pack_one(p, path, text.data, text.len, "txt", err);
        free(path);
    }
    mode_str_clear(&text);
    return st;
}

/* Frees text. */
static enum mode_status pack_coco(struct mode__packer *p, const struct mode_pack_task *t, const char *folder,
                                  char *text, size_t size, struct mode_error *err)
{
    struct coco c = {.path = t->source};
    const json_t *images, *notes;
    json_error_t why;
    enum mode_status st = MODE_OK;
    json_t *root = size > MAX_JSON ? NULL : json_loadb(text, size, 0, &why);
    free(text);
    if (size > MAX_JSON) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: %zu bytes of JSON, at most %zu are read", t->source, size, MAX_JSON);
        goto out;
    }
    if (!root) {
        st = MODE_FAIL(
            err, MODE_E_FORMAT,
            "%s: not JSON, line %d: %s; expected a folder of class folders, COCO's captions or a list of pairs",
            t->source, why.line, why.text);
        goto out;
    }
    if ((st = need_list(&images, t->source, root, "images", "id", "file_name", err)) ||
        (st = need_list(&notes, t->source, root, "annotations", "image_id", "caption", err)) ||
        (st = read_coco(&c, images, notes, err)))
        goto out;
    for (size_t i = 0; !st && i < c.n; i++)
        st = pack_captioned(p, &c, i, json_string_value(json_object_get(json_array_get(images, i), "file_name")),
                            folder, err);
out:
    json_decref(root);
    free(c.image);
    free(c.first);
    free(c.caption);
    return st;
}

/* ---------------------------------------------------------------------------------------------- a list of pairs */

struct listed {
    struct listed_picture {
        struct mode_pair first; /* its first line in the list; of the strings only the path is copied */
        struct mode_str captions;
    } * picture; /* [n] */
    size_t n, cap;
    struct mode_index at; /* path to index in picture */
};

static struct listed_picture *picture_of(struct listed *l, const struct mode_pair *pair)
{
    const uint32_t at = mode_index_get(&l->at, pair->picture);
    if (at != MODE_INDEX_NONE) return &l->picture[at];
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        l->picture = mode_xrealloc(l->picture, l->cap * sizeof *l->picture);
    }
    struct listed_picture *picture = &l->picture[l->n];
    *picture = (struct listed_picture){.first = {.line = pair->line, .picture = mode_xstrdup(pair->picture)}};
    mode_index_put(&l->at, picture->first.picture, (uint32_t)l->n++);
    return picture;
}

static enum mode_status read_list(struct listed *l, struct mode__packer *p, struct mode_pairs *list,
                                  struct mode_error *err)
{
    struct mode_pair pair;
    bool got;
    enum mode_status st = MODE_OK;
    while (!st && !(st = mode_pairs_next(list, &pair, &got, err)) && got) {
        char *save = NULL;
        if (pair.fault) {
            st = mode__pack_bad_pair(p, &pair, err);
            continue;
        }
        struct mode_str *captions = &picture_of(l, &pair)->captions;
        if (!pair.many)
            add_line(captions, pair.captions);
        else
            for (char *c = strtok_r(pair.captions, "\t", &save); c; c = strtok_r(NULL, "\t", &save))
                add_line(captions, c);
    }
    return st;
}

static enum mode_status pack_pairs(struct mode__packer *p, const struct mode_pack_task *t, const char *folder,
                                   char *text, size_t size, struct mode_error *err)
{
    struct listed l = {0};
    struct mode_pairs list;
    enum mode_status st = mode_pairs_take(&list, text, size, t->source, &t->list, err);
    if (st) return st;
    st = read_list(&l, p, &list, err);
    for (size_t i = 0; !st && i < l.n; i++) {
        const struct mode_str *captions = &l.picture[i].captions;
        st = mode__pack_listed(p, &list, &l.picture[i].first, folder, captions->data, captions->len, "txt", err);
    }
    for (size_t i = 0; i < l.n; i++) {
        free((char *)(uintptr_t)l.picture[i].first.picture);
        mode_str_clear(&l.picture[i].captions);
    }
    mode_index_clear(&l.at);
    free(l.picture);
    mode_pairs_close(&list);
    return st;
}

/* ---------------------------------------------------------------------------------------------------- the task */

static bool is_json(const char *path, const char *text)
{
    const size_t n = strlen(path);
    return (n > 5 && strcasecmp(path + n - 5, ".json") == 0) || text[strspn(text, " \t\n\v\f\r")] == '{';
}

static enum mode_status pack_captions(struct mode__packer *p, const struct mode_pack_task *t, struct mode_error *err)
{
    char *text;
    size_t size;
    enum mode_status st = t->pictures ? mode_input_folder(t->pictures, err) : MODE_OK;
    if (st || (st = mode_pairs_read(&text, &size, t->source, err))) return st;
    char *folder = t->pictures ? mode_xstrdup(t->pictures) : mode__pack_list_folder(t->source);
    st = (is_json(t->source, text) ? pack_coco : pack_pairs)(p, t, folder, text, size, err);
    free(folder);
    return st;
}

static enum mode_status check_no_task(const char *out, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (int i = 0; !st && i < PARTS; i++) {
        char *path = mode_path_join(out, parts[i]);
        if (mode_file_exists(path))
            st = MODE_FAIL(err, MODE_E_CREATE, "%s: holds %s already; give an empty folder", out, parts[i]);
        free(path);
    }
    return st;
}

/* Move the finished files to their folder; if one fails, remove all. */
static enum mode_status publish(const char *from_dir, const char *out, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    int n = 0;
    for (; !st && n < PARTS; n++) {
        char *from = mode_path_join(from_dir, parts[n]), *to = mode_path_join(out, parts[n]);
        if (mode_file_exists(from) && rename(from, to) != 0) st = mode_output_fail(err, errno, to, "be created");
        free(from);
        free(to);
    }
    if (!st) return mode_file_sync(out, err);
    for (n--; n-- > 0;) { /* those before the one that failed are files: test/ is the last */
        char *to = mode_path_join(out, parts[n]);
        unlink(to);
        free(to);
    }
    return st;
}

static enum mode_status pack_into(struct mode__packer *p, const struct mode_pack_task *t, const char *dir,
                                  struct mode_error *err)
{
    struct stat sb;
    char count[24], *lines[] = {NULL};
    if (stat(t->source, &sb) != 0) return mode_input_fail(err, errno, t->source, "be opened");
    const bool folders = S_ISDIR(sb.st_mode);
    enum mode_status st = folders ? pack_classes(p, t, dir, err) : pack_captions(p, t, err);
    if ((st = mode__pack_finish(p, st, t->source, err))) return st;
    if (p->n->packed == 0) return MODE_FAIL(err, MODE_E_FORMAT, "%s: no picture could be packed", t->source);
    snprintf(count, sizeof count, "%llu", (unsigned long long)p->n->shards);
    lines[0] = count;
    if ((st = write_lines(p->out, "nshards.txt", lines, 1, err))) return st;
    char kind[] = "classification", other[] = "retrieval";
    lines[0] = folders ? kind : other;
    return write_lines(dir, parts[TYPE], lines, 1, err);
}

enum mode_status mode_pack_task(struct mode_pack_counts *n, const struct mode_pack_task *task, const char *out,
                                uint32_t per_shard, bool skip_bad, struct mode_error *err)
{
    struct mode_output_folder folder;
    *n = (struct mode_pack_counts){0};
    enum mode_status st = mode_output_folder_make(&folder, out, err);
    if (st) return st;
    char *dir = mode_path_join(out, MODE__PACK_PARTIAL);
    struct mode__packer p = {
        .n = n, .out = mode_path_join(dir, parts[TEST]), .per_shard = per_shard, .skip_bad = skip_bad, .of_task = true};
    if (!(st = check_no_task(out, err)) && !(st = mode_dir_remove(dir, err)) && !(st = mode_dir_make(p.out, err)) &&
        !(st = pack_into(&p, task, dir, err)))
        st = publish(dir, out, err);
    if (st) mode_error_rename(err, dir, out);
    mode_dir_remove(dir, NULL);
    mode_output_folder_close(&folder, st != MODE_OK);
    free(p.out);
    free(dir);
    return st;
}
