#include "nn/cuda/cudnn_attention.h"

#include "base/str.h"
#include "nn/cuda/attention_graph.h"
#include "nn/cuda/cudnn.h"

#include <stdlib.h>
#include <string.h>

enum { SHAPES = 128, ALIGNMENT = 256 };
enum policy { BY_RULE, ALWAYS_OWN, ALWAYS_CUDNN };

/* A known shape and its implementation: plan NULL means our own kernels. */
struct way {
    struct mode__attention_shape s;
    bool back, training;
    struct mode__cudnn_plan *plan;
    long runs;
    char why[160];
};

struct mode__attention_ways {
    enum policy policy;
    bool measuring, measured, tried;
    struct mode__cudnn *dnn; /* NULL: none, or not tried yet */
    char absent[256];        /* why there is no cuDNN */
    struct way way[2 * SHAPES];
    int n, n_inference;  /* at most SHAPES of each, so that evaluations do not affect training */
    long own, unplanned; /* calls that cuDNN does not support; calls beyond the table */
};

struct mode__attention_ways *mode__attention_ways_open(void)
{
    const char *v = getenv("MODE_CUDA_ATTENTION");
    struct mode__attention_ways *w = mode_xcalloc(1, sizeof *w);
    if (v && strcmp(v, "own") == 0) w->policy = ALWAYS_OWN;
    if (v && strcmp(v, "cudnn") == 0) w->policy = ALWAYS_CUDNN;
    return w;
}

void mode__attention_ways_close(struct mode__attention_ways **w)
{
    if (!*w) return;
    for (int i = 0; i < (*w)->n; i++) mode__cudnn_plan_free((*w)->dnn, &(*w)->way[i].plan);
    mode__cudnn_close(&(*w)->dnn);
    free(*w);
    *w = NULL;
}

void mode__attention_ways_measure(struct mode__attention_ways *w, bool on)
{
    w->measuring = on;
    w->measured |= on;
}

void mode__attention_ways_note(const struct mode__attention_ways *w, FILE *out)
{
    for (int i = 0; i < w->n; i++) {
        const struct way *x = &w->way[i];
        fprintf(out, "attention%s [%lld x %lld%s, %lld heads of %lld%s]: %s, %ld times: %s\n", x->back ? "_back" : "",
                (long long)x->s.batch, (long long)x->s.tokens, x->s.packed ? " at most" : "", (long long)x->s.heads,
                (long long)x->s.head_width, x->s.causal ? ", causal" : "", x->plan ? "cuDNN" : "own kernels", x->runs,
                x->why);
    }
    if (w->own) fprintf(out, "attention which only our own kernels take: %ld times\n", w->own);
    if (w->unplanned)
        fprintf(out, "attention by our own kernels because %d shapes had been met before: %ld times\n", SHAPES,
                w->unplanned);
    if (w->absent[0]) fprintf(out, "cuDNN: %s\n", w->absent);
}

/* Does cuDNN support this at all? Ragged offsets are i32. NVIDIA's frontend calls cuDNN's backward pass wrong for
 * packed sequences whose heads are not a multiple of 16 channels. */
static bool is_for_cudnn(const struct mode__cuda_attention *a, int64_t longest)
{
    uintptr_t at = (uintptr_t)a->q;
    return a->bf16 && a->q == a->kv && a->lq == a->lk && a->q_offsets == a->kv_offsets && longest > 1 &&
           a->dh % (a->rows_q == a->n_seq * longest ? 8 : 16) == 0 && (a->q_at | a->k_at | a->v_at | a->lq) % 8 == 0 &&
           at % 16 == 0 && a->rows_q <= INT32_MAX / a->lq;
}

static struct mode__attention_shape shape_of(const struct mode__cuda_attention *a, int64_t longest, bool deterministic)
{
    return (struct mode__attention_shape){.batch = a->n_seq,
                                          .tokens = longest,
                                          .heads = a->heads,
                                          .head_width = a->dh,
                                          .row = a->lq,
                                          .causal = a->causal,
                                          .packed = a->rows_q != a->n_seq * longest,
                                          .deterministic = deterministic};
}

