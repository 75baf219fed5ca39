/* gemm.h - GEMM with packed operands, blocked for the caches.
 *
 * DESIGN: all threads pack the right operand together, at most SUPER of its rows at a time; each block of the left one
 * is packed by the thread that uses it. A panel (K_BLOCK rows) stays in L1, a block of the left operand in L2, and each
 * tile prefetches a part of the next panel. Blocking depends on the shape alone, never on the number of threads, and
 * every element is summed in a fixed order: results are bit-identical for any number of threads. Micro-kernels: tile.h
 * (floats in registers) or amx.h.
 *
 *   gemm:     c [m, n] (+)= a [m, k] b [k, n], then an epilogue on each finished strip while it is in cache
 *   gemm_sum: c [n, k] += a [m, n]^T b [m, k], a long sum over rows (gradients of weights)
 *
 * One dimension of each operand is contiguous (rs or cs is 1).
 * Source: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication". */
#ifndef MODE_NN_CPU_GEMM_H
#define MODE_NN_CPU_GEMM_H

#include "base/parallel.h"
#include "nn/backend_impl.h"
#include "nn/cpu/tile.h"

/* SIDE_M x SIDE_N: the tile of c that one call of micro_kernel computes; STEP_K: packed depths are rounded up to it;
 * PARTS: packed numbers per float. */
#if defined(__AMX_BF16__)
#include "nn/cpu/amx.h"
typedef uint16_t packed_number;
enum { SIDE_M = AMX_SIDE, SIDE_N = AMX_SIDE, STEP_K = AMX_K, PARTS = AMX_PARTS, K_BLOCK = 384, M_BLOCK = 256 };
#define tiles_begin  amx_begin
#define tiles_end    amx_end
#define pack_left    amx_pack_left
#define pack_right   amx_pack_right
#define micro_kernel amx_tile
#else
typedef float packed_number;
enum { SIDE_M = TILE_M, SIDE_N = TILE_N, STEP_K = 1, PARTS = 1 };
#if defined(__AVX512F__)
enum { K_BLOCK = 256, M_BLOCK = 288 };
#else
enum { K_BLOCK = 384, M_BLOCK = 192 };
#endif
#define tiles_begin() ((void)0)
#define tiles_end()   ((void)0)
#define pack_left     tile_pack_left
#define pack_right    tile_pack_right
#define micro_kernel  tile_packed
#endif
enum { SUPER = 4 * K_BLOCK, STRIP = 64 };

/* What is applied to finished rows. */
struct epilogue {
    const float *bias; /* + bias [n]                       */
    float *z;          /* store the pre-activation [m, n] */
    enum mode_act act; /* act(value)                       */
    const float *back; /* or value * act'(back [m, n]) (backward) */
    const float *add;  /* + add [m, n]                     */
};

static void finish_row(const struct epilogue *e, float *c, int64_t at, int64_t j0, int64_t j1);

struct gemm {
    float *c, *sums; /* sums [m] += row sums of a */
    packed_number *right, *left;
    struct view a, b;
    int64_t m, n, k, m_block, n_block, n_cols, k_block, from, to; /* rows from..to of b are packed now */
    const struct epilogue *e;
    bool add; /* c += */
};

enum {
    LEFT_SIZE = (M_BLOCK + SIDE_M) * K_BLOCK * PARTS + LEFT_SLACK,
    PANELS = 8 /* packed at a time: each row of b is on another page, and the TLB is small */
};

/* Packed numbers of a row or column of depth kc. */
static int64_t packed_depth(int64_t kc)
{
    return round_up(kc, STEP_K) * PARTS;
}

static int64_t bytes_of(int64_t numbers)
{
    return round_up(numbers * (int64_t)sizeof(packed_number), 64);
}

static void gemm_pack(void *ctx, int64_t item, int thread)
{
    const struct gemm *g = ctx;
    const int64_t wide = PANELS * SIDE_N, groups = ceil_div(g->n, wide);
    int64_t k0 = g->from + item / groups * g->k_block, j = item % groups * wide;
    int64_t kc = min64(g->k_block, g->to - k0);
    (void)thread;
    pack_right(g->right + packed_depth(k0 - g->from) * round_up(g->n, SIDE_N) + j * packed_depth(kc),
               (struct view){g->b.p + k0 * g->b.rs + j * g->b.cs, g->b.rs, g->b.cs}, kc, min64(wide, g->n - j));
}

