/* GEMMs: cuBLASLt, and cuBLAS where it refuses one.
 *
 * DESIGN: what cuBLASLt needs for a GEMM (descriptors and the algorithm) is a plan, created on first use and cached in
 * a hash table with linear probing: packed texts bring new row counts with every batch, and plans are overwritten when
 * all probed slots are taken. The algorithm is the heuristic's first; when autotuning, the fastest of up to CANDIDATES,
 * timed once for all row counts in a bucket, each run after an L2 flush, because in a step an op's inputs were written
 * long before. Non-deterministic split-K is excluded: partial sums may only be reduced in f32 in the workspace, in a
 * separate step. */
#include "nn/cuda/clock.h"
#include "nn/cuda/fp8.h"

#include "base/str.h"
#include "nn/cuda/cudnn_attention.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/winners.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define LT_CALLS(X)                                                                                                    \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtGetVersion)                                                                                              \
    X(cublasLtMatmul)                                                                                                  \
    X(cublasLtMatmulAlgoCheck)                                                                                         \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)

enum { CANDIDATES = 32, PLANS = 2048, PROBES = 16, TIMED_RUNS = 5 };

static struct {
#define X(name) __typeof__(&name) name;
    LT_CALLS(X)
#undef X
} lt;

struct plan {
    bool used, refused;
    struct mode__product_key key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

struct mode__products {
    cublasLtHandle_t handle; /* NULL: no cuBLASLt */
    bool tf32, measuring;
    int64_t done, refused;
    struct plan plans[PLANS];
    struct mode__winners *winners; /* per bucket of row counts */
};

static bool load_lt(void)
{
    static bool is_loaded;
    if (is_loaded) return true;
    void *lib = mode__cuda_library("libcublasLt");
    if (!lib) return false;
#define X(name)                                                                                                        \
    {                                                                                                                  \
        void *f = dlsym(lib, #name);                                                                                   \
        if (!f) return false;                                                                                          \
        memcpy(&lt.name, &f, sizeof f);                                                                                \
    }
    LT_CALLS(X)
#undef X
    return is_loaded = true;
}

struct mode__products *mode__cuda_products_open(bool tf32)
{
    struct mode__products *p = mode_xcalloc(1, sizeof *p);
    p->tf32 = tf32;
    p->winners = mode__winners_new();
    if (!load_lt()) return p;
    if (lt.cublasLtCreate(&p->handle) != CUBLAS_STATUS_SUCCESS) p->handle = NULL;
    return p;
}

static void plan_clear(struct plan *p)
{
    if (p->desc) (void)lt.cublasLtMatmulDescDestroy(p->desc);
    if (p->a) (void)lt.cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) (void)lt.cublasLtMatrixLayoutDestroy(p->b);
    if (p->c) (void)lt.cublasLtMatrixLayoutDestroy(p->c);
    *p = (struct plan){0};
}

void mode__cuda_products_close(struct mode__products **products)
{
    struct mode__products *p = *products;
    if (!p) return;
    for (int i = 0; i < PLANS; i++) plan_clear(&p->plans[i]);
    if (p->handle) (void)lt.cublasLtDestroy(p->handle);
    mode__winners_free(p->winners);
    free(p);
    *products = NULL;
}

static void forget_plans(struct mode__products *p)
{
    for (int i = 0; i < PLANS; i++) plan_clear(&p->plans[i]);
}

void mode__cuda_products_measure(struct mode__products *p, bool on)
{
    p->measuring = on;
    if (!on) return;
    forget_plans(p); /* so that known shapes are timed too */
    mode__winners_free(p->winners);
    p->winners = mode__winners_new();
}

enum { HEADER = 160 };

/* What a text of algorithms is valid for. */
static void header_of(char header[HEADER], const struct mode_backend *be)
{
    struct cudaDeviceProp d;
    memset(&d, 0, sizeof d);
    (void)cudaGetDeviceProperties(&d, 0);
    snprintf(header, HEADER, "%s, %.64s, %d multiprocessors, cuBLASLt %zu", mode_backend_name(be), d.name,
             d.multiProcessorCount, lt.cublasLtGetVersion ? lt.cublasLtGetVersion() : 0);
}

static const char first_line[] = MODE_ALGORITHMS_FIRST_LINE;

char *mode__cuda_algorithms(struct mode_backend *be)
{
    char header[HEADER];
    struct mode_str text = {0};
    header_of(header, be);
    mode_str_printf(&text, "%s%s\n", first_line, header);
    mode__winners_print(mode__cuda_of(be)->products->winners, &text);
    return text.data;
}

enum mode_status mode__cuda_use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                           struct mode_error *err)
{
    struct mode__products *p = mode__cuda_of(be)->products;
    struct mode__winners *all = mode__winners_new();
    char header[HEADER];
    const bool is_one = strncmp(text, first_line, strlen(first_line)) == 0;
    const char *of = is_one ? text + strlen(first_line) : text, *end = strchr(of, '\n');
    enum mode_status st = MODE_OK;
    if (!is_one || !end)
        st = MODE_FAIL(
            err, MODE_E_FORMAT,
            "this file was not written by `mode train --algorithms`: the first line is \"%.*s\", not \"%.*s\"",
            (int)strcspn(text, "\n") < 40 ? (int)strcspn(text, "\n") : 40, text, (int)strlen(first_line) - 1,
            first_line);
    if (!st) st = mode__winners_parse(all, end + 1, 3, err);
    header_of(header, be);
    const size_t version = !st && mode__winners_cudnn(all) ? mode__attention_cudnn_version(mode__cuda_of(be)->attention)
                                                           : 0;
    why_not[0] = 0;
    if (!st && (strlen(header) != (size_t)(end - of) || strncmp(of, header, strlen(header)) != 0)) {
        snprintf(why_not, size, "they are for %.*s; this is %s", (int)(end - of) < HEADER ? (int)(end - of) : HEADER,
                 of, header);
    } else if (!st && mode__winners_cudnn(all) && mode__winners_cudnn(all) != version) {
        snprintf(why_not, size, "they are for cuDNN %zu; here is %zu", mode__winners_cudnn(all), version);
    } else if (!st) {
        forget_plans(p);
        struct mode__winners *before = p->winners;
        p->winners = all;
        all = before;
    }
    mode__winners_free(all);
    return st;
}

