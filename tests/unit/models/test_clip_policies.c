/* Activation checkpointing policies per block: under any mixture of them loss and gradients are bit-identical; and the
 * choice of policies for a memory limit. */
#include "models/clip_train.h"

#include "base/rng.h"
#include "clip_memory.h"
#include "clip_variants.h"
#include "nn/backend.h"
#include "nn/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tiny_batch.h"

/* The result of a step as bytes: the loss, then all gradients. The caller frees. */
static uint8_t *step_bytes(size_t *size, struct mode_backend *be, int kind, bool dense, bool full, int64_t pieces,
                           const struct mode_clip_blocks *blocks)
{
    struct mode_clip *clip;
    struct mode_error err;
    char *cfg = variant(kind);
    double loss[2];
    size_t n;
    if (mode_clip_create(&clip, be, cfg, NULL, 5, &err) != MODE_OK) fail_msg("%s", err.text);
    mode_clip_set_savings(clip, dense, full);
    mode_clip_set_memory(clip, pieces, false);
    mode_clip_set_blocks(clip, blocks);
    if (mode_clip_train_begin(clip, PAIRS, &err) != MODE_OK) fail_msg("%s", err.text);
    struct mode_param *p = mode_clip_params(clip, &n);
    variant_perturb(clip);
    mode_clip_refresh(clip);
    for (int i = 0; i < 2; i++) /* the second step runs on buffers that the first has used */
        if (mode_clip_train_step(clip, &loss[i], batch.pixels, batch.ids, batch.n_ids, PAIRS, &err) != MODE_OK)
            fail_msg("%s", err.text);
    assert_true(loss[0] == loss[1] && loss[0] > 0.1);
    *size = sizeof *loss;
    for (size_t i = 0; i < n; i++) *size += mode_tensor_bytes(&p[i].grad);
    uint8_t *bytes = mode_xmalloc(*size), *at = bytes;
    memcpy(at, loss, sizeof *loss);
    at += sizeof *loss;
    for (size_t i = 0; i < n; at += mode_tensor_bytes(&p[i].grad), i++)
        memcpy(at, p[i].grad.data, mode_tensor_bytes(&p[i].grad));
    mode_clip_close(&clip);
    free(cfg);
    return bytes;
}

/* Every kind of tower, packed and dense, last blocks pooled and full, in one piece and in three. */
static void every_policy_on(const char *name)
{
    static const struct mode_clip_blocks ways[] = {{{0, LAYERS, 0}, {0, LAYERS, 0}}, {{0, 0, LAYERS}, {0, 0, LAYERS}},
                                                   {{1, 1, 1}, {1, 1, 1}},           {{0, 1, 2}, {2, 1, 0}},
                                                   {{LAYERS, 0, 0}, {0, 0, LAYERS}}, {{0, LAYERS, 0}, {1, 0, 2}}};
    static const struct mode_clip_blocks whole = {{LAYERS, 0, 0}, {LAYERS, 0, 0}};
    struct mode_backend *be = open_backend(name);
    for (int kind = 0; kind < VARIANTS; kind++)
        for (int saving = 0; saving < 4; saving++)
            for (int64_t pieces = 1; pieces < 4; pieces += 2) {
                size_t n, m;
                uint8_t *want = step_bytes(&n, be, kind, saving & 1, saving & 2, pieces, &whole);
                for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
                    uint8_t *got = step_bytes(&m, be, kind, saving & 1, saving & 2, pieces, &ways[i]);
                    if (n != m || memcmp(got, want, n) != 0)
                        fail_msg("%s, tower %d, savings off %d, %d pieces, way %zu: other bytes", name, kind, saving,
                                 (int)pieces, i);
                    free(got);
                }
                free(want);
            }
    mode_backend_close(&be);
}

static void test_every_policy_gives_the_same_bytes(void **state)
{
    (void)state;
    every_policy_on("cpu");
    every_policy_on("cpu-plain");
}

static void test_every_policy_gives_the_same_bytes_on_the_reference(void **state)
{
    (void)state;
    every_policy_on("ref");
    every_policy_on("ref-bf16");
}

/* ---- the choice ---- */

