/* cuda-test [--small|--nearest] [OUT] - the cuda backend against the reference on a machine with a GPU; needs no
 * library but CUDA's.
 *
 * Every case of tests/ops on "cuda" against "ref" and on "cuda-bf16" against "ref-bf16"; clustering also on
 * "cuda-tf32", "cuda-fp8" and with our own kernel; linear maps on "cuda-tf32" against "ref" and on "cuda-fp8" against
 * "ref-fp8"; GEMMs with a fused activation by cuDNN; more shapes at the edges of the kernels; NaN, infinities and
 * subnormals; layer norms and updates of bf16 element by element; cases of model size against "ref" on all threads, but
 * clustering and the loss, which would take minutes there, against "cpu" (--small: not these, for the emulator;
 * --nearest: only clustering with our own kernel, for a sanitizer). Every case runs twice and must be bit-identical;
 * GEMMs run again with autotuned algorithms.
 * MODE_CUDA_NEAREST=library: not with our own kernel.
 * Prints a table, and writes it to OUT/cuda_test.tsv: small cases of all backends first, in case the test is cut short.
 * Exits with 1 when anything is off, with 77 when there is no GPU. */
#include "cuda/table.h"
#include "ops/op_cases.h"
#include "ops/oracle.h"

#include "base/clock.h"
#include "base/error.h"
#include "nn/cuda/cudnn_attention.h"
#include "nn/cuda/nearest.h"
#include "nn/cuda/product_act.h"

#include <cuda_runtime_api.h>

/* The code paths of the large cases at sizes that are quick on the reference and the emulator: several blocks per row
 * of the grid, several chunks of a column sum, the widest heads, tails everywhere. */
