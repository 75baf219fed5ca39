/* device.h - one GPU as a backend: its streams, its matrix products, where its memory comes from. Inside nn/cuda only.
 *
 * Memory is the GPU's own (cudaMalloc): the host never touches it, what it wants to write or read there is copied. What
 * both sides have is twice there, in pinned memory of the host and in the GPU's; no kernel reads the host's. Ops return
 * before they are done.
 * cuBLAS and cuBLASLt are loaded when the first backend is opened, the runtime is linked in and loads the driver
 * itself: the program starts where there is neither.
 *
 * The same inputs give the same bytes, run to run, on one kind of GPU with one version of the libraries: kernels use no
 * atomics and sum in an order that shapes alone decide (kernels.h), one stream orders everything, or several that wait
 * for each other wherever one reads or writes what another does (streams.c), and a product's algorithm follows from its
 * shape and alignment: the heuristic's first, with sums over parts of k only in a fixed order. Measuring algorithms
 * (mode_backend_measure) gives this up: the clock chooses then. */
#ifndef MODE_NN_CUDA_DEVICE_H
#define MODE_NN_CUDA_DEVICE_H

#include "nn/backend_impl.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

/* Where ops run one after another: a stream, and what no two streams may have in common; that of exchanges is a stream
 * alone. */
struct mode__lane {
    cudaStream_t stream; /* NULL: not made yet */
    cublasHandle_t blas;
    void *workspace; /* of cuBLASLt's products and cuBLAS's; NULL: there was no memory for it */
};
enum { MODE__WORKSPACE = 32 << 20 }; /* bytes of it */

struct mode__cuda {
    cudaStream_t stream; /* that of the lane which ops go to now */
    struct mode__lane lane[MODE__LANES];
    struct mode__streams *streams;
    struct mode__exchanges *exchanges; /* exchanges.h; NULL: no group */
    bool measuring;
    struct mode__products *products;
    struct mode__attention_ways *attention;
    struct mode__product_ways *product_ways;
    struct mode__graphs *graphs;
    struct mode__clock *clock; /* clock.h; NULL: nothing was timed */
    size_t room, memory;       /* bytes that were free when it was opened; that the GPU has */
    size_t n_taken;
    struct mode__cuda_taken { /* of these, by this backend */
        void *data, *host;    /* host: what both sides have is there on the host; else NULL */
        size_t bytes;
    } * taken;
};

static inline struct mode__cuda *mode__cuda_of(const struct mode_backend *be)
{
    return be->device;
}

/* device.c: a lane's stream, handle and workspace; close takes what open left behind. */
enum mode_status mode__lane_open(struct mode_backend *be, int i, struct mode_error *err);
void mode__lane_close(struct mode__lane *l);

/* streams.c: mode_backend_branches and what follows it in nn/backend.h. Until branches are made, and with but one lane,
 * all of it does nothing. */
struct mode__streams *mode__streams_open(void);
void mode__streams_close(struct mode__streams **s);
enum mode_status mode__cuda_branches(struct mode_backend *be, struct mode_error *err);
void mode__cuda_fork(struct mode_backend *be);
void mode__cuda_branch(struct mode_backend *be, int i);
void mode__cuda_join(struct mode_backend *be);
bool mode__cuda_forked(const struct mode_backend *be);
/* Between these, launches go beside the branch, behind what it has launched so far. They read a and b: the branch will
 * wait for them before an op of it writes there. */
void mode__beside_begin(struct mode_backend *be);
void mode__beside_end(struct mode_backend *be, const struct mode_tensor *a, const struct mode_tensor *b);
void mode__cuda_writes(struct mode_backend *be, struct mode_tensor *const *written, int n);
bool mode__beside_used(const struct mode_backend *be); /* was anything launched beside the branch since the fork? */

/* Memory of the device that was taken, for mode_backend_room. */
void mode__cuda_took(struct mode__cuda *c, void *data, size_t bytes);
/* Where the device has its copy of memory that both sides have; NULL: it is no such memory. */
void *mode__cuda_shared(const struct mode_backend *be, const void *data);

/* A call that may only fail by a bug of ours or a broken GPU: says which and ends the process (fault.c). */
#define CUDA_OK(call) mode__cuda_check((call), #call, __FILE__, __LINE__)
void mode__cuda_check(cudaError_t e, const char *call, const char *file, int line);
bool mode__cuda_is_broken(void); /* struct mode__device */

/* c [m, n] = op(a) op(b) + add + bias, row-major; op turns round what is said to be turned: a is [m, k] or, turned,
 * lies as [k, m]; b is [k, n] or, turned, lies as [n, k]. Sums are f32; what is stored is rounded once. */
struct mode__product {
    void *c;
    const void *a, *b;
    bool a_turned, b_turned;
    int64_t m, n, k;
    const void *add;   /* as c, may be c; NULL: none */
    const void *bias;  /* [n], as c; NULL: none */
    bool bf16, c_bf16; /* a and b are bf16, else f32; so is c */
    bool f16;          /* a and b are fp16, c is f32 */
    /* product_fp8.c: a is of these 8-bit numbers, b is E4M3, each to be multiplied by a number on the device */
    enum mode__fp8 { MODE__FP8_NONE, MODE__FP8_E4M3, MODE__FP8_E5M2 } fp8;
    const float *a_scale, *b_scale;
};
void mode__cuda_product(struct mode_backend *be, const struct mode__product *x);
/* c [m, n] = a [m, k] b [n, k]^T, all f32 */
void mode__cuda_dots(struct mode_backend *be, float *c, const float *a, const float *b, int64_t m, int64_t n,
                     int64_t k);

/* product.c. Without cuBLASLt, or where it refuses a product, cuBLAS makes it; how often is counted. */
struct mode__products *mode__cuda_products_open(bool tf32);
void mode__cuda_products_close(struct mode__products **p);
bool mode__cuda_products_by_lt(const struct mode__products *p);                        /* is there a cuBLASLt? */
bool mode__cuda_product_by_lt(struct mode_backend *be, const struct mode__product *x); /* false: it refuses */
void mode__cuda_products_measure(struct mode__products *p, bool on);
char *mode__cuda_algorithms(struct mode_backend *be); /* nn/backend.h, as the next */
enum mode_status mode__cuda_use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                           struct mode_error *err);
int64_t mode__cuda_products_done(const struct mode__products *p);
int64_t mode__cuda_products_refused(const struct mode__products *p); /* of these */

/* device.c: the same by cuBLAS: without bias, and add is c or NULL. */
void mode__cuda_gemm(struct mode_backend *be, const struct mode__product *x);

/* graphs.c */
struct mode__graphs *mode__graphs_open(void);
void mode__graphs_close(struct mode__graphs **g);
void mode__graphs_drop(struct mode__graphs *g); /* all that is recorded */
/* While this thread captures, a failed call is remembered and fails the capture: true. */
bool mode__graphs_failed(cudaError_t e);
bool mode__graphs_capturing(void);
void mode__cuda_repeat(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx);
void mode__cuda_record(struct mode_backend *be, bool on);
void mode__cuda_repeats(const struct mode_backend *be, struct mode_backend_repeats *r);

/* nccl.c; mode_backend_ranks (nn/backend.h). */
enum mode_status mode__cuda_ranks(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting *m,
                                  struct mode_error *err);

#endif
