#include "data/resize_taps.h"

#include "tensor/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define HAVE_AVX2 1
#else
#define HAVE_AVX2 0
#endif

enum { LOW_BITS = 15 }; /* a weight is split so that each part fits a 16-bit multiply */

static double bicubic(double x)
{
    const double a = -0.5;
    if (x < 0.0) x = -x;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double bilinear(double x)
{
    if (x < 0.0) x = -x;
    return x < 1.0 ? 1.0 - x : 0.0;
}

void mode_taps_clear(struct mode_taps *t)
{
    free(t->first);
    free(t->n);
    free(t->k);
    free(t->split);
    *t = (struct mode_taps){0};
}

enum mode_status mode_taps_make(struct mode_taps *t, int n_in, double in0, double in1, int n_all, int at, int n_out,
                                enum mode_filter filter, struct mode_error *err)
{
    /* Pillow uses the box in single precision */
    const float lo = (float)in0, hi = (float)in1;
    const double scale = (double)(hi - lo) / n_all;
    const double stretch = scale < 1.0 ? 1.0 : scale;
    const double support = (filter == MODE_FILTER_BICUBIC ? 2.0 : 1.0) * stretch;
    const double shrink = 1.0 / stretch;
    double (*const weight)(double) = filter == MODE_FILTER_BICUBIC ? bicubic : bilinear;
    size_t n_max = ((size_t)ceil(support) * 2 + 1 + 3) / 4 * 4, count, bytes;
    *t = (struct mode_taps){.n_out = n_out, .n_max = (int)n_max};
    double *w = NULL;
    if (mode_mul_size(n_max, (size_t)n_out, &count) && mode_mul_size(count, sizeof(int32_t), &bytes)) {
        t->first = malloc((size_t)n_out * sizeof *t->first);
        t->n = malloc((size_t)n_out * sizeof *t->n);
        t->k = calloc(count, sizeof *t->k);
        w = malloc(n_max * sizeof *w);
    }
    if (!t->first || !t->n || !t->k || !w) {
        free(w);
        mode_taps_clear(t);
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the resize weights of %d to %d pixels", n_in, n_all);
    }
    for (int i = 0; i < n_out; i++) {
        const double centre = (double)lo + (at + i + 0.5) * scale;
        int first = (int)(centre - support + 0.5);
        int end = (int)(centre + support + 0.5);
        if (first < 0) first = 0;
        if (end > n_in) end = n_in;
        const int n = end - first;
        double sum = 0.0;
        for (int j = 0; j < n; j++) {
            w[j] = weight((j + first - centre + 0.5) * shrink);
            sum += w[j];
        }
        for (int j = 0; j < n; j++) {
            const double v = (sum != 0.0 ? w[j] / sum : w[j]) * (1 << MODE_TAPS_BITS);
            t->k[(size_t)i * n_max + (size_t)j] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
        t->first[i] = first;
        t->n[i] = n;
    }
    free(w);
    return MODE_OK;
}

static uint8_t clip8(int32_t sum)
{
    const int32_t v = sum >> MODE_TAPS_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void across_plain(uint8_t *out, const uint8_t *row, int column, const struct mode_taps *t)
{
    for (int i = 0; i < t->n_out; i++, out += 3) {
        const int32_t *k = t->k + (size_t)i * (size_t)t->n_max;
        const uint8_t *p = row + (size_t)(t->first[i] - column) * 3;
        int32_t r = 1 << (MODE_TAPS_BITS - 1), g = r, b = r;
        for (int j = 0; j < t->n[i]; j++, p += 3) {
            r += p[0] * k[j];
            g += p[1] * k[j];
            b += p[2] * k[j];
        }
        out[0] = clip8(r);
        out[1] = clip8(g);
        out[2] = clip8(b);
    }
}

static void down_plain(uint8_t *out, const uint8_t *rows, size_t stride, size_t n_bytes, const int32_t *k, int n)
{
    for (size_t x = 0; x < n_bytes; x++) {
        int32_t sum = 1 << (MODE_TAPS_BITS - 1);
        for (int j = 0; j < n; j++) sum += rows[(size_t)j * stride + x] * k[j];
        out[x] = clip8(sum);
    }
}

#if HAVE_AVX2
/* DESIGN: a 22-bit weight is split into high * 2^15 + low, each of 16 bits, so that the 16-bit multiply-add
 * of a pair of taps can be used; the two sums are combined at the end. All of it is exact modulo 2^32 and the true sum
 * fits 32 bits, so results are bit-identical to the plain path.
 *
 * Across: two rows at a time, one in each half of a register, four taps at a time, four outputs before they
 * are packed. split holds low k0 k1, low k2 k3, high k0 k1, high k2 k3 for each group of four taps. Down: two
 * rows at a time; split holds low k0 k1, high k0 k1 for each two taps. */
bool mode_taps_split(struct mode_taps *t, bool across)
{
    const size_t n = (size_t)t->n_max * (size_t)t->n_out, per = across ? 4 : 2;
    t->split = malloc(n * 2 * sizeof *t->split);
    if (!t->split) return false;
    for (size_t g = 0; g < n; g += per) {
        for (size_t j = 0; j < per; j++) {
            const int32_t v = t->k[g + j], low = v & ((1 << LOW_BITS) - 1);
            t->split[g * 2 + j] = (int16_t)low;
            t->split[g * 2 + per + j] = (int16_t)((v - low) >> LOW_BITS);
        }
    }
    return true;
}

bool mode_taps_have_avx2(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

__attribute__((target("avx2"))) static inline __m256i weights(const int16_t *k)
{
    int32_t pair;
    memcpy(&pair, k, 4);
    return _mm256_set1_epi32(pair);
}

/* One output pixel of two rows: r g b x of each, before the shift. */
__attribute__((target("avx2"))) static inline __m256i across_one(const uint8_t *a, const uint8_t *b, int column,
                                                                 const struct mode_taps *t, int i)
{
    const __m256i take01 = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 0, -1, 3, -1, 1,
                                            -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m256i take23 = _mm256_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1, 6, -1, 9, -1, 7,
                                            -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const int16_t *k = t->split + (size_t)i * (size_t)t->n_max * 2;
    const size_t at = (size_t)(t->first[i] - column) * 3;
    __m256i low = _mm256_set1_epi32(1 << (MODE_TAPS_BITS - 1)), high = _mm256_setzero_si256();
    a += at;
    b += at;
    for (int j = 0; j < t->n[i]; j += 4, a += 12, b += 12, k += 8) {
        const __m256i px = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)a)),
            _mm_loadu_si128((const __m128i *)(const void *)b), 1);
        const __m256i p01 = _mm256_shuffle_epi8(px, take01), p23 = _mm256_shuffle_epi8(px, take23);
        low = _mm256_add_epi32(
            low, _mm256_add_epi32(_mm256_madd_epi16(p01, weights(k)), _mm256_madd_epi16(p23, weights(k + 2))));
        high = _mm256_add_epi32(
            high, _mm256_add_epi32(_mm256_madd_epi16(p01, weights(k + 4)), _mm256_madd_epi16(p23, weights(k + 6))));
    }
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low), MODE_TAPS_BITS);
}

