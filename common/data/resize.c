#include "data/resize.h"

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

enum { PRECISION = 32 - 8 - 2 }; /* fractional bits of a coefficient: 8 for the pixel, 2 for overshoot and sign */
enum { LOW_BITS = 15 };          /* a coefficient is split so that each part fits a 16-bit multiply */

/* The taps of one direction: output i is the sum of n[i] inputs from first[i] on, weighted by k[i * n_max
 * ...]. */
struct taps {
    int n_out, n_max; /* n_max is a multiple of 4; unused weights are 0 */
    int *first, *n;
    int32_t *k;
    int16_t *pairs; /* the AVX2 layouts, see below */
};

static double bicubic(double x)
{
    const double a = -0.5;
    if (x < 0.0) x = -x;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void taps_clear(struct taps *t)
{
    free(t->first);
    free(t->n);
    free(t->k);
    free(t->pairs);
    *t = (struct taps){0};
}

static enum mode_status taps_make(struct taps *t, int n_in, double in0, double in1, int n_out, struct mode_error *err)
{
    /* Pillow takes the box in single precision */
    const float lo = (float)in0, hi = (float)in1;
    const double scale = (double)(hi - lo) / n_out;
    const double stretch = scale < 1.0 ? 1.0 : scale;
    const double support = 2.0 * stretch;
    const double shrink = 1.0 / stretch;
    size_t n_max = ((size_t)ceil(support) * 2 + 1 + 3) / 4 * 4, count, bytes;
    *t = (struct taps){.n_out = n_out, .n_max = (int)n_max};
    double *w = NULL;
    if (mode_mul_size(n_max, (size_t)n_out, &count) && mode_mul_size(count, sizeof(int32_t), &bytes)) {
        t->first = malloc((size_t)n_out * sizeof *t->first);
        t->n = malloc((size_t)n_out * sizeof *t->n);
        t->k = calloc(count, sizeof *t->k);
        w = malloc(n_max * sizeof *w);
    }
    if (!t->first || !t->n || !t->k || !w) {
        free(w);
        taps_clear(t);
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the resize weights of %d to %d pixels", n_in, n_out);
    }
    for (int i = 0; i < n_out; i++) {
        const double centre = (double)lo + (i + 0.5) * scale;
        int first = (int)(centre - support + 0.5);
        int end = (int)(centre + support + 0.5);
        if (first < 0) first = 0;
        if (end > n_in) end = n_in;
        const int n = end - first;
        double sum = 0.0;
        for (int j = 0; j < n; j++) {
            w[j] = bicubic((j + first - centre + 0.5) * shrink);
            sum += w[j];
        }
        for (int j = 0; j < n; j++) {
            const double v = (sum != 0.0 ? w[j] / sum : w[j]) * (1 << PRECISION);
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
    const int32_t v = sum >> PRECISION;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void horizontal_plain(uint8_t *out, const uint8_t *row, const struct taps *t)
{
    for (int i = 0; i < t->n_out; i++, out += 3) {
        const int32_t *k = t->k + (size_t)i * (size_t)t->n_max;
        const uint8_t *p = row + (size_t)t->first[i] * 3;
        int32_t r = 1 << (PRECISION - 1), g = r, b = r;
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

static void vertical_plain(uint8_t *out, const uint8_t *rows, size_t stride, size_t n_bytes, const int32_t *k, int n)
{
    for (size_t x = 0; x < n_bytes; x++) {
        int32_t sum = 1 << (PRECISION - 1);
        for (int j = 0; j < n; j++) sum += rows[(size_t)j * stride + x] * k[j];
        out[x] = clip8(sum);
    }
}

#if HAVE_AVX2
/* DESIGN: a 22-bit weight is split into high * 2^15 + low, each of 16 bits, so that the 16-bit multiply-add
 * of a pair of taps does the work; the two sums are joined at the end. All of it is exact modulo 2^32 and the
 * true sum fits 32 bits, so the bytes are those of the plain path.
 *
 * Horizontal: four taps at a time. pairs holds, for each group of four taps, 16 low then 16 high parts in the
 * order (k0 k1) x 4, (k2 k3) x 4, which meets the pixels shuffled to (r0 r1) (g0 g1) (b0 b1) (0 0), (r2 r3)
 * ... Vertical: two rows at a time; pairs holds (low0 low1) and (high0 high1) for each two taps. */
static bool taps_pair(struct taps *t, bool horizontal)
{
    const size_t groups = (size_t)t->n_max / (horizontal ? 4 : 2), per = horizontal ? 32 : 4;
    t->pairs = malloc((size_t)t->n_out * groups * per * sizeof *t->pairs);
    if (!t->pairs) return false;
    for (int i = 0; i < t->n_out; i++) {
        for (size_t g = 0; g < groups; g++) {
            int16_t *p = t->pairs + ((size_t)i * groups + g) * per;
            const int32_t *k = t->k + (size_t)i * (size_t)t->n_max + g * (horizontal ? 4 : 2);
            for (size_t j = 0; j < per / 2; j++) {
                const int32_t v = horizontal ? k[(j & 1) + (j >= 8 ? 2 : 0)] : k[j];
                p[j] = (int16_t)(v & ((1 << LOW_BITS) - 1));
                p[j + per / 2] = (int16_t)(v >> LOW_BITS);
            }
        }
    }
    return true;
}

/* Reads up to 16 bytes from the first byte of each group of four taps: the caller sees to it that they exist.
 */
__attribute__((target("avx2"))) static void horizontal_avx2(uint8_t *out, const uint8_t *row, const struct taps *t)
{
    const __m128i order = _mm_setr_epi8(0, 3, 1, 4, 2, 5, -1, -1, 6, 9, 7, 10, 8, 11, -1, -1);
    const __m128i half = _mm_set1_epi32(1 << (PRECISION - 1));
    const size_t groups = (size_t)t->n_max / 4;
    for (int i = 0; i < t->n_out; i++, out += 3) {
        const uint8_t *p = row + (size_t)t->first[i] * 3;
        const int16_t *k = t->pairs + (size_t)i * groups * 32;
        __m256i low = _mm256_setzero_si256(), high = low;
        for (int j = 0; j < t->n[i]; j += 4, p += 12, k += 32) {
            const __m128i bytes = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), order);
            const __m256i px = _mm256_cvtepu8_epi16(bytes);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(px, _mm256_loadu_si256((const __m256i *)(const void *)k)));
            high = _mm256_add_epi32(high,
                                    _mm256_madd_epi16(px, _mm256_loadu_si256((const __m256i *)(const void *)(k + 16))));
        }
        const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low);
        __m128i v = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        v = _mm_srai_epi32(_mm_add_epi32(v, half), PRECISION);
        v = _mm_packus_epi16(_mm_packs_epi32(v, v), v);
        const uint32_t rgb = (uint32_t)_mm_cvtsi128_si32(v);
        out[0] = (uint8_t)rgb;
        out[1] = (uint8_t)(rgb >> 8);
        out[2] = (uint8_t)(rgb >> 16);
    }
}

__attribute__((target("avx2"))) static void vertical_avx2(uint8_t *out, const uint8_t *rows, size_t stride,
                                                          size_t n_bytes, const struct taps *t, int i)
{
    const __m256i half = _mm256_set1_epi32(1 << (PRECISION - 1));
    const int n = t->n[i];
    const int16_t *pairs = t->pairs + (size_t)i * (size_t)t->n_max / 2 * 4;
    size_t x = 0;
    for (; x + 16 <= n_bytes; x += 16) {
        __m256i low0 = _mm256_setzero_si256(), low1 = low0, high0 = low0, high1 = low0;
        const int16_t *k = pairs;
        for (int j = 0; j < n; j += 2, k += 4) {
            const uint8_t *p = rows + (size_t)j * stride + x;
            int32_t k_low, k_high;
            memcpy(&k_low, k, 4);
            memcpy(&k_high, k + 2, 4);
            const __m256i kl = _mm256_set1_epi32(k_low), kh = _mm256_set1_epi32(k_high);
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
        __m256i s0 = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(high0, LOW_BITS), low0), half);
        __m256i s1 = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(high1, LOW_BITS), low1), half);
        s0 = _mm256_srai_epi32(s0, PRECISION);
        s1 = _mm256_srai_epi32(s1, PRECISION);
        /* the packs work within 128-bit halves: 0..3 8..11 | 4..7 12..15, put right by the permutation */
        const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(s0, s1), _MM_SHUFFLE(3, 1, 2, 0));
        const __m128i v = _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
        _mm_storeu_si128((__m128i *)(void *)(out + x), v);
    }
    vertical_plain(out + x, rows + x, stride, n_bytes - x, t->k + (size_t)i * (size_t)t->n_max, n);
}
#else
static bool taps_pair(struct taps *t, bool horizontal)
{
    (void)t, (void)horizontal;
    return false;
}
static void horizontal_avx2(uint8_t *out, const uint8_t *row, const struct taps *t)
{
    horizontal_plain(out, row, t);
}
static void vertical_avx2(uint8_t *out, const uint8_t *rows, size_t stride, size_t n_bytes, const struct taps *t, int i)
{
    vertical_plain(out, rows, stride, n_bytes, t->k + (size_t)i * (size_t)t->n_max, t->n[i]);
}
#endif