static const struct op_case small_cases[] = {
    {"linear add", case_linear, {65, 96, 257, MODE_ACT_NONE, 1}, 1e-6},
    {"linear gelu", case_linear, {130, 48, 96, MODE_ACT_GELU, 0}, 1e-6},
    {"linear back act", case_linear_back, {70, 65, 33, 1, 0}, 1e-6},
    {"linear back", case_linear_back, {16900, 3, 5, 0, 0}, 4e-6}, /* chunks of more than 64 rows */
    {"layernorm", case_layernorm, {9, 1664, 0}, 1e-6},
    {"layernorm", case_layernorm, {257, 33, 1}, 1e-6},
    {"attention", case_attention, {9, 50, 3, 64, 0}, 2e-6},
    {"attention", case_attention, {1, 257, 2, 64, 0}, 2e-6},
    {"attention of wide heads", case_attention, {3, 39, 2, 104, 0}, 2e-6},
    {"attention of the widest heads", case_attention, {2, 40, 1, 256, 0}, 2e-6},
    {"attention of many short sequences", case_attention, {40, 3, 2, 8, 0}, 2e-6},
    {"attention causal", case_attention, {1, 130, 2, 64, 1}, 2e-6},
    {"attention of one query", case_attention_one_query, {33, 70, 2, 64, 0}, 2e-6},
    {"embed", case_embed, {33, 7, 129, 50}, 1e-6},
    {"image", case_image, {17, 32, 8, 129}, 1e-6},
    /* rows that are multiples of 16 bytes */
    {"linear add", case_linear, {66, 96, 256, MODE_ACT_NONE, 1}, 1e-6},
    {"linear quick gelu", case_linear, {33, 64, 72, MODE_ACT_QUICK_GELU, 0}, 1e-6},
    {"linear back act", case_linear_back, {70, 64, 32, 1, 0}, 1e-6},
    {"project", case_project, {33, 64, 40}, 1e-6},
    {"layernorm", case_layernorm, {600, 768, 1}, 2e-6},
    {"layernorm", case_layernorm, {2300, 8, 0}, 2e-6},
    {"layernorm", case_layernorm, {70, 1032, 1}, 2e-6},
    /* one, two and sixteen warps per row, full and not; unaligned rows */
    {"layernorm", case_layernorm, {19, 1000, 1}, 2e-6},
    {"layernorm", case_layernorm, {19, 1001, 1, 1}, 2e-6},
    {"layernorm", case_layernorm, {300, 1024, 0}, 2e-6},
    {"layernorm", case_layernorm, {30, 1280, 1}, 2e-6},
    {"layernorm", case_layernorm, {13, 1664, 1, 1}, 2e-6},
    {"layernorm", case_layernorm, {7, 2047, 0, 1}, 2e-6},
    {"layernorm", case_layernorm, {5, 2048, 1}, 2e-6},
    {"layernorm", case_layernorm, {11, 2049, 1}, 2e-6},
    {"layernorm", case_layernorm, {3, 4096, 1}, 2e-6},
    {"layernorm", case_layernorm, {2, 16384, 1}, 2e-6},
    {"layernorm", case_layernorm, {2, 16383, 0}, 2e-6},
    {"image", case_image, {9, 16, 8, 64}, 1e-6},
    /* more pictures than a block loads at a time; patch rows that are even, odd and wide */
    {"image", case_image, {70, 8, 4, 72}, 1e-6},
    {"image", case_image, {131, 4, 2, 33}, 1e-6},
    {"image", case_image, {3, 28, 14, 16}, 1e-6},
    {"image", case_image, {2, 9, 3, 8}, 1e-6},
    {"kept patches", case_kept_patches, {70, 49, 24, 72}, 1e-6},
    {"kept patches", case_kept_patches, {131, 16, 1, 33}, 1e-6},
    {"kept patches", case_kept_patches, {3, 7, 7, 64}, 1e-6},
    /* pictures downscaled by four, with patch widths that are multiples of four and not; the general path */
    {"pictures", case_pictures, {12, 48, 100, 0, 16}, 0},
    {"pictures", case_pictures, {9, 28, 90, 0, 14}, 0},
    {"pictures bilinear", case_pictures, {6, 10, 40, 1, 5}, 0},
    {"gather", case_gather, {131, 2, 64}, 1e-7},
    {"scale", case_scale, {300, 128}, 1e-6},
    {"mean_rows", case_mean_rows, {5, 20, 64, 1}, 1e-6},
    /* a token in many chunks of the sorted rows, in part of one, tokens without rows; keys of several blocks */
    {"embed", case_embed, {300, 9, 40, 3}, 4e-6},
    {"embed", case_embed, {150, 15, 13, 40}, 2e-6},
    {"embed", case_embed, {120, 12, 64, 5000}, 1e-6},
    {"scale", case_scale, {16500, 33}, 2e-6},
    {"mean_rows", case_mean_rows, {9, 50, 300, 1}, 1e-6},
    {"l2norm", case_l2norm, {33, 512}, 1e-6},
    {"contrastive", case_contrastive, {300, 64, 46}, 3e-6},
    {"contrastive", case_contrastive, {257, 33, 27}, 2e-6},
    {"adamw", case_adamw, {200003, 3}, 1e-6},
    {"adamw", case_adamw, {131072, 4, 70}, 1e-6},        /* more than one launch */
    {"group rows", case_group_rows, {300, 13000, 0}, 0}, /* more groups than fit in shared memory */
    {"contrastive", case_contrastive, {1, 1, 60}, 2e-6}, /* a single logit, far below 0 */
};
enum { N_SMALL = sizeof small_cases / sizeof *small_cases };

/* GEMMs in FP8, and two whose sizes allow none. */
static const struct op_case fp8_cases[] = {
    {"linear", case_linear, {16, 16, 16, MODE_ACT_NONE, 0}, 1e-6},
    {"linear add", case_linear, {80, 272, 48, MODE_ACT_NONE, 1}, 1e-6},
    {"linear gelu", case_linear, {144, 64, 96, MODE_ACT_GELU, 0}, 1e-6},
    {"linear quick gelu", case_linear, {320, 256, 512, MODE_ACT_QUICK_GELU, 0}, 1e-6},
    {"linear back", case_linear_back, {176, 80, 48, 0, 0}, 2e-6},
    {"linear back act", case_linear_back, {304, 144, 224, 1, 0}, 2e-6},
    {"linear back", case_linear_back, {48, 32, 64, 0, 1}, 2e-6},
    {"linear gelu", case_linear, {33, 64, 48, MODE_ACT_GELU, 0}, 1e-6},
    {"linear back act", case_linear_back, {64, 40, 32, 1, 0}, 2e-6},
};
enum { N_FP8 = sizeof fp8_cases / sizeof *fp8_cases };

