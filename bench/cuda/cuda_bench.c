/* cuda-bench - how fast the cuda backend is on this machine; needs no library but CUDA's.
 *
 *     cuda-bench [OUT [BACKEND...]]    every subject below; a table on stdout and in OUT/cuda_bench.tsv
 *     cuda-bench train|encode|sweep [options]
 *         --config ViT-B-32|ViT-B-16|ViT-L-14  --backend cuda|cuda-tf32|cuda-fp8...  --batch B  --rounds N  --profile
 *         --tokens MEAN                lengths of texts: MEAN - 14 to MEAN + 14, 77: no padding
 *         --lengths FILE               instead: one number of tokens per line, as `mode tokenize --lengths` prints;
 *                                      if there are more or fewer lines than pairs in the batch, evenly spaced lines
 *         --seconds S                  a round is as many steps as take that long, one by default
 *         --no-savings                 padding and whole last blocks are computed, too
 *         --no-graphs                  steps of train run op by op, not as a captured CUDA graph
 *         --no-streams                 all ops on one stream, not towers and gradients of weights concurrently
 *         --measure-products           autotune GEMM algorithms by timing, as runs with train.algorithms do
 *         --measure                    autotune attention, too, which no run can keep
 *         --activations own|cudnn      GEMMs with a fused activation or its derivative never or always by cuDNN,
 *                                      instead of by timing (--measure-products)
 *         --turns                      wait for a line on stdin before every round: bench/peers/bench_cuda.py
 *
 * A step of train is forward, loss, backward, AdamW, and one synchronisation, as in use. Inputs are random, none are
 * zero (a GPU that multiplies zeros draws less power and runs faster); pixels are in GPU memory, as the peers' are. One
 * JSON line per round, as `mode bench` prints. sweep: steps of train from half of --batch to --batch, in sixteenths,
 * pairs per second of each: wave quantization (how many tiles fill the last wave) is a matter of several per cent.
 *
 * Without a subject training comes first, at its best in use: autotuned GEMMs, every exact saving. Texts of 77 tokens
 * are "dense tokens", where only the last blocks save something; "nothing saved" is listed too.
 * OUT/cuda_bench_profiles.txt has every op of these steps: calls, time, TFLOP/s, GB/s. FLOPs are those executed, from
 * the shapes of GEMMs and attention; MFU is relative to 989 TFLOP/s, an H100's and H200's dense bf16 peak by NVIDIA's
 * data sheet, for k-means to 788 TFLOP/s: what an H200 reaches in a GEMM of 8192 x 8192 x 8192. Medians of the rounds:
 * 15 of bf16, which is measured first, 5 of the others. */
#include "cuda/table.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/resize_taps.h"
#include "models/clip.h"
#include "models/clip_config.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "nn/ops.h"
#include "optim/adamw.h"
#include "tensor/half.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 77, VOCAB = 49408, START = 49406, END = 49407, SPREAD = 14, MAX_ROUNDS = 1000 };
static const double PEAK = 989e12, PRODUCTS_PEAK = 788e12;

struct options {
    const char *config, *backend, *lengths, *activations;
    int64_t batch, tokens, rounds;
    double seconds;
    bool turns, profile, no_savings, no_graphs, no_streams, measure_products, measure;
    bool keeps_profile; /* in OUT/cuda_bench_profiles.txt, if OUT is given */
};

static const struct tower {
    const char *name;
    int embed, patch, width, layers, text_width, text_layers;
} towers[] = {{"ViT-B-32", 512, 32, 768, 12, 512, 12},
              {"ViT-B-16", 512, 16, 768, 12, 512, 12},
              {"ViT-L-14", 768, 14, 1024, 24, 768, 12}};

static void die(const char *what)
{
    fprintf(stderr, "cuda-bench: %s\n", what);
    exit(64);
}

static void must(enum mode_status st, const struct mode_error *err)
{
    if (st == MODE_OK) return;
    fprintf(stderr, "cuda-bench: %s\n", err->text);
    exit(st == MODE_E_DEVICE ? 77 : 1);
}

