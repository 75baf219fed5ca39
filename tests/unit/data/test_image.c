/* Limits, damage and the crops of training; the pixels themselves are checked in tests/golden/test_image.c.
 */
#include "base/rng.h"
#include "data/image.h"
#include "data/resize.h"
#include "picture_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct mode_error err;
static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;

static void test_limits_are_exact(void **state)
{
    (void)state;
    struct bytes j = fixture_jpeg(30, 20, 3, false, 1);
    struct mode_image im;
    struct mode_image_limits l = {.max_pixels = 600, .max_side = 30, .max_bytes = j.size};
    assert_int_equal(mode_image_decode(&im, j.data, j.size, &l, &err), MODE_OK);
    mode_image_clear(&im);
    l.max_pixels = 599;
    assert_int_equal(mode_image_decode(&im, j.data, j.size, &l, &err), MODE_E_VALUE);
    assert_null(im.rgb);
    l.max_pixels = 600;
    l.max_side = 29;
    assert_int_equal(mode_image_decode(&im, j.data, j.size, &l, &err), MODE_E_VALUE);
    l.max_side = 30;
    l.max_bytes = j.size - 1;
    assert_int_equal(mode_image_decode(&im, j.data, j.size, &l, &err), MODE_E_VALUE);
    free(j.data);
}

static void test_a_jpeg_of_many_scans_is_refused(void **state)
{
    (void)state;
    /* repeats the last scan of a progressive JPEG: each is small in the file and costs a pass over the picture */
    struct bytes j = fixture_jpeg(64, 64, 3, true, 2);
    size_t last = 0;
    for (size_t i = 0; i + 1 < j.size; i++)
        if (j.data[i] == 0xff && j.data[i + 1] == 0xda) last = i;
    const size_t scan = j.size - 2 - last;
    struct bytes bomb = {.size = last + scan * 200 + 2};
    bomb.data = malloc(bomb.size);
    memcpy(bomb.data, j.data, last);
    for (size_t i = 0; i < 200; i++) memcpy(bomb.data + last + i * scan, j.data + last, scan);
    memcpy(bomb.data + bomb.size - 2, "\xff\xd9", 2);
    struct mode_image im;
    assert_int_not_equal(mode_image_decode(&im, bomb.data, bomb.size, &limits, &err), MODE_OK);
    free(bomb.data);
    free(j.data);
}

static void test_every_cut_is_noticed(void **state)
{
    (void)state;
    struct bytes files[] = {fixture_jpeg(40, 24, 3, false, 3), fixture_jpeg(40, 24, 3, true, 3),
                            fixture_png(40, 24, 3)};
    for (size_t f = 0; f < 3; f++) {
        struct mode_image im;
        for (size_t n = 0; n < files[f].size; n += 11) {
            /* a PNG may lack its end marker */
            if (f == 2 && n + 12 >= files[f].size) break;
            uint8_t *exact = malloc(n ? n : 1); /* so that ASan catches a read past it */
            memcpy(exact, files[f].data, n);
            assert_int_equal(mode_image_decode(&im, exact, n, &limits, &err), MODE_E_FORMAT);
            free(exact);
        }
        free(files[f].data);
    }
}

