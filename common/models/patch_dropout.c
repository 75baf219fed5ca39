#include "models/patch_dropout.h"

#include "base/error.h"
#include "base/rng.h"

int64_t mode_patches_kept(int64_t patches, double probability)
{
    const int64_t n = (int64_t)((double)patches * (1 - probability));
    MODE_ASSERT(probability >= 0 && probability < 1);
    return n > 0 ? n : 1;
}

/* Selection sampling (Knuth, volume 2, algorithm S): a patch is kept with the probability (number still needed) / (number
 * still to come), which makes every subset equally likely, and the order ascending. */
void mode_patches_draw(int32_t *kept, int64_t n, int64_t patches, uint64_t seed, uint64_t place)
{
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_PATCHES, 0, place);
    MODE_ASSERT(n >= 1 && n <= patches);
    for (int64_t i = 0, at = 0; at < n; i++)
        if ((int64_t)mode_rng_below(&r, (uint64_t)(patches - i)) < n - at) kept[at++] = (int32_t)i;
}
