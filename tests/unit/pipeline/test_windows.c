/* Pictures decoded by the host and resized by a backend: patches bit-identical to those of data/preprocess.c's pixels.
 * With MODE_TEST_BACKEND on that backend and its bf16 variant, else on "ref", "ref-bf16" and "cpu". */
#include "picture_fixture.h"

#include "base/parallel.h"
#include "base/str.h"
#include "data/face_boxes.h"
#include "nn/backend.h"
#include "nn/ops.h"
#include "pipeline/windows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

enum { BATCH = 6, SIDE = 24 };

static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
static struct mode_error err;

struct picture {
    struct bytes file;
    struct mode_picture as_file;
    struct mode_box face;
    struct mode_crop_draw draw;
};

struct batch {
    struct mode_backend *be;
    struct mode_windows *w;
    const struct picture *pictures;
    bool train;
    enum mode_status status[BATCH];
    struct mode_error error[BATCH];
};

/* Patch size for this image size: 8; for 7 the whole image. */
static int64_t patch_of(const struct mode_preprocess *p)
{
    return p->size % 8 ? p->size : 8;
}

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    if (mode_backend_open(&be, name, &err) != MODE_OK) fail_msg("%s", err.text);
    return be;
}

/* Runs test on each backend. */
static void on_backends(void (*test)(struct mode_backend *be))
{
    const char *one = getenv("MODE_TEST_BACKEND");
    char *half = one ? mode_xasprintf("%s-bf16", one) : NULL;
    const char *const names[] = {one ? one : "ref", one ? half : "ref-bf16", one ? NULL : "cpu"};
    for (int i = 0; i < 3 && names[i]; i++) {
        struct mode_backend *be = open_backend(names[i]);
        test(be);
        mode_backend_close(&be);
    }
    free(half);
}

static struct picture draw_picture(uint64_t k, int most)
{
    struct mode_rng r = mode_rng_for(8, MODE_RNG_TEST, 0, k);
    const bool thin = k % 9 == 0; /* tall: the vertical pass goes first */
    const int w = 1 + (int)mode_rng_below(&r, thin ? 3 : (uint64_t)most),
              h = thin ? w * 101 + (int)mode_rng_below(&r, 200) : 1 + (int)mode_rng_below(&r, (uint64_t)most);
    const struct fixture_jpeg_options o = {.channels = k % 10 == 0  ? 4
                                                       : k % 7 == 0 ? 1
                                                                    : 3,
                                           .h = 1 + (int)mode_rng_below(&r, k % 10 == 0 ? 2 : 4),
                                           .v = 1 + (int)mode_rng_below(&r, 2),
                                           .progressive = k % 5 == 0};
    struct picture p = {.file = k % 11 == 0 ? fixture_png(w, h, k) : fixture_jpeg_as(w, h, &o, k)};
    p.face = (struct mode_box){0, 0, (uint32_t)(w + 1) / 2, (uint32_t)(h + 1) / 2};
    p.draw = (struct mode_crop_draw){.scale_min = 0.05, .scale_max = 1, .seed = k, .sample = k};
    p.as_file = (struct mode_picture){.data = p.file.data, .size = p.file.size, .limits = &limits};
    return p;
}

static void add_one(void *ctx, int64_t i, int thread)
{
    struct batch *b = ctx;
    const struct picture *p = &b->pictures[i];
    (void)thread;
    b->status[i] = mode_windows_add(b->w, i, &p->as_file, b->train ? &p->draw : NULL, &b->error[i]);
}

/* Patches of the n pictures, as rows of `to` from `first` on. */
static void make(struct batch *b, const struct mode_preprocess *p, struct mode_tensor *to, int64_t first, int64_t n)
{
    const int64_t patch = patch_of(p), each = (p->size / patch) * (p->size / patch);
    const size_t row = (size_t)to->dim[1] * mode_dtype_size(to->dtype);
    struct mode_tensor cols = mode_tensor_2d((char *)to->data + (size_t)(first * each) * row, to->dtype, n * each,
                                             to->dim[1]);

    mode_windows_begin(b->w);
    mode_parallel_for(n, add_one, b);
    for (int64_t i = 0; i < n; i++)
        if (b->status[i]) fail_msg("%s", b->error[i].text);
    mode_windows_send(b->w, n);
    mode_picture_patches(b->be, &cols, mode_windows_take(b->w), 0, p->size, patch);
    mode_windows_done(b->w);
}

