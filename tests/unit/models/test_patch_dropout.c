/* Which patches are kept; and what a step of training does with them: the same subsets in micro-batches and under every
 * policy, a true gradient, and nothing at all in inference. tests/golden compares with open_clip. */
#include "models/patch_dropout.h"

#include "base/rng.h"
#include "clip_variants.h"
#include "models/clip_train.h"
#include "nn/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tiny_batch.h"

/* ---- the draw ---- */

/* max(1, int(patches * (1 - prob))) as Python computes it, rounding errors included. */
static void test_as_many_are_kept_as_in_open_clip(void **state)
{
    static const struct {
        int64_t patches;
        double probability;
        int64_t kept;
    } cases[] = {{49, 0, 49},  {49, 0.5, 24}, {49, 0.75, 12}, {196, 0.5, 98}, {256, 0.25, 192}, {4, 0.9, 1},
                 {10, 0.7, 3}, {10, 0.9, 1},  {100, 0.9, 9},  {1, 0.5, 1},    {49, 0.999999, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(mode_patches_kept(cases[i].patches, cases[i].probability), cases[i].kept);
}

static void test_patches_are_distinct_ascending_and_a_function_of_seed_and_place(void **state)
{
    int32_t a[49], b[49], c[49];
    int same_place = 0, same_seed = 0;
    (void)state;
    for (uint64_t place = 0; place < 1000; place++) {
        const int64_t n = 1 + (int64_t)(place % 48);
        mode_patches_draw(a, n, 49, 7, place << 20);
        mode_patches_draw(b, n, 49, 7, place << 20);
        assert_memory_equal(a, b, (size_t)n * sizeof *a);
        for (int64_t i = 0; i < n; i++) assert_true(a[i] >= 0 && a[i] < 49 && (i == 0 || a[i] > a[i - 1]));
        mode_patches_draw(b, n, 49, 7, (place << 20) + 1);
        mode_patches_draw(c, n, 49, 8, place << 20);
        same_place += memcmp(a, b, (size_t)n * sizeof *a) == 0;
        same_seed += memcmp(a, c, (size_t)n * sizeof *a) == 0;
    }
    assert_true(same_place < 30 && same_seed < 30); /* with 1 or 48 of 49 by chance */
    mode_patches_draw(a, 49, 49, 7, 3);
    for (int i = 0; i < 49; i++) assert_int_equal(a[i], i);
}

/* All 20 subsets of 3 of 6: chi-squared with 19 degrees of freedom is above 43.8 once in a thousand. */
static void test_every_subset_is_equally_likely(void **state)
{
    enum { DRAWS = 200000 };
    int count[64] = {0}, subsets = 0;
    double chi = 0;
    (void)state;
    for (uint64_t place = 0; place < DRAWS; place++) {
        int32_t kept[3];
        mode_patches_draw(kept, 3, 6, 1, place);
        count[1 << kept[0] | 1 << kept[1] | 1 << kept[2]]++;
    }
    for (int i = 0; i < 64; i++) {
        subsets += count[i] > 0;
        if (count[i] > 0) chi += pow(count[i] - DRAWS / 20.0, 2) / (DRAWS / 20.0);
    }
    assert_int_equal(subsets, 20);
    assert_true(chi < 43.8);
}

/* ---- a step ---- */

enum { PATCHES = 9, EMBED = 12 };

/* Weights far from initialisation, so that no gradient is lost in rounding. */
static struct mode_clip *make(struct mode_backend *be, int kind, double dropout, int64_t pieces,
                              const struct mode_clip_blocks *blocks)
{
    struct mode_clip *clip;
    struct mode_error err;
    char *cfg = variant(kind);
    if (mode_clip_create(&clip, be, cfg, NULL, 5, &err) != MODE_OK) fail_msg("%s", err.text);
    mode_clip_set_memory(clip, pieces, false);
    if (blocks) mode_clip_set_blocks(clip, blocks);
    mode_clip_set_patch_dropout(clip, dropout, 9);
    if (mode_clip_train_begin(clip, PAIRS, &err) != MODE_OK) fail_msg("%s", err.text);
    variant_perturb(clip);
    mode_clip_refresh(clip);
    free(cfg);
    return clip;
}

static double step(struct mode_clip *clip, uint64_t place)
{
    struct mode_error err;
    double loss;
    mode_clip_train_place(clip, place);
    if (mode_clip_train_step(clip, &loss, batch.pixels, batch.ids, batch.n_ids, PAIRS, &err) != MODE_OK)
        fail_msg("%s", err.text);
    return loss;
}

/* |a - b| / |b| over all gradients; 0 only for the same bits. */
static double distance(struct mode_clip *a, struct mode_clip *b)
{
    size_t n;
    const struct mode_param *p = mode_clip_params(a, &n), *q = mode_clip_params(b, &n);
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++)
        for (int64_t j = 0; j < mode_tensor_count(&p[i].grad); j++) {
            const double x = mode_f32(&p[i].grad)[j], y = mode_f32(&q[i].grad)[j];
            off += (x - y) * (x - y);
            all += y * y;
        }
    return sqrt(off / all);
}

static void test_policies_change_no_bit_and_micro_batches_none_of_the_subsets(void **state)
{
    static const struct mode_clip_blocks ways[] = {
        {{0, LAYERS, 0}, {0, LAYERS, 0}}, {{0, 0, LAYERS}, {0, 0, LAYERS}}, {{1, 1, 1}, {1, 1, 1}}};
    static const char *const names[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        struct mode_backend *be = open_backend(names[k]);
        for (int kind = 0; kind < VARIANTS; kind++) {
            struct mode_clip *whole = make(be, kind, 0.5, 1, NULL), *pieces = make(be, kind, 0.5, 3, NULL);
            const double loss = step(whole, 70), in_pieces = step(pieces, 70);
            assert_true(fabs(in_pieces - loss) < 2e-6 * loss);
            assert_true(distance(pieces, whole) < 2e-6);
            for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
                for (int64_t n = 1; n <= 3; n += 2) {
                    struct mode_clip *other = make(be, kind, 0.5, n, &ways[i]);
                    step(other, 7); /* of another step's subsets nothing remains */
                    assert_true(step(other, 70) == (n == 1 ? loss : in_pieces));
                    assert_true(distance(other, n == 1 ? whole : pieces) == 0);
                    mode_clip_close(&other);
                }
            mode_clip_close(&whole);
            mode_clip_close(&pieces);
        }
        mode_backend_close(&be);
    }
}

static void test_backends_agree_and_the_place_decides(void **state)
{
    struct mode_backend *ref = open_backend("ref"), *cpu = open_backend("cpu");
    (void)state;
    for (int kind = 0; kind < VARIANTS; kind++) {
        struct mode_clip *a = make(ref, kind, 0.7, 1, NULL), *b = make(cpu, kind, 0.7, 1, NULL);
        const double loss = step(a, 14), ours = step(b, 14);
        assert_true(fabs(ours - loss) < 2e-6 * loss && distance(b, a) < 1e-5);
        assert_true(fabs(step(b, 21) - ours) > 1e-3 * ours);
        assert_true(step(b, 14) == ours);
        mode_clip_close(&a);
        mode_clip_close(&b);
    }
    mode_backend_close(&ref);
    mode_backend_close(&cpu);
}

/* A position that every image drops receives no gradient, every other one does. */
static void test_dropped_patches_give_no_gradient(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip = make(be, 0, 0.9, 1, NULL); /* one patch of nine */
    bool kept[1 + PATCHES] = {true};
    size_t n, none = 0;
    (void)state;
    step(clip, 0);
    for (uint64_t i = 0; i < PAIRS; i++) {
        int32_t patch;
        mode_patches_draw(&patch, 1, PATCHES, 9, i);
        kept[1 + patch] = true;
    }
    struct mode_param *p = mode_clip_params(clip, &n);
    while (n > 0 && strcmp(p[n - 1].name, "visual.positional_embedding") != 0) n--;
    assert_true(n > 0);
    const int64_t d = p[n - 1].grad.dim[1];
    for (int64_t i = 0; i <= PATCHES; i++) {
        double size = 0;
        for (int64_t j = 0; j < d; j++) size += fabs((double)mode_f32(&p[n - 1].grad)[i * d + j]);
        assert_true(kept[i] ? size > 1e-6 : size == 0);
        none += !kept[i];
    }
    assert_true(none >= 2);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

/* Along a random direction in every parameter the loss changes as the gradient says. */
static void test_the_gradient_is_the_slope_of_the_loss(void **state)
{
    static const float H = 2e-3f;
    struct mode_backend *be = open_backend("ref");
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct mode_clip *clip = make(be, kind, 0.5, 1, NULL);
        size_t n;
        struct mode_param *p = mode_clip_params(clip, &n);
        step(clip, 3);
        for (size_t i = 0; i < n; i++) {
            const int64_t count = mode_tensor_count(&p[i].value);
            float *grad = mode_xmalloc(mode_tensor_bytes(&p[i].grad)), *v = mode_f32(&p[i].value);
            float *x = mode_xmalloc(mode_tensor_bytes(&p[i].value)), *to = mode_xmalloc(mode_tensor_bytes(&p[i].value));
            struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 4, i);
            double slope = 0, size = 0, loss[2];
            step(clip, 3);
            memcpy(grad, p[i].grad.data, mode_tensor_bytes(&p[i].grad));
            memcpy(x, v, mode_tensor_bytes(&p[i].value));
            for (int64_t j = 0; j < count; j++) {
                to[j] = (float)mode_rng_normal(&r);
                slope += (double)to[j] * grad[j];
                size += (double)grad[j] * grad[j];
            }
            for (int k = 0; k < 2; k++) {
                for (int64_t j = 0; j < count; j++) v[j] = x[j] + (k ? -H : H) * to[j];
                mode_clip_refresh(clip);
                loss[k] = step(clip, 3);
            }
            memcpy(v, x, mode_tensor_bytes(&p[i].value));
            mode_clip_refresh(clip);
            const double found = (loss[0] - loss[1]) / (2 * (double)H), off = fabs(found - slope);
            if (!(off < 2e-3 * sqrt(size) * sqrt((double)count) + 2e-4))
                fail_msg("tower %d, %s: slope %.6g, gradient says %.6g", kind, p[i].name, found, slope);
            free(grad);
            free(x);
            free(to);
        }
        mode_clip_close(&clip);
    }
    mode_backend_close(&be);
}