bool mode__products_measuring(const struct mode__products *p)
{
    return p->measuring;
}

const cublasLtMatmulAlgo_t *mode__product_kept(const struct mode__products *p, const struct mode__product_key *k)
{
    return mode__winner(p->winners, k);
}

void mode__product_keep(struct mode__products *p, const struct mode__product_key *k, const cublasLtMatmulAlgo_t *words)
{
    mode__winner_set(p->winners, k, words);
}

int64_t mode__cuda_products_refused(const struct mode__products *p)
{
    return p->refused;
}

int64_t mode__cuda_products_done(const struct mode__products *p)
{
    return p->done;
}

/* The largest power of two up to 256 that divides an address. */
static int32_t alignment(const void *p)
{
    uintptr_t a = (uintptr_t)p | 256;
    return (int32_t)(a & (~a + 1));
}

static struct mode__product_key key_of(const struct mode__product *x)
{
    struct mode__product_key k;
    memset(&k, 0, sizeof k);
    k.m = x->m;
    k.n = x->n;
    k.k = x->k;
    k.a_transposed = x->a_transposed;
    k.b_transposed = x->b_transposed;
    k.bf16 = x->bf16;
    k.c_bf16 = x->c_bf16;
    k.f16 = x->f16;
    k.fp8 = (int32_t)x->fp8;
    k.bias = x->bias ? alignment(x->bias) : 0;
    k.add = !x->add ? 0 : x->add == x->c ? 1 : 2;
    k.align_a = alignment(x->a);
    k.align_b = alignment(x->b);
    k.align_c = alignment(x->add ? x->add : x->c);
    k.align_d = alignment(x->c);
    return k;
}

