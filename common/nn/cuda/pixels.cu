/* pixels.cu - decoded pictures to the columns of a model's first product: two passes over bytes, then a table of
 * floats.
 *
 * DESIGN: a thread makes one byte. Neighbouring threads read neighbouring weights, and inputs that a cache line or two
 * hold; a picture of 500 x 375 pixels is 5 million multiplications, so that arithmetic is far from what limits the GPU
 * at the rates at which processors decode. Every picture has its row of blocks (gridDim.y); rows are as long as the
 * largest picture of the launch wants them. All of it is integers, and the floats are looked up. */
#include "nn/cuda/store.cuh"
#include "nn/pixels.h"

enum { THREADS = 256 };

/* Output o of n: its inputs lie at in, in + step, ... */
static __device__ inline uint8_t weigh(const uint8_t *in, int64_t step, const int32_t *taps, int n, int o)
{
    const int count = taps[n + o];
    const int32_t *weight = taps + 2 * n + o;
    int32_t sum = 1 << (MODE_PIXELS_BITS - 1);
    in += taps[o] * step;
    for (int j = 0; j < count; j++, in += step, weight += n) sum += *in * *weight;
    sum >>= MODE_PIXELS_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static __device__ inline const int32_t *taps_at(const uint8_t *bytes, int64_t at)
{
    return (const int32_t *)(bytes + at);
}

static __device__ inline const mode_pixels_window *window_at(const uint8_t *bytes, int64_t first)
{
    return (const mode_pixels_window *)bytes + first + blockIdx.y;
}

static __global__ void first_pass(uint8_t *between, int64_t room, const uint8_t *bytes, int64_t first)
{
    const mode_pixels_window *w = window_at(bytes, first);
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    const int row = 3 * (w->down_first ? w->width : w->n_x); /* bytes */
    if (i >= row * (w->down_first ? w->n_y : w->height)) return;
    const int y = i / row, at = i % row;
    const uint8_t *rgb = bytes + w->rgb;
    between[blockIdx.y * room + i] = w->down_first
                                         ? weigh(rgb + at, row, taps_at(bytes, w->down), w->n_y, y)
                                         : weigh(rgb + (int64_t)y * w->width * 3 + at % 3, 3,
                                                 taps_at(bytes, w->across), w->n_x, at / 3);
}

/* A thread makes one number of a patch: neighbours write neighbours, and read neighbours but at the edges of a patch.
 */
template <typename T>
static __global__ void second_pass(T *cols, const uint8_t *between, int64_t room, const uint8_t *bytes, int64_t first,
                                   int side, int p, const float *levels, uint8_t border)
{
    const mode_pixels_window *w = window_at(bytes, first);
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x), count = 3 * side * side;
    if (i >= count) return;
    const int at = i % (p * p), c = i / (p * p) % 3, patch = i / (3 * p * p), g = side / p;
    const int y = patch / g * p + at / p - w->y, x = patch % g * p + at % p - w->x;
    const uint8_t *in = between + blockIdx.y * room + c;
    uint8_t v = border;
    if (x >= 0 && x < w->n_x && y >= 0 && y < w->n_y)
        v = w->down_first ? weigh(in + (int64_t)y * w->width * 3, 3, taps_at(bytes, w->across), w->n_x, x)
                          : weigh(in + x * 3, (int64_t)w->n_x * 3, taps_at(bytes, w->down), w->n_y, y);
    narrow(&cols[(int64_t)blockIdx.y * count + i], levels[c * 256 + v]);
}

void mode__cuda_picture_patches(cudaStream_t stream, bool bf16, void *cols, uint8_t *between, int64_t room,
                                const struct mode_pictures *pictures, int64_t first, int64_t n, int64_t side, int64_t p)
{
    const uint8_t *bytes = (const uint8_t *)pictures->bytes;
    first_pass<<<dim3(blocks_of(room, THREADS), (unsigned)n), THREADS, 0, stream>>>(between, room, bytes, first);
    BY_TYPE(bf16, second_pass<T><<<dim3(blocks_of(3 * side * side, THREADS), (unsigned)n), THREADS, 0, stream>>>(
                      (T *)cols, between, room, bytes, first, (int)side, (int)p, pictures->levels, pictures->border));
}
