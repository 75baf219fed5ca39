/* gemm.h - matrix products out of one 6 x 16 tile held in registers.
 *
 * DESIGN: the right operand is packed into panels of 16 columns ([k][16], zero-padded), the left one is read where
 * it lies through row and column strides. A block of rows is done panel by panel: a panel (K_BLOCK * 64 bytes)
 * stays in L1, the block of the left operand in L2. Blocks are cut by shape alone, never by the number of threads,
 * and each element's sum is made by one thread in one order: the bytes do not depend on threads.
 *
 *   gemm_rows: c [m, n] (+)= a [m, k] b [k, n], then an epilogue on each finished block while it is in cache
 *   gemm_sum:  c [n, k] += a [m, n]^T b [m, k], a long sum over rows (gradients of weights) */
#ifndef MODE_NN_CPU_GEMM_H
#define MODE_NN_CPU_GEMM_H

#include "base/parallel.h"
#include "nn/backend_impl.h"
#include "nn/cpu/simd.h"

enum { TILE_M = 6, TILE_N = 16, K_BLOCK = 384, M_BLOCK = 96 };

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

/* c [mr, nr] (+)= a [mr, kc] panel [kc, 16] */
INLINE void tile(int mr, int64_t kc, const float *a, int64_t rs, int64_t cs, const float *panel, float *c, int64_t ldc,
                 int64_t nr, bool add)
{
    v8 s0[TILE_M], s1[TILE_M];
    for (int i = 0; i < mr; i++) s0[i] = s1[i] = splat8(0);
    for (int64_t k = 0; k < kc; k++) {
        v8 b0 = load8(panel + k * TILE_N), b1 = load8(panel + k * TILE_N + 8);
        const float *ak = a + k * cs;
        for (int i = 0; i < mr; i++) {
            v8 x = splat8(ak[i * rs]);
            s0[i] += x * b0;
            s1[i] += x * b1;
        }
    }
    if (nr == TILE_N) {
        for (int i = 0; i < mr; i++) {
            float *ci = c + i * ldc;
            store8(ci, add ? s0[i] + load8(ci) : s0[i]);
            store8(ci + 8, add ? s1[i] + load8(ci + 8) : s1[i]);
        }
        return;
    }
    for (int i = 0; i < mr; i++) {
        float t[TILE_N], *ci = c + i * ldc;
        store8(t, s0[i]);
        store8(t + 8, s1[i]);
        for (int64_t j = 0; j < nr; j++) ci[j] = add ? ci[j] + t[j] : t[j];
    }
}

static void tile_rows(int64_t mr, int64_t kc, const float *a, int64_t rs, int64_t cs, const float *panel, float *c,
                      int64_t ldc, int64_t nr, bool add)
{
    switch (mr) {
    case 1: tile(1, kc, a, rs, cs, panel, c, ldc, nr, add); break;
    case 2: tile(2, kc, a, rs, cs, panel, c, ldc, nr, add); break;
    case 3: tile(3, kc, a, rs, cs, panel, c, ldc, nr, add); break;
    case 4: tile(4, kc, a, rs, cs, panel, c, ldc, nr, add); break;
    case 5: tile(5, kc, a, rs, cs, panel, c, ldc, nr, add); break;
    default: tile(6, kc, a, rs, cs, panel, c, ldc, nr, add); break;
    }
}

/* c [m, n] (+)= a [m, kc] b, b packed as panels [ceil(n / 16)][kc][16] */
static void gemm_block(int64_t m, int64_t n, int64_t kc, struct view a, const float *b, float *c, int64_t ldc, bool add)
{
    for (int64_t j = 0; j < n; j += TILE_N)
        for (int64_t i = 0; i < m; i += TILE_M)
            tile_rows(min64(TILE_M, m - i), kc, a.p + i * a.rs, a.rs, a.cs, b + j * kc, c + i * ldc + j, ldc,
                      min64(TILE_N, n - j), add);
}

