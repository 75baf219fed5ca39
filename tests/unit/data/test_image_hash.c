/* Descriptors of images: which changes they bear, which images they tell apart, and the search by Hamming distance. */
#include "base/rng.h"
#include "data/image_hash.h"
#include "picture_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { S = MODE_IMAGE_HASH_SIDE, N = S * S, DISTANCE = 10 };
#define CORRELATION 0.9

static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;

/* A scene of soft blobs of colour, a function of seed alone; clear of 0 and 1. */
static void scene(float *p, uint64_t seed)
{
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_TEST, 0, 0);
    for (int i = 0; i < 3 * N; i++) p[i] = 0.4f;
    for (int b = 0; b < 12; b++) {
        const double x = S * mode_rng_uniform(&r), y = S * mode_rng_uniform(&r), w = 2 + 5 * mode_rng_uniform(&r);
        for (int c = 0; c < 3; c++) {
            const double by = 0.24 * (mode_rng_uniform(&r) - 0.5);
            for (int i = 0; i < N; i++) {
                const double u = (i % S - x) / w, v = (i / S - y) / w;
                p[c * N + i] += (float)(by * exp(-u * u - v * v));
            }
        }
    }
}

static struct mode_image_hash of(const float *pixels)
{
    struct mode_image_hash h;
    mode_image_hash_pixels(&h, pixels);
    return h;
}

static bool is_near(const struct mode_image_hash *a, const struct mode_image_hash *b)
{
    return mode_image_hash_distance(a->bits, b->bits) <= DISTANCE &&
           mode_image_hash_correlation(a->thumb, b->thumb) >= CORRELATION;
}

/* The definition, by plain sums: DCT-II, coefficients 1..8 of both directions, above their median. */
static void test_the_hash_is_that_of_its_definition(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        float p[3 * N];
        double low[64];
        scene(p, seed);
        for (int k = 0; k < 64; k++) {
            low[k] = 0;
            for (int i = 0; i < N; i++)
                low[k] += ((double)p[i] * 0.299 + (double)p[N + i] * 0.587 + (double)p[2 * N + i] * 0.114) *
                          cos(M_PI * (i % S + 0.5) * (k % 8 + 1) / S) * cos(M_PI * (i / S + 0.5) * (k / 8 + 1) / S);
        }
        const struct mode_image_hash h = of(p);
        for (int k = 0; k < 64; k++) { /* above as many as there are halves */
            int above = 0;
            for (int j = 0; j < 64; j++) above += low[k] > low[j];
            assert_int_equal(h.bits >> k & 1, above >= 32);
        }
    }
}

static void test_thumbnails_are_means(void **state)
{
    (void)state;
    float p[3 * N];
    scene(p, 1);
    const struct mode_image_hash h = of(p);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < 16; y++)
            for (int x = 0; x < 16; x++) {
                const float *q = p + c * N + 2 * y * S + 2 * x;
                const double mean = 255 * ((double)q[0] + (double)q[1] + (double)q[S] + (double)q[S + 1]) / 4;
                assert_true(fabs(h.thumb[c * 256 + y * 16 + x] - mean) <= 0.501);
            }
}

static void test_edits_stay_near(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        float p[3 * N], q[3 * N];
        struct mode_rng r = mode_rng_for(seed, MODE_RNG_TEST, 1, 0);
        scene(p, seed);
        const struct mode_image_hash h = of(p);
        for (int i = 0; i < 3 * N; i++) q[i] = 1.2f * p[i];
        struct mode_image_hash other = of(q);
        assert_true(is_near(&h, &other));
        for (int i = 0; i < 3 * N; i++) q[i] = 0.6f * p[i] + 0.3f;
        other = of(q);
        assert_true(is_near(&h, &other));
        for (int i = 0; i < 3 * N; i++) q[i] = p[i] + (float)(0.02 * (mode_rng_uniform(&r) - 0.5));
        other = of(q);
        assert_true(is_near(&h, &other));
        for (int i = 0; i < 3 * N; i++) q[i] = 0.299f * p[i % N] + 0.587f * p[N + i % N] + 0.114f * p[2 * N + i % N];
        other = of(q);
        assert_true(is_near(&h, &other));
        assert_true(is_near(&other, &h));
    }
}

static void test_distinct_scenes_are_apart(void **state)
{
    (void)state;
    enum { SCENES = 200 };
    struct mode_image_hash *h = mode_xcalloc(SCENES, sizeof *h);
    float p[3 * N];
    for (uint64_t i = 0; i < SCENES; i++) {
        scene(p, i);
        h[i] = of(p);
    }
    for (int i = 0; i < SCENES; i++)
        for (int j = 0; j < i; j++) assert_false(is_near(&h[i], &h[j]));
    free(h);
}