static struct mode_backend *backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    must(mode_backend_open(&be, name, &err), &err);
    return be;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int64_t n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static struct mode_clip_config config_of(const char *name)
{
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++) {
        const struct tower *t = &towers[i];
        if (strcmp(t->name, name) != 0) continue;
        return (struct mode_clip_config){
            .embed_dim = t->embed,
            .image = {t->width, t->width / 64, t->layers, 4 * t->width, MODE_ACT_GELU, 1e-5f, false, 0},
            .text = {t->text_width, t->text_width / 64, t->text_layers, 4 * t->text_width, MODE_ACT_GELU, 1e-5f, false,
                     0},
            .image_size = 224,
            .patch_size = t->patch,
            .context_length = CONTEXT,
            .vocab_size = VOCAB,
            .image_ln_pre = true,
            .text_causal = true,
            .init_logit_scale = 2.6592600369327779};
    }
    die("--config is none of ViT-B-32, ViT-B-16, ViT-L-14");
    abort();
}

struct inputs {
    float *pixels;        /* [batch, 3, 224, 224], backend memory */
    int32_t *ids, *n_ids; /* one text after another */
    int64_t tokens;
};

/* Of a file of n numbers those of lines i n / batch: all in order, if there are as many. */
static void lengths_from(int32_t *n_ids, int64_t batch, const char *path)
{
    FILE *f = fopen(path, "r");
    int32_t *all = NULL;
    int64_t n = 0, room = 0;
    int got;
    if (!f) die("the file of --lengths cannot be opened");
    for (int32_t x; (got = fscanf(f, "%d", &x)) == 1;) {
        if (x < 2 || x > CONTEXT)
            die("--lengths: expected numbers of tokens from 2 to 77, as `mode tokenize --lengths` prints");
        if (n == room) all = mode_xrealloc(all, (size_t)(room = 2 * room + 1024) * sizeof *all);
        all[n++] = x;
    }
    if (got != EOF || n == 0)
        die("--lengths: expected one number of tokens in each line, as `mode tokenize --lengths` prints");
    for (int64_t i = 0; i < batch; i++) n_ids[i] = all[i * n / batch];
    free(all);
    fclose(f);
}

enum { PICTURE = 3 * 224 * 224 };

static void draw_picture(void *ctx, int64_t i, int thread)
{
    struct mode_rng r = mode_rng_for(1, MODE_RNG_TEST, 1, (uint64_t)i);
    float *x = (float *)ctx + i * PICTURE;
    (void)thread;
    for (int k = 0; k < PICTURE; k++) x[k] = (float)(4 * mode_rng_uniform(&r) - 2);
}

static struct inputs draw(const struct options *o, struct mode_backend *be)
{
    struct mode_rng r = mode_rng_for(1, MODE_RNG_TEST, 0, 0);
    struct mode_error err;
    int64_t at = 0;
    struct inputs in = {NULL, mode_xmalloc((size_t)(o->batch * CONTEXT) * sizeof(int32_t)),
                        mode_xmalloc((size_t)o->batch * sizeof(int32_t)), 0};
    const size_t bytes = (size_t)(o->batch * PICTURE) * sizeof(float);
    float *drawn = mode_xmalloc(bytes);
    void *pixels;
    must(mode_backend_alloc(be, &pixels, bytes, &err), &err);
    mode_parallel_for(o->batch, draw_picture, drawn);
    mode_backend_copy(be, pixels, drawn, bytes);
    free(drawn);
    in.pixels = pixels;
    for (int64_t i = 0; i < o->batch; i++)
        in.n_ids[i] = o->tokens == CONTEXT
                          ? CONTEXT
                          : (int32_t)(o->tokens - SPREAD + (int64_t)mode_rng_below(&r, 2 * SPREAD + 1));
    if (o->lengths) lengths_from(in.n_ids, o->batch, o->lengths);
    for (int64_t i = 0; i < o->batch; i++) {
        in.ids[at++] = START;
        for (int k = 2; k < in.n_ids[i]; k++) in.ids[at++] = (int32_t)mode_rng_below(&r, START);
        in.ids[at++] = END;
    }
    in.tokens = at;
    return in;
}

static void inputs_clear(struct inputs *in, struct mode_backend *be)
{
    mode_backend_free(be, in->pixels);
    free(in->ids);
    free(in->n_ids);
}

static bool turn(const struct options *o)
{
    char line[16];
    return !o->turns || fgets(line, sizeof line, stdin);
}

struct work {
    const struct options *o;
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *params;
    size_t n_params;
    struct mode_adamw_step *now;
    struct inputs in;
    float *features;
    int64_t step;
    double loss;
};

