/* amx.h - f32 GEMM by splitting floats into bf16 for AMX tiles.
 *
 * A float is exactly the sum of three bf16 numbers (8-bit significands): x = x1 + x2 + x3, |x2| <= 2^-8 |x|, |x3| <=
 * 2^-16 |x|. Of the nine partial products of x y the six significant ones are accumulated in f32: x3 y1, x2 y1, x2 y2,
 * x1 y3, x1 y2, x1 y1. The omitted ones are below 2^-23 |x y| at worst and 2^-26 on average, like rounding to f32. A
 * tile multiply-add is 16 x 16 x 32 in 16 cycles, so six are still 2.7 times as fast as AVX-512.
 *
 * Differences from f32 arithmetic: subnormal parts are flushed to 0 (numbers below 1e-33 lose bits), and an operand
 * that is infinite or above 3.38e38 gives NaN.
 *
 * Both operands are packed into tiles of 16 x 16 pairs: row i of the left one, column j of the right one, pair t
 * holding k = t and k = t + 16 of 32. Source: Intel's Architecture Instruction Set Extensions Programming Reference,
 * chapter 3; Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
 * Computations". */
#ifndef MODE_NN_CPU_AMX_H
#define MODE_NN_CPU_AMX_H

#include "nn/cpu/tile.h"

#include <immintrin.h>

enum {
    AMX_SIDE = 32, /* rows and columns of a block of c: two tiles by two */
    AMX_K = 32,    /* depth of a tile */
    AMX_PARTS = 3,
    AMX_TILE = 16 * AMX_K,              /* bf16 numbers in a tile */
    AMX_STEP = AMX_PARTS * 2 * AMX_TILE /* [part][half][16][16][2]: 32 of k, 32 rows  */
};

typedef int32_t vti __attribute__((vector_size(64)));

/* Around a thread's tile work: context switches of a thread with no live tiles are cheaper. */
static void amx_begin(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _Static_assert(sizeof all == 64, "the layout of LDTILECFG");
    _tile_loadconfig(&all);
}

static void amx_end(void)
{
    _tile_release();
}

