/* Bytes from the GPU: copied on the stream of the ops, so that what comes after may write over them, into memory that
 * is pinned where it can be; contracts are those of nn/results.h. The copy of a batch of features takes far less time
 * than the ops that make them: a stream of its own would gain nothing. */
#include "nn/results.h"
#include "base/str.h"
#include "nn/cuda/device.h"

static enum mode_status open_way(struct mode_results *r, struct mode_error *err)
{
    cudaEvent_t there;
    if (cudaEventCreateWithFlags(&there, cudaEventDisableTiming) != cudaSuccess)
        return MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": an event cannot be made");
    r->way = there;
    return MODE_OK;
}

static void wait_for_copy(struct mode_results *r)
{
    CUDA_OK(cudaEventSynchronize(r->way));
}

static void close_way(struct mode_results *r)
{
    if (!r->way) return;
    wait_for_copy(r);
    CUDA_OK(cudaEventDestroy(r->way));
}

static void take(struct mode_results *r, size_t at, const void *from, size_t n)
{
    cudaStream_t stream = mode__cuda_of(r->be)->stream;
    MODE_ASSERT(!mode__graphs_capturing());
    CUDA_OK(cudaMemcpyAsync((char *)r->host + at, from, n, cudaMemcpyDeviceToHost, stream));
    CUDA_OK(cudaEventRecord(r->way, stream));
}

const struct mode__results_kind mode__cuda_results = {
    .open = open_way, .close = close_way, .take = take, .wait = wait_for_copy};
