#include "data/evalset.h"

#include "base/options.h"
#include "base/str.h"
#include "data/npy.h"
#include "data/samples.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS_FILE = 64 << 20 };
static const char TEST[] = "test"; /* the evaluation split */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Lines of text, stripped; blank ones at the end are dropped. The strings and the list are the caller's. */
static char **split_lines(char *text, size_t size, int *n)
{
    char **lines = NULL;
    size_t cap = 0;
    *n = 0;
    for (char *p = text, *end = text + size; p < end;) {
        char *next = memchr(p, '\n', (size_t)(end - p));
        char *stop = next ? next : end;
        char *from = p, *to = stop;
        while (from < to && is_blank(*from)) from++;
        while (to > from && is_blank(to[-1])) to--;
        if ((size_t)*n == cap) {
            cap = cap ? cap * 2 : 16;
            lines = mode_xrealloc(lines, cap * sizeof *lines);
        }
        lines[(*n)++] = mode_xasprintf("%.*s", (int)(to - from), from);
        p = next ? next + 1 : end;
    }
    while (*n > 0 && lines[*n - 1][0] == '\0') free(lines[--*n]);
    return lines;
}

void mode_evalset_words_free(char **lines, int n)
{
    for (int i = 0; i < n; i++) free(lines[i]);
    free(lines);
}

enum mode_status mode_evalset_words_read(char ***lines, int *n, const char *path, struct mode_error *err)
{
    char *text = NULL;
    size_t size;
    enum mode_status st = mode_file_read(path, MAX_WORDS_FILE, &text, &size, err);
    if (st) return st;
    *lines = NULL;
    *n = 0;
    if (!mode_utf8_is_text(text, size)) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: not UTF-8 text", path);
        goto out;
    }
    *lines = split_lines(text, size, n);
    if (*n == 0) st = MODE_FAIL(err, MODE_E_FORMAT, "%s: no lines", path);
    for (int i = 0; !st && i < *n; i++)
        if ((*lines)[i][0] == '\0') st = MODE_FAIL(err, MODE_E_FORMAT, "%s: line %d is blank", path, i + 1);
out:
    free(text);
    return st;
}

enum mode_status mode_evalset_classes_read(struct mode_evalset *e, const char *path, struct mode_error *err)
{
    enum mode_status st = mode_evalset_words_read(&e->classes, &e->n_classes, path, err);
    e->synonyms = mode_xcalloc((size_t)e->n_classes + 1, sizeof *e->synonyms);
    for (int i = 0; !st && i < e->n_classes; i++) {
        char *tab = strchr(e->classes[i], '\t');
        if (tab && strstr(tab, "\t\t"))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: line %d has two tabs in a row: a name of the class is missing",
                           path, i + 1);
        if (!tab) continue;
        e->synonyms[i] = mode_xstrdup(tab + 1);
        *tab = '\0';
    }
    return st;
}

enum mode_status mode_evalset_templates_read(char ***lines, int *n, const char *path, struct mode_error *err)
{
    enum mode_status st = mode_evalset_words_read(lines, n, path, err);
    for (int i = 0; !st && i < *n; i++)
        if (!strstr((*lines)[i], "{c}"))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: line %d has no {c} for the class name", path, i + 1);
    return st;
}

static enum mode_status read_words(const char *dir, const char *name, char ***lines, int *n, struct mode_error *err)
{
    char *path = mode_path_join(dir, name);
    enum mode_status st = mode_evalset_words_read(lines, n, path, err);
    free(path);
    return st;
}

static const char *const kinds[] = {[MODE_TASK_CLASSIFICATION] = "classification",
                                    [MODE_TASK_RETRIEVAL] = "retrieval",
                                    [MODE_TASK_MULTILABEL] = "multilabel",
                                    [MODE_TASK_OTHER] = "other"};

const char *mode_task_kind_name(enum mode_task_kind kind)
{
    return kinds[kind];
}