/* In-register 16 x 16 transpose. */
INLINE void transpose16(vt r[16])
{
#if defined(__clang__)
#define SHUFFLE16(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE16(a, b, ...) __builtin_shuffle(a, b, (vti){__VA_ARGS__})
#endif
    vt s[16];
    for (int i = 0; i < 16; i += 2) {
        s[i] = SHUFFLE16(r[i], r[i + 1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
        s[i + 1] = SHUFFLE16(r[i], r[i + 1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
    for (int i = 0; i < 16; i++)
        if (!(i & 2)) {
            r[i] = SHUFFLE16(s[i], s[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
            r[i + 2] = SHUFFLE16(s[i], s[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        }
    for (int i = 0; i < 16; i++)
        if (!(i & 4)) {
            s[i] = SHUFFLE16(r[i], r[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
            s[i + 4] = SHUFFLE16(r[i], r[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
        }
    for (int i = 0; i < 8; i++) {
        r[i] = SHUFFLE16(s[i], s[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
        r[i + 8] = SHUFFLE16(s[i], s[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
#undef SHUFFLE16
}

/* The nearest bf16, ties away from zero. */
INLINE vti eight_bits(vt x)
{
    return ((vti)x + 0x8000) & (int32_t)0xffff0000;
}

/* A row of pairs (x[t], y[t]) split into three parts, which lie 2 * AMX_TILE numbers apart. */
INLINE void store_parts(uint16_t *dst, vt x, vt y)
{
    for (int part = 0; part < AMX_PARTS; part++, dst += 2 * AMX_TILE) {
        vti a = eight_bits(x), b = eight_bits(y);
        *(vti *)dst = (vti)((__v16su)a >> 16) | b;
        x -= (vt)a;
        y -= (vt)b;
    }
}

/* The first n of 16 floats, zero-padded. */
INLINE vt load_first(const float *p, int64_t n)
{
    return n >= 16 ? (vt)_mm512_loadu_ps(p) : (vt)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

static int64_t at_most_16(int64_t n)
{
    return n < 0 ? 0 : min64(n, 16);
}

/* One tile, split into parts. along: k is contiguous in memory; else k is the stride between vectors. side: rows (left
 * operand) or columns (right). turn: transpose, because the vectors loaded are not the tile's rows. */
INLINE void amx_pack_tile(uint16_t *dst, const float *p, int64_t step, bool along, bool turn, int64_t side, int64_t kc)
{
    vt x[2][16];
    for (int h = 0; h < 2; h++) {
        int64_t k = at_most_16(kc - 16 * h), vectors = along ? side : k, lanes = along ? k : side;
        const float *from = p + 16 * h * (along ? 1 : step);
        for (int i = 0; i < 16; i++) x[h][i] = i < vectors && lanes ? load_first(from + i * step, lanes) : (vt){0};
        if (turn) transpose16(x[h]);
    }
    for (int i = 0; i < 16; i++) store_parts(dst + i * AMX_K, x[0][i], x[1][i]);
}

/* dst [ceil(side / 32)][ceil(kc / 32)][AMX_STEP] from v [side, kc], of which one dimension is contiguous. */
INLINE void amx_pack(uint16_t *dst, struct view v, int64_t side, int64_t kc, bool left)
{
    bool along = v.cs == 1;
    int64_t step = along ? v.rs : v.cs;
    for (int64_t i = 0; i < side; i += AMX_SIDE)
        for (int64_t k = 0; k < kc; k += AMX_K, dst += AMX_STEP)
            for (int64_t h = 0; h < 2; h++)
                amx_pack_tile(dst + h * AMX_TILE, v.p + (i + 16 * h) * v.rs + k * v.cs, step, along, along != left,
                              at_most_16(side - i - 16 * h), min64(AMX_K, kc - k));
}

static void amx_pack_left(uint16_t *dst, struct view a, int64_t m, int64_t kc)
{
    amx_pack(dst, a, m, kc, true);
}

/* b is [kc, n]. */
static void amx_pack_right(uint16_t *dst, struct view b, int64_t kc, int64_t n)
{
    amx_pack(dst, (struct view){b.p, b.cs, b.rs}, n, kc, false);
}

/* c [mr, nr] (+)= a [mr, kc] panel [kc, nr], both packed; next: to be prefetched into L2 */
static void amx_tile(int64_t mr, int64_t kc, const uint16_t *a, const uint16_t *panel, const uint16_t *next, float *c,
                     int64_t ldc, int64_t nr, bool add)
{
    float part[AMX_SIDE * AMX_SIDE] __attribute__((aligned(64)));
    bool whole = mr == AMX_SIDE && nr == AMX_SIDE;
    float *o = whole ? c : part;
    int64_t ldo = whole ? ldc : AMX_SIDE, bytes = ldo * (int64_t)sizeof *o;
    if (!whole && add)
        for (int64_t i = 0; i < mr; i++) memcpy(part + i * AMX_SIDE, c + i * ldc, (size_t)nr * sizeof *c);
    if (add) {
        _tile_loadd(0, o, bytes);
        _tile_loadd(1, o + 16, bytes);
        _tile_loadd(2, o + 16 * ldo, bytes);
        _tile_loadd(3, o + 16 * ldo + 16, bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
#define LEFT(part)                                                                                                     \
    _tile_loadd(4, a + (part)*2 * AMX_TILE, 64);                                                                       \
    _tile_loadd(5, a + ((part)*2 + 1) * AMX_TILE, 64)
#define RIGHT(part)                                                                                                    \
    _tile_loadd(6, panel + (part)*2 * AMX_TILE, 64);                                                                   \
    _tile_loadd(7, panel + ((part)*2 + 1) * AMX_TILE, 64)
#define MULTIPLY()                                                                                                     \
    _tile_dpbf16ps(0, 4, 6);                                                                                           \
    _tile_dpbf16ps(1, 4, 7);                                                                                           \
    _tile_dpbf16ps(2, 5, 6);                                                                                           \
    _tile_dpbf16ps(3, 5, 7)
    const float *below = c + AMX_SIDE * ldc; /* rows of c of the next tile */
    for (int64_t k = 0; k < kc; k += AMX_K, a += AMX_STEP, panel += AMX_STEP, next += 12 * 32) {
        for (int i = 0; i < 12; i++) __builtin_prefetch(next + 32 * i, 0, 2);
        for (int i = 0; i < 4 && k < 8 * AMX_K; i++, below += ldc) {
            __builtin_prefetch(below, 0, 2);
            __builtin_prefetch(below + AMX_SIDE - 1, 0, 2);
        }
        LEFT(2);
        RIGHT(0);
        MULTIPLY();
        LEFT(1);
        MULTIPLY();
        RIGHT(1);
        MULTIPLY();
        LEFT(0);
        RIGHT(2);
        MULTIPLY();
        RIGHT(1);
        MULTIPLY();
        RIGHT(0);
        MULTIPLY();
    }
#undef LEFT
#undef RIGHT
#undef MULTIPLY
    _tile_stored(0, o, bytes);
    _tile_stored(1, o + 16, bytes);
    _tile_stored(2, o + 16 * ldo, bytes);
    _tile_stored(3, o + 16 * ldo + 16, bytes);
    if (!whole)
        for (int64_t i = 0; i < mr; i++) memcpy(c + i * ldc, part + i * AMX_SIDE, (size_t)nr * sizeof *c);
}

#endif
