/* steps.h - some training steps of a small CLIP with various options, and all results: for tests that require
 * bit-identical results. */
#ifndef MODE_TESTS_CUDA_STEPS_H
#define MODE_TESTS_CUDA_STEPS_H

#include "clip_variants.h"

#include "base/rng.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "optim/adamw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAIRS = 8, SIDE = 12, LONGEST = 9, VOCAB = 23, STEPS = 10, MAX_FLOATS = 1 << 15 };

struct outcome {
    double loss[STEPS], norm[STEPS];
    float values[MAX_FLOATS], m[MAX_FLOATS], v[MAX_FLOATS];
    struct mode_backend_repeats repeats;
};

struct run_options {
    const char *backend, *order; /* order NULL: the default */
    int kind, steps;
    enum mode_clip_policy policy;
    int64_t pieces;
    bool streams, graphs;
    bool same_texts;  /* all steps of one shape, so that the second is a graph */
    bool fewer_pairs; /* in every fourth step */
    bool same_rows;   /* with fewer_pairs: longer texts, so that the rows are as many */
    bool blind;       /* only the last step's loss and norm are read */
};

struct training {
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *p;
    size_t n;
    struct mode_adamw_step *now;
};

static inline void ok(enum mode_status st, const struct mode_error *err)
{
    if (st != MODE_OK) fail_msg("%s", err->text);
}

static inline void step_ops(void *ctx)
{
    struct training *t = ctx;
    struct mode_error err;
    ok(mode_clip_train_compute(t->clip, &err), &err);
    mode_adamw_update(t->be, t->p, t->n, t->now);
    mode_clip_clamp(t->clip);
}

static inline void step(struct training *t, struct outcome *o, const struct run_options *w, int i)
{
    static float both[2][PAIRS * 3 * SIDE * SIDE]; /* the previous step may still read its own */
    float *pixels = both[i % 2];
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 7, w->same_texts ? 0 : (uint64_t)i);
    const struct mode_adamw options = {
        .lr = 1e-3 * (i + 1), .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2, .clip_norm = 0.5};
    int32_t ids[PAIRS * LONGEST], n_ids[PAIRS], *id = ids, pairs = w->fewer_pairs && i % 4 == 3 ? PAIRS - 2 : PAIRS;
    struct mode_sequence key;
    struct mode_error err;
    for (int k = 0; k < pairs; k++) {
        n_ids[k] = w->same_rows ? pairs == PAIRS ? 3 : 4 : 2 + (int32_t)mode_rng_below(&r, LONGEST - 1);
        for (int j = 0; j < n_ids[k] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, VOCAB - 1);
        *id++ = VOCAB - 1;
    }
    for (int k = 0; k < PAIRS * 3 * SIDE * SIDE; k++) pixels[k] = (float)mode_rng_normal(&r);
    ok(mode_clip_train_load(t->clip, pixels, ids, n_ids, pairs, &err), &err);
    mode_adamw_tell(t->now, &options, i + 1);
    if (w->graphs && mode_clip_train_sequence(t->clip, &key))
        mode_backend_repeat(t->be, &key, step_ops, t);
    else
        step_ops(t);
    if (w->blind && i + 1 < w->steps) return;
    o->loss[i] = mode_clip_train_loss(t->clip);
    o->norm[i] = mode_adamw_norm(t->now);
}

static inline void train_on(struct mode_backend *be, struct outcome *o, const struct run_options *w)
{
    struct training t = {.be = be};
    struct mode_clip_blocks blocks = {0};
    struct mode_error err;
    char *cfg = variant(w->kind);
    size_t at = 0;
    memset(o, 0, sizeof *o);
    if (w->order) setenv("MODE_EMULATOR_STREAMS", w->order, 1);
    ok(mode_clip_create(&t.clip, be, cfg, NULL, 5, &err), &err);
    mode_clip_set_memory(t.clip, w->pieces ? w->pieces : 1, false);
    blocks.image[w->policy] = blocks.text[w->policy] = 3;
    mode_clip_set_blocks(t.clip, &blocks);
    mode_clip_set_branches(t.clip, w->streams);
    ok(mode_clip_train_begin(t.clip, PAIRS, &err), &err);
    ok(mode_adamw_begin(&t.now, be, &err), &err);
    t.p = mode_clip_params(t.clip, &t.n);
    for (int i = 0; i < w->steps; i++) step(&t, o, w, i);
    for (size_t i = 0; i < t.n; i++) {
        size_t n = (size_t)mode_tensor_count(&t.p[i].value);
        assert_true(at + n <= MAX_FLOATS);
        mode_backend_copy(be, o->values + at, t.p[i].value.data, n * sizeof(float));
        mode_backend_copy(be, o->m + at, t.p[i].m.data, n * sizeof(float));
        mode_backend_copy(be, o->v + at, t.p[i].v.data, n * sizeof(float));
        at += n;
    }
    mode_backend_repeats(be, &o->repeats);
    mode_backend_free(be, t.now);
    mode_clip_close(&t.clip);
    unsetenv("MODE_EMULATOR_STREAMS");
    free(cfg);
}

static inline struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    ok(mode_backend_open(&be, name, &err), &err);
    return be;
}

static inline void train(struct outcome *o, const struct run_options *w)
{
    struct mode_backend *be = open_backend(w->backend);
    train_on(be, o, w);
    mode_backend_close(&be);
}

#endif