static void step_ops(void *ctx)
{
    struct work *w = ctx;
    struct mode_error err;
    must(mode_clip_train_compute(w->clip, &err), &err);
    mode_adamw_update(w->be, w->params, w->n_params, w->now);
    mode_clip_clamp(w->clip);
}

static void train_step(struct work *w)
{
    struct mode_sequence key;
    static const struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_error err;
    mode_adamw_tell(w->now, &opt, ++w->step);
    must(mode_clip_train_load(w->clip, w->in.pixels, w->in.ids, w->in.n_ids, w->o->batch, &err), &err);
    if (!mode_clip_train_sequence(w->clip, &key)) die("a step that cannot be repeated");
    mode_backend_repeat(w->be, &key, step_ops, w);
    w->loss = mode_clip_train_loss(w->clip);
}

static void encode(struct work *w)
{
    struct mode_error err;
    must(mode_clip_encode_images(w->clip, w->features, w->in.pixels, w->o->batch, 0, &err), &err);
}

static FILE *profiles; /* of runs with keeps_profile, if OUT is given */

static void choose(const struct options *o, struct mode_backend *be)
{
    if (o->measure) mode_backend_measure(be, true);
    if (o->measure_products) mode_backend_measure_products(be, true);
}

/* Rounds of train or encode; a JSON line each, or one table row. */
static void towers_run(const char *subject, const struct options *o, bool lines)
{
    bool train = strcmp(subject, "train") == 0;
    void (*one)(struct work *) = train ? train_step : encode;
    struct mode_clip_config cfg = config_of(o->config);
    struct mode_error err;
    struct mode_backend_sums sums;
    struct mode_backend_repeats repeats;
    double seconds[MAX_ROUNDS];
    int64_t rounds = 0;
    if (o->activations) (void)setenv("MODE_CUDA_ACTIVATIONS", o->activations, 1);
    struct work w = {.o = o, .be = backend(o->backend)};
    if (o->activations) (void)unsetenv("MODE_CUDA_ACTIVATIONS");
    w.in = draw(o, w.be);
    must(mode_clip_create_plain(&w.clip, w.be, &cfg, 1, &err), &err);
    w.features = mode_xmalloc((size_t)(o->batch * cfg.embed_dim) * sizeof(float));
    mode_clip_set_savings(w.clip, o->no_savings, o->no_savings);
    if (train) {
        mode_backend_record(w.be, !o->no_graphs);
        if (o->no_streams) mode_clip_set_branches(w.clip, false);
        must(mode_clip_train_begin(w.clip, o->batch, &err), &err);
        must(mode_adamw_begin(&w.now, w.be, &err), &err);
        w.params = mode_clip_params(w.clip, &w.n_params);
    }
    choose(o, w.be);
    one(&w); /* warm-up: plans, autotuning, memory */
    mode_backend_measure(w.be, false);
    for (int i = 0; i < 2; i++) one(&w);
    for (; rounds < o->rounds && turn(o); rounds++) {
        double t0 = mode_clock_s(), all;
        int64_t times = 0;
        do {
            one(&w);
            times++;
        } while ((all = mode_clock_s() - t0) < o->seconds);
        seconds[rounds] = all / (double)times;
        if (lines)
            printf(
                "{\"subject\":\"%s\",\"items\":%lld,\"unit\":\"pairs\",\"seconds\":%.6f,\"cpu\":%.6f,\"threads\":1}\n",
                subject, (long long)(times * o->batch), all, all);
        fflush(stdout);
    }
    mode_backend_repeats(w.be, &repeats);
    mode_backend_profile(w.be, true);
    one(&w);
    mode_backend_profile_sums(w.be, &sums);
    if (o->profile) mode_backend_profile_print(w.be, stderr);
    if (profiles && o->keeps_profile) {
        fprintf(profiles, "%s %s, batch %lld, %lld tokens per text, %s\n", subject, o->config, (long long)o->batch,
                (long long)o->tokens, o->backend);
        mode_backend_profile_print(w.be, profiles);
        fprintf(profiles, "\n");
        fflush(profiles);
    }
    if (!lines) {
        double s = median(seconds, rounds), busy = sums.products + sums.attention + sums.rest;
        table_row("%s\t%s %lld x %.1f tokens\t%s\t%.2f ms\t%.0f /s\t%.1f TFLOP/s\t%.1f %%\t", subject, o->config,
                  (long long)o->batch, (double)w.in.tokens / (double)o->batch, o->backend, 1e3 * s,
                  (double)o->batch / s, 1e-12 * sums.flops / s, 100 * sums.flops / s / PEAK);
        table_row("%s%s%s%s%s%s; op by op: GEMMs %.0f %%, attention %.0f %%, rest %.0f %%; their sum is %.2f steps\n",
                  repeats.why_not[0] ? repeats.why_not
                  : repeats.replayed ? "graph"
                                     : "no graph",
                  train && !o->no_streams ? ", streams" : "",
                  o->measure            ? ", GEMMs and attention autotuned"
                  : o->measure_products ? ", GEMMs autotuned"
                                        : ", by rule",
                  o->activations ? ", activations " : "", o->activations ? o->activations : "",
                  o->no_savings          ? ", nothing saved"
                  : o->tokens != CONTEXT ? ""
                  : o->lengths || !train ? ""
                                         : ", dense tokens",
                  100 * sums.products / busy, 100 * sums.attention / busy, 100 * sums.rest / busy, busy / s);
    }
    free(w.features);
    inputs_clear(&w.in, w.be);
    mode_clip_close(&w.clip);
    mode_backend_free(w.be, w.now);
    mode_backend_close(&w.be);
}

