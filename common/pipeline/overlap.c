#include "pipeline/overlap.h"

#include "base/parallel.h"
#include "base/str.h"
#include "data/evalset.h"
#include "data/image_hash.h"
#include "data/samples.h"
#include "data/utf8.h"
#include "remote/shards.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum {
    BLOCK = 256, /* images between two reports of progress */
    SCAN = 512   /* hashes that are compared at once */
};

enum { HIT_EXACT = 1, HIT_NEAR = 2 };

struct mode_overlap {
    struct mode_overlap_options o;
    int n_tasks;
    struct mode_overlap_task *task;
    struct mode_overlap_training training;

    uint32_t n; /* images of all tasks, one task after another */
    char **key;
    XXH128_hash_t *digest;
    uint32_t *by_digest; /* images, by digest and then by number */
    uint8_t *hit;        /* what was found of each */

    uint32_t n_near; /* those that can have near-duplicates */
    uint32_t *near;  /* their numbers, ascending */
    uint64_t *bits;  /* [n_near] */
    uint8_t (*thumb)[sizeof((struct mode_image_hash *)0)->thumb];
};

/* An image as it is read: the same of both sides. */
struct read {
    XXH128_hash_t digest;
    struct mode_image_hash hash;
    enum mode_status failed; /* not the image's fault: no memory, no decoder */
    bool readable, has_structure;
    struct mode_error err;
};

static void read_image(struct read *r, const uint8_t *data, size_t size, const struct mode_image_limits *limits)
{
    r->digest = XXH3_128bits(data, size);
    const enum mode_status st = mode_image_hash_file(&r->hash, data, size, limits, &r->err);
    if (st && st != MODE_E_FORMAT && st != MODE_E_VALUE) r->failed = st;
    r->readable = !st;
    r->has_structure = !st && mode_image_hash_contrast(r->hash.thumb) >= MODE_OVERLAP_FLAT;
}

static void say_unreadable(const struct mode_overlap *v, const char *where, const char *key, const struct read *r)
{
    if (v->o.unreadable) v->o.unreadable(v->o.ctx, where, key, r->err.text);
}

/* ---- evaluation images ---- */

struct task_work {
    const struct mode_overlap *v;
    const struct mode_evalset *e;
    struct read *reads; /* of one block */
    int first;          /* of the block */
};

static void one_image(void *ctx, int64_t item, int thread)
{
    (void)thread;
    const struct task_work *w = ctx;
    const int i = w->first + (int)item;
    w->reads[item] = (struct read){0};
    read_image(&w->reads[item], w->e->image[i], w->e->image_size[i], &w->v->o.limits);
}

static void *grown(void *p, size_t n, size_t size)
{
    return mode_xrealloc(p, (n ? n : 1) * size);
}

static void reserve(struct mode_overlap *v, size_t n)
{
    v->key = grown(v->key, n, sizeof *v->key);
    v->digest = grown(v->digest, n, sizeof *v->digest);
    v->near = grown(v->near, n, sizeof *v->near);
    v->bits = grown(v->bits, n, sizeof *v->bits);
    v->thumb = grown(v->thumb, n, sizeof *v->thumb);
}

static void add_image(struct mode_overlap *v, struct mode_overlap_task *t, const char *key, const struct read *r)
{
    const uint32_t i = v->n++;
    v->key[i] = mode_xstrdup(key);
    v->digest[i] = r->digest;
    if (!r->readable) {
        t->unreadable++;
        say_unreadable(v, t->name, key, r);
    }
    if (!r->has_structure) return;
    v->near[v->n_near] = i;
    v->bits[v->n_near] = r->hash.bits;
    memcpy(v->thumb[v->n_near++], r->hash.thumb, sizeof *v->thumb);
}

static enum mode_status add_images(struct mode_overlap *v, struct mode_overlap_task *t, const struct mode_evalset *e,
                                   struct mode_error *err)
{
    struct task_work w = {.v = v, .e = e, .reads = mode_xcalloc(BLOCK, sizeof *w.reads)};
    enum mode_status st = MODE_OK;
    while (!st && w.first < e->n_images) {
        const int left = e->n_images - w.first, n = left < BLOCK ? left : BLOCK;
        mode_parallel_for(n, one_image, &w);
        for (int i = 0; !st && i < n; i++) {
            struct read *r = &w.reads[i];
            if (r->failed) {
                if (err) *err = r->err;
                st = mode_error_prefix(err, r->failed, "%s, image %d", t->name, w.first + i);
            } else
                add_image(v, t, e->image_key[w.first + i], r);
        }
        w.first += n;
        if (!st && v->o.going && !v->o.going(v->o.ctx, (uint64_t)w.first, (uint64_t)e->n_images))
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped after %d of %d images", t->name, w.first, e->n_images);
    }
    free(w.reads);
    return st;
}