static void test_inference_uses_every_patch_before_and_after_a_step(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *with = make(be, 0, 0.75, 1, NULL), *without = make(be, 0, 0, 1, NULL);
    struct mode_error err;
    float a[PAIRS * EMBED], b[PAIRS * EMBED];
    (void)state;
    assert_true(fabs(step(with, 0) - step(without, 0)) > 1e-3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mode_clip_encode_images(with, a, batch.pixels, PAIRS, 0, &err), MODE_OK);
        assert_int_equal(mode_clip_encode_images(without, b, batch.pixels, PAIRS, 0, &err), MODE_OK);
        assert_memory_equal(a, b, sizeof a);
        step(with, 7);
    }
    mode_clip_close(&with);
    mode_clip_close(&without);
    mode_backend_close(&be);
}

/* The memory of the blocks shrinks with the rows; what is planned is what a step was seen to need (test_clip_memory.c). */
static void test_fewer_patches_take_less_memory(void **state)
{
    static const char B16[] = "{\"embed_dim\": 512, \"vision_cfg\": {\"image_size\": 224, \"patch_size\": 16,"
                              " \"width\": 768, \"layers\": 12}, \"text_cfg\": {\"width\": 64, \"layers\": 1}}";
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_error err;
    struct mode_clip_memory all, half;
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, B16, NULL, 1, &err), MODE_OK);
    mode_clip_memory(&all, clip, 64);
    mode_clip_set_patch_dropout(clip, 0.5, 1);
    mode_clip_memory(&half, clip, 64);
    assert_true((double)half.kept[MODE_CLIP_KEEP] < 0.52 * (double)all.kept[MODE_CLIP_KEEP]);
    assert_true(half.total < all.total && half.turns < all.turns);
    mode_clip_set_memory(clip, 1, true);
    mode_clip_memory(&all, clip, 64);
    for (size_t bytes = all.total; bytes < half.total; bytes += (half.total - all.total) / 7) {
        struct mode_clip_memory fitted;
        assert_true(mode_clip_fit(clip, 64, bytes));
        mode_clip_memory(&fitted, clip, 64);
        assert_true(fitted.total <= bytes && fitted.total > bytes - (half.total - all.total) / 7);
    }
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_many_are_kept_as_in_open_clip),
        cmocka_unit_test(test_patches_are_distinct_ascending_and_a_function_of_seed_and_place),
        cmocka_unit_test(test_every_subset_is_equally_likely),
        cmocka_unit_test(test_policies_change_no_bit_and_micro_batches_none_of_the_subsets),
        cmocka_unit_test(test_backends_agree_and_the_place_decides),
        cmocka_unit_test(test_dropped_patches_give_no_gradient),
        cmocka_unit_test(test_the_gradient_is_the_slope_of_the_loss),
        cmocka_unit_test(test_inference_uses_every_patch_before_and_after_a_step),
        cmocka_unit_test(test_fewer_patches_take_less_memory),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
