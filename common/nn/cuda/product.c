/* Matrix products: cuBLASLt, and cuBLAS where it refuses one.
 *
 * DESIGN: what cuBLASLt needs for a product (descriptors and the algorithm) is a plan, made when a product is first met
 * and kept in a table, at the place its shape hashes to or one of the next: packed texts bring new row counts with
 * every batch, old ones are overwritten when these are taken. The algorithm is the first that the heuristic names; when
 * measuring is on, the fastest of up to CANDIDATES, timed once for all row counts that are alike, each run with the
 * cache full of something else, as it is in a step, where what an op reads was written long before. Algorithms that add
 * up parts of k in an order which is not fixed are left out: parts may only be added in f32 in the workspace, in a step
 * of its own. */
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
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

struct mode__products {
    cublasLtHandle_t handle; /* NULL: there is no cuBLASLt */
    bool tf32, measuring;
    int64_t done, refused;
    struct plan plans[PLANS];
    struct mode__winners *winners; /* for row counts that are alike */
};

static bool load_lt(void)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", NULL};
    static bool is_loaded;
    void *lib = NULL;
    if (is_loaded) return true;
    for (int i = 0; names[i] && !lib; i++) lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
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
    if (p->what) (void)lt.cublasLtMatmulDescDestroy(p->what);
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
    forget_plans(p); /* also what was met before is timed */
    mode__winners_free(p->winners);
    p->winners = mode__winners_new();
}

enum { HEAD = 160 };

/* What a text of algorithms is good for. */
static void head_of(char head[HEAD], const struct mode_backend *be)
{
    struct cudaDeviceProp d;
    memset(&d, 0, sizeof d);
    (void)cudaGetDeviceProperties(&d, 0);
    snprintf(head, HEAD, "%s, %.64s, %d multiprocessors, cuBLASLt %zu", mode_backend_name(be), d.name,
             d.multiProcessorCount, lt.cublasLtGetVersion ? lt.cublasLtGetVersion() : 0);
}

static const char first_line[] = MODE_ALGORITHMS_FIRST_LINE;

char *mode__cuda_algorithms(struct mode_backend *be)
{
    char head[HEAD];
    struct mode_str text = {0};
    head_of(head, be);
    mode_str_printf(&text, "%s%s\n", first_line, head);
    mode__winners_print(mode__cuda_of(be)->products->winners, &text);
    return text.data;
}

enum mode_status mode__cuda_use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                           struct mode_error *err)
{
    struct mode__products *p = mode__cuda_of(be)->products;
    struct mode__winners *all = mode__winners_new();
    char head[HEAD];
    const bool is_one = strncmp(text, first_line, strlen(first_line)) == 0;
    const char *of = is_one ? text + strlen(first_line) : text, *end = strchr(of, '\n');
    enum mode_status st = MODE_OK;
    if (!is_one || !end)
        st = MODE_FAIL(
            err, MODE_E_FORMAT,
            "these are no algorithms that `mode train --algorithms` kept: the first line is \"%.*s\", not \"%.*s\"",
            (int)strcspn(text, "\n") < 40 ? (int)strcspn(text, "\n") : 40, text, (int)strlen(first_line) - 1,
            first_line);
    if (!st) st = mode__winners_parse(all, end + 1, 3, err);
    head_of(head, be);
    const size_t version = !st && mode__winners_cudnn(all) ? mode__attention_cudnn_version(mode__cuda_of(be)->attention)
                                                           : 0;
    why_not[0] = 0;
    if (!st && (strlen(head) != (size_t)(end - of) || strncmp(of, head, strlen(head)) != 0)) {
        snprintf(why_not, size, "they are for %.*s; this is %s", (int)(end - of) < HEAD ? (int)(end - of) : HEAD, of,
                 head);
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
    k.a_turned = x->a_turned;
    k.b_turned = x->b_turned;
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

/* Rows, and sums over rows, that differ by less than an eighth are alike. */
int64_t mode__product_alike(int64_t rows)
{
    int64_t step = 1;
    while (step * 16 <= rows) step *= 2;
    return (rows + step - 1) / step * step;
}

/* Where the numbers lie by which 8-bit operands are multiplied; b comes first there. */
static bool scales(const struct plan *p, const struct mode__product *x)
{
    return !lt.cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &x->b_scale,
                                              sizeof x->b_scale) &&
           !lt.cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x->a_scale,
                                              sizeof x->a_scale);
}

