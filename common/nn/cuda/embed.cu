/* embed.cu - token and patch embedding. */
#include "nn/cuda/block.cuh"

enum { THREADS = 128, ROWS = 8 };

static __global__ void embed(float *x, const float *table, const float *pos, const int32_t *ids,
                             const int32_t *offsets, int64_t n_seq, int64_t d)
{
    int64_t r = blockIdx.x, place = r - offsets[sequence_of(offsets, n_seq, r)];
    const float *word = table + ids[r] * d;
    for (int64_t j = threadIdx.x; j < d; j += THREADS) x[r * d + j] = word[j] + pos[place * d + j];
}

void mode__cuda_embed(cudaStream_t stream, float *x, const float *table, const float *pos, const int32_t *ids,
                      const int32_t *offsets, int64_t r, int64_t n_seq, int64_t d)
{
    embed<<<(unsigned)r, THREADS, 0, stream>>>(x, table, pos, ids, offsets, n_seq, d);
}

/* The block of a token's first row adds up all rows of that token, in their order; the other blocks have nothing to do. */
static __global__ void table_back(float *dtable, const float *dx, const int32_t *ids, int64_t rows, int64_t d)
{
    int64_t r = blockIdx.x;
    int32_t id = ids[r];
    int before = 0;
    for (int64_t i = threadIdx.x; i < r; i += THREADS) before |= ids[i] == id;
    if (__syncthreads_or(before)) return;
    for (int64_t j0 = 0; j0 < d; j0 += THREADS) {
        int64_t j = j0 + threadIdx.x;
        float s = 0;
        for (int64_t i = r; i < rows; i++)
            if (ids[i] == id && j < d) s += dx[i * d + j];
        if (j < d) dtable[id * d + j] += s;
    }
}

/* Block: 32 columns of one place; 8 sequences at a time. */
static __global__ void pos_back(float *dpos, const float *dx, const int32_t *offsets, int64_t n_seq, int64_t d)
{
    __shared__ float sums[ROWS][WARP];
    int64_t place = blockIdx.y, j = (int64_t)blockIdx.x * WARP + threadIdx.x;
    float s = 0;
    if (j < d)
        for (int64_t b = threadIdx.y; b < n_seq; b += ROWS) {
            int64_t r = offsets[b] + place;
            if (r < offsets[b + 1]) s += dx[r * d + j];
        }
    sums[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y > 0 || j >= d) return;
    for (int i = 1; i < ROWS; i++) s += sums[i][threadIdx.x];
    dpos[place * d + j] += s;
}

void mode__cuda_embed_back(cudaStream_t stream, float *dtable, float *dpos, const float *dx, const int32_t *ids,
                           const int32_t *offsets, int64_t r, int64_t n_seq, int64_t n_pos, int64_t d)
{
    table_back<<<(unsigned)r, THREADS, 0, stream>>>(dtable, dx, ids, r, d);
    pos_back<<<dim3(blocks_of(d, WARP), (unsigned)n_pos), dim3(WARP, ROWS), 0, stream>>>(dpos, dx, offsets, n_seq, d);
}

static __global__ void patches(float *cols, const float *pixels, int64_t count, int64_t side, int64_t p)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, g = side / p, at = i;
    if (i >= count) return;
    int64_t x = at % p, y = (at /= p) % p, c = (at /= p) % 3, gx = (at /= 3) % g, gy = (at /= g) % g, b = at / g;
    cols[i] = pixels[((b * 3 + c) * side + gy * p + y) * side + gx * p + x];
}

void mode__cuda_patches(cudaStream_t stream, float *cols, const float *pixels, int64_t n, int64_t side, int64_t p)
{
    int64_t g = side / p, count = n * g * g * 3 * p * p;
    patches<<<blocks_of(count, THREADS), THREADS, 0, stream>>>(cols, pixels, count, side, p);
}

static __global__ void image_tokens(float *x, const float *patch, const float *cls, const float *pos, int64_t tokens,
                                    int64_t d)
{
    int64_t r = blockIdx.x, b = r / tokens, t = r % tokens;
    const float *from = t == 0 ? cls : patch + (b * (tokens - 1) + t - 1) * d;
    for (int64_t j = threadIdx.x; j < d; j += THREADS) x[r * d + j] = from[j] + pos[t * d + j];
}

void mode__cuda_image_tokens(cudaStream_t stream, float *x, const float *patch, const float *cls, const float *pos,
                             int64_t n, int64_t tokens, int64_t d)
{
    image_tokens<<<(unsigned)(n * tokens), THREADS, 0, stream>>>(x, patch, cls, pos, tokens, d);
}

/* Block: 32 columns of one place; 8 pictures at a time. */
static __global__ void image_tokens_back(float *dpatch, float *dcls, float *dpos, const float *dx, int64_t n,
                                         int64_t tokens, int64_t d)
{
    __shared__ float sums[ROWS][WARP];
    int64_t t = blockIdx.y, j = (int64_t)blockIdx.x * WARP + threadIdx.x;
    float s = 0;
    if (j < d)
        for (int64_t b = threadIdx.y; b < n; b += ROWS) {
            float g = dx[(b * tokens + t) * d + j];
            s += g;
            if (t > 0) dpatch[(b * (tokens - 1) + t - 1) * d + j] = g;
        }
    sums[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y > 0 || j >= d) return;
    for (int i = 1; i < ROWS; i++) s += sums[i][threadIdx.x];
    dpos[t * d + j] += s;
    if (t == 0) dcls[j] += s;
}

void mode__cuda_image_tokens_back(cudaStream_t stream, float *dpatch, float *dcls, float *dpos, const float *dx,
                                  int64_t n, int64_t tokens, int64_t d)
{
    image_tokens_back<<<dim3(blocks_of(d, WARP), (unsigned)tokens), dim3(WARP, ROWS), 0, stream>>>(dpatch, dcls, dpos,
                                                                                                   dx, n, tokens, d);
}
