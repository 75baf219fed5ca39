/* attention_tiles.cuh - building blocks of the bf16 attention kernels: loading rows of a head into shared memory, 16 x
 * 16 mma tiles in registers, and storing results.
 *
 * A block works on rows of one sequence and one head, 16 of its own per warp: a unit. Indices are within the sequence.
 * Lane l of a warp holds rows g = l / 4 and g + 8 of a unit (ptx.cuh), and of 16 x 16 scores the columns 2 t, 2 t + 1,
 * 2 t + 8 and 2 t + 9, t = l % 4. A head is zero-padded to D units of 16 channels, rows to a multiple of 16. Scores are
 * in log2: log2(e) is part of their scale. */
#ifndef MODE_NN_CUDA_ATTENTION_TILES_CUH
#define MODE_NN_CUDA_ATTENTION_TILES_CUH

#include "nn/cuda/attention.cuh"
#include "nn/cuda/ptx.cuh"

#include <cuda_pipeline.h>
#include <math_constants.h>

using bf16 = __nv_bfloat16;

static constexpr int UNIT = 16, PACK = 8;       /* rows of a warp; elements in 16 bytes */
static constexpr int64_t MOST_BLOCKS_Y = 65535; /* of a grid */
static constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

/* Row stride in shared memory: padded by 16 bytes, so that eight consecutive rows lie in different banks. */
template <int D> static constexpr int ROW = UNIT *D + 8;

/* How a sequence of up to `longest` rows is split over blocks, a unit per warp. */
struct partition {
    int warps, parts;
};

static inline struct partition partition_of(int64_t longest, int most_warps)
{
    int64_t units = ceil_div(longest, UNIT), parts = ceil_div(units, most_warps);
    return {(int)ceil_div(units, parts), (int)parts};
}

/* This block's sequence (>= n_seq: none), part of it, and head; heads vary fastest, as in memory. */
struct work_item {
    int b, part, h;
};

static __device__ inline struct work_item work_of_block(int parts)
{
    const int rest = (int)(blockIdx.z * gridDim.y + blockIdx.y), h = (int)blockIdx.x;
    if (parts == 1) return {rest, 0, h}; /* a division is 20 instructions */
    return {rest / parts, rest % parts, h};
}

static __device__ inline int rows_of_block()
{
    return (int)blockDim.y * UNIT;
}

/* How a warp covers a unit by 16-byte accesses: a lane takes the column c of rows k, k + AT_ONCE, .. Rows are added in
 * bytes to an address of bytes: one instruction. */
template <int D> struct column {
    static constexpr int CHUNKS = UNIT * D / PACK, AT_ONCE = WARP / CHUNKS;
    const int k = (int)(threadIdx.x / CHUNKS), c = (int)(threadIdx.x % CHUNKS) * PACK;

    __device__ bool has(int i) const /* row k + i? Lanes beyond a multiple of CHUNKS have none. */
    {
        return (WARP % CHUNKS == 0 || k < AT_ONCE) && (UNIT % AT_ONCE == 0 || k + i < UNIT);
    }
};

static __device__ inline unsigned bytes_of(int elements)
{
    return (unsigned)elements * (unsigned)sizeof(bf16);
}

/* Asynchronous copy of n rows of a head of x into shared memory, 16 by each warp; complete after wait_loads. Rows from
 * n up to a multiple of 16 repeat the last one: finite where it is, and without weight. wide: rows are aligned to 16
 * bytes. */
template <int D> static __device__ inline void load_async(bf16 *to, const bf16 *x, int ld, int n, int dh, bool wide)
{
    const int unit = (int)threadIdx.y * UNIT;
    if (unit >= n) return;
    to += unit * ROW<D>;
    if (wide) {
        const struct column<D> at;
        const char *const from = (const char *)(x + at.c);
        to += at.k * ROW<D> + at.c;
        if (at.c < dh) {
#pragma unroll
            for (int i = 0; i < UNIT; i += at.AT_ONCE)
                if (at.has(i))
                    __pipeline_memcpy_async(to + i * ROW<D>,
                                            from + (unsigned)min(unit + at.k + i, n - 1) * bytes_of(ld),
                                            sizeof(pack<bf16, PACK>));
        } else {
#pragma unroll
            for (int i = 0; i < UNIT; i += at.AT_ONCE)
                if (at.has(i)) *(uint4 *)(to + i * ROW<D>) = {0, 0, 0, 0};
        }
    } else {
        for (int i = (int)threadIdx.x; i < UNIT * UNIT * D; i += WARP) {
            const int k = i / (UNIT * D), c = i % (UNIT * D);
            to[k * ROW<D> + c] = c < dh ? x[min(unit + k, n - 1) * ld + c] : __float2bfloat16_rn(0);
        }
    }
}

/* All loads of all threads of the block are complete and visible. */
static __device__ inline void wait_loads()
{
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
}

/* A warp's own unit as operand A of mma; kept in registers if there are enough. */
template <int D> struct own_rows {
    static constexpr bool HELD = D <= 6;
    const bf16 *at;
    uint32_t x[HELD ? D : 1][4];

    __device__ own_rows(const bf16 *rows) : at(rows + threadIdx.x % 16 * ROW<D> + threadIdx.x / 16 * 8)
    {
#pragma unroll
        for (int d = 0; HELD && d < D; d++) ldmatrix(x[HELD ? d : 0], at + d * UNIT);
    }
    __device__ void get(uint32_t (&to)[4], int d) const
    {
        if (!HELD) ldmatrix(to, at + d * UNIT);
#pragma unroll
        for (int i = 0; HELD && i < 4; i++) to[i] = x[HELD ? d : 0][i];
    }
};