enum mode_task_kind mode_task_kind_parse(const char *name)
{
    enum mode_task_kind k = MODE_TASK_CLASSIFICATION;
    while (k < MODE_TASK_OTHER && strcmp(kinds[k], name) != 0) k++;
    return k;
}

enum mode_status mode_evalset_kind(enum mode_task_kind *kind, char **word, const char *dir, struct mode_error *err)
{
    static const char name[] = "dataset_type.txt";
    char **lines = NULL;
    int n = 0;
    char *path = mode_path_join(dir, name);
    enum mode_status st = mode_file_exists(path) ? read_words(dir, name, &lines, &n, err) : MODE_OK;
    if (!st) *kind = n ? mode_task_kind_parse(lines[0]) : MODE_TASK_CLASSIFICATION;
    if (!st) *word = mode_xstrdup(n ? lines[0] : mode_task_kind_name(*kind));
    mode_evalset_words_free(lines, n);
    free(path);
    return st;
}

enum mode_status mode_evalset_known_kind(enum mode_task_kind *kind, const char *dir, struct mode_error *err)
{
    char *word = NULL;
    enum mode_status st = mode_evalset_kind(kind, &word, dir, err);
    if (!st && *kind == MODE_TASK_OTHER)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s/dataset_type.txt: task type \"%s\", expected " MODE_TASK_KINDS, dir,
                       word);
    free(word);
    return st;
}

static enum mode_status read_templates(struct mode_evalset *e, const char *dir, struct mode_error *err)
{
    static const char name[] = "zeroshot_classification_templates.txt";
    char *path = mode_path_join(dir, name);
    enum mode_status st = MODE_OK;
    if (e->kind == MODE_TASK_RETRIEVAL && !mode_file_exists(path)) {
        e->templates = mode_xmalloc(sizeof *e->templates);
        e->templates[0] = mode_xstrdup("{c}");
        e->n_templates = 1;
    } else
        st = mode_evalset_templates_read(&e->templates, &e->n_templates, path, err);
    free(path);
    return st;
}

/* Distinguishes an incomplete task, whose error names what is missing, from a folder that is not a task. */
static bool is_task(const char *dir)
{
    static const char *const files[] = {"zeroshot_classification_templates.txt", "classnames.txt", "dataset_type.txt",
                                        "test/nshards.txt"};
    bool any = false;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = mode_path_join(dir, files[i]);
        any |= mode_file_exists(path);
        free(path);
    }
    return any;
}

/* The label of a .cls member: one integer. */
static enum mode_status read_label(const struct mode_evalset *e, int32_t *label, const uint8_t *p, uint64_t n,
                                   const char *what, struct mode_error *err)
{
    char text[16];
    int64_t v;
    while (n > 0 && is_blank((char)p[n - 1])) n--;
    if (n == 0 || n >= sizeof text || memchr(p, '\0', (size_t)n))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the label is not a number", what);
    memcpy(text, p, (size_t)n);
    text[n] = '\0';
    if (mode_parse_int(text, what, 0, e->n_classes - 1, &v, err)) {
        if (err) err->status = MODE_E_FORMAT;
        return MODE_E_FORMAT;
    }
    *label = (int32_t)v;
    return MODE_OK;
}

/* In a caption the two characters "\n" stand for a line break. */
static void unescape(char *s)
{
    char *to = s;
    for (; *s; s++) {
        if (s[0] == '\\' && s[1] == 'n') {
            *to++ = '\n';
            s++;
        } else
            *to++ = *s;
    }
    *to = '\0';
}

static void *grow(void *v, int n, size_t size) /* before element n is added; doubles */
{
    return (n & (n - 1)) == 0 ? mode_xrealloc(v, (n ? 2 * (size_t)n : 1) * size) : v;
}

