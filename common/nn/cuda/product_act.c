#include "nn/cuda/product_act.h"

#include "base/str.h"
#include "nn/cuda/clock.h"
#include "nn/cuda/cudnn.h"
#include "nn/cuda/cudnn_attention.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/product_graph.h"
#include "nn/cuda/winners.h"

#include <stdlib.h>
#include <string.h>

enum {
    CANDIDATES = 3,  /* of cuDNN's that are timed: each takes a second or two to compile */
    FEW_ROWS = 2048, /* below this the gain is not worth it */
    TIMED_RUNS = 3
};
enum policy { BY_RULE, ALWAYS_OWN, ALWAYS_CUDNN };

/* A known shape that is not ours by default, and its implementation: plan NULL means ours. */
struct way {
    struct mode__product_shape s;
    struct mode__cudnn_plan *plan;
    long runs;
    char why[160];
};

struct mode__product_ways {
    enum policy policy;
    struct way *way;
    int n;
    long by_cudnn, failed; /* GEMMs; plans that could not be created or run */
};

struct mode__product_ways *mode__product_ways_open(void)
{
    const char *v = getenv("MODE_CUDA_ACTIVATIONS");
    struct mode__product_ways *w = mode_xcalloc(1, sizeof *w);
    if (v && strcmp(v, "own") == 0) w->policy = ALWAYS_OWN;
    if (v && strcmp(v, "cudnn") == 0) w->policy = ALWAYS_CUDNN;
    return w;
}

static struct mode__cudnn *cudnn_of(const struct mode_backend *be)
{
    return mode__attention_cudnn(mode__cuda_of(be)->attention);
}

void mode__product_ways_forget(struct mode_backend *be)
{
    struct mode__product_ways *w = mode__cuda_of(be)->product_ways;
    if (!w || w->n == 0) return;
    mode_backend_sync(be); /* launched plans may still be running */
    for (int i = 0; i < w->n; i++)
        if (w->way[i].plan) mode__cudnn_plan_free(cudnn_of(be), &w->way[i].plan);
    free(w->way);
    w->way = NULL;
    w->n = 0;
}

void mode__product_ways_close(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    mode__product_ways_forget(be);
    free(c->product_ways);
    c->product_ways = NULL;
}

long mode__product_ways_by_cudnn(const struct mode_backend *be, long *failed)
{
    const struct mode__product_ways *w = mode__cuda_of(be)->product_ways;
    *failed = w->failed;
    return w->by_cudnn;
}

void mode__product_ways_note(const struct mode_backend *be, FILE *out)
{
    const struct mode__product_ways *w = mode__cuda_of(be)->product_ways;
    for (int i = 0; i < w->n; i++) {
        const struct way *x = &w->way[i];
        fprintf(out, "product %s %s [%lld x %lld, %lld]: %s, %ld times: %s\n", x->s.back ? "and slope of" : "and",
                x->s.act == MODE_ACT_GELU ? "GELU" : "QuickGELU", (long long)x->s.m, (long long)x->s.n,
                (long long)x->s.k, x->plan ? "cuDNN" : "cuBLASLt and a kernel", x->runs, x->why);
    }
    if (w->failed) fprintf(out, "plans of cuDNN for products that could not be made or run: %ld\n", w->failed);
}

/* cuBLASLt, then an activation kernel */
static void run_own(struct mode_backend *be, const struct mode__product_act *x)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    const bool half = be->ops->activations == MODE_DTYPE_BF16;
    void *first = x->back || !x->z ? x->result : x->z;
    const struct mode__product p = {.c = first,
                                    .a = x->factor,
                                    .b = x->weight,
                                    .b_transposed = !x->back,
                                    .m = x->m,
                                    .n = x->n,
                                    .k = x->k,
                                    .bias = x->bias,
                                    .bf16 = half,
                                    .c_bf16 = half};
    mode__cuda_product(be, &p);
    if (x->back)
        mode__cuda_activate_back(stream, half, x->result, x->z, x->m, x->n, (int)x->act);
    else
        mode__cuda_epilogue(stream, half, x->result, first, x->m, x->n, NULL, (int)x->act);
    CUDA_OK(cudaGetLastError());
}

static bool is_for_cudnn(const struct mode_backend *be, const struct mode__product_act *x)
{
    const uintptr_t places = (uintptr_t)x->result | (uintptr_t)x->z | (uintptr_t)x->factor | (uintptr_t)x->weight |
                             (uintptr_t)x->bias;
    const int64_t most = x->n > x->k ? x->n : x->k;
    return be->ops->activations == MODE_DTYPE_BF16 && !be->narrow.on &&
           (x->act == MODE_ACT_GELU || x->act == MODE_ACT_QUICK_GELU) && (x->back || x->bias) &&
           (x->n | x->k) % 8 == 0 && places % 16 == 0 && x->m <= INT32_MAX / most;
}