static struct plan *plan_of(struct mode__products *s, const struct mode__product_key *k)
{
    size_t at = mode__product_hash(k) % PLANS;
    for (size_t i = 0; i < PROBES; i++) {
        struct plan *p = &s->plans[(at + i) % PLANS];
        if (!p->used || memcmp(&p->key, k, sizeof *k) == 0) return p;
    }
    return &s->plans[at];
}

/* Buckets of row counts, which are also the k of weight gradients: they differ by less than an eighth. */
int64_t mode__product_alike(int64_t rows)
{
    int64_t step = 1;
    while (step * 16 <= rows) step *= 2;
    return (rows + step - 1) / step * step;
}

/* Scale pointers of fp8 operands; cuBLASLt's A is our b. */
static bool scales(const struct plan *p, const struct mode__product *x)
{
    return !lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &x->b_scale,
                                              sizeof x->b_scale) &&
           !lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x->a_scale,
                                              sizeof x->a_scale);
}

/* cuBLASLt is column-major: our row-major c [m, n] is c^T [n, m] there, so c^T = op(b)^T op(a)^T: its A is our b. A
 * row-major [r, c] is a column-major [c, r] with leading dimension c; b stored as [k, n] is [n, k] there and used as it
 * is (N); b_transposed, stored as [n, k], is [k, n] there and is transposed (T). The bias has one element per row of
 * c^T, as the epilogue requires. */
static bool describe(struct plan *p, const struct mode__products *s, const struct mode__product *x)
{
    const cudaDataType_t wide = x->f16    ? CUDA_R_16F
                                : x->bf16 ? CUDA_R_16BF
                                          : CUDA_R_32F,
                         out = x->c_bf16 ? CUDA_R_16BF : CUDA_R_32F,
                         in_a = x->fp8 == MODE__FP8_E5M2   ? CUDA_R_8F_E5M2
                                : x->fp8 == MODE__FP8_E4M3 ? CUDA_R_8F_E4M3
                                                           : wide,
                         in_b = x->fp8 ? CUDA_R_8F_E4M3 : wide;
    const cublasComputeType_t how = s->tf32 && !x->bf16 && !x->f16 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasOperation_t op_b = x->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_a = x->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    const uint64_t m = (uint64_t)x->m, n = (uint64_t)x->n, k = (uint64_t)x->k;
    return !lt.cublasLtMatmulDescCreate(&p->desc, how, CUDA_R_32F) && (!x->fp8 || scales(p, x)) &&
           !lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_b, sizeof op_b) &&
           !lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_a, sizeof op_a) &&
           (!x->bias ||
            (!lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias) &&
             !lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias,
                                                sizeof x->bias))) &&
           !(x->b_transposed ? lt.cublasLtMatrixLayoutCreate(&p->a, in_b, k, n, (int64_t)k)
                             : lt.cublasLtMatrixLayoutCreate(&p->a, in_b, n, k, (int64_t)n)) &&
           !(x->a_transposed ? lt.cublasLtMatrixLayoutCreate(&p->b, in_a, m, k, (int64_t)m)
                             : lt.cublasLtMatrixLayoutCreate(&p->b, in_a, k, m, (int64_t)k)) &&
           !lt.cublasLtMatrixLayoutCreate(&p->c, out, n, m, (int64_t)n);
}

/* Up to `most` algorithms, fastest first by the heuristic's estimate; returns how many. */
static int candidates(cublasLtMatmulHeuristicResult_t *results, int most, const struct mode__products *s,
                      const struct plan *p)
{
    const uint64_t workspace = MODE__WORKSPACE;
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t aligned[] = {(uint32_t)p->key.align_b, (uint32_t)p->key.align_a, (uint32_t)p->key.align_c,
                                (uint32_t)p->key.align_d};
    static const cublasLtMatmulPreferenceAttributes_t of[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t preference = NULL;
    int n = 0;
    bool ok = !lt.cublasLtMatmulPreferenceCreate(&preference) &&
              !lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                       sizeof workspace) &&
              !lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums,
                                                       sizeof sums);
    for (int i = 0; i < 4; i++)
        ok = ok && !lt.cublasLtMatmulPreferenceSetAttribute(preference, of[i], &aligned[i], sizeof aligned[i]);
    if (ok &&
        lt.cublasLtMatmulAlgoGetHeuristic(s->handle, p->desc, p->a, p->b, p->c, p->c, preference, most, results, &n))
        n = 0;
    if (preference) (void)lt.cublasLtMatmulPreferenceDestroy(preference);
    int good = 0;
    for (int i = 0; i < n; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS && results[i].workspaceSize <= MODE__WORKSPACE)
            results[good++] = results[i];
    return good;
}