/* GEMMs with a fused activation or its derivative; --small leaves out the last two. */
static const struct op_case act_cases[] = {
    {"linear gelu", case_linear, {130, 48, 96, MODE_ACT_GELU, 0}, 1e-6},
    {"linear quick gelu", case_linear, {33, 64, 72, MODE_ACT_QUICK_GELU, 0}, 1e-6},
    {"linear back act", case_linear_back, {70, 64, 32, MODE_ACT_GELU, 0}, 1e-6},
    {"linear back act", case_linear_back, {131, 144, 88, MODE_ACT_QUICK_GELU, 0}, 2e-6},
    {"linear back act", case_linear_back, {1, 264, 136, MODE_ACT_QUICK_GELU, 0}, 2e-6},
    {"linear gelu", case_linear, {3200, 768, 3072, MODE_ACT_GELU, 0}, 3e-6},
    {"linear back act", case_linear_back, {3201, 3072, 768, MODE_ACT_GELU, 0}, 4e-6},
};
enum { N_ACT = sizeof act_cases / sizeof *act_cases, N_ACT_LARGE = 2 };

/* Shapes of ViT-B/32 and its text tower at batch 64, heads and rows of L/14, single long sums. */
static const struct op_case large_cases[] = {
    {"nearest", case_nearest, {20000, 1024, 768, 0, 8192, 1}, 0},
    {"nearest cosine", case_nearest, {5000, 4096, 768, 1, 2048, 0}, 0},
    {"costs", case_costs, {20000, 1024, 768, 0, 1}, 2e-6},
    {"group means", case_group_means, {20000, 1024, 768, 0, 0}, 0},
    {"linear", case_linear, {3200, 768, 2304, MODE_ACT_NONE, 0}, 3e-6},
    {"linear add", case_linear, {3200, 3072, 768, MODE_ACT_NONE, 1}, 3e-6},
    {"linear gelu", case_linear, {3200, 768, 3072, MODE_ACT_GELU, 0}, 3e-6},
    {"linear quick gelu", case_linear, {1000, 512, 2048, MODE_ACT_QUICK_GELU, 0}, 3e-6},
    {"linear back act", case_linear_back, {3200, 768, 3072, 1, 0}, 4e-6},
    {"linear back", case_linear_back, {12800, 512, 512, 0, 0}, 6e-6},
    {"project", case_project, {64, 768, 512}, 3e-6},
    {"layernorm", case_layernorm, {12800, 768, 1}, 3e-6},
    {"layernorm", case_layernorm, {777, 1664, 0}, 3e-6},
    {"attention", case_attention, {64, 50, 12, 64, 0}, 4e-6},
    {"attention", case_attention, {4, 257, 16, 64, 0}, 4e-6},
    {"attention of wide heads", case_attention, {3, 99, 2, 104, 0}, 4e-6},
    {"attention of the widest heads", case_attention, {2, 40, 1, 256, 0}, 4e-6},
    {"attention causal", case_attention, {64, 77, 8, 64, 1}, 4e-6},
    {"attention of one query", case_attention_one_query, {64, 257, 12, 64, 0}, 4e-6},
    {"embed", case_embed, {256, 77, 512, 49408}, 3e-6},
    {"image", case_image, {64, 224, 32, 768}, 3e-6},
    {"pictures", case_pictures, {100, 224, 600, 0, 32}, 0},
    {"pictures bilinear", case_pictures, {64, 336, 600, 1, 14}, 0},
    {"scale", case_scale, {12800, 1024}, 6e-6},
    {"mean_rows", case_mean_rows, {64, 257, 768, 1}, 3e-6},
    {"l2norm", case_l2norm, {4096, 512}, 3e-6},
    {"contrastive", case_contrastive, {2048, 512, 46}, 2e-5},
    {"contrastive", case_contrastive, {1000, 512, 27}, 1e-5},
    {"adamw", case_adamw, {3000001, 3}, 1e-6},
};
enum { N_LARGE = sizeof large_cases / sizeof *large_cases };

static bool same_bytes(const struct op_run *a, const struct op_run *b)
{
    bool same = memcmp(&a->scalar, &b->scalar, sizeof a->scalar) == 0;
    for (int i = 0; i < a->n_out; i++)
        same &= memcmp(a->out[i].data, b->out[i].data, mode_tensor_bytes(&a->out[i])) == 0;
    return same;
}

/* TF32 has 10 bits of fraction: each of two truncated factors is off by 2^-10 at most. */
static const double TF32 = 2e-3;

static bool is_product(const struct op_case *c)
{
    return c->run == case_linear || c->run == case_linear_back || c->run == case_project;
}

/* Tensor cores truncate the accumulator after each step, so long sums come out small: by 2.4e-9 of their size per
 * product, for random signs and 8 products per step. Among f32 results, gradients of weights show it. */