/* What the hash cannot see: the same drawing of one luminance in other colours, and on another ground. */
static void test_colours_tell_drawings_apart(void **state)
{
    (void)state;
    static const float colours[][3] = {{0.9f, 0.2f, 0.2f}, {0.2f, 0.558f, 0.2f}, {0.2f, 0.4f, 1.0f}};
    struct mode_image_hash h[3];
    float p[3 * N];
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 3 * N; i++) {
            const int x = i % S, y = i / S % S;
            p[i] = x > 5 && x < 20 && y > 9 && y < 27 ? colours[k][i / N] : 0.9f;
        }
        h[k] = of(p);
    }
    for (int k = 1; k < 3; k++) {
        assert_true(mode_image_hash_distance(h[0].bits, h[k].bits) <= DISTANCE);
        assert_false(is_near(&h[0], &h[k]));
    }
    for (int k = 0; k < 2; k++) { /* one disc on two grounds: channels around their own mean alone would agree */
        for (int i = 0; i < 3 * N; i++) {
            const bool in = (i % S - 15) * (i % S - 15) + (i / S % S - 15) * (i / S % S - 15) < 80;
            p[i] = (in ? 0.5f : 0.2f) + (i / N == 2 * k ? 0.4f : 0);
        }
        h[k] = of(p);
    }
    assert_true(mode_image_hash_distance(h[0].bits, h[1].bits) <= DISTANCE);
    assert_false(is_near(&h[0], &h[1]));
}

/* Two saturated images of one colour: around one mean alone the colour would pass for structure. */
static void test_a_common_colour_is_no_structure(void **state)
{
    (void)state;
    uint8_t a[768], b[768];
    for (int i = 0; i < 768; i++) {
        a[i] = (uint8_t)(100 * (i / 256) + (i % 16 < 8 ? 0 : 12));
        b[i] = (uint8_t)(100 * (i / 256) + (i / 16 % 2 ? 0 : 12));
    }
    assert_true(fabs(mode_image_hash_correlation(a, b)) < 0.1);
    assert_true(fabs(mode_image_hash_correlation(a, a) - 1) < 1e-12);
}

static void test_contrast_and_constant_images(void **state)
{
    (void)state;
    uint8_t flat[768], half[768];
    for (int i = 0; i < 768; i++) {
        flat[i] = (uint8_t)(i / 256 * 100); /* saturated, and without structure */
        half[i] = i % 2 ? 110 : 90;
    }
    assert_true(mode_image_hash_contrast(flat) == 0);
    assert_true(fabs(mode_image_hash_contrast(half) - 10) < 1e-9);
    assert_true(mode_image_hash_correlation(flat, flat) == 0);
    assert_true(mode_image_hash_correlation(flat, half) == 0);
    for (int i = 0; i < 768; i++) flat[i] = (uint8_t)(200 - half[i]);
    assert_true(fabs(mode_image_hash_correlation(flat, half) + 1) < 1e-12);
}

static void test_the_search_finds_all_within_the_distance(void **state)
{
    (void)state;
    enum { HASHES = 5003 };
    uint64_t *hashes = mode_xcalloc(HASHES, sizeof *hashes);
    uint32_t *found = mode_xcalloc(HASHES, sizeof *found);
    struct mode_rng r = mode_rng_for(1, MODE_RNG_TEST, 2, 0);
    const uint64_t bits = mode_rng_u64(&r);
    for (int i = 0; i < HASHES; i++) {
        hashes[i] = bits;
        for (uint64_t n = mode_rng_below(&r, 30); n > 0; n--) hashes[i] ^= (uint64_t)1 << mode_rng_below(&r, 64);
    }
    hashes[0] = ~bits;
    hashes[HASHES - 1] = bits;
    for (int most = 0; most <= 64; most += 4) {
        const size_t n = mode_image_hash_near(found, hashes, HASHES, bits, most);
        size_t at = 0;
        for (uint32_t i = 0; i < HASHES; i++) {
            int distance = 0;
            for (int k = 0; k < 64; k++) distance += (hashes[i] >> k & 1) != (bits >> k & 1);
            assert_int_equal(mode_image_hash_distance(hashes[i], bits), distance);
            if (distance <= most) assert_int_equal(found[at++], i);
        }
        assert_int_equal(at, n);
    }
    free(hashes);
    free(found);
}

/* The way through the decoder: size, aspect ratio and file format do not matter. */
static void test_files(void **state)
{
    (void)state;
    struct mode_error err;
    struct mode_image_hash png, jpeg, again;
    struct bytes a = fixture_png(64, 48, 3), b = fixture_jpeg(64, 48, 3, false, 3), c = fixture_png(64, 48, 4);
    assert_int_equal(mode_image_hash_file(&png, a.data, a.size, &limits, &err), MODE_OK);
    assert_int_equal(mode_image_hash_file(&jpeg, b.data, b.size, &limits, &err), MODE_OK);
    assert_true(is_near(&png, &jpeg));
    assert_int_equal(mode_image_hash_file(&again, a.data, a.size, &limits, &err), MODE_OK);
    assert_memory_equal(again.thumb, png.thumb, sizeof png.thumb);
    assert_true(again.bits == png.bits);
    const struct mode_image_limits small = {.max_pixels = 100, .max_side = 100, .max_bytes = 1 << 20};
    assert_int_equal(mode_image_hash_file(&again, c.data, c.size, &small, &err), MODE_E_VALUE);
    assert_int_equal(mode_image_hash_file(&again, b.data, b.size / 2, &limits, &err), MODE_E_FORMAT);
    free(a.data);
    free(b.data);
    free(c.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_hash_is_that_of_its_definition),
        cmocka_unit_test(test_thumbnails_are_means),
        cmocka_unit_test(test_edits_stay_near),
        cmocka_unit_test(test_distinct_scenes_are_apart),
        cmocka_unit_test(test_colours_tell_drawings_apart),
        cmocka_unit_test(test_a_common_colour_is_no_structure),
        cmocka_unit_test(test_contrast_and_constant_images),
        cmocka_unit_test(test_the_search_finds_all_within_the_distance),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
