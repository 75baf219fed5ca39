#include "nn/pixels.h"

size_t mode_pixels_taps_bytes(int64_t n, int64_t most)
{
    return (size_t)n * (size_t)(2 + most) * sizeof(int32_t);
}

/* The weights transposed: neighbouring GPU threads compute neighbouring outputs. */
void mode_pixels_taps(int32_t *to, int64_t n, int64_t most, const int *first, const int *count, const int32_t *k,
                      int from)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = first[i] - from;
        to[n + i] = count[i];
        for (int64_t j = 0; j < most; j++) to[(2 + j) * n + i] = k[i * most + j];
    }
}

void mode_pixels_same(int32_t *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = (int32_t)i;
        to[n + i] = 1;
        to[2 * n + i] = 1 << MODE_PIXELS_BITS;
    }
}
