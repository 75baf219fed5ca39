#include "pipeline/encode.h"

#include "base/parallel.h"
#include "data/image.h"
#include "data/tokenizer.h"
#include "models/clip.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

struct decode {
    const struct mode_preprocess *preprocess;
    const struct mode_encode_picture *pictures;
    float *pixels;
    pthread_mutex_t lock;
    int64_t failed; /* lowest picture that failed, or INT64_MAX */
    struct mode_error error;
};

static void decode_item(void *ctx, int64_t i, int thread)
{
    static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct decode *d = ctx;
    const struct mode_encode_picture *p = &d->pictures[i];
    size_t pixels = (size_t)3 * (size_t)d->preprocess->size * (size_t)d->preprocess->size;
    const struct mode_picture file = {.data = p->data, .size = p->size, .limits = &limits};
    struct mode_error err = {0};
    (void)thread;
    enum mode_status st = mode_preprocess_eval_file(d->preprocess, &file, d->pixels + (size_t)i * pixels, &err);
    if (!st) return;
    mode_error_prefix(&err, st, "picture %s", p->name);
    pthread_mutex_lock(&d->lock);
    if (i < d->failed) {
        d->failed = i;
        d->error = err;
    }
    pthread_mutex_unlock(&d->lock);
}

enum mode_status mode_encode_pictures(struct mode_clip *clip, float *out, const struct mode_encode_picture *pictures,
                                      int64_t n, int64_t batch, bool raw, const struct mode_encode_hook *hook,
                                      struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    const struct mode_preprocess *p = mode_clip_preprocess(clip);
    int e = mode_clip_embed_dim(clip);
    if (batch < 1)
        return MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld pictures, at least 1 is needed", (long long)batch);
    if (batch > n) batch = n;
    float *pixels = malloc((size_t)(batch + 1) * 3 * (size_t)p->size * (size_t)p->size * sizeof *pixels);
    if (!pixels) return MODE_FAIL(err, MODE_E_MEMORY, "no memory for a batch of %lld pictures", (long long)batch);
    for (int64_t at = 0; at < n; at += batch) {
        int64_t b = n - at < batch ? n - at : batch;
        struct decode d = {.preprocess = p,
                           .pictures = pictures + at,
                           .pixels = pixels,
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .failed = INT64_MAX};
        mode_parallel_for(b, decode_item, &d);
        pthread_mutex_destroy(&d.lock);
        if (d.failed != INT64_MAX) {
            if (err) *err = d.error;
            st = d.error.status;
            break;
        }
        if ((st = mode_clip_encode_images(clip, out + at * e, pixels, b, raw, err))) break;
        if ((st = tell(hook, at + b, n, "pictures", err))) break;
    }
    free(pixels);
    return st;
}