static enum mode_status add_texts(struct mode_evalset *e, const uint8_t *p, uint64_t n, const char *what,
                                  struct mode_error *err)
{
    int n_lines;
    if (n > MAX_WORDS_FILE || !mode_utf8_is_text((const char *)p, (size_t)n))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the captions are not UTF-8 text", what);
    char *text = mode_xasprintf("%.*s", (int)n, (const char *)p);
    char **lines = split_lines(text, (size_t)n, &n_lines);
    int taken = 0;
    for (int i = 0; i < n_lines; i++) {
        if (lines[i][0] == '\0') {
            free(lines[i]);
            continue;
        }
        unescape(lines[i]);
        e->texts = grow(e->texts, e->n_texts, sizeof *e->texts);
        e->image_of_text = grow(e->image_of_text, e->n_texts, sizeof *e->image_of_text);
        e->texts[e->n_texts] = lines[i];
        e->image_of_text[e->n_texts++] = e->n_images;
        taken++;
    }
    free(lines);
    free(text);
    return taken ? MODE_OK : MODE_FAIL(err, MODE_E_FORMAT, "%s: no caption", what);
}

/* Reads the target of picture n_images: its labels or its captions. */
static enum mode_status read_answer(struct mode_evalset *e, const uint8_t *p, uint64_t n, const char *what,
                                    struct mode_error *err)
{
    if (e->kind == MODE_TASK_RETRIEVAL) return add_texts(e, p, n, what, err);
    size_t per = e->kind == MODE_TASK_MULTILABEL ? (size_t)e->n_classes : 1;
    e->label = grow(e->label, e->n_images, per * sizeof *e->label);
    int32_t *label = e->label + (size_t)e->n_images * per;
    if (e->kind == MODE_TASK_CLASSIFICATION) return read_label(e, label, p, n, what, err);
    return mode_npy_read_flags(label, e->n_classes, p, (size_t)n, what, err);
}

static enum mode_status add_sample(struct mode_evalset *e, const struct mode_tar_data *d,
                                   const struct mode_sample_list *s, const struct mode_group *g, const char *path,
                                   struct mode_error *err)
{
    const struct mode_member *image = mode_group_image(s, g);
    const char *ext = e->kind == MODE_TASK_RETRIEVAL ? "txt" : e->kind == MODE_TASK_MULTILABEL ? "npy" : "cls";
    const struct mode_member *answer = mode_group_member(s, g, ext);
    enum mode_status st;
    char *key = mode_utf8_cleaned(g->key, strlen(g->key));
    char *what = mode_xasprintf("%s, sample %.200s", path, key);
    if (!image || !answer)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: no %s", what, image ? ext : "picture");
    else if (g->again)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: its key was seen earlier in the tar", what);
    else if (e->n_images == MODE_EVALSET_MAX_IMAGES)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: more than %d pictures in one task", what, MODE_EVALSET_MAX_IMAGES);
    else
        st = read_answer(e, d->data + answer->offset, answer->size, what, err);
    free(what);
    if (st) {
        free(key);
        return st;
    }
    e->image = grow(e->image, e->n_images, sizeof *e->image);
    e->image_size = grow(e->image_size, e->n_images, sizeof *e->image_size);
    e->image_key = grow(e->image_key, e->n_images, sizeof *e->image_key);
    e->image[e->n_images] = d->data + image->offset;
    e->image_size[e->n_images] = (size_t)image->size;
    e->image_key[e->n_images++] = key;
    return MODE_OK;
}

static enum mode_status add_tar(struct mode_evalset *e, const char *path, struct mode_error *err)
{
    struct mode_tar_data *d = &e->tars[e->n_tars];
    struct mode_sample_list s = {0};
    enum mode_status st = mode_tar_data_open(d, path, err);
    if (st) return st;
    e->n_tars++;
    if ((st = mode_samples_list(&s, d, path, err))) return st;
    if (s.cut)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the tar is cut short, in the member that begins at byte %llu", path,
                       (unsigned long long)s.cut_at);
    for (size_t i = 0; !st && i < s.n_groups; i++) st = add_sample(e, d, &s, &s.groups[i], path, err);
    mode_sample_list_clear(&s);
    return st;
}

