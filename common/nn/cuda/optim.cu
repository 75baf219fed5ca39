/* optim.cu - AdamW and gradient norms, multi-tensor: one launch for many parameters.
 *
 * DESIGN: a launch gets its list of pieces by value, so that a captured launch depends on no memory that must outlive
 * it; a block finds its piece by binary search and takes CHUNK elements of it. What changes from step to step is read
 * from memory, by one thread per block. */
#include "nn/cuda/store.cuh"

enum { THREADS = 256, CHUNK = 1 << 14 };

/* Subnormal moments are flushed to zero, as in nn/cpu/optim.h. */
static __device__ inline float flushed(float x)
{
    return fabsf(x) < 1.17549435e-38f ? 0 : x;
}

/* This block's elements: the piece, and the range in it. */
struct place {
    int piece;
    int64_t from, end;
};

static __device__ inline struct place place_of(const struct mode__cuda_pieces &p)
{
    int lo = 0, hi = p.n - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (p.of[mid].first <= (int)blockIdx.x)
            lo = mid;
        else
            hi = mid - 1;
    }
    int64_t from = (int64_t)((int)blockIdx.x - p.of[lo].first) * CHUNK, n = p.of[lo].n;
    return {lo, from, from + CHUNK < n ? from + CHUNK : n};
}

/* End of the part processed four elements at a time. */
static __device__ inline int64_t wide_end_of(const struct place &at, bool wide)
{
    return wide ? at.from + (at.end - at.from) / 4 * 4 : at.from;
}

/* The constants of nn/cpu/optim.h, from the host's step and the gradients' norm (mode__adamw_factor) */
enum { BETA1, BETA2, KEEP, STEP, ROOT, EPS, FACTOR, N_RULES };

static __device__ inline void make_rules(float *rule, const struct mode_adamw_step *s, bool decay)
{
    double norm = s->clip_norm > 0 ? sqrt(s->squares) : 0, factor = s->clip_norm / (norm + 1e-6);
    rule[BETA1] = (float)s->beta1;
    rule[BETA2] = (float)s->beta2;
    rule[KEEP] = (float)(1 - s->lr * (decay ? s->weight_decay : 0));
    rule[STEP] = (float)(s->lr / s->fix1);
    rule[ROOT] = (float)(1 / sqrt(s->fix2));
    rule[EPS] = (float)s->eps;
    rule[FACTOR] = !(norm <= 1.7976931348623157e308) ? -1 : norm > 0 && factor < 1 ? (float)factor : 1;
}

/* V elements from i on, and in the same pass the rounded copy for GEMMs, if there is one. */
template <int V> static __device__ inline void update(const struct mode__cuda_piece &p, int64_t i, const float *rule)
{
    float wi[V], mi[V], vi[V], gi[V];
    const float beta1 = rule[BETA1], beta2 = rule[BETA2];
    load<V>(wi, p.w + i);
    load<V>(mi, p.m + i);
    load<V>(vi, p.v + i);
    load<V>(gi, p.g + i);
    for (int k = 0; k < V; k++) {
        gi[k] *= rule[FACTOR];
        mi[k] = flushed(beta1 * mi[k] + (1 - beta1) * gi[k]);
        vi[k] = flushed(beta2 * vi[k] + (1 - beta2) * gi[k] * gi[k]);
        wi[k] = wi[k] * rule[KEEP] - rule[STEP] * mi[k] / (sqrtf(vi[k]) * rule[ROOT] + rule[EPS]);
    }
    store<V>(p.m + i, mi);
    store<V>(p.v + i, vi);
    store<V>(p.w + i, wi);
    if (p.copy) store<V>((__nv_bfloat16 *)p.copy + i, wi);
}

static __global__ void adamw(struct mode__cuda_pieces pieces, const struct mode_adamw_step *s)
{
    __shared__ float rule[N_RULES];
    const struct place at = place_of(pieces);
    const struct mode__cuda_piece &p = pieces.of[at.piece];
    if (threadIdx.x == 0) make_rules(rule, s, p.decay);
    __syncthreads();
    if (rule[FACTOR] < 0) return; /* the gradients' norm is non-finite */
    const int64_t wide_end = wide_end_of(at, p.wide);
    for (int64_t i = at.from + 4 * (int64_t)threadIdx.x; i < wide_end; i += 4 * THREADS) update<4>(p, i, rule);
    for (int64_t i = wide_end + threadIdx.x; i < at.end; i += THREADS) update<1>(p, i, rule);
}

void mode__cuda_adamw(cudaStream_t stream, const struct mode__cuda_pieces *p, const struct mode_adamw_step *s)
{
    adamw<<<(unsigned)p->blocks, THREADS, 0, stream>>>(*p, s);
}

void mode__cuda_add_piece(struct mode__cuda_pieces *p, struct mode__cuda_piece x)
{
    x.first = p->blocks;
    x.wide = wide_rows(0, 1, (const float *)x.w, (const float *)x.copy, (const float *)x.m, (const float *)x.v, x.g);
    p->blocks += (int)ceil_div(x.n, CHUNK);
    p->of[p->n++] = x;
}

static __global__ void squares(double *part, struct mode__cuda_pieces pieces)
{
    const struct place at = place_of(pieces);
    const float *x = pieces.of[at.piece].g;
    const int64_t wide_end = wide_end_of(at, (uintptr_t)x % 16 == 0);
    double s = 0;
    for (int64_t i = at.from + 4 * (int64_t)threadIdx.x; i < wide_end; i += 4 * THREADS) {
        float four[4];
        load<4>(four, x + i);
        for (int k = 0; k < 4; k++) s += (double)four[k] * four[k];
    }
    for (int64_t i = wide_end + threadIdx.x; i < at.end; i += THREADS) s += (double)x[i] * x[i];
    s = block_sum(s);
    if (threadIdx.x == 0) part[blockIdx.x] = s;
}

static __global__ void add_up(double *sum, const double *part, int64_t n)
{
    double s = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) s += part[i];
    s = block_sum(s);
    if (threadIdx.x == 0) *sum = s;
}

void mode__cuda_squares(cudaStream_t stream, double *part, const struct mode__cuda_pieces *p)
{
    squares<<<(unsigned)p->blocks, THREADS, 0, stream>>>(part, *p);
}

int64_t mode__cuda_square_parts(int64_t n)
{
    return ceil_div(n, CHUNK);
}

void mode__cuda_add_up(cudaStream_t stream, double *sum, const double *part, int64_t n)
{
    add_up<<<1, THREADS, 0, stream>>>(sum, part, n);
}

template <int V> static __global__ void rounded(__nv_bfloat16 *to, const float *from, int64_t n)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    float x[V];
    if (i + V <= n) {
        load<V>(x, from + i);
        store<V>(to + i, x);
    } else {
        for (; i < n; i++) narrow(to + i, from[i]);
    }
}

void mode__cuda_rounded(cudaStream_t stream, void *to, const float *from, int64_t n)
{
    using T = float;
    BY_WIDTH(wide_rows(0, 1, (const float *)to, from),
             rounded<V><<<blocks_of(n, THREADS * V), THREADS, 0, stream>>>((__nv_bfloat16 *)to, from, n));
}

static __global__ void clamp(float *x, float low, float high, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

void mode__cuda_clamp(cudaStream_t stream, float *x, float low, float high, int64_t n)
{
    clamp<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(x, low, high, n);
}
