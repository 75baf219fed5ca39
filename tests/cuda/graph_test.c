/* Steps as CUDA graphs: ten steps, each with other texts, batch and learning rate, are bit-identical to op by op; what
 * cannot be captured runs op by op and says why; no graph is launched after its memory was freed. */
#include "cuda/steps.h"
#include "nn/cuda/attention.h"
#include "nn/ops.h"

#include <cuda_runtime_api.h>
#include <math.h>

static struct outcome with, without;
static int steps = STEPS;

static struct run_options options_of(const char *backend, int kind, enum mode_clip_policy policy, bool graphs)
{
    return (struct run_options){.backend = backend,
                                .kind = kind,
                                .steps = steps,
                                .policy = policy,
                                .streams = true,
                                .graphs = graphs,
                                .fewer_pairs = true};
}

static void train_in(const char *backend, struct outcome *o, int kind, enum mode_clip_policy policy, bool graphs)
{
    const struct run_options w = options_of(backend, kind, policy, graphs);
    train(o, &w);
}

static void train_there(struct mode_backend *be, struct outcome *o)
{
    const struct run_options w = options_of(NULL, 0, MODE_CLIP_KEEP, true);
    train_on(be, o, &w);
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
    for (int i = 0; i < 2 * MODE_CLIP_POLICIES; i++) {
        const enum mode_clip_policy policy = (enum mode_clip_policy)(i % MODE_CLIP_POLICIES);
        train_in(names[i / MODE_CLIP_POLICIES], &with, 0, policy, true);
        train_in(names[i / MODE_CLIP_POLICIES], &without, 0, policy, false);
        assert_same(&with, &without);
        assert_true(with.loss[0] != with.loss[STEPS - 1] && isfinite(with.loss[STEPS - 1]));
        /* a shape's first step runs op by op, its second is captured, all but the first are launched; few shapes */
        assert_int_equal(with.repeats.one_by_one + with.repeats.replayed, STEPS);
        assert_true(with.repeats.recorded >= 1 && with.repeats.one_by_one <= 5 && with.repeats.why_not[0] == 0);
    }
    steps = 5; /* enough for the rest */
}

/* Loading the next step's texts waits for the previous step, whether or not its loss was read. */
static void test_steps_that_nobody_waits_for(void **state)
{
    struct run_options w = options_of("cuda", 0, MODE_CLIP_KEEP, true);
    (void)state;
    train(&without, &w);
    w.blind = true;
    train(&with, &w);
    assert_true(with.loss[w.steps - 1] == without.loss[w.steps - 1]);
    assert_memory_equal(with.values, without.values, sizeof with.values);
    assert_memory_equal(with.m, without.m, sizeof with.m);
    assert_memory_equal(with.v, without.v, sizeof with.v);
}

/* 6 texts of 4 tokens have the rows of 8 texts of 3. */
static void test_as_many_rows_of_fewer_pairs_are_another_shape(void **state)
{
    struct run_options w = options_of("cuda", 0, MODE_CLIP_KEEP, true);
    (void)state;
    w.same_rows = true;
    train(&with, &w);
    w.graphs = false;
    train(&without, &w);
    assert_same(&with, &without);
    assert_true(with.repeats.one_by_one == 2 && with.repeats.replayed == steps - 2);
}

static void test_every_tower_can_be_recorded(void **state)
{
    (void)state;
    for (int kind = 1; kind < VARIANTS; kind++) {
        train_in("cuda", &with, kind, MODE_CLIP_KEEP, true);
        train_in("cuda", &without, kind, MODE_CLIP_KEEP, false);
        assert_same(&with, &without);
        assert_true(with.repeats.replayed > 0);
    }
}