static enum mode_status read_n_shards(const char *dir, const char *split, int64_t *n, struct mode_error *err)
{
    char **lines = NULL;
    int n_lines = 0;
    char *name = mode_path_join(split, "nshards.txt");
    enum mode_status st = read_words(dir, name, &lines, &n_lines, err);
    if (!st && mode_parse_int(lines[0], name, 1, MODE_EVALSET_MAX_SHARDS, n, err)) {
        st = MODE_E_FORMAT;
        if (err) err->status = st;
        mode_error_prefix(err, st, "%s", dir);
    }
    mode_evalset_words_free(lines, n_lines);
    free(name);
    return st;
}

enum mode_status mode_evalset_open(struct mode_evalset *e, const char *dir, struct mode_error *err)
{
    return mode_evalset_open_split(e, dir, TEST, err);
}

enum mode_status mode_evalset_open_split(struct mode_evalset *e, const char *dir, const char *split,
                                         struct mode_error *err)
{
    int64_t n_shards;
    enum mode_status st = mode_input_folder(dir, err);
    *e = (struct mode_evalset){0};
    if (st) return st;
    if (!is_task(dir))
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "%s: is not an evaluation task: it has neither templates nor test/nshards.txt. HINT: `mode "
                         "pack --task` makes one of class folders, COCO's captions or a list of pairs",
                         dir);
    char *name = mode_xstrdup(dir);
    for (size_t n = strlen(name); n > 1 && name[n - 1] == '/'; n--) name[n - 1] = '\0';
    e->name = mode_xstrdup(mode_path_base(name));
    free(name);
    if ((st = mode_evalset_known_kind(&e->kind, dir, err)) || (st = read_templates(e, dir, err)) ||
        (st = read_n_shards(dir, split, &n_shards, err)))
        goto out;
    if (e->kind != MODE_TASK_RETRIEVAL) {
        char *path = mode_path_join(dir, "classnames.txt");
        st = mode_evalset_classes_read(e, path, err);
        free(path);
        if (st) goto out;
    }
    e->tars = mode_xcalloc((size_t)n_shards, sizeof *e->tars);
    for (int i = 0; !st && i < n_shards; i++) {
        char *path = mode_xasprintf("%s/%s/%d.tar", dir, split, i);
        st = add_tar(e, path, err);
        free(path);
    }
    if (!st && e->n_images == 0) st = MODE_FAIL(err, MODE_E_FORMAT, "%s/%s: a task without pictures", dir, split);
out:
    if (st) mode_evalset_close(e);
    return st;
}

void mode_evalset_close(struct mode_evalset *e)
{
    free(e->name);
    mode_evalset_words_free(e->classes, e->n_classes);
    if (e->synonyms) mode_evalset_words_free(e->synonyms, e->n_classes);
    mode_evalset_words_free(e->templates, e->n_templates);
    mode_evalset_words_free(e->texts, e->n_texts);
    mode_evalset_words_free(e->image_key, e->n_images);
    free(e->image);
    free(e->image_size);
    free(e->label);
    free(e->image_of_text);
    for (int i = 0; i < e->n_tars; i++) mode_tar_data_close(&e->tars[i]);
    free(e->tars);
    *e = (struct mode_evalset){0};
}

int mode_evalset_n_prompts(const struct mode_evalset *e, int class_index)
{
    MODE_ASSERT(class_index >= 0 && class_index < e->n_classes);
    int n_names = 1;
    for (const char *p = e->synonyms ? e->synonyms[class_index] : NULL; p; n_names++)
        if ((p = strchr(p, '\t'))) p++;
    return n_names * e->n_templates;
}