static void draw_row(void *ctx, int64_t i, int thread)
{
    const struct mode_tensor *x = ctx;
    const int64_t cols = x->dim[1], at = i * cols;
    struct mode_rng r = mode_rng_for(2, MODE_RNG_TEST, (uint64_t)cols, (uint64_t)i);
    (void)thread;
    for (int64_t j = 0; j < cols; j++) {
        float v = (float)(2 * mode_rng_uniform(&r) - 1);
        if (x->dtype == MODE_DTYPE_BF16)
            ((uint16_t *)x->data)[at + j] = mode_f32_to_bf16(v);
        else
            mode_f32(x)[at + j] = v;
    }
}

/* In the type that GEMMs use on this backend, or f32: gradients of parameters. */
static struct mode_tensor random_matrix(struct mode_backend *be, enum mode_dtype dtype, int64_t rows, int64_t cols)
{
    struct mode_error err;
    struct mode_tensor x = mode_tensor_2d(NULL, dtype, rows, cols);
    void *data, *drawn = x.data = mode_xmalloc(mode_tensor_bytes(&x));
    must(mode_backend_alloc(be, &data, mode_tensor_bytes(&x), &err), &err);
    mode_parallel_for(rows, draw_row, &x);
    mode_backend_copy(be, data, drawn, mode_tensor_bytes(&x));
    free(drawn);
    x.data = data;
    return x;
}

/* y = x w^T, the gradient of w, the gradient of x: TFLOP/s of each */
static void gemm(const char *name, const char *backend_name, int64_t m, int64_t n, int64_t k, int64_t rounds)
{
    struct mode_backend *be = backend(backend_name);
    enum mode_dtype stored = mode_backend_activations(be);
    struct mode_tensor x = random_matrix(be, stored, m, k), w = random_matrix(be, stored, n, k),
                       y = random_matrix(be, stored, m, n), dw = random_matrix(be, MODE_DTYPE_F32, n, k),
                       dx = random_matrix(be, stored, m, k);
    mode_backend_narrow(be, true); /* cuda-fp8; except the weights' gradient */
    double t[3][MAX_ROUNDS], flops = 2.0 * (double)m * (double)n * (double)k;
    for (int64_t i = -2; i < rounds; i++) {
        double t0 = mode_clock_s();
        mode_linear(be, &y, &x, &w, NULL);
        mode_backend_sync(be);
        double t1 = mode_clock_s();
        mode_linear_back(be, NULL, &dw, NULL, &y, &x, &w);
        mode_backend_sync(be);
        double t2 = mode_clock_s();
        mode_linear_back(be, &dx, &dw, NULL, &y, &x, &w);
        mode_backend_sync(be);
        double t3 = mode_clock_s();
        if (i < 0) continue;
        t[0][i] = t1 - t0;
        t[1][i] = t2 - t1;
        t[2][i] = t3 - t2;
    }
    double s[3];
    for (int i = 0; i < 3; i++) s[i] = median(t[i], rounds);
    table_row("GEMM\t%s %lld x %lld x %lld\t%s\t%.3f ms\tforward %.0f\tweight gradient %.0f\tboth gradients %.0f "
              "TFLOP/s\n",
              name, (long long)m, (long long)n, (long long)k, backend_name, 1e3 * s[0], 1e-12 * flops / s[0],
              1e-12 * flops / s[1], 2e-12 * flops / s[2]);
    struct mode_tensor *all[] = {&x, &w, &y, &dw, &dx};
    for (int i = 0; i < 5; i++) mode_backend_free(be, all[i]->data);
    mode_backend_close(&be);
}

