#include "nn/cuda/clock.h"
#include "nn/cuda/cudnn_attention.h"
#include "nn/cuda/exchanges.h"
#include "nn/cuda/fp8.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/nearest.h"
#include "nn/cuda/product_act.h"

#include "base/str.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLAS_CALLS(X)                                                                                                  \
    X(cublasCreate_v2)                                                                                                 \
    X(cublasDestroy_v2)                                                                                                \
    X(cublasSetStream_v2) X(cublasSetWorkspace_v2) X(cublasSetMathMode) X(cublasGemmEx)

static struct {
#define X(name) __typeof__(&name) name;
    BLAS_CALLS(X)
#undef X
} blas;

void *mode__cuda_library(const char *name)
{
    static const int majors[] = {CUBLAS_VER_MAJOR, 13, 12};
    char file[32];
    void *lib = NULL;
    for (int i = 0; i < 3 && !lib; i++) {
        snprintf(file, sizeof file, "%s.so.%d", name, majors[i]);
        lib = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    }
    return lib;
}

static enum mode_status load_blas(struct mode_error *err)
{
    static bool is_loaded;
    if (is_loaded) return MODE_OK;
    void *lib = mode__cuda_library("libcublas");
    if (!lib)
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "backend \"cuda\": libcublas.so.%d or .%d cannot be loaded: %s. HINT: install CUDA's "
                         "libraries or add their folder to LD_LIBRARY_PATH",
                         CUBLAS_VER_MAJOR, CUBLAS_VER_MAJOR == 12 ? 13 : 12, dlerror());
#define X(name)                                                                                                        \
    {                                                                                                                  \
        void *f = dlsym(lib, #name);                                                                                   \
        if (!f) return MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": this libcublas has no %s", #name);             \
        memcpy(&blas.name, &f, sizeof f);                                                                              \
    }
    BLAS_CALLS(X)
#undef X
    is_loaded = true;
    return MODE_OK;
}

static bool is_tf32(const struct mode_backend *be)
{
    return strcmp(be->ops->name, "cuda-tf32") == 0;
}

static enum mode_status fail(struct mode_error *err, const char *what, cudaError_t e)
{
    return MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": %s: %s", what, cudaGetErrorString(e));
}

/* Collectives have the highest priority: they take few SMs, and other processes wait for them. Then branches, and last
 * their side streams, which fill what is left. */
static int priority_of(int lane, int least, int greatest)
{
    if (lane == MODE__EXCHANGES) return greatest;
    if (lane >= MODE_BRANCHES) return least;
    return greatest + 1 < least ? greatest + 1 : greatest; /* numerically lower is higher priority */
}

enum mode_status mode__lane_open(struct mode_backend *be, int i, struct mode_error *err)
{
    struct mode__lane *l = &mode__cuda_of(be)->lane[i];
    const cublasMath_t math = is_tf32(be) ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH;
    int least = 0, greatest = 0;
    cudaError_t e = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    if (e == cudaSuccess)
        e = cudaStreamCreateWithPriority(&l->stream, cudaStreamDefault, priority_of(i, least, greatest));
    if (e != cudaSuccess) return fail(err, "a stream cannot be made", e);
    if (i == MODE__EXCHANGES) return MODE_OK;
    if (cudaMalloc(&l->workspace, MODE__WORKSPACE) != cudaSuccess) {
        (void)cudaGetLastError();
        l->workspace = NULL;
    }
    /* cuBLAS's default workspace would be memory that no plan counts, and a new one per captured graph; set the stream
     * first, as cublasSetStream resets the workspace */
    cublasStatus_t st = blas.cublasCreate_v2(&l->blas);
    if (!st) st = blas.cublasSetStream_v2(l->blas, l->stream);
    if (!st && l->workspace) st = blas.cublasSetWorkspace_v2(l->blas, l->workspace, MODE__WORKSPACE);
    if (!st) st = blas.cublasSetMathMode(l->blas, math);
    if (st)
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "backend \"cuda\": cuBLAS cannot be started: status %d. HINT: no GPU memory is left, or this "
                         "libcublas needs a newer driver: `mode doctor` and nvidia-smi show the versions",
                         (int)st);
    return MODE_OK;
}

void mode__lane_close(struct mode__lane *l)
{
    if (l->workspace) (void)cudaFree(l->workspace);
    if (l->blas) (void)blas.cublasDestroy_v2(l->blas);
    if (l->stream) (void)cudaStreamDestroy(l->stream);
    *l = (struct mode__lane){0};
}

