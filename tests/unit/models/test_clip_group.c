/* Several ranks that train one CLIP against one process with the whole batch: loss, every gradient, twenty steps,
 * moments. On the reference and on the cpu backend, with gradient caching and with activation checkpointing; with
 * MODE_TEST_BACKEND=cuda on that one and by NCCL, or the library loaded in its place. */
#include "socket_ranks.h"

#include "base/clock.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "optim/sharded.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

static const char TINY[] = "{\"embed_dim\": 10, \"quick_gelu\": true,"
                           " \"vision_cfg\": {\"image_size\": 12, \"patch_size\": 4, \"width\": 16, \"layers\": 2,"
                           "                  \"head_width\": 8, \"mlp_ratio\": 2.5},"
                           " \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 23, \"width\": 12, \"heads\": 3,"
                           "                \"layers\": 2}}";

enum {
    BATCH = 12,
    PIXELS = 3 * 12 * 12,
    CONTEXT = 9,
    VOCABULARY = 23,
    STEPS = 20,
    MAX_PARAMS = 80,
    MAX_FLOATS = 32768
};

struct scene {
    const char *backend;
    int64_t accumulate;
    bool checkpoint;
    double clip_norm, patch_dropout;
    struct mode_clip_lock lock;
    size_t bucket;
    int odd, die_at; /* rank odd is killed in that step's backward pass; 0: none */
    int steps, most; /* 0: STEPS; processes, 0: 4 */
};

static int steps_of(const struct scene *s)
{
    return s->steps ? s->steps : STEPS;
}

struct outcome { /* in shared memory */
    double loss, losses[STEPS], norm;
    size_t n_params, n_floats, place[MAX_PARAMS], count[MAX_PARAMS];
    bool qkv_bias[MAX_PARAMS];
    float grads[MAX_FLOATS], values[MAX_FLOATS], m[MAX_FLOATS], v[MAX_FLOATS];
};

struct trial {
    struct scene scene;
    struct outcome *outcome; /* [size] */
};

struct batch {
    float pixels[BATCH * PIXELS];
    int32_t ids[BATCH * CONTEXT], n_ids[BATCH];
};

static void draw(struct batch *x, uint64_t number)
{
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 5, number);
    int32_t *id = x->ids;
    for (int i = 0; i < BATCH * PIXELS; i++) x->pixels[i] = (float)mode_rng_normal(&r);
    for (int i = 0; i < BATCH; i++) {
        x->n_ids[i] = 2 + (int32_t)mode_rng_below(&r, CONTEXT - 1);
        for (int j = 0; j < x->n_ids[i] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, VOCABULARY - 1);
        *id++ = VOCABULARY - 1;
    }
}

/* One step on this rank's pairs, which must succeed. Returns the loss. */
static double step(struct mode_clip *clip, int rank, int size, uint64_t number)
{
    static struct batch x;
    struct mode_error err;
    double loss = NAN;
    int b = BATCH / size;
    const int32_t *ids = x.ids;
    draw(&x, number);
    mode_clip_train_place(clip, number * BATCH + (uint64_t)(rank * b));
    for (int i = 0; i < rank * b; i++) ids += x.n_ids[i];
    if (mode_clip_train_step(clip, &loss, x.pixels + rank * b * PIXELS, ids, x.n_ids + rank * b, b, &err)) {
        fprintf(stderr, "process %d of %d: %s\n", rank, size, err.text);
        exit(mode_status_exit_code(err.status));
    }
    return loss;
}

static enum mode_status join(struct mode_ranks **g, struct mode_backend *be, int rank, int size, const char *place,
                             struct mode_error *err)
{
    const struct mode_meeting_options o = {.rank = rank, .size = size, .place = place, .timeout_s = MEET_S};
    struct mode_meeting *m;
    if (!mode_backend_is_device(be)) return socket_ranks_open(g, rank, size, place, err);
    enum mode_status st = mode_meeting_open(&m, &o, err);
    return st ? st : mode_backend_ranks(g, be, &m, err);
}

#define OK(call)                                                                                                       \
    if ((call) != MODE_OK) {                                                                                           \
        fprintf(stderr, "process %d of %d: %s\n", rank, size, err.text);                                               \
        return mode_status_exit_code(err.status);                                                                      \
    }

