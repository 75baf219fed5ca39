/* streams-test [--all] - the towers and the gradients of weights on streams of their own: bit-identical to one stream,
 * in every order that their events allow, op by op and as graphs; and only where streams were requested. On an emulated
 * GPU, which takes the order from MODE_EMULATOR_STREAMS; a GPU has its own. --all: every order of every policy, for
 * `make slow`; else every order of every backend, with two of three policies. */
#include "cuda/steps.h"
#include "nn/ops.h"
#include "nn/staging.h"

#include <cuda_runtime_api.h>
#include <math.h>

static struct outcome concurrent, alone;
static bool all_policies;

/* Compares the run with the options w to `alone`. */
static void assert_same(const struct run_options *w)
{
    train(&concurrent, w);
    for (int i = 0; i < w->steps; i++)
        if (concurrent.loss[i] != alone.loss[i] || concurrent.norm[i] != alone.norm[i])
            fail_msg("%s, tower %d, policy %d, order %s, graphs %d: step %d: loss %.17g, want %.17g", w->backend,
                     w->kind, w->policy, w->order, w->graphs, i, concurrent.loss[i], alone.loss[i]);
    if (memcmp(concurrent.values, alone.values, sizeof alone.values) || memcmp(concurrent.m, alone.m, sizeof alone.m) ||
        memcmp(concurrent.v, alone.v, sizeof alone.v))
        fail_msg("%s, tower %d, policy %d, order %s, graphs %d: other weights or moments", w->backend, w->kind,
                 w->policy, w->order, w->graphs);
    if (w->graphs) assert_true(concurrent.repeats.replayed > 0 && !concurrent.repeats.why_not[0]);
}

static const char *const names[] = {"cuda", "cuda-bf16"};

static void test_ten_steps_are_the_same_bytes_as_on_one_stream(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++)
        for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
            struct run_options w = {.backend = names[k], .steps = STEPS, .policy = (enum mode_clip_policy)p};
            train(&alone, &w);
            assert_true(alone.loss[0] != alone.loss[STEPS - 1] && isfinite(alone.loss[STEPS - 1]));
            w.streams = true;
            w.order = "late";
            assert_same(&w);
            w.graphs = true;
            w.order = "shuffled";
            assert_same(&w);
        }
}

/* Streams 0 and 1 are the branches, 2 and 3 their side streams. Each is first where another one is last, so a stream
 * that lacks an event of the other runs too early once. The first step runs op by op, the second as a graph. */
static void test_every_order_of_streams_gives_the_same_bytes(void **state)
{
    static const char *const orders[] = {"0231", "0312", "0123", "1320", "1032", "1203",
                                         "2310", "2031", "2103", "3210", "3021", "3102"};
    (void)state;
    for (int k = 0; k < 2; k++)
        for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
            struct run_options w = {
                .backend = names[k], .steps = 2, .policy = (enum mode_clip_policy)p, .same_texts = true};
            train(&alone, &w);
            w.streams = w.graphs = true;
            for (int i = 0; i < (int)(sizeof orders / sizeof *orders); i++) {
                if (!all_policies && (i + k) % MODE_CLIP_POLICIES != p) continue;
                w.order = orders[i];
                assert_same(&w);
            }
        }
}

static void test_every_tower_can_be_a_branch(void **state)
{
    static const char *const orders[] = {"late", "3210", "2301"};
    (void)state;
    for (int kind = 1; kind < VARIANTS; kind++) {
        struct run_options w = {.backend = names[kind % 2], .kind = kind, .steps = 2, .same_texts = true};
        w.policy = (enum mode_clip_policy)(kind % MODE_CLIP_POLICIES);
        train(&alone, &w);
        w.streams = w.graphs = true;
        for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
            w.order = orders[i];
            assert_same(&w);
        }
    }
}

/* Index lists and activations are reused from one micro-batch to the next. */
static void test_steps_in_pieces_are_the_same_bytes(void **state)
{
    static const char *const orders[] = {"late", "3210", "0123", "shuffled"};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct run_options w = {.backend = names[k], .steps = 2, .pieces = 3, .policy = MODE_CLIP_LEAN};
        train(&alone, &w);
        w.streams = true;
        for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
            w.order = orders[i];
            assert_same(&w);
        }
    }
}