static struct mode__product_shape shape_of(const struct mode__product_act *x)
{
    return (struct mode__product_shape){
        .m = x->m, .n = x->n, .k = x->k, .act = x->act, .back = x->back, .keeps = !x->back && x->z};
}

static bool is_same(const struct mode__product_shape *a, const struct mode__product_shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->act == b->act && a->back == b->back &&
           a->keeps == b->keeps;
}

static struct mode__product_key key_of(const struct mode__product_shape *s)
{
    struct mode__product_key k;
    memset(&k, 0, sizeof k);
    k.m = mode__product_alike(s->m);
    k.n = s->n;
    k.k = s->k;
    k.b_transposed = !s->back;
    k.bf16 = k.c_bf16 = 1;
    k.align_a = k.align_b = k.align_c = k.align_d = 16;
    k.act = 2 * (int32_t)s->act + s->back;
    return k;
}

/* Encoded as an algorithm's words: cuDNN's version (0: our implementation), the engine, and kind + 1 and value of each
 * knob. */
static cublasLtMatmulAlgo_t words_of(size_t version, const struct mode__cudnn_choice *c)
{
    cublasLtMatmulAlgo_t a;
    memset(&a, 0, sizeof a);
    if (!c) return a;
    a.data[0] = version;
    a.data[1] = (uint64_t)c->engine;
    for (int i = 0; i < c->n_knobs; i++)
        a.data[2 + i] = (uint64_t)(c->knob[i].kind + 1) << 32 | (uint32_t)c->knob[i].value;
    return a;
}

static struct mode__cudnn_choice choice_of(const cublasLtMatmulAlgo_t *a)
{
    struct mode__cudnn_choice c = {.engine = (int64_t)a->data[1]};
    for (int i = 0; i < MODE__CUDNN_KNOBS && a->data[2 + i]; i++) {
        c.knob[i].kind = (int64_t)(a->data[2 + i] >> 32) - 1;
        c.knob[i].value = (int64_t)(a->data[2 + i] & UINT32_MAX);
        c.n_knobs = i + 1;
    }
    return c;
}

static void reason(struct way *x, const char *why)
{
    snprintf(x->why, sizeof x->why, "%.*s", (int)sizeof x->why - 1, why);
}

static bool run_plan(struct mode_backend *be, struct way *x, const struct mode__product_act *job)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode_error err;
    void *pointer[MODE__N_PLACES] = {NULL};
    pointer[MODE__FACTOR] = (void *)(uintptr_t)job->factor;
    pointer[MODE__WEIGHT] = (void *)(uintptr_t)job->weight;
    pointer[MODE__BIAS] = (void *)(uintptr_t)job->bias;
    pointer[MODE__ARGUMENT] = job->z;
    pointer[MODE__RESULT] = job->result;
    mode__clock_product_begin(be);
    enum mode_status st = mode__cudnn_run(cudnn_of(be), x->plan, c->stream, pointer, c->lane[be->lane].workspace, &err);
    mode__clock_product_end(be);
    if (!st || mode__graphs_failed(cudaErrorStreamCaptureUnsupported)) return true; /* the eager run tries again */
    mode__cudnn_plan_free(cudnn_of(be), &x->plan); /* nothing was launched: ours runs instead, as the profile says */
    reason(x, err.text);
    c->product_ways->failed++;
    return false;
}

static bool has_room(const struct mode_backend *be, const struct mode__cudnn_plan *plan)
{
    const size_t work = mode__cudnn_plan_work(plan);
    return work == 0 || (work <= MODE__WORKSPACE && mode__cuda_of(be)->lane[be->lane].workspace);
}

static void run(struct mode_backend *be, struct way *x, const struct mode__product_act *job)
{
    if (!x->plan || !has_room(be, x->plan) || !run_plan(be, x, job)) run_own(be, job);
}

/* Creates x's plan: of the candidates, from number `from` on; or of a choice made before. */
static bool plan(struct mode_backend *be, struct way *x, int from, const struct mode__cudnn_choice *choice)
{
    struct mode__product_ways *w = mode__cuda_of(be)->product_ways;
    struct mode__cudnn *dnn = cudnn_of(be);
    struct mode__graph g;
    struct mode_error err;
    if (!dnn) {
        reason(x, "there is no cuDNN");
        return false;
    }
    mode__product_graph(&g, &x->s);
    enum mode_status st = choice ? mode__cudnn_plan_again(dnn, &x->plan, &g, choice, &err)
                                 : mode__cudnn_plan(dnn, &x->plan, &g, true, from, &err);
    if (!st && !has_room(be, x->plan)) {
        mode__cudnn_plan_free(dnn, &x->plan);
        st = MODE_FAIL(&err, MODE_E_DEVICE, "the plan needs more workspace than there is");
    }
    reason(x, st ? err.text : mode__cudnn_plan_text(x->plan));
    if (st && from == 0) w->failed++;
    return !st;
}

