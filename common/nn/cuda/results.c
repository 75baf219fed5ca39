/* Device-to-host copies on the ops' stream, so that later ops may overwrite the source, into memory that is pinned if
 * possible; contracts are those of nn/results.h. Copying a batch of features takes far less time than computing it: a
 * stream of its own would gain nothing. */
#include "nn/results.h"
#include "base/str.h"
#include "nn/cuda/device.h"

static enum mode_status open_event(struct mode_results *r, struct mode_error *err)
{
    cudaEvent_t copied;
    if (cudaEventCreateWithFlags(&copied, cudaEventDisableTiming) != cudaSuccess)
        return MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": an event cannot be made");
    r->impl = copied;
    return MODE_OK;
}

static void wait_for_copy(struct mode_results *r)
{
    CUDA_OK(cudaEventSynchronize(r->impl));
}

static void close_event(struct mode_results *r)
{
    if (!r->impl) return;
    wait_for_copy(r);
    CUDA_OK(cudaEventDestroy(r->impl));
}

static void take(struct mode_results *r, size_t at, const void *from, size_t n)
{
    cudaStream_t stream = mode__cuda_of(r->be)->stream;
    MODE_ASSERT(!mode__graphs_capturing());
    CUDA_OK(cudaMemcpyAsync((char *)r->host + at, from, n, cudaMemcpyDeviceToHost, stream));
    CUDA_OK(cudaEventRecord(r->impl, stream));
}

const struct mode__results_kind mode__cuda_results = {
    .open = open_event, .close = close_event, .take = take, .wait = wait_for_copy};
