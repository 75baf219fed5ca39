/* blas.cpp - cuBLAS's GEMMs in plain loops, column-major as there, summed as sums.h says. */
#include "emulator.h"
#include "sums.h"

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdlib>
#include <cstring>
#include <vector>

struct mode_emu_blas {
    cudaStream_t stream;
    cublasMath_t math;
    cublasPointerMode_t pointers;
    void *workspace; /* NULL: cuBLAS's own */
};

namespace
{

float get(const void *x, cudaDataType type, long long i)
{
    switch (type) {
    case CUDA_R_32F: return ((const float *)x)[i];
    case CUDA_R_16BF: return __bfloat162float(((const __nv_bfloat16 *)x)[i]);
    default: return __half2float(((const __half *)x)[i]);
    }
}

void put(void *x, cudaDataType type, long long i, double v)
{
    switch (type) {
    case CUDA_R_32F: ((float *)x)[i] = (float)v; break;
    case CUDA_R_16BF: ((__nv_bfloat16 *)x)[i] = __float2bfloat16((float)v); break;
    default: ((__half *)x)[i] = __float2half((float)v);
    }
}

/* f32 rounded to TF32, as tensor cores read it: 10 bits of fraction. */
float tf32(float x)
{
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    return __uint_as_float(bits);
}

using mode_emu::COLUMNS;
enum { AT_A_TIME = 16 }; /* products that a tensor core adds at once */

struct gemm {
    bool ta, tb, rounded;
    int m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
    cudaDataType a_type, b_type, c_type;
    const float *alpha_at, *beta_at; /* on the device, or NULL */
    float alpha, beta;