/* From the structure alone; bytes after the end marker are ignored, a thumbnail's end marker is not the end. */
static void test_whole_files_are_told_from_cut_ones(void **state)
{
    (void)state;
    static const uint8_t thumbnail[] = {0xff, 0xe1, 0, 8, 0xff, 0xd8, 0xff, 0xd9, 0, 0};
    static const char riff[] = "RIFF\x10\0\0\0WEBPVP8 \4\0\0\0abc";
    struct bytes webp = {.data = malloc(sizeof riff), .size = sizeof riff};
    memcpy(webp.data, riff, sizeof riff);
    struct bytes files[] = {fixture_jpeg(40, 24, 3, false, 3), fixture_jpeg(40, 24, 3, true, 3), fixture_png(40, 24, 3),
                            webp};
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        uint8_t *more = calloc(1, files[f].size + sizeof thumbnail + 3);
        memcpy(more, files[f].data, files[f].size);
        assert_true(mode_image_is_whole(more, files[f].size));
        assert_true(mode_image_is_whole(more, files[f].size + 3));
        for (size_t n = 0; n < files[f].size; n++) {
            uint8_t *exact = malloc(n ? n : 1);
            memcpy(exact, files[f].data, n);
            assert_false(mode_image_is_whole(exact, n));
            free(exact);
        }
        if (f < 2) {
            memcpy(more + 2, thumbnail, sizeof thumbnail);
            memcpy(more + 2 + sizeof thumbnail, files[f].data + 2, files[f].size - 2);
            assert_true(mode_image_is_whole(more, files[f].size + sizeof thumbnail));
            assert_false(mode_image_is_whole(more, files[f].size / 2));
        }
        free(more);
        free(files[f].data);
    }
}

static void test_a_view_is_a_crop(void **state)
{
    (void)state;
    enum { W = 67, H = 51 };
    uint8_t *pixels = fixture_pixels(W, H, 3, 4);
    for (uint64_t k = 0; k < 300; k++) {
        struct mode_rng r = mode_rng_for(5, MODE_RNG_TEST, 0, k);
        const int w = 1 + (int)mode_rng_below(&r, W), h = 1 + (int)mode_rng_below(&r, H);
        const int x = (int)mode_rng_below(&r, (uint64_t)(W - w + 1)),
                  y = (int)mode_rng_below(&r, (uint64_t)(H - h + 1));
        const int ow = 1 + (int)mode_rng_below(&r, 60), oh = 1 + (int)mode_rng_below(&r, 60);
        struct mode_image crop = {.rgb = malloc((size_t)w * (size_t)h * 3), .width = w, .height = h}, out;
        for (int i = 0; i < h; i++)
            memcpy(crop.rgb + (size_t)i * (size_t)w * 3, pixels + ((size_t)(y + i) * W + (size_t)x) * 3, (size_t)w * 3);
        assert_int_equal(mode_image_resize(&out, &crop, ow, oh, 0, 0, w, h, &err), MODE_OK);
        const size_t last = ((size_t)(y + h - 1) * W + (size_t)(x + w)) * 3;
        const struct mode_rgb_view view = {.rgb = pixels + ((size_t)y * W + (size_t)x) * 3,
                                           .stride = W * 3,
                                           .tail = (size_t)W * H * 3 - last,
                                           .width = w,
                                           .height = h};
        uint8_t *direct = malloc((size_t)ow * (size_t)oh * 3);
        for (int simd = 0; simd < 2; simd++) {
            assert_int_equal(mode_resize_rgb(direct, ow, oh, &view, 0, 0, w, h, MODE_FILTER_BICUBIC, simd, &err),
                             MODE_OK);
            assert_memory_equal(direct, out.rgb, (size_t)ow * (size_t)oh * 3);
        }
        free(direct);
        mode_image_clear(&out);
        mode_image_clear(&crop);
    }
    free(pixels);
}

static enum mode_status train(const struct mode_preprocess *p, const struct mode_image *im, double scale_min,
                              double scale_max, uint64_t epoch, uint64_t sample, float *out)
{
    const struct mode_crop_draw draw = {
        .scale_min = scale_min, .scale_max = scale_max, .seed = 7, .epoch = epoch, .sample = sample};
    return mode_preprocess_train(p, im, &draw, out, &err);
}

