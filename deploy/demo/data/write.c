#include "data/write.h"

#include "base/file.h"
#include "base/rng.h"
#include "data/tar.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_PER_SHARD 1000
#define SHUFFLE_SEED    1

/* --- training --- */

static char *pair_json(const struct mode_demo_item *it)
{
    json_t *texts = json_array();
    for (int i = 0; i < it->texts.n; i++) json_array_append_new(texts, json_string(it->texts.text[i]));
    const struct mode_demo_source_info *info = &mode_demo_source_info[it->source];
    json_t *root = json_pack("{s:o, s:s, s:s, s:s, s:s, s:s, s:i, s:i}", "texts", texts, "source", info->name,
                             "category", it->category, "origin", it->origin, "package", info->package, "licence",
                             info->licence, "width", it->width, "height", it->height);
    MODE_ASSERT(root);
    char *text = json_dumps(root, JSON_COMPACT);
    MODE_ASSERT(text);
    json_decref(root);
    return text;
}

static enum mode_status write_shard(const struct mode_demo_set *set, const uint32_t *order, int64_t first, int64_t n,
                                    int64_t shard, const char *out, struct mode_error *err)
{
    char *dir = mode_xasprintf("%s/train/%lld", out, (long long)(shard % 100));
    char *path = mode_xasprintf("%s/%lld.tar", dir, (long long)shard);
    struct mode_tar_writer *tar = NULL;
    enum mode_status st = mode_dir_make(dir, err);
    if (st == MODE_OK) st = mode_tar_writer_open(&tar, path, err);
    for (int64_t i = first; st == MODE_OK && i < first + n; i++) {
        const struct mode_demo_item *it = &set->items[order[i]];
        char name[32], *json = pair_json(it);
        snprintf(name, sizeof name, "%09lld.json", (long long)i);
        st = mode_tar_writer_add(tar, name, json, strlen(json), err);
        snprintf(name, sizeof name, "%09lld.jpg", (long long)i);
        if (st == MODE_OK) st = mode_tar_writer_add(tar, name, it->jpeg, it->jpeg_size, err);
        free(json);
    }
    if (st == MODE_OK) st = mode_tar_writer_finish(&tar, err);
    mode_tar_writer_close(&tar);
    free(dir);
    free(path);
    return st;
}

static enum mode_status write_train(const struct mode_demo_set *set, const char *out, struct mode_error *err)
{
    uint32_t *order = mode_xmalloc(((size_t)set->n + 1) * sizeof *order);
    int64_t n = 0;
    for (int64_t i = 0; i < set->n; i++)
        if (!set->items[i].held && set->items[i].fate == MODE_DEMO_KEPT) order[n++] = (uint32_t)i;
    struct mode_rng r = mode_rng_for(SHUFFLE_SEED, MODE_RNG_ORDER, 0, 0);
    mode_rng_shuffle_u32(&r, order, (uint64_t)n);
    enum mode_status st = MODE_OK;
    for (int64_t first = 0, shard = 0; st == MODE_OK && first < n; first += PAIRS_PER_SHARD, shard++) {
        int64_t left = n - first;
        st = write_shard(set, order, first, left < PAIRS_PER_SHARD ? left : PAIRS_PER_SHARD, shard, out, err);
    }
    free(order);
    return st;
}

/* --- evaluation --- */