/* s [16, 16] = own b^T over a head */
template <int D> static __device__ inline void score(float (&s)[2][4], const own_rows<D> &own, const bf16 *b)
{
    const bf16 *at = b + (threadIdx.x / 16 * 8 + threadIdx.x % 8) * ROW<D> + threadIdx.x / 8 % 2 * 8;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[i][e] = 0;
#pragma unroll
    for (int d = 0; d < D; d++) {
        uint32_t l[4], r[4];
        own.get(l, d);
        ldmatrix(r, at + d * UNIT);
        mma_m16n8k16(s[0], l, r[0], r[1]);
        mma_m16n8k16(s[1], l, r[2], r[3]);
    }
}

/* Row and column in the 16 x 16 tile of a lane's element e of half i */
static __device__ inline int row_of(int e)
{
    return (int)threadIdx.x / 4 + e / 2 * 8;
}

static __device__ inline int column_of(int i, int e)
{
    return i * 8 + (int)threadIdx.x % 4 * 2 + e % 2;
}

static __device__ inline uint32_t pack_bf16x2(float low, float high)
{
    __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &two, sizeof bits);
    return bits;
}

/* o [16, head] += s [16, 16] x [16, head], s rounded to bf16 */
template <int D> static __device__ inline void accumulate(float (&o)[2 * D][4], const float (&s)[2][4], const bf16 *x)
{
    const bf16 *at = x + threadIdx.x % 16 * ROW<D> + threadIdx.x / 16 * 8;
    const uint32_t l[4] = {pack_bf16x2(s[0][0], s[0][1]), pack_bf16x2(s[0][2], s[0][3]), pack_bf16x2(s[1][0], s[1][1]),
                           pack_bf16x2(s[1][2], s[1][3])};
#pragma unroll
    for (int d = 0; d < D; d++) {
        uint32_t r[4];
        ldmatrix_transposed(r, at + d * UNIT);
        mma_m16n8k16(o[2 * d], l, r[0], r[1]);
        mma_m16n8k16(o[2 * d + 1], l, r[2], r[3]);
    }
}

template <int D> static __device__ inline void clear(float (&o)[2 * D][4])
{
#pragma unroll
    for (int j = 0; j < 2 * D; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) o[j][e] = 0;
}

/* Stores the first n rows of a unit to x, scaled by `factor` per row, through `own`: 16 rows of shared memory that no
 * other warp uses. */
template <int D>
static __device__ inline void store_rows(bf16 *x, int ld, int n, const float (&o)[2 * D][4], const float (&factor)[2],
                                         int dh, bool wide, bf16 *own)
{
    bf16 *const pair = own + row_of(0) * ROW<D> + column_of(0, 0);
    __syncwarp(); /* what was in `own` has been read */
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < 2 * D; j++)
            *(uint32_t *)(pair + half * 8 * ROW<D> + j * 8) = pack_bf16x2(o[j][2 * half] * factor[half],
                                                                          o[j][2 * half + 1] * factor[half]);
    __syncwarp();
    if (wide) {
        const struct column<D> at;
        char *const to = (char *)(x + at.c);
        own += at.k * ROW<D> + at.c;
        if (at.c >= dh) return;
#pragma unroll
        for (int i = 0; i < UNIT; i += at.AT_ONCE)
            if (at.has(i) && at.k + i < n)
                *(uint4 *)(to + (unsigned)(at.k + i) * bytes_of(ld)) = *(const uint4 *)(own + i * ROW<D>);
    } else {
        for (int i = (int)threadIdx.x; i < min(n, UNIT) * UNIT * D; i += WARP) {
            const int k = i / (UNIT * D), c = i % (UNIT * D);
            if (c < dh) x[k * ld + c] = own[k * ROW<D> + c];
        }
    }
}

static inline float scale_of(int64_t dh)
{
    return 1 / sqrtf((float)dh);
}

template <typename... A>
static void launch_units(cudaStream_t stream, void (*kernel)(A...), const struct mode__cuda_attention *a,
                         struct partition partition, size_t bytes, A... args)
{
    opt_in_shared(kernel, bytes);
    const int64_t rest = a->n_seq * partition.parts, z = ceil_div(rest, MOST_BLOCKS_Y);
    const dim3 blocks((unsigned)a->heads, blocks_of(rest, z), (unsigned)z);
    kernel<<<blocks, dim3(WARP, (unsigned)partition.warps), bytes, stream>>>(args...);
}

/* The statement with D, the units of 16 channels of a head, set: the widths of our models, and one for all others */
#define BY_UNITS(dh, ...)                                                                                              \
    do {                                                                                                               \
        if ((dh) <= 64) {                                                                                              \
            constexpr int D = 4;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 80) {                                                                                       \
            constexpr int D = 5;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 96) {                                                                                       \
            constexpr int D = 6;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 128) {                                                                                      \
            constexpr int D = 8;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int D = 16;                                                                                      \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

static inline int row_of_head(int64_t dh)
{
    int row = 0;
    BY_UNITS(dh, row = ROW<D>);
    return row;
}

/* How many of `most` warps, with so many bytes of shared memory each, a block can have. GPUs other than the large ones
 * have 99 KiB per block, which heads of over 128 channels can exceed. */
static inline int warps_that_fit(size_t bytes, int most)
{
    int room = 0;
    if (cudaDeviceGetAttribute(&room, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) != cudaSuccess) return most;
    return (int)min((size_t)most, (size_t)room / bytes);
}

#endif