static struct mode_tensor take_memory(struct mode_backend *be, const struct mode_preprocess *p, int64_t n)
{
    const int64_t patch = patch_of(p), each = (p->size / patch) * (p->size / patch);
    struct mode_tensor t = mode_tensor_2d(NULL, mode_backend_activations(be), n * each, 3 * patch * patch);
    assert_int_equal(mode_backend_alloc(be, &t.data, mode_tensor_bytes(&t), &err), MODE_OK);
    return t;
}

/* Are the patches of picture i in cols those of the pixels that the host makes? */
static bool is_host_s(struct mode_backend *be, const struct mode_preprocess *p, const struct mode_tensor *cols,
                      int64_t i, const struct picture *x, bool train)
{
    struct mode_tensor want = take_memory(be, p, 1),
                       pixels = mode_tensor_make(NULL, MODE_DTYPE_F32, 4, (int64_t[]){1, 3, p->size, p->size});
    pixels.data = mode_xmalloc(mode_tensor_bytes(&pixels));
    assert_int_equal(train ? mode_preprocess_train_file(p, &x->as_file, &x->draw, mode_f32(&pixels), &err)
                           : mode_preprocess_eval_file(p, &x->as_file, mode_f32(&pixels), &err),
                     MODE_OK);
    mode_patches(be, &want, &pixels, patch_of(p));
    const size_t bytes = mode_tensor_bytes(&want);
    char *both = mode_xmalloc(2 * bytes);
    mode_backend_copy(be, both, want.data, bytes);
    mode_backend_copy(be, both + bytes, (const char *)cols->data + (size_t)i * bytes, bytes);
    const bool same = memcmp(both, both + bytes, bytes) == 0;
    free(both);
    mode_backend_free(be, want.data);
    free(pixels.data);
    return same;
}

/* Checks n pictures from `first` on with p; bytes: of the buffer, per picture. Returns how many the host resized. */
static uint64_t check(struct mode_backend *be, const struct mode_preprocess *p, uint64_t first, int64_t n, int most,
                      size_t bytes)
{
    struct mode_tensor cols = take_memory(be, p, BATCH);
    struct picture pictures[BATCH];
    struct batch b = {.be = be, .pictures = pictures};
    for (int64_t i = 0; i < n; i++) pictures[i] = draw_picture(first + (uint64_t)i, most);
    for (int64_t i = 0; i < n; i += 4) pictures[i].as_file.blur = &pictures[i].face, pictures[i].as_file.n_blur = 1;
    assert_int_equal(mode_windows_open(&b.w, be, p, BATCH, bytes, &err), MODE_OK);
    for (int round = 0; round < 2; round++) { /* twice with the same buffers */
        b.train = round == 0;
        make(&b, p, &cols, 0, n);
        mode_backend_sync(be);
        for (int64_t i = 0; i < n; i++)
            if (!is_host_s(be, p, &cols, i, &pictures[i], b.train))
                fail_msg("%s: picture %d differs (%s)", mode_backend_name(be), (int)(first + (uint64_t)i),
                         b.train ? "training" : "evaluation");
    }
    const uint64_t resized = mode_windows_resized(b.w);
    mode_windows_close(&b.w);
    for (int64_t i = 0; i < n; i++) free(pictures[i].file.data);
    mode_backend_free(be, cols.data);
    return resized;
}

static struct mode_preprocess transform(uint64_t k, int size)
{
    struct mode_preprocess p;
    mode_preprocess_default(&p, size);
    p.resize_mode = (int)(k % 3);
    p.filter = k % 2 ? MODE_FILTER_BILINEAR : MODE_FILTER_BICUBIC;
    p.fill = (uint8_t)(37 * k);
    return p;
}

