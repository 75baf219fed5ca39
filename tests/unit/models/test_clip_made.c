/* The hook of the backward pass that reports final gradients: none changes after it was reported. And what
 * optim/sharded.h does with it: every bucket is reduced once, as soon as it is complete, in an order that does not
 * depend on which tower finishes first. */
#include "models/clip_train.h"
#include "optim/sharded.h"

#include "base/rng.h"
#include "base/str.h"
#include "clip_variants.h"
#include "nn/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAIRS = 7, SIDE = 12, LONGEST = 9, VOCAB = 23, MOST = 128 };

struct seen {
    const struct mode_param *params;
    size_t n, times[MOST];
    float *grads[MOST]; /* copies, as they were reported */
    struct mode_sharded *sharded;
};

static void on_made(void *ctx, const struct mode_param *p, size_t n)
{
    struct seen *s = ctx;
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)(&p[i] - s->params), bytes = mode_tensor_bytes(&p[i].grad);
        assert_true(at < s->n && s->times[at]++ == 0);
        s->grads[at] = mode_xmalloc(bytes);
        memcpy(s->grads[at], p[i].grad.data, bytes);
    }
    if (s->sharded) mode_sharded_made(s->sharded, p, n);
}

static void ok(enum mode_status st, const struct mode_error *err)
{
    if (st) fail_msg("%s", err->text);
}

struct scene {
    int kind;
    int64_t pieces;
    enum mode_clip_policy policy;
    bool dense;
    struct mode_clip_lock lock; /* then the policy is that of all trained blocks */
};

static struct mode_clip *begin(struct mode_backend *be, const struct scene *s)
{
    struct mode_clip *clip;
    struct mode_error err;
    struct mode_clip_blocks blocks = {0};
    char *cfg = variant(s->kind);
    ok(mode_clip_create(&clip, be, cfg, NULL, 5, &err), &err);
    mode_clip_set_savings(clip, s->dense, s->dense);
    ok(mode_clip_set_lock(clip, &s->lock, &err), &err);
    mode_clip_set_memory(clip, s->pieces, s->policy == MODE_CLIP_CHECKPOINT);
    blocks.image[s->policy] = blocks.text[s->policy] = 3;
    if (!s->lock.image && !s->lock.text) mode_clip_set_blocks(clip, &blocks);
    free(cfg);
    return clip;
}

static void step(struct mode_clip *clip, uint64_t number)
{
    static float pixels[PAIRS * 3 * SIDE * SIDE];
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 3, number);
    struct mode_error err;
    double loss;
    int32_t ids[PAIRS * LONGEST], n_ids[PAIRS], *id = ids;
    for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++) pixels[i] = (float)mode_rng_normal(&r);
    for (int i = 0; i < PAIRS; i++) {
        n_ids[i] = 2 + (int32_t)mode_rng_below(&r, LONGEST - 1);
        for (int j = 0; j < n_ids[i] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, VOCAB - 1);
        *id++ = VOCAB - 1;
    }
    ok(mode_clip_train_step(clip, &loss, pixels, ids, n_ids, PAIRS, &err), &err);
}

static void check(struct mode_backend *be, const struct scene *s)
{
    struct mode_clip *clip = begin(be, s);
    struct mode_error err;
    struct seen seen = {0};
    ok(mode_clip_train_begin(clip, PAIRS, &err), &err);
    seen.params = mode_clip_params(clip, &seen.n);
    assert_true(seen.n <= MOST);
    mode_clip_set_made(clip, on_made, &seen);
    for (uint64_t i = 0; i < 2; i++) {
        memset(seen.times, 0, sizeof seen.times);
        step(clip, i);
        for (size_t k = 0; k < seen.n; k++) {
            const struct mode_param *p = &seen.params[k];
            if (!p->grad.data && seen.times[k] == 0) continue; /* locked */
            if (seen.times[k] != 1) fail_msg("%s was said to be made %zu times", p->name, seen.times[k]);
            if (memcmp(seen.grads[k], p->grad.data, mode_tensor_bytes(&p->grad)))
                fail_msg("tower %d, pieces %d: the gradient of %s was changed after it was said to be made", s->kind,
                         (int)s->pieces, p->name);
            free(seen.grads[k]);
        }
    }
    mode_clip_close(&clip);
}

static void test_nothing_is_added_to_a_gradient_after_it_was_made(void **state)
{
    struct mode_backend *be;
    struct mode_error err;
    (void)state;
    ok(mode_backend_open(&be, "ref", &err), &err);
    for (int kind = 0; kind < VARIANTS; kind++)
        for (int64_t pieces = 1; pieces <= 3; pieces += 2)
            for (int dense = 0; dense < 2; dense++) {
                struct scene s = {kind, pieces, (enum mode_clip_policy)(kind % MODE_CLIP_POLICIES), dense, {0}};
                check(be, &s);
                s.lock = (struct mode_clip_lock){true, dense, pieces, 1 + kind % 3};
                check(be, &s);
            }
    mode_backend_close(&be);
}

/* A mock group that records the collectives. */
struct notes {
    const float *grads;
    size_t n_sent, sent[MOST], gathered;
    int now, n_parcels, made[MOST];
};

static enum mode_status take_parcels(struct mode_ranks *g, int n, int *first, struct mode_error *err)
{
    struct notes *x = g->self;
    (void)err;
    *first = x->n_parcels;
    x->n_parcels += n;
    assert_true(x->n_parcels <= MOST);
    return MODE_OK;
}

static void note_made(struct mode_ranks *g, int parcel)
{
    ((struct notes *)g->self)->made[parcel]++;
}

static void note_begin(struct mode_ranks *g, int parcel)
{
    struct notes *x = g->self;
    assert_int_equal(x->now, -1);
    x->now = parcel;
}