struct classes {
    int n;
    char **name; /* sorted, distinct; borrowed from the labels */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_member(const struct mode_demo_item *it, int task)
{
    return it->held && it->fate == MODE_DEMO_KEPT && it->label[task];
}

static struct classes list_classes(const struct mode_demo_set *set, int task)
{
    struct classes c = {.name = mode_xcalloc((size_t)set->n + 1, sizeof(char *))};
    for (int64_t i = 0; i < set->n; i++)
        if (is_member(&set->items[i], task)) c.name[c.n++] = set->items[i].label[task];
    int kept = 0;
    if (c.n) qsort(c.name, (size_t)c.n, sizeof *c.name, by_name);
    for (int i = 0; i < c.n; i++)
        if (!kept || strcmp(c.name[kept - 1], c.name[i]) != 0) c.name[kept++] = c.name[i];
    c.n = kept;
    return c;
}

static int class_of(const struct classes *c, char *label)
{
    char **at = bsearch(&label, c->name, (size_t)c->n, sizeof *c->name, by_name);
    MODE_ASSERT(at);
    return (int)(at - c->name);
}

static enum mode_status write_text(const char *dir, const char *name, const char *text, struct mode_error *err)
{
    char *path = mode_path_join(dir, name);
    enum mode_status st = mode_file_write_atomic(path, text, strlen(text), err);
    free(path);
    return st;
}

static enum mode_status write_pictures(const struct mode_demo_set *set, int task, const struct classes *classes,
                                       const char *dir, struct mode_error *err)
{
    bool retrieval = mode_demo_task_info[task].kind == 2;
    char *path = mode_path_join(dir, "test/0.tar");
    struct mode_tar_writer *tar = NULL;
    enum mode_status st = mode_tar_writer_open(&tar, path, err);
    int64_t n = 0;
    for (int64_t i = 0; st == MODE_OK && i < set->n; i++) {
        const struct mode_demo_item *it = &set->items[i];
        if (!is_member(it, task)) continue;
        char name[32], *text = retrieval ? mode_xasprintf("%s\n", it->texts.text[0])
                                         : mode_xasprintf("%d", class_of(classes, it->label[task]));
        snprintf(name, sizeof name, "s%07lld.%s", (long long)n, retrieval ? "txt" : "cls");
        st = mode_tar_writer_add(tar, name, text, strlen(text), err);
        snprintf(name, sizeof name, "s%07lld.jpg", (long long)n++);
        if (st == MODE_OK) st = mode_tar_writer_add(tar, name, it->jpeg, it->jpeg_size, err);
        free(text);
    }
    if (st == MODE_OK) st = mode_tar_writer_finish(&tar, err);
    mode_tar_writer_close(&tar);
    free(path);
    return st;
}

static enum mode_status write_task(const struct mode_demo_set *set, int task, const char *out, struct mode_error *err)
{
    const struct mode_demo_task_info *info = &mode_demo_task_info[task];
    struct classes classes = list_classes(set, task);
    char *dir = mode_xasprintf("%s/eval/%s", out, info->name), *test = mode_path_join(dir, "test");
    enum mode_status st = MODE_OK;
    if (!classes.n) goto out; /* its source was left out */
    st = mode_dir_make(test, err);
    if (st == MODE_OK && info->kind == 2) {
        st = write_text(dir, "dataset_type.txt", "retrieval\n", err);
    } else if (st == MODE_OK) {
        struct mode_str s = {0};
        for (int i = 0; i < classes.n; i++) mode_str_printf(&s, "%s\n", classes.name[i]);
        st = write_text(dir, "classnames.txt", s.data, err);
        mode_str_clear(&s);
        if (st == MODE_OK) st = write_text(dir, "zeroshot_classification_templates.txt", info->templates, err);
    }
    if (st == MODE_OK) st = write_text(test, "nshards.txt", "1\n", err);
    if (st == MODE_OK) st = write_pictures(set, task, &classes, dir, err);
out:
    free(classes.name);
    free(dir);
    free(test);
    return st;
}

/* --- the table --- */

/* Version of a package from the text of packages.tsv; "unknown" when it is not there. The caller frees. */
static char *version_of(const char *packages, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = packages; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, name, n) && line[n] == '\t')
            return mode_xasprintf("%.*s", (int)strcspn(line + n + 1, "\t\n"), line + n + 1);
    return mode_xstrdup("unknown");
}

static void table_of_sources(struct mode_str *s, const struct mode_demo_set *set, const char *packages)
{
    int64_t all_train = 0, all_held = 0;
    mode_str_add_cstr(s,
                      "| source | package | version | licence of the pictures | training pairs | held-out pictures |\n"
                      "| --- | --- | --- | --- | ---: | ---: |\n");
    for (int k = 0; k < MODE_DEMO_SOURCES; k++) {
        const struct mode_demo_source_info *info = &mode_demo_source_info[k];
        int64_t train = 0, held = 0;
        for (int64_t i = 0; i < set->n; i++)
            if ((int)set->items[i].source == k && set->items[i].fate == MODE_DEMO_KEPT)
                (*(set->items[i].held ? &held : &train))++;
        all_train += train;
        all_held += held;
        if (!train && !held) continue;
        char *version = version_of(packages, info->package);
        mode_str_printf(s, "| %s | %s | %s | %s | %lld | %lld |\n", info->name, info->package, version, info->licence,
                        (long long)train, (long long)held);
        free(version);
    }
    mode_str_printf(s, "| **sum** | | | | **%lld** | **%lld** |\n", (long long)all_train, (long long)all_held);
    char *cldr = version_of(packages, "unicode-cldr-core"), *data = version_of(packages, "unicode-data");
    char *font = version_of(packages, "fonts-dejavu-core");
    mode_str_printf(s,
                    "\nNames of emoji and countries: unicode-cldr-core %s (Unicode-DFS-2016); sequences and "
                    "groups of emoji: unicode-data %s (Unicode terms of use); letters inside drawings: "
                    "fonts-dejavu-core %s (Bitstream Vera licence).\n",
                    cldr, data, font);
    free(cldr);
    free(data);
    free(font);
}