static void close_device(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    if (!c) return;
    for (int i = 0; i < MODE__LANES; i++)
        if (c->lane[i].stream) (void)cudaStreamSynchronize(c->lane[i].stream);
    mode__graphs_close(&c->graphs);
    mode__product_ways_close(be);
    mode__attention_ways_close(&c->attention);
    mode__cuda_products_close(&c->products);
    mode__streams_close(&c->streams);
    mode__clock_close(&c->clock);
    mode__exchanges_close(be);
    for (int i = 0; i < MODE__LANES; i++) mode__lane_close(&c->lane[i]);
    free(c->taken);
    free(c);
    be->device = NULL;
}

/* A runtime is for drivers of its major version and for newer ones; without a driver it says that this one is too old. */
static enum mode_status no_gpu(struct mode_error *err, cudaError_t e)
{
    int driver = 0;
    if (e != cudaErrorInsufficientDriver || cudaDriverGetVersion(&driver) != cudaSuccess)
        return fail(err, "no usable GPU", e);
    if (driver == 0)
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "backend \"cuda\": no NVIDIA driver answers here (libcuda.so.1). HINT: install one for CUDA "
                         "%d.0 or newer",
                         CUDART_VERSION / 1000);
    return MODE_FAIL(
        err, MODE_E_DEVICE,
        "backend \"cuda\": the NVIDIA driver is for CUDA up to %d.%d, and this program was built with %d.%d. "
        "HINT: install a driver for CUDA %d.0 or newer%s",
        driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, CUDART_VERSION / 1000,
        driver < 12000 ? "" : ", or build with a toolkit of the driver's version"); /* cuda.cmake takes no older one */
}

/* PTX of a toolkit that is newer than the driver is none that it can compile. */
static enum mode_status find_kernels(struct mode_error *err)
{
    struct cudaDeviceProp d;
    const cudaError_t e = mode__cuda_has_kernels();
    if (e == cudaSuccess) return MODE_OK;
    if ((e != cudaErrorNoKernelImageForDevice && e != cudaErrorUnsupportedPtxVersion) ||
        cudaGetDeviceProperties(&d, 0) != cudaSuccess)
        return fail(err, "no usable GPU", e);
    return MODE_FAIL(err, MODE_E_DEVICE,
                     "backend \"cuda\": this program has no kernels for %s, compute capability %d.%d; expected 8.0 or "
                     "newer, as far as it was built for (cmake -DCMAKE_CUDA_ARCHITECTURES=%d%d)",
                     d.name, d.major, d.minor, d.major, d.minor);
}

static enum mode_status open_device(struct mode_backend *be, struct mode_error *err)
{
    struct mode__cuda *c = be->device = mode_xcalloc(1, sizeof *c);
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    enum mode_status st = MODE_OK;
    if (e != cudaSuccess)
        st = no_gpu(err, e);
    else if (n == 0)
        st = MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": this machine has no GPU that the driver shows");
    else if (!(st = find_kernels(err)) && !(st = load_blas(err)))
        st = mode__lane_open(be, 0, err);
    c->stream = c->lane[0].stream;
    if (!st) c->graphs = mode__graphs_open();
    if (!st) c->attention = mode__attention_ways_open();
    if (!st) c->product_ways = mode__product_ways_open();
    if (!st) c->products = mode__cuda_products_open(is_tf32(be));
    if (!st) c->streams = mode__streams_open();
    if (!st && strcmp(be->ops->name, "cuda-fp8") == 0) st = mode__cuda_fp8_usable(be, err);
    /* after everything that allocates for itself */
    if (!st && (e = cudaMemGetInfo(&c->free_at_open, &c->memory)) != cudaSuccess) st = fail(err, "no usable GPU", e);
    if (st) close_device(be);
    return st;
}

static size_t room_left(const struct mode__cuda *c)
{
    size_t taken = 0;
    for (size_t i = 0; i < c->n_taken; i++) taken += c->taken[i].bytes;
    return c->free_at_open > taken ? c->free_at_open - taken : 0;
}

static void room(const struct mode_backend *be, size_t *left, size_t *total)
{
    const struct mode__cuda *c = mode__cuda_of(be);
    *left = room_left(c);
    *total = c->memory;
}

void mode__cuda_took(struct mode__cuda *c, void *data, size_t bytes)
{
    c->taken = mode_xrealloc(c->taken, (c->n_taken + 1) * sizeof *c->taken);
    c->taken[c->n_taken++] = (struct mode__cuda_taken){.data = data, .bytes = bytes};
}

void *mode__cuda_shared(const struct mode_backend *be, const void *data)
{
    const struct mode__cuda *c = mode__cuda_of(be);
    const char *p = data;
    for (size_t i = 0; i < c->n_taken; i++) {
        const struct mode__cuda_taken *t = &c->taken[i];
        const char *host = t->host;
        if (host && p >= host && p < host + t->bytes) return (char *)t->data + (p - host);
    }
    return NULL;
}

/* Zeroed. Limited by this backend's own allocations and by what others took since, so that exactly what
 * mode_backend_room says can be allocated. */
