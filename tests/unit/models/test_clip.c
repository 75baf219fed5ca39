/* CLIP: gradients of the whole model against central differences, packed texts and the pooled last block against the
 * dense computation, the fast backend against the reference, threads, and save and load.
 *
 *     unit-clip --bench [batch] [steps]     time training steps of the demo's model and print time per op
 */
#include "models/clip_train.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"
#include "clip_variants.h"
#include "nn/backend.h"
#include "nn/ops.h"
#include "optim/adamw.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const char TINY[] = "{\"embed_dim\": 10, \"quick_gelu\": true,"
                           " \"vision_cfg\": {\"image_size\": 12, \"patch_size\": 4, \"width\": 16, \"layers\": 2,"
                           "                  \"head_width\": 8, \"mlp_ratio\": 2.5},"
                           " \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 23, \"width\": 12, \"heads\": 3,"
                           "                \"layers\": 2}}";
static const char DEMO[] = "{\"embed_dim\": 160,"
                           " \"vision_cfg\": {\"image_size\": 48, \"patch_size\": 8, \"width\": 160, \"layers\": 5,"
                           "                  \"head_width\": 32},"
                           " \"text_cfg\": {\"context_length\": 77, \"vocab_size\": 49408, \"width\": 160,"
                           "                \"heads\": 5, \"layers\": 3}}";

struct batch {
    int64_t b;
    float *pixels;
    int32_t *ids, *n_ids;
};

static struct batch make_batch(int64_t b, int64_t side, int shortest, int longest, int vocab)
{
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 1, (uint64_t)b);
    struct batch x = {.b = b};
    int64_t n = b * 3 * side * side;
    x.pixels = mode_xmalloc((size_t)n * sizeof *x.pixels);
    x.ids = mode_xmalloc((size_t)(b * longest) * sizeof *x.ids);
    x.n_ids = mode_xmalloc((size_t)b * sizeof *x.n_ids);
    for (int64_t i = 0; i < n; i++) x.pixels[i] = (float)mode_rng_normal(&r);
    int32_t *id = x.ids;
    for (int64_t i = 0; i < b; i++) {
        x.n_ids[i] = shortest + (int32_t)mode_rng_below(&r, (uint64_t)(longest - shortest + 1));
        for (int j = 0; j < x.n_ids[i] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, (uint64_t)vocab - 1);
        *id++ = vocab - 1; /* the end token has the highest id */
    }
    return x;
}

static void free_batch(struct batch *x)
{
    free(x->pixels);
    free(x->ids);
    free(x->n_ids);
}

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    if (mode_backend_open(&be, name, &err) != MODE_OK) fail_msg("%s", err.text);
    return be;
}

static struct mode_clip *make(struct mode_backend *be, const char *cfg, bool dense, int64_t batch)
{
    struct mode_clip *clip;
    struct mode_error err;
    if (mode_clip_create(&clip, be, cfg, NULL, 5, &err) != MODE_OK) fail_msg("%s", err.text);
    mode_clip_set_savings(clip, dense, dense);
    if (mode_clip_train_begin(clip, batch, &err) != MODE_OK) fail_msg("%s", err.text);
    return clip;
}

static double step(struct mode_clip *clip, const struct batch *x)
{
    struct mode_error err;
    double loss = NAN;
    if (mode_clip_train_step(clip, &loss, x->pixels, x->ids, x->n_ids, x->b, &err) != MODE_OK) fail_msg("%s", err.text);
    return loss;
}

/* Every parameter tensor, along random directions: g . u against (L(w + h u) - L(w - h u)) / 2h, whose O(h^2) error is
 * cancelled with a second step of twice the length (Richardson extrapolation). */
