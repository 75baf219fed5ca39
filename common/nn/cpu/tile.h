/* tile.h - the GEMM micro-kernel, a tile of c held in registers, and the packing of its operands.
 *
 * The left operand is packed into tiles of TILE_M rows ([k][TILE_M]), the right one into panels of TILE_N columns
 * ([k][TILE_N], zero-padded). While a tile multiplies, it prefetches the rows of c that it adds to and a part of the
 * next operand, a few at a time. */
#ifndef MODE_NN_CPU_TILE_H
#define MODE_NN_CPU_TILE_H

#include "nn/cpu/simd.h"

#include <stdbool.h>

/* The tile fills the registers: TILE_M x 2 accumulators, 2 vectors of the right operand, 1 broadcast of the left one.
 */
#if defined(__AVX512F__)
enum { LANES = 16, TILE_M = 12 };
#elif defined(__AVX2__)
enum { LANES = 8, TILE_M = 6 };
#else
enum { LANES = 4, TILE_M = 6 };
#endif
enum { TILE_N = 2 * LANES };

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

/* Written out: compilers turn this into one broadcast load, but 0 + x into an addition and a shuffle. */
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

/* Inline assembly fixes the FMA form: left alone, compilers also use the forms that overwrite a multiplicand, run out
 * of registers and spill accumulators (12 % slower). */
#if defined(__FMA__)
#define TILE_FMA(sum, x, y) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y))
#else
#define TILE_FMA(sum, x, y) ((sum) += (x) * (y))
#endif

/* AVX-512 can broadcast a memory operand inside the FMA, which saves an instruction and costs a load. Doing so in two
 * rows of three balances instructions and loads per cycle; doing it in none or in all is slower (docs/SPEED.md). */
#if defined(__AVX512F__)
#define BROADCASTS(i)          ((i) % 3 != 2)
#define TILE_FMA_AT(sum, p, y) __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(y), "m"(*(p)))
#else
#define BROADCASTS(i)          false
#define TILE_FMA_AT(sum, p, y) ((sum) += *(p) * (y))
#endif

/* Named variables, not arrays: they must stay in registers. */
#if defined(__AVX512F__)
#define TILE_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#else
#define TILE_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#endif

/* c [mr, nr] (+)= a [mr, kc] panel [kc, TILE_N]; next: to be prefetched into L2 */
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

/* Rows packed by tile_pack_left. Unused, like it, where amx.h computes the large GEMMs. */
__attribute__((unused)) static void tile_packed(int64_t mr, int64_t kc, const float *a, const float *panel,
                                                const float *next, float *c, int64_t ldc, int64_t nr, bool add)
{
    switch (mr) {
#define CASE(i)                                                                                                        \
    case (i) + 1: tile((i) + 1, kc, a, 1, TILE_M, panel, next, c, ldc, nr, add); break;
        TILE_ROWS(CASE)
#undef CASE
    }
}

/* Rows in place, not packed. */
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

/* c [m, n] (+)= a [m, kc] b, b packed as panels [ceil(n / TILE_N)][kc][TILE_N]; for small GEMMs: a is not packed */
static void tile_block(int64_t m, int64_t n, int64_t kc, struct view a, const float *b, float *c, int64_t ldc, bool add)
{
    for (int64_t j = 0; j < n; j += TILE_N)
        for (int64_t i = 0; i < m; i += TILE_M)
            tile_loose(min64(TILE_M, m - i), kc, a.p + i * a.rs, a.rs, a.cs, b + j * kc, c + i * ldc + j, ldc,
                       min64(TILE_N, n - j), add);
}

/* In-register 8 x 8 transpose. */
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

/* Where rows are contiguous, so many are packed at a time across all panels or tiles: each row is on another page, and
 * the TLB is small. */
enum { PACK_ROWS = 32 };

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

static void tile_pack_right(float *dst, struct view b, int64_t kc, int64_t n)
{
    int64_t along = b.cs == 1 ? n / TILE_N * TILE_N : 0;
    for (int64_t k0 = 0; along && k0 < kc; k0 += PACK_ROWS)
        for (int64_t j = 0; j < along; j += TILE_N)
            for (int64_t k = k0; k < min64(kc, k0 + PACK_ROWS); k++)
                memcpy(dst + j * kc + k * TILE_N, b.p + k * b.rs + j, TILE_N * sizeof *dst);
    for (int64_t j = along; j < n; j += TILE_N)
        pack_panel(dst + j * kc, (struct view){b.p + j * b.cs, b.rs, b.cs}, kc, min64(TILE_N, n - j));
}

enum { LEFT_SLACK = 32 }; /* floats after a packed left operand that may be overwritten */

/* dst [ceil(m / TILE_M)][kc][TILE_M] (+ LEFT_SLACK) from a [m, kc]; beyond row m it is undefined. */
__attribute__((unused)) static void tile_pack_left(float *dst, struct view a, int64_t m, int64_t kc)
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
                for (int j = 0; j < 8; j++) /* whole vectors past TILE_M: the next row overwrites the excess */
                    for (int g = 0; g < 2; g++)
                        if (8 * g < TILE_M) store8(dst + (k + j) * TILE_M + 8 * g, r[g][j]);
            }
        for (; k < kc; k++)
            for (int64_t j = 0; j < mr; j++) dst[k * TILE_M + j] = p[j * a.rs + k * a.cs];
    }
}

#endif
