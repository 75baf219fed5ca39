/* loss.cu - CLIP's contrastive loss over a block of rows of the cosine matrix, and its gradient in place. */
#include "nn/cuda/block.cuh"

#include <math_constants.h>

enum { THREADS = 256, ROWS = 32 /* rows of a column at a time */ };

static __device__ inline float scale_of(const float *logit_scale)
{
    return (float)exp((double)*logit_scale);
}

/* row[i] = log(sum(exp(scale * c[i, :]))); a block per row */
static __global__ void row_lse(double *row, const float *c, const float *logit_scale, int64_t n)
{
    const float *x = c + blockIdx.x * n, scale = scale_of(logit_scale);
    float max_logit = -CUDART_INF_F, sum = 0;
    for (int64_t j = threadIdx.x; j < n; j += THREADS) max_logit = fmaxf(max_logit, scale * x[j]);
    max_logit = block_max(max_logit);
    for (int64_t j = threadIdx.x; j < n; j += THREADS) sum += expf(scale * x[j] - max_logit);
    sum = block_sum(sum);
    if (threadIdx.x == 0) row[blockIdx.x] = max_logit + log((double)sum);
}

static __device__ inline double log_add(double a, double b)
{
    double most = a > b ? a : b;
    return most + log(exp(a - most) + exp(b - most));
}

/* col[j] the same over columns, combined with its old value if add; 32 columns per block, ROWS rows at a time */
static __global__ void __launch_bounds__(WARP *ROWS)
    col_lse(double *col, const float *c, const float *logit_scale, int64_t rows, int64_t n, bool add)
{
    __shared__ float part[ROWS][WARP];
    int64_t j = (int64_t)blockIdx.x * WARP + threadIdx.x;
    float scale = scale_of(logit_scale), max_logit = -CUDART_INF_F, sum = 0;
    if (j < n)
        for (int64_t i = threadIdx.y; i < rows; i += ROWS) max_logit = fmaxf(max_logit, scale * c[i * n + j]);
    part[threadIdx.y][threadIdx.x] = max_logit;
    __syncthreads();
    for (int k = 0; k < ROWS; k++) max_logit = fmaxf(max_logit, part[k][threadIdx.x]);
    __syncthreads();
    if (j < n)
        for (int64_t i = threadIdx.y; i < rows; i += ROWS) sum += expf(scale * c[i * n + j] - max_logit);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || j >= n) return;
    for (int k = 1; k < ROWS; k++) sum += part[k][threadIdx.x];
    double lse = max_logit + log((double)sum);
    col[j] = add ? log_add(col[j], lse) : lse;
}

/* a thread per column */
static __global__ void join(double *col, const double *each, int64_t size, int64_t n)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (j >= n) return;
    double lse = each[j];
    for (int64_t i = 1; i < size; i++) lse = log_add(lse, each[i * n + j]);
    col[j] = lse;
}

/* c[i, :] becomes the gradient; part[i]: this row's part of the loss, slope[i]: of logit_scale's gradient */
static __global__ void gradient(float *c, double *part, double *slope, const double *row, const double *col,
                                const float *logit_scale, int64_t n, int64_t diagonal)
{
    int64_t i = blockIdx.x, own = diagonal + i;
    float *x = c + i * n, scale = scale_of(logit_scale);
    double pair = scale * x[own], share = 1 / (2.0 * (double)n), sum = 0;
    __syncthreads(); /* x[own] is overwritten below */
    for (int64_t j = threadIdx.x; j < n; j += THREADS) {
        double logit = scale * x[j];
        double g = ((double)expf((float)(logit - row[i])) + (double)expf((float)(logit - col[j])) -
                    (j == own ? 2 : 0)) *
                   share;
        sum += g * logit;
        x[j] = (float)(g * scale);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        part[i] = row[i] + col[own] - 2 * pair;
        slope[i] = sum;
    }
}

static __global__ void finish(double *loss, float *dlogit_scale, const double *part, const double *slope, int64_t m,
                              int64_t n)
{
    double l = 0, s = 0;
    for (int64_t i = threadIdx.x; i < m; i += THREADS) {
        l += part[i];
        s += slope[i];
    }
    l = block_sum(l);
    s = block_sum(s);
    if (threadIdx.x > 0) return;
    *loss = l / (2.0 * (double)n);
    *dlogit_scale = (float)(*dlogit_scale + s);
}

void mode__cuda_contrastive(cudaStream_t stream, double *row, double *col, const float *cosines,
                            const float *logit_scale, int64_t rows, int64_t n, bool add)
{
    row_lse<<<(unsigned)rows, THREADS, 0, stream>>>(row, cosines, logit_scale, n);
    col_lse<<<blocks_of(n, WARP), dim3(WARP, ROWS), 0, stream>>>(col, cosines, logit_scale, rows, n, add);
}

void mode__cuda_join_columns(cudaStream_t stream, double *col, const double *each, int64_t size, int64_t n)
{
    join<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(col, each, size, n);
}

void mode__cuda_contrastive_back(cudaStream_t stream, float *cosines, double *part, double *slope, const double *row,
                                 const double *col, const float *logit_scale, int64_t rows, int64_t n, int64_t diagonal)
{
    gradient<<<(unsigned)rows, THREADS, 0, stream>>>(cosines, part, slope, row, col, logit_scale, n, diagonal);
}

void mode__cuda_contrastive_end(cudaStream_t stream, double *loss, float *dlogit_scale, const double *part,
                                const double *slope, int64_t m, int64_t n)
{
    finish<<<1, THREADS, 0, stream>>>(loss, dlogit_scale, part, slope, m, n);
}

cudaError_t mode__cuda_has_kernels(void)
{
    struct cudaFuncAttributes a;
    cudaError_t e = cudaFuncGetAttributes(&a, finish);
    if (e != cudaSuccess) (void)cudaGetLastError();
    return e == cudaErrorInvalidDeviceFunction ? cudaErrorNoKernelImageForDevice : e;
}