static void test_gradients_are_the_slopes_of_the_loss(void **state)
{
    (void)state;
    for (int dense = 0; dense < 2; dense++) {
        struct mode_backend *be = open_backend("ref");
        struct batch x = make_batch(4, 12, 2, 9, 23);
        struct mode_clip *clip = make(be, TINY, dense, 4);
        size_t n;
        struct mode_param *p = mode_clip_params(clip, &n);
        variant_perturb(clip);
        for (size_t i = 0; i < n; i++) {
            int64_t size = mode_tensor_count(&p[i].value);
            float *w = mode_f32(&p[i].value), *old = mode_xmalloc((size_t)size * sizeof *old);
            double *u = mode_xmalloc((size_t)size * sizeof *u);
            memcpy(old, w, (size_t)size * sizeof *old);
            for (int direction = 0; direction < 2; direction++) {
                struct mode_rng r = mode_rng_for(9, MODE_RNG_TEST, (uint64_t)direction, i);
                double norm = 0, slope[3], g = 0, g_norm = 0;
                step(clip, &x);
                for (int64_t j = 0; j < size; j++) {
                    u[j] = mode_rng_normal(&r);
                    norm += u[j] * u[j];
                    g_norm += pow(mode_f32(&p[i].grad)[j], 2);
                }
                for (int64_t j = 0; j < size; j++) g += mode_f32(&p[i].grad)[j] * (u[j] /= sqrt(norm));
                for (int k = 1; k <= 2; k++) {
                    double h = 0.01 * k, up, down;
                    for (int64_t j = 0; j < size; j++) w[j] = (float)(old[j] + h * u[j]);
                    up = step(clip, &x);
                    for (int64_t j = 0; j < size; j++) w[j] = (float)(old[j] - h * u[j]);
                    down = step(clip, &x);
                    slope[k] = (up - down) / (2 * h);
                    memcpy(w, old, (size_t)size * sizeof *old);
                }
                double want = (4 * slope[1] - slope[2]) / 3;
                if (!(fabs(g - want) <= 3e-5 + 2e-3 * fabs(want)))
                    fail_msg("%s: slope is %.7g, gradient says %.7g (length of gradient %.3g)", p[i].name, want, g,
                             sqrt(g_norm));
            }
            free(u);
            free(old);
        }
        mode_clip_close(&clip);
        free_batch(&x);
        mode_backend_close(&be);
    }
}

/* Relative distance between the gradients of two models, tensor by tensor. */
static void assert_same_gradients(struct mode_clip *a, struct mode_clip *b, double tolerance)
{
    size_t n, m;
    struct mode_param *p = mode_clip_params(a, &n), *q = mode_clip_params(b, &m);
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++) {
        double diff = 0, size = 0;
        for (int64_t j = 0; j < mode_tensor_count(&p[i].grad); j++) {
            double x = mode_f32(&p[i].grad)[j], y = mode_f32(&q[i].grad)[j];
            diff += (x - y) * (x - y);
            size += y * y;
        }
        if (p[i].frozen) {
            assert_true(size == 0 && diff == 0);
            continue;
        }
        assert_true(size > 0);
        if (!(sqrt(diff / size) <= tolerance)) fail_msg("%s: gradients are %.3g apart", p[i].name, sqrt(diff / size));
    }
}

static void test_packed_equals_dense(void **state)
{
    const char *names[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct mode_backend *be = open_backend(names[i]);
        struct batch x = make_batch(5, 12, 1, 9, 23);
        struct mode_clip *packed = make(be, TINY, false, 7), *dense = make(be, TINY, true, 5);
        variant_perturb(packed);
        variant_perturb(dense);
        assert_true(fabs(step(packed, &x) - step(dense, &x)) < 2e-6);
        assert_same_gradients(packed, dense, 2e-5);
        mode_clip_close(&packed);
        mode_clip_close(&dense);
        free_batch(&x);
        mode_backend_close(&be);
    }
}

static struct mode_clip *make_variant(struct mode_backend *be, int i, bool dense, bool full, int64_t pieces,
                                      bool checkpoint, int64_t batch)
{
    struct mode_clip *clip;
    struct mode_error err;
    char *cfg = variant(i);
    if (mode_clip_create(&clip, be, cfg, NULL, 5, &err) != MODE_OK) fail_msg("%s", err.text);
    mode_clip_set_savings(clip, dense, full);
    mode_clip_set_memory(clip, pieces, checkpoint);
    if (mode_clip_train_begin(clip, batch, &err) != MODE_OK) fail_msg("%s", err.text);
    variant_perturb(clip);
    free(cfg);
    return clip;
}

