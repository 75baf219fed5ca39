#include "data/image_hash.h"

#include <math.h>
#include <stdlib.h>

enum {
    SIDE = MODE_IMAGE_HASH_SIDE,
    THUMB = MODE_IMAGE_HASH_THUMB,
    LOW = 8,
    BITS = LOW * LOW,
    PER = SIDE / THUMB,
    PIXELS = THUMB * THUMB
};

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Coefficients (1..8, 1..8) of the DCT-II; the scale of all of them is left out, for only their order counts. */
static void low_frequencies(double out[BITS], const double grey[SIDE * SIDE])
{
    double cosine[LOW][SIDE], across[SIDE][LOW] = {{0}};
    for (int k = 0; k < LOW; k++)
        for (int x = 0; x < SIDE; x++) cosine[k][x] = cos(acos(-1.0) * (k + 1) * (2 * x + 1) / (2 * SIDE));
    for (int y = 0; y < SIDE; y++)
        for (int k = 0; k < LOW; k++)
            for (int x = 0; x < SIDE; x++) across[y][k] += grey[y * SIDE + x] * cosine[k][x];
    for (int j = 0; j < LOW; j++)
        for (int k = 0; k < LOW; k++) {
            double sum = 0;
            for (int y = 0; y < SIDE; y++) sum += across[y][k] * cosine[j][y];
            out[j * LOW + k] = sum;
        }
}

void mode_image_hash_pixels(struct mode_image_hash *h, const float *pixels)
{
    enum { N = SIDE * SIDE };
    double grey[N], low[BITS], sorted[BITS];
    for (int i = 0; i < N; i++)
        grey[i] = 0.299 * (double)pixels[i] + 0.587 * (double)pixels[N + i] + 0.114 * (double)pixels[2 * N + i];
    low_frequencies(low, grey);
    for (int i = 0; i < BITS; i++) sorted[i] = low[i];
    qsort(sorted, BITS, sizeof *sorted, by_value);
    const double median = (sorted[BITS / 2 - 1] + sorted[BITS / 2]) / 2;
    h->bits = 0;
    for (int i = 0; i < BITS; i++) h->bits |= (uint64_t)(low[i] > median) << i;
    for (int i = 0; i < 3 * PIXELS; i++) {
        const int c = i / PIXELS, y = i / THUMB % THUMB, x = i % THUMB;
        double sum = 0;
        for (int k = 0; k < PER * PER; k++)
            sum += (double)pixels[c * N + (y * PER + k / PER) * SIDE + x * PER + k % PER];
        h->thumb[i] = (uint8_t)lrint(255 * sum / (PER * PER));
    }
}

enum mode_status mode_image_hash_file(struct mode_image_hash *h, const uint8_t *data, size_t size,
                                      const struct mode_image_limits *limits, struct mode_error *err)
{
    const struct mode_preprocess squash = {
        .size = SIDE, .std = {1, 1, 1}, .resize_mode = MODE_RESIZE_SQUASH, .filter = MODE_FILTER_BILINEAR};
    const struct mode_picture file = {.data = data, .size = size, .limits = limits};
    float pixels[3 * SIDE * SIDE];
    enum mode_status st = mode_preprocess_eval_file(&squash, &file, pixels, err);
    if (!st) mode_image_hash_pixels(h, pixels);
    return st;
}

int mode_image_hash_distance(uint64_t a, uint64_t b)
{
    return __builtin_popcountll(a ^ b);
}

#define INLINE static inline __attribute__((always_inline))

INLINE size_t scan_few(uint32_t *out, const uint64_t *hashes, size_t from, size_t to, uint64_t bits, int most)
{
    size_t found = 0;
    for (size_t i = from; i < to; i++)
        if (__builtin_popcountll(hashes[i] ^ bits) <= most) out[found++] = (uint32_t)i;
    return found;
}

/* One branch for a few hashes: it is seldom taken. */
INLINE size_t scan(uint32_t *out, const uint64_t *hashes, size_t n, uint64_t bits, int most)
{
    enum { FEW = 8 };
    size_t found = 0, i = 0;
    for (; i + FEW <= n; i += FEW) {
        int any = 0;
        for (size_t k = i; k < i + FEW; k++) any |= __builtin_popcountll(hashes[k] ^ bits) <= most;
        if (any) found += scan_few(out + found, hashes, i, i + FEW, bits, most);
    }
    return found + scan_few(out + found, hashes, i, n, bits, most);
}

#if defined(__x86_64__)
__attribute__((target("popcnt"))) static size_t scan_popcnt(uint32_t *out, const uint64_t *hashes, size_t n,
                                                            uint64_t bits, int most)
{
    return scan(out, hashes, n, bits, most);
}
#endif

size_t mode_image_hash_near(uint32_t *out, const uint64_t *hashes, size_t n, uint64_t bits, int most)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("popcnt")) return scan_popcnt(out, hashes, n, bits, most);
#endif
    return scan(out, hashes, n, bits, most);
}

/* Sums over values of a and b times n * n, for covariances in whole numbers: of each channel around its own mean, and
 * of all values around one mean. */
struct sums {
    int64_t aa, ab, bb;
};

static struct sums deviations(const uint8_t *a, const uint8_t *b, int n)
{
    int64_t sum_a = 0, sum_b = 0;
    struct sums s = {0};
    for (int i = 0; i < n; i++) {
        sum_a += a[i];
        sum_b += b[i];
        s.aa += a[i] * a[i];
        s.ab += a[i] * b[i];
        s.bb += b[i] * b[i];
    }
    return (struct sums){n * s.aa - sum_a * sum_a, n * s.ab - sum_a * sum_b, n * s.bb - sum_b * sum_b};
}

static struct sums by_channel(const uint8_t *a, const uint8_t *b)
{
    struct sums all = {0};
    for (int c = 0; c < 3; c++) {
        const struct sums s = deviations(a + c * PIXELS, b + c * PIXELS, PIXELS);
        all.aa += s.aa;
        all.ab += s.ab;
        all.bb += s.bb;
    }
    return all;
}

static double correlation(struct sums s)
{
    return s.aa > 0 && s.bb > 0 ? (double)s.ab / (sqrt((double)s.aa) * sqrt((double)s.bb)) : 0;
}

double mode_image_hash_contrast(const uint8_t *thumb)
{
    return sqrt((double)by_channel(thumb, thumb).aa / 3) / PIXELS;
}

static bool is_grey(const uint8_t *t)
{
    enum { NOISE = 6 }; /* levels, of chroma that JPEG leaves */
    for (int i = 0; i < PIXELS; i++) {
        const int r = t[i], g = t[PIXELS + i], b = t[2 * PIXELS + i];
        if (abs(r - g) > NOISE || abs(g - b) > NOISE || abs(r - b) > NOISE) return false;
    }
    return true;
}

static void make_grey(uint8_t *grey, const uint8_t *t)
{
    for (int i = 0; i < PIXELS; i++)
        grey[i] = (uint8_t)((299 * t[i] + 587 * t[PIXELS + i] + 114 * t[2 * PIXELS + i] + 500) / 1000);
}

double mode_image_hash_correlation(const uint8_t *a, const uint8_t *b)
{
    if (is_grey(a) || is_grey(b)) {
        uint8_t x[PIXELS], y[PIXELS];
        make_grey(x, a);
        make_grey(y, b);
        return correlation(deviations(x, y, PIXELS));
    }
    return fmin(correlation(by_channel(a, b)), correlation(deviations(a, b, 3 * PIXELS)));
}