/* A layer norm over m rows of d elements, forward and backward with a residual's gradient, relative to the bytes they
 * must move. */
static void norm(const char *backend_name, int64_t m, int64_t d, int64_t rounds)
{
    struct mode_backend *be = backend(backend_name);
    const enum mode_dtype act = mode_backend_activations(be);
    struct mode_tensor x = random_matrix(be, act, m, d), y = random_matrix(be, act, m, d),
                       dy = random_matrix(be, act, m, d), dx = random_matrix(be, act, m, d),
                       stats = random_matrix(be, MODE_DTYPE_F32, m, 2), all = random_matrix(be, MODE_DTYPE_F32, 4, d);
    struct mode_tensor row[4]; /* weight, bias, and their gradients */
    double t[2][MAX_ROUNDS];
    for (int i = 0; i < 4; i++) row[i] = mode_tensor_1d(mode_f32(&all) + i * d, MODE_DTYPE_F32, d);
    for (int64_t i = -2; i < rounds; i++)
        for (int k = 0; k < 2; k++) {
            double t0 = mode_clock_s();
            if (k == 0)
                mode_layernorm(be, &y, &stats, &x, &row[0], &row[1], 1e-5f);
            else
                mode_layernorm_back(be, &dx, &row[2], &row[3], &dy, &x, &stats, &row[0], &dx);
            mode_backend_sync(be);
            if (i >= 0) t[k][i] = mode_clock_s() - t0;
        }
    const double bytes = (double)(m * d) * (double)mode_dtype_size(act),
                 s[] = {median(t[0], rounds), median(t[1], rounds)};
    table_row("layernorm\t%lld x %lld\t%s\tforward %.3f ms, %.0f GB/s\tbackward %.3f ms, %.0f GB/s\n", (long long)m,
              (long long)d, backend_name, 1e3 * s[0], 2e-9 * bytes / s[0], 1e3 * s[1], 4e-9 * bytes / s[1]);
    struct mode_tensor *taken[] = {&x, &y, &dy, &dx, &stats, &all};
    for (int i = 0; i < 6; i++) mode_backend_free(be, taken[i]->data);
    mode_backend_close(&be);
}

struct decoded {
    uint8_t *rgb;
    int64_t bytes; /* of each */
};

static void draw_bytes(void *ctx, int64_t i, int thread)
{
    const struct decoded *d = ctx;
    struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, (uint64_t)d->bytes, (uint64_t)i);
    (void)thread;
    for (int64_t j = 0; j < d->bytes; j++) d->rgb[i * d->bytes + j] = (uint8_t)mode_rng_u32(&r);
}