/* Savings, accumulation and checkpointing, alone and together, on every kind of tower: the loss and all gradients of
 * the plain dense step. Checkpointing alone is bit-identical. */
static void test_savings_and_memory_modes_change_nothing(void **state)
{
    static const struct {
        bool dense, full;
        int pieces;
        bool checkpoint;
    } ways[] = {{false, false, 1, false}, {false, true, 1, false},  {true, false, 1, false}, {true, true, 1, true},
                {false, false, 1, true},  {false, false, 3, false}, {false, false, 3, true}, {true, true, 7, true}};
    struct mode_backend *be = open_backend("cpu");
    struct batch x = make_batch(7, 12, 1, 9, 23);
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        struct mode_clip *plain = make_variant(be, i, true, true, 1, false, 7), *fast = NULL;
        double loss = step(plain, &x);
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            struct mode_clip *c = make_variant(be, i, ways[k].dense, ways[k].full, ways[k].pieces, ways[k].checkpoint,
                                               7);
            assert_true(fabs(step(c, &x) - loss) < 2e-6 * loss);
            assert_same_gradients(c, plain, 2e-5);
            if (k == 3) assert_same_gradients(c, plain, 0);
            if (k == 4) assert_same_gradients(c, fast, 0);
            if (k == 0)
                fast = c;
            else
                mode_clip_close(&c);
        }
        mode_clip_close(&fast);
        mode_clip_close(&plain);
    }
    free_batch(&x);
    mode_backend_close(&be);
}

/* Padded text rows (mode_clip_set_padding): the same loss, and gradients up to the order of sums. */
static void test_texts_that_fill_up_change_nothing(void **state)
{
    const char *names[] = {"ref", "cpu"};
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct mode_backend *be = open_backend(names[k / 2]);
        struct mode_clip *clip[2];
        struct mode_error err;
        double loss[2];
        for (int pad = 0; pad < 2; pad++) {
            assert_int_equal(mode_clip_create(&clip[pad], be, TINY, NULL, 5, &err), MODE_OK);
            mode_clip_set_savings(clip[pad], false, k % 2);
            mode_clip_set_padding(clip[pad], pad);
            assert_int_equal(mode_clip_train_begin(clip[pad], 8, &err), MODE_OK);
            variant_perturb(clip[pad]);
            for (int again = 0; again < 2; again++) { /* rows with gradients in one step are padding in the next */
                struct batch y = make_batch(again ? 6 : 8, 12, 2, 9, 23);
                loss[pad] = step(clip[pad], &y);
                free_batch(&y);
            }
        }
        struct mode_sequence plain, padded;
        assert_true(mode_clip_train_sequence(clip[0], &plain) && mode_clip_train_sequence(clip[1], &padded));
        assert_true(padded.shape[1] % 8 == 0 && padded.shape[1] > plain.shape[1] &&
                    padded.shape[1] < plain.shape[1] + 16);
        assert_true(fabs(loss[0] - loss[1]) <= 1e-7 * loss[0]);
        assert_same_gradients(clip[1], clip[0], k < 2 ? 1e-7 : 1e-5);
        for (int pad = 0; pad < 2; pad++) mode_clip_close(&clip[pad]);
        mode_backend_close(&be);
    }
}

