/* pixels.cu - decoded pictures to the im2col columns of a model's patch embedding: two resize passes over bytes, then a
 * lookup table of floats.
 *
 * DESIGN: integer arithmetic, with floats from a table. It is limited by byte and weight loads and index arithmetic, so
 * a thread computes several outputs that share weights: in the horizontal pass, one byte of ACROSS rows; in the
 * vertical pass, if rows are as wide as the input and a multiple of four pixels, four neighbouring pixels, read as
 * words. Everything else (thin pictures, which are resized vertically first; borders left and right) is computed one
 * element at a time. Every picture has its row of blocks (gridDim.y), as many as the largest picture of the launch
 * needs. */
#include "nn/cuda/store.cuh"
#include "nn/pixels.h"

enum { THREADS = 256, ACROSS = 4, DOWN = 4, LEVELS = 3 * 256 };

static __device__ inline uint8_t clamp_byte(int32_t sum)
{
    sum >>= MODE_PIXELS_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Output o of n; its inputs are at in, in + step, ... */
static __device__ inline uint8_t weigh(const uint8_t *in, int64_t step, const int32_t *taps, int n, int o)
{
    const int count = taps[n + o];
    const int32_t *weight = taps + 2 * n + o;
    int32_t sum = 1 << (MODE_PIXELS_BITS - 1);
    in += taps[o] * step;
    for (int j = 0; j < count; j++, in += step, weight += n) sum += *in * *weight;
    return clamp_byte(sum);
}

static __device__ inline const int32_t *taps_at(const uint8_t *bytes, int64_t at)
{
    return (const int32_t *)(bytes + at);
}

static __device__ inline const mode_pixels_window *window_at(const uint8_t *bytes, int64_t first)
{
    return (const mode_pixels_window *)bytes + first + blockIdx.y;
}

/* Bytes of a row of the intermediate picture. */
static __device__ inline int row_of(const mode_pixels_window *w)
{
    return 3 * (w->down_first ? w->width : w->n_x);
}

static __global__ void first_pass(uint8_t *between, int64_t room, const uint8_t *bytes, int64_t first)
{
    const mode_pixels_window *w = window_at(bytes, first);
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x), row = row_of(w);
    const uint8_t *rgb = bytes + w->rgb;
    uint8_t *to = between + blockIdx.y * room;
    if (w->down_first) {
        if (i < row * w->n_y) to[i] = weigh(rgb + i % row, row, taps_at(bytes, w->down), w->n_y, i / row);
        return;
    }
    const int y = i / row * ACROSS, at = i % row, x = at / 3, rows = w->height - y;
    if (rows <= 0) return;
    const int32_t *taps = taps_at(bytes, w->across);
    const int count = taps[w->n_x + x];
    const int32_t *weight = taps + 2 * w->n_x + x;
    const uint8_t *in[ACROSS];
    int32_t sum[ACROSS];
    for (int k = 0; k < ACROSS; k++) { /* past the last row, repeat it */
        in[k] = rgb + ((int64_t)(y + (k < rows ? k : rows - 1)) * w->width + taps[x]) * 3 + at % 3;
        sum[k] = 1 << (MODE_PIXELS_BITS - 1);
    }
    for (int j = 0; j < count; j++, weight += w->n_x)
        for (int k = 0; k < ACROSS; k++) sum[k] += in[k][3 * j] * *weight;
    for (int k = 0; k < ACROSS && k < rows; k++) to[(int64_t)(y + k) * row + at] = clamp_byte(sum[k]);
}

/* One element of a patch. Accesses of neighbouring threads are contiguous, except reads at a patch's edge. */
static __device__ inline uint8_t number_of(const uint8_t *in, const mode_pixels_window *w, const uint8_t *bytes, int y,
                                           int x, int c, uint8_t border)
{
    in += c;
    if (x < 0 || x >= w->n_x || y < 0 || y >= w->n_y) return border;
    return w->down_first ? weigh(in + (int64_t)y * w->width * 3, 3, taps_at(bytes, w->across), w->n_x, x)
                         : weigh(in + x * 3, (int64_t)w->n_x * 3, taps_at(bytes, w->down), w->n_y, y);
}