static void every_transform(struct mode_backend *be)
{
    for (uint64_t k = 0; k < 40; k++) {
        const struct mode_preprocess p = transform(k, k % 4 ? SIDE : 7);
        check(be, &p, k * BATCH, BATCH, k % 8 == 7 ? 600 : 130, 3 * 600 * 700);
    }
    const struct mode_preprocess large = transform(0, 224);
    check(be, &large, 1, 2, 600, 3 * 600 * 700);
}

static void test_pixels_are_those_of_the_host(void **state)
{
    (void)state;
    on_backends(every_transform);
}

/* Intermediate images that exceed one launch's scratch on a GPU, which must not allocate more than planned. */
static void tall_pictures(struct mode_backend *be)
{
    enum { SIZE = 224, N = 4 };
    size_t before, after, total;
    const struct fixture_jpeg_options o = {.channels = 3, .h = 2, .v = 2};
    struct picture x[N];
    struct batch b = {.be = be, .pictures = x};
    struct mode_preprocess p = transform(2, SIZE);
    struct mode_tensor cols = take_memory(be, &p, N);
    for (uint64_t i = 0; i < N; i++) {
        x[i].file = fixture_jpeg_as(161, i == 0 ? 300 : 16000, &o, i);
        x[i].as_file = (struct mode_picture){.data = x[i].file.data, .size = x[i].file.size, .limits = &limits};
    }
    assert_int_equal(mode_windows_open(&b.w, be, &p, N, 10 << 20, &err), MODE_OK);
    assert_int_equal(mode_backend_reserve(be, MODE_PIXELS_BETWEEN, &err), MODE_OK);
    mode_backend_room(be, &before, &total);
    make(&b, &p, &cols, 0, N);
    mode_backend_sync(be);
    mode_backend_room(be, &after, &total);
    assert_true(after == before);
    assert_int_equal(mode_windows_resized(b.w), 0);
    for (int i = 0; i < N; i++) {
        assert_true(is_host_s(be, &p, &cols, i, &x[i], false));
        free(x[i].file.data);
    }
    mode_windows_close(&b.w);
    mode_backend_free(be, cols.data);
}

static void test_tall_pictures(void **state)
{
    (void)state;
    on_backends(tall_pictures);
}

/* Batches in the same buffers, issued without a sync between them. */
static void one_after_another(struct mode_backend *be)
{
    enum { N = 2, BATCHES = BATCH / N };
    const struct mode_preprocess p = transform(0, SIDE);
    struct picture pictures[BATCH];
    struct batch b = {.be = be};
    struct mode_tensor cols = take_memory(be, &p, BATCH);
    assert_int_equal(mode_windows_open(&b.w, be, &p, N, 1 << 20, &err), MODE_OK);
    assert_int_equal(mode_backend_reserve(be, 1 << 20, &err), MODE_OK); /* allocating later would synchronise */
    for (uint64_t i = 0; i < BATCH; i++) pictures[i] = draw_picture(20 + i, 130);
    for (int i = 0; i < BATCHES; i++) {
        b.pictures = pictures + i * N;
        make(&b, &p, &cols, i * N, N);
    }
    mode_backend_sync(be);
    for (int i = 0; i < BATCH; i++) {
        assert_true(is_host_s(be, &p, &cols, i, &pictures[i], false));
        free(pictures[i].file.data);
    }
    mode_windows_close(&b.w);
    mode_backend_free(be, cols.data);
}

static void test_batches_one_after_another(void **state)
{
    (void)state;
    on_backends(one_after_another);
}

/* Without room the host resizes, and the pixels are the same. */
static void little_room(struct mode_backend *be)
{
    const struct mode_preprocess p = transform(4, SIDE);
    assert_int_equal(check(be, &p, 1, BATCH, 130, 3 * 130 * 140), 0);
    const uint64_t some = check(be, &p, 1, BATCH, 130, 12000), all = check(be, &p, 1, BATCH, 130, 0);
    assert_true(some > 0 && some < all && all > BATCH);
}

