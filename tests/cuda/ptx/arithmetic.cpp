/* arithmetic.cpp - instructions that each lane does for itself: integers, floating point, conversions, predicates.
 *
 * Approximate instructions have an error within what the manual allows, drawn from their operand, so that a result that
 * needs more shows. */
#include "ptx.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace mode_ptx
{

namespace
{

template <typename To, typename From> To bits(From x)
{
    static_assert(sizeof(To) == sizeof(From), "the same size");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}

template <typename F> inline void each(uint32_t lanes, F f)
{
    if (lanes == ALL)
        for (int l = 0; l < WARP; l++) f(l);
    else
        for (uint32_t m = lanes; m; m &= m - 1) f(__builtin_ctz(m));
}

/* ---- one, two, three operands of one type ---- */

template <typename D, typename A, D (*F)(A)> void unary(warp &w, const insn &i, uint32_t lanes)
{
    D *d = w.row<D>(i.d);
    const A *a = w.row<A>(i.a);
    each(lanes, [=](int l) { d[l] = F(a[l]); });
}

template <typename D, typename A, D (*F)(A, A)> void binary(warp &w, const insn &i, uint32_t lanes)
{
    D *d = w.row<D>(i.d);
    const A *a = w.row<A>(i.a), *b = w.row<A>(i.b);
    each(lanes, [=](int l) { d[l] = F(a[l], b[l]); });
}

template <typename T, T (*F)(T, uint32_t)> void shift(warp &w, const insn &i, uint32_t lanes)
{
    T *d = w.row<T>(i.d);
    const T *a = w.row<T>(i.a);
    const uint32_t *b = w.row<uint32_t>(i.b);
    each(lanes, [=](int l) { d[l] = F(a[l], b[l]); });
}

template <typename D, typename A, D (*F)(A, A, D)> void ternary(warp &w, const insn &i, uint32_t lanes)
{
    D *d = w.row<D>(i.d);
    const A *a = w.row<A>(i.a), *b = w.row<A>(i.b);
    const D *c = w.row<D>(i.c);
    each(lanes, [=](int l) { d[l] = F(a[l], b[l], c[l]); });
}

using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s32 = int32_t;
using s64 = int64_t;
using std::string;

template <typename T> T add(T a, T b)
{
    return a + b;
}
template <typename T> T sub(T a, T b)
{
    return a - b;
}
template <typename T> T mul(T a, T b)
{
    return a * b;
}
template <typename T> T mad(T a, T b, T c)
{
    return a * b + c;
}
template <typename T> T quotient(T a, T b)
{
    return b == 0                                            ? (T)-1
           : b == (T)-1 && std::numeric_limits<T>::is_signed ? (T)(0 - (std::make_unsigned_t<T>)a)
                                                             : a / b;
}
template <typename T> T remainder_of(T a, T b)
{
    return b == 0 ? a : b == (T)-1 && std::numeric_limits<T>::is_signed ? 0 : a % b;
}
template <typename T> T least(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> T most(T a, T b)
{
    return a < b ? b : a;
}
template <typename T> T negative(T a)
{
    return (T)0 - a;
}
template <typename T> T absolute(T a)
{
    return a < 0 ? (T)0 - a : a;
}
template <typename T> T both(T a, T b)
{
    return a & b;
}
template <typename T> T either(T a, T b)
{
    return a | b;
}
template <typename T> T one_of(T a, T b)
{
    return a ^ b;
}
template <typename T> T inverse(T a)
{
    return ~a;
}
template <typename T> T same(T a)
{
    return a;
}
template <typename T> T left(T a, u32 by)
{
    return by >= 8 * sizeof(T) ? 0 : (T)(a << by);
}
template <typename T> T right(T a, u32 by)
{
    if (by >= 8 * sizeof(T)) return std::numeric_limits<T>::is_signed && a < 0 ? (T)-1 : (T)0;
    return (T)(a >> by);
}
template <typename D, typename A> D wide(A a, A b)
{
    return (D)a * (D)b;
}
template <typename D, typename A> D wide_mad(A a, A b, D c)
{
    return (D)a * (D)b + c;
}
u32 wide16(u32 a, u32 b)
{
    return (a & 0xffff) * (b & 0xffff);
}
u32 high_u32(u32 a, u32 b)
{
    return (u32)((u64)a * b >> 32);
}
s32 high_s32(s32 a, s32 b)
{
    return (s32)((s64)a * b >> 32);
}
u64 high_u64(u64 a, u64 b)
{
    return (u64)((unsigned __int128)a * b >> 64);
}
s64 high_s64(s64 a, s64 b)
{
    return (s64)((__int128)a * b >> 64);
}
u32 count(u32 a)
{
    return (u32)__builtin_popcount(a);
}
u32 leading(u32 a)
{
    return a ? (u32)__builtin_clz(a) : 32;
}
u32 reversed(u32 a)
{
    u32 r = 0;
    for (int k = 0; k < 32; k++) r |= (a >> k & 1) << (31 - k);
    return r;
}
u32 find_shift(u32 a)
{
    return a ? (u32)__builtin_clz(a) : 0xffffffffu;
} /* bfind.shiftamt */

const float nan32 = bits<float>(0x7fffffffu);

template <typename T> T fused(T a, T b, T c)
{
    return std::fma(a, b, c);
}
template <typename T> T divided(T a, T b)
{
    return a / b;
}
template <typename T> T root(T a)
{
    return std::sqrt(a);
}
template <typename T> T inverted(T a)
{
    return 1 / a;
}
float flip32(float a)
{
    return bits<float>(bits<u32>(a) ^ 0x80000000u);
}
double flip64(double a)
{
    return bits<double>(bits<u64>(a) ^ (u64)1 << 63);
}
float absolute32(float a)
{
    return bits<float>(bits<u32>(a) & 0x7fffffffu);
}
double absolute64(double a)
{
    return bits<double>(bits<u64>(a) & ~((u64)1 << 63));
}
/* One NaN: the other operand; -0 is less than 0 */
template <typename T> T least_float(T a, T b)
{
    if (a != a) return b != b ? std::numeric_limits<T>::quiet_NaN() : b;
    if (b != b) return a;
    return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <typename T> T most_float(T a, T b)
{
    if (a != a) return b != b ? std::numeric_limits<T>::quiet_NaN() : b;
    if (b != b) return a;
    return a > b || (a == b && !std::signbit(a)) ? a : b;
}
/* The sign of a, the magnitude of b */
u32 sign_of(u32 a, u32 b)
{
    return (a & 0x80000000u) | (b & 0x7fffffffu);
}

/* fma.rm: rounded down. The product is exact in double; the sum's rounding error tells the direction. */
float fused_down(float a, float b, float c)
{
    const double p = (double)a * b, s = p + (double)c;
    if (!std::isfinite(s)) return (float)s;
    const double part = s - p, error = (p - (s - part)) + ((double)c - part);
    const float f = (float)s;
    if (!std::isfinite(f)) return f;
    const bool above = (double)f > s || ((double)f == s && error < 0);
    return above ? std::nextafter(f, -INFINITY) : f;
}

float flushed(float x)
{
    return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}

/* Up to `Most` units in the last place beside the rounded value; what is a float is exact. */
template <int Most> float approximately(double exact, float seed)
{
    const float f = (float)exact;
    if (!std::isfinite(f) || (double)f == exact || std::fabs(f) < 0x1p-125f) return f;
    const u32 hash = bits<u32>(seed) * 2654435761u >> 16;
    return bits<float>(bits<u32>(f) + (hash % (2 * Most + 1)) - (u32)Most);
}
float power(float x)
{
    return approximately<1>(std::exp2((double)x), x);
}
float power_flushed(float x)
{
    return flushed(approximately<1>(std::exp2((double)flushed(x)), x));
}
float reciprocal_near(float x)
{
    return approximately<1>(1 / (double)x, x);
}
float reciprocal_flushed(float x)
{
    return flushed(approximately<1>(1 / (double)flushed(x), x));
}
float quotient_near(float a, float b) /* from 2^126 on the result is 0 */
{
    if (std::fabs(b) > 0x1p126f && std::isfinite(b)) return std::isinf(a) ? nan32 : std::copysign(0.0f, a * b);
    return approximately<2>((double)a / (double)b, b);
}
float logarithm(float x)
{
    return approximately<1>(std::log2((double)x), x);
}
float root_near(float x)
{
    return approximately<1>(std::sqrt((double)x), x);
}
float reciprocal_root(float x)
{
    return approximately<1>(1 / std::sqrt((double)x), x);
}
/* The upper 32 bits of operand and result alone count, and of these 20 of the mantissa. */
double reciprocal_gross(double x)
{
    return bits<double>(bits<u64>(1 / bits<double>(bits<u64>(x) & ~(u64)0xffffffffu)) & ~(u64)0xffffffffu);
}

/* ---- floating-point formats of 16 and 8 bits ---- */

u32 to_bf16(float x)
{
    const u32 u = bits<u32>(x);
    if (x != x) return 0x7fff;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
/* To `mantissa` bits and exponents down to `least`, to nearest even: as a float with these bits alone */
double to_bits(double x, int mantissa, int least_exponent)
{
    int e;
    if (x == 0 || !std::isfinite(x)) return x;
    std::frexp(x, &e);
    const int unit = std::max(e - 1, least_exponent) - mantissa;
    return std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
}
u32 to_small(float x, int exponent_bits, int mantissa, int bias)
{
    int e;
    const u32 sign = std::signbit(x) ? 1u << (exponent_bits + mantissa) : 0;
    const double r = std::fabs(to_bits((double)x, mantissa, 1 - bias));
    if (r == 0) return sign;
    std::frexp(r, &e);
    if (e - 1 < 1 - bias) return sign | (u32)std::ldexp(r, mantissa + bias - 1);
    return sign | (u32)(e - 1 + bias) << mantissa | ((u32)std::ldexp(r, mantissa + 1 - e) - (1u << mantissa));
}
u32 to_f16(float x)
{
    if (x != x) return 0x7fff;
    if (std::fabs(to_bits((double)x, 10, -14)) > 65504) return std::signbit(x) ? 0xfc00 : 0x7c00;
    return to_small(x, 5, 10, 15);
}
u32 to_e4m3(float x) /* satfinite */
{
    if (x != x) return 0x7f;
    return to_small(std::fmax(-448.0f, std::fmin(448.0f, x)), 4, 3, 7);
}
u32 to_e5m2(float x)
{
    if (x != x) return 0x7f;
    return to_small(std::fmax(-57344.0f, std::fmin(57344.0f, x)), 5, 2, 15);
}

template <u32 (*F)(float), int Bits> void pack(warp &w, const insn &i, uint32_t lanes)
{
    u32 *d = w.row<u32>(i.d);
    const float *a = w.row<float>(i.a), *b = w.row<float>(i.b);
    each(lanes, [=](int l) { d[l] = F(a[l]) << Bits | F(b[l]); });
}

float saturated(float x)
{
    return x > 0 ? x < 1 ? x : 1 : 0;
}
template <typename D, typename A> D cast(A a)
{
    return (D)a;
}
u32 low16_of_64(u64 a)
{
    return (u32)a & 0xffff;
}
u32 sub16(u32 a, u32 b)
{
    return (a - b) & 0xffff;
}
u32 low16(u32 a)
{
    return a & 0xffff;
}
s64 low_signed(u64 a)
{
    return (s32)(u32)a;
}
u64 low_unsigned(u64 a)
{
    return (u32)a;
}
s32 signed16(u32 a)
{
    return (s32)(int16_t)a;
}

/* Float to integer: out of range is the nearest, NaN is 0 (of 64 bits: the sign bit) */
template <typename D, typename A, A (*Round)(A)> D to_integer(A a)
{
    const A r = Round(a);
    if (r != r) return sizeof(D) == 8 ? (D)((u64)1 << 63) : (D)0;
    if ((double)r <= (double)std::numeric_limits<D>::min()) return std::numeric_limits<D>::min();
    if ((double)r >= (double)std::numeric_limits<D>::max()) return std::numeric_limits<D>::max();
    return (D)r;
}
template <typename T> T toward_zero(T a)
{
    return std::trunc(a);
}
template <typename T> T to_nearest(T a)
{
    return std::nearbyint(a);
}
template <typename T> T down(T a)
{
    return std::floor(a);
}
template <typename T> T up(T a)
{
    return std::ceil(a);
}

/* ---- moves ---- */

/* Halves of 16 (lists of 4-byte registers into one) or 32 bits (into 8 bytes) */
void join16(warp &w, const insn &i, uint32_t lanes)
{
    each(lanes,
         [&](int l) { w.row<u32>(i.d)[l] = (w.row<u32>(i.list[0])[l] & 0xffff) | w.row<u32>(i.list[1])[l] << 16; });
}
void join32(warp &w, const insn &i, uint32_t lanes)
{
    each(lanes, [&](int l) { w.row<u64>(i.d)[l] = w.row<u32>(i.list[0])[l] | (u64)w.row<u32>(i.list[1])[l] << 32; });
}
void halve16(warp &w, const insn &i, uint32_t lanes)
{
    each(lanes, [&](int l) {
        const u32 x = w.row<u32>(i.a)[l];
        if (i.list[0] != NONE) w.row<u32>(i.list[0])[l] = x & 0xffff;
        if (i.list[1] != NONE) w.row<u32>(i.list[1])[l] = x >> 16;
    });
}
void halve32(warp &w, const insn &i, uint32_t lanes)
{
    each(lanes, [&](int l) {
        const u64 x = w.row<u64>(i.a)[l];
        if (i.list[0] != NONE) w.row<u32>(i.list[0])[l] = (u32)x;
        if (i.list[1] != NONE) w.row<u32>(i.list[1])[l] = (u32)(x >> 32);
    });
}

/* ---- predicates ---- */

inline void set_mask(warp &w, uint32_t row, uint32_t lanes, uint32_t value)
{
    uint32_t *p = w.row<uint32_t>(row);
    *p = (*p & ~lanes) | (value & lanes);
}
void move_mask(warp &w, const insn &i, uint32_t lanes)
{
    set_mask(w, i.d, lanes, *w.row<u32>(i.a));
}
void not_mask(warp &w, const insn &i, uint32_t lanes)
{
    set_mask(w, i.d, lanes, ~*w.row<u32>(i.a));
}
void and_mask(warp &w, const insn &i, uint32_t lanes)
{
    set_mask(w, i.d, lanes, *w.row<u32>(i.a) & *w.row<u32>(i.b));
}
void or_mask(warp &w, const insn &i, uint32_t lanes)
{
    set_mask(w, i.d, lanes, *w.row<u32>(i.a) | *w.row<u32>(i.b));
}
void xor_mask(warp &w, const insn &i, uint32_t lanes)
{
    set_mask(w, i.d, lanes, *w.row<u32>(i.a) ^ *w.row<u32>(i.b));
}

enum comparison { EQ, NE, LT, LE, GT, GE };
template <typename T, comparison C, bool Unordered> bool holds(T a, T b)
{
    if (Unordered && (a != a || b != b)) return true;
    if (!Unordered && C == NE && (a != a || b != b)) return false;
    return C == EQ ? a == b : C == NE ? a != b : C == LT ? a < b : C == LE ? a <= b : C == GT ? a > b : a >= b;
}
template <typename T, comparison C, bool Unordered> void compare(warp &w, const insn &i, uint32_t lanes)
{
    const T *a = w.row<T>(i.a), *b = w.row<T>(i.b);
    uint32_t m = 0;
    each(lanes, [&](int l) { m |= (uint32_t)holds<T, C, Unordered>(a[l], b[l]) << l; });
    set_mask(w, i.d, lanes, m);
}
template <comparison C> void compare16(warp &w, const insn &i, uint32_t lanes)
{
    const u32 *a = w.row<u32>(i.a), *b = w.row<u32>(i.b);
    uint32_t m = 0;
    each(lanes, [&](int l) { m |= (uint32_t)holds<s32, C, false>(signed16(a[l]), signed16(b[l])) << l; });
    set_mask(w, i.d, lanes, m);
}
template <typename T> void select(warp &w, const insn &i, uint32_t lanes)
{
    T *d = w.row<T>(i.d);
    const T *a = w.row<T>(i.a), *b = w.row<T>(i.b);
    const uint32_t p = *w.row<uint32_t>(i.c);
    each(lanes, [=](int l) { d[l] = p >> l & 1 ? a[l] : b[l]; });
}

void insert_bits(warp &w, const insn &i, uint32_t lanes) /* bfi.b32 d, a, b, position, length */
{
    each(lanes, [&](int l) {
        const u32 a = w.row<u32>(i.a)[l], b = w.row<u32>(i.b)[l], at = w.row<u32>(i.c)[l] & 0xff,
                  n = w.row<u32>(i.e)[l] & 0xff;
        const u64 ones = at > 31 || n == 0 ? 0 : (((u64)1 << std::min<u32>(n, 32)) - 1) << at;
        w.row<u32>(i.d)[l] = (b & ~(u32)ones) | (u32)((u64)a << std::min<u32>(at, 32) & ones);
    });
}

void permute_bytes(warp &w, const insn &i, uint32_t lanes) /* prmt.b32, the default mode */
{
    each(lanes, [&](int l) {
        const u64 x = w.row<u32>(i.a)[l] | (u64)w.row<u32>(i.b)[l] << 32;
        const u32 how = w.row<u32>(i.c)[l];
        u32 d = 0;
        for (int k = 0; k < 4; k++) {
            const u32 s = how >> 4 * k & 15;
            u32 byte = (u32)(x >> 8 * (s & 7)) & 0xff;
            if (s & 8) byte = byte & 0x80 ? 0xff : 0;
            d |= byte << 8 * k;
        }
        w.row<u32>(i.d)[l] = d;
    });
}

struct entry {
    action run;
    int width; /* of immediates among the operands: 4 or 8; a shift's second is always 4 */
    enum unit unit;
    const char *shape; /* operands: d (result), a, b, c, e; p: a predicate's row */
};

#define U(D, A, F) unary<D, A, F>
#define B(D, A, F) binary<D, A, F>
#define T(D, A, F) ternary<D, A, F>
#define COMPARE(name, C)                                                                                               \
    {"setp." name ".s32", {compare<s32, C, false>, 4, INTEGER, "dab"}},                                                \
        {"setp." name ".u32", {compare<u32, C, false>, 4, INTEGER, "dab"}},                                            \
        {"setp." name ".b32", {compare<u32, C, false>, 4, INTEGER, "dab"}},                                            \
        {"setp." name ".s64", {compare<s64, C, false>, 8, INTEGER, "dab"}},                                            \
        {"setp." name ".u64", {compare<u64, C, false>, 8, INTEGER, "dab"}},                                            \
        {"setp." name ".b64", {compare<u64, C, false>, 8, INTEGER, "dab"}},                                            \
        {"setp." name ".s16", {compare16<C>, 4, INTEGER, "dab"}},                                                      \
        {"setp." name ".f32", {compare<float, C, false>, 4, FP32, "dab"}},                                             \
        {"setp." name ".f64", {compare<double, C, false>, 8, FP64, "dab"}},                                            \
        {"setp." name "u.f32", {compare<float, C, true>, 4, FP32, "dab"}},                                             \
    {                                                                                                                  \
        "setp." name "u.f64",                                                                                          \
        {                                                                                                              \
            compare<double, C, true>, 8, FP64, "dab"                                                                   \
        }                                                                                                              \
    }

const std::map<std::string, entry> table = {
    {"mov.b16", {U(u32, u32, same), 4, INTEGER, "da"}},
    {"mov.u16", {U(u32, u32, same), 4, INTEGER, "da"}},
    {"mov.b32", {U(u32, u32, same), 4, INTEGER, "da"}},
    {"mov.u32", {U(u32, u32, same), 4, INTEGER, "da"}},
    {"mov.s32", {U(u32, u32, same), 4, INTEGER, "da"}},
    {"mov.f32", {U(u32, u32, same), 4, INTEGER, "da"}},
    {"mov.b64", {U(u64, u64, same), 8, INTEGER, "da"}},
    {"mov.u64", {U(u64, u64, same), 8, INTEGER, "da"}},
    {"mov.f64", {U(u64, u64, same), 8, INTEGER, "da"}},
    {"mov.pred", {move_mask, 4, INTEGER, "da"}},
    {"cvta.to.global.u64", {U(u64, u64, same), 8, INTEGER, "da"}},
    {"cvta.local.u64", {U(u64, u64, same), 8, INTEGER, "da"}},
    {"add.s32", {B(u32, u32, add), 4, INTEGER, "dab"}},
    {"add.u32", {B(u32, u32, add), 4, INTEGER, "dab"}},
    {"add.s64", {B(u64, u64, add), 8, INTEGER, "dab"}},
    {"add.u64", {B(u64, u64, add), 8, INTEGER, "dab"}},
    {"sub.s32", {B(u32, u32, sub), 4, INTEGER, "dab"}},
    {"sub.u32", {B(u32, u32, sub), 4, INTEGER, "dab"}},
    {"sub.s16", {B(u32, u32, sub16), 4, INTEGER, "dab"}},
    {"sub.s64", {B(u64, u64, sub), 8, INTEGER, "dab"}},
    {"sub.u64", {B(u64, u64, sub), 8, INTEGER, "dab"}},
    {"mul.lo.s32", {B(u32, u32, mul), 4, INTEGER, "dab"}},
    {"mul.lo.u32", {B(u32, u32, mul), 4, INTEGER, "dab"}},
    {"mul.lo.s64", {B(u64, u64, mul), 8, INTEGER, "dab"}},
    {"mul.lo.u64", {B(u64, u64, mul), 8, INTEGER, "dab"}},
    {"mul.hi.u32", {B(u32, u32, high_u32), 4, INTEGER, "dab"}},
    {"mul.hi.s32", {B(s32, s32, high_s32), 4, INTEGER, "dab"}},
    {"mul.hi.u64", {B(u64, u64, high_u64), 8, INTEGER, "dab"}},
    {"mul.hi.s64", {B(s64, s64, high_s64), 8, INTEGER, "dab"}},
    {"mul.wide.s32", {B(s64, s32, wide), 4, INTEGER, "dab"}},
    {"mul.wide.u32", {B(u64, u32, wide), 4, INTEGER, "dab"}},
    {"mul.wide.u16", {B(u32, u32, wide16), 4, INTEGER, "dab"}},
    {"mad.lo.s32", {T(u32, u32, mad), 4, INTEGER, "dabc"}},
    {"mad.lo.u32", {T(u32, u32, mad), 4, INTEGER, "dabc"}},
    {"mad.lo.s64", {T(u64, u64, mad), 8, INTEGER, "dabc"}},
    {"mad.wide.s32", {T(s64, s32, wide_mad), 4, INTEGER, "dabc"}},
    {"mad.wide.u32", {T(u64, u32, wide_mad), 4, INTEGER, "dabc"}},
    {"div.s32", {B(s32, s32, quotient), 4, INTEGER, "dab"}},
    {"div.u32", {B(u32, u32, quotient), 4, INTEGER, "dab"}},
    {"div.s64", {B(s64, s64, quotient), 8, INTEGER, "dab"}},
    {"div.u64", {B(u64, u64, quotient), 8, INTEGER, "dab"}},
    {"rem.s32", {B(s32, s32, remainder_of), 4, INTEGER, "dab"}},
    {"rem.u32", {B(u32, u32, remainder_of), 4, INTEGER, "dab"}},
    {"rem.s64", {B(s64, s64, remainder_of), 8, INTEGER, "dab"}},
    {"rem.u64", {B(u64, u64, remainder_of), 8, INTEGER, "dab"}},
    {"min.s32", {B(s32, s32, least), 4, INTEGER, "dab"}},
    {"min.u32", {B(u32, u32, least), 4, INTEGER, "dab"}},
    {"min.s64", {B(s64, s64, least), 8, INTEGER, "dab"}},
    {"min.u64", {B(u64, u64, least), 8, INTEGER, "dab"}},
    {"max.s32", {B(s32, s32, most), 4, INTEGER, "dab"}},
    {"max.u32", {B(u32, u32, most), 4, INTEGER, "dab"}},
    {"max.s64", {B(s64, s64, most), 8, INTEGER, "dab"}},
    {"max.u64", {B(u64, u64, most), 8, INTEGER, "dab"}},
    {"neg.s32", {U(u32, u32, negative), 4, INTEGER, "da"}},
    {"neg.s64", {U(u64, u64, negative), 8, INTEGER, "da"}},
    {"abs.s32", {U(s32, s32, absolute), 4, INTEGER, "da"}},
    {"abs.s64", {U(s64, s64, absolute), 8, INTEGER, "da"}},
    {"and.b16", {B(u32, u32, both), 4, INTEGER, "dab"}},
    {"and.b32", {B(u32, u32, both), 4, INTEGER, "dab"}},
    {"and.b64", {B(u64, u64, both), 8, INTEGER, "dab"}},
    {"or.b16", {B(u32, u32, either), 4, INTEGER, "dab"}},
    {"or.b32", {B(u32, u32, either), 4, INTEGER, "dab"}},
    {"or.b64", {B(u64, u64, either), 8, INTEGER, "dab"}},
    {"xor.b32", {B(u32, u32, one_of), 4, INTEGER, "dab"}},
    {"xor.b64", {B(u64, u64, one_of), 8, INTEGER, "dab"}},
    {"not.b32", {U(u32, u32, inverse), 4, INTEGER, "da"}},
    {"not.b64", {U(u64, u64, inverse), 8, INTEGER, "da"}},
    {"and.pred", {and_mask, 4, INTEGER, "dab"}},
    {"or.pred", {or_mask, 4, INTEGER, "dab"}},
    {"xor.pred", {xor_mask, 4, INTEGER, "dab"}},
    {"not.pred", {not_mask, 4, INTEGER, "da"}},
    {"shl.b32", {shift<u32, left>, 4, INTEGER, "dab"}},
    {"shl.b64", {shift<u64, left>, 8, INTEGER, "dab"}},
    {"shr.u32", {shift<u32, right>, 4, INTEGER, "dab"}},
    {"shr.b32", {shift<u32, right>, 4, INTEGER, "dab"}},
    {"shr.s32", {shift<s32, right>, 4, INTEGER, "dab"}},
    {"shr.u64", {shift<u64, right>, 8, INTEGER, "dab"}},
    {"shr.b64", {shift<u64, right>, 8, INTEGER, "dab"}},
    {"shr.s64", {shift<s64, right>, 8, INTEGER, "dab"}},
    {"popc.b32", {U(u32, u32, count), 4, CONVERT, "da"}},
    {"clz.b32", {U(u32, u32, leading), 4, CONVERT, "da"}},
    {"brev.b32", {U(u32, u32, reversed), 4, CONVERT, "da"}},
    {"bfind.shiftamt.u32", {U(u32, u32, find_shift), 4, CONVERT, "da"}},
    {"bfi.b32", {insert_bits, 4, INTEGER, "dabce"}},
    {"prmt.b32", {permute_bytes, 4, INTEGER, "dabc"}},
    {"selp.b32", {select<u32>, 4, INTEGER, "dabp"}},
    {"selp.u32", {select<u32>, 4, INTEGER, "dabp"}},
    {"selp.s32", {select<u32>, 4, INTEGER, "dabp"}},
    {"selp.b16", {select<u32>, 4, INTEGER, "dabp"}},
    {"selp.u16", {select<u32>, 4, INTEGER, "dabp"}},
    {"selp.f32", {select<u32>, 4, INTEGER, "dabp"}},
    {"selp.b64", {select<u64>, 8, INTEGER, "dabp"}},
    {"selp.s64", {select<u64>, 8, INTEGER, "dabp"}},
    {"selp.f64", {select<u64>, 8, INTEGER, "dabp"}},
    COMPARE("eq", EQ),
    COMPARE("ne", NE),
    COMPARE("lt", LT),
    COMPARE("le", LE),
    COMPARE("gt", GT),
    COMPARE("ge", GE),
    {"add.f32", {B(float, float, add), 4, FP32, "dab"}},
    {"add.rn.f32", {B(float, float, add), 4, FP32, "dab"}},
    {"sub.f32", {B(float, float, sub), 4, FP32, "dab"}},
    {"sub.rn.f32", {B(float, float, sub), 4, FP32, "dab"}},
    {"mul.f32", {B(float, float, mul), 4, FP32, "dab"}},
    {"mul.rn.f32", {B(float, float, mul), 4, FP32, "dab"}},
    {"fma.rn.f32", {T(float, float, fused), 4, FP32, "dabc"}},
    {"fma.rm.f32", {T(float, float, fused_down), 4, FP32, "dabc"}},
    {"add.f64", {B(double, double, add), 8, FP64, "dab"}},
    {"add.rn.f64", {B(double, double, add), 8, FP64, "dab"}},
    {"sub.f64", {B(double, double, sub), 8, FP64, "dab"}},
    {"sub.rn.f64", {B(double, double, sub), 8, FP64, "dab"}},
    {"mul.f64", {B(double, double, mul), 8, FP64, "dab"}},
    {"mul.rn.f64", {B(double, double, mul), 8, FP64, "dab"}},
    {"fma.rn.f64", {T(double, double, fused), 8, FP64, "dabc"}},
    {"div.rn.f32", {B(float, float, divided), 4, SPECIAL, "dab"}},
    {"div.rn.f64", {B(double, double, divided), 8, FP64, "dab"}},
    {"rcp.rn.f32", {U(float, float, inverted), 4, SPECIAL, "da"}},
    {"rcp.rn.f64", {U(double, double, inverted), 8, FP64, "da"}},
    {"sqrt.rn.f32", {U(float, float, root), 4, SPECIAL, "da"}},
    {"sqrt.rn.f64", {U(double, double, root), 8, FP64, "da"}},
    {"div.approx.f32", {B(float, float, quotient_near), 4, SPECIAL, "dab"}},
    {"rcp.approx.f32", {U(float, float, reciprocal_near), 4, SPECIAL, "da"}},
    {"rcp.approx.ftz.f32", {U(float, float, reciprocal_flushed), 4, SPECIAL, "da"}},
    {"rcp.approx.ftz.f64", {U(double, double, reciprocal_gross), 8, SPECIAL, "da"}},
    {"ex2.approx.f32", {U(float, float, power), 4, SPECIAL, "da"}},
    {"ex2.approx.ftz.f32", {U(float, float, power_flushed), 4, SPECIAL, "da"}},
    {"lg2.approx.f32", {U(float, float, logarithm), 4, SPECIAL, "da"}},
    {"sqrt.approx.f32", {U(float, float, root_near), 4, SPECIAL, "da"}},
    {"rsqrt.approx.f32", {U(float, float, reciprocal_root), 4, SPECIAL, "da"}},
    {"neg.f32", {U(float, float, flip32), 4, FP32, "da"}},
    {"neg.f64", {U(double, double, flip64), 8, FP64, "da"}},
    {"abs.f32", {U(float, float, absolute32), 4, FP32, "da"}},
    {"abs.f64", {U(double, double, absolute64), 8, FP64, "da"}},
    {"min.f32", {B(float, float, least_float), 4, FP32, "dab"}},
    {"max.f32", {B(float, float, most_float), 4, FP32, "dab"}},
    {"min.f64", {B(double, double, least_float), 8, FP64, "dab"}},
    {"max.f64", {B(double, double, most_float), 8, FP64, "dab"}},
    {"copysign.f32", {B(u32, u32, sign_of), 4, INTEGER, "dab"}},
    {"cvt.s64.s32", {U(s64, s32, cast), 4, INTEGER, "da"}},
    {"cvt.u64.u32", {U(u64, u32, cast), 4, INTEGER, "da"}},
    {"cvt.s64.s32 of 64", {U(s64, u64, low_signed), 8, INTEGER, "da"}},
    {"cvt.u64.u32 of 64", {U(u64, u64, low_unsigned), 8, INTEGER, "da"}},
    {"cvt.u32.u64", {U(u32, u64, cast), 8, INTEGER, "da"}},
    {"cvt.s32.s64", {U(u32, u64, cast), 8, INTEGER, "da"}},
    {"cvt.u16.u32", {U(u32, u32, low16), 4, INTEGER, "da"}},
    {"cvt.u16.u64", {U(u32, u64, low16_of_64), 8, INTEGER, "da"}},
    {"cvt.u32.u16", {U(u32, u32, low16), 4, INTEGER, "da"}},
    {"cvt.s32.s16", {U(s32, u32, signed16), 4, INTEGER, "da"}},
    {"cvt.rn.f32.s32", {U(float, s32, cast), 4, CONVERT, "da"}},
    {"cvt.rn.f32.u32", {U(float, u32, cast), 4, CONVERT, "da"}},
    {"cvt.rn.f32.s64", {U(float, s64, cast), 8, CONVERT, "da"}},
    {"cvt.rn.f32.u64", {U(float, u64, cast), 8, CONVERT, "da"}},
    {"cvt.rn.f64.s32", {U(double, s32, cast), 4, CONVERT, "da"}},
    {"cvt.rn.f64.u32", {U(double, u32, cast), 4, CONVERT, "da"}},
    {"cvt.rn.f64.s64", {U(double, s64, cast), 8, CONVERT, "da"}},
    {"cvt.f64.f32", {U(double, float, cast), 4, CONVERT, "da"}},
    {"cvt.rn.f32.f64", {U(float, double, cast), 8, CONVERT, "da"}},
    {"cvt.sat.f32.f32", {U(float, float, saturated), 4, FP32, "da"}},
    {"cvt.rzi.f32.f32", {U(float, float, toward_zero), 4, CONVERT, "da"}},
    {"cvt.rni.f32.f32", {U(float, float, to_nearest), 4, CONVERT, "da"}},
    {"cvt.rmi.f32.f32", {U(float, float, down), 4, CONVERT, "da"}},
    {"cvt.rpi.f32.f32", {U(float, float, up), 4, CONVERT, "da"}},
    {"cvt.rni.s32.f32", {unary<s32, float, to_integer<s32, float, to_nearest>>, 4, CONVERT, "da"}},
    {"cvt.rzi.s32.f32", {unary<s32, float, to_integer<s32, float, toward_zero>>, 4, CONVERT, "da"}},
    {"cvt.rzi.s64.f32", {unary<s64, float, to_integer<s64, float, toward_zero>>, 4, CONVERT, "da"}},
    {"cvt.f32.bf16", {U(float, u32, bf16_to_float), 4, INTEGER, "da"}},
    {"cvt.rn.bf16.f32", {U(u32, float, to_bf16), 4, CONVERT, "da"}},
    {"cvt.rn.bf16x2.f32", {pack<to_bf16, 16>, 4, CONVERT, "dab"}},
    {"cvt.f32.f16", {U(float, u32, f16_to_float), 4, CONVERT, "da"}},
    {"cvt.rn.f16.f32", {U(u32, float, to_f16), 4, CONVERT, "da"}},
    {"cvt.rn.f16x2.f32", {pack<to_f16, 16>, 4, CONVERT, "dab"}},
    {"cvt.rn.satfinite.e4m3x2.f32", {pack<to_e4m3, 8>, 4, CONVERT, "dab"}},
    {"cvt.rn.satfinite.e5m2x2.f32", {pack<to_e5m2, 8>, 4, CONVERT, "dab"}},
};
#undef U
#undef B
#undef T
#undef COMPARE

/* Bytes per lane of the result's register; 0: a predicate */
int width_of_result(const statement &s, const entry &e)
{
    const string &base = s.words[0];
    if (base == "setp" || s.words.back() == "pred") return 0;
    if (s.has("wide")) return s.words.back() == "u16" ? 4 : 8;
    if (base != "cvt") return e.width;
    const string &to = s.words[s.words.size() - 2];
    return to == "s64" || to == "u64" || to == "f64" ? 8 : 4;
}

/* A register of another width than its type's would be read across lanes. */
void check_widths(const statement &s, const entry &e)
{
    for (size_t k = 0; k < s.operands.size(); k++) {
        const operand &o = s.operands[k];
        const bool is_amount = k == 2 && (s.words[0] == "shl" || s.words[0] == "shr"), is_sum = k == 3 && s.has("wide");
        const int expected = e.shape[k] == 'd'                               ? width_of_result(s, e)
                             : e.shape[k] == 'p' || s.words.back() == "pred" ? 0
                             : is_amount                                     ? 4
                             : is_sum                                        ? 8
                                                                             : e.width;
        if (!o.is_immediate && o.width != expected) s.unknown();
    }
}

bool decode_pair(const statement &s, insn &i)
{
    if (s.words[0] != "mov" || s.operands.size() != 2) return false;
    const bool joins = s.operands[1].is_list, halves = s.operands[0].is_list;
    if (!joins && !halves) return false;
    const bool is_64 = s.words[1] == "b64";
    if (!is_64 && s.words[1] != "b32") s.unknown();
    i.list = s.operands[joins ? 1 : 0].rows;
    if (i.list.size() != 2) s.unknown();
    if (joins)
        i.d = s.operands[0].rows[0];
    else
        i.a = s.operands[1].rows[0];
    i.run = joins ? is_64 ? join32 : join16 : is_64 ? halve32 : halve16;
    return true;
}

} // namespace

float bf16_to_float(uint32_t h)
{
    return bits<float>(h << 16);
}

float f16_to_float(uint32_t h)
{
    static const std::vector<float> table = [] {
        std::vector<float> t(65536);
        for (u32 k = 0; k < 65536; k++) {
            const u32 e = k >> 10 & 31, m = k & 1023;
            const float x = e == 31 ? m ? NAN : INFINITY
                            : e     ? std::ldexp((float)(m | 1024), (int)e - 25)
                                    : std::ldexp((float)m, -24);
            t[k] = k & 0x8000 ? -x : x;
        }
        return t;
    }();
    return table[h & 0xffff];
}

bool decode_arithmetic(const statement &s, insn &i)
{
    if (decode_pair(s, i)) return true;
    /* cvt takes the low half of a wider register, too */
    const bool is_wide = s.words[0] == "cvt" && s.words.back()[1] == '3' && s.at(1).width == 8;
    const auto found = table.find(is_wide ? s.op + " of 64" : s.op);
    if (found == table.end()) return false;
    const entry &e = found->second;
    if (s.operands.size() != strlen(e.shape)) s.unknown();
    check_widths(s, e);
    for (size_t k = 0; k < s.operands.size(); k++) {
        const operand &o = s.operands[k];
        if (o.is_list || o.is_address) s.unknown();
        const bool is_amount = k == 2 && (s.words[0] == "shl" || s.words[0] == "shr");
        const uint32_t row = o.is_immediate && e.width == 8 && !is_amount ? o.second : o.rows[0];
        switch (e.shape[k]) {
        case 'd': i.d = row; break;
        case 'a': i.a = row; break;
        case 'b': i.b = row; break;
        case 'e': i.e = row; break;
        default: i.c = row; break; /* c, p */
        }
    }
    /* the third operand of mad.wide has 8 bytes per lane, its factors 4 */
    if (s.words[0] == "mad" && s.words[1] == "wide" && s.operands[3].is_immediate) i.c = s.operands[3].second;
    i.run = e.run;
    i.unit = e.unit;
    return true;
}

} // namespace mode_ptx