/* sums [m] += row sums of a [m, kc], whose columns are contiguous */
static void add_row_sums(float *sums, struct view a, int64_t m, int64_t kc)
{
    int64_t i = 0;
    for (; i + LANES <= m; i += LANES) {
        vt s = {0};
        for (int64_t k = 0; k < kc; k++) s += *(const vt_loose *)(a.p + i + k * a.cs);
        *(vt_loose *)(sums + i) += s;
    }
    for (; i < m; i++) {
        float s = 0;
        for (int64_t k = 0; k < kc; k++) s += a.p[i + k * a.cs];
        sums[i] += s;
    }
}

static void gemm_item(void *ctx, int64_t item, int thread)
{
    const struct gemm *g = ctx;
    int64_t i0 = item / g->n_cols * g->m_block, j0 = item % g->n_cols * g->n_block;
    int64_t mb = min64(g->m_block, g->m - i0), j1 = min64(g->n, j0 + g->n_block), wide = round_up(g->n, SIDE_N);
    int64_t tiles = ceil_div(mb, SIDE_M);
    packed_number *left = g->left + thread * LEFT_SIZE;
    tiles_begin();
    for (int64_t k0 = g->from; k0 < g->to; k0 += g->k_block) {
        int64_t kc = min64(g->k_block, g->to - k0), share = packed_depth(kc) * SIDE_N / tiles;
        const packed_number *right = g->right + packed_depth(k0 - g->from) * wide;
        struct view a = {g->a.p + i0 * g->a.rs + k0 * g->a.cs, g->a.rs, g->a.cs};
        bool last = k0 + kc == g->k;
        pack_left(left, a, mb, kc);
        if (g->sums && j0 == 0) add_row_sums(g->sums + i0, a, mb, kc);
        for (int64_t j = j0; j < j1; j += SIDE_N) {
            const packed_number *panel = right + j * packed_depth(kc), *next = panel + SIDE_N * packed_depth(kc);
            float *c = g->c + i0 * g->n + j;
            int64_t nr = min64(SIDE_N, g->n - j), end = j + nr, strip = (j - j0) / STRIP * STRIP + j0;
            for (int64_t i = 0; i < tiles; i++)
                micro_kernel(min64(SIDE_M, mb - i * SIDE_M), kc, left + i * SIDE_M * packed_depth(kc), panel,
                             next + i * share, c + i * SIDE_M * g->n, g->n, nr, g->add || k0 > 0);
            if (g->e && last && (end == j1 || (end - j0) % STRIP == 0))
                for (int64_t i = i0; i < i0 + mb; i++) finish_row(g->e, g->c, i * g->n, strip, end);
        }
    }
    tiles_end();
}

/* sums: see struct gemm; may be NULL. */
static void gemm(struct mode_backend *be, float *c, float *sums, int64_t m, int64_t n, int64_t k, struct view a,
                 struct view b, const struct epilogue *e, bool add)
{
    struct gemm g = {.c = c, .sums = sums, .a = a, .b = b, .m = m, .n = n, .k = k, .e = e, .add = add};
    if (m == 0 || n == 0 || k == 0) return;
    g.k_block = round_up(ceil_div(k, ceil_div(k, K_BLOCK)), STEP_K > 8 ? STEP_K : 8);
    g.m_block = round_up(ceil_div(m, ceil_div(m, M_BLOCK)), SIDE_M); /* balanced blocks */
    /* few rows: block the columns too, at multiples of the epilogue's STRIP */
    int64_t cols = min64(ceil_div(16, ceil_div(m, g.m_block)), ceil_div(n, 512));
    g.n_block = round_up(ceil_div(n, cols), STRIP);
    g.n_cols = ceil_div(n, g.n_block);
    int64_t super = SUPER / K_BLOCK * g.k_block, right = bytes_of(round_up(n, SIDE_N) * packed_depth(min64(k, super)));
    g.right = mode__backend_work(be, (size_t)(right + mode_parallel_threads() * bytes_of(LEFT_SIZE)));
    g.left = (packed_number *)((char *)g.right + right);
    for (; g.from < k; g.from = g.to) {
        g.to = min64(k, g.from + super);
        mode_parallel_for(ceil_div(g.to - g.from, g.k_block) * ceil_div(n, PANELS * SIDE_N), gemm_pack, &g);
        mode_parallel_for(ceil_div(m, g.m_block) * g.n_cols, gemm_item, &g);
    }
}