static cublasStatus_t run(const struct mode__products *s, const struct plan *p, const struct mode__product *x, void *to,
                          const cublasLtMatmulAlgo_t *algo, const struct mode__lane *lane)
{
    const float one = 1, beta = x->add ? 1 : 0;
    if (x->bias) {
        cublasStatus_t st = lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias,
                                                              sizeof x->bias);
        if (st) return st;
    }
    if (x->fp8 && !scales(p, x)) return CUBLAS_STATUS_INVALID_VALUE;
    return lt.cublasLtMatmul(s->handle, p->desc, &one, x->b, p->a, x->a, p->b, &beta, x->add ? x->add : to, p->c, to,
                             p->c, algo, lane->workspace, MODE__WORKSPACE, lane->stream);
}

/* For timing: memory for results, a buffer larger than L2 to flush it with, and events. */
struct timing {
    void *to, *l2_flush;
    size_t l2_flush_bytes;
    cudaEvent_t event[2];
};

static bool timing_open(struct timing *t, size_t bytes)
{
    struct cudaDeviceProp d;
    int device = 0;
    memset(&d, 0, sizeof d);
    *t = (struct timing){0};
    if (cudaGetDevice(&device) || cudaGetDeviceProperties(&d, device)) return false;
    t->l2_flush_bytes = 2 * (size_t)d.l2CacheSize;
    if (cudaMalloc(&t->l2_flush, t->l2_flush_bytes)) t->l2_flush = NULL; /* then time with a warm L2 */
    return !cudaMalloc(&t->to, bytes) && !cudaEventCreate(&t->event[0]) && !cudaEventCreate(&t->event[1]);
}

static void timing_close(struct timing *t)
{
    for (int i = 0; i < 2; i++)
        if (t->event[i]) (void)cudaEventDestroy(t->event[i]);
    if (t->to) (void)cudaFree(t->to);
    if (t->l2_flush) (void)cudaFree(t->l2_flush);
    (void)cudaGetLastError(); /* a lack of memory for timing is not an error */
}

/* Milliseconds of TIMED_RUNS runs of an algorithm after a warm-up, fewer once they exceed `most`; 1e30 if it fails.
 * While the device flushes L2 the host enqueues what follows, so the events enclose the GEMM alone. */
static float time_of(const struct mode__products *s, const struct plan *p, const struct mode__product *x,
                     const struct timing *t, const cublasLtMatmulAlgo_t *algo, float most,
                     const struct mode__lane *lane)
{
    float sum = 0, ms = 0;
    if (run(s, p, x, t->to, algo, lane)) return 1e30f;
    for (int i = 0; i < TIMED_RUNS && sum < most; i++) {
        if ((t->l2_flush && cudaMemsetAsync(t->l2_flush, i, t->l2_flush_bytes, lane->stream)) ||
            cudaEventRecord(t->event[0], lane->stream) || run(s, p, x, t->to, algo, lane) ||
            cudaEventRecord(t->event[1], lane->stream) || cudaEventSynchronize(t->event[1]) ||
            cudaEventElapsedTime(&ms, t->event[0], t->event[1]))
            return 1e30f;
        sum += ms;
    }
    return sum;
}

/* The fastest of the candidates; they write to separate memory. */
static int fastest(const struct mode__products *s, const struct plan *p, const struct mode__product *x,
                   const cublasLtMatmulHeuristicResult_t *results, int n, const struct mode__lane *lane)
{
    struct timing timing;
    float best_ms = 1e30f;
    int best = 0;
    bool ok = timing_open(&timing, (size_t)(x->m * x->n) * (x->c_bf16 ? 2 : 4));
    for (int i = 0; ok && i < n; i++) {
        float ms = time_of(s, p, x, &timing, &results[i].algo, best_ms, lane);
        if (ms < best_ms) {
            best_ms = ms;
            best = i;
        }
    }
    timing_close(&timing);
    return best;
}