static enum mode_status add_task(struct mode_overlap *v, const char *dir, struct mode_error *err)
{
    struct mode_evalset e = {0};
    struct mode_overlap_task *t = &v->task[v->n_tasks];
    enum mode_status st = mode_evalset_open(&e, dir, err);
    if (st) return st;
    v->n_tasks++;
    *t = (struct mode_overlap_task){.name = mode_xstrdup(e.name), .first = (int)v->n, .n_images = e.n_images};
    if ((int64_t)v->n + e.n_images > INT32_MAX)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: more than %d images in all tasks", dir, INT32_MAX);
    else {
        reserve(v, (size_t)v->n + (size_t)e.n_images);
        st = add_images(v, t, &e, err);
    }
    mode_evalset_close(&e);
    return st;
}

static int by_digest(const void *a, const void *b, void *ctx)
{
    const struct mode_overlap *v = ctx;
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    const int c = XXH128_cmp(&v->digest[x], &v->digest[y]);
    return c ? c : (x > y) - (x < y);
}

enum mode_status mode_overlap_open(struct mode_overlap **overlap, const struct mode_overlap_options *options,
                                   char *const *dirs, int n_dirs, struct mode_error *err)
{
    struct mode_overlap *v = mode_xcalloc(1, sizeof *v);
    enum mode_status st = MODE_OK;
    v->o = *options;
    v->task = mode_xcalloc((size_t)n_dirs + 1, sizeof *v->task);
    for (int t = 0; !st && t < n_dirs; t++) st = add_task(v, dirs[t], err);
    v->hit = mode_xcalloc((size_t)v->n + 1, sizeof *v->hit);
    v->by_digest = mode_xcalloc((size_t)v->n + 1, sizeof *v->by_digest);
    for (uint32_t i = 0; i < v->n; i++) v->by_digest[i] = i;
    qsort_r(v->by_digest, v->n, sizeof *v->by_digest, by_digest, v);
    *overlap = v;
    if (st) mode_overlap_close(overlap);
    return st;
}

void mode_overlap_close(struct mode_overlap **overlap)
{
    struct mode_overlap *v = *overlap;
    if (!v) return;
    for (int t = 0; t < v->n_tasks; t++) free(v->task[t].name);
    for (uint32_t i = 0; i < v->n; i++) free(v->key[i]);
    free(v->task);
    free(v->key);
    free(v->digest);
    free(v->by_digest);
    free(v->hit);
    free(v->near);
    free(v->bits);
    free(v->thumb);
    free(v);
    *overlap = NULL;
}

/* ---- training images ---- */

/* What one of them matches. */
struct matches {
    struct mode_overlap_match *match;
    uint32_t *image; /* of all images: what the matches are sorted by */
    size_t n, room;
};

enum fate { READ, UNREADABLE, NO_IMAGE, TRUNCATED };

struct item {
    enum fate fate;
    uint64_t offset;
    struct read read;
    struct matches found;
};

struct shard_work {
    const struct mode_overlap *v;
    const struct mode_tar_data *data;
    const struct mode_sample_list *list;
    struct item *items; /* of one block */
    size_t first;       /* of the block */
};

static int task_of(const struct mode_overlap *v, uint32_t image)
{
    int t = v->n_tasks - 1;
    while ((uint32_t)v->task[t].first > image) t--;
    return t;
}

/* Keeps the matches in the order of their images. */
static void add_match(const struct mode_overlap *v, struct matches *m, uint32_t image, enum mode_overlap_kind kind,
                      int distance, double correlation)
{
    const int t = task_of(v, image);
    if (m->n == m->room) {
        m->room = m->room ? 2 * m->room : 4;
        m->match = mode_xrealloc(m->match, m->room * sizeof *m->match);
        m->image = mode_xrealloc(m->image, m->room * sizeof *m->image);
    }
    size_t at = m->n++;
    for (; at > 0 && m->image[at - 1] > image; at--) {
        m->image[at] = m->image[at - 1];
        m->match[at] = m->match[at - 1];
    }
    m->image[at] = image;
    m->match[at] = (struct mode_overlap_match){.task = t,
                                               .image = (int)image - v->task[t].first,
                                               .image_key = v->key[image],
                                               .kind = kind,
                                               .distance = distance,
                                               .correlation = correlation};
}

static void find_near(const struct mode_overlap *v, struct matches *m, const struct read *r)
{
    uint32_t near[SCAN];
    for (uint32_t from = 0; from < v->n_near; from += SCAN) {
        const uint32_t left = v->n_near - from, n = left < SCAN ? left : SCAN;
        const size_t n_candidates = mode_image_hash_near(near, v->bits + from, n, r->hash.bits, v->o.distance);
        for (size_t i = 0; i < n_candidates; i++) {
            const uint32_t at = from + near[i], image = v->near[at];
            const double c = mode_image_hash_correlation(v->thumb[at], r->hash.thumb);
            if (c < v->o.correlation || XXH128_isEqual(v->digest[image], r->digest)) continue;
            add_match(v, m, image, MODE_OVERLAP_NEAR, mode_image_hash_distance(v->bits[at], r->hash.bits), c);
        }
    }
}

static void find_exact(const struct mode_overlap *v, struct matches *m, const struct read *r)
{
    uint32_t low = 0, high = v->n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (XXH128_cmp(&v->digest[v->by_digest[middle]], &r->digest) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < v->n && XXH128_isEqual(v->digest[v->by_digest[low]], r->digest); low++)
        add_match(v, m, v->by_digest[low], MODE_OVERLAP_EXACT, 0, 1);
}