static double limit_of(const struct op_case *c, const struct op_run *r, int i)
{
    const bool over_rows = c->run == case_linear_back || c->run == case_project;
    const bool cut = mode_backend_activations(r->be) == MODE_DTYPE_BF16 && r->out[i].dtype == MODE_DTYPE_F32 &&
                     over_rows;
    if (strcmp(mode_backend_name(r->be), "cuda-tf32") == 0 && is_product(c)) return TF32;
    return op_tolerance(c, r, i) + (cut ? 4e-9 * (double)c->s[0] : 0);
}

static int check(const struct op_case *c, int number, struct mode_backend *cuda, struct mode_backend *truth)
{
    bool rounded = mode_backend_activations(cuda) == MODE_DTYPE_BF16; /* then inputs are rounded for "cpu", too */
    struct op_run a = op_case_run(c, number, cuda), again = op_case_run(c, number, cuda),
                  b = op_case_run_of(c, number, truth, rounded);
    double share = 0, worst = 0, allowed = c->tolerance; /* of the output with the largest share of its tolerance */
    int64_t at;
    for (int i = 0; i < b.n_out; i++) {
        double d = op_distance(&a.out[i], &b.out[i], &at), limit = limit_of(c, &a, i);
        double used = limit > 0 ? d / limit : d > 0 ? INFINITY : 0;
        if (used < share) continue;
        share = used;
        worst = d;
        allowed = limit;
    }
    bool scalar = fabs(a.scalar - b.scalar) <= 2e-6 * fabs(b.scalar), same = same_bytes(&a, &again);
    bool good = share <= 1 && scalar && same;
    table_row("%s\t%s\t%lld %lld %lld %lld %lld\t%s\t%.2e\t%.1e\t%.0f %%\t%s\t%s\n", mode_backend_name(cuda), c->name,
              (long long)c->s[0], (long long)c->s[1], (long long)c->s[2], (long long)c->s[3], (long long)c->s[4],
              mode_backend_name(truth), worst, allowed, 100 * share, same ? "same bytes" : "BYTES DIFFER",
              good     ? "ok"
              : scalar ? "OFF"
                       : "SCALAR OFF");
    op_run_clear(&a);
    op_run_clear(&again);
    op_run_clear(&b);
    return !good;
}

/* One unit in the last place of bf16 at x. */
static double ulp_of(double x)
{
    int e;
    frexp(x, &e);
    return ldexp(1, e - 8 < -133 ? -133 : e - 8);
}

/* Layer norms are rounded once: no element of y is further than one bf16 ulp from the exact value (plus f32's error
 * where y is near 0), on average three tenths. */
static int check_norm(const struct op_case *c, int number, struct mode_backend *be, struct mode_backend *ref)
{
    struct op_run a = op_case_run(c, number, be), b = op_case_run_of(c, number, ref, true);
    const int64_t n = mode_tensor_count(&b.out[0]);
    double worst = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        const double want = op_number(&b.out[0], i), off = fabs(op_number(&a.out[0], i) - want),
                     ulps = fmax(off - 2e-6, 0) / ulp_of(want);
        if (!isfinite(off) || ulps > worst) worst = isfinite(off) ? ulps : INFINITY;
        all += ulps;
    }
    const bool good = worst <= 1 && (all < 0.3 * (double)n || n < 100);
    table_row("%s\t%s, steps of bf16\t%lld %lld\tref\t%.2f on average\t0.3\t%.0f %%\t\t%s\n", mode_backend_name(be),
              c->name, (long long)c->s[0], (long long)c->s[1], all / (double)n, 100 * worst, good ? "ok" : "OFF");
    op_run_clear(&a);
    op_run_clear(&b);
    return !good;
}

/* An update with bf16 weights is bit-identical to that of f32 masters, and the copy that GEMMs read is the new value
 * rounded. No moment may be subnormal: it would never leave that range. */