/* A picture whose red is 4 x column and green 4 x row lets the crop be read off the result. */
static void test_training_crops(void **state)
{
    (void)state;
    enum { SIDE = 64, S = 16 };
    struct mode_image im = {.rgb = malloc(SIDE * SIDE * 3), .width = SIDE, .height = SIDE};
    struct mode_preprocess p = {.size = S, .mean = {0, 0, 0}, .std = {1, 1, 1}};
    for (int i = 0; i < SIDE * SIDE; i++) {
        im.rgb[i * 3] = (uint8_t)(i % SIDE * 4);
        im.rgb[i * 3 + 1] = (uint8_t)(i / SIDE * 4);
        im.rgb[i * 3 + 2] = 0;
    }
    float a[3 * S * S], b[3 * S * S];
    double area = 0, smallest = 1, largest = 0, aspect = 0;
    int n = 400;
    for (int k = 0; k < n; k++) {
        assert_int_equal(train(&p, &im, 0.3, 0.9, 1, (uint64_t)k, a), MODE_OK);
        assert_int_equal(train(&p, &im, 0.3, 0.9, 1, (uint64_t)k, b), MODE_OK);
        assert_memory_equal(a, b, sizeof a);
        /* the centres of the first and the last output column are 15/16 of the crop apart */
        const double w = (double)(a[8 * S + 14] - a[8 * S + 1]) * 255 / 4 / 13 * 16 / SIDE;
        const double h = (double)(a[S * S + 14 * S + 8] - a[S * S + S + 8]) * 255 / 4 / 13 * 16 / SIDE;
        assert_true(w / h > 0.70 && w / h < 1.42);
        area += w * h / n;
        aspect += log(w / h) / n;
        smallest = fmin(smallest, w * h);
        largest = fmax(largest, w * h);
    }
    assert_true(fabs(area - 0.6) < 0.03);
    assert_true(fabs(aspect) < 0.015); /* portrait as often as landscape */
    assert_true(smallest > 0.27 && smallest < 0.36 && largest > 0.84 && largest < 0.95);
    train(&p, &im, 0.3, 0.9, 2, 0, a);
    train(&p, &im, 0.3, 0.9, 1, 0, b);
    assert_memory_not_equal(a, b, sizeof a); /* another epoch, another crop */
    assert_int_equal(train(&p, &im, 0.9, 0.3, 1, 0, a), MODE_E_VALUE);

    im.width = 1; /* no crop fits: the centre at the nearest aspect */
    im.height = SIDE;
    assert_int_equal(train(&p, &im, 0.9, 1.0, 1, 0, a), MODE_OK);
    free(im.rgb);
}

/* One pixel of four: each is chosen equally often, by the seed. */
static void test_crops_reach_every_place(void **state)
{
    (void)state;
    uint8_t rgb[2 * 2 * 3] = {0};
    const struct mode_image im = {.rgb = rgb, .width = 2, .height = 2};
    const struct mode_preprocess p = {.size = 1, .std = {1, 1, 1}};
    int count[4] = {0}, moved = 0;
    for (int i = 0; i < 4; i++) rgb[i * 3] = (uint8_t)(85 * i);
    for (uint64_t k = 0; k < 400; k++) {
        struct mode_crop_draw draw = {.scale_min = 0.25, .scale_max = 0.25, .seed = 7, .sample = k};
        float a[3], b[3];
        assert_int_equal(mode_preprocess_train(&p, &im, &draw, a, &err), MODE_OK);
        draw.seed = 8;
        assert_int_equal(mode_preprocess_train(&p, &im, &draw, b, &err), MODE_OK);
        count[(int)lrintf(a[0] * 3)]++;
        moved += lrintf(a[0] * 3) != lrintf(b[0] * 3);
    }
    for (int i = 0; i < 4; i++) assert_in_range(count[i], 70, 130);
    assert_in_range(moved, 260, 340); /* three of four */
    int x, y, w, h;
    mode_crop_fallback(3, 64, &x, &y, &w, &h);
    assert_true(x == 0 && w == 3 && y == 30 && h == 4); /* 3 : 4, in the middle */
    mode_crop_fallback(64, 3, &x, &y, &w, &h);
    assert_true(x == 30 && w == 4 && y == 0 && h == 3);
}