static void one_sample(void *ctx, int64_t at, int thread)
{
    (void)thread;
    const struct shard_work *w = ctx;
    const struct mode_member *image = mode_group_image(w->list, &w->list->groups[w->first + (size_t)at]);
    struct item *i = &w->items[at];
    *i = (struct item){.fate = !image ? NO_IMAGE : !image->whole ? TRUNCATED : READ};
    if (i->fate != READ) return;
    i->offset = image->offset;
    read_image(&i->read, w->data->data + image->offset, (size_t)image->size, &w->v->o.limits);
    if (!i->read.readable) i->fate = UNREADABLE;
    find_exact(w->v, &i->found, &i->read);
    if (i->read.has_structure) find_near(w->v, &i->found, &i->read);
}

static enum mode_status count_found(struct mode_overlap *v, const struct item *i, const char *key,
                                    struct mode_error *err)
{
    const struct matches *m = &i->found;
    const struct mode_overlap_found f = {.key = key, .offset = i->offset, .n = m->n, .match = m->match};
    for (size_t k = 0; k < m->n; k++) {
        const int t = m->match[k].task;
        v->hit[m->image[k]] |= m->match[k].kind == MODE_OVERLAP_EXACT ? HIT_EXACT : HIT_NEAR;
        if (k == 0 || m->match[k - 1].task != t) v->task[t].training++;
    }
    return m->n ? v->o.found(v->o.ctx, &f, err) : MODE_OK;
}

static enum mode_status count_item(struct mode_overlap *v, struct item *i, const struct mode_group *g, const char *path,
                                   struct mode_error *err)
{
    char *key = mode_utf8_cleaned(g->key, strlen(g->key));
    enum mode_status st = i->read.failed;
    if (st) {
        if (err) *err = i->read.err;
        mode_error_prefix(err, st, "%s, sample %.200s", path, key);
    } else {
        v->training.images += i->fate == READ || i->fate == UNREADABLE;
        v->training.unreadable += i->fate == UNREADABLE;
        v->training.no_image += i->fate == NO_IMAGE;
        v->training.truncated += i->fate == TRUNCATED;
        if (i->fate == UNREADABLE) say_unreadable(v, path, key, &i->read);
        st = count_found(v, i, key, err);
    }
    free(key);
    return st;
}

static enum mode_status read_samples(struct mode_overlap *v, const struct mode_tar_data *data,
                                     const struct mode_sample_list *list, const char *path, struct mode_error *err)
{
    struct shard_work w = {.v = v, .data = data, .list = list, .items = mode_xcalloc(BLOCK, sizeof *w.items)};
    enum mode_status st = MODE_OK;
    while (!st && w.first < list->n_groups) {
        const size_t left = list->n_groups - w.first, n = left < BLOCK ? left : BLOCK;
        mode_parallel_for((int64_t)n, one_sample, &w);
        for (size_t i = 0; i < n; i++) {
            if (!st) st = count_item(v, &w.items[i], &list->groups[w.first + i], path, err);
            free(w.items[i].found.match);
            free(w.items[i].found.image);
        }
        w.first += n;
        if (!st && v->o.going && !v->o.going(v->o.ctx, w.first, list->n_groups))
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped after %zu of %zu samples", path, w.first, list->n_groups);
    }
    free(w.items);
    return st;
}

enum mode_status mode_overlap_shard(struct mode_overlap *v, const char *path, bool *bad, struct mode_error *err)
{
    struct mode_tar_data data = {0};
    struct mode_sample_list list = {0};
    struct mode_shard_file shard;
    const struct mode_remote_watch watch = {.going = v->o.fetching, .ctx = v->o.ctx};
    enum mode_status st = mode_shard_hold(&shard, path, &watch, err);
    *bad = false;
    if (st) return st;
    if (!(st = mode_tar_data_open(&data, shard.path, err))) st = mode_samples_list(&list, &data, path, err);
    *bad = st == MODE_E_FORMAT || st == MODE_E_VALUE;
    if (!st) st = read_samples(v, &data, &list, path, err);
    if (!st) {
        v->training.shards++;
        v->training.cut += list.cut;
    }
    mode_sample_list_clear(&list);
    mode_tar_data_close(&data);
    if (st) mode_error_rename(err, shard.path, path);
    mode_shard_release(&shard);
    return st;
}

/* ---- counts ---- */

const struct mode_overlap_task *mode_overlap_task(const struct mode_overlap *v, int task)
{
    struct mode_overlap_task *t = &v->task[task];
    t->exact = t->near = 0;
    for (int64_t i = 0; i < t->n_images; i++) {
        const uint8_t hit = v->hit[t->first + i];
        t->exact += (hit & HIT_EXACT) != 0;
        t->near += hit == HIT_NEAR;
    }
    return t;
}

const struct mode_overlap_training *mode_overlap_training(const struct mode_overlap *v)
{
    return &v->training;
}