/* One panel: dst [kc][16] from columns 0..nr of b, zeros beyond. */
static void pack_panel(float *dst, struct view b, int64_t kc, int64_t nr)
{
    if (nr == TILE_N && b.cs == 1) {
        for (int64_t k = 0; k < kc; k++) {
            store8(dst + k * TILE_N, load8(b.p + k * b.rs));
            store8(dst + k * TILE_N + 8, load8(b.p + k * b.rs + 8));
        }
        return;
    }
    int64_t k = 0;
    if (nr == TILE_N && b.rs == 1)
        for (; k + 8 <= kc; k += 8)
            for (int half = 0; half < 2; half++) { /* 8 x 8 transposes */
                v8 r[8], s[8];
                for (int j = 0; j < 8; j++) r[j] = load8(b.p + k + (half * 8 + j) * b.cs);
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
                    v8 lo = SHUFFLE(r[i], r[4 + i], 0, 1, 2, 3, 8, 9, 10, 11);
                    v8 hi = SHUFFLE(r[i], r[4 + i], 4, 5, 6, 7, 12, 13, 14, 15);
                    store8(dst + (k + i) * TILE_N + half * 8, lo);
                    store8(dst + (k + 4 + i) * TILE_N + half * 8, hi);
                }
            }
    for (; k < kc; k++)
        for (int64_t j = 0; j < TILE_N; j++) dst[k * TILE_N + j] = j < nr ? b.p[k * b.rs + j * b.cs] : 0;
}

static void pack(float *dst, struct view b, int64_t kc, int64_t n)
{
    for (int64_t j = 0; j < n; j += TILE_N)
        pack_panel(dst + j * kc, (struct view){b.p + j * b.cs, b.rs, b.cs}, kc, min64(TILE_N, n - j));
}

/* What happens to rows i0..i1, columns j0..j1 of a finished product. */
struct epilogue {
    const float *bias;  /* + bias [n]                       */
    enum mode_act act;  /* act(value)                       */
    float *slope;       /* keep act'(value) [m, n]          */
    const float *times; /* * times [m, n]                   */
    const float *add;   /* + add [m, n]                     */
};

struct gemm_rows {
    float *c, *packed;
    struct view a, b;
    int64_t m, n, k, k_block, n_block, n_cols;
    const struct epilogue *e;
    bool add; /* c += */
};

static void finish_row(const struct epilogue *e, float *c, int64_t at, int64_t j0, int64_t j1);

static void gemm_rows_pack(void *ctx, int64_t item, int thread)
{
    const struct gemm_rows *g = ctx;
    int64_t panels = ceil_div(g->n, TILE_N), k0 = item / panels * g->k_block, j = item % panels * TILE_N;
    int64_t kc = min64(g->k_block, g->k - k0);
    (void)thread;
    pack_panel(g->packed + k0 * panels * TILE_N + j * kc,
               (struct view){g->b.p + k0 * g->b.rs + j * g->b.cs, g->b.rs, g->b.cs}, kc, min64(TILE_N, g->n - j));
}

static void gemm_rows_block(void *ctx, int64_t item, int thread)
{
    const struct gemm_rows *g = ctx;
    int64_t i0 = item / g->n_cols * M_BLOCK, j0 = item % g->n_cols * g->n_block;
    int64_t mb = min64(M_BLOCK, g->m - i0), nb = min64(g->n_block, g->n - j0), wide = round_up(g->n, TILE_N);
    (void)thread;
    for (int64_t k0 = 0; k0 < g->k; k0 += g->k_block) {
        int64_t kc = min64(g->k_block, g->k - k0);
        gemm_block(mb, nb, kc, (struct view){g->a.p + i0 * g->a.rs + k0 * g->a.cs, g->a.rs, g->a.cs},
                   g->packed + k0 * wide + j0 * kc, g->c + i0 * g->n + j0, g->n, g->add || k0 > 0);
    }
    if (g->e)
        for (int64_t i = i0; i < i0 + mb; i++) finish_row(g->e, g->c, i * g->n, j0, j0 + nb);
}

static void gemm_rows(struct mode_backend *be, float *c, int64_t m, int64_t n, int64_t k, struct view a, struct view b,
                      const struct epilogue *e, bool add)
{
    struct gemm_rows g = {.c = c, .a = a, .b = b, .m = m, .n = n, .k = k, .e = e, .add = add};
    int64_t k_parts = max64(1, ceil_div(k, K_BLOCK)), panels = ceil_div(n, TILE_N);
    if (m == 0 || n == 0) return;
    g.k_block = round_up(ceil_div(k, k_parts), 8);
    g.n_block = m >= 16 * M_BLOCK ? round_up(n, TILE_N) : 128; /* few rows: cut the columns too */
    g.n_cols = ceil_div(n, g.n_block);
    g.packed = mode__backend_work(be, (size_t)(panels * TILE_N * k + TILE_N) * sizeof *g.packed);
    mode_parallel_for(ceil_div(k, g.k_block) * panels, gemm_rows_pack, &g);
    mode_parallel_for(ceil_div(m, M_BLOCK) * g.n_cols, gemm_rows_block, &g);
}