/* The maximum number of rows, and padding up to it, which must not exceed any tensor. */
static void test_the_longest_texts_fill_up(void **state)
{
    enum { PAIRS = 32, LONGEST = 9 };
    struct mode_backend *be = open_backend("cpu");
    struct batch x = make_batch(PAIRS, 12, LONGEST, LONGEST, 23);
    struct mode_sequence key;
    struct mode_clip *clip[2];
    struct mode_error err;
    double loss[2];
    (void)state;
    for (int pad = 0; pad < 2; pad++) {
        assert_int_equal(mode_clip_create(&clip[pad], be, TINY, NULL, 5, &err), MODE_OK);
        mode_clip_set_padding(clip[pad], pad);
        assert_int_equal(mode_clip_train_begin(clip[pad], PAIRS, &err), MODE_OK);
        variant_perturb(clip[pad]);
        loss[pad] = step(clip[pad], &x);
    }
    assert_true(mode_clip_train_sequence(clip[1], &key) && key.shape[1] > PAIRS * LONGEST && key.shape[1] % 8 == 0);
    assert_true(fabs(loss[0] - loss[1]) <= 1e-7 * loss[0]);
    assert_same_gradients(clip[1], clip[0], 1e-5);
    for (int pad = 0; pad < 2; pad++) mode_clip_close(&clip[pad]);
    free_batch(&x);
    mode_backend_close(&be);
}

/* The memory modes plan less, and what is planned is what is allocated. */
static void test_memory_modes_take_less(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_clip_memory plain, pieces, checkpoint;
    struct mode_error err;
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, DEMO, NULL, 5, &err), MODE_OK);
    mode_clip_memory(&plain, clip, 64);
    mode_clip_set_memory(clip, 4, false);
    mode_clip_memory(&pieces, clip, 64);
    mode_clip_set_memory(clip, 1, true);
    mode_clip_memory(&checkpoint, clip, 64);
    assert_int_equal(plain.total, plain.parameters + plain.gradients + plain.moments + plain.activations + plain.turns +
                                      plain.workspace);
    assert_true(plain.gradients == plain.parameters && plain.moments == 2 * plain.parameters);
    assert_true(pieces.activations < plain.activations / 4 + (1 << 19)); /* plus features of the whole batch */
    assert_true(checkpoint.activations + checkpoint.turns < (plain.activations + plain.turns) * 2 / 3);
    assert_true(mode_contrastive_work(32768, 32768) <= (65 << 20) / 4); /* the paper's batch: logits of 4 GiB */
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

static void test_fast_backends_agree_with_the_reference(void **state)
{
    const char *names[] = {"cpu", "cpu-plain"};
    struct mode_backend *ref = open_backend("ref");
    struct batch x = make_batch(6, 12, 2, 9, 23);
    struct mode_clip *want = make(ref, TINY, false, 6);
    (void)state;
    variant_perturb(want);
    double loss = step(want, &x);
    for (int i = 0; i < 2; i++) {
        struct mode_backend *be = open_backend(names[i]);
        struct mode_clip *clip = make(be, TINY, false, 6);
        variant_perturb(clip);
        assert_true(fabs(step(clip, &x) - loss) < 2e-6 * fabs(loss));
        assert_same_gradients(clip, want, 1e-5);
        mode_clip_close(&clip);
        mode_backend_close(&be);
    }
    mode_clip_close(&want);
    free_batch(&x);
    mode_backend_close(&ref);
}

/* Three training steps in a process with the given number of threads; digest of all parameters. */
static struct mode_adamw_step *begin_updates(struct mode_backend *be)
{
    struct mode_adamw_step *now;
    struct mode_error err;
    if (mode_adamw_begin(&now, be, &err) != MODE_OK) fail_msg("%s", err.text);
    return now;
}

static void train_with_threads(int threads, char hex[MODE_DIGEST_HEX])
{
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        mode_parallel_set_threads(threads);
        struct mode_backend *be = open_backend("cpu");
        struct batch x = make_batch(150, 12, 1, 9, 23);
        struct mode_clip *clip = make(be, TINY, false, 150);
        struct mode_str all = {0};
        struct mode_adamw opt = MODE_ADAMW_DEFAULT;
        struct mode_adamw_step *now = begin_updates(be);
        size_t n;
        struct mode_param *p = mode_clip_params(clip, &n);
        for (int i = 0; i < 3; i++) {
            step(clip, &x);
            mode_adamw_tell(now, &opt, i + 1);
            mode_adamw_update(be, p, n, now);
            mode_clip_clamp(clip);
        }
        for (size_t i = 0; i < n; i++) mode_str_add(&all, p[i].value.data, mode_tensor_bytes(&p[i].value));
        mode_digest_bytes(all.data, all.len, hex);
        _exit(write(fd[1], hex, MODE_DIGEST_HEX) == MODE_DIGEST_HEX ? 0 : 1);
    }
    close(fd[1]);
    assert_int_equal(read(fd[0], hex, MODE_DIGEST_HEX), MODE_DIGEST_HEX);
    close(fd[0]);
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void test_training_does_not_depend_on_threads(void **state)
{
    char one[MODE_DIGEST_HEX], two[MODE_DIGEST_HEX], five[MODE_DIGEST_HEX];
    (void)state;
    train_with_threads(1, one);
    train_with_threads(2, two);
    train_with_threads(5, five);
    assert_string_equal(one, two);
    assert_string_equal(one, five);
}

