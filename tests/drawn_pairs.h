/* drawn_pairs.h - random pairs for a small model: normal pixels, texts of random length that end with the highest id.
 * */
#ifndef MODE_TESTS_DRAWN_PAIRS_H
#define MODE_TESTS_DRAWN_PAIRS_H

#include "base/rng.h"

#include <stddef.h>
#include <stdint.h>

/* ids [pairs * longest], filled from the front; n_ids [pairs]. */
static inline void draw_pairs(float *pixels, size_t n_pixels, int32_t *ids, int32_t *n_ids, int pairs, int longest,
                              int vocab)
{
    struct mode_rng r = mode_rng_for(21, MODE_RNG_TEST, 0, 0);
    for (size_t i = 0; i < n_pixels; i++) pixels[i] = (float)mode_rng_normal(&r);
    for (int i = 0; i < pairs; i++) {
        n_ids[i] = 2 + (int32_t)mode_rng_below(&r, (uint64_t)longest - 1);
        for (int j = 0; j < n_ids[i] - 1; j++) *ids++ = (int32_t)mode_rng_below(&r, (uint64_t)vocab - 1);
        *ids++ = vocab - 1; /* the end token has the highest id */
    }
}

#endif
