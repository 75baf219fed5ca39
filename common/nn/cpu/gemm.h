/* gemm.h - matrix products out of one tile held in registers.
 *
 * DESIGN: the right operand is packed into panels of TILE_N columns ([k][TILE_N], zero-padded) by all threads together,
 * at most SUPER of its rows at a time; each block of the left one into tiles of TILE_M rows ([k][TILE_M]) by the thread
 * that uses it. A panel (K_BLOCK rows) stays in L1, a block of the left operand in L2; the rows of c that a tile adds
 * to and a part of the next panel are fetched while it multiplies, a few at a time. Blocks are cut by shape alone,
 * never by the number of threads, and each element's sum is made in one order: the bytes do not depend on threads.
 *
 *   gemm:     c [m, n] (+)= a [m, k] b [k, n], then an epilogue on each finished strip while it is in cache
 *   gemm_sum: c [n, k] += a [m, n]^T b [m, k], a long sum over rows (gradients of weights)
 *
 * Source: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication". */
#ifndef MODE_NN_CPU_GEMM_H
#define MODE_NN_CPU_GEMM_H

#include "base/parallel.h"
#include "nn/backend_impl.h"
#include "nn/cpu/simd.h"

/* The tile fills the registers: TILE_M x 2 sums, 2 columns of the right operand, 1 element of the left one. */
#if defined(__AVX512F__)
enum { LANES = 16, TILE_M = 12, K_BLOCK = 256, M_BLOCK = 288 };
#elif defined(__AVX2__)
enum { LANES = 8, TILE_M = 6, K_BLOCK = 384, M_BLOCK = 192 };
#else
enum { LANES = 4, TILE_M = 6, K_BLOCK = 384, M_BLOCK = 192 };
#endif
enum { TILE_N = 2 * LANES, SUPER = 4 * K_BLOCK, STRIP = 64 };

typedef float vt __attribute__((vector_size(4 * LANES)));
typedef float vt_loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct view { /* element (i, j) is p[i * rs + j * cs] */
    const float *p;
    int64_t rs, cs;
};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t a, int64_t b)
{
    return ceil_div(a, b) * b;
}