static void test_training_lowers_the_loss(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct batch x = make_batch(16, 12, 3, 9, 23);
    struct mode_clip *clip = make(be, TINY, false, 16);
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now = begin_updates(be);
    size_t n;
    struct mode_param *p = mode_clip_params(clip, &n);
    double first = 0, last = 0;
    (void)state;
    opt.lr = 3e-3;
    for (int i = 0; i < 60; i++) {
        last = step(clip, &x);
        if (i == 0) first = last;
        mode_adamw_tell(now, &opt, i + 1);
        mode_adamw_update(be, p, n, now);
        mode_clip_clamp(clip);
    }
    assert_true(last < 0.2 * first); /* it overfits sixteen pairs */
    mode_backend_free(be, now);
    mode_clip_close(&clip);
    free_batch(&x);
    mode_backend_close(&be);
}

static void test_a_saved_model_loads_as_itself(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip, *again;
    struct mode_error err;
    struct batch x = make_batch(70, 12, 1, 9, 23); /* more than one batch of inference */
    char dir[] = "/tmp/mode-clip-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(dir));
    char *config = mode_path_join(dir, "open_clip_config.json");
    char *weights = mode_path_join(dir, "open_clip_model.safetensors");
    assert_int_equal(mode_clip_create(&clip, be, TINY, NULL, 8, &err), MODE_OK);
    assert_int_equal(mode_clip_save(clip, config, weights, &err), MODE_OK);
    if (mode_clip_load(&again, be, dir, &err) != MODE_OK) fail_msg("%s", err.text);
    float a[70 * 10], b[70 * 10];
    for (int text = 0; text < 2; text++)
        for (int raw = 0; raw < 2; raw++) {
            struct mode_clip *m[] = {clip, again};
            float *out[] = {a, b};
            for (int i = 0; i < 2; i++)
                assert_int_equal(text ? mode_clip_encode_texts(m[i], out[i], x.ids, x.n_ids, x.b, raw, &err)
                                      : mode_clip_encode_images(m[i], out[i], x.pixels, x.b, raw, &err),
                                 MODE_OK);
            assert_memory_equal(a, b, sizeof a);
            for (int i = 0; i < 70; i++) {
                double s = 0;
                for (int j = 0; j < 10; j++) s += (double)a[i * 10 + j] * a[i * 10 + j];
                if (!raw) assert_true(fabs(s - 1) < 1e-5);
            }
        }
    assert_int_equal(mode_clip_embed_dim(again), 10);
    assert_int_equal(mode_clip_context(again), 9);
    assert_int_equal(mode_clip_preprocess(again)->size, 12);
    assert_memory_equal(mode_clip_preprocess(again)->mean, mode_clip_preprocess(clip)->mean, sizeof(float[3]));
    /* a truncated file is refused */
    char *bytes;
    size_t size;
    assert_int_equal(mode_file_read(weights, 0, &bytes, &size, &err), MODE_OK);
    mode_clip_close(&again);
    assert_int_equal(mode_file_write_atomic(weights, bytes, size - 4, &err), MODE_OK);
    assert_int_equal(mode_clip_load(&again, be, dir, &err), MODE_E_FORMAT);
    assert_null(again);
    free(bytes);
    free(config);
    free(weights);
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    mode_clip_close(&clip);
    free_batch(&x);
    mode_backend_close(&be);
}