static enum mode_status take_memory(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err)
{
    struct mode__cuda *c = mode__cuda_of(be);
    size_t left = room_left(c), free_now, total;
    if (cudaMemGetInfo(&free_now, &total) == cudaSuccess && free_now < left) left = free_now;
    cudaError_t e = bytes > left ? cudaErrorMemoryAllocation : cudaSuccess;
    MODE_ASSERT(!mode__graphs_capturing()); /* a sequence allocates in its first, eager run */
    *data = NULL;
    if (bytes == 0) bytes = 1;
    if (e == cudaSuccess) e = cudaMalloc(data, bytes);
    if (e == cudaSuccess) e = cudaMemsetAsync(*data, 0, bytes, c->stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(c->stream);
    if (e == cudaSuccess) return MODE_OK;
    (void)cudaGetLastError();
    if (*data) (void)cudaFree(*data);
    *data = NULL;
    if (e != cudaErrorMemoryAllocation) return fail(err, "memory cannot be allocated", e);
    return MODE_FAIL(err, MODE_E_MEMORY,
                     "no GPU memory for %.1f MiB: %.1f of %.1f MiB are free. HINT: a smaller batch; in "
                     "training also --accumulate or --checkpoint-activations",
                     (double)bytes / 1048576, (double)left / 1048576, (double)c->memory / 1048576);
}

static enum mode_status alloc_memory(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err)
{
    enum mode_status st = take_memory(be, data, bytes, err);
    if (!st) mode__cuda_took(mode__cuda_of(be), *data, bytes);
    return st;
}

static enum mode_status share(struct mode_backend *be, void **host, size_t bytes, struct mode_error *err)
{
    struct mode__cuda *c = mode__cuda_of(be);
    void *data;
    *host = NULL;
    enum mode_status st = take_memory(be, &data, bytes, err);
    if (st) return st;
    const cudaError_t e = cudaHostAlloc(host, bytes ? bytes : 1, cudaHostAllocDefault);
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        (void)cudaFree(data);
        *host = NULL;
        return MODE_FAIL(err, e == cudaErrorMemoryAllocation ? MODE_E_MEMORY : MODE_E_DEVICE,
                         "%.1f MiB of the host's memory for lists cannot be pinned: %s", (double)bytes / 1048576,
                         cudaGetErrorString(e));
    }
    memset(*host, 0, bytes);
    mode__cuda_took(c, data, bytes);
    c->taken[c->n_taken - 1].host = *host;
    return MODE_OK;
}

static void sync_device(struct mode_backend *be)
{
    const struct mode__cuda *c = mode__cuda_of(be);
    for (int i = 0; i < MODE__LANES; i++)
        if (c->lane[i].stream) CUDA_OK(cudaStreamSynchronize(c->lane[i].stream));
    mode__exchanges_done(be);
}

static void uses(struct mode_backend *be, struct mode_tensor *const *written, const struct mode_tensor *const *read,
                 int n)
{
    mode__exchanges_used(be, written, read, n);
    mode__cuda_writes(be, written, n);
}

static void free_memory(struct mode_backend *be, void *data)
{
    struct mode__cuda *c = mode__cuda_of(be);
    size_t i = 0;
    while (i < c->n_taken && (c->taken[i].host ? c->taken[i].host : c->taken[i].data) != data) i++;
    MODE_ASSERT(i < c->n_taken);
    const struct mode__cuda_taken t = c->taken[i];
    c->taken[i] = c->taken[--c->n_taken];
    sync_device(be);
    mode__graphs_drop(c->graphs); /* graphs may hold pointers into it */
    if (t.host) CUDA_OK(cudaFreeHost(t.host));
    CUDA_OK(cudaFree(t.data));
}

static void copy(struct mode_backend *be, void *to, const void *from, size_t bytes)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    MODE_ASSERT(!mode__graphs_capturing());
    sync_device(be);
    CUDA_OK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
}

static void written(struct mode_backend *be, const void *data, size_t bytes)
{
    void *here = mode__cuda_shared(be, data);
    MODE_ASSERT(here);
    CUDA_OK(cudaMemcpyAsync(here, data, bytes, cudaMemcpyHostToDevice, mode__cuda_of(be)->stream));
}

static void show(struct mode_backend *be, void *data, size_t bytes)
{
    const void *here = mode__cuda_shared(be, data);
    MODE_ASSERT(here);
    CUDA_OK(cudaMemcpyAsync(data, here, bytes, cudaMemcpyDeviceToHost, mode__cuda_of(be)->stream));
}

static void pin(void *data, size_t bytes)
{
    if (cudaHostRegister(data, bytes, cudaHostRegisterDefault) != cudaSuccess) (void)cudaGetLastError();
}

static void unpin(void *data)
{
    if (cudaHostUnregister(data) != cudaSuccess) (void)cudaGetLastError(); /* it was not pinned */
}