static void test_what_is_refused_runs_op_by_op_and_says_so(void **state)
{
    static const char *const results[] = {"refused", "fails"};
    (void)state;
    for (int half = 0; half < 2; half++) {
        const char *name = half ? "cuda-bf16" : "cuda";
        train_in(name, &without, 0, MODE_CLIP_KEEP, false);
        for (int k = 0; k < 2; k++) {
            setenv("MODE_EMULATOR_CAPTURE", results[k], 1);
            train_in(name, &with, 0, MODE_CLIP_KEEP, true);
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
    train_in("cuda", &without, 0, MODE_CLIP_KEEP, false);
    for (int k = 0; k < 3; k++) {
        struct mode_backend *be = open_backend("cuda");
        if (k == 0) mode_backend_record(be, false);
        if (k == 1) mode_backend_profile(be, true);
        if (k == 2) mode_backend_measure(be, true);
        train_there(be, &with);
        if (k < 2) assert_same(&with, &without); /* timing may choose other algorithms */
        assert_int_equal(with.repeats.replayed, 0);
        assert_int_equal(with.repeats.one_by_one, steps);
        mode_backend_close(&be);
    }
}

/* Algorithms chosen by timing stay when timing is turned off, and graphs are captured with them. */
static void test_what_was_measured_is_recorded(void **state)
{
    struct mode_backend *be = open_backend("cuda");
    (void)state;
    mode_backend_measure(be, true);
    train_there(be, &without);
    assert_int_equal(without.repeats.replayed, 0);
    mode_backend_measure(be, false);
    train_there(be, &with);
    assert_true(with.repeats.replayed > 0);
    assert_same(&with, &without);
    mode_backend_close(&be);
}

/* Another model on the same backend, probably at the addresses of the first one. */
static void test_graphs_go_with_their_memory(void **state)
{
    struct mode_backend *be = open_backend("cuda");
    (void)state;
    train_in("cuda", &without, 0, MODE_CLIP_KEEP, false);
    for (int k = 0; k < 3; k++) {
        train_there(be, &with);
        assert_same(&with, &without);
        assert_true(with.repeats.replayed > k); /* counts are per backend */
    }
    mode_backend_close(&be);
}

struct odd {
    struct mode_backend *be;
    struct mode_tensor x, w, y;
};

static void multiply(void *ctx)
{
    struct odd *o = ctx;
    mode_linear(o->be, &o->y, &o->x, &o->w, NULL);
}

/* Rows of an odd number of bf16, which the emulated cuBLASLt refuses and cuBLAS computes: it must not allocate a
 * workspace of its own. */
static void test_products_of_cublas_can_be_recorded(void **state)
{
    enum { N = 33, EACH = 4096 };
    const struct mode_sequence key = {.owner = state, .shape = {N, N, N}};
    struct odd o = {.be = open_backend("cuda-bf16")};
    struct mode_backend_repeats r;
    struct mode_error err;
    void *data;
    assert_int_equal(mode_backend_alloc(o.be, &data, 3 * EACH, &err), MODE_OK);
    o.x = mode_tensor_2d(data, MODE_DTYPE_BF16, N, N);
    o.w = mode_tensor_2d((char *)data + EACH, MODE_DTYPE_BF16, N, N);
    o.y = mode_tensor_2d((char *)data + 2 * EACH, MODE_DTYPE_BF16, N, N);
    for (int i = 0; i < 3; i++) mode_backend_repeat(o.be, &key, multiply, &o);
    mode_backend_sync(o.be);
    mode_backend_repeats(o.be, &r);
    assert_string_equal(r.why_not, "");
    assert_int_equal(r.replayed, 2);
    mode_backend_free(o.be, data);
    mode_backend_close(&o.be);
}

/* One kernel with heads of two widths, both of which opt in to more than the default shared memory, the second to less.
 */
static void test_a_recorded_launch_keeps_its_shared_memory(void **state)
{
    enum { ROWS = 5, WIDEST = 256, NARROWER = 200 };
    static const int32_t offsets[] = {0, ROWS};
    const size_t bytes = (size_t)ROWS * 3 * WIDEST * sizeof(float);
    cudaStream_t s;
    cudaGraph_t g;
    cudaGraphExec_t exec;
    void *x, *out, *list;
    (void)state;
    assert_int_equal(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaMalloc(&x, bytes), cudaSuccess);
    assert_int_equal(cudaMalloc(&out, bytes), cudaSuccess);
    assert_int_equal(cudaMalloc(&list, sizeof offsets), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(list, offsets, sizeof offsets, cudaMemcpyHostToDevice, s), cudaSuccess);
    for (int pass = 0; pass < 2; pass++) {
        if (pass) assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        for (int narrower = 0; narrower < 2; narrower++) {
            const int64_t dh = narrower ? NARROWER : WIDEST;
            const struct mode__cuda_attention a = {.q = x,
                                                   .kv = x,
                                                   .lq = 3 * dh,
                                                   .lk = 3 * dh,
                                                   .k_at = dh,
                                                   .v_at = 2 * dh,
                                                   .heads = 1,
                                                   .dh = dh,
                                                   .rows_q = ROWS,
                                                   .rows_k = ROWS,
                                                   .n_seq = 1,
                                                   .q_offsets = list,
                                                   .kv_offsets = list,
                                                   .longest = ROWS};
            mode__cuda_attention(s, out, NULL, &a);
        }
    }
    assert_int_equal(cudaStreamEndCapture(s, &g), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
    assert_int_equal(cudaGraphLaunch(exec, s), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(s), cudaSuccess);
    assert_int_equal(cudaGraphExecDestroy(exec), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(g), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(s), cudaSuccess);
    void *const all[] = {x, out, list};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) assert_int_equal(cudaFree(all[i]), cudaSuccess);
}

struct zeroed {
    struct mode_backend *be;
    struct mode_tensor t;
};

static void zero_it(void *ctx)
{
    struct zeroed *z = ctx;
    mode_zero(z->be, &z->t);
}

/* Writes ones at `at`, then runs the sequence `times` times: are they zeros? */
static void assert_zeroed(struct zeroed *z, const struct mode_sequence *key, void *at, int times)
{
    float x[4];
    z->t = mode_tensor_1d(at, MODE_DTYPE_F32, 4);
    for (int i = 0; i < times; i++) {
        mode_backend_copy(z->be, at, (const float[]){1, 1, 1, 1}, sizeof x);
        mode_backend_repeat(z->be, key, zero_it, z);
        mode_backend_copy(z->be, x, at, sizeof x);
        for (int k = 0; k < 4; k++) assert_true(x[k] == 0);
    }
}

/* The same sequence of ops at another address, after the captured one was freed; another owner's sequence of the same
 * shape. */
static void test_a_graph_is_its_owner_s_and_goes_with_any_memory(void **state)
{
    struct zeroed z = {.be = open_backend("cuda")};
    const struct mode_sequence key = {.owner = &z}, other = {.owner = state};
    struct mode_error err;
    void *at[3];
    for (int i = 0; i < 3; i++) ok(mode_backend_alloc(z.be, &at[i], 4 * sizeof(float), &err), &err);
    assert_zeroed(&z, &key, at[0], 3);
    assert_zeroed(&z, &other, at[1], 3);
    mode_backend_free(z.be, at[0]);
    assert_zeroed(&z, &key, at[2], 3);
    mode_backend_free(z.be, at[1]);
    mode_backend_free(z.be, at[2]);
    mode_backend_close(&z.be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_cublas_can_be_recorded),
        cmocka_unit_test(test_a_recorded_launch_keeps_its_shared_memory),
        cmocka_unit_test(test_ten_steps_are_the_same_bytes_as_op_by_op),
        cmocka_unit_test(test_as_many_rows_of_fewer_pairs_are_another_shape),
        cmocka_unit_test(test_steps_that_nobody_waits_for),
        cmocka_unit_test(test_every_tower_can_be_recorded),
        cmocka_unit_test(test_what_is_refused_runs_op_by_op_and_says_so),
        cmocka_unit_test(test_switched_off_profiled_and_measured_steps_run_op_by_op),
        cmocka_unit_test(test_what_was_measured_is_recorded),
        cmocka_unit_test(test_graphs_go_with_their_memory),
        cmocka_unit_test(test_a_graph_is_its_owner_s_and_goes_with_any_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