/* Inference and training compute the same function: normalised features of a pair give the loss of that pair. */
static void test_inference_gives_the_features_training_uses(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct batch x = make_batch(3, 12, 2, 9, 23);
    struct mode_clip *clip = make(be, TINY, false, 3);
    struct mode_error err;
    float im[30], tx[30];
    double loss, want = 0, s[3][3];
    (void)state;
    variant_perturb(clip);
    loss = step(clip, &x);
    assert_int_equal(mode_clip_encode_images(clip, im, x.pixels, 3, 0, &err), MODE_OK);
    assert_int_equal(mode_clip_encode_texts(clip, tx, x.ids, x.n_ids, 3, 0, &err), MODE_OK);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            s[i][j] = 0;
            for (int c = 0; c < 10; c++) s[i][j] += (double)im[i * 10 + c] * tx[j * 10 + c];
            s[i][j] *= mode_clip_logit_scale(clip);
        }
    for (int i = 0; i < 3; i++)
        want += log(exp(s[i][0]) + exp(s[i][1]) + exp(s[i][2])) + log(exp(s[0][i]) + exp(s[1][i]) + exp(s[2][i])) -
                2 * s[i][i];
    assert_true(fabs(loss - want / 6) < 1e-5);
    mode_clip_close(&clip);
    free_batch(&x);
    mode_backend_close(&be);
}

static void test_bad_configs_and_texts_are_refused_by_name(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_error err;
    (void)state;
    static const char *const refused[][3] = {
        /* vision_cfg, text_cfg, named */
        {"\"attentional_pool\": true", "", "vision_cfg.attentional_pool = true"},
        {"\"patch_dropout\": 1", "", "\"patch_dropout\" is 1"},
        {"\"patch_dropout\": -0.5", "", "\"patch_dropout\" must be a number"},
        {"\"timm_model_name\": \"vit_x\"", "", "vision_cfg.timm_model_name = \"vit_x\""},
        {"\"pool_type\": \"none\"", "", "vision_cfg.pool_type = \"none\""},
        {"\"layers\": [3, 4, 6, 3]", "", "vision_cfg.layers = [3,4,6,3]"},
        {"\"image_size\": [8, 16]", "", "square"},
        {"\"shape\": 3", "", "vision_cfg.shape = 3"},
        {"\"act_kwargs\": {\"approximate\": \"fast\"}", "", "act_kwargs.approximate = \"fast\""},
        {"\"norm_kwargs\": {\"bias\": false}", "", "norm_kwargs.bias"},
        {"\"block_type\": \"custom\"", "", "vision_cfg.block_type"},
        {"", "\"hf_model_name\": \"roberta-base\"", "text_cfg.hf_model_name = \"roberta-base\""},
        {"", "\"hf_tokenizer_name\": \"bert\"", "text_cfg.hf_tokenizer_name"},
        {"", "\"embed_cls\": true", "text_cfg.embed_cls = true"},
        {"", "\"pool_type\": \"mean\"", "text_cfg.pool_type = \"mean\""},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char *json = mode_xasprintf("{\"embed_dim\": 4, \"vision_cfg\": {%s}, \"text_cfg\": {%s}}", refused[i][0],
                                    refused[i][1]);
        assert_true(mode_clip_create(&clip, be, json, NULL, 1, &err) != MODE_OK);
        assert_null(clip);
        if (!strstr(err.text, refused[i][2])) fail_msg("%s: no word of %s", err.text, refused[i][2]);
        free(json);
    }
    assert_int_equal(mode_clip_create(&clip, be,
                                      "{\"embed_dim\": 4, \"init_logit_bias\": -10, \"vision_cfg\": {}, "
                                      "\"text_cfg\": {}}",
                                      NULL, 1, &err),
                     MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "model_cfg.init_logit_bias = -10"));
    assert_int_equal(mode_clip_create(&clip, be,
                                      "{\"embed_dim\": 4, \"vision_cfg\": {\"image_size\": 9, \"patch_size\": 4,"
                                      "\"width\": 8, \"layers\": 1, \"head_width\": 8}, \"text_cfg\": {}}",
                                      NULL, 1, &err),
                     MODE_E_VALUE);
    assert_non_null(strstr(err.text, "patch_size"));
    assert_int_equal(mode_clip_create(&clip, be, TINY, "{\"mean\": [0, 0]}", 1, &err), MODE_E_VALUE);
    clip = make(be, TINY, false, 2);
    struct batch x = make_batch(2, 12, 3, 9, 23);
    double loss;
    x.ids[1] = 23;
    assert_int_equal(mode_clip_train_step(clip, &loss, x.pixels, x.ids, x.n_ids, 2, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "23"));
    assert_int_equal(mode_clip_train_step(clip, &loss, x.pixels, x.ids, x.n_ids, 3, &err), MODE_E_VALUE);
    free_batch(&x);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