/* Rows streamed from the decoder give the floats of the whole picture, whatever rows and columns are skipped. */
static void test_a_file_is_its_picture(void **state)
{
    (void)state;
    enum { S = 24 };
    float a[3 * S * S], b[3 * S * S];
    for (uint64_t k = 0; k < 400; k++) {
        struct mode_rng r = mode_rng_for(6, MODE_RNG_TEST, 0, k);
        const int w = 1 + (int)mode_rng_below(&r, 200), h = 1 + (int)mode_rng_below(&r, k % 3 == 0 ? 20 : 200);
        const struct fixture_jpeg_options o = {.channels = k % 10 == 0  ? 4
                                                           : k % 7 == 0 ? 1
                                                                        : 3,
                                               .h = 1 + (int)mode_rng_below(&r, k % 10 == 0 ? 2 : 4),
                                               .v = 1 + (int)mode_rng_below(&r, 2),
                                               .restart_rows = (int)mode_rng_below(&r, 3),
                                               .progressive = k % 5 == 0};
        struct bytes j = k % 11 == 0 ? fixture_png(w, h, k) : fixture_jpeg_as(w, h, &o, k);
        const struct mode_picture f = {.data = j.data, .size = j.size, .limits = &limits};
        struct mode_preprocess p;
        struct mode_image im;
        mode_preprocess_default(&p, S);
        p.resize_mode = k % 4 == 1 ? MODE_RESIZE_LONGEST : MODE_RESIZE_SHORTEST;
        p.filter = k % 6 == 1 ? MODE_FILTER_BILINEAR : MODE_FILTER_BICUBIC;
        p.fill = (uint8_t)k;
        assert_int_equal(mode_image_decode(&im, j.data, j.size, &limits, &err), MODE_OK);
        assert_int_equal(mode_preprocess_eval(&p, &im, a, &err), MODE_OK);
        assert_int_equal(mode_preprocess_eval_file(&p, &f, b, &err), MODE_OK);
        if (memcmp(a, b, sizeof a) != 0) fail_msg("evaluation, picture %d of %dx%d", (int)k, w, h);
        for (uint64_t sample = 0; sample < 3; sample++) {
            const struct mode_crop_draw draw = {.scale_min = 0.05, .scale_max = 1, .seed = k, .sample = sample};
            assert_int_equal(mode_preprocess_train(&p, &im, &draw, a, &err), MODE_OK);
            assert_int_equal(mode_preprocess_train_file(&p, &f, &draw, b, &err), MODE_OK);
            if (memcmp(a, b, sizeof a) != 0) fail_msg("training, picture %d of %dx%d", (int)k, w, h);
        }
        mode_image_clear(&im);
        /* damage outside the crop is noticed too */
        const struct mode_picture cut = {.data = j.data, .size = j.size - 14, .limits = &limits};
        if (k % 11 != 0 && mode_preprocess_eval_file(&p, &cut, b, &err) != MODE_E_FORMAT)
            fail_msg("the end of picture %d of %dx%d is not missed", (int)k, w, h);
        free(j.data);
    }
}

static void test_type_is_told_by_content(void **state)
{
    (void)state;
    assert_int_equal(mode_image_sniff((const uint8_t *)"<html><body>", 12), MODE_IMAGE_UNKNOWN);
    assert_int_equal(mode_image_sniff((const uint8_t *)"GIF89a......", 12), MODE_IMAGE_UNKNOWN);
    assert_int_equal(mode_image_sniff((const uint8_t *)"RIFF....WEBP", 12), MODE_IMAGE_WEBP);
    assert_int_equal(mode_image_sniff((const uint8_t *)"RIFF....WEBP", 11), MODE_IMAGE_UNKNOWN);
    assert_int_equal(mode_image_sniff((const uint8_t *)"\xff\xd8\xff", 3), MODE_IMAGE_JPEG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_are_exact),
        cmocka_unit_test(test_a_jpeg_of_many_scans_is_refused),
        cmocka_unit_test(test_every_cut_is_noticed),
        cmocka_unit_test(test_a_view_is_a_crop),
        cmocka_unit_test(test_training_crops),
        cmocka_unit_test(test_crops_reach_every_place),
        cmocka_unit_test(test_a_file_is_its_picture),
        cmocka_unit_test(test_type_is_told_by_content),
        cmocka_unit_test(test_whole_files_are_told_from_cut_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