/* Decoded pictures of width x height to the patches of 224 x 224: pictures per second, once in GPU memory. */
static void pixels(const char *backend_name, int width, int height, int64_t rounds)
{
    enum { BATCH = 256, SIDE = 224, PATCH = 32 };
    struct mode_backend *be = backend(backend_name);
    struct mode_taps across, down;
    struct mode_error err;
    must(mode_taps_make(&across, width, 0, width, SIDE, 0, SIDE, MODE_FILTER_BICUBIC, &err), &err);
    must(mode_taps_make(&down, height, 0, height, SIDE, 0, SIDE, MODE_FILTER_BICUBIC, &err), &err);
    const int64_t to_x = BATCH * (int64_t)sizeof(struct mode_pixels_window),
                  to_y = to_x + (int64_t)mode_pixels_taps_bytes(SIDE, across.n_max),
                  rgb = to_y + (int64_t)mode_pixels_taps_bytes(SIDE, down.n_max), each = (int64_t)width * height * 3;
    void *memory;
    must(mode_backend_alloc(be, &memory, (size_t)(rgb + BATCH * each), &err), &err);
    uint8_t *bytes = mode_xmalloc((size_t)(rgb + BATCH * each));
    struct mode_pixels_window *windows = (void *)bytes; /* of all pictures */
    mode_parallel_for(BATCH, draw_bytes, &(struct decoded){bytes + rgb, each});
    mode_pixels_taps((int32_t *)(void *)(bytes + to_x), SIDE, across.n_max, across.first, across.n, across.k, 0);
    mode_pixels_taps((int32_t *)(void *)(bytes + to_y), SIDE, down.n_max, down.first, down.n, down.k, 0);
    for (int64_t i = 0; i < BATCH; i++)
        windows[i] = (struct mode_pixels_window){.rgb = rgb + i * each,
                                                            .across = to_x,
                                                            .down = to_y,
                                                            .width = width,
                                                            .height = height,
                                                            .across_most = across.n_max,
                                                            .down_most = down.n_max,
                                                            .n_x = SIDE,
                                                            .n_y = SIDE};
    mode_backend_copy(be, memory, bytes, (size_t)(rgb + BATCH * each));
    struct mode_tensor levels = random_matrix(be, MODE_DTYPE_F32, 3, 256);
    struct mode_tensor cols = random_matrix(be, mode_backend_activations(be), BATCH * (SIDE / PATCH) * (SIDE / PATCH),
                                            3 * PATCH * PATCH);
    const struct mode_pictures pictures = {
        .windows = windows, .bytes = memory, .n_bytes = (size_t)(rgb + BATCH * each), .levels = mode_f32(&levels)};
    double t[MAX_ROUNDS];
    for (int64_t i = -2; i < rounds; i++) {
        double t0 = mode_clock_s();
        mode_picture_patches(be, &cols, &pictures, 0, SIDE, PATCH);
        mode_backend_sync(be);
        if (i >= 0) t[i] = mode_clock_s() - t0;
    }
    const double s = median(t, rounds);
    table_row("pixels\t%d of %d x %d to %d\t%s\t%.2f ms\t%.0f /s\t%.1f GB/s of bytes read\n", BATCH, width, height,
              SIDE, backend_name, 1e3 * s, BATCH / s, 1e-9 * (double)(BATCH * each) / s);
    mode_taps_clear(&across);
    mode_taps_clear(&down);
    free(bytes);
    mode_backend_free(be, levels.data);
    mode_backend_free(be, cols.data);
    mode_backend_free(be, memory);
    mode_backend_close(&be);
}

/* An iteration of k-means on prepared rows; the last pass is undone, so all do the same work.
 * nearest: MODE_CUDA_NEAREST */
static void kmeans(const char *backend_name, const char *nearest, int64_t n, int64_t k, int64_t d, int64_t rounds)
{
    enum { WORK_BYTES = 16 << 20 }; /* as cluster/nearest.c has it */
    setenv("MODE_CUDA_NEAREST", nearest, 1);
    struct mode_backend *be = backend(backend_name);
    const size_t ready_bytes = mode_nearest_ready_bytes(be, n, d);
    struct mode_error err;
    void *at[8];
    const size_t bytes[] = {(size_t)(n * d) * 4, (size_t)(k * d) * 4, (size_t)(k * d) * 4, WORK_BYTES,
                            ready_bytes,         (size_t)n * 4,       (size_t)(k + 1) * 4, (size_t)n * 4};
    double t[2][MAX_ROUNDS];
    for (int i = 0; i < 8; i++) must(mode_backend_alloc(be, &at[i], bytes[i], &err), &err);
    struct mode_tensor x = mode_tensor_2d(at[0], MODE_DTYPE_F32, n, d), c = mode_tensor_2d(at[1], MODE_DTYPE_F32, k, d),
                       means = mode_tensor_2d(at[2], MODE_DTYPE_F32, k, d),
                       work = mode_tensor_2d(at[3], MODE_DTYPE_F32, WORK_BYTES / 4 / k, k),
                       ready = mode_tensor_1d(at[4], MODE_DTYPE_U8, (int64_t)ready_bytes),
                       id = mode_tensor_1d(at[5], MODE_DTYPE_I32, n),
                       first = mode_tensor_1d(at[6], MODE_DTYPE_I32, k + 1),
                       members = mode_tensor_1d(at[7], MODE_DTYPE_I32, n);
    struct mode_tensor drawn = mode_tensor_2d(mode_xmalloc(bytes[0]), MODE_DTYPE_F32, n, d);
    mode_parallel_for(n, draw_row, &drawn);
    mode_backend_copy(be, x.data, drawn.data, bytes[0]);
    mode_backend_copy(be, c.data, drawn.data, bytes[1]);
    mode_backend_copy(be, means.data, drawn.data, bytes[1]);
    free(drawn.data);
    mode_nearest_ready(be, &ready, &x);
    for (int64_t i = -2; i < rounds; i++) {
        double t0 = mode_clock_s();
        mode_nearest_rows(be, &id, NULL, &work, &x, &ready, &c, false);
        mode_backend_sync(be);
        double t1 = mode_clock_s();
        mode_group_rows(be, &first, &members, &id);
        mode_group_means(be, &means, &x, &first, &members, false);
        mode_backend_sync(be);
        if (i < 0) continue;
        t[0][i] = t1 - t0;
        t[1][i] = mode_clock_s() - t1;
    }
    const double a = median(t[0], rounds), b = median(t[1], rounds), flops = 2.0 * (double)n * (double)k * (double)d;
    table_row(
        "k-means\t%lld x %lld x %lld\t%s, %s\tnearest %.2f ms, groups and means %.2f ms\t%.0f TFLOP/s\t%.1f %% of "
        "%g TFLOP/s\n",
        (long long)n, (long long)k, (long long)d, backend_name, nearest, 1e3 * a, 1e3 * b, 1e-12 * flops / (a + b),
        100 * flops / (a + b) / PRODUCTS_PEAK, 1e-12 * PRODUCTS_PEAK);
    for (int i = 0; i < 8; i++) mode_backend_free(be, at[i]);
    mode_backend_close(&be);
    unsetenv("MODE_CUDA_NEAREST");
}