static void table_of_tasks(struct mode_str *s, const struct mode_demo_set *set)
{
    mode_str_add_cstr(s, "| evaluation set | pictures | classes | largest class |\n| --- | ---: | ---: | ---: |\n");
    for (int t = 0; t < MODE_DEMO_TASKS; t++) {
        struct classes classes = list_classes(set, t);
        int64_t n = 0, largest = 0;
        int64_t *in_class = mode_xcalloc((size_t)classes.n + 1, sizeof *in_class);
        for (int64_t i = 0; i < set->n; i++) {
            if (!is_member(&set->items[i], t)) continue;
            int64_t *c = &in_class[class_of(&classes, set->items[i].label[t])];
            n++;
            if (++*c > largest) largest = *c;
        }
        if (n && mode_demo_task_info[t].kind == 2)
            mode_str_printf(s, "| %s | %lld | retrieval | |\n", mode_demo_task_info[t].name, (long long)n);
        else if (n)
            mode_str_printf(s, "| %s | %lld | %d | %.3f |\n", mode_demo_task_info[t].name, (long long)n, classes.n,
                            (double)largest / (double)n);
        free(in_class);
        free(classes.name);
    }
}

static void table_of_losses(struct mode_str *s, const struct mode_demo_set *set)
{
    mode_str_add_cstr(s, "| source | left out because | pictures |\n| --- | --- | ---: |\n");
    for (int k = 0; k < MODE_DEMO_SOURCES; k++) {
        const char *name = mode_demo_source_info[k].name;
        for (int i = 0; i < set->n_tallies; i++)
            if ((int)set->tallies[i].source == k)
                mode_str_printf(s, "| %s | %s | %lld |\n", name, set->tallies[i].reason, (long long)set->tallies[i].n);
        for (int held = 0; held < 2; held++)
            for (int f = MODE_DEMO_KEPT + 1; f < MODE_DEMO_FATES; f++) {
                int64_t n = 0;
                for (int64_t i = 0; i < set->n; i++) {
                    const struct mode_demo_item *it = &set->items[i];
                    n += (int)it->source == k && (int)it->fate == f && it->held == held;
                }
                if (n)
                    mode_str_printf(s, "| %s%s | %s | %lld |\n", name, held ? " (held out)" : "",
                                    mode_demo_fate_text[f], (long long)n);
            }
    }
    for (int64_t i = 0; i < set->n; i++)
        if (set->items[i].fate == MODE_DEMO_UNPARSABLE)
            mode_str_printf(s, "\n- %s/%s does not parse: %s", mode_demo_source_info[set->items[i].source].name,
                            set->items[i].origin, set->items[i].detail);
    mode_str_add_cstr(s, "\n");
}

enum mode_status mode_demo_write(const struct mode_demo_set *set, const char *packages, const char *out,
                                 const char *profile, bool tuxpaint, struct mode_error *err)
{
    char *train = mode_path_join(out, "train"), *eval = mode_path_join(out, "eval");
    char *packages_path = mode_path_join(packages, "packages.tsv"), *versions = NULL;
    size_t size = 0;
    struct mode_str s = {0};
    enum mode_status st = mode_file_read(packages_path, 1 << 20, &versions, &size, err);
    if (st == MODE_OK) st = mode_dir_make(out, err);
    if (st == MODE_OK) st = mode_dir_remove(train, err);
    if (st == MODE_OK) st = mode_dir_remove(eval, err);
    if (st == MODE_OK) st = write_train(set, out, err);
    for (int t = 0; st == MODE_OK && t < MODE_DEMO_TASKS; t++) st = write_task(set, t, out, err);
    if (st == MODE_OK) {
        mode_str_printf(&s, "# Demo data, profile %s\n\n", profile);
        table_of_sources(&s, set, versions);
        if (!tuxpaint)
            mode_str_add_cstr(&s, "\nTux Paint's stamps (tuxpaint-stamps-default, 160 MB) are left out: three "
                                  "classification sets and one retrieval set less.\n");
        mode_str_add_cstr(&s, "\n");
        table_of_tasks(&s, set);
        fputs(s.data, stdout);
        mode_str_add_cstr(&s, "\nEvery picture of these sources that is not above:\n\n");
        table_of_losses(&s, set);
        st = write_text(out, "SOURCES.md", s.data, err);
    }
    mode_str_clear(&s);
    free(versions);
    free(packages_path);
    free(train);
    free(eval);
    return st;
}