static bool is_same(const struct mode__attention_shape *a, const struct mode__attention_shape *b)
{
    return a->batch == b->batch && a->tokens == b->tokens && a->heads == b->heads && a->head_width == b->head_width &&
           a->row == b->row && a->causal == b->causal && a->packed == b->packed && a->deterministic == b->deterministic;
}

static void reason(struct way *x, const char *why)
{
    snprintf(x->why, sizeof x->why, "%.*s", (int)sizeof x->why - 1, why);
}

struct mode__cudnn *mode__attention_cudnn(struct mode__attention_ways *w)
{
    struct mode_error err;
    if (!w->tried && mode__cudnn_open(&w->dnn, NULL, &err))
        snprintf(w->absent, sizeof w->absent, "%.*s", (int)sizeof w->absent - 1, err.text);
    w->tried = true;
    return w->dnn;
}

size_t mode__attention_cudnn_version(struct mode__attention_ways *w)
{
    return mode__attention_cudnn(w) ? mode__cudnn_version(w->dnn) : 0;
}

/* Before 9.26 cuDNN's Ampere kernels, used on all GPUs but Hopper and large Blackwell, ignore the strides of the
 * log-sum-exp in the backward pass and assume [B, H, T] (NVIDIA's frontend refuses other strides there). For packed
 * sequences NVIDIA's frontend refuses them in every version. */
static bool misreads_lse_strides(const struct mode__attention_ways *w, const struct mode__attention_shape *s)
{
    int major = 0;
    CUDA_OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    return (s->packed || mode__cudnn_version(w->dnn) < 92600) && major != 9 && major != 10;
}

/* Before 9.26 Hopper's backward kernels process 128 keys at a time, and where only the first 64 exist they do not mask
 * the rest: zero keys, with score 0, so that dq is NaN in rows whose own scores are far below 0. Lengths of packed
 * sequences are data, so any sequence that can be that long may trigger it. */
static bool attends_past_end(const struct mode__attention_ways *w, const struct mode__attention_shape *s)
{
    int major = 0;
    CUDA_OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    return mode__cudnn_version(w->dnn) < 92600 && major == 9 && (s->packed ? s->tokens >= 64 : s->tokens % 128 == 64);
}

/* What NVIDIA's frontend refuses with versions that are accepted here: packed sequences on GPUs before Hopper, and
 * deterministic gradients on Blackwell. */
static bool comes_later(const struct mode__attention_ways *w, const struct way *x)
{
    int major = 0;
    CUDA_OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    return mode__cudnn_version(w->dnn) < 91801 &&
           ((major < 9 && x->s.packed) || (major == 10 && x->back && x->s.deterministic));
}

/* A plan for a new shape, if the rule or autotuning may use one. */
static void plan(struct mode__attention_ways *w, struct way *x)
{
    struct mode__graph g;
    struct mode_error err;
    if (w->policy == ALWAYS_OWN) {
        reason(x, "MODE_CUDA_ATTENTION=own");
    } else if (w->policy == BY_RULE && !w->measuring && x->s.tokens <= MODE__ATTENTION_SHORT) {
        reason(x, "sequences so short fill a part of cuDNN's tiles, and are read once here");
    } else if (w->policy == BY_RULE && !x->training && x->s.packed) {
        reason(x, "packed sequences in inference come in ever new numbers");
    } else if (!mode__attention_cudnn(w)) {
        reason(x, "there is no cuDNN");
    } else if (comes_later(w, x)) {
        reason(x, "cuDNN takes it on GPUs of this kind from 9.18.1 on");
    } else if (x->back && misreads_lse_strides(w, &x->s)) {
        reason(x, "cuDNN is wrong here on GPUs of this kind: below 9.26, and where sequences are packed");
    } else if (x->back && attends_past_end(w, &x->s)) {
        reason(x, "cuDNN below 9.26 can make NaN of dq where keys are 64 more than a multiple of 128");
    } else {
        x->back ? mode__attention_back_graph(&g, &x->s) : mode__attention_graph(&g, &x->s);
        enum mode_status st = mode__cudnn_plan(w->dnn, &x->plan, &g, x->s.deterministic, 0, &err);
        reason(x, st ? err.text : mode__cudnn_plan_text(x->plan));
    }
}