/* GPU, driver, clocks and power from nvidia-smi, if installed. */
static void clocks(void)
{
    char line[256];
    FILE *f = popen("nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu "
                    "--format=csv,noheader 2>/dev/null",
                    "r");
    if (!f) return;
    while (fgets(line, sizeof line, f)) table_row("clocks\t%s", line);
    pclose(f);
}

static void everything(const char *const *backends)
{
    static const struct {
        const char *name;
        int64_t m, n, k;
    } products[] = {{"square", 8192, 8192, 8192},
                    {"B/32 qkv, batch 1024", 51200, 2304, 768},
                    {"B/32 fc1, batch 1024", 51200, 3072, 768},
                    {"B/32 fc2, batch 1024", 51200, 768, 3072},
                    {"B/32 text fc1, batch 1024", 22528, 2048, 512},
                    {"L/14 fc1, batch 256", 65792, 4096, 1024}};
    static const struct {
        const char *subject, *config;
        int64_t batch, tokens;
    } runs[] = {{"train", "ViT-B-32", 1024, 77},  {"train", "ViT-B-32", 1024, 22}, {"train", "ViT-B-16", 512, 77},
                {"train", "ViT-B-16", 512, 22},   {"train", "ViT-L-14", 128, 77},  {"train", "ViT-L-14", 128, 22},
                {"encode", "ViT-B-32", 1024, 22}, {"encode", "ViT-L-14", 256, 22}};
    static const struct options variants[] = {/* tokens: all texts of that length */
                                          {.measure_products = true},
                                          {.measure_products = true, .no_savings = true, .tokens = CONTEXT},
                                          {0},
                                          {.measure = true},
                                          {.measure_products = true, .activations = "own", .tokens = 22},
                                          {.measure_products = true, .activations = "cudnn", .tokens = 22},
                                          {.no_graphs = true, .tokens = 22},
                                          {.no_streams = true, .tokens = 22}};
    clocks();
    for (int b = 0; backends[b]; b++) {
        struct mode_backend *be;
        struct mode_error err;
        if (mode_backend_open(&be, backends[b], &err)) { /* not supported by this GPU */
            table_row("%s is left out: %s\n", backends[b], err.text);
            continue;
        }
        mode_backend_close(&be);
        pixels(backends[b], 256, 256, 15);
        pixels(backends[b], 500, 375, 15);
        pixels(backends[b], 1024, 768, 15);
        for (size_t i = 0; i < sizeof products / sizeof *products; i++)
            gemm(products[i].name, backends[b], products[i].m, products[i].n, products[i].k, 15);
        norm(backends[b], 51200, 768, 15);  /* B/32, batch 1024 */
        norm(backends[b], 65792, 1024, 15); /* L/14, batch 256 */
        norm(backends[b], 65792, 1280, 15); /* H/14 */
        const bool half = strcmp(backends[b], "cuda-bf16") == 0;
        enum { N_VARIANTS = sizeof variants / sizeof *variants };
        for (int variant = 0; variant < (half ? N_VARIANTS : 1); variant++) {
            for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
                const bool train = strcmp(runs[i].subject, "train") == 0;
                struct options o = variants[variant];
                if (o.tokens && o.tokens != runs[i].tokens) continue;
                o.config = runs[i].config;
                o.backend = backends[b];
                o.batch = runs[i].batch;
                o.tokens = runs[i].tokens;
                o.rounds = half ? 15 : 5;
                o.keeps_profile = variant == 0;
                if (!train) o.measure_products = false; /* encode has no autotuning */
                if (train || variant == 0) towers_run(runs[i].subject, &o, false);
            }
            for (int own = 0; own < 2 && half && variant == 0; own++) /* the same on every backend */
                kmeans(backends[b], own ? "own" : "library", 1 << 19, 1024, 768, 15);
        }
        clocks();
    }
}