static struct mode_clip *make(struct mode_backend *be, const struct scene *s, struct mode_ranks *g, int size)
{
    struct mode_clip *clip;
    struct mode_error err;
    size_t n;
    if (mode_clip_create(&clip, be, TINY, NULL, 5, &err)) abort();
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) { /* a fresh model has tiny gradients in places */
        struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 2, i);
        float *v = mode_xmalloc(mode_tensor_bytes(&p[i].value));
        mode_backend_copy(be, v, p[i].value.data, mode_tensor_bytes(&p[i].value));
        for (int64_t j = 0; j < mode_tensor_count(&p[i].value); j++) v[j] += 0.15f * (float)mode_rng_normal(&r);
        mode_backend_copy(be, p[i].value.data, v, mode_tensor_bytes(&p[i].value));
        free(v);
    }
    if (mode_clip_set_lock(clip, &s->lock, &err)) abort();
    mode_clip_set_memory(clip, s->accumulate, s->checkpoint);
    mode_clip_set_patch_dropout(clip, s->patch_dropout, 5);
    if (g) mode_clip_set_group(clip, g);
    if (mode_clip_train_begin(clip, BATCH / size, &err)) abort();
    return clip;
}

static void note_shape(struct outcome *out, struct mode_clip *clip)
{
    struct mode_flat flat = mode_clip_flat(clip);
    struct mode_param *p = mode_clip_params(clip, &out->n_params);
    MODE_ASSERT(out->n_params <= MAX_PARAMS && flat.n <= MAX_FLOATS);
    out->n_floats = flat.n;
    for (size_t i = 0; i < out->n_params; i++) {
        if (!p[i].grad.data) continue; /* locked */
        out->place[i] = (size_t)(mode_f32(&p[i].value) - flat.values);
        out->count[i] = (size_t)mode_tensor_count(&p[i].value);
        out->qkv_bias[i] = strstr(p[i].name, "in_proj_bias") != NULL;
    }
}

static const struct mode_adamw OPTIONS = {.lr = 2e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2};

static int train_alone(int rank, int size, const char *place, void *ctx)
{
    const struct trial *t = ctx;
    struct outcome *out = t->outcome;
    struct mode_adamw options = OPTIONS;
    struct mode_adamw_step *now;
    struct mode_backend *be;
    struct mode_error err;
    size_t n;
    (void)place;
    mode_parallel_set_threads(1);
    OK(mode_backend_open(&be, t->scene.backend, &err));
    OK(mode_adamw_begin(&now, be, &err));
    struct mode_clip *clip = make(be, &t->scene, NULL, 1);
    struct mode_param *p = mode_clip_params(clip, &n);
    note_shape(out, clip);
    options.clip_norm = t->scene.clip_norm;
    out->loss = step(clip, 0, 1, 0);
    mode_backend_copy(be, out->grads, mode_clip_flat(clip).grads, out->n_floats * sizeof(float));
    for (int i = 0; i < steps_of(&t->scene); i++) {
        out->losses[i] = step(clip, 0, 1, (uint64_t)i);
        mode_adamw_tell(now, &options, i + 1);
        mode_adamw_update(be, p, n, now);
        mode_clip_clamp(clip);
    }
    mode_backend_sync(be);
    out->norm = mode_adamw_norm(now);
    mode_backend_free(be, now);
    mode_backend_copy(be, out->values, mode_clip_flat(clip).values, out->n_floats * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        if (!p[i].grad.data) continue;
        mode_backend_copy(be, out->m + out->place[i], p[i].m.data, out->count[i] * sizeof(float));
        mode_backend_copy(be, out->v + out->place[i], p[i].v.data, out->count[i] * sizeof(float));
    }
    mode_clip_close(&clip);
    mode_backend_close(&be);
    return 0;
}

/* Killed during the backward pass, while buckets are being reduced. */
static void die(void *sharded, const struct mode_param *p, size_t n)
{
    static int calls;
    mode_sharded_made(sharded, p, n);
    if (++calls == 4) raise(SIGKILL);
}