/* Chooses the plan's algorithm; false: cuBLASLt has none. */
static bool choose(struct plan *p, struct mode__products *s, const struct mode__product *x,
                   const struct mode__lane *lane)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES], checked;
    struct mode__product_key bucket = p->key;
    bucket.m = mode__product_alike(bucket.m);
    if (x->a_transposed) bucket.k = mode__product_alike(bucket.k); /* a weight gradient, whose k is a row count */
    const cublasLtMatmulAlgo_t *known = mode__winner(s->winners, &bucket);
    if (known && !lt.cublasLtMatmulAlgoCheck(s->handle, p->desc, p->a, p->b, p->c, p->c, known, &checked) &&
        checked.workspaceSize <= MODE__WORKSPACE) {
        p->algo = *known;
        return true;
    }
    int n = candidates(results, s->measuring && !known ? CANDIDATES : 1, s, p);
    if (n == 0) return false;
    p->algo = results[n > 1 ? fastest(s, p, x, results, n, lane) : 0].algo;
    if (s->measuring && !known) mode__winner_set(s->winners, &bucket, &p->algo);
    return true;
}

static bool by_lt(struct mode__products *s, const struct mode__product *x, const struct mode__lane *lane)
{
    struct mode__product_key key = key_of(x);
    struct plan *p = plan_of(s, &key);
    if (!s->handle || !lane->workspace) return false;
    if (!p->used || memcmp(&p->key, &key, sizeof key) != 0) {
        plan_clear(p);
        p->used = true;
        p->key = key;
        p->refused = !describe(p, s, x) || !choose(p, s, x, lane);
    }
    if (p->refused) return false;
    if (run(s, p, x, x->c, &p->algo, lane) == CUBLAS_STATUS_SUCCESS) return true;
    if (mode__graphs_failed(cudaErrorStreamCaptureUnsupported)) return true; /* the eager run tries again */
    p->refused = true;
    return false;
}

bool mode__cuda_products_by_lt(const struct mode__products *p)
{
    return p->handle;
}

static bool timed_by_lt(struct mode_backend *be, const struct mode__product *x)
{
    struct mode__cuda *c = mode__cuda_of(be);
    mode__clock_product_begin(be);
    bool done = by_lt(c->products, x, &c->lane[be->lane]);
    mode__clock_product_end(be);
    return done;
}

bool mode__cuda_product_by_lt(struct mode_backend *be, const struct mode__product *x)
{
    struct mode__cuda *c = mode__cuda_of(be);
    if (!timed_by_lt(be, x)) return false;
    c->products->done++;
    return true;
}

void mode__cuda_product(struct mode_backend *be, const struct mode__product *x)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__products *s = c->products;
    MODE_ASSERT(!x->bias || x->bf16 == x->c_bf16);
    if (x->m == 0 || x->n == 0) return;
    if (be->narrow.on && !x->a_transposed && mode__cuda_product_fp8(be, x)) return;
    s->done++;
    if (timed_by_lt(be, x)) return;
    s->refused++;
    if (x->add && x->add != x->c)
        CUDA_OK(cudaMemcpyAsync(x->c, x->add, (size_t)(x->m * x->n) * (x->c_bf16 ? 2 : 4), cudaMemcpyDeviceToDevice,
                                c->stream));
    mode__clock_product_begin(be);
    mode__cuda_gemm(be, x);
    mode__clock_product_end(be);
    if (x->bias) mode__cuda_epilogue(c->stream, x->c_bf16, x->c, x->c, x->m, x->n, x->bias, MODE_ACT_NONE);
}

void mode__cuda_dots(struct mode_backend *be, float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k)
{
    const struct mode__product p = {.c = c, .a = a, .b = b, .b_transposed = true, .m = m, .n = n, .k = k};
    mode__cuda_product(be, &p);
}