/* cuBLASLt counts columns first: there our row-major c [m, n] is its transpose [n, m], so c^T = op(b)^T op(a)^T: b
 * comes first. A row-major [r, c] is a column-major [c, r] with leading dimension c; b that is not turned lies as [k,
 * n], is [n, k] there and taken as it is (N); turned it lies as [n, k], is [k, n] there and is transposed (T). The bias
 * has one number for each row of c^T, as the epilogue wants it. */
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
    const cublasOperation_t op_b = x->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_a = x->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    const uint64_t m = (uint64_t)x->m, n = (uint64_t)x->n, k = (uint64_t)x->k;
    return !lt.cublasLtMatmulDescCreate(&p->what, how, CUDA_R_32F) && (!x->fp8 || scales(p, x)) &&
           !lt.cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_TRANSA, &op_b, sizeof op_b) &&
           !lt.cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_TRANSB, &op_a, sizeof op_a) &&
           (!x->bias ||
            (!lt.cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias) &&
             !lt.cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias,
                                                sizeof x->bias))) &&
           !(x->b_turned ? lt.cublasLtMatrixLayoutCreate(&p->a, in_b, k, n, (int64_t)k)
                         : lt.cublasLtMatrixLayoutCreate(&p->a, in_b, n, k, (int64_t)n)) &&
           !(x->a_turned ? lt.cublasLtMatrixLayoutCreate(&p->b, in_a, m, k, (int64_t)m)
                         : lt.cublasLtMatrixLayoutCreate(&p->b, in_a, k, m, (int64_t)k)) &&
           !lt.cublasLtMatrixLayoutCreate(&p->c, out, n, m, (int64_t)n);
}

/* Up to `most` algorithms, the likely fastest first; how many. */
static int candidates(cublasLtMatmulHeuristicResult_t *found, int most, const struct mode__products *s,
                      const struct plan *p)
{
    const uint64_t workspace = MODE__WORKSPACE;
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t aligned[] = {(uint32_t)p->key.align_b, (uint32_t)p->key.align_a, (uint32_t)p->key.align_c,
                                (uint32_t)p->key.align_d};
    static const cublasLtMatmulPreferenceAttributes_t of[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t want = NULL;
    int n = 0;
    bool ok = !lt.cublasLtMatmulPreferenceCreate(&want) &&
              !lt.cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                       sizeof workspace) &&
              !lt.cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums,
                                                       sizeof sums);
    for (int i = 0; i < 4; i++)
        ok = ok && !lt.cublasLtMatmulPreferenceSetAttribute(want, of[i], &aligned[i], sizeof aligned[i]);
    if (ok && lt.cublasLtMatmulAlgoGetHeuristic(s->handle, p->what, p->a, p->b, p->c, p->c, want, most, found, &n))
        n = 0;
    if (want) (void)lt.cublasLtMatmulPreferenceDestroy(want);
    int good = 0;
    for (int i = 0; i < n; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS && found[i].workspaceSize <= MODE__WORKSPACE)
            found[good++] = found[i];
    return good;
}

static cublasStatus_t run(const struct mode__products *s, const struct plan *p, const struct mode__product *x, void *to,
                          const cublasLtMatmulAlgo_t *algo, const struct mode__lane *lane)
{
    const float one = 1, beta = x->add ? 1 : 0;
    if (x->bias) {
        cublasStatus_t st = lt.cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias,
                                                              sizeof x->bias);
        if (st) return st;
    }
    if (x->fp8 && !scales(p, x)) return CUBLAS_STATUS_INVALID_VALUE;
    return lt.cublasLtMatmul(s->handle, p->what, &one, x->b, p->a, x->a, p->b, &beta, x->add ? x->add : to, p->c, to,
                             p->c, algo, lane->workspace, MODE__WORKSPACE, lane->stream);
}

/* What a race takes: memory for the results, and more than the cache holds, to be written between the runs. */
struct track {
    void *to, *flood;
    size_t flood_bytes;
    cudaEvent_t mark[2];
};