static int train_together(int rank, int size, const char *place, void *ctx)
{
    const struct trial *t = ctx;
    struct outcome *out = &t->outcome[rank];
    struct mode_adamw options = OPTIONS;
    struct mode_adamw_step *now;
    struct mode_sharded *s;
    struct mode_backend *be;
    struct mode_ranks *g;
    struct mode_error err;
    size_t n;
    mode_parallel_set_threads(1);
    OK(mode_backend_open(&be, t->scene.backend, &err));
    OK(join(&g, be, rank, size, place, &err));
    OK(mode_adamw_begin(&now, be, &err));
    struct mode_clip *clip = make(be, &t->scene, g, size);
    struct mode_flat flat = mode_clip_flat(clip);
    struct mode_param *p = mode_clip_params(clip, &n);
    note_shape(out, clip);
    options.clip_norm = t->scene.clip_norm;
    if (rank > 0) { /* only rank 0's matter, locked ones too */
        float *const first = flat.values - flat.locked;
        mode_backend_copy(be, first, first + 16, 4 * sizeof(float));
        if (flat.n > 16) mode_backend_copy(be, flat.values, flat.values + 16, 4 * sizeof(float));
    }
    OK(mode_sharded_open(&s, be, g, p, n, &flat, t->scene.bucket, &err));
    OK(mode_sharded_broadcast(s, &err));
    out->loss = step(clip, rank, size, 0);
    OK(mode_ranks_all_reduce(g, flat.grads, flat.n, MODE_DTYPE_F32, &err));
    mode_backend_copy(be, out->grads, flat.grads, flat.n * sizeof(float));
    mode_clip_set_made(clip, mode_sharded_made, s); /* from now on reduction overlaps the backward pass */
    for (int i = 0; i < steps_of(&t->scene); i++) {
        if (t->scene.die_at && i == t->scene.die_at && rank == t->scene.odd) mode_clip_set_made(clip, die, s);
        out->losses[i] = step(clip, rank, size, (uint64_t)i);
        OK(mode_sharded_reduce(s, &err));
        mode_adamw_tell(now, &options, i + 1);
        OK(mode_sharded_update(s, now, &err));
        mode_clip_clamp(clip);
        if (i == steps_of(&t->scene) / 2) { /* save, close, open again, load */
            float *m = mode_xmalloc(2 * flat.n * sizeof *m), *v = m + flat.n;
            OK(mode_sharded_save_moments(s, m, v, &err));
            mode_sharded_close(&s);
            OK(mode_sharded_open(&s, be, g, p, n, &flat, t->scene.bucket, &err));
            mode_sharded_load_moments(s, m, v);
            mode_clip_set_made(clip, mode_sharded_made, s);
            free(m);
        }
    }
    mode_backend_sync(be);
    out->norm = mode_adamw_norm(now);
    mode_backend_free(be, now);
    mode_backend_copy(be, out->values, flat.values, flat.n * sizeof(float));
    OK(mode_sharded_save_moments(s, rank ? NULL : out->m, rank ? NULL : out->v, &err));
    mode_sharded_close(&s);
    mode_clip_close(&clip);
    mode_ranks_close(&g, true);
    mode_backend_close(&be);
    return 0;
}

static double distance(const float *a, const float *b, size_t n)
{
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    return sqrt(off / fmax(all, 1e-30));
}

/* The largest difference over all parameters; x and y are arrays of a and b. The key bias is left out: softmax is
 * invariant to it, so its gradient is rounding noise, and AdamW takes full steps even then. */
static double worst(const struct outcome *a, const struct outcome *b, const float *x, const float *y)
{
    double most = 0;
    assert_int_equal(a->n_params, b->n_params);
    for (size_t i = 0; i < a->n_params; i++) {
        size_t at = a->place[i], n = a->count[i], third = n / 3;
        if (!a->qkv_bias[i]) {
            most = fmax(most, distance(x + at, y + at, n));
            continue;
        }
        most = fmax(most, distance(x + at, y + at, third));
        most = fmax(most, distance(x + at + 2 * third, y + at + 2 * third, third));
    }
    return most;
}

static void compare(const struct scene *scene)
{
    size_t bytes = 5 * sizeof(struct outcome);
    struct outcome *o = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct trial t = {*scene, o + 4};
    const struct outcome *one = o + 4;
    int ended[4] = {-1};
    assert_true(o != MAP_FAILED);
    run_ranks(ended, 1, train_alone, &t);
    assert_int_equal(ended[0], 0);
    assert_true(one->loss > 0.1 && one->losses[steps_of(scene) - 1] < one->losses[0]);
    t.outcome = o;
    for (int size = 1; size <= (scene->most ? scene->most : 4); size++) {
        memset(o, 0, 4 * sizeof *o);
        run_ranks(ended, size, train_together, &t);
        for (int r = 0; r < size; r++) assert_int_equal(ended[r], 0);
        double curve = 0, grads = worst(o, one, o->grads, one->grads), values = worst(o, one, o->values, one->values);
        for (int i = 0; i < steps_of(scene); i++) curve = fmax(curve, fabs(o->losses[i] / one->losses[i] - 1));
        double moments = fmax(worst(o, one, o->m, one->m), worst(o, one, o->v, one->v));
        printf("%s, pieces %lld%s, clip %g, %d processes: loss %.1e, gradients %.1e, curve %.1e, weights %.1e, moments "
               "%.1e\n",
               scene->backend, (long long)scene->accumulate, scene->checkpoint ? ", checkpoint" : "", scene->clip_norm,
               size, fabs(o->loss / one->loss - 1), grads, curve, values, moments);
        assert_true(fabs(o->loss / one->loss - 1) < 2e-6);
        assert_true(grads < 2e-5 && curve < 2e-5 && values < 2e-5 && moments < 1e-4);
        assert_true(fabs(o->norm - one->norm) <= 2e-5 * one->norm);
        for (int r = 1; r < size; r++) {
            assert_memory_equal(o[r].values, o->values, o->n_floats * sizeof(float));
            assert_memory_equal(o[r].losses, o->losses, sizeof o->losses);
        }
    }
    munmap(o, bytes);
}