/* Split-K for a small result of a long sum: a partial c per chunk of rows, reduced in order at the end. */
enum { SUM_N = 576, SUM_K = 512, SUM_ITEMS = 16, SUM_SMALL = 512 * 512 };

struct gemm_sum {
    float *c, *bias, *partial, *bias_partial;
    packed_number *scratch; /* scratch_size numbers per thread */
    const float *a, *b;
    int64_t m, n, k, n_tiles, k_tiles, n_chunks, chunk, scratch_size;
};

static void gemm_sum_item(void *ctx, int64_t item, int thread)
{
    const struct gemm_sum *g = ctx;
    int64_t tiles = g->n_tiles * g->k_tiles, t = item % tiles, chunk = item / tiles;
    int64_t n0 = t / g->k_tiles * SUM_N, nb = min64(SUM_N, g->n - n0);
    int64_t k0 = t % g->k_tiles * SUM_K, kb = min64(SUM_K, g->k - k0);
    packed_number *left = g->scratch + thread * g->scratch_size, *right = left + LEFT_SIZE;
    bool whole = g->n_chunks == 1;
    float *c = (whole ? g->c : g->partial + chunk * g->n * g->k) + n0 * g->k + k0;
    float *bias = g->bias && k0 == 0 ? g->bias_partial + chunk * g->n + n0 : NULL;
    int64_t first = chunk * g->chunk, end = min64(g->m, first + g->chunk);
    /* balanced: a short last block is inefficient */
    int64_t step = round_up(ceil_div(g->chunk, ceil_div(g->chunk, K_BLOCK)), STEP_K);
    tiles_begin();
    if (bias) memset(bias, 0, (size_t)nb * sizeof *bias);
    for (int64_t r0 = first; r0 < end; r0 += step) {
        int64_t rows = min64(step, end - r0);
        pack_right(right, (struct view){g->b + r0 * g->k + k0, g->k, 1}, rows, kb);
        for (int64_t i0 = 0; i0 < nb; i0 += M_BLOCK) {
            int64_t ib = min64(M_BLOCK, nb - i0);
            struct view a = {g->a + r0 * g->n + n0 + i0, 1, g->n};
            pack_left(left, a, ib, rows);
            if (bias) add_row_sums(bias + i0, a, ib, rows);
            for (int64_t j = 0; j < kb; j += SIDE_N)
                for (int64_t i = 0; i < ib; i += SIDE_M)
                    micro_kernel(min64(SIDE_M, ib - i), rows, left + i * packed_depth(rows),
                                 right + j * packed_depth(rows), right + j * packed_depth(rows),
                                 c + (i0 + i) * g->k + j, g->k, min64(SIDE_N, kb - j), whole || r0 > first);
        }
    }
    tiles_end();
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

/* c [n, k] += a [m, n]^T b [m, k]; bias [n] += column sums of a (may be NULL). */
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
    g.scratch_size = round_up(LEFT_SIZE + packed_depth(K_BLOCK) * min64(SUM_K, round_up(k, SIDE_N)), 32);
    int64_t partial = g.n_chunks > 1 ? round_up(g.n_chunks * n * k, 16) : 0, biases = round_up(g.n_chunks * n, 16);
    int64_t scratch = bytes_of(mode_parallel_threads() * g.scratch_size);
    g.scratch = mode__backend_work(be, (size_t)scratch + (size_t)(partial + biases) * sizeof *g.partial);
    g.partial = (float *)((char *)g.scratch + scratch);
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
