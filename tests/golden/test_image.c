/* Pictures against Pillow, torchvision and open_clip: bit-identical (tests/golden/make_image_goldens.py). */
#include "base/file.h"
#include "data/image.h"
#include "data/resize.h"
#include "data/samples.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct mode_error err;

static void same(const char *what, const void *data, size_t size, const json_t *facts)
{
    char hex[MODE_DIGEST_HEX];
    mode_digest_bytes(data, size, hex);
    if (strcmp(hex, json_string_value(json_object_get(facts, "sha256"))) != 0) fail_msg("%s differs", what);
}

static double number(const json_t *list, size_t i)
{
    return json_number_value(json_array_get(list, i));
}

static enum mode_filter filter_of(const json_t *facts)
{
    return strcmp(json_string_value(json_object_get(facts, "filter")), "bicubic") == 0 ? MODE_FILTER_BICUBIC
                                                                                       : MODE_FILTER_BILINEAR;
}

static void check_resizes(const char *key, const struct mode_image *im, const json_t *list)
{
    const json_t *r;
    size_t i;
    json_array_foreach(list, i, r)
    {
        const json_t *size = json_object_get(r, "size"), *box = json_object_get(r, "box");
        const int w = (int)number(size, 0), h = (int)number(size, 1);
        const struct mode_rgb_view view = {
            .rgb = im->rgb, .stride = (size_t)im->width * 3, .width = im->width, .height = im->height};
        uint8_t *out = malloc((size_t)w * (size_t)h * 3);
        for (int simd = 0; simd < 2; simd++) { /* both paths */
            assert_int_equal(mode_resize_rgb(out, w, h, &view, number(box, 0), number(box, 1), number(box, 2),
                                             number(box, 3), filter_of(r), simd, &err),
                             MODE_OK);
            same(key, out, (size_t)w * (size_t)h * 3, r);
        }
        free(out);
    }
}

static void check_inputs(const char *key, const struct mode_image *im, const json_t *list)
{
    static const char *const modes[] = {"shortest", "longest", "squash"};
    const json_t *r;
    size_t i;
    json_array_foreach(list, i, r)
    {
        struct mode_preprocess p;
        const int size = (int)json_integer_value(json_object_get(r, "size"));
        const char *wanted = json_string_value(json_object_get(r, "mode"));
        mode_preprocess_default(&p, size);
        while (strcmp(modes[p.resize_mode], wanted) != 0) p.resize_mode++;
        p.filter = filter_of(r);
        p.fill = (uint8_t)json_integer_value(json_object_get(r, "fill"));
        const size_t bytes = 3 * (size_t)size * (size_t)size * sizeof(float);
        float *out = malloc(bytes);
        assert_int_equal(mode_preprocess_eval(&p, im, out, &err), MODE_OK);
        same(key, out, bytes, r);
        free(out);
    }
}

static void test_same_bytes(void **state)
{
    (void)state;
    const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct mode_tar_data d;
    struct mode_sample_list s;
    if (mode_tar_data_open(&d, MODE_SOURCE_DIR "/tests/golden/images.tar", &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_samples_list(&s, &d, "images.tar", &err), MODE_OK);
    assert_true(s.n_groups >= 32);
    for (size_t i = 0; i < s.n_groups; i++) {
        const struct mode_member *m = mode_group_image(&s, &s.groups[i]),
                                 *f = mode_group_member(&s, &s.groups[i], "json");
        const char *key = s.groups[i].key;
        struct mode_image im;
        int w, h;
        json_t *facts = json_loadb((const char *)d.data + f->offset, (size_t)f->size, 0, NULL);
        assert_non_null(facts);
        assert_int_equal(mode_image_header(d.data + m->offset, (size_t)m->size, &w, &h, &err), MODE_OK);
        if (mode_image_decode(&im, d.data + m->offset, (size_t)m->size, &limits, &err))
            fail_msg("%s: %s", key, err.text);
        assert_int_equal(im.width, json_integer_value(json_object_get(facts, "width")));
        assert_int_equal(im.height, json_integer_value(json_object_get(facts, "height")));
        assert_int_equal(im.width, w);
        assert_int_equal(im.height, h);
        same(key, im.rgb, (size_t)w * (size_t)h * 3, facts);
        check_resizes(key, &im, json_object_get(facts, "resize"));
        check_inputs(key, &im, json_object_get(facts, "input"));
        mode_image_clear(&im);
        json_decref(facts);
    }
    mode_sample_list_clear(&s);
    mode_tar_data_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