/* Output y of DOWN pixels, whose inputs are at `in` and every `row` bytes after it, aligned to 4. */
static __device__ inline void weigh_words(int32_t (&sum)[3 * DOWN], const uint8_t *in, int row, const int32_t *taps,
                                          int n, int y)
{
    const int count = taps[n + y];
    const int32_t *weight = taps + 2 * n + y;
    in += (int64_t)taps[y] * row;
    for (int k = 0; k < 3 * DOWN; k++) sum[k] = 1 << (MODE_PIXELS_BITS - 1);
    for (int j = 0; j < count; j++, in += row, weight += n)
        for (int q = 0; q < 3; q++) {
            const uint32_t four = ((const uint32_t *)in)[q];
            for (int k = 0; k < 4; k++) sum[4 * q + k] += (int32_t)(four >> 8 * k & 255) * *weight;
        }
}

/* together: the DOWN pixels are in one patch, and are stored at once */
template <typename T, bool together>
static __global__ void second_pass(T *cols, const uint8_t *between, int64_t room, const uint8_t *bytes, int64_t first,
                                   int side, int p, const float *levels, uint8_t border)
{
    __shared__ T level[LEVELS];
    const mode_pixels_window *w = window_at(bytes, first);
    const uint8_t *in = between + blockIdx.y * room;
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x), count = 3 * side * side, g = side / p;
    cols += (int64_t)blockIdx.y * count;
    if (w->down_first || w->n_x != side || side % DOWN) {
        for (int at = i; at < count; at += (int)gridDim.x * THREADS) {
            const int c = at / (p * p) % 3, patch = at / (3 * p * p);
            const int y = patch / g * p + at % (p * p) / p, x = patch % g * p + at % p;
            narrow(&cols[at], levels[c * 256 + number_of(in, w, bytes, y - w->y, x - w->x, c, border)]);
        }
        return;
    }
    for (int k = (int)threadIdx.x; k < LEVELS; k += THREADS) narrow(&level[k], levels[k]);
    __syncthreads();
    const int y = i / (side / DOWN), x = i % (side / DOWN) * DOWN, row = y - w->y;
    if (y >= side) return;
    int32_t sum[3 * DOWN];
    const bool inside = row >= 0 && row < w->n_y;
    if (inside) weigh_words(sum, in + 3 * x, 3 * side, taps_at(bytes, w->down), w->n_y, row);
    for (int c = 0; c < 3; c++) {
        pack<T, DOWN> out;
        for (int k = 0; k < DOWN; k++) out.x[k] = level[c * 256 + (inside ? clamp_byte(sum[3 * k + c]) : border)];
        if (together) {
            *(pack<T, DOWN> *)(cols + (((y / p * g + x / p) * 3 + c) * p + y % p) * p + x % p) = out;
        } else {
            for (int k = 0; k < DOWN; k++)
                cols[(((y / p * g + (x + k) / p) * 3 + c) * p + y % p) * p + (x + k) % p] = out.x[k];
        }
    }
}

template <bool together>
static void second_by(cudaStream_t stream, bool bf16, void *cols, const uint8_t *between, int64_t room,
                      const struct mode_pictures *pictures, int64_t first, int64_t n, int side, int p)
{
    const dim3 blocks(blocks_of(side * ceil_div(side, DOWN), THREADS), (unsigned)n);
    BY_TYPE(bf16, second_pass<T, together><<<blocks, THREADS, 0, stream>>>(
                      (T *)cols, between, room, (const uint8_t *)pictures->bytes, first, side, p, pictures->levels,
                      pictures->border));
}

static int64_t first_threads(const mode_pixels_window *w)
{
    return 3 * (w->down_first ? (int64_t)w->n_y * w->width : w->n_x * ceil_div(w->height, ACROSS));
}

void mode__cuda_picture_patches(cudaStream_t stream, bool bf16, void *cols, uint8_t *between, int64_t room,
                                const struct mode_pictures *pictures, int64_t first, int64_t n, int64_t side, int64_t p)
{
    const uint8_t *bytes = (const uint8_t *)pictures->bytes;
    int64_t most = 1;
    for (int64_t i = first; i < first + n; i++) {
        const int64_t threads = first_threads(&pictures->windows[i]);
        most = threads > most ? threads : most;
    }
    first_pass<<<dim3(blocks_of(most, THREADS), (unsigned)n), THREADS, 0, stream>>>(between, room, bytes, first);
    const auto by = p % DOWN == 0 && wide_rows(0, 1, (const uint8_t *)cols) ? second_by<true> : second_by<false>;
    by(stream, bf16, cols, between, room, pictures, first, n, (int)side, (int)p);
}