/* Profiling and measuring see one op at a time. */
static void test_profiled_and_measured_steps_run_on_one_stream(void **state)
{
    struct run_options w = {.backend = "cuda", .steps = 2, .order = "3210"};
    struct mode_backend *be = open_backend("cuda");
    struct mode_backend_sums sums;
    (void)state;
    train(&alone, &w);
    w.streams = true;
    mode_backend_profile(be, true);
    train_on(be, &concurrent, &w);
    assert_memory_equal(concurrent.values, alone.values, sizeof alone.values);
    mode_backend_profile_sums(be, &sums);
    assert_true(sums.products > 0 && sums.attention > 0 && sums.rest > 0);
    mode_backend_profile(be, false);
    mode_backend_measure(be, true);
    train_on(be, &concurrent, &w);
    assert_true(isfinite(concurrent.loss[1]));
    mode_backend_close(&be);
}

/* The plan's memory is what is allocated, whatever runs concurrently. */
static void test_the_plan_has_the_memory_of_all_streams(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++)
        for (int streams = 0; streams < 2; streams++) {
            struct mode_backend *be = open_backend(names[k]);
            struct run_options w = {.backend = names[k], .steps = 3, .same_texts = true, .graphs = true};
            struct training t = {.be = be};
            struct mode_clip_memory plan;
            struct mode_error err;
            char *cfg = variant(0);
            size_t before, begun, after, total;
            ok(mode_clip_create(&t.clip, be, cfg, NULL, 5, &err), &err);
            mode_clip_set_branches(t.clip, streams == 1);
            ok(mode_adamw_begin(&t.now, be, &err), &err);
            mode_clip_memory(&plan, t.clip, PAIRS);
            assert_true(plan.branches == (streams == 1));
            mode_backend_room(be, &before, &total);
            ok(mode_clip_train_begin(t.clip, PAIRS, &err), &err);
            mode_backend_room(be, &begun, &total);
            t.p = mode_clip_params(t.clip, &t.n);
            for (int i = 0; i < w.steps; i++) step(&t, &concurrent, &w, i);
            mode_backend_room(be, &after, &total);
            assert_true(after == begun); /* no step allocates */
            assert_true(before - begun <= plan.total - plan.parameters - plan.copies);
            assert_true(before - begun > (plan.total - plan.parameters - plan.copies) / 10 * 9);
            mode_backend_free(be, t.now);
            mode_clip_close(&t.clip);
            mode_backend_close(&be);
            free(cfg);
        }
}

enum { MANY = 20 };

/* dw += dy^T x, then dx overwrites x and dy is zeroed: in a branch, these writes wait for the concurrent reads. */
static void linear_and_reuse(float dw[12], struct mode_backend *be, bool forked)
{
    struct mode_error err;
    void *memory;
    ok(mode_backend_alloc(be, &memory, 1024 * sizeof(float), &err), &err);
    float *f = memory;
    struct mode_tensor x = mode_tensor_2d(f, MODE_DTYPE_F32, 5, 4), dy = mode_tensor_2d(f + 64, MODE_DTYPE_F32, 5, 3);
    struct mode_tensor w = mode_tensor_2d(f + 128, MODE_DTYPE_F32, 3, 4),
                       g = mode_tensor_2d(f + 192, MODE_DTYPE_F32, 3, 4);
    float drawn[192];
    for (int i = 0; i < 192; i++) drawn[i] = (float)(i % 7) - 2.5f;
    mode_backend_copy(be, f, drawn, sizeof drawn);
    if (forked) mode_backend_fork(be);
    if (forked) mode_backend_branch(be, 1);
    mode_linear_back(be, &x, &g, NULL, &dy, &x, &w);
    mode_zero(be, &dy);
    if (forked) mode_backend_join(be);
    mode_backend_copy(be, dw, g.data, 12 * sizeof(float));
    mode_backend_free(be, memory);
}

/* More backward ops than a branch tracks, each with its own tensors, then all zeroed: dw of each. By projections, or
 * linear maps; rows of 3 elements of bf16 are cuBLAS's. */