static int check_update(const struct op_case *c, int number, struct mode_backend *cuda, struct mode_backend *bf16)
{
    struct op_run a = op_case_run(c, number, bf16), b = op_case_run(c, number, cuda);
    bool good = memcmp(&a.scalar, &b.scalar, sizeof a.scalar) == 0;
    for (int i = 0; i < b.n_out; i++) good &= memcmp(a.out[i].data, b.out[i].data, mode_tensor_bytes(&b.out[i])) == 0;
    for (int k = 1; k <= 2; k++) /* m and v */
        for (int64_t i = 0; i < mode_tensor_count(&b.out[k]); i++)
            good &= fpclassify(mode_f32(&b.out[k])[i]) != FP_SUBNORMAL;
    const uint16_t *copy = a.out[a.n_out - 2].data;
    for (int64_t i = 0; c->s[2] == 0 && i < mode_tensor_count(&b.out[0]); i++) /* s[2] > 0: one is frozen */
        good &= copy[i] == mode_f32_to_bf16(mode_f32(&b.out[0])[i]);
    table_row("%s\t%s, masters\t%lld %lld %lld\tcuda\t\t0\t\t\t%s\n", mode_backend_name(bf16), c->name,
              (long long)c->s[0], (long long)c->s[1], (long long)c->s[2], good ? "ok" : "OFF");
    op_run_clear(&a);
    op_run_clear(&b);
    return !good;
}

/* NaN and infinities propagate; rows and sequences without one are unaffected (within a sequence attention may spread
 * it: 0 times infinity behind a mask). Subnormals are not flushed to 0. */
static const struct op_case special_cases[] = {
    {"linear", case_linear, {33, 64, 48, MODE_ACT_NONE, 0}, 1e-6},
    {"linear add", case_linear, {37, 65, 43, MODE_ACT_NONE, 1}, 1e-6},
    {"linear gelu", case_linear, {65, 48, 40, MODE_ACT_GELU, 0}, 1e-6},
    {"linear back", case_linear_back, {70, 48, 33, 0, 0}, 2e-6},
    {"project", case_project, {33, 64, 40}, 1e-6},
    {"layernorm", case_layernorm, {19, 96, 1}, 2e-6},
    {"layernorm", case_layernorm, {13, 1001, 0, 1}, 2e-6},
    {"attention", case_attention, {3, 50, 2, 64, 0}, 2e-6},
    {"attention", case_attention, {2, 197, 1, 64, 0}, 2e-6},
    {"attention causal", case_attention, {5, 77, 2, 64, 1}, 2e-6},
    {"attention of one query", case_attention_one_query, {5, 50, 2, 64, 0}, 2e-6},
    {"scale", case_scale, {131, 75}, 1e-6},
    {"mean_rows", case_mean_rows, {5, 20, 64, 1}, 1e-6},
    {"gather", case_gather, {131, 2, 64}, 1e-7},
    {"l2norm", case_l2norm, {33, 96}, 1e-6},
};
enum { N_SPECIAL = sizeof special_cases / sizeof *special_cases };

static int check_special(const struct op_case *c, int number, struct mode_backend *cuda, struct mode_backend *truth,
                         enum op_special special)
{
    struct op_run a = op_case_run_with(c, number, cuda, false, special),
                  b = op_case_run_with(c, number, truth, false, special);
    const bool attention = c->run == case_attention || c->run == case_attention_one_query;
    /* subnormals have fewer digits; flushing them would be an error of 6e-2 */
    const double coarse = special != OP_TINY ? 0 : mode_backend_activations(cuda) == MODE_DTYPE_BF16 ? 1e-2 : 1e-5;
    int64_t lost = 0, spread = 0, at;
    double worst = 0, allowed = 0;
    for (int i = 0; i < b.n_out; i++) {
        struct mode_tensor *x = &a.out[i], *y = &b.out[i];
        for (int64_t k = 0; k < mode_tensor_count(y); k++) {
            const bool ours = isfinite(op_number(x, k)), theirs = isfinite(op_number(y, k));
            lost += ours && !theirs;
            spread += !ours && theirs;
            if (ours && theirs) continue; /* non-finite: both set to 0, so that the distance is of the others */
            memset((char *)x->data + (size_t)k * mode_dtype_size(x->dtype), 0, mode_dtype_size(x->dtype));
            memset((char *)y->data + (size_t)k * mode_dtype_size(y->dtype), 0, mode_dtype_size(y->dtype));
        }
        const double d = op_distance(x, y, &at), limit = limit_of(c, &a, i) + coarse;
        if (d / limit < worst / (allowed > 0 ? allowed : 1)) continue;
        worst = d;
        allowed = limit;
    }
    const bool good = lost == 0 && (spread == 0 || attention) && worst <= allowed;
    table_row("%s\t%s, %s\t%lld %lld %lld\t%s\t%.2e\t%.1e\t%lld lost, %lld spread\t\t%s\n", mode_backend_name(cuda),
              c->name, special == OP_TINY ? "subnormal" : "no numbers", (long long)c->s[0], (long long)c->s[1],
              (long long)c->s[2], mode_backend_name(truth), worst, allowed, (long long)lost, (long long)spread,
              good ? "ok" : "OFF");
    op_run_clear(&a);
    op_run_clear(&b);
    return !good;
}

