/* Steps as CUDA graphs: ten steps with other texts, other batches and another learning rate each are the same bytes as
 * op by op; what cannot be recorded runs op by op and says why; nothing is launched whose memory is gone. */
#include "clip_variants.h"

#include "base/rng.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "optim/adamw.h"

#include <math.h>
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

static struct outcome with, without;
static int steps = STEPS;

static void ok(enum mode_status st, const struct mode_error *err)
{
    if (st != MODE_OK) fail_msg("%s", err->text);
}

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    ok(mode_backend_open(&be, name, &err), &err);
    return be;
}

struct training {
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *p;
    size_t n;
    struct mode_adamw_step *now;
};

static void step_ops(void *ctx)
{
    struct training *t = ctx;
    struct mode_error err;
    ok(mode_clip_train_compute(t->clip, &err), &err);
    mode_adamw_update(t->be, t->p, t->n, t->now);
    mode_clip_clamp(t->clip);
}

/* Step number i: every fourth has fewer pairs. */
static void step(struct training *t, struct outcome *o, int i, bool repeat)
{
    static float pixels[PAIRS * 3 * SIDE * SIDE];
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 7, (uint64_t)i);
    const struct mode_adamw options = {
        .lr = 1e-3 * (i + 1), .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2, .clip_norm = 0.5};
    int32_t ids[PAIRS * LONGEST], n_ids[PAIRS], *id = ids, pairs = i % 4 == 3 ? PAIRS - 2 : PAIRS;
    struct mode_sequence key;
    struct mode_error err;
    for (int k = 0; k < PAIRS * 3 * SIDE * SIDE; k++) pixels[k] = (float)mode_rng_normal(&r);
    for (int k = 0; k < pairs; k++) {
        n_ids[k] = 2 + (int32_t)mode_rng_below(&r, LONGEST - 1);
        for (int j = 0; j < n_ids[k] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, VOCAB - 1);
        *id++ = VOCAB - 1;
    }
    ok(mode_clip_train_load(t->clip, pixels, ids, n_ids, pairs, &err), &err);
    mode_adamw_tell(t->now, &options, i + 1);
    assert_true(mode_clip_train_sequence(t->clip, &key));
    if (repeat)
        mode_backend_repeat(t->be, &key, step_ops, t);
    else
        step_ops(t);
    o->loss[i] = mode_clip_train_loss(t->clip);
    o->norm[i] = mode_adamw_norm(t->now);
}

static void set_all(struct mode_clip *clip, enum mode_clip_policy policy)
{
    struct mode_clip_memory m; /* says how many there are: all are kept */
    struct mode_clip_blocks blocks = {0};
    mode_clip_memory(&m, clip, PAIRS);
    blocks.image[policy] = m.blocks.image[MODE_CLIP_KEEP];
    blocks.text[policy] = m.blocks.text[MODE_CLIP_KEEP];
    mode_clip_set_blocks(clip, &blocks);
}

static void train_on(struct mode_backend *be, struct outcome *o, int kind, enum mode_clip_policy policy, bool repeat)
{
    struct training t = {.be = be};
    struct mode_error err;
    char *cfg = variant(kind);
    size_t at = 0;
    memset(o, 0, sizeof *o);
    ok(mode_clip_create(&t.clip, be, cfg, NULL, 5, &err), &err);
    set_all(t.clip, policy);
    ok(mode_clip_train_begin(t.clip, PAIRS, &err), &err);
    ok(mode_adamw_begin(&t.now, be, &err), &err);
    t.p = mode_clip_params(t.clip, &t.n);
    for (int i = 0; i < steps; i++) step(&t, o, i, repeat);
    for (size_t i = 0; i < t.n; i++) {
        size_t n = (size_t)mode_tensor_count(&t.p[i].value);
        assert_true(at + n <= MAX_FLOATS);
        memcpy(o->values + at, t.p[i].value.data, n * sizeof(float));
        memcpy(o->m + at, t.p[i].m.data, n * sizeof(float));
        memcpy(o->v + at, t.p[i].v.data, n * sizeof(float));
        at += n;
    }
    mode_backend_repeats(be, &o->repeats);
    mode_backend_free(be, t.now);
    mode_clip_close(&t.clip);
    free(cfg);
}

