/* tiny_batch.h - random pixels and texts of a few pairs, for tests of whole steps; setup is a cmocka group's. */
#ifndef MODE_TESTS_TINY_BATCH_H
#define MODE_TESTS_TINY_BATCH_H

#include "base/error.h"
#include "base/rng.h"
#include "nn/backend.h"

enum { PAIRS = 7, SIDE = 12, LONGEST = 9, VOCAB = 23, LAYERS = 3 };

static struct {
    float pixels[PAIRS * 3 * SIDE * SIDE];
    int32_t ids[PAIRS * LONGEST], n_ids[PAIRS];
} batch;

static int setup(void **state)
{
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 1, PAIRS);
    int32_t *id = batch.ids;
    (void)state;
    for (size_t i = 0; i < sizeof batch.pixels / sizeof *batch.pixels; i++)
        batch.pixels[i] = (float)mode_rng_normal(&r);
    for (int i = 0; i < PAIRS; i++) {
        batch.n_ids[i] = 1 + (int32_t)mode_rng_below(&r, LONGEST);
        for (int j = 0; j < batch.n_ids[i] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, VOCAB - 1);
        *id++ = VOCAB - 1;
    }
    return 0;
}

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    if (mode_backend_open(&be, name, &err) != MODE_OK) fail_msg("%s", err.text);
    return be;
}

#endif