/* Activations of every bf16 value, rounded once: half an ulp, plus the error of the functions and arithmetic of f32. */
static int check_activations(struct mode_backend *be)
{
    enum { N = 256, ONES = 16 };
    int bad = 0;
    for (int act = MODE_ACT_GELU; act <= MODE_ACT_TANH; act++) {
        struct op_run r = {.be = be, .rng = mode_rng_for(7, MODE_RNG_TEST, 1, (uint64_t)act)};
        struct mode_tensor z = acts(&r, N, N), y = acts(&r, N, N), slope = acts(&r, N, N), dw = mat(&r, ONES, N);
        struct mode_tensor one = acts(&r, N, ONES), ones = acts(&r, ONES, N); /* one ones^T is 1 everywhere */
        double worst = 0, ulps = 0, normal = 0;
        uint16_t *z_here = op_host(&r, z.data), *one_here = op_host(&r, one.data), *ones_here = op_host(&r, ones.data);
        const struct mode_tensor y_here = op_seen(&r, &y), slope_here = op_seen(&r, &slope);
        for (int i = 0; i < N * N; i++) {
            float x = mode_bf16_to_f32((uint16_t)i);
            bool left_out = !isfinite(x) || (act != MODE_ACT_GELU && act != MODE_ACT_QUICK_GELU && fabsf(x) > 1e4f);
            z_here[i] = left_out ? 0 : (uint16_t)i;
        }
        for (int i = 0; i < N * ONES; i++) {
            one_here[i] = mode_f32_to_bf16(i % ONES == 0);
            ones_here[i] = mode_f32_to_bf16(i < N);
        }
        op_send(&r);
        mode_activate(be, &y, &z, (enum mode_act)act);
        mode_linear_back_act(be, &slope, &dw, NULL, &one, &y, &ones, &z, (enum mode_act)act);
        op_fetch(&r);
        for (int i = 0; i < N * N; i++) {
            double x = mode_bf16_to_f32(z_here[i]), phi = 0.5 * erfc(-x * M_SQRT1_2), want = x * phi,
                   d = phi + x * exp(-0.5 * x * x) / sqrt(2 * M_PI), least = 1e-36;
            if (act == MODE_ACT_QUICK_GELU) {
                double s = 1 / (1 + exp(-1.702 * x));
                want = x * s;
                d = s + x * 1.702 * s * (1 - s);
            } else if (act != MODE_ACT_GELU) { /* cancellation in 1 + tanh */
                bool alone = act == MODE_ACT_TANH;
                double u = 1 + 3 * 0.044715 * x * x, t = tanh(alone ? x : sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
                want = alone ? t : 0.5 * x * (1 + t);
                d = alone ? 1 - t * t : 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / M_PI) * u;
                least = 4e-7 * fmax(1, fabs(x));
            }
            double off = fabs(op_number(&y_here, i) - want) / (0.00392 * fabs(want) + least),
                   off_d = fabs(op_number(&slope_here, i) - d) /
                           (0.00392 * fabs(d) + 4e-7 * fmax(1, fmin(fabs(x), 100)));
            if (fabs(x) > 0.01 && fabs(x) < 10 && ulp_of(want) > 10 * least) {
                ulps += fabs(op_number(&y_here, i) - want) / ulp_of(want);
                normal++;
            }
            if (!(off <= worst)) worst = off; /* NaN is worst */
            if (!(off_d <= worst)) worst = off_d;
        }
        const bool good = worst <= 1 && ulps < 0.3 * normal;
        table_row("%s\tactivation %d of every bf16 number\t\tdouble\t%.2f ulp on average\t0.3\t%.0f %%\t\t%s\n",
                  mode_backend_name(be), act, ulps / normal, 100 * worst, good ? "ok" : "OFF");
        bad += !good;
        op_run_clear(&r);
    }
    return bad;
}

