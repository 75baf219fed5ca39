/* What becomes of an error that CUDA reports where nothing can be returned: in the midst of ops.
 *
 * The GPU has failed (memory, link, driver): the process can compute nothing more, and what it was to make is not made.
 * It says so and ends with the exit code of MODE_E_DEVICE, by which a worker's agent knows that its node failed and not
 * its task. Anything else is a mistake of a kernel or a call: a bug, which aborts like any other. */
#include "nn/cuda/device.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool is_the_gpu(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation: /* a launch finds that others have taken what it needs */
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorOperatingSystem:
    case cudaErrorHardwareStackError:
    case cudaErrorSystemNotReady: /* the fabric manager of NVSwitch machines is not running */
    case cudaErrorSystemDriverMismatch:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: return true; /* also of a GPU that has fallen off the bus */
    default: return (int)e == 226;      /* cudaErrorContained, since CUDA 12.8 */
    }
}

void mode__cuda_check(cudaError_t e, const char *call, const char *file, int line)
{
    if (e == cudaSuccess || mode__graphs_failed(e)) return;
    if (!is_the_gpu(e)) {
        fprintf(stderr, "%s:%d: bug: %s: %s\n", file, line, call, cudaGetErrorString(e));
        abort();
    }
    static atomic_flag is_said = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&is_said)) pause(); /* another thread of ours does, and ends us */
    fprintf(stderr,
            "the GPU failed: %s (%s at %s:%d). HINT: `nvidia-smi -q` and the kernel's log (\"Xid\") say more; what is "
            "committed or in a checkpoint is safe\n",
            cudaGetErrorString(e), call, file, line);
    _exit(mode_status_exit_code(MODE_E_DEVICE)); /* CUDA's own handlers at exit may wait for the GPU */
}

bool mode__cuda_is_broken(void)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) e = cudaFree(NULL); /* begins to use it */
    (void)cudaGetLastError();
    return is_the_gpu(e);
}