static void sweep(struct options o)
{
    const int64_t most = o.batch;
    clocks();
    for (int64_t part = 8; part <= 16; part++) {
        o.batch = most * part / 16;
        if (o.batch >= 2) towers_run("train", &o, false);
    }
    clocks();
}

static void one_subject(int argc, char **argv)
{
    struct options o = {.config = "ViT-B-32", .backend = "cuda", .batch = 256, .tokens = 22, .rounds = 10};
    const char *seconds = "0";
    for (int i = 2; i < argc; i++) {
        const struct {
            const char *name;
            const char **text;
            int64_t *number;
        } known[] = {{"--config", &o.config, NULL},   {"--backend", &o.backend, NULL},
                     {"--lengths", &o.lengths, NULL}, {"--activations", &o.activations, NULL},
                     {"--batch", NULL, &o.batch},     {"--tokens", NULL, &o.tokens},
                     {"--rounds", NULL, &o.rounds},   {"--seconds", &seconds, NULL}};
        size_t k = 0;
        const struct {
            const char *name;
            bool *on;
        } flags[] = {{"--turns", &o.turns},           {"--profile", &o.profile},
                     {"--no-savings", &o.no_savings}, {"--no-graphs", &o.no_graphs},
                     {"--no-streams", &o.no_streams}, {"--measure-products", &o.measure_products},
                     {"--measure", &o.measure}};
        enum { FLAGS = sizeof flags / sizeof *flags };
        size_t flag = 0;
        while (flag < FLAGS && strcmp(argv[i], flags[flag].name) != 0) flag++;
        if (flag < FLAGS) {
            *flags[flag].on = true;
            continue;
        }
        while (k < sizeof known / sizeof *known && strcmp(argv[i], known[k].name) != 0) k++;
        if (k == sizeof known / sizeof *known || i + 1 == argc) die("unknown option, or an option without its value");
        i++;
        if (known[k].text) *known[k].text = argv[i];
        if (known[k].number) *known[k].number = atoll(argv[i]);
    }
    if (o.batch < 2 || o.rounds < 1 || o.rounds > MAX_ROUNDS ||
        (o.tokens != CONTEXT && (o.tokens < SPREAD + 3 || o.tokens > CONTEXT - SPREAD)))
        die("expected --batch of at least 2, --rounds 1 to 1000, --tokens 17 to 63 or 77");
    o.seconds = atof(seconds);
    if (!(o.seconds >= 0)) die("expected --seconds of 0 or more");
    if (strcmp(argv[1], "sweep") == 0)
        sweep(o);
    else
        towers_run(argv[1], &o, true);
}

int main(int argc, char **argv)
{
    static const char *const backends[] = {"cuda-bf16", "cuda-fp8", "cuda-tf32", "cuda", NULL};
    static const char *const subjects[] = {"train", "encode", "sweep", NULL};
    for (int i = 0; argc > 1 && subjects[i]; i++)
        if (strcmp(argv[1], subjects[i]) == 0) {
            one_subject(argc, argv);
            return 0;
        }
    struct mode_backend *gpu = backend("cuda"); /* exits if there is none */
    mode_backend_close(&gpu);
    if (!table_open(argc > 1 ? argv[1] : NULL, "cuda_bench.tsv")) return 1;
    if (argc > 1) profiles = folder_file(argv[1], "cuda_bench_profiles.txt");
    everything(argc > 2 ? (const char *const *)argv + 2 : backends);
    if (profiles) (void)fclose(profiles);
    table_close();
    return 0;
}