__attribute__((target("avx2"))) static void across_avx2(uint8_t *out_a, uint8_t *out_b, const uint8_t *a,
                                                        const uint8_t *b, int column, const struct mode_taps *t)
{
    const __m256i join = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5, 6, 8,
                                          9, 10, 12, 13, 14, -1, -1, -1, -1);
    const int last = t->n_out - 1;
    for (int i = 0; i <= last; i += 4, out_a += 12, out_b += 12) {
        __m256i s[4];
        for (int c = 0; c < 4; c++) s[c] = across_one(a, b, column, t, i + c < last ? i + c : last);
        const __m256i four = _mm256_packus_epi16(_mm256_packs_epi32(s[0], s[1]), _mm256_packs_epi32(s[2], s[3]));
        const __m256i done = _mm256_shuffle_epi8(four, join);
        _mm_storeu_si128((__m128i *)(void *)out_a, _mm256_castsi256_si128(done));
        _mm_storeu_si128((__m128i *)(void *)out_b, _mm256_extracti128_si256(done, 1));
    }
}

__attribute__((target("avx2"))) static void down_avx2(uint8_t *out, const uint8_t *rows, size_t stride, size_t n_bytes,
                                                      const struct mode_taps *t, int i)
{
    const __m256i half = _mm256_set1_epi32(1 << (MODE_TAPS_BITS - 1));
    const int n = t->n[i];
    const int16_t *split = t->split + (size_t)i * (size_t)t->n_max * 2;
    size_t x = 0;
    for (; x + 16 <= n_bytes; x += 16) {
        __m256i low0 = half, low1 = half, high0 = _mm256_setzero_si256(), high1 = high0;
        const int16_t *k = split;
        const uint8_t *p = rows + x;
        for (int j = 0; j < n; j += 2, k += 4, p += 2 * stride) {
            const __m256i kl = weights(k), kh = weights(k + 2);
            const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)p);
            /* the weight of a row past the last tap is 0 */
            const __m128i b = j + 1 < n ? _mm_loadu_si128((const __m128i *)(const void *)(p + stride)) : a;
            const __m256i p0 = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
            const __m256i p1 = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
            low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(p0, kl));
            low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(p1, kl));
            high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(p0, kh));
            high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(p1, kh));
        }
        const __m256i s0 = _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high0, LOW_BITS), low0),
                                             MODE_TAPS_BITS);
        const __m256i s1 = _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high1, LOW_BITS), low1),
                                             MODE_TAPS_BITS);
        /* the packs work within 128-bit halves: 0..3 8..11 | 4..7 12..15, reordered by the permutation */
        const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(s0, s1), _MM_SHUFFLE(3, 1, 2, 0));
        const __m128i v = _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
        _mm_storeu_si128((__m128i *)(void *)(out + x), v);
    }
    down_plain(out + x, rows + x, stride, n_bytes - x, t->k + (size_t)i * (size_t)t->n_max, n);
}
#else
bool mode_taps_have_avx2(void)
{
    return false;
}
bool mode_taps_split(struct mode_taps *t, bool across)
{
    (void)t, (void)across;
    return false;
}
static void across_avx2(uint8_t *out_a, uint8_t *out_b, const uint8_t *a, const uint8_t *b, int column,
                        const struct mode_taps *t)
{
    across_plain(out_a, a, column, t);
    across_plain(out_b, b, column, t);
}
static void down_avx2(uint8_t *out, const uint8_t *rows, size_t stride, size_t n_bytes, const struct mode_taps *t,
                      int i)
{
    down_plain(out, rows, stride, n_bytes, t->k + (size_t)i * (size_t)t->n_max, t->n[i]);
}
#endif

void mode_taps_across(uint8_t *out, size_t out_stride, const uint8_t *in, size_t in_stride, int column, int n,
                      const struct mode_taps *t)
{
    if (!t->split) {
        for (int y = 0; y < n; y++) across_plain(out + (size_t)y * out_stride, in + (size_t)y * in_stride, column, t);
        return;
    }
    for (int y = 0; y < n; y += 2) { /* an odd last row is computed twice */
        const size_t a = (size_t)y, b = y + 1 < n ? a + 1 : a;
        across_avx2(out + a * out_stride, out + b * out_stride, in + a * in_stride, in + b * in_stride, column, t);
    }
}

void mode_taps_down(uint8_t *out, const uint8_t *rows, size_t stride, size_t n_bytes, const struct mode_taps *t, int i)
{
    if (t->split)
        down_avx2(out, rows, stride, n_bytes, t, i);
    else
        down_plain(out, rows, stride, n_bytes, t->k + (size_t)i * (size_t)t->n_max, t->n[i]);
}