static void train(const char *backend, struct outcome *o, int kind, enum mode_clip_policy policy, bool repeat)
{
    struct mode_backend *be = open_backend(backend);
    train_on(be, o, kind, policy, repeat);
    mode_backend_close(&be);
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_memory_equal(a->loss, b->loss, sizeof a->loss);
    assert_memory_equal(a->norm, b->norm, sizeof a->norm);
    assert_memory_equal(a->values, b->values, sizeof a->values);
    assert_memory_equal(a->m, b->m, sizeof a->m);
    assert_memory_equal(a->v, b->v, sizeof a->v);
}

static void test_ten_steps_are_the_same_bytes_as_op_by_op(void **state)
{
    static const char *const names[] = {"cuda", "cuda-bf16"};
    (void)state;
    for (int way = 0; way < 2 * MODE_CLIP_POLICIES; way++) {
        const enum mode_clip_policy policy = (enum mode_clip_policy)(way % MODE_CLIP_POLICIES);
        train(names[way / MODE_CLIP_POLICIES], &with, 0, policy, true);
        train(names[way / MODE_CLIP_POLICIES], &without, 0, policy, false);
        assert_same(&with, &without);
        assert_true(with.loss[0] != with.loss[STEPS - 1] && isfinite(with.loss[STEPS - 1]));
        /* a shape's first step is run, its second recorded, all but the first are launched; few shapes */
        assert_int_equal(with.repeats.one_by_one + with.repeats.replayed, STEPS);
        assert_true(with.repeats.recorded >= 1 && with.repeats.one_by_one <= 5 && with.repeats.why_not[0] == 0);
    }
    steps = 5; /* do for what follows */
}

static void test_every_tower_can_be_recorded(void **state)
{
    (void)state;
    for (int kind = 1; kind < VARIANTS; kind++) {
        train("cuda", &with, kind, MODE_CLIP_KEEP, true);
        train("cuda", &without, kind, MODE_CLIP_KEEP, false);
        assert_same(&with, &without);
        assert_true(with.repeats.replayed > 0);
    }
}

static void test_what_is_refused_runs_op_by_op_and_says_so(void **state)
{
    static const char *const ways[] = {"refused", "fails"};
    (void)state;
    for (int half = 0; half < 2; half++) {
        const char *name = half ? "cuda-bf16" : "cuda";
        train(name, &without, 0, MODE_CLIP_KEEP, false);
        for (int k = 0; k < 2; k++) {
            setenv("MODE_EMULATOR_CAPTURE", ways[k], 1);
            train(name, &with, 0, MODE_CLIP_KEEP, true);
            unsetenv("MODE_EMULATOR_CAPTURE");
            assert_same(&with, &without);
            assert_int_equal(with.repeats.replayed, 0);
            assert_int_equal(with.repeats.one_by_one, steps);
            assert_non_null(strstr(with.repeats.why_not, "cudaErrorStreamCapture"));
        }
    }
}

static void test_switched_off_profiled_and_measured_steps_run_op_by_op(void **state)
{
    (void)state;
    train("cuda", &without, 0, MODE_CLIP_KEEP, false);
    for (int k = 0; k < 3; k++) {
        struct mode_backend *be = open_backend("cuda");
        if (k == 0) mode_backend_record(be, false);
        if (k == 1) mode_backend_profile(be, true);
        if (k == 2) mode_backend_measure(be, true);
        train_on(be, &with, 0, MODE_CLIP_KEEP, true);
        if (k < 2) assert_same(&with, &without); /* measuring may choose other algorithms */
        assert_int_equal(with.repeats.replayed, 0);
        assert_int_equal(with.repeats.one_by_one, steps);
        mode_backend_close(&be);
    }
}

/* Another model on the same backend, most likely where the first one's memory was. */
static void test_graphs_go_with_their_memory(void **state)
{
    struct mode_backend *be = open_backend("cuda");
    (void)state;
    train("cuda", &without, 0, MODE_CLIP_KEEP, false);
    for (int k = 0; k < 3; k++) {
        train_on(be, &with, 0, MODE_CLIP_KEEP, true);
        assert_same(&with, &without);
        assert_true(with.repeats.replayed > k); /* counts go on */
    }
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ten_steps_are_the_same_bytes_as_op_by_op),
        cmocka_unit_test(test_every_tower_can_be_recorded),
        cmocka_unit_test(test_what_is_refused_runs_op_by_op_and_says_so),
        cmocka_unit_test(test_switched_off_profiled_and_measured_steps_run_op_by_op),
        cmocka_unit_test(test_graphs_go_with_their_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