/* The entry of this shape; NULL if the table is full. *is_new: it was created now. */
static struct way *find(struct mode__attention_ways *w, const struct mode__attention_shape *s, bool back, bool training,
                        bool *is_new)
{
    *is_new = false;
    for (int i = 0; i < w->n; i++)
        if (w->way[i].back == back && w->way[i].training == training && is_same(&w->way[i].s, s)) return &w->way[i];
    const bool infers = !back && !training;
    if ((infers ? w->n_inference : w->n - w->n_inference) == SHAPES) return NULL;
    w->n_inference += infers;
    struct way *x = &w->way[w->n++];
    *x = (struct way){.s = *s, .back = back, .training = training};
    *is_new = true;
    plan(w, x);
    return x;
}

/* A bump allocator for the scratch of one call; with base NULL it only counts. */
struct arena {
    char *base;
    size_t used;
};

static void *arena_alloc(struct arena *r, size_t bytes)
{
    void *p = r->base ? r->base + r->used : NULL;
    r->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return p;
}

/* Buffers of one call: the graph's tensors, cuDNN's workspace, our kernels' scratch. */
struct call {
    void *pointer[MODE__N_PLACES];
    void *work;
    float *delta;
};

static struct call lay_out(struct arena *r, const struct way *x, const struct mode__cuda_attention *a, bool has_lse)
{
    struct call c = {.work = arena_alloc(r, x->plan ? mode__cudnn_plan_work(x->plan) : 0)};
    size_t rows = (size_t)a->rows_q, lists = (size_t)(a->n_seq + 1) * sizeof(int32_t);
    if (!has_lse) c.pointer[MODE__LSE] = arena_alloc(r, rows * (size_t)a->heads * sizeof(float));
    if (x->back) c.pointer[MODE__DELTA] = c.delta = arena_alloc(r, rows * (size_t)a->heads * sizeof(float));
    if (x->back && x->plan && !x->s.deterministic)
        c.pointer[MODE__DQ_SUM] = arena_alloc(r, rows * (size_t)(a->heads * a->dh) * sizeof(float));
    for (int i = MODE__LENGTHS; x->plan && x->s.packed && i <= MODE__FIRST_STAT; i++)
        c.pointer[i] = arena_alloc(r, lists);
    return c;
}

static struct call prepare(struct mode_backend *be, const struct way *x, const struct mode__cuda_attention *a,
                           bool has_lse)
{
    struct arena count = {0};
    (void)lay_out(&count, x, a, has_lse);
    struct arena r = {.base = mode__backend_work(be, count.used + ALIGNMENT)};
    r.base += (ALIGNMENT - (uintptr_t)r.base % ALIGNMENT) % ALIGNMENT;
    return lay_out(&r, x, a, has_lse);
}

/* Address of element `at` of bf16 array a. */
static void *from(const void *a, int64_t at)
{
    return (char *)(uintptr_t)a + 2 * at;
}

static bool run_plan(struct mode_backend *be, struct way *x, struct call *c, const struct mode__cuda_attention *a)
{
    struct mode__cuda *d = mode__cuda_of(be);
    struct mode_error err;
    c->pointer[MODE__Q] = from(a->q, a->q_at);
    c->pointer[MODE__K] = from(a->kv, a->k_at);
    c->pointer[MODE__V] = from(a->kv, a->v_at);
    if (x->s.packed)
        mode__cuda_attention_lists(d->stream, c->pointer[MODE__LENGTHS], c->pointer[MODE__FIRST_IN],
                                   c->pointer[MODE__FIRST_OUT], c->pointer[MODE__FIRST_STAT], a);
    if (mode__cudnn_run(d->attention->dnn, x->plan, d->stream, c->pointer, c->work, &err) == MODE_OK) return true;
    if (mode__graphs_failed(cudaErrorStreamCaptureUnsupported)) return true; /* the eager run tries again */
    mode__cudnn_plan_free(d->attention->dnn,
                          &x->plan); /* nothing was launched: ours run instead, as the profile says */
    reason(x, err.text);
    return false;
}

/* Arguments of either direction. */
struct job {
    void *out, *dq, *dkv;
    float *lse;
    const void *dout;
    const struct mode__cuda_attention *a;
};