static bool track_open(struct track *t, size_t bytes)
{
    struct cudaDeviceProp d;
    int device = 0;
    memset(&d, 0, sizeof d);
    *t = (struct track){0};
    if (cudaGetDevice(&device) || cudaGetDeviceProperties(&d, device)) return false;
    t->flood_bytes = 2 * (size_t)d.l2CacheSize;
    if (cudaMalloc(&t->flood, t->flood_bytes)) t->flood = NULL; /* rather a race in a warm cache than none */
    return !cudaMalloc(&t->to, bytes) && !cudaEventCreate(&t->mark[0]) && !cudaEventCreate(&t->mark[1]);
}

static void track_close(struct track *t)
{
    for (int i = 0; i < 2; i++)
        if (t->mark[i]) (void)cudaEventDestroy(t->mark[i]);
    if (t->to) (void)cudaFree(t->to);
    if (t->flood) (void)cudaFree(t->flood);
    (void)cudaGetLastError(); /* no memory for measuring is no error */
}

/* Milliseconds of TIMED_RUNS runs of an algorithm, after one that does not count, or of fewer that took `most` already;
 * infinite when it fails. While the device writes the flood the host hands over what follows it, so the time between
 * the marks is the product's alone. */
static float time_of(const struct mode__products *s, const struct plan *p, const struct mode__product *x,
                     const struct track *t, const cublasLtMatmulAlgo_t *algo, float most, const struct mode__lane *lane)
{
    float sum = 0, ms = 0;
    if (run(s, p, x, t->to, algo, lane)) return 1e30f;
    for (int i = 0; i < TIMED_RUNS && sum < most; i++) {
        if ((t->flood && cudaMemsetAsync(t->flood, i, t->flood_bytes, lane->stream)) ||
            cudaEventRecord(t->mark[0], lane->stream) || run(s, p, x, t->to, algo, lane) ||
            cudaEventRecord(t->mark[1], lane->stream) || cudaEventSynchronize(t->mark[1]) ||
            cudaEventElapsedTime(&ms, t->mark[0], t->mark[1]))
            return 1e30f;
        sum += ms;
    }
    return sum;
}

/* The fastest of the candidates, found by running them into memory of their own. */
static int fastest(const struct mode__products *s, const struct plan *p, const struct mode__product *x,
                   const cublasLtMatmulHeuristicResult_t *found, int n, const struct mode__lane *lane)
{
    struct track track;
    float best_ms = 1e30f;
    int best = 0;
    bool ok = track_open(&track, (size_t)(x->m * x->n) * (x->c_bf16 ? 2 : 4));
    for (int i = 0; ok && i < n; i++) {
        float ms = time_of(s, p, x, &track, &found[i].algo, best_ms, lane);
        if (ms < best_ms) {
            best_ms = ms;
            best = i;
        }
    }
    track_close(&track);
    return best;
}

/* The plan's algorithm; false: cuBLASLt has none. */
static bool choose(struct plan *p, struct mode__products *s, const struct mode__product *x,
                   const struct mode__lane *lane)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES], checked;
    struct mode__product_key like = p->key;
    like.m = mode__product_alike(like.m);
    if (x->a_turned) like.k = mode__product_alike(like.k); /* k counts rows where gradients of weights are made */
    const cublasLtMatmulAlgo_t *known = mode__winner(s->winners, &like);
    if (known && !lt.cublasLtMatmulAlgoCheck(s->handle, p->what, p->a, p->b, p->c, p->c, known, &checked) &&
        checked.workspaceSize <= MODE__WORKSPACE) {
        p->algo = *known;
        return true;
    }
    int n = candidates(found, s->measuring && !known ? CANDIDATES : 1, s, p);
    if (n == 0) return false;
    p->algo = found[n > 1 ? fastest(s, p, x, found, n, lane) : 0].algo;
    if (s->measuring && !known) mode__winner_set(s->winners, &like, &p->algo);
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
    if (mode__graphs_failed(cudaErrorStreamCaptureUnsupported)) return true; /* nothing runs now; asked again later */
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
    if (be->narrow.on && !x->a_turned && mode__cuda_product_fp8(be, x)) return;
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
    const struct mode__product p = {.c = c, .a = a, .b = b, .b_turned = true, .m = m, .n = n, .k = k};
    mode__cuda_product(be, &p);
}
