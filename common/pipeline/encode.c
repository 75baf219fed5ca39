#include "pipeline/encode.h"

#include "base/file.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/image.h"
#include "data/tokenizer.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "pipeline/windows.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BATCHES = 16 }; /* batches of picture files mapped at a time */

static enum mode_status tell(const struct mode_encode_hook *hook, int64_t done, int64_t total, const char *unit,
                             struct mode_error *err)
{
    if (!hook || !hook->more || hook->more(hook->ctx, (uint64_t)done, (uint64_t)total, unit)) return MODE_OK;
    return MODE_FAIL(err, MODE_E_STOPPED, "stopped after %lld of %lld %s", (long long)done, (long long)total, unit);
}

enum mode_status mode_encode_texts(struct mode_clip *clip, const struct mode_tokenizer *tokenizer, float *out,
                                   char *const *texts, int64_t n, int64_t batch, bool raw,
                                   const struct mode_encode_hook *hook, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    int context = mode_clip_context(clip), e = mode_clip_embed_dim(clip);
    if (batch < 1) return MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld texts, at least 1 is needed", (long long)batch);
    if (batch > n) batch = n;
    int32_t *ids = malloc((size_t)(batch * context + 1) * sizeof *ids),
            *n_ids = malloc((size_t)(batch + 1) * sizeof *n_ids);
    if (!ids || !n_ids) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for a batch of %lld texts", (long long)batch);
        goto out;
    }
    for (int64_t at = 0; at < n; at += batch) {
        int64_t b = n - at < batch ? n - at : batch;
        int32_t *to = ids;
        for (int64_t i = 0; i < b; i++) {
            n_ids[i] = mode_tokenizer_encode(tokenizer, texts[at + i], strlen(texts[at + i]), to, context);
            to += n_ids[i];
        }
        if ((st = mode_clip_encode_texts(clip, out + at * e, ids, n_ids, b, raw, err))) goto out;
        if ((st = tell(hook, at + b, n, "texts", err))) goto out;
    }
out:
    free(ids);
    free(n_ids);
    return st;
}

/* A batch of pictures, being decoded or decoded. */
struct slot {
    const struct mode_preprocess *preprocess;
    const struct mode_encode_picture *pictures;
    int64_t n;
    float *pixels;                /* resized by the host; or NULL */
    struct mode_windows *windows; /* to be resized by the device; or NULL */
    pthread_t thread;
    bool threaded;
    pthread_mutex_t lock;
    int64_t failed; /* lowest picture that failed, or INT64_MAX */
    struct mode_error error;
};
enum { MOST_SLOTS = 2, LOOKED_AT = 64 };

struct pictures {
    struct mode_clip *clip;
    struct slot slot[MOST_SLOTS];
    int n; /* slots; with two the next batch is decoded while a device computes */
};

static void decode_item(void *ctx, int64_t i, int thread)
{
    static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct slot *s = ctx;
    const struct mode_encode_picture *p = &s->pictures[i];
    size_t pixels = (size_t)3 * (size_t)s->preprocess->size * (size_t)s->preprocess->size;
    const struct mode_picture file = {.data = p->data, .size = p->size, .limits = &limits};
    struct mode_error err = {0};
    (void)thread;
    enum mode_status st = s->windows
                              ? mode_windows_add(s->windows, i, &file, NULL, &err)
                              : mode_preprocess_eval_file(s->preprocess, &file, s->pixels + (size_t)i * pixels, &err);
    if (!st) return;
    mode_error_prefix(&err, st, "picture %s", p->name);
    pthread_mutex_lock(&s->lock);
    if (i < s->failed) {
        s->failed = i;
        s->error = err;
    }
    pthread_mutex_unlock(&s->lock);
}

static void *decode(void *ctx)
{
    struct slot *s = ctx;
    if (s->windows) mode_windows_begin(s->windows);
    mode_parallel_for(s->n, decode_item, s);
    if (s->windows && s->failed == INT64_MAX) mode_windows_send(s->windows, s->n);
    return NULL;
}

/* Decode these n pictures: in the background with two slots, else in finish. */
static void begin(struct pictures *x, struct slot *s, const struct mode_encode_picture *pictures, int64_t n)
{
    s->pictures = pictures;
    s->n = n;
    s->failed = INT64_MAX;
    s->threaded = x->n > 1 && pthread_create(&s->thread, NULL, decode, s) == 0;
}

static enum mode_status finish(struct slot *s, struct mode_error *err)
{
    if (s->threaded)
        pthread_join(s->thread, NULL);
    else
        decode(s);
    s->threaded = false;
    if (s->failed == INT64_MAX) return MODE_OK;
    if (err) *err = s->error;
    return s->error.status;
}

static void close_slots(struct pictures *x)
{
    for (int i = 0; i < x->n; i++) {
        struct slot *s = &x->slot[i];
        if (s->threaded) pthread_join(s->thread, NULL);
        mode_windows_close(&s->windows);
        free(s->pixels);
        pthread_mutex_destroy(&s->lock);
    }
}

