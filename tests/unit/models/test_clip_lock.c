/* Locked towers: gradients of the other parameters are those of a training without locks, bit for bit; locked ones have
 * none and never change; nothing of a locked block is saved. tests/golden/test_clip_locks.c compares with open_clip. */
#include "models/clip_train.h"

#include "base/rng.h"
#include "clip_memory.h"
#include "clip_variants.h"
#include "nn/backend.h"
#include "optim/adamw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tiny_batch.h"

enum { GROUPS = LAYERS + 2 };

struct way {
    bool dense, full;
    int64_t pieces;
    bool checkpoint;
    double patch_dropout;
};

/* Weights far from initialisation, drawn before they are moved by the lock. */
static struct mode_clip *make(struct mode_backend *be, int kind, const struct mode_clip_lock *lock, const struct way *w)
{
    struct mode_clip *clip;
    struct mode_error err;
    char *cfg = variant(kind);
    size_t n;
    if (mode_clip_create(&clip, be, cfg, NULL, 5, &err) != MODE_OK) fail_msg("%s", err.text);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) {
        struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 2, i);
        for (int64_t j = 0; j < mode_tensor_count(&p[i].value); j++)
            mode_f32(&p[i].value)[j] += 0.15f * (float)mode_rng_normal(&r);
    }
    mode_clip_refresh(clip);
    assert_int_equal(mode_clip_set_lock(clip, lock, &err), MODE_OK);
    mode_clip_set_savings(clip, w->dense, w->full);
    mode_clip_set_memory(clip, w->pieces, w->checkpoint);
    mode_clip_set_patch_dropout(clip, w->patch_dropout, 9);
    if (mode_clip_train_begin(clip, PAIRS, &err) != MODE_OK) fail_msg("%s", err.text);
    free(cfg);
    return clip;
}

static double step(struct mode_clip *clip)
{
    struct mode_error err;
    double loss;
    if (mode_clip_train_step(clip, &loss, batch.pixels, batch.ids, batch.n_ids, PAIRS, &err) != MODE_OK)
        fail_msg("%s", err.text);
    return loss;
}

static void same_gradients(struct mode_clip *got, struct mode_clip *want, const char *what)
{
    size_t n;
    const struct mode_param *p = mode_clip_params(got, &n), *q = mode_clip_params(want, &n);
    for (size_t i = 0; i < n; i++) {
        assert_true(!p[i].frozen == (p[i].grad.data != NULL) || q[i].frozen); /* q: fixed sin-cos positions */
        assert_true(!p[i].grad.data == !p[i].m.data && !p[i].m.data == !p[i].v.data);
        if (p[i].grad.data && memcmp(p[i].grad.data, q[i].grad.data, mode_tensor_bytes(&p[i].grad)) != 0)
            fail_msg("%s: other bytes in the gradient of %s", what, p[i].name);
    }
}

/* Three updates with decay and clipping: what is locked stays, everything else moves. */
static void updates(struct mode_backend *be, struct mode_clip *clip)
{
    struct mode_adamw options = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now;
    struct mode_error err;
    size_t n;
    struct mode_param *p = mode_clip_params(clip, &n);
    uint8_t **before = mode_xcalloc(n, sizeof *before), **copies = mode_xcalloc(n, sizeof *copies);
    for (size_t i = 0; i < n; i++) {
        before[i] = mode_xmalloc(mode_tensor_bytes(&p[i].value));
        copies[i] = mode_xmalloc(mode_tensor_bytes(&p[i].operand));
        memcpy(before[i], p[i].value.data, mode_tensor_bytes(&p[i].value));
        memcpy(copies[i], p[i].operand.data, mode_tensor_bytes(&p[i].operand));
    }
    options.clip_norm = 0.1;
    assert_int_equal(mode_adamw_begin(&now, be, &err), MODE_OK);
    for (int i = 0; i < 3; i++) {
        step(clip);
        mode_adamw_tell(now, &options, i + 1);
        mode_adamw_update(be, p, n, now);
        mode_clip_clamp(clip);
    }
    mode_backend_sync(be);
    for (size_t i = 0; i < n; i++) {
        const bool same = memcmp(before[i], p[i].value.data, mode_tensor_bytes(&p[i].value)) == 0;
        if (same != p[i].frozen) fail_msg("%s: %s", p[i].name, same ? "has not changed" : "has changed");
        if (p[i].frozen) assert_memory_equal(copies[i], p[i].operand.data, mode_tensor_bytes(&p[i].operand));
        free(before[i]);
        free(copies[i]);
    }
    free(before);
    free(copies);
    mode_backend_free(be, now);
}