static void many_and_reuse(float dw[MANY * 12], struct mode_backend *be, bool forked, bool project)
{
    const enum mode_dtype act = mode_backend_activations(be);
    struct mode_error err;
    void *memory;
    ok(mode_backend_alloc(be, &memory, (MANY + 1) * 128 * sizeof(float), &err), &err);
    float *f = memory, drawn[MANY * 128];
    struct mode_tensor w = mode_tensor_2d(f + MANY * 128, act, project ? 4 : 3, project ? 3 : 4), dx = w;
    dx.data = f + MANY * 128 + 64;
    dx.dim[0] = 5;
    dx.dim[1] = 4;
    for (int i = 0; i < MANY * 128; i++) drawn[i] = (float)(i % 11) - 4.5f;
    mode_backend_copy(be, f, drawn, sizeof drawn);
    mode_backend_copy(be, f + MANY * 128, drawn, 128 * sizeof(float));
    if (forked) mode_backend_fork(be);
    if (forked) mode_backend_branch(be, 1);
    struct mode_tensor x[MANY], dy[MANY], g[MANY];
    for (int i = 0; i < MANY; i++) {
        x[i] = mode_tensor_2d(f + i * 128, act, 5, 4);
        dy[i] = mode_tensor_2d(f + i * 128 + 32, act, 5, 3);
        g[i] = mode_tensor_2d(f + i * 128 + 64, MODE_DTYPE_F32, w.dim[0], w.dim[1]);
        if (project)
            mode_project_back(be, &dx, &g[i], &dy[i], &x[i], &w);
        else
            mode_linear_back(be, &dx, &g[i], NULL, &dy[i], &x[i], &w);
    }
    mode_zero(be, &x[0]); /* the oldest; then one op writes what the last of them reads, and what one before reads */
    struct mode_tensor square = mode_tensor_2d(f + MANY * 128 + 96, act, 4, 4);
    mode_linear_act(be, &x[MANY - 1], &x[MANY - 8], &dx, &square, NULL, MODE_ACT_TANH);
    for (int i = 1; i < MANY; i++) {
        mode_zero(be, &x[i]);
        mode_zero(be, &dy[i]);
    }
    if (forked) mode_backend_join(be);
    for (int i = 0; i < MANY; i++) mode_backend_copy(be, dw + i * 12, g[i].data, 12 * sizeof(float));
    mode_backend_free(be, memory);
}

static void test_what_is_written_waits_for_what_is_read_beside(void **state)
{
    static const char *const orders[] = {"late", "3210", "0123", "1032"};
    static float want[2][MANY * 12], got[MANY * 12], one[12];
    struct mode_error err;
    (void)state;
    for (int half = 0; half < 2; half++) {
        struct mode_backend *be = open_backend(names[half]);
        ok(mode_backend_branches(be, 1 << 16, 1 << 16, &err), &err);
        if (!half) linear_and_reuse(one, be, false);
        for (int project = 0; project < 2; project++) many_and_reuse(want[project], be, false, project);
        for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
            setenv("MODE_EMULATOR_STREAMS", orders[i], 1);
            if (!half) linear_and_reuse(got, be, true);
            if (!half) assert_memory_equal(got, one, sizeof one);
            for (int project = 0; project < 2; project++) {
                many_and_reuse(got, be, true, project);
                assert_memory_equal(got, want[project], sizeof got);
            }
        }
        unsetenv("MODE_EMULATOR_STREAMS");
        mode_backend_close(&be);
    }
}

/* Small buffers, too, which would share a page: copies from pinned memory are asynchronous. */
static void test_all_that_is_staged_is_pinned(void **state)
{
    enum { N = 5 };
    struct mode_backend *be = open_backend("cuda");
    struct mode_staging *s[N];
    struct cudaPointerAttributes at;
    struct mode_error err;
    (void)state;
    for (int i = 0; i < N; i++) assert_int_equal(mode_staging_open(&s[i], be, (size_t)i * 100, &err), MODE_OK);
    for (int i = 1; i < N; i++) {
        assert_int_equal(cudaPointerGetAttributes(&at, s[i]->host), cudaSuccess);
        assert_int_equal(at.type, cudaMemoryTypeHost);
    }
    for (int i = 0; i < N; i++) mode_staging_close(&s[i]);
    mode_backend_close(&be);
}

int main(int argc, char **argv)
{
    all_policies = argc > 1 && strcmp(argv[1], "--all") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_is_staged_is_pinned),
        cmocka_unit_test(test_what_is_written_waits_for_what_is_read_beside),
        cmocka_unit_test(test_ten_steps_are_the_same_bytes_as_on_one_stream),
        cmocka_unit_test(test_every_order_of_streams_gives_the_same_bytes),
        cmocka_unit_test(test_every_tower_can_be_a_branch),
        cmocka_unit_test(test_steps_in_pieces_are_the_same_bytes),
        cmocka_unit_test(test_profiled_and_measured_steps_run_on_one_stream),
        cmocka_unit_test(test_the_plan_has_the_memory_of_all_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