static bool cpu_has_avx2(void)
{
#if HAVE_AVX2
    return __builtin_cpu_supports("avx2") != 0;
#else
    return false;
#endif
}

/* Bytes past the end of a row's last pixel that horizontal_avx2 may read: groups of four taps are read by 16
 * bytes. */
static size_t horizontal_overread(const struct taps *t, int n_in)
{
    size_t most = 0;
    for (int i = 0; i < t->n_out; i++) {
        size_t end = ((size_t)t->first[i] + ((size_t)t->n[i] + 3) / 4 * 4) * 3 + 4, row = (size_t)n_in * 3;
        if (end > row && end - row > most) most = end - row;
    }
    return most;
}

enum mode_status mode_resize_rgb(uint8_t *out, int width, int height, const struct mode_rgb_view *in, double x0,
                                 double y0, double x1, double y1, bool simd, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct taps across = {0}, down = {0};
    uint8_t *middle = NULL, *last_row = NULL;
    if (width < 1 || height < 1 || !(x0 >= 0 && y0 >= 0 && x1 > x0 && y1 > y0 && x1 <= in->width && y1 <= in->height))
        return MODE_FAIL(err, MODE_E_VALUE, "box (%g, %g)-(%g, %g) of a %dx%d picture cannot be resized to %dx%d", x0,
                         y0, x1, y1, in->width, in->height, width, height);
    const bool need_across = width != in->width || x0 != 0 || x1 != width;
    const bool need_down = height != in->height || y0 != 0 || y1 != height;
    const size_t row_bytes = (size_t)width * 3;
    simd = simd && cpu_has_avx2();

    const uint8_t *rows = in->rgb; /* of the vertical pass */
    size_t stride = in->stride;
    int first_row = 0, n_rows = in->height;
    if (need_down) {
        if ((st = taps_make(&down, in->height, y0, y1, height, err))) goto out;
        first_row = down.first[0]; /* only these rows are ever looked at */
        n_rows = down.first[height - 1] + down.n[height - 1] - first_row;
    }
    if (need_across) {
        if ((st = taps_make(&across, in->width, x0, x1, width, err))) goto out;
        size_t bytes;
        bool use = simd && taps_pair(&across, true);
        middle = mode_mul_size(row_bytes, (size_t)n_rows, &bytes) ? malloc(bytes) : NULL;
        const size_t over = horizontal_overread(&across, in->width), in_row = (size_t)in->width * 3;
        if (use) last_row = malloc(in_row + over);
        if (!middle || (use && !last_row)) {
            st = MODE_FAIL(err, MODE_E_MEMORY, "no memory to resize a picture to %dx%d", width, height);
            goto out;
        }
        for (int y = 0; y < n_rows; y++) {
            const uint8_t *row = in->rgb + (size_t)(y + first_row) * in->stride;
            uint8_t *to = middle + (size_t)y * row_bytes;
            if (!use) {
                horizontal_plain(to, row, &across);
                continue;
            }
            const size_t left = (size_t)(in->height - 1 - (y + first_row)) * in->stride + in->tail;
            if (left < over) { /* reading on would leave the picture's memory */
                memcpy(last_row, row, in_row);
                memset(last_row + in_row, 0, over);
                row = last_row;
            }
            horizontal_avx2(to, row, &across);
        }
        rows = middle;
        stride = row_bytes;
    } else
        rows += (size_t)first_row * in->stride;

    if (need_down) {
        const bool use = simd && taps_pair(&down, false);
        for (int y = 0; y < height; y++) {
            const uint8_t *from = rows + (size_t)(down.first[y] - first_row) * stride;
            uint8_t *to = out + (size_t)y * row_bytes;
            if (use)
                vertical_avx2(to, from, stride, row_bytes, &down, y);
            else
                vertical_plain(to, from, stride, row_bytes, down.k + (size_t)y * (size_t)down.n_max, down.n[y]);
        }
    } else
        for (int y = 0; y < height; y++) memcpy(out + (size_t)y * row_bytes, rows + (size_t)y * stride, row_bytes);
out:
    free(middle);
    free(last_row);
    taps_clear(&across);
    taps_clear(&down);
    return st;
}