/* Mean decoded size of a picture, estimated from some headers; slightly too large, as crops are ignored. */
static double average_bytes(const struct mode_encode_picture *pictures, int64_t n)
{
    const int64_t step = n / LOOKED_AT + 1;
    double bytes = 0, seen = 0;
    for (int64_t i = 0; i < n; i += step) {
        int width, height;
        if (mode_image_header(pictures[i].data, pictures[i].size, &width, &height, NULL)) continue;
        bytes += 3.0 * width * height;
        seen++;
    }
    return seen > 0 ? bytes / seen : 0;
}

static enum mode_status open_slots(struct pictures *x, const struct mode_encode_picture *pictures, int64_t n,
                                   int64_t batch, const struct mode_encode_hook *hook, struct mode_error *err)
{
    const struct mode_preprocess *p = mode_clip_preprocess(x->clip);
    struct mode_backend *be = mode_clip_backend(x->clip);
    const size_t floats = (size_t)batch * 3 * (size_t)p->size * (size_t)p->size * sizeof(float);
    enum mode_status st = MODE_OK;
    x->n = mode_backend_is_device(be) ? MOST_SLOTS : 1;
    const size_t each = x->n > 1 ? mode_windows_average(average_bytes(pictures, n), batch) : 0;
    char why[MODE_WINDOWS_WHY] = "";
    const bool there = !(hook && hook->no_room) && mode_windows_wanted(be) &&
                       mode_windows_fit(why, be, p, batch, each, x->n);
    if (why[0] && hook && hook->notice) hook->notice(hook->ctx, why);
    for (int i = 0; i < x->n; i++) {
        struct slot *s = &x->slot[i];
        s->preprocess = p;
        pthread_mutex_init(&s->lock, NULL);
        if (!st && there) st = mode_windows_open(&s->windows, be, p, batch, each, err);
        if (!st && !there && !(s->pixels = malloc(floats)))
            st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for a batch of %lld pictures", (long long)batch);
    }
    return st;
}

static enum mode_status encode(struct mode_clip *clip, float *out, const struct slot *s, int64_t n, bool raw,
                               struct mode_error *err)
{
    if (!s->windows) return mode_clip_encode_images(clip, out, s->pixels, n, raw, err);
    enum mode_status st = mode_clip_encode_pictures(clip, out, mode_windows_take(s->windows), n, raw, err);
    mode_windows_done(s->windows);
    return st;
}

enum mode_status mode_encode_pictures(struct mode_clip *clip, float *out, const struct mode_encode_picture *pictures,
                                      int64_t n, int64_t batch, bool raw, const struct mode_encode_hook *hook,
                                      struct mode_error *err)
{
    struct pictures x = {.clip = clip};
    int e = mode_clip_embed_dim(clip), turn = 0;
    if (batch < 1)
        return MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld pictures, at least 1 is needed", (long long)batch);
    if (n < 1) return MODE_OK;
    if (batch > n) batch = n;
    enum mode_status st = open_slots(&x, pictures, n, batch, hook, err);
    if (!st) begin(&x, &x.slot[0], pictures, batch);
    for (int64_t at = 0; !st && at < n; at += batch) {
        struct slot *s = &x.slot[turn];
        const int64_t b = s->n, left = n - at - b;
        if ((st = finish(s, err))) break;
        turn = (turn + 1) % x.n;
        if (left > 0) begin(&x, &x.slot[turn], pictures + at + b, left < batch ? left : batch);
        if ((st = encode(clip, out + at * e, s, b, raw, err))) break;
        st = tell(hook, at + b, n, "pictures", err);
    }
    close_slots(&x);
    return st;
}

enum mode_status mode_encode_picture_files(struct mode_clip *clip, float *out, char *const *paths, int64_t n,
                                           int64_t batch, bool raw, const struct mode_encode_hook *hook,
                                           int64_t *failed, struct mode_error *err)
{
    const int64_t e = mode_clip_embed_dim(clip), most = batch < n / FILE_BATCHES ? batch * FILE_BATCHES : n;
    struct mode_encode_picture *p = mode_xcalloc((size_t)most + 1, sizeof *p);
    struct mode_mapping *map = mode_xcalloc((size_t)most + 1, sizeof *map);
    enum mode_status st = MODE_OK;
    if (failed) *failed = n;
    for (int64_t at = 0; !st && at < n; at += most) {
        const int64_t b = n - at < most ? n - at : most;
        int64_t open = 0;
        for (; !st && open < b; open += !st) {
            st = mode_file_map(paths[at + open], &map[open], err);
            if (st && failed) *failed = at + open;
            if (st) break;
            p[open] = (struct mode_encode_picture){map[open].data, map[open].size, paths[at + open]};
        }
        if (!st) st = mode_encode_pictures(clip, out + at * e, p, b, batch, raw, hook, err);
        for (int64_t i = 0; i < open; i++) mode_file_unmap(&map[i]);
    }
    free(p);
    free(map);
    return st;
}
