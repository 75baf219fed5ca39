/* Features, loss and every gradient of tiny models against open_clip in double precision (make_clip_goldens.py), on
 * every backend, packed and dense. With patch dropout the features are those of evaluation. */
#include "base/str.h"
#include "data/safetensors.h"
#include "models/clip_train.h"
#include "models/patch_dropout.h"
#include "nn/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double distance(const float *a, const float *b, int64_t n)
{
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(diff / (size > 0 ? size : 1));
}

enum { PATCHES = 9, PATCH_SEED = 77, PLACE = 1000 * 256 + 3 }; /* make_clip_goldens.py's */

static void check_draws(const struct mode_tensor *kept, double dropout)
{
    const int64_t n = mode_patches_kept(PATCHES, dropout);
    int32_t got[PATCHES];
    assert_int_equal(kept->dim[1], n);
    for (int64_t i = 0; i < kept->dim[0]; i++) {
        mode_patches_draw(got, n, PATCHES, PATCH_SEED, (uint64_t)(PLACE + i));
        assert_memory_equal(got, (const int32_t *)kept->data + i * n, (size_t)n * sizeof *got);
    }
}

static void check(const char *variant, double dropout, const char *backend, bool dense)
{
    struct mode_backend *be;
    struct mode_error err;
    struct mode_clip *clip;
    struct mode_safetensors f;
    char *dir = mode_xasprintf("%s/tests/golden/clip_gradients/%s", MODE_SOURCE_DIR, variant);
    char *step = mode_xasprintf("%s/step.safetensors", dir);
    if (mode_backend_open(&be, backend, &err) || mode_clip_load(&clip, be, dir, &err) ||
        mode_safetensors_open(&f, step, &err))
        fail_msg("%s", err.text);
    mode_clip_set_savings(clip, dense, dense);
    mode_clip_set_patch_dropout(clip, dropout, PATCH_SEED);
    mode_clip_train_place(clip, PLACE);
    if (dropout > 0) check_draws(mode_safetensors_find(&f, "kept"), dropout);
    const struct mode_tensor *pixels = mode_safetensors_find(&f, "pixels"), *padded = mode_safetensors_find(&f, "ids");
    const struct mode_tensor *n_ids = mode_safetensors_find(&f, "n_ids");
    int64_t b = pixels->dim[0], e = mode_clip_embed_dim(clip);
    int32_t ids[64];
    float out[64];
    int at = 0;
    assert_true(mode_tensor_count(padded) <= 64 && b * e <= 64);
    for (int64_t i = 0; i < b; i++)
        for (int j = 0; j < ((const int32_t *)n_ids->data)[i]; j++)
            ids[at++] = ((const int32_t *)padded->data)[i * padded->dim[1] + j];
    assert_int_equal(mode_clip_encode_images(clip, out, pixels->data, b, 0, &err), MODE_OK);
    assert_true(distance(out, mode_safetensors_find(&f, "image")->data, b * e) < 1e-6);
    assert_int_equal(mode_clip_encode_texts(clip, out, ids, n_ids->data, b, 0, &err), MODE_OK);
    assert_true(distance(out, mode_safetensors_find(&f, "text")->data, b * e) < 1e-6);

    double loss, want = *(const double *)mode_safetensors_find(&f, "loss")->data;
    if (mode_clip_train_begin(clip, b, &err) ||
        mode_clip_train_step(clip, &loss, pixels->data, ids, n_ids->data, b, &err))
        fail_msg("%s", err.text);
    assert_true(fabs(loss - want) < 2e-6 * want);
    size_t n;
    struct mode_param *p = mode_clip_params(clip, &n);
    assert_int_equal(n + (dropout > 0 ? 7 : 6), f.n_tensors);
    for (size_t i = 0; i < n; i++) {
        char *name = mode_xasprintf("grad.%s", p[i].name);
        const struct mode_tensor *g;
        if (mode_safetensors_need(&f, name, MODE_DTYPE_F32, p[i].value.n_dims, p[i].value.dim, &g, &err))
            fail_msg("%s", err.text);
        double d = distance(mode_f32(&p[i].grad), g->data, mode_tensor_count(g));
        double budget = p[i].value.n_dims < 2 ? 1e-4 : 2e-5;
        if (!(d < budget))
            fail_msg("%s, %s%s: %s is off by %.3g (budget %.3g)", variant, backend, dense ? ", dense" : "", name, d,
                     budget);
        free(name);
    }
    mode_safetensors_close(&f);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    free(dir);
    free(step);
}

static void test_open_clip_agrees(void **state)
{
    const char *backends[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int dense = 0; dense < 2; dense++) {
            check("gelu", 0, backends[i], dense);
            check("quick_gelu", 0, backends[i], dense);
            check("patch_dropout", 0.5, backends[i], dense);
            check("patch_dropout_mean", 0.9, backends[i], dense);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_clip_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