/* With cuDNN forced by name; returns how many cases are off. Without cuDNN, says so. */
static int check_products_by_cudnn(struct mode_backend *ref, struct mode_backend *cpu, bool small, int *n)
{
    struct mode_backend *be;
    struct mode_error err;
    int bad = 0;
    long failed, by_cudnn;
    setenv("MODE_CUDA_ACTIVATIONS", "cudnn", 1);
    enum mode_status st = mode_backend_open(&be, "cuda-bf16", &err);
    unsetenv("MODE_CUDA_ACTIVATIONS");
    if (st) return 1;
    if (!mode__attention_cudnn(mode__cuda_of(be)->attention)) {
        table_row("products that end with an activation are left out: there is no cuDNN\n");
        mode_backend_close(&be);
        return 0;
    }
    for (int i = 0; i < N_ACT - (small ? N_ACT_LARGE : 0); i++, ++*n)
        bad += check(&act_cases[i], i, be, i < N_ACT - N_ACT_LARGE ? ref : cpu);
    by_cudnn = mode__product_ways_by_cudnn(be, &failed);
    table_row("products by cuDNN: %ld, plans that failed: %ld\t%s\n", by_cudnn, failed, failed ? "OFF" : "ok");
    mode__product_ways_note(be, stdout);
    mode_backend_close(&be);
    return bad + (failed != 0 || by_cudnn == 0);
}

/* With default and with autotuned algorithms; returns how many cases are off. A GPU without FP8 GEMMs is reported. */
static int check_fp8(int *n)
{
    struct mode_backend *cuda, *ref;
    struct mode_error err;
    int bad = 0;
    enum mode_status st = mode_backend_open(&cuda, "cuda-fp8", &err);
    if (st == MODE_E_DEVICE) {
        table_row("cuda-fp8 is left out: %s\n", err.text);
        return 0;
    }
    if (st || mode_backend_open(&ref, "ref-fp8", &err)) return 1;
    mode_backend_narrow(cuda, true);
    mode_backend_narrow(ref, true);
    mode_backend_profile(cuda, true);
    for (int measured = 0; measured < 2; measured++) {
        mode_backend_measure(cuda, measured);
        for (int i = 0; i < N_FP8; i++, ++*n) bad += check(&fp8_cases[i], i, cuda, ref);
    }
    mode_backend_profile_print(cuda, stdout);
    mode_backend_close(&cuda);
    mode_backend_close(&ref);
    return bad;
}

/* GEMMs in TF32; returns how many cases are off. */
static int check_tf32(struct mode_backend *ref, int *n)
{
    struct mode_backend *cuda;
    struct mode_error err;
    int bad = 0;
    if (mode_backend_open(&cuda, "cuda-tf32", &err)) return 1;
    for (int i = 0; i < N_OP_CASES; i++)
        if (is_product(&op_cases[i])) bad += check(&op_cases[i], i, cuda, ref), ++*n;
    mode_backend_close(&cuda);
    return bad;
}

/* Clustering on a backend; returns how many cases are off. */
static int check_clustering(const char *name, struct mode_backend *ref, int *n)
{
    struct mode_backend *cuda;
    struct mode_error err;
    int bad = 0;
    enum mode_status st = mode_backend_open(&cuda, name, &err);
    if (st == MODE_E_DEVICE) return 0; /* check_fp8 says why */
    if (st) return 1;
    for (int i = 0; i < N_OP_CASES; i++)
        if (strncmp(op_cases[i].name, "nearest", 7) == 0 || strncmp(op_cases[i].name, "group", 5) == 0)
            bad += check(&op_cases[i], i, cuda, ref), ++*n;
    mode_backend_close(&cuda);
    return bad;
}

/* The same with our own kernel for nearest centres; a GPU that cannot run it is reported. */
static int check_own_nearest(struct mode_backend *cuda, struct mode_backend *ref, int *n)
{
    int major, minor;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    if (major != 9 || minor != 0) {
        table_row("our own kernel for nearest centres is left out: it is for compute capability 9.0, this is %d.%d\n",
                  major, minor);
        return 0;
    }
    setenv("MODE_CUDA_NEAREST", "own", 1);
    ++*n;
    if (!mode__cuda_nearest_by_tiles(cuda, 1)) {
        table_row("our own kernel for nearest centres has not proven itself\n");
        return 1;
    }
    return check_clustering("cuda", ref, n);
}