static void test_decay_follows_open_clip(void **state)
{
    static const char *const with[] = {"positional_embedding", "visual.proj", "visual.conv1.weight",
                                       "token_embedding.weight", "transformer.resblocks.1.mlp.c_fc.weight"};
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_error err;
    size_t n, decayed = 0;
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, TINY, NULL, 8, &err), MODE_OK);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) {
        decayed += p[i].decay;
        for (size_t j = 0; j < 5; j++)
            if (strcmp(p[i].name, with[j]) == 0) assert_true(p[i].decay);
        if (p[i].value.n_dims < 2 || strstr(p[i].name, "ln_")) assert_false(p[i].decay);
    }
    assert_int_equal(decayed, 6 + 4 * 4); /* two tables, two projections, conv, positions; four matrices per block */
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int bench(int64_t b, int steps)
{
    struct mode_backend *be = open_backend("cpu");
    struct batch x = make_batch(b, 48, 9, 16, 49408);
    struct mode_clip *clip = make(be, DEMO, false, b);
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now = begin_updates(be);
    size_t n;
    struct mode_param *p = mode_clip_params(clip, &n);
    double best = 1e9, cpu = 0, loss = 0;
    for (int i = 0; i < steps + 1; i++) {
        double t0 = mode_clock_s(), c0 = cpu_seconds(), t;
        if (i == 1) mode_backend_profile(be, true);
        loss = step(clip, &x);
        mode_adamw_tell(now, &opt, i + 1);
        mode_adamw_update(be, p, n, now);
        mode_clip_clamp(clip);
        t = mode_clock_s() - t0;
        if (i > 0 && t < best) best = t;
        if (i > 0) cpu += cpu_seconds() - c0;
    }
    mode_backend_profile_print(be, stdout);
    printf("batch %lld, %d steps, loss %.4f: best %.1f pairs/s; %.2f ms of processor time per pair\n", (long long)b,
           steps, loss, (double)b / best, 1e3 * cpu / (double)(steps * b));
    mode_backend_free(be, now);
    mode_clip_close(&clip);
    free_batch(&x);
    mode_backend_close(&be);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training_does_not_depend_on_threads), /* first: it forks before the pool starts */
        cmocka_unit_test(test_gradients_are_the_slopes_of_the_loss),
        cmocka_unit_test(test_packed_equals_dense),
        cmocka_unit_test(test_fast_backends_agree_with_the_reference),
        cmocka_unit_test(test_training_lowers_the_loss),
        cmocka_unit_test(test_a_saved_model_loads_as_itself),
        cmocka_unit_test(test_inference_gives_the_features_training_uses),
        cmocka_unit_test(test_savings_and_memory_modes_change_nothing),
        cmocka_unit_test(test_texts_that_fill_up_change_nothing),
        cmocka_unit_test(test_the_longest_texts_fill_up),
        cmocka_unit_test(test_memory_modes_take_less),
        cmocka_unit_test(test_bad_configs_and_texts_are_refused_by_name),
        cmocka_unit_test(test_decay_follows_open_clip),
    };
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return bench(argc > 2 ? atoi(argv[2]) : 256, argc > 3 ? atoi(argv[3]) : 4);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