/* Milliseconds of the fastest of TIMED_RUNS runs, after a warm-up. */
static float time_of(struct mode_backend *be, struct way *x, const struct mode__product_act *job)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    cudaEvent_t start, end;
    float best = 1e30f, ms = 0;
    CUDA_OK(cudaEventCreate(&start));
    CUDA_OK(cudaEventCreate(&end));
    for (int i = 0; i <= TIMED_RUNS; i++) {
        CUDA_OK(cudaEventRecord(start, stream));
        run(be, x, job);
        CUDA_OK(cudaEventRecord(end, stream));
        CUDA_OK(cudaEventSynchronize(end));
        CUDA_OK(cudaEventElapsedTime(&ms, start, end));
        if (i > 0 && ms < best) best = ms;
    }
    CUDA_OK(cudaEventDestroy(start));
    CUDA_OK(cudaEventDestroy(end));
    return best;
}

/* Times ours and cuDNN's candidates, which all write the result, and keeps the fastest. */
static void autotune(struct mode_backend *be, struct way *x, const struct mode__product_act *job)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct way tried = {.s = x->s};
    const struct mode__product_key key = key_of(&x->s);
    const float own = time_of(be, &tried, job);
    float best = own, fastest = 1e30f;
    char text[sizeof x->why];
    for (int i = 0, from = 0; i < CANDIDATES && plan(be, &tried, from, NULL); i++) {
        from = mode__cudnn_plan_candidate(tried.plan) + 1;
        const float ms = mode__cudnn_plan_choice(tried.plan) ? time_of(be, &tried, job) : 1e30f;
        if (tried.plan && ms < fastest) {
            fastest = ms;
            snprintf(text, sizeof text, "%.60s; %.3f ms, our way %.3f ms", mode__cudnn_plan_text(tried.plan),
                     (double)ms, (double)own);
        }
        if (tried.plan && ms < best) {
            struct mode__cudnn_plan *before = x->plan;
            best = ms;
            x->plan = tried.plan;
            tried.plan = before;
        }
        mode__cudnn_plan_free(cudnn_of(be), &tried.plan);
    }
    reason(x, fastest < 1e30f ? text : tried.why);
    const cublasLtMatmulAlgo_t words = words_of(x->plan ? mode__cudnn_version(cudnn_of(be)) : 0,
                                                x->plan ? mode__cudnn_plan_choice(x->plan) : NULL);
    mode__product_keep(c->products, &key, &words);
}

/* The implementation of this GEMM; NULL: ours, by default or because cuDNN cannot take it. */
static struct way *find(struct mode_backend *be, const struct mode__product_act *job)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__product_ways *w = c->product_ways;
    const struct mode__product_shape s = shape_of(job);
    const struct mode__product_key key = key_of(&s);
    if (w->policy == ALWAYS_OWN || (w->policy == BY_RULE && !s.back) || !is_for_cudnn(be, job)) return NULL;
    for (int i = 0; i < w->n; i++)
        if (is_same(&w->way[i].s, &s)) return &w->way[i];
    const cublasLtMatmulAlgo_t *kept = w->policy == BY_RULE ? mode__product_kept(c->products, &key) : NULL;
    const bool tunes = w->policy == BY_RULE && !kept && mode__products_measuring(c->products) && s.m >= FEW_ROWS;
    if (w->policy == BY_RULE && !tunes && (!kept || !kept->data[0])) return NULL;
    w->way = mode_xrealloc(w->way, (size_t)(w->n + 1) * sizeof *w->way);
    struct way *x = &w->way[w->n++];
    *x = (struct way){.s = s};
    if (tunes) {
        autotune(be, x, job);
    } else if (kept) {
        const struct mode__cudnn_choice choice = choice_of(kept);
        (void)plan(be, x, 0, &choice);
    } else {
        (void)plan(be, x, 0, NULL);
    }
    return x;
}

void mode__cuda_product_act(struct mode_backend *be, const struct mode__product_act *job)
{
    struct way *x = find(be, job);
    if (!x) {
        run_own(be, job);
        return;
    }
    run(be, x, job);
    x->runs++;
    if (x->plan) mode__cuda_of(be)->product_ways->by_cudnn++;
}
