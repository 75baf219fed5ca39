#include "pipeline/corpus.h"

#include "base/rng.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "data/tar.h"
#include "pipeline/corpus_words.h"
#include "remote/shards.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A row whose picture may be shown: at most one per fine centre; each expert shows its smallest draws. */
struct candidate {
    uint64_t draw;
    int32_t fine;
    int shard;
    uint64_t offset, size, tar_size; /* bytes: of the picture in the tar; of the whole tar */
    char *caption;
};

struct reading {
    struct mode_corpus *c;
    const struct mode_centres *centres;
    const char *digest;
    uint64_t seed;
    struct mode_word_table words;
    float *nearest;          /* [m] smallest distance seen */
    struct candidate *shown; /* [m] best draw of every fine centre */
    uint64_t row;            /* over all shards */
};

static void read_row(struct reading *r, const struct mode_sample *s, int shard, uint64_t tar_size, int32_t fine,
                     float distance)
{
    struct mode_corpus *c = r->c;
    int expert = r->centres->fine_to_coarse[fine];
    c->fine_rows[fine]++;
    c->expert[expert].rows++;
    c->rows++;
    mode_word_table_add(&r->words, s->caption, expert);
    if (!c->fine_caption[fine] || distance < r->nearest[fine]) {
        free(c->fine_caption[fine]);
        c->fine_caption[fine] = mode_xstrdup(s->caption);
        r->nearest[fine] = distance;
    }
    struct mode_rng rng = mode_rng_for(r->seed, MODE_RNG_SAMPLE, 1, r->row++);
    struct candidate *best = &r->shown[fine],
                     now = {mode_rng_u64(&rng), fine, shard, s->image_offset, s->image_size, tar_size, NULL};
    if (best->caption && best->draw <= now.draw) return;
    free(best->caption);
    *best = now;
    best->caption = mode_xstrdup(s->caption);
}

static enum mode_status read_shard(struct reading *r, const struct mode_corpus_shard *shard, int number,
                                   struct mode_error *err)
{
    struct mode_captions cap;
    struct mode_safetensors f;
    const struct mode_tensor *id, *distance;
    enum mode_status st = mode_captions_load(&cap, shard->captions, err);
    if (st) return st;
    if ((st = mode_safetensors_open(&f, shard->assign, err))) {
        mode_captions_clear(&cap);
        return st;
    }
    int64_t n[1] = {cap.n_rows};
    const char *made_with = mode_safetensors_meta(&f, "centres");
    if (!mode_centres_know(r->centres, r->digest, made_with)) {
        st = MODE_FAIL(
            err, MODE_E_VALUE,
            "%s: assigned with centres %.16s, expected %.16s; assignments of other centres mean nothing here",
            shard->assign, made_with ? made_with : "(not named)", r->digest);
        goto out;
    }
    if ((st = mode_safetensors_need(&f, "fine_id", MODE_DTYPE_I32, 1, n, &id, err)) ||
        (st = mode_safetensors_need(&f, "distance", MODE_DTYPE_F32, 1, n, &distance, err)))
        goto out;
    for (uint32_t i = 0; i < cap.n_rows; i++) {
        int32_t fine = ((const int32_t *)id->data)[i];
        if (fine < 0 || fine >= r->c->m) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: row %u has fine id %d, expected 0 to %d", shard->assign, i, fine,
                           r->c->m - 1);
            goto out;
        }
        const struct mode_sample sample = mode_captions_row(&cap, i);
        read_row(r, &sample, number, cap.data_size, fine, mode_f32(distance)[i]);
    }
    r->c->samples += cap.n_samples;
    r->c->cut_shards += cap.cut_at > 0;
    r->c->bad_shards += cap.bad != NULL;
    for (int k = 0; k < MODE_FATE_COUNT; k++) r->c->fate[k] += (int64_t)cap.fate_count[k];
out:
    mode_safetensors_close(&f);
    mode_captions_clear(&cap);
    return st;
}

static int by_draw(const void *a, const void *b)
{
    uint64_t x = ((const struct candidate *)a)->draw, y = ((const struct candidate *)b)->draw;
    return (x > y) - (x < y);
}

static bool is_inside(const struct candidate *s, uint64_t size)
{
    return size == s->tar_size && s->offset <= size && s->size <= size - s->offset;
}

