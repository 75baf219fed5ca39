/* Host-to-device copies on a stream of their own, ordered with the ops by two events; contracts are those of
 * nn/staging.h. */
#include "nn/staging.h"
#include "base/str.h"
#include "nn/cuda/device.h"

#include <stdlib.h>

struct transfer {
    cudaStream_t stream;
    cudaEvent_t sent, read; /* the copy is done; the ops between begin and end have read it */
};

static struct transfer *transfer_of(const struct mode_staging *s)
{
    return s->impl;
}

static void close_transfer(struct mode_staging *s)
{
    struct transfer *w = transfer_of(s);
    if (!w) return;
    if (w->stream) CUDA_OK(cudaStreamSynchronize(w->stream));
    if (s->device) mode_backend_free(s->be, s->device); /* waits for the ops */
    if (w->read) CUDA_OK(cudaEventDestroy(w->read));
    if (w->sent) CUDA_OK(cudaEventDestroy(w->sent));
    if (w->stream) CUDA_OK(cudaStreamDestroy(w->stream));
    free(w);
    s->impl = NULL;
}

/* Device memory, not zeroed: send fills it before anything reads it. */
static enum mode_status alloc_device(struct mode_staging *s, struct mode_error *err)
{
    size_t left, total;
    mode_backend_room(s->be, &left, &total);
    cudaError_t e = s->bytes > left ? cudaErrorMemoryAllocation : cudaMalloc(&s->device, s->bytes);
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        s->device = NULL;
        if (e != cudaErrorMemoryAllocation)
            return MODE_FAIL(err, MODE_E_DEVICE,
                             "backend \"cuda\": memory for decoded pictures cannot be allocated: %s",
                             cudaGetErrorString(e));
        return MODE_FAIL(err, MODE_E_MEMORY,
                         "no GPU memory for %.1f MiB of decoded pictures: %.1f of %.1f MiB are free. "
                         "HINT: a smaller batch",
                         (double)s->bytes / 1048576, (double)left / 1048576, (double)total / 1048576);
    }
    mode__cuda_took(mode__cuda_of(s->be), s->device, s->bytes);
    return MODE_OK;
}

static enum mode_status open_transfer(struct mode_staging *s, struct mode_error *err)
{
    struct transfer *w = s->impl = mode_xcalloc(1, sizeof *w);
    if (cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking) != cudaSuccess ||
        cudaEventCreateWithFlags(&w->sent, cudaEventDisableTiming) != cudaSuccess ||
        cudaEventCreateWithFlags(&w->read, cudaEventDisableTiming) != cudaSuccess)
        return MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": a stream for copies cannot be made");
    return alloc_device(s, err);
}

/* Also for the copy, in case no ops waited for it. An event that was never recorded counts as complete. */
static void wait_for_read(struct mode_staging *s)
{
    CUDA_OK(cudaEventSynchronize(transfer_of(s)->sent));
    CUDA_OK(cudaEventSynchronize(transfer_of(s)->read));
}

static void send(struct mode_staging *s, size_t n)
{
    struct transfer *w = transfer_of(s);
    CUDA_OK(cudaMemcpyAsync(s->device, s->host, n, cudaMemcpyHostToDevice, w->stream));
    CUDA_OK(cudaEventRecord(w->sent, w->stream));
}

static void begin(struct mode_staging *s)
{
    CUDA_OK(cudaStreamWaitEvent(mode__cuda_of(s->be)->stream, transfer_of(s)->sent, 0));
}

static void end(struct mode_staging *s)
{
    CUDA_OK(cudaEventRecord(transfer_of(s)->read, mode__cuda_of(s->be)->stream));
}

const struct mode__staging_kind mode__cuda_staging = {
    .open = open_transfer, .close = close_transfer, .wait = wait_for_read, .send = send, .begin = begin, .end = end};