/* Every kind of tower with every number of unlocked groups, alone and with the other tower. */
static void every_lock_on(const char *name)
{
    static const struct way ways[] = {{.pieces = 1},
                                      {.pieces = 1, .checkpoint = true, .patch_dropout = 0.5},
                                      {.pieces = 3, .patch_dropout = 0.5},
                                      {.pieces = 3, .dense = true, .full = true}};
    struct mode_backend *be = open_backend(name);
    for (int kind = 0; kind < VARIANTS; kind++)
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            struct mode_clip *whole = make(be, kind, &(struct mode_clip_lock){0}, &ways[w]);
            const double loss = step(whole);
            for (int64_t n = 0; n <= GROUPS; n++)
                for (int which = 1; which < 4; which++) {
                    const struct mode_clip_lock lock = {which & 1, which & 2, n, which == 3 ? GROUPS - n : n};
                    char *what = mode_xasprintf("%s, tower %d, way %zu, locked %d, %d unlocked", name, kind, w, which,
                                                (int)n);
                    struct mode_clip *clip = make(be, kind, &lock, &ways[w]);
                    for (int twice = 0; twice < 2; twice++) { /* then on buffers that the first step has used */
                        if (step(clip) != loss) fail_msg("%s: another loss", what);
                        same_gradients(clip, whole, what);
                    }
                    if (w % 2 == 0) updates(be, clip);
                    mode_clip_close(&clip);
                    free(what);
                }
            mode_clip_close(&whole);
        }
    mode_backend_close(&be);
}

static void test_other_gradients_keep_their_bits_and_locked_weights_theirs(void **state)
{
    (void)state;
    every_lock_on("cpu");
}

static void test_the_same_on_the_reference(void **state)
{
    (void)state;
    every_lock_on("ref");
    every_lock_on("ref-bf16");
}

static void test_inference_is_the_same_before_and_after_steps(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    const struct way way = {.pieces = 1};
    struct mode_clip *clip = make(be, 0, &(struct mode_clip_lock){.image = true}, &way);
    struct mode_error err;
    float a[PAIRS * 12], b[PAIRS * 12];
    (void)state;
    assert_int_equal(mode_clip_encode_images(clip, a, batch.pixels, PAIRS, 0, &err), MODE_OK);
    updates(be, clip);
    assert_int_equal(mode_clip_encode_images(clip, b, batch.pixels, PAIRS, 0, &err), MODE_OK);
    assert_memory_equal(a, b, sizeof a);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

static void test_a_locked_block_takes_no_memory(void **state)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_error err;
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, MANY_BLOCKS, NULL, 1, &err), MODE_OK);
    const struct mode_clip_memory all = memory_of(clip);
    struct mode_clip_memory last = all;
    for (int64_t n = IMAGE + 1; n >= 0; n--) { /* ever fewer groups are unlocked */
        assert_int_equal(mode_clip_set_lock(clip, &(struct mode_clip_lock){true, false, n, 0}, &err), MODE_OK);
        const struct mode_clip_memory m = memory_of(clip);
        assert_true(m.gradients < last.gradients && m.total < last.total && m.moments == 2 * m.gradients);
        assert_int_equal(m.blocks.image[MODE_CLIP_KEEP], n > 1 ? n - 1 : 0);
        assert_int_equal(m.parameters, all.parameters);
        last = m;
    }
    const struct mode_clip_memory image = last;
    assert_int_equal(mode_clip_set_lock(clip, &(struct mode_clip_lock){.text = true}, &err), MODE_OK);
    const struct mode_clip_memory text = memory_of(clip);
    assert_int_equal(image.kept[MODE_CLIP_KEEP] + text.kept[MODE_CLIP_KEEP], all.kept[MODE_CLIP_KEEP]);
    assert_true(image.activations + text.activations < all.activations + all.activations / 16);
    assert_int_equal(image.gradients + text.gradients, all.gradients + 64); /* both train the logit scale */
    assert_int_equal(mode_clip_set_lock(clip, &(struct mode_clip_lock){.image = true, .text = true}, &err), MODE_OK);
    const struct mode_clip_memory none = memory_of(clip);
    assert_int_equal(none.kept[MODE_CLIP_KEEP], 0);
    assert_int_equal(none.gradients, 64);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

/* Policies are chosen for the trained blocks only. */
static void test_a_limit_is_kept(void **state)
{
    static const struct mode_clip_lock locks[] = {
        {true, false, 0, 0}, {false, true, 0, 0}, {true, true, 4, 3}, {true, true, 0, 0}, {true, false, 1, 0}};
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_error err;
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, MANY_BLOCKS, NULL, 1, &err), MODE_OK);
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++) {
        assert_int_equal(mode_clip_set_lock(clip, &locks[i], &err), MODE_OK);
        const size_t most = memory_of(clip).total;
        mode_clip_set_memory(clip, 1, true);
        const size_t least = memory_of(clip).total;
        double again = 1;
        assert_false(mode_clip_fit(clip, BATCH, least - 1));
        for (size_t k = 0; k <= 8; k++) {
            const size_t bytes = least + (most - least) * k / 8;
            assert_true(mode_clip_fit(clip, BATCH, bytes));
            const struct mode_clip_memory m = memory_of(clip);
            int64_t image = 0, text = 0;
            for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
                image += m.blocks.image[p];
                text += m.blocks.text[p];
            }
            assert_true(m.total <= bytes && m.again <= again);
            assert_true(image <= IMAGE && text <= TEXT && (most == least) == (image + text == 0));
            again = m.again;
        }
        assert_true(again == 0);
    }
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_gradients_keep_their_bits_and_locked_weights_theirs),
        cmocka_unit_test(test_the_same_on_the_reference),
        cmocka_unit_test(test_inference_is_the_same_before_and_after_steps),
        cmocka_unit_test(test_a_locked_block_takes_no_memory),
        cmocka_unit_test(test_a_limit_is_kept),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