static void measure(struct mode_backend *be, bool products, bool attention)
{
    struct mode__cuda *c = mode__cuda_of(be);
    MODE_ASSERT(!mode__cuda_forked(be));
    mode__cuda_products_measure(c->products, products);
    mode__attention_ways_measure(c->attention, attention);
    c->measuring = products || attention;
    if (c->measuring) mode__graphs_drop(c->graphs);
    if (products) mode__product_ways_forget(be);
}

static enum mode_status use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                       struct mode_error *err)
{
    mode__graphs_drop(mode__cuda_of(be)->graphs);
    mode__product_ways_forget(be);
    return mode__cuda_use_algorithms(be, text, why_not, size, err);
}

static void describe(const struct mode_backend *be, char *text, size_t size)
{
    struct cudaDeviceProp d;
    CUDA_OK(cudaGetDeviceProperties(&d, 0));
    snprintf(text, size, "%s, %.0f GiB", d.name, (double)mode__cuda_of(be)->memory / (1 << 30));
}

static void note(const struct mode_backend *be, FILE *out)
{
    const struct mode__products *p = mode__cuda_of(be)->products;
    if (mode__cuda_products_refused(p))
        fprintf(out, "%lld of %lld products were refused by cuBLASLt and made by cuBLAS\n",
                (long long)mode__cuda_products_refused(p), (long long)mode__cuda_products_done(p));
    mode__cuda_fp8_note(be, out);
    mode__product_ways_note(be, out);
    mode__attention_ways_note(mode__cuda_of(be)->attention, out);
    struct mode_backend_repeats r;
    mode__cuda_repeats(be, &r);
    if (r.replayed || r.why_not[0])
        fprintf(out, "sequences run op by op %ld times, as %ld graphs %ld times%s%s\n", r.one_by_one, r.recorded,
                r.replayed, r.why_not[0] ? ": " : "", r.why_not);
}

const struct mode__device mode__cuda_device = {.open = open_device,
                                               .close = close_device,
                                               .describe = describe,
                                               .is_broken = mode__cuda_is_broken,
                                               .alloc = alloc_memory,
                                               .free = free_memory,
                                               .room = room,
                                               .sync = sync_device,
                                               .copy = copy,
                                               .share = share,
                                               .written = written,
                                               .show = show,
                                               .pin = pin,
                                               .unpin = unpin,
                                               .ranks = mode__cuda_ranks,
                                               .staging = &mode__cuda_staging,
                                               .results = &mode__cuda_results,
                                               .measure = measure,
                                               .algorithms = mode__cuda_algorithms,
                                               .use_algorithms = use_algorithms,
                                               .repeat = mode__cuda_repeat,
                                               .record = mode__cuda_record,
                                               .repeats = mode__cuda_repeats,
                                               .branches = mode__cuda_branches,
                                               .branches_bytes = (MODE__EXCHANGES - 1) * (size_t)MODE__WORKSPACE,
                                               .fork = mode__cuda_fork,
                                               .branch = mode__cuda_branch,
                                               .join = mode__cuda_join,
                                               .uses = uses,
                                               .note = note,
                                               .clock_begin = mode__cuda_clock_begin,
                                               .clock_end = mode__cuda_clock_end,
                                               .clock_read = mode__cuda_clock_read,
                                               .nearest_ready_bytes = mode__cuda_nearest_ready_bytes,
                                               .nearest_ready = mode__cuda_nearest_ready};

/* cuBLAS is column-major: our row-major c is c^T there, so c^T = op(b)^T op(a)^T. */
void mode__cuda_gemm(struct mode_backend *be, const struct mode__product *x)
{
    const float one = 1, beta = x->add ? 1 : 0;
    const cudaDataType_t in = x->f16    ? CUDA_R_16F
                              : x->bf16 ? CUDA_R_16BF
                                        : CUDA_R_32F,
                         out = x->c_bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasComputeType_t how = is_tf32(be) && !x->f16 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasStatus_t st = blas.cublasGemmEx(
        mode__cuda_of(be)->lane[be->lane].blas, x->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
        x->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, (int)x->n, (int)x->m, (int)x->k, &one, x->b, in,
        (int)(x->b_transposed ? x->k : x->n), x->a, in, (int)(x->a_transposed ? x->m : x->k), &beta, x->c, out,
        (int)x->n, how, CUBLAS_GEMM_DEFAULT);
    if (st != CUBLAS_STATUS_SUCCESS && !mode__graphs_capturing())
        CUDA_OK(cudaStreamSynchronize(mode__cuda_of(be)->lane[be->lane].stream)); /* is it the GPU? */
    MODE_ASSERT(st == CUBLAS_STATUS_SUCCESS || mode__graphs_failed(cudaErrorStreamCaptureUnsupported));
}