char *mode_evalset_prompt(const struct mode_evalset *e, int prompt_index, int class_index)
{
    MODE_ASSERT(prompt_index >= 0 && prompt_index < mode_evalset_n_prompts(e, class_index));
    struct mode_str s = {0};
    const char *p = e->templates[prompt_index % e->n_templates], *name = e->classes[class_index];
    for (int i = 0; i < prompt_index / e->n_templates; i++)
        name = i ? strchr(name, '\t') + 1 : e->synonyms[class_index];
    for (const char *mark; (mark = strstr(p, "{c}")); p = mark + 3) {
        mode_str_add(&s, p, (size_t)(mark - p));
        mode_str_add(&s, name, strcspn(name, "\t"));
    }
    mode_str_add_cstr(&s, p);
    return s.data;
}

static enum mode_status add_file_digest(struct mode_str *sums, const char *dir, const char *name, bool optional,
                                        struct mode_error *err)
{
    char hex[MODE_DIGEST_HEX];
    uint64_t size;
    char *path = mode_path_join(dir, name);
    enum mode_status st = MODE_OK;
    if (!optional || mode_file_exists(path)) {
        st = mode_digest_file(path, hex, &size, err);
        if (!st) mode_str_printf(sums, "%s %llu %s\n", hex, (unsigned long long)size, name);
    }
    free(path);
    return st;
}

enum mode_status mode_evalset_digest(const char *dir, char hex[MODE_DIGEST_HEX], struct mode_error *err)
{
    static const char *const words[] = {"dataset_type.txt", "classnames.txt", "zeroshot_classification_templates.txt"};
    struct mode_str sums = {0};
    int64_t n_shards;
    enum mode_status st = mode_input_folder(dir, err);
    if (!st) st = read_n_shards(dir, TEST, &n_shards, err);
    for (size_t i = 0; !st && i < sizeof words / sizeof *words; i++)
        st = add_file_digest(&sums, dir, words[i], true, err);
    if (!st) st = add_file_digest(&sums, dir, "test/nshards.txt", false, err);
    for (int64_t i = 0; !st && i < n_shards; i++) {
        char *name = mode_xasprintf("test/%lld.tar", (long long)i);
        st = add_file_digest(&sums, dir, name, false, err);
        free(name);
    }
    if (!st) mode_digest_bytes(sums.data, sums.len, hex);
    mode_str_clear(&sums);
    return st;
}

enum mode_status mode_evalset_unchanged(const char *dir, const char *digest, struct mode_error *err)
{
    char now[MODE_DIGEST_HEX];
    enum mode_status st = mode_evalset_digest(dir, now, err);
    if (st || strcmp(now, digest) == 0) return st;
    return MODE_FAIL(err, MODE_E_VALUE,
                     "evaluation task %s: has digest %s, it was planned with %s: its files have "
                     "changed since",
                     dir, now, digest);
}

static void add_word_list(struct mode_str *out, const char *what, char *const *words, int n)
{
    mode_str_printf(out, "%s %d\n", what, n);
    for (int i = 0; i < n; i++) mode_str_printf(out, "%zu:%s\n", strlen(words[i]), words[i]);
}

enum mode_status mode_evalset_words_digest(const char *dir, char hex[MODE_DIGEST_HEX], struct mode_error *err)
{
    struct mode_evalset e;
    struct mode_str words = {0};
    enum mode_status st = mode_evalset_open(&e, dir, err);
    if (st) return st;
    mode_str_printf(&words, "%s\n", mode_task_kind_name(e.kind));
    add_word_list(&words, "classes", e.classes, e.n_classes);
    for (int i = 0; e.synonyms && i < e.n_classes; i++)
        if (e.synonyms[i]) mode_str_printf(&words, "class %d %zu:%s\n", i, strlen(e.synonyms[i]), e.synonyms[i]);
    add_word_list(&words, "templates", e.templates, e.n_templates);
    add_word_list(&words, "texts", e.texts, e.n_texts);
    mode_digest_bytes(words.data, words.len, hex);
    mode_str_clear(&words);
    mode_evalset_close(&e);
    return st;
}
