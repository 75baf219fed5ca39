/* Self-test of the kernel of nearest_hopper.cu: it was written without a GPU, so a process uses it only after it has
 * computed correct results on that GPU.
 *
 * The problem: all centres are one vector of small integers, each with one column changed, and every row equals one of
 * the centres. The right centre's rank is below every other one's by at least 1, far more than the error bound, and it
 * is the smallest only if every column of every row and centre is read from the right place and counted once. Products
 * and their sums are integers: nothing is rounded. Two centres are equal. */
#include "nn/cuda/nearest.h"

#include "base/log.h"
#include "base/str.h"
#include "nn/cuda/device.h"
#include "nn/cuda/kernels.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Sizes: several iterations of every ring and loop of the kernel, all with a partial last one. SPIN_LIMIT: turns a
 * barrier that never completes into a wrong answer instead of a hang. */
enum { N = 300, K = 300, D = 150, FEWEST_ROWS = 256, SPIN_LIMIT = 10000 };

struct proof {
    float x[N * D], c[K * D];
    struct mode__cuda_halved x_of[N], c_of[K];
    float plus[K + MODE__CUDA_CENTRE_PADDING], most[3], largest[MODE__CUDA_PARTS];
    int32_t state[N], candidates[N * MODE__CUDA_CANDIDATES];
};

static int centre_of(int row)
{
    return (row * 37 + 11) % K;
}

static void make_centre(float *c, int k)
{
    if (k == K - 1) k = 0;
    for (int j = 0; j < D; j++) c[j] = (float)(j * 7 % 3 - 1);
    c[k % D] += (float)(k / D + 1);
}

/* Centre 0 has a duplicate, centre K - 1. */
static bool is_right(const struct proof *p, int row)
{
    const int want = centre_of(row);
    const int32_t *two = p->candidates + (size_t)row * MODE__CUDA_CANDIDATES;
    if (want > 0 && want < K - 1) return p->state[row] == want;
    return p->state[row] == -2 && two[0] + two[1] == K - 1 && two[0] * two[1] == 0;
}

/* p is on the host, device on the GPU. */
static cudaError_t run_trial(struct proof *p, struct proof *device, void *x, void *c, cudaStream_t stream)
{
    const struct mode__cuda_tiles t = {.x = x,
                                       .c = c,
                                       .x_of = device->x_of,
                                       .centres = {device->plus, device->most},
                                       .n = N,
                                       .k = K,
                                       .d = D,
                                       .spin_limit = SPIN_LIMIT};
    for (int i = 0; i < K; i++) make_centre(p->c + i * D, i);
    for (int i = 0; i < N; i++) make_centre(p->x + i * D, centre_of(i));
    memset(p->state, 0xff, sizeof *p - offsetof(struct proof, state));
    cudaError_t e = cudaMemcpyAsync(device, p, sizeof *p, cudaMemcpyHostToDevice, stream);
    if (e != cudaSuccess) return e;
    mode__cuda_halves(stream, x, device->x_of, device->x, N, D, NULL, true);
    mode__cuda_largest(stream, device->largest, device->c, K * D);
    mode__cuda_halves(stream, c, device->c_of, device->c, K, D, device->largest, true);
    mode__cuda_halved_centres(stream, &t.centres, device->c_of, device->c, K, D, false);
    e = mode__cuda_nearest_tiles(stream, device->state, device->candidates, &t, 1); /* 1: must iterate */
    if (e == cudaSuccess) e = cudaGetLastError();
    if (e == cudaSuccess) e = cudaMemcpyAsync(p, device, sizeof *p, cudaMemcpyDeviceToHost, stream);
    return e == cudaSuccess ? cudaStreamSynchronize(stream) : e;
}

static bool proves_itself(cudaStream_t stream)
{
    struct proof *p = mode_xcalloc(1, sizeof *p);
    void *device = NULL, *x = NULL, *c = NULL;
    int wrong = 0;
    cudaError_t e = cudaMalloc(&device, sizeof *p);
    if (e == cudaSuccess) e = cudaMalloc(&x, mode__cuda_halves_bytes(N, D, true));
    if (e == cudaSuccess) e = cudaMalloc(&c, mode__cuda_halves_bytes(K, D, true));
    if (e == cudaSuccess) e = run_trial(p, device, x, c, stream);
    for (int i = 0; i < N && e == cudaSuccess; i++) wrong += !is_right(p, i);
    if (e != cudaSuccess)
        mode_log_warn(
            "nearest_by_library",
            "nearest centres are found by cuBLASLt's products: our own kernel could not be tried: %s (if the GPU "
            "does not go on after this, start again with MODE_CUDA_NEAREST=library)",
            cudaGetErrorString(e));
    else if (wrong > 0)
        mode_log_warn("nearest_by_library",
                      "nearest centres are found by cuBLASLt's products: our own kernel gave %d of %d wrong answers to "
                      "a problem whose answers are known",
                      wrong, (int)N);
    (void)cudaGetLastError();
    (void)cudaFree(x);
    (void)cudaFree(c);
    (void)cudaFree(device);
    free(p);
    return e == cudaSuccess && wrong == 0;
}

static int attribute(enum cudaDeviceAttr which)
{
    int value = 0;
    CUDA_OK(cudaDeviceGetAttribute(&value, which, 0));
    return value;
}

int mode__cuda_multiprocessors(void)
{
    return attribute(cudaDevAttrMultiProcessorCount);
}

bool mode__cuda_nearest_by_tiles(struct mode_backend *be, int64_t n)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static enum { UNKNOWN, TRUSTED, NOT_TRUSTED } kernel;
    const char *want = getenv("MODE_CUDA_NEAREST");
    if (want && strcmp(want, "library") == 0) return false;
    if (n < FEWEST_ROWS && !(want && strcmp(want, "own") == 0)) return false;
    pthread_mutex_lock(&lock);
    if (kernel == UNKNOWN)
        kernel = attribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
                         attribute(cudaDevAttrComputeCapabilityMinor) == 0 && proves_itself(mode__cuda_of(be)->stream)
                     ? TRUSTED
                     : NOT_TRUSTED;
    const bool trusted = kernel == TRUSTED;
    pthread_mutex_unlock(&lock);
    return trusted;
}