/* Written out: compilers make one broadcasting load of this, and an addition and a shuffle of 0 + x. */
INLINE vt splat(float x)
{
#if defined(__AVX512F__)
    return (vt){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif defined(__AVX2__)
    return (vt){x, x, x, x, x, x, x, x};
#else
    return (vt){x, x, x, x};
#endif
}

/* The compiler is told which instruction: left alone it also uses the forms that overwrite a factor, runs out of
 * registers and spills sums (12 % slower). */
#if defined(__FMA__)
#define TILE_FMA(sum, x, y) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y))
#else
#define TILE_FMA(sum, x, y) ((sum) += (x) * (y))
#endif

/* AVX-512 can broadcast inside the multiply-add, which saves an instruction and costs a load. Done in two rows of three
 * there are neither more instructions nor more loads than a cycle has room for (5 % faster than none, 2 % than all). */
#if defined(__AVX512F__)
#define BROADCASTS(i)          ((i) % 3 != 2)
#define TILE_FMA_AT(sum, p, y) __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(y), "m"(*(p)))
#else
#define BROADCASTS(i)          false
#define TILE_FMA_AT(sum, p, y) ((sum) += *(p) * (y))
#endif

/* Named variables, not arrays: they must be registers. */
#if defined(__AVX512F__)
#define TILE_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#else
#define TILE_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#endif

/* c [mr, nr] (+)= a [mr, kc] panel [kc, TILE_N]; next: what is wanted in L2 soon */
INLINE void tile(int mr, int64_t kc, const float *a, int64_t rs, int64_t cs, const float *panel, const float *next,
                 float *c, int64_t ldc, int64_t nr, bool add)
{
#define ZERO(i) vt lo##i = {0}, hi##i = {0};
#define MULTIPLY(i)                                                                                                    \
    if ((i) < mr && BROADCASTS(i)) {                                                                                   \
        TILE_FMA_AT(lo##i, a + (i)*rs, b0);                                                                            \
        TILE_FMA_AT(hi##i, a + (i)*rs, b1);                                                                            \
    } else if ((i) < mr) {                                                                                             \
        vt x = splat(a[(i)*rs]);                                                                                       \
        TILE_FMA(lo##i, x, b0);                                                                                        \
        TILE_FMA(hi##i, x, b1);                                                                                        \
    }
#define ONE_K                                                                                                          \
    {                                                                                                                  \
        vt b0 = *(const vt_loose *)panel, b1 = *(const vt_loose *)(panel + LANES);                                     \
        TILE_ROWS(MULTIPLY)                                                                                            \
        a += cs;                                                                                                       \
        panel += TILE_N;                                                                                               \
    }
#define EIGHT_K                                                                                                        \
    {                                                                                                                  \
        for (int p = 0; p < 8 * TILE_M; p += 48) __builtin_prefetch(a + 32 * TILE_M + p);                              \
        ONE_K ONE_K ONE_K ONE_K ONE_K ONE_K ONE_K ONE_K                                                                \
    }
#define STORE(i)                                                                                                       \
    if ((i) < mr) {                                                                                                    \
        vt_loose *ci = (vt_loose *)(c + (i)*ldc), *cj = (vt_loose *)(c + (i)*ldc + LANES);                             \
        *ci = add ? lo##i + *ci : lo##i;                                                                               \
        *cj = add ? hi##i + *cj : hi##i;                                                                               \
    }
#define STORE_PART(i)                                                                                                  \
    if ((i) < mr) {                                                                                                    \
        float t[TILE_N], *ci = c + (i)*ldc;                                                                            \
        *(vt_loose *)t = lo##i;                                                                                        \
        *(vt_loose *)(t + LANES) = hi##i;                                                                              \
        for (int64_t j = 0; j < nr; j++) ci[j] = add ? ci[j] + t[j] : t[j];                                            \
    }
    int64_t k = 0;
    TILE_ROWS(ZERO)
    for (int i = 0; i < mr && k + 8 <= kc; i++, k += 8) {
        __builtin_prefetch(c + i * ldc, 1), __builtin_prefetch(c + i * ldc + TILE_N - 1, 1);
        EIGHT_K
    }
    for (; k + 8 <= kc; k += 8, next += 16) {
        __builtin_prefetch(next, 0, 2);
        EIGHT_K
    }
    for (; k < kc; k++) ONE_K
    if (nr == TILE_N) {
        TILE_ROWS(STORE)
    } else {
        TILE_ROWS(STORE_PART)
    }
#undef ZERO
#undef MULTIPLY
#undef ONE_K
#undef EIGHT_K
#undef STORE
#undef STORE_PART
}

/* Rows packed by pack_left. */
static void tile_packed(int64_t mr, int64_t kc, const float *a, const float *panel, const float *next, float *c,
                        int64_t ldc, int64_t nr, bool add)
{
    switch (mr) {
#define CASE(i)                                                                                                        \
    case (i) + 1: tile((i) + 1, kc, a, 1, TILE_M, panel, next, c, ldc, nr, add); break;
        TILE_ROWS(CASE)
#undef CASE
    }
}

/* Rows where they lie. */
static void tile_loose(int64_t mr, int64_t kc, const float *a, int64_t rs, int64_t cs, const float *panel, float *c,
                       int64_t ldc, int64_t nr, bool add)
{
    switch (mr) {
#define CASE(i)                                                                                                        \
    case (i) + 1: tile((i) + 1, kc, a, rs, cs, panel, panel, c, ldc, nr, add); break;
        TILE_ROWS(CASE)
#undef CASE
    }
}

/* c [m, n] (+)= a [m, kc] b, b packed as panels [ceil(n / TILE_N)][kc][TILE_N]; for small products, a is not packed */
static void gemm_block(int64_t m, int64_t n, int64_t kc, struct view a, const float *b, float *c, int64_t ldc, bool add)
{
    for (int64_t j = 0; j < n; j += TILE_N)
        for (int64_t i = 0; i < m; i += TILE_M)
            tile_loose(min64(TILE_M, m - i), kc, a.p + i * a.rs, a.rs, a.cs, b + j * kc, c + i * ldc + j, ldc,
                       min64(TILE_N, n - j), add);
}

/* Rows become columns. */
INLINE void transpose8(v8 r[8])
{
    v8 s[8];
    for (int j = 0; j < 4; j++) {
        s[2 * j] = SHUFFLE(r[2 * j], r[2 * j + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        s[2 * j + 1] = SHUFFLE(r[2 * j], r[2 * j + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++) {
            v8 x = s[4 * j + i], y = s[4 * j + 2 + i];
            r[4 * j + i] = SHUFFLE(x, y, 0, 1, 8, 9, 4, 5, 12, 13);
            r[4 * j + 2 + i] = SHUFFLE(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        v8 lo = SHUFFLE(r[i], r[4 + i], 0, 1, 2, 3, 8, 9, 10, 11),
           hi = SHUFFLE(r[i], r[4 + i], 4, 5, 6, 7, 12, 13, 14, 15);
        r[i] = lo;
        r[4 + i] = hi;
    }
}

/* Where rows lie along memory, so many are read at a time across all panels or tiles: each row is on a page of its own,
 * and a core knows few pages. */
enum { PACK_ROWS = 32, PACK_PANELS = 8 };

/* One panel: dst [kc][TILE_N] from columns 0..nr of b, zeros beyond. */
static void pack_panel(float *dst, struct view b, int64_t kc, int64_t nr)
{
    int64_t k = 0;
    if (nr == TILE_N && b.rs == 1)
        for (; k + 8 <= kc; k += 8)
            for (int64_t part = 0; part < TILE_N; part += 8) {
                v8 r[8];
                for (int j = 0; j < 8; j++) r[j] = load8(b.p + k + (part + j) * b.cs);
                transpose8(r);
                for (int i = 0; i < 8; i++) store8(dst + (k + i) * TILE_N + part, r[i]);
            }
    for (; k < kc; k++)
        for (int64_t j = 0; j < TILE_N; j++) dst[k * TILE_N + j] = j < nr ? b.p[k * b.rs + j * b.cs] : 0;
}

static void pack(float *dst, struct view b, int64_t kc, int64_t n)
{
    int64_t along = b.cs == 1 ? n / TILE_N * TILE_N : 0;
    for (int64_t k0 = 0; along && k0 < kc; k0 += PACK_ROWS)
        for (int64_t j = 0; j < along; j += TILE_N)
            for (int64_t k = k0; k < min64(kc, k0 + PACK_ROWS); k++)
                memcpy(dst + j * kc + k * TILE_N, b.p + k * b.rs + j, TILE_N * sizeof *dst);
    for (int64_t j = along; j < n; j += TILE_N)
        pack_panel(dst + j * kc, (struct view){b.p + j * b.cs, b.rs, b.cs}, kc, min64(TILE_N, n - j));
}

enum { LEFT_SLACK = 16 }; /* floats behind a packed left operand that may be overwritten */

/* dst [ceil(m / TILE_M)][kc][TILE_M] (+ LEFT_SLACK) from a [m, kc]; what is beyond row m holds anything. */
static void pack_left(float *dst, struct view a, int64_t m, int64_t kc)
{
    int64_t along = a.rs == 1 ? m / TILE_M * TILE_M : 0;
    for (int64_t k0 = 0; along && k0 < kc; k0 += PACK_ROWS)
        for (int64_t i = 0; i < along; i += TILE_M)
            for (int64_t k = k0; k < min64(kc, k0 + PACK_ROWS); k++)
                memcpy(dst + i * kc + k * TILE_M, a.p + k * a.cs + i, TILE_M * sizeof *dst);
    dst += along * kc;
    for (int64_t i = along; i < m; i += TILE_M, dst += kc * TILE_M) {
        const float *p = a.p + i * a.rs;
        int64_t k = 0, mr = min64(TILE_M, m - i);
        if (a.cs == 1 && mr == TILE_M)
            for (; k + 8 <= kc; k += 8) {
                v8 r[2][8];
                for (int j = 0; j < 16; j++)
                    if (j < round_up(TILE_M, 8)) r[j / 8][j % 8] = load8(p + k + min64(j, TILE_M - 1) * a.rs);
                for (int g = 0; g < 2; g++)
                    if (8 * g < TILE_M) transpose8(r[g]);
                for (int j = 0; j < 8; j++) /* eight floats for what remains of TILE_M: the next row overwrites them */
                    for (int g = 0; g < 2; g++)
                        if (8 * g < TILE_M) store8(dst + (k + j) * TILE_M + 8 * g, r[g][j]);
            }
        for (; k < kc; k++)
            for (int64_t j = 0; j < mr; j++) dst[k * TILE_M + j] = p[j * a.rs + k * a.cs];
    }
}

/* What happens to rows i0..i1, columns j0..j1 of a finished product. */
struct epilogue {
    const float *bias;  /* + bias [n]                       */
    enum mode_act act;  /* act(value)                       */
    float *slope;       /* keep act'(value) [m, n]          */
    const float *times; /* * times [m, n]                   */
    const float *add;   /* + add [m, n]                     */
};

static void finish_row(const struct epilogue *e, float *c, int64_t at, int64_t j0, int64_t j1);

struct gemm {
    float *c, *right, *left, *sums; /* sums [m] += row sums of a */
    struct view a, b;
    int64_t m, n, k, m_block, n_block, n_cols, k_block, from, to; /* rows from..to of b are packed now */
    const struct epilogue *e;
    bool add; /* c += */
};

enum { LEFT_FLOATS = (M_BLOCK + TILE_M) * K_BLOCK + LEFT_SLACK };

static void gemm_pack(void *ctx, int64_t item, int thread)
{
    const struct gemm *g = ctx;
    const int64_t wide = PACK_PANELS * TILE_N, groups = ceil_div(g->n, wide);
    int64_t at = item / groups * g->k_block, j = item % groups * wide;
    int64_t k0 = g->from + at, kc = min64(g->k_block, g->to - k0);
    (void)thread;
    pack(g->right + at * round_up(g->n, TILE_N) + j * kc,
         (struct view){g->b.p + k0 * g->b.rs + j * g->b.cs, g->b.rs, g->b.cs}, kc, min64(wide, g->n - j));
}

static void add_row_sums(float *sums, const float *left, int64_t m, int64_t kc)
{
    for (int64_t i = 0; i < m; i += TILE_M, left += kc * TILE_M) {
        vt s = {0};
        float t[LANES];
        for (int64_t k = 0; k < kc; k++) s += *(const vt_loose *)(left + k * TILE_M);
        *(vt_loose *)t = s;
        for (int64_t j = 0; j < min64(min64(LANES, TILE_M), m - i); j++) sums[i + j] += t[j];
        for (int64_t j = LANES; j < min64(TILE_M, m - i); j++)
            for (int64_t k = 0; k < kc; k++) sums[i + j] += left[k * TILE_M + j];
    }
}

static void gemm_item(void *ctx, int64_t item, int thread)
{
    const struct gemm *g = ctx;
    int64_t i0 = item / g->n_cols * g->m_block, j0 = item % g->n_cols * g->n_block;
    int64_t mb = min64(g->m_block, g->m - i0), j1 = min64(g->n, j0 + g->n_block), wide = round_up(g->n, TILE_N);
    int64_t tiles = ceil_div(mb, TILE_M);
    float *left = g->left + thread * LEFT_FLOATS;
    for (int64_t k0 = g->from; k0 < g->to; k0 += g->k_block) {
        int64_t kc = min64(g->k_block, g->to - k0), share = kc * TILE_N / tiles;
        const float *right = g->right + (k0 - g->from) * wide;
        bool last = k0 + kc == g->k;
        pack_left(left, (struct view){g->a.p + i0 * g->a.rs + k0 * g->a.cs, g->a.rs, g->a.cs}, mb, kc);
        if (g->sums && j0 == 0) add_row_sums(g->sums + i0, left, mb, kc);
        for (int64_t j = j0; j < j1; j += TILE_N) {
            const float *panel = right + j * kc, *next = panel + kc * TILE_N;
            float *c = g->c + i0 * g->n + j;
            int64_t nr = min64(TILE_N, g->n - j), end = j + nr, strip = (j - j0) / STRIP * STRIP + j0;
            for (int64_t i = 0; i < tiles; i++)
                tile_packed(min64(TILE_M, mb - i * TILE_M), kc, left + i * TILE_M * kc, panel, next + i * share,
                            c + i * TILE_M * g->n, g->n, nr, g->add || k0 > 0);
            if (g->e && last && (end == j1 || (end - j0) % STRIP == 0))
                for (int64_t i = i0; i < i0 + mb; i++) finish_row(g->e, g->c, i * g->n, strip, end);
        }
    }
}

/* sums: see above; NULL: not wanted. */
static void gemm(struct mode_backend *be, float *c, float *sums, int64_t m, int64_t n, int64_t k, struct view a,
                 struct view b, const struct epilogue *e, bool add)
{
    struct gemm g = {.c = c, .sums = sums, .a = a, .b = b, .m = m, .n = n, .k = k, .e = e, .add = add};
    int64_t panels = ceil_div(n, TILE_N);
    if (m == 0 || n == 0 || k == 0) return;
    g.k_block = round_up(ceil_div(k, ceil_div(k, K_BLOCK)), 8);
    g.m_block = round_up(ceil_div(m, ceil_div(m, M_BLOCK)), TILE_M); /* even parts */
    /* few rows: cut the columns too; STRIP keeps epilogues whole */
    int64_t cols = min64(ceil_div(16, ceil_div(m, g.m_block)), ceil_div(n, 512));
    g.n_block = round_up(ceil_div(n, cols), STRIP);
    g.n_cols = ceil_div(n, g.n_block);
    int64_t super = SUPER / K_BLOCK * g.k_block, right = round_up(panels * TILE_N * min64(k, super) + LANES, 16);
    g.right = mode__backend_work(be, (size_t)(right + mode_parallel_threads() * LEFT_FLOATS) * sizeof *g.right);
    g.left = g.right + right;
    for (; g.from < k; g.from = g.to) {
        g.to = min64(k, g.from + super);
        mode_parallel_for(ceil_div(g.to - g.from, g.k_block) * ceil_div(panels, PACK_PANELS), gemm_pack, &g);
        mode_parallel_for(ceil_div(m, g.m_block) * g.n_cols, gemm_item, &g);
    }
}

/* A small result of a long sum: its rows are cut into chunks, one piece of c each, which are added up at the end. */
enum { SUM_N = 576, SUM_K = 512, SUM_ITEMS = 16, SUM_SMALL = 512 * 512 };

struct gemm_sum {
    float *c, *bias, *partial, *bias_partial, *scratch;
    const float *a, *b;
    int64_t m, n, k, n_tiles, k_tiles, n_chunks, chunk, scratch_floats;
};

static void gemm_sum_item(void *ctx, int64_t item, int thread)
{
    const struct gemm_sum *g = ctx;
    int64_t tiles = g->n_tiles * g->k_tiles, t = item % tiles, chunk = item / tiles;
    int64_t n0 = t / g->k_tiles * SUM_N, nb = min64(SUM_N, g->n - n0);
    int64_t k0 = t % g->k_tiles * SUM_K, kb = min64(SUM_K, g->k - k0);
    float *left = g->scratch + thread * g->scratch_floats, *right = left + LEFT_FLOATS;
    bool whole = g->n_chunks == 1;
    float *c = (whole ? g->c : g->partial + chunk * g->n * g->k) + n0 * g->k + k0;
    float *bias = g->bias && k0 == 0 ? g->bias_partial + chunk * g->n + n0 : NULL;
    int64_t first = chunk * g->chunk, end = min64(g->m, first + g->chunk);
    int64_t step = ceil_div(g->chunk, ceil_div(g->chunk, K_BLOCK)); /* even parts: a short last one is dear */
    if (bias) memset(bias, 0, (size_t)nb * sizeof *bias);
    for (int64_t r0 = first; r0 < end; r0 += step) {
        int64_t rows = min64(step, end - r0);
        pack(right, (struct view){g->b + r0 * g->k + k0, g->k, 1}, rows, kb);
        for (int64_t i0 = 0; i0 < nb; i0 += M_BLOCK) {
            int64_t ib = min64(M_BLOCK, nb - i0);
            pack_left(left, (struct view){g->a + r0 * g->n + n0 + i0, 1, g->n}, ib, rows);
            if (bias) add_row_sums(bias + i0, left, ib, rows);
            for (int64_t j = 0; j < kb; j += TILE_N)
                for (int64_t i = 0; i < ib; i += TILE_M)
                    tile_packed(min64(TILE_M, ib - i), rows, left + i * rows, right + j * rows, right + j * rows,
                                c + (i0 + i) * g->k + j, g->k, min64(TILE_N, kb - j), whole || r0 > first);
        }
    }
}

static void gemm_sum_reduce(void *ctx, int64_t item, int thread)
{
    const struct gemm_sum *g = ctx;
    const int64_t size = g->n * g->k, i0 = item * 4096, i1 = min64(size, i0 + 4096);
    (void)thread;
    for (int64_t i = i0; i < i1; i++) {
        float s = g->partial[i];
        for (int64_t c = 1; c < g->n_chunks; c++) s += g->partial[c * size + i];
        g->c[i] += s;
    }
}

/* c [n, k] += a [m, n]^T b [m, k]; bias [n] += column sums of a (NULL: not wanted). */
static void gemm_sum(struct mode_backend *be, float *c, float *bias, int64_t m, int64_t n, int64_t k, const float *a,
                     const float *b)
{
    struct gemm_sum g = {.c = c, .bias = bias, .a = a, .b = b, .m = m, .n = n, .k = k};
    if (m == 0 || n == 0 || k == 0) return;
    if (n * k > SUM_SMALL) {
        gemm(be, c, bias, n, k, m, (struct view){a, 1, n}, (struct view){b, k, 1}, NULL, true);
        return;
    }
    g.n_tiles = ceil_div(n, SUM_N);
    g.k_tiles = ceil_div(k, SUM_K);
    g.n_chunks = max64(1, min64(SUM_ITEMS / (g.n_tiles * g.k_tiles), ceil_div(m, 2 * K_BLOCK)));
    g.chunk = ceil_div(m, g.n_chunks);
    g.n_chunks = ceil_div(m, g.chunk);
    g.scratch_floats = round_up(LEFT_FLOATS + K_BLOCK * min64(SUM_K, round_up(k, TILE_N)) + LANES, 16);
    int64_t partial = g.n_chunks > 1 ? round_up(g.n_chunks * n * k, 16) : 0, biases = round_up(g.n_chunks * n, 16);
    g.scratch = mode__backend_work(be, (size_t)(mode_parallel_threads() * g.scratch_floats + partial + biases) *
                                           sizeof *g.scratch);
    g.partial = g.scratch + mode_parallel_threads() * g.scratch_floats;
    g.bias_partial = g.partial + partial;
    mode_parallel_for(g.n_chunks * g.n_tiles * g.k_tiles, gemm_sum_item, &g);
    if (g.n_chunks > 1) mode_parallel_for(ceil_div(n * k, 4096), gemm_sum_reduce, &g);
    if (bias)
        for (int64_t j = 0; j < n; j++) {
            float s = 0;
            for (int64_t i = 0; i < g.n_chunks; i++) s += g.bias_partial[i * n + j];
            bias[j] += s;
        }
}

#endif
