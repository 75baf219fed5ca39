/* device.h - one GPU as a backend: its stream, its matrix products, where its memory comes from. Inside nn/cuda only.
 *
 * Memory is managed (cudaMallocManaged): models fill and read it on the host as on every backend, the driver moves
 * pages. Ops return before they are done; who reads a result on the host calls mode_backend_sync first.
 * cuBLAS is loaded when the first backend is opened, the runtime is linked in and loads the driver itself: the
 * program starts where there is neither. */
#ifndef MODE_NN_CUDA_DEVICE_H
#define MODE_NN_CUDA_DEVICE_H

#include "nn/backend_impl.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

struct mode__cuda {
    cudaStream_t stream;
    cublasHandle_t blas;
    struct mode__attention_ways *attention;
    double *scalar;      /* pinned: results that the host waits for */
    size_t room, memory; /* bytes that were free when it was opened; that the GPU has */
    size_t n_taken;
    struct mode__cuda_taken { /* of these, by this backend */
        void *data;
        size_t bytes;
    } * taken;
};

static inline struct mode__cuda *mode__cuda_of(const struct mode_backend *be)
{
    return be->device;
}

/* A call that may only fail by a bug of ours or a broken device: says which and ends the process. */
#define CUDA_OK(call) mode__cuda_check((call), #call, __FILE__, __LINE__)
void mode__cuda_check(cudaError_t e, const char *call, const char *file, int line);

/* c [m, n] = alpha op(a) op(b) + beta c, row-major; op turns round what is said to be turned: a is [m, k] or, turned,
 * lies as [k, m]; b is [k, n] or, turned, lies as [n, k]. */
void mode__cuda_gemm(struct mode_backend *be, float *c, const float *a, bool a_turned, const float *b, bool b_turned,
                     int64_t m, int64_t n, int64_t k, float beta);

/* nccl.c; mode_backend_ranks (nn/backend.h). */
enum mode_status mode__cuda_ranks(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting *m,
                                  struct mode_error *err);

#endif
