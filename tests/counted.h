/* counted.h - models whose weights and inputs are not stored but generated, the C side of golden/counted.py; their step
 * is compared with open_clip's features and loss in double precision. Must be included before cmocka.h. */
#ifndef MODE_TESTS_COUNTED_H
#define MODE_TESTS_COUNTED_H

#include "base/rng.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "models/clip_train.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static inline struct mode_rng counted_numbers(const char *name)
{
    uint32_t h = 2166136261u;
    for (const char *c = name; *c; c++) h = (h ^ (uint8_t)*c) * 16777619u;
    return mode_rng_for(20, MODE_RNG_TEST, h, 0);
}

static inline double counted_next(struct mode_rng *r)
{
    return (double)((int32_t)(mode_rng_u32(r) >> 8) - (1 << 23)) * 0x1p-23;
}

static inline void counted_uniform(float *out, const char *name, int64_t n, float scale, float about)
{
    struct mode_rng r = counted_numbers(name);
    for (int64_t i = 0; i < n; i++) out[i] = (float)(counted_next(&r) * scale + about);
}

static inline void counted_weight(float *out, const char *name, int n_dims, int64_t rows, int64_t n)
{
    size_t len = strlen(name);
    float scale = 1;
    if (strcmp(name, "logit_scale") == 0) {
        out[0] = 2.625f;
        return;
    }
    while (n_dims > 1 && scale * scale * (float)(n / rows) > 4) scale /= 2;
    if (n_dims > 1)
        counted_uniform(out, name, n, scale, 0);
    else
        counted_uniform(out, name, n, 0.25f, len > 7 && strcmp(name + len - 7, ".weight") == 0 ? 1 : 0);
}

static inline double counted_distance(const float *a, const float *b, int64_t n)
{
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(diff / size);
}

/* The tensor of that name in a file of golden values. */
static inline const struct mode_tensor *counted_need(const struct mode_safetensors *f, const char *kind,
                                                     const char *name)
{
    char *key = mode_xasprintf("%s%s", kind, name);
    const struct mode_tensor *t = mode_safetensors_find(f, key);
    if (!t) fail_msg("%s is missing", key);
    free(key);
    return t;
}

/* One step of the model called what, with generated weights and texts, whose last token is the highest id; odd: other
 * tokens may be, too. f has kind + "image", "text", "loss", "n_ids". The gradients stay in the model. */
static inline void counted_step(struct mode_clip *clip, const struct mode_safetensors *f, const char *kind,
                                const char *what, bool odd)
{
    const struct mode_tensor *lengths = counted_need(f, kind, "n_ids");
    const int32_t *n_ids = lengths->data;
    int64_t b = lengths->dim[0], e = mode_clip_embed_dim(clip), context = mode_clip_context(clip);
    int64_t side = mode_clip_preprocess(clip)->size, at = 0, vocab = 0;
    struct mode_error err;
    size_t n_params;
    struct mode_param *p = mode_clip_params(clip, &n_params);
    for (size_t i = 0; i < n_params; i++) {
        struct mode_tensor *v = &p[i].value;
        if (strstr(p[i].name, "token_embedding.weight")) vocab = v->dim[0];
        if (!p[i].frozen)
            counted_weight(mode_f32(v), p[i].name, v->n_dims, v->n_dims ? v->dim[0] : 1, mode_tensor_count(v));
    }
    float *pixels = mode_xmalloc((size_t)(b * 3 * side * side) * sizeof *pixels);
    float *out = mode_xmalloc((size_t)(b * e) * sizeof *out);
    int32_t *ids = mode_xmalloc((size_t)(b * context) * sizeof *ids);
    counted_uniform(pixels, "pixels", b * 3 * side * side, 2, 0);
    struct mode_rng r = counted_numbers("ids");
    for (int64_t i = 0; i < b * context; i++) {
        int32_t id = (int32_t)(mode_rng_u32(&r) % (uint64_t)(odd ? vocab - 1 : vocab - 2)) + 1,
                k = (int32_t)(i % context);
        if (k < n_ids[i / context]) ids[at++] = k == n_ids[i / context] - 1 ? (int32_t)vocab - 1 : id;
    }
    assert_int_equal(mode_clip_encode_images(clip, out, pixels, b, 0, &err), MODE_OK);
    double off = counted_distance(out, counted_need(f, kind, "image")->data, b * e);
    if (!(off < 2e-6)) fail_msg("%s: image features off by %.3g", what, off);
    assert_int_equal(mode_clip_encode_texts(clip, out, ids, n_ids, b, 0, &err), MODE_OK);
    off = counted_distance(out, counted_need(f, kind, "text")->data, b * e);
    if (!(off < 2e-6)) fail_msg("%s: text features off by %.3g", what, off);
    double loss, want = *(const double *)counted_need(f, kind, "loss")->data;
    if (mode_clip_train_begin(clip, b, &err) || mode_clip_train_step(clip, &loss, pixels, ids, n_ids, b, &err))
        fail_msg("%s", err.text);
    if (!(fabs(loss - want) < 2e-6 * want)) fail_msg("%s: loss %.9g, expected %.9g", what, loss, want);
    free(pixels);
    free(out);
    free(ids);
}

/* The limit for a gradient's relative error. */
static inline double counted_limit(const struct mode_param *p)
{
    return p->value.n_dims < 2 ? 1e-4 : 2e-5;
}

#endif