/* Small cases of f32 and bf16; returns how many are off. */
static int check_cases(struct mode_backend *cuda, struct mode_backend *bf16, struct mode_backend *ref,
                       struct mode_backend *ref_bf16, int *n)
{
    int bad = 0;
    for (int half = 0; half < 2; half++) {
        struct mode_backend *be = half ? bf16 : cuda, *truth = half ? ref_bf16 : ref;
        for (int i = 0; i < N_OP_CASES; i++, ++*n) bad += check(&op_cases[i], i, be, truth);
        for (int i = 0; i < N_SMALL; i++, ++*n) bad += check(&small_cases[i], N_OP_CASES + i, be, truth);
        for (int i = 0; i < N_SPECIAL; i++)
            for (int what = OP_NO_NUMBERS; what <= OP_TINY; what++, ++*n)
                bad += check_special(&special_cases[i], i, be, truth, (enum op_special)what);
        mode_backend_profile(be, true);
        mode_backend_measure(be, true);
        for (int i = 0; i < N_OP_CASES; i++)
            if (strncmp(op_cases[i].name, "linear", 6) == 0) bad += check(&op_cases[i], i, be, truth), ++*n;
        mode_backend_measure(be, false);
        mode_backend_profile_print(be, stdout);
        mode_backend_profile(be, false);
    }
    bad += check_activations(bf16);
    *n += MODE_ACT_TANH;
    for (int i = 0; i < N_OP_CASES; i++) {
        if (op_cases[i].run == case_layernorm) bad += check_norm(&op_cases[i], i, bf16, ref), ++*n;
        if (op_cases[i].run == case_adamw) bad += check_update(&op_cases[i], i, cuda, bf16), ++*n;
    }
    for (int i = 0; i < N_SMALL; i++)
        if (small_cases[i].run == case_layernorm) bad += check_norm(&small_cases[i], i, bf16, ref), ++*n;
    return bad;
}

/* Cases of model size. */
static int check_large(struct mode_backend *cuda, struct mode_backend *bf16, struct mode_backend *cpu, int *n)
{
    struct mode_backend *ref = oracle_open("ref");
    int bad = 0;
    for (int i = 0; i < N_LARGE; i++, *n += 2) {
        const struct op_case *c = &large_cases[i];
        const bool long_in_ref = c->run == case_nearest || c->run == case_costs || c->run == case_contrastive;
        bad += check(c, i, cuda, long_in_ref ? cpu : ref) + check(c, i, bf16, long_in_ref ? cpu : ref);
    }
    mode_backend_close(&ref);
    return bad;
}

int main(int argc, char **argv)
{
    struct mode_backend *cuda, *bf16, *ref, *ref_bf16, *cpu;
    struct mode_error err;
    const bool only_nearest = argc > 1 && strcmp(argv[1], "--nearest") == 0,
               small = only_nearest || (argc > 1 && strcmp(argv[1], "--small") == 0);
    const char *nearest = getenv("MODE_CUDA_NEAREST");
    const bool by_own = !nearest || strcmp(nearest, "library") != 0;
    setenv("MODE_CUDA_NEAREST", "library", 1);
    const char *folder = argc > 1 + small ? argv[1 + small] : NULL;
    int bad = 0, n = 0;
    enum mode_status st = mode_backend_open(&cuda, "cuda", &err);
    if (st) {
        fprintf(stderr, "cuda-test: %s\n", err.text);
        return st == MODE_E_DEVICE ? 77 : 1;
    }
    if (mode_backend_open(&bf16, "cuda-bf16", &err) || mode_backend_open(&ref, "ref", &err) ||
        mode_backend_open(&ref_bf16, "ref-bf16", &err) || mode_backend_open(&cpu, "cpu", &err)) {
        fprintf(stderr, "cuda-test: %s\n", err.text);
        return 1;
    }
    if (!table_open(folder, "cuda_test.tsv")) return 1;
    double t0 = mode_clock_s();
    table_row("backend\tcase\tshape\tagainst\tdistance\tallowed\tused\ttwice\tverdict\n");
    if (!only_nearest) bad += check_cases(cuda, bf16, ref, ref_bf16, &n) + check_tf32(ref, &n);
    if (!only_nearest) bad += check_clustering("cuda-tf32", ref, &n) + check_clustering("cuda-fp8", ref, &n);
    if (!only_nearest) bad += check_fp8(&n) + check_products_by_cudnn(ref_bf16, cpu, small, &n);
    if (!small) bad += check_large(cuda, bf16, cpu, &n);
    if (by_own) bad += check_own_nearest(cuda, ref, &n); /* last: a fault in it would lose the results of the rest */
    table_row("%d of %d cases are off; %.1f s\n", bad, n, mode_clock_s() - t0);
    table_close();
    mode_backend_close(&cuda);
    mode_backend_close(&bf16);
    mode_backend_close(&ref);
    mode_backend_close(&ref_bf16);
    mode_backend_close(&cpu);
    return bad > 0;
}