/* The least recomputation possible with that many bytes, by brute force; INFINITY: nothing fits. */
static double best_of(struct mode_clip *clip, size_t bytes)
{
    double best = INFINITY;
    for (int64_t a = 0; a <= IMAGE; a++)
        for (int64_t b = 0; a + b <= IMAGE; b++)
            for (int64_t c = 0; c <= TEXT; c++)
                for (int64_t d = 0; c + d <= TEXT; d++) {
                    const struct mode_clip_blocks blocks = {{a, b, IMAGE - a - b}, {c, d, TEXT - c - d}};
                    mode_clip_set_blocks(clip, &blocks);
                    const struct mode_clip_memory m = memory_of(clip);
                    if (m.total <= bytes && m.again < best) best = m.again;
                }
    return best;
}

static void choose(bool padded, bool branches)
{
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_error err;
    double before = INFINITY;
    int mixed = 0;
    assert_int_equal(mode_clip_create(&clip, be, MANY_BLOCKS, NULL, 5, &err), MODE_OK);
    mode_clip_set_padding(clip, padded);
    mode_clip_set_branches(clip, branches);
    const size_t most = memory_of(clip).total;
    mode_clip_set_memory(clip, 1, true);
    const size_t least = memory_of(clip).total;
    assert_true(branches || least < most * 2 / 3);
    assert_false(mode_clip_fit(clip, BATCH, least - 1));
    assert_int_equal(memory_of(clip).total, least);
    for (int i = 0; i <= 40; i++) {
        const size_t bytes = least + (most - least) * (size_t)i / 40;
        const double best = best_of(clip, bytes);
        assert_true(mode_clip_fit(clip, BATCH, bytes));
        const struct mode_clip_memory m = memory_of(clip);
        assert_true(m.total <= bytes && fabs(m.again - best) < 1e-12);
        assert_true(m.again <= before + 1e-12);
        before = m.again;
        mixed += m.blocks.image[0] + m.blocks.text[0] > 0 && m.kept[1] + m.kept[2] > 0;
        assert_true(mode_clip_fit(clip, BATCH, bytes)); /* independent of earlier settings */
        const struct mode_clip_memory once_more = memory_of(clip);
        assert_memory_equal(&once_more.blocks, &m.blocks, sizeof m.blocks);
    }
    assert_true(before == 0); /* enough memory: nothing is recomputed */
    assert_true(mixed > 10);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

static void test_the_choice_fits_and_is_the_quickest(void **state)
{
    (void)state;
    choose(false, false);
    choose(true, false); /* padded text rows take memory, too */
    choose(true, true);  /* so do concurrent backward passes of both towers */
}

/* Checkpointing gains nothing in a tower of one block: the backward pass needs what the forward pass has dropped. */
static void test_a_model_of_one_block_a_tower_takes_no_more_for_saving(void **state)
{
    static const char cfg[] =
        "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 32, \"patch_size\": 8, \"width\": 16, \"layers\": 1,"
        " \"head_width\": 8}, \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 23, \"width\": 12,"
        " \"heads\": 3, \"layers\": 1}}";
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_error err;
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, cfg, NULL, 5, &err), MODE_OK);
    const size_t most = memory_of(clip).total;
    assert_true(mode_clip_fit(clip, BATCH, most));
    assert_true(memory_of(clip).again == 0);
    mode_clip_set_memory(clip, 1, true);
    assert_true(memory_of(clip).total <= most);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

/* A small model with a large batch: the logits take more than the backward pass of a tower. */
static void test_the_loss_has_its_room(void **state)
{
    enum { MANY = 4096 };
    struct mode_backend *be = open_backend("cpu");
    struct mode_clip *clip;
    struct mode_clip_memory m;
    struct mode_error err;
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, MANY_BLOCKS, NULL, 5, &err), MODE_OK);
    mode_clip_set_memory(clip, MANY / 8, true);
    mode_clip_memory(&m, clip, MANY);
    assert_true(m.turns >= (size_t)mode_contrastive_work(MANY, MANY) * sizeof(float) + 2 * MANY * sizeof(double));
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_policy_gives_the_same_bytes),
        cmocka_unit_test(test_every_policy_gives_the_same_bytes_on_the_reference),
        cmocka_unit_test(test_the_choice_fits_and_is_the_quickest),
        cmocka_unit_test(test_a_model_of_one_block_a_tower_takes_no_more_for_saving),
        cmocka_unit_test(test_the_loss_has_its_room),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