static void test_a_picture_without_room_is_resized_by_the_host(void **state)
{
    (void)state;
    on_backends(little_room);
}

/* One picture of w x h pixels, with a buffer for pictures of `bytes`. */
static void large(struct mode_backend *be, const struct mode_preprocess *p, int w, int h, size_t bytes)
{
    const struct fixture_jpeg_options o = {.channels = 3, .h = 2, .v = 2};
    struct picture x = {.file = fixture_jpeg_as(w, h, &o, 3)};
    struct batch b = {.be = be, .pictures = &x};
    struct mode_tensor cols = take_memory(be, p, 1);
    x.as_file = (struct mode_picture){.data = x.file.data, .size = x.file.size, .limits = &limits};
    assert_int_equal(mode_windows_open(&b.w, be, p, 1, bytes, &err), MODE_OK);
    make(&b, p, &cols, 0, 1);
    mode_backend_sync(be);
    assert_int_equal(mode_windows_resized(b.w), 1);
    assert_true(is_host_s(be, p, &cols, 0, &x, false));
    mode_windows_close(&b.w);
    mode_backend_free(be, cols.data);
    free(x.file.data);
}

/* 5000 x 1200 pixels are 17 MiB: too large for a window, however much memory there is. */
static void large_picture(struct mode_backend *be)
{
    const struct mode_preprocess p = transform(2, SIDE);
    assert_int_equal(p.resize_mode, MODE_RESIZE_SQUASH); /* the window is the whole picture */
    large(be, &p, 5000, 1200, 20 << 20);
}

static void test_a_very_large_picture_is_resized_by_the_host(void **state)
{
    (void)state;
    on_backends(large_picture);
}

/* The model's input exceeds the largest window: a picture resized to it by the host is still sent, one decoded at that
 * size is not. */
static void test_a_very_large_model(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_preprocess p;
    (void)state;
    mode_preprocess_default(&p, 2400);
    large(be, &p, 2366, 2366, 1 << 20);
    mode_backend_close(&be);
}

/* A corrupt picture gives the same error with either way of resizing, and the next batch is not affected. */
static void damage(struct mode_backend *be)
{
    const struct mode_preprocess p = transform(0, SIDE);
    struct mode_windows *w;
    struct mode_error host, here;
    float out[3 * SIDE * SIDE];
    struct picture x = draw_picture(2, 130);
    assert_int_equal(mode_windows_open(&w, be, &p, 2, 1 << 20, &err), MODE_OK);
    for (size_t size = 0; size < x.file.size; size += 1 + x.file.size / 40) {
        uint8_t *exact = mode_xmalloc(size + 1); /* so that sanitizers see reads past its end */
        memcpy(exact, x.file.data, size);
        const struct mode_picture cut = {.data = exact, .size = size, .limits = &limits};
        mode_windows_begin(w);
        assert_int_equal(mode_windows_add(w, 0, &cut, &x.draw, &here), MODE_E_FORMAT);
        assert_int_equal(mode_preprocess_train_file(&p, &cut, &x.draw, out, &host), MODE_E_FORMAT);
        assert_string_equal(here.text, host.text);
        free(exact);
    }
    mode_windows_close(&w);
    free(x.file.data);
    check(be, &p, 0, BATCH, 130, 1 << 20);
}

static void test_damage_is_told_as_by_the_host(void **state)
{
    (void)state;
    on_backends(damage);
}

int main(void)
{
    mode_parallel_set_threads(3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pixels_are_those_of_the_host),
        cmocka_unit_test(test_tall_pictures),
        cmocka_unit_test(test_batches_one_after_another),
        cmocka_unit_test(test_a_picture_without_room_is_resized_by_the_host),
        cmocka_unit_test(test_a_very_large_picture_is_resized_by_the_host),
        cmocka_unit_test(test_a_very_large_model),
        cmocka_unit_test(test_damage_is_told_as_by_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
