/* device.h - one GPU as a backend: streams, GEMMs, memory. Inside nn/cuda only.
 *
 * Memory is device memory (cudaMalloc), which the host accesses only by copies. Memory of mode_backend_share is a
 * pinned host buffer and a device copy; no kernel reads host memory. Ops are asynchronous. cuBLAS and cuBLASLt are
 * loaded when the first backend is opened; the CUDA runtime is linked statically and loads the driver itself: the
 * program starts on machines without either.
 *
 * Results are deterministic: bit-identical from run to run on one GPU model with one version of the libraries. Kernels
 * use no atomics and reduce in an order that the shapes alone determine (kernels.h); ops run on one stream, or on
 * several synchronised wherever one reads or writes what another does (streams.c); a GEMM's algorithm follows from its
 * shape and alignment: the heuristic's first, split-K only with a deterministic reduction. Autotuning
 * (mode_backend_measure) gives this up. */
#ifndef MODE_NN_CUDA_DEVICE_H
#define MODE_NN_CUDA_DEVICE_H

#include "nn/backend_impl.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

/* A stream, and what streams must not share. The lane of collectives is a stream alone. */
struct mode__lane {
    cudaStream_t stream; /* NULL: not created yet */
    cublasHandle_t blas;
    void *workspace; /* of cuBLASLt and cuBLAS; NULL: there was no memory for it */
};
enum { MODE__WORKSPACE = 32 << 20 }; /* bytes of it */

struct mode__cuda {
    cudaStream_t stream; /* of the current lane */
    struct mode__lane lane[MODE__LANES];
    struct mode__streams *streams;
    struct mode__exchanges *exchanges; /* exchanges.h; NULL: no group */
    bool measuring;
    struct mode__products *products;
    struct mode__attention_ways *attention;
    struct mode__product_ways *product_ways;
    struct mode__graphs *graphs;
    struct mode__clock *clock;   /* clock.h; NULL: never profiled */
    size_t free_at_open, memory; /* bytes free when it was opened; bytes of the GPU */
    size_t n_taken;
    struct mode__cuda_taken { /* allocations of this backend */
        void *data, *host;    /* host: the pinned buffer of mode_backend_share; else NULL */
        size_t bytes;
    } * taken;
};

static inline struct mode__cuda *mode__cuda_of(const struct mode_backend *be)
{
    return be->device;
}

/* device.c: loads a library of the toolkit, such as "libcublas"; NULL: not found, and dlerror says why. The major version
 * that this was compiled with comes first, since another one may need a newer driver; the types and values used here are
 * the same in 12 and 13. */
void *mode__cuda_library(const char *name);
/* device.c: a lane's stream, handle and workspace; close also cleans up after a failed open. */
enum mode_status mode__lane_open(struct mode_backend *be, int i, struct mode_error *err);
void mode__lane_close(struct mode__lane *l);

/* streams.c: mode_backend_branches and the functions after it in nn/backend.h. No-ops until branches are enabled. */
struct mode__streams *mode__streams_open(void);
void mode__streams_close(struct mode__streams **s);
enum mode_status mode__cuda_branches(struct mode_backend *be, struct mode_error *err);
void mode__cuda_fork(struct mode_backend *be);
void mode__cuda_branch(struct mode_backend *be, int i);
void mode__cuda_join(struct mode_backend *be);
bool mode__cuda_forked(const struct mode_backend *be);
/* Between these, launches go to the branch's side stream, after what the branch has launched so far. They read a and b:
 * before an op of the branch overwrites those, the branch waits for them. */
void mode__beside_begin(struct mode_backend *be);
void mode__beside_end(struct mode_backend *be, const struct mode_tensor *a, const struct mode_tensor *b);
void mode__cuda_writes(struct mode_backend *be, struct mode_tensor *const *written, int n);
bool mode__beside_used(const struct mode_backend *be); /* anything on the branch's side stream since the fork? */

/* Records an allocation, for mode_backend_room. */
void mode__cuda_took(struct mode__cuda *c, void *data, size_t bytes);
/* The device copy of memory of mode_backend_share; NULL: data is not such memory. */
void *mode__cuda_shared(const struct mode_backend *be, const void *data);

/* A call that fails only by a bug of ours or a broken GPU: reports it and ends the process (fault.c). */
#define CUDA_OK(call) mode__cuda_check((call), #call, __FILE__, __LINE__)
void mode__cuda_check(cudaError_t e, const char *call, const char *file, int line);
bool mode__cuda_is_broken(void); /* struct mode__device */

/* A GEMM: c [m, n] = op(a) op(b) + add + bias, row-major. a is [m, k] or, a_transposed, stored as [k, m]; b is [k, n]
 * or, b_transposed, stored as [n, k]. f32 accumulation; the result is rounded once. */
struct mode__product {
    void *c;
    const void *a, *b;
    bool a_transposed, b_transposed;
    int64_t m, n, k;
    const void *add;   /* type of c, may be c; NULL: none */
    const void *bias;  /* [n], type of c; NULL: none */
    bool bf16, c_bf16; /* a and b are bf16, else f32; c is bf16 */
    bool f16;          /* a and b are fp16, c is f32 */
    /* product_fp8.c: a has this fp8 format, b is E4M3; each with a scale factor in device memory */
    enum mode__fp8 { MODE__FP8_NONE, MODE__FP8_E4M3, MODE__FP8_E5M2 } fp8;
    const float *a_scale, *b_scale;
};
void mode__cuda_product(struct mode_backend *be, const struct mode__product *x);
/* c [m, n] = a [m, k] b [n, k]^T, all f32 */
void mode__cuda_dots(struct mode_backend *be, float *c, const float *a, const float *b, int64_t m, int64_t n,
                     int64_t k);

/* product.c. Without cuBLASLt, or where it refuses a GEMM, cuBLAS is used and counted. */
struct mode__products *mode__cuda_products_open(bool tf32);
void mode__cuda_products_close(struct mode__products **p);
bool mode__cuda_products_by_lt(const struct mode__products *p);                        /* is cuBLASLt there? */
bool mode__cuda_product_by_lt(struct mode_backend *be, const struct mode__product *x); /* false: it refuses */
void mode__cuda_products_measure(struct mode__products *p, bool on);
char *mode__cuda_algorithms(struct mode_backend *be); /* nn/backend.h, like the next */
enum mode_status mode__cuda_use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                           struct mode_error *err);
int64_t mode__cuda_products_done(const struct mode__products *p);
int64_t mode__cuda_products_refused(const struct mode__products *p); /* of these */

/* device.c: the same by cuBLAS: no bias, and add is c or NULL. */
void mode__cuda_gemm(struct mode_backend *be, const struct mode__product *x);

/* graphs.c */
struct mode__graphs *mode__graphs_open(void);
void mode__graphs_close(struct mode__graphs **g);
void mode__graphs_drop(struct mode__graphs *g); /* all captured graphs */
/* While this thread captures, a failed call is recorded and fails the capture: true. */
bool mode__graphs_failed(cudaError_t e);
bool mode__graphs_capturing(void);
void mode__cuda_repeat(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx);
void mode__cuda_record(struct mode_backend *be, bool on);
void mode__cuda_repeats(const struct mode_backend *be, struct mode_backend_repeats *r);

/* nccl.c; mode_backend_ranks (nn/backend.h). */
enum mode_status mode__cuda_ranks(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting *m,
                                  struct mode_error *err);

#endif