    void run() const
    {
        std::vector<float> x((size_t)m * k), y((size_t)n * k); /* op(a) and op(b) with k innermost */
        double scale = alpha_at ? *alpha_at : alpha, keep = beta_at ? *beta_at : beta;
        for (int i = 0; i < m; i++)
            for (int p = 0; p < k; p++)
                x[(size_t)i * k + p] = get(a, a_type, ta ? p + (long long)i * lda : i + (long long)p * lda);
        for (int j = 0; j < n; j++)
            for (int p = 0; p < k; p++)
                y[(size_t)j * k + p] = get(b, b_type, tb ? j + (long long)p * ldb : p + (long long)j * ldb);
        for (size_t i = 0; rounded && i < x.size(); i++) x[i] = tf32(x[i]);
        for (size_t i = 0; rounded && i < y.size(); i++) y[i] = tf32(y[i]);
        std::vector<float> columns((size_t)k * COLUMNS);
        for (int j = 0; j < n; j += COLUMNS) {
            const int some = std::min(n - j, (int)COLUMNS);
            mode_emu::side_by_side(columns.data(), y.data() + (size_t)j * k, k, some);
            for (int i = 0; i < m; i++) {
                float sums[COLUMNS];
                if (a_type == CUDA_R_32F && !rounded)
                    mode_emu::sums_in_f32(sums, x.data() + (size_t)i * k, columns.data(), k);
                else
                    mode_emu::sums_by_tensor_core(sums, x.data() + (size_t)i * k, columns.data(), k, AT_A_TIME);
                for (int of = 0; of < some; of++) {
                    const double sum = scale * sums[of];
                    const long long at = i + (long long)(j + of) * ldc;
                    put(c, c_type, at, keep == 0 ? sum : sum + keep * get(c, c_type, at)); /* with 0, c is not read */
                }
            }
        }
    }
};

cublasStatus_t gemm_strided_batched(cublasHandle_t h, bool tf, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                    int k, const void *alpha, const void *a, cudaDataType a_type, int lda,
                                    long long a_stride, const void *b, cudaDataType b_type, int ldb, long long b_stride,
                                    const void *beta, void *c, cudaDataType c_type, int ldc, long long c_stride,
                                    int count)
{
    bool device = h->pointers == CUBLAS_POINTER_MODE_DEVICE;
    if (m < 0 || n < 0 || k < 0 || lda < std::max(1, ta ? k : m) || ldb < std::max(1, tb ? n : k) ||
        ldc < std::max(1, m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a_type != b_type || (a_type != CUDA_R_32F && a_type != CUDA_R_16BF && a_type != CUDA_R_16F) ||
        (c_type != CUDA_R_32F && c_type != a_type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (mode_emu::is_captured(h->stream) && !h->workspace) {
        fprintf(stderr, "emulator: cuBLAS would take memory for its workspace in a capture; it was given none\n");
        abort();
    }
    for (const void *p : {a, b, (const void *)c})
        mode_emu::check_argument("cublas gemm", p == a ? 1 : p == b ? 2 : 3, p);
    size_t size = a_type == CUDA_R_32F ? 4 : 2, c_size = c_type == CUDA_R_32F ? 4 : 2;
    for (int i = 0; i < count; i++) {
        gemm g = {ta == CUBLAS_OP_T,
                  tb == CUBLAS_OP_T,
                  tf,
                  m,
                  n,
                  k,
                  lda,
                  ldb,
                  ldc,
                  (const char *)a + (size_t)(i * a_stride) * size,
                  (const char *)b + (size_t)(i * b_stride) * size,
                  (char *)c + (size_t)(i * c_stride) * c_size,
                  a_type,
                  b_type,
                  c_type,
                  device ? (const float *)alpha : nullptr,
                  device ? (const float *)beta : nullptr,
                  device ? 0 : *(const float *)alpha,
                  device ? 0 : *(const float *)beta};
        mode_emu::enqueue(h->stream, [g] { g.run(); });
    }
    return mode_emu::fault() == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // namespace

extern "C" {

/* MODE_EMULATOR_BLAS=refuses: as a library that wants a newer driver */
cublasStatus_t cublasCreate_v2(cublasHandle_t *h)
{
    const char *s = getenv("MODE_EMULATOR_BLAS");
    if (s && !strcmp(s, "refuses")) return CUBLAS_STATUS_NOT_INITIALIZED;
    *h = new mode_emu_blas();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t h)
{
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s)
{
    h->stream = s;
    h->workspace = nullptr; /* as documented: resets it to cuBLAS's own */
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t mode)
{
    h->math = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t where)
{
    h->pointers = where;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *work, size_t)
{
    if ((uintptr_t)work % 256) return CUBLAS_STATUS_INVALID_VALUE;
    mode_emu::check_argument("cublasSetWorkspace", 1, work);
    h->workspace = work;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                              const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta,
                              float *c, int ldc)
{
    return gemm_strided_batched(h, h->math == CUBLAS_TF32_TENSOR_OP_MATH, ta, tb, m, n, k, alpha, a, CUDA_R_32F, lda, 0,
                                b, CUDA_R_32F, ldb, 0, beta, c, CUDA_R_32F, ldc, 0, 1);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                          int k, const void *alpha, const void *a, cudaDataType a_type, int lda,
                                          long long a_stride, const void *b, cudaDataType b_type, int ldb,
                                          long long b_stride, const void *beta, void *c, cudaDataType c_type, int ldc,
                                          long long c_stride, int count, cublasComputeType_t compute, cublasGemmAlgo_t)
{
    bool tf = a_type == CUDA_R_32F && (compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                                       (compute == CUBLAS_COMPUTE_32F && h->math == CUBLAS_TF32_TENSOR_OP_MATH));
    return gemm_strided_batched(h, tf, ta, tb, m, n, k, alpha, a, a_type, lda, a_stride, b, b_type, ldb, b_stride, beta,
                                c, c_type, ldc, c_stride, count);
}

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType a_type, int lda, const void *b,
                            cudaDataType b_type, int ldb, const void *beta, void *c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type,
                                      ldc, 0, 1, compute, algo);
}

const char *cublasGetStatusString(cublasStatus_t st)
{
    return st == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
           : st == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
           : st == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                               : "CUBLAS_STATUS_NOT_INITIALIZED";
}

} // extern "C"