static void test_the_reference(void **state)
{
    (void)state;
    compare(&(struct scene){.backend = "ref", .accumulate = 1, .bucket = 1000});
}

static void test_the_fast_backend(void **state)
{
    (void)state;
    compare(&(struct scene){.backend = "cpu", .accumulate = 1, .clip_norm = 0.5});
}

static void test_in_pieces_with_activations_made_again(void **state)
{
    (void)state;
    compare(&(struct scene){.backend = "cpu", .accumulate = 2, .checkpoint = true, .bucket = 777});
}

static void test_each_image_keeps_the_same_patches_in_any_group(void **state)
{
    (void)state;
    compare(&(struct scene){.backend = "cpu", .accumulate = 1, .patch_dropout = 0.5});
    compare(&(struct scene){.backend = "cpu", .accumulate = 2, .checkpoint = true, .patch_dropout = 0.5});
}

/* Only the unlocked parameters are reduced, updated and gathered; features are gathered as ever. */
static void test_locked_towers_are_those_of_one_process(void **state)
{
    static const struct mode_clip_lock locks[] = {
        {true, false, 0, 0}, {false, true, 0, 0}, {true, true, 2, 1}, {true, false, 1, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++)
        compare(&(struct scene){.backend = i == 1 ? "ref" : "cpu",
                                .accumulate = 1 + (int64_t)i % 2,
                                .clip_norm = 0.5,
                                .lock = locks[i],
                                .bucket = i == 2 ? 500 : 0,
                                .most = 3});
}

static void when_one_dies(const char *backend)
{
    struct outcome *o = mmap(NULL, 3 * sizeof *o, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(o != MAP_FAILED);
    for (int odd = 0; odd < 3; odd++) {
        struct trial t = {{.backend = backend, .accumulate = 1, .bucket = 1000, .odd = odd, .die_at = 2}, o};
        int ended[3];
        double began = mode_clock_s();
        run_ranks(ended, 3, train_together, &t);
        for (int r = 0; r < 3; r++) assert_int_equal(ended[r], r == odd ? 128 + SIGKILL : 69);
        assert_true(mode_clock_s() - began < MEET_S); /* no rank waits for a dead one */
    }
    munmap(o, 3 * sizeof *o);
}

static void test_when_one_dies_the_others_end(void **state)
{
    (void)state;
    when_one_dies("cpu");
}

static void test_gpus(void **state)
{
    (void)state;
    compare(
        &(struct scene){.backend = "cuda", .accumulate = 2, .clip_norm = 0.5, .bucket = 1000, .steps = 5, .most = 3});
    compare(&(struct scene){.backend = "cuda", .accumulate = 1, .patch_dropout = 0.5, .steps = 3, .most = 2});
    compare(&(struct scene){
        .backend = "cuda", .accumulate = 1, .clip_norm = 0.5, .lock = {.image = true}, .steps = 3, .most = 2});
    compare(&(struct scene){.backend = "cuda", .accumulate = 2, .lock = {true, true, 2, 0}, .steps = 3, .most = 2});
}

static void test_when_one_dies_its_gpu_is_not_waited_for(void **state)
{
    (void)state;
    when_one_dies("cuda");
}

int main(void)
{
    const char *backend = getenv("MODE_TEST_BACKEND");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_reference),
        cmocka_unit_test(test_the_fast_backend),
        cmocka_unit_test(test_in_pieces_with_activations_made_again),
        cmocka_unit_test(test_each_image_keeps_the_same_patches_in_any_group),
        cmocka_unit_test(test_locked_towers_are_those_of_one_process),
        cmocka_unit_test(test_when_one_dies_the_others_end),
    };
    const struct CMUnitTest gpu_tests[] = {
        cmocka_unit_test(test_gpus),
        cmocka_unit_test(test_when_one_dies_its_gpu_is_not_waited_for),
    };
    if (backend && strcmp(backend, "cuda") == 0) return cmocka_run_group_tests(gpu_tests, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