enum { SUM_N = 768, SUM_K = 512, SUM_ROWS = 256, SUM_ITEMS = 32, SUM_LEFT = M_BLOCK * SUM_ROWS + 16 };

struct gemm_sum {
    float *c, *bias, *partial, *bias_partial, *scratch;
    const float *a, *b;
    int64_t m, n, k, n_tiles, k_tiles, n_chunks, chunk, scratch_floats;
};

/* dst [ceil(n / 6)][rows][6] (+ 2 floats of slack) from a [rows, n], rows lda apart; the last panel is short */
static void pack_left(float *dst, const float *a, int64_t lda, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < n; i += TILE_M) {
        float *d = dst + i * rows;
        int64_t nr = min64(TILE_M, n - i);
        if (i + 8 <= n) /* eight floats are copied for six: the next row overwrites the two */
            for (int64_t r = 0; r < rows; r++) store8(d + r * TILE_M, load8(a + r * lda + i));
        else
            for (int64_t r = 0; r < rows; r++)
                for (int64_t j = 0; j < nr; j++) d[r * TILE_M + j] = a[r * lda + i + j];
    }
}

/* A chunk of rows and a tile of c. Rows are taken SUM_ROWS at a time, c's rows M_BLOCK at a time, so that both
 * packed operands and the piece of c stay in L2. */
static void gemm_sum_item(void *ctx, int64_t item, int thread)
{
    const struct gemm_sum *g = ctx;
    int64_t tiles = g->n_tiles * g->k_tiles, t = item % tiles, chunk = item / tiles;
    int64_t n0 = t / g->k_tiles * SUM_N, nb = min64(SUM_N, g->n - n0);
    int64_t k0 = t % g->k_tiles * SUM_K, kb = min64(SUM_K, g->k - k0);
    float *left = g->scratch + thread * g->scratch_floats, *right = left + SUM_LEFT;
    bool whole = g->n_chunks == 1;
    float *c = (whole ? g->c : g->partial + chunk * g->n * g->k) + n0 * g->k + k0;
    int64_t first = chunk * g->chunk, end = min64(g->m, first + g->chunk);
    int64_t step = ceil_div(g->chunk, ceil_div(g->chunk, SUM_ROWS)); /* even parts: a short last one is dear */
    for (int64_t r0 = first; r0 < end; r0 += step) {
        int64_t rows = min64(step, end - r0);
        const float *a = g->a + r0 * g->n + n0;
        pack(right, (struct view){g->b + r0 * g->k + k0, g->k, 1}, rows, kb);
        for (int64_t i0 = 0; i0 < nb; i0 += M_BLOCK) {
            int64_t ib = min64(M_BLOCK, nb - i0);
            pack_left(left, a + i0, g->n, rows, ib);
            for (int64_t j = 0; j < kb; j += TILE_N)
                for (int64_t i = 0; i < ib; i += TILE_M)
                    tile_rows(min64(TILE_M, ib - i), rows, left + i * rows, 1, TILE_M, right + j * rows,
                              c + (i0 + i) * g->k + j, g->k, min64(TILE_N, kb - j), whole || r0 > first);
        }
        if (!g->bias || k0 > 0) continue;
        float *bias = g->bias_partial + chunk * g->n + n0;
        if (r0 == first) memset(bias, 0, (size_t)nb * sizeof *bias);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < nb; j++) bias[j] += a[r * g->n + j];
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
    g.n_tiles = ceil_div(n, SUM_N);
    g.k_tiles = ceil_div(k, SUM_K);
    g.n_chunks = max64(1, min64(SUM_ITEMS / (g.n_tiles * g.k_tiles), ceil_div(m, 2 * SUM_ROWS)));
    g.chunk = ceil_div(m, g.n_chunks);
    g.n_chunks = ceil_div(m, g.chunk);
    g.scratch_floats = SUM_LEFT + SUM_ROWS * min64(SUM_K, round_up(k, TILE_N));
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