/* *data: its bytes, the caller frees. From a remote plain tar only these are fetched. */
static enum mode_status read_picture(uint8_t **data, const struct candidate *s, const char *tar, struct mode_error *err)
{
    struct mode_tar_data t = {0}; /* one at a time: a compressed tar is decompressed to memory */
    struct mode_shard_file file;
    *data = NULL;
    if (mode_remote_is(tar) && is_inside(s, mode_remote_bytes(tar))) {
        *data = mode_xmalloc(s->size + 1);
        struct mode_remote_link *link = NULL;
        enum mode_status st = mode_shard_read(*data, tar, s->offset, s->size, &link, NULL, err);
        mode_remote_link_close(&link);
        return st;
    }
    enum mode_status st = mode_shard_hold(&file, tar, NULL, err);
    if (!st && !(st = mode_tar_data_open(&t, file.path, err))) {
        if (is_inside(s, t.size)) {
            *data = mode_xmalloc(s->size + 1);
            memcpy(*data, t.data + s->offset, s->size);
        } else
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: has changed", tar);
        mode_tar_data_close(&t);
    }
    mode_shard_release(&file);
    return st;
}

/* Pictures are only illustrations: one that cannot be read is counted and replaced by the next. But a temporary failure
 * is an error, so that the caller retries: the report must not depend on the state of the network. */
static enum mode_status take_pictures(struct reading *r, const struct mode_corpus_shard *shard, struct mode_error *err)
{
    struct mode_corpus *c = r->c;
    struct mode_error why;
    int most = 360 / c->n; /* keeps the page under 2 MB */
    most = most < 1 ? 1 : most > MODE_CORPUS_PICTURES ? MODE_CORPUS_PICTURES : most;
    qsort(r->shown, (size_t)c->m, sizeof *r->shown, by_draw);
    for (int i = 0; i < c->m; i++) {
        struct candidate *s = &r->shown[i];
        if (!s->caption || !shard[s->shard].tar) continue;
        struct mode_corpus_expert *e = &c->expert[r->centres->fine_to_coarse[s->fine]];
        if (e->n_pictures == most) continue;
        struct mode_corpus_picture *p = &e->picture[e->n_pictures];
        uint8_t *data;
        enum mode_status st = read_picture(&data, s, shard[s->shard].tar, &why);
        const bool later = st == MODE_E_PEER || st == MODE_E_TEMP;
        if (!st && mode_corpus_thumbnail(p, data, s->size, &why) == MODE_OK) {
            p->caption = mode_xstrdup(s->caption);
            e->n_pictures++;
        } else {
            c->pictures_unreadable++;
        }
        free(data);
        if (!later) continue;
        if (err) *err = why;
        return st;
    }
    return MODE_OK;
}

enum mode_status mode_corpus_open(struct mode_corpus *c, const struct mode_corpus_shard *shard, int n_shards,
                                  const struct mode_centres *centres, const char *centres_digest, uint64_t seed,
                                  struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *c = (struct mode_corpus){.n = centres->n, .m = centres->m, .n_shards = n_shards};
    c->fine_rows = mode_xcalloc((size_t)c->m, sizeof *c->fine_rows);
    c->fine_caption = mode_xcalloc((size_t)c->m, sizeof *c->fine_caption);
    c->expert = mode_xcalloc((size_t)c->n, sizeof *c->expert);
    for (int i = 0; i < c->m; i++) c->expert[centres->fine_to_coarse[i]].n_fine++;
    struct reading r = {.c = c, .centres = centres, .digest = centres_digest, .seed = seed};
    r.nearest = mode_xcalloc((size_t)c->m, sizeof *r.nearest);
    r.shown = mode_xcalloc((size_t)c->m, sizeof *r.shown);
    mode_word_table_init(&r.words, c->n);
    for (int i = 0; i < n_shards && !st; i++) st = read_shard(&r, &shard[i], i, err);
    if (!st) {
        for (int e = 0; e < c->n; e++) mode_word_table_top(&r.words, e, &c->expert[e]);
        st = take_pictures(&r, shard, err);
    }
    mode_word_table_clear(&r.words);
    for (int i = 0; i < c->m; i++) free(r.shown[i].caption);
    free(r.shown);
    free(r.nearest);
    return st;
}

void mode_corpus_close(struct mode_corpus *c)
{
    for (int e = 0; c->expert && e < c->n; e++) {
        for (int i = 0; i < c->expert[e].n_words; i++) free(c->expert[e].word[i].text);
        for (int i = 0; i < c->expert[e].n_pictures; i++) {
            free(c->expert[e].picture[i].caption);
            free(c->expert[e].picture[i].jpeg);
        }
    }
    for (int i = 0; c->fine_caption && i < c->m; i++) free(c->fine_caption[i]);
    free(c->fine_caption);
    free(c->fine_rows);
    free(c->expert);
    *c = (struct mode_corpus){0};
}
