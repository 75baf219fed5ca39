/* Boxes of faces: what a sample's JSON may say, and what the blur does and leaves alone. */
#include "data/face_boxes.h"
#include "picture_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct mode_error err;
static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;

static bool parse(const char *text, struct mode_box **boxes, uint32_t *n, char why[120])
{
    json_t *v = text ? json_loads(text, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL) : NULL;
    const bool ok = mode_face_boxes(boxes, n, v, 200, 100, why, 120);
    json_decref(v);
    return ok;
}

static void test_what_a_box_may_be(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t n;
        struct mode_box first;
    } good[] = {{NULL, 0, {0}},
                {"null", 0, {0}},
                {"[]", 0, {0}},
                {"[[10, 20, 30, 40]]", 1, {10, 20, 30, 40}},
                {"[10, 20, 30.5, 40, 0.99]", 1, {10, 20, 31, 40}},  /* one box alone, with a score */
                {"[[0.25, 0.5, 0.5, 1.0]]", 1, {50, 50, 100, 100}}, /* relative */
                {"[[0, 0, 1, 1], [0, 0, 2, 2]]", 2, {0, 0, 1, 1}},  /* one pixel number: all are pixels */
                {"[[-5, -5, 20, 20]]", 1, {0, 0, 20, 20}},          /* clipped */
                {"[[150, 50, 1e30, 1000]]", 1, {150, 50, 200, 100}},
                {"[[300, 300, 400, 400], [5, 5, 5, 9]]", 0, {0}}}; /* outside, empty */
    static const char *const bad[] = {"3",
                                      "\"x\"",
                                      "{}",
                                      "[[1, 2, 3]]",
                                      "[[1, 2, 3, \"4\"]]",
                                      "[[1, 2, 3, 4, 5, 6]]",
                                      "[[30, 20, 10, 40]]",
                                      "[[1, 2, 3, 4], null]"};
    struct mode_box *boxes;
    uint32_t n;
    char why[120];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (!parse(good[i].text, &boxes, &n, why)) fail_msg("%s: %s", good[i].text, why);
        assert_int_equal(n, good[i].n);
        if (n) assert_memory_equal(boxes, &good[i].first, sizeof *boxes);
        free(boxes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        why[0] = '\0';
        assert_false(parse(bad[i], &boxes, &n, why));
        assert_true(why[0] != '\0' && boxes == NULL && n == 0);
    }
}

/* Squares of 4 pixels, black and white: blurred neighbours become similar. */
static void test_inside_is_hidden_and_outside_stays(void **state)
{
    (void)state;
    enum { W = 160, H = 120 };
    struct mode_image im = {.rgb = malloc(W * H * 3), .width = W, .height = H};
    const struct mode_box box = {40, 30, 80, 70}; /* side 40: grows by 4, blurs over 3 * 4 more */
    for (int i = 0; i < W * H * 3; i++) im.rgb[i] = (uint8_t)((i / 3 % W / 4 + i / 3 / W / 4) % 2 ? 255 : 0);
    assert_int_equal(mode_faces_blur(&im, &box, 1, &err), MODE_OK);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            const int v = im.rgb[(y * W + x) * 3], was = (x / 4 + y / 4) % 2 ? 255 : 0;
            if (x < 40 - 16 || x >= 80 + 16 || y < 30 - 16 || y >= 70 + 16)
                assert_int_equal(v, was);
            else if (x >= 48 && x < 72 && y >= 38 && y < 62)
                assert_true(v > 90 && v < 165);
        }
    const struct mode_box all = {0, 0, W, H}, point = {7, 7, 8, 8}, outside = {0, 0, W + 1, 5};
    assert_int_equal(mode_faces_blur(&im, &all, 1, &err), MODE_OK);
    assert_int_equal(mode_faces_blur(&im, &point, 1, &err), MODE_OK);
    assert_int_equal(mode_faces_blur(&im, &outside, 1, &err), MODE_E_VALUE);
    free(im.rgb);
}

/* An edge becomes a slope whose deviation is a tenth of the box's longer side. */
static void test_the_blur_is_as_wide_as_it_says(void **state)
{
    (void)state;
    enum { W = 400, H = 100 };
    struct mode_image im = {.rgb = calloc(W * H, 3), .width = W, .height = H};
    const struct mode_box box = {100, 0, 300, H};
    for (int i = 0; i < W * H * 3; i++) im.rgb[i] = i / 3 % W < W / 2 ? 0 : 255;
    assert_int_equal(mode_faces_blur(&im, &box, 1, &err), MODE_OK);
    double sum = 0, mean = 0, square = 0;
    for (int x = 1; x < W; x++) {
        const double rise = (double)im.rgb[(H / 2 * W + x) * 3] - im.rgb[(H / 2 * W + x - 1) * 3];
        sum += rise;
        mean += rise * x;
        square += rise * x * x;
    }
    mean /= sum;
    const double deviation = sqrt(square / sum - mean * mean);
    if (!(fabs(mean - W / 2) < 1 && fabs(deviation - 20) < 1)) fail_msg("at %g, deviation %g", mean, deviation);
    free(im.rgb);
}

static void test_a_file_with_boxes_is_its_picture_blurred(void **state)
{
    (void)state;
    enum { S = 24 };
    struct bytes j = fixture_jpeg(90, 70, 3, false, 8);
    const struct mode_box boxes[] = {{10, 10, 40, 50}, {60, 5, 90, 20}};
    const struct mode_picture f = {.data = j.data, .size = j.size, .limits = &limits, .blur = boxes, .n_blur = 2};
    const struct mode_picture bare = {.data = j.data, .size = j.size, .limits = &limits};
    const struct mode_crop_draw draw = {.scale_min = 0.5, .scale_max = 1, .seed = 3};
    struct mode_preprocess p;
    struct mode_image im;
    float want[3 * S * S], got[3 * S * S];
    mode_preprocess_default(&p, S);
    assert_int_equal(mode_image_decode(&im, j.data, j.size, &limits, &err), MODE_OK);
    assert_int_equal(mode_faces_blur(&im, boxes, 2, &err), MODE_OK);
    assert_int_equal(mode_preprocess_train(&p, &im, &draw, want, &err), MODE_OK);
    assert_int_equal(mode_preprocess_train_file(&p, &f, &draw, got, &err), MODE_OK);
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(mode_preprocess_train_file(&p, &bare, &draw, got, &err), MODE_OK);
    assert_memory_not_equal(got, want, sizeof got);
    mode_image_clear(&im);
    free(j.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_a_box_may_be),
                                       cmocka_unit_test(test_inside_is_hidden_and_outside_stays),
                                       cmocka_unit_test(test_the_blur_is_as_wide_as_it_says),
                                       cmocka_unit_test(test_a_file_with_boxes_is_its_picture_blurred)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
