#include "data/items.h"

#include "base/file.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>

const struct mode_demo_source_info mode_demo_source_info[MODE_DEMO_SOURCES] = {
#define X(id, name, package, licence) {name, package, licence},
    MODE_DEMO_SOURCE_MAP(X)
#undef X
};

const struct mode_demo_task_info mode_demo_task_info[MODE_DEMO_TASKS] = {
#define X(id, name, kind, fewest, templates) {name, kind, fewest, templates},
    MODE_DEMO_TASK_MAP(X)
#undef X
};

const char *const mode_demo_fate_text[MODE_DEMO_FATES] = {
#define X(id, text) text,
    MODE_DEMO_FATE_MAP(X)
#undef X
};

struct mode_demo_item *mode_demo_item_add(struct mode_demo_set *set, enum mode_demo_source source)
{
    if (set->n == set->cap) {
        set->cap = set->cap ? set->cap * 2 : 4096;
        set->items = mode_xrealloc(set->items, (size_t)set->cap * sizeof *set->items);
    }
    struct mode_demo_item *it = &set->items[set->n++];
    memset(it, 0, sizeof *it);
    it->source = source;
    return it;
}

void mode_demo_item_label(struct mode_demo_item *it, enum mode_demo_task task, const char *label)
{
    free(it->label[task]);
    it->label[task] = mode_xstrdup(label);
}

void mode_demo_tally(struct mode_demo_set *set, enum mode_demo_source source, const char *reason, int64_t n)
{
    if (!n) return;
    int i = 0;
    while (i < set->n_tallies && (set->tallies[i].source != source || strcmp(set->tallies[i].reason, reason) != 0)) i++;
    if (i == set->n_tallies) {
        MODE_ASSERT(i < (int)(sizeof set->tallies / sizeof *set->tallies));
        set->tallies[set->n_tallies++] = (struct mode_demo_tally){source, reason, 0};
    }
    set->tallies[i].n += n;
}

void mode_demo_set_clear(struct mode_demo_set *set)
{
    for (int64_t i = 0; i < set->n; i++) {
        struct mode_demo_item *it = &set->items[i];
        for (int t = 0; t < MODE_DEMO_TASKS; t++) free(it->label[t]);
        mode_demo_texts_clear(&it->texts);
        free(it->path);
        free(it->origin);
        free(it->category);
        free(it->detail);
        free(it->jpeg);
    }
    free(set->items);
    if (set->release) set->release(set->owner);
    memset(set, 0, sizeof *set);
}

/* --- files --- */

static void push(char ***list, int64_t *n, size_t *cap, const char *path)
{
    if ((size_t)*n == *cap) {
        *cap = *cap ? *cap * 2 : 256;
        *list = mode_xrealloc(*list, *cap * sizeof **list);
    }
    (*list)[(*n)++] = mode_xstrdup(path);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum mode_status mode_demo_files_list(struct mode_demo_files *f, const char *dir, const char *package,
                                      struct mode_error *err)
{
    memset(f, 0, sizeof *f);
    if (!mode_file_exists(dir))
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "%s does not exist: it comes with the Debian package %s. HINT: run "
                         "deploy/demo/packages.sh, which fetches and unpacks it",
                         dir, package);
    char *root[] = {(char *)dir, NULL};
    size_t skip = strlen(dir) + 1, cap = 0, cap_links = 0;
    FTS *fts = fts_open(root, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *e = NULL;
    errno = 0;
    while (fts && (e = fts_read(fts)) != NULL && e->fts_info != FTS_ERR && e->fts_info != FTS_DNR) {
        if (e->fts_info == FTS_F) push(&f->path, &f->n, &cap, e->fts_path + skip);
        if (e->fts_info == FTS_SL || e->fts_info == FTS_SLNONE)
            push(&f->link, &f->n_links, &cap_links, e->fts_path + skip);
    }
    int why = e ? e->fts_errno : errno;
    if (fts) fts_close(fts);
    if (why) {
        mode_demo_files_clear(f);
        return MODE_FAIL(err, MODE_E_IO, "%s cannot be listed: %s", dir, strerror(why));
    }
    if (f->n) qsort(f->path, (size_t)f->n, sizeof *f->path, by_path);
    if (f->n_links) qsort(f->link, (size_t)f->n_links, sizeof *f->link, by_path);
    return MODE_OK;
}

void mode_demo_files_clear(struct mode_demo_files *f)
{
    for (int64_t i = 0; i < f->n; i++) free(f->path[i]);
    for (int64_t i = 0; i < f->n_links; i++) free(f->link[i]);
    free(f->path);
    free(f->link);
    memset(f, 0, sizeof *f);
}

char *mode_demo_path_stem(const char *path)
{
    char *stem = mode_xstrdup(mode_path_base(path));
    char *dot = strrchr(stem, '.');
    if (dot && dot > stem) *dot = 0;
    return stem;
}

char *mode_demo_path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? mode_xasprintf("%.*s", (int)(slash - path), path) : mode_xstrdup("");
}

bool mode_demo_path_ends(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && !strcmp(path + n - m, ending);
}