static void run_own(struct mode_backend *be, const struct call *c, const struct job *j, bool back)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    if (back)
        mode__cuda_attention_back(stream, j->dq, j->dkv, c->delta, j->dout, j->out, j->lse, j->a);
    else
        mode__cuda_attention(stream, j->out, j->lse, j->a);
    CUDA_OK(cudaGetLastError());
}

static void run(struct mode_backend *be, struct way *x, struct call *c, const struct job *j)
{
    if (!x->plan || !run_plan(be, x, c, j->a)) run_own(be, c, j, x->back);
}

/* Milliseconds of one run, after a warm-up. */
static float time_of(struct mode_backend *be, struct way *x, struct call *c, const struct job *j, bool own)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    cudaEvent_t start, end;
    float ms = 0;
    CUDA_OK(cudaEventCreate(&start));
    CUDA_OK(cudaEventCreate(&end));
    for (int i = 0; i < 2; i++) {
        if (i == 1) CUDA_OK(cudaEventRecord(start, stream));
        own ? run_own(be, c, j, x->back) : run(be, x, c, j);
    }
    CUDA_OK(cudaEventRecord(end, stream));
    CUDA_OK(cudaEventSynchronize(end));
    CUDA_OK(cudaEventElapsedTime(&ms, start, end));
    CUDA_OK(cudaEventDestroy(start));
    CUDA_OK(cudaEventDestroy(end));
    return ms;
}

/* Times both implementations of a new shape and keeps the faster; both write the outputs. */
static void autotune(struct mode_backend *be, struct way *x, struct call *c, const struct job *j)
{
    struct mode__attention_ways *w = mode__cuda_of(be)->attention;
    float own = time_of(be, x, c, j, true), dnn = time_of(be, x, c, j, false);
    char text[sizeof x->why];
    if (!x->plan) return; /* it failed to run */
    snprintf(text, sizeof text, "%s; %.3f ms, own kernels %.3f ms", mode__cudnn_plan_text(x->plan), (double)dnn,
             (double)own);
    reason(x, text);
    if (own < dnn) mode__cudnn_plan_free(w->dnn, &x->plan);
}

static void by_best(struct mode_backend *be, const struct job *j, int64_t longest, bool back)
{
    struct mode__attention_ways *w = mode__cuda_of(be)->attention;
    struct mode__attention_shape s = shape_of(j->a, longest, !w->measured);
    struct way *x = NULL, plain = {.back = back};
    bool is_new = false;
    if (is_for_cudnn(j->a, longest)) {
        x = find(w, &s, back, j->lse != NULL, &is_new);
        if (!x) w->unplanned++;
    } else {
        w->own++;
    }
    if (!x) x = &plain;
    struct call c = prepare(be, x, j->a, j->lse != NULL);
    c.pointer[MODE__OUT] = j->out;
    if (j->lse) c.pointer[MODE__LSE] = j->lse;
    if (back) {
        c.pointer[MODE__DOUT] = (void *)(uintptr_t)j->dout;
        c.pointer[MODE__DQ] = from(j->dq, j->a->q_at);
        c.pointer[MODE__DK] = from(j->dkv, j->a->k_at);
        c.pointer[MODE__DV] = from(j->dkv, j->a->v_at);
    }
    if (is_new && x->plan && w->measuring && w->policy == BY_RULE) autotune(be, x, &c, j);
    run(be, x, &c, j);
    x->runs++;
}

void mode__attention_by_best(struct mode_backend *be, void *out, float *lse, const struct mode__cuda_attention *a,
                             int64_t longest)
{
    by_best(be, &(struct job){.out = out, .lse = lse, .a = a}, longest, false);
}

void mode__attention_back_by_best(struct mode_backend *be, void *dq, void *dkv, const void *dout, const void *out,
                                  const float *lse, const struct mode__cuda_attention *a, int64_t longest)
{
    by_best(
        be,
        &(struct job){
            .out = (void *)(uintptr_t)out, .dq = dq, .dkv = dkv, .lse = (float *)(uintptr_t)lse, .dout = dout, .a = a},
        longest, true);
}