static void note_end(struct mode_ranks *g)
{
    struct notes *x = g->self;
    assert_true(x->now >= 0);
    x->made[x->now] = 0;
    x->now = -1;
}

static enum mode_status note_reduce(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                    struct mode_error *err)
{
    struct notes *x = g->self;
    (void)err;
    assert_true(dtype == MODE_DTYPE_F32 && n > 0 && out == (const void *)in);
    assert_true(x->now >= 0 && x->made[x->now] > 0);
    x->sent[x->n_sent++] = (size_t)((const float *)in - x->grads);
    return MODE_OK;
}

static enum mode_status note_gather(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                    struct mode_error *err)
{
    struct notes *x = g->self;
    (void)dtype;
    (void)err;
    assert_true(n > 0 && out == (const void *)in);
    assert_true(x->now == (int)x->gathered++);
    return MODE_OK;
}

static const struct mode_ranks_ops note_ops = {.name = "notes",
                                               .all_gather = note_gather,
                                               .reduce_scatter = note_reduce,
                                               .parcels = take_parcels,
                                               .made = note_made,
                                               .begin = note_begin,
                                               .end = note_end};

static void assert_backwards(const struct notes *x, size_t n)
{
    assert_int_equal(x->n_sent, n);
    for (size_t i = 1; i < n; i++) assert_true(x->sent[i] < x->sent[i - 1]);
    assert_int_equal(x->sent[n - 1], 0);
}

static void test_buckets_go_once_in_one_order_as_soon_as_they_are_whole(void **state)
{
    struct notes notes = {.now = -1};
    struct mode_ranks group = {0, 2, &note_ops, &notes};
    struct mode_backend *be;
    struct mode_error err;
    struct seen seen = {0};
    (void)state;
    ok(mode_backend_open(&be, "ref", &err), &err);
    struct mode_clip *clip = begin(be, &(struct scene){.kind = 0, .pieces = 3});
    ok(mode_clip_train_begin(clip, PAIRS, &err), &err);
    struct mode_flat flat = mode_clip_flat(clip);
    struct mode_param *p = mode_clip_params(clip, &seen.n);
    seen.params = p;
    ok(mode_sharded_open(&seen.sharded, be, &group, p, seen.n, &flat, 1000, &err), &err);
    notes.grads = flat.grads;
    const size_t buckets = (size_t)notes.n_parcels;
    assert_true(buckets == (flat.n + 1023) / 1024 && buckets > 8);

    step(clip, 0); /* without the hook */
    assert_int_equal(notes.n_sent, 0);
    ok(mode_sharded_reduce(seen.sharded, &err), &err);
    assert_backwards(&notes, buckets);

    mode_clip_set_made(clip, on_made, &seen);
    notes.n_sent = 0;
    step(clip, 1);
    assert_backwards(&notes, buckets); /* all of them, before mode_sharded_reduce */
    ok(mode_sharded_reduce(seen.sharded, &err), &err);
    assert_backwards(&notes, buckets);
    for (size_t i = 0; i < seen.n; i++) free(seen.grads[i]);

    /* the towers in another order, and one parameter of the last but one bucket is never reported: no bucket overtakes
     * that one */
    const struct mode_param *held = NULL;
    for (size_t i = 0; i < seen.n; i++) {
        size_t at = (size_t)(mode_f32(&p[i].value) - flat.values);
        if (at / 1024 == buckets - 2) held = &p[i];
    }
    assert_non_null(held);
    notes.n_sent = 0;
    for (size_t i = seen.n; i-- > 0;)
        if (&p[i] != held) mode_sharded_made(seen.sharded, &p[i], 1);
    assert_true(notes.n_sent < 2);
    ok(mode_sharded_reduce(seen.sharded, &err), &err);
    assert_backwards(&notes, buckets);

    const struct mode_adamw options = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now;
    ok(mode_adamw_begin(&now, be, &err), &err);
    mode_adamw_tell(now, &options, 1);
    ok(mode_sharded_update(seen.sharded, now, &err), &err);
    assert_int_equal(notes.gathered, buckets);
    mode_backend_free(be, now);
    mode_sharded_close(&seen.sharded);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

/* The layout of the flat buffer: gradients that are final first lie last. */
static void test_the_way_back_goes_down_in_memory(void **state)
{
    struct mode_backend *be;
    struct mode_error err;
    (void)state;
    ok(mode_backend_open(&be, "ref", &err), &err);
    struct mode_clip *clip = begin(be, &(struct scene){.kind = 0, .pieces = 1});
    size_t n;
    struct mode_param *p = mode_clip_params(clip, &n);
    const float *at[2][3] = {{NULL}}, *first = mode_clip_flat(clip).values;
    for (size_t i = 0; i < n; i++) {
        const char *block = strstr(p[i].name, "resblocks.");
        bool image = strncmp(p[i].name, "visual.", 7) == 0;
        if (!block || !strstr(p[i].name, "ln_1.weight")) continue;
        at[image][block[10] - '0'] = mode_f32(&p[i].value);
    }
    for (int i = 0; i < 2; i++)
        for (int a = 0; a < 2; a++)
            for (int b = 0; b < 2; b++) assert_true(at[a][i] && at[a][i] < at[b][i + 1]);
    for (size_t i = 0; i < n; i++)
        if (strstr(p[i].name, "token_embedding") || strcmp(p[i].name, "logit_scale") == 0)
            assert_true(mode_f32(&p[i].value) >= first && mode_f32(&p[i].value) < at[0][0]);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_added_to_a_gradient_after_it_was_made),
        cmocka_unit_test(test_buckets_go_once_in_one_order_as_soon_as_they_are_whole),
        cmocka_unit_test(test_the_way_back_goes_down_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
