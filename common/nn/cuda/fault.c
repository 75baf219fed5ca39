/* CUDA errors where no status can be returned: inside ops.
 *
 * If the GPU has failed (memory, link, driver), the process can compute nothing more. It reports that and exits with
 * the code of MODE_E_DEVICE, by which a worker's agent knows that the node failed and not the task. Any other error is
 * a bug in a kernel or a call, and aborts like any other bug. */
#include "nn/cuda/device.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool is_the_gpu(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation: /* a launch needs memory that other processes have taken */
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorOperatingSystem:
    case cudaErrorHardwareStackError:
    case cudaErrorSystemNotReady: /* the fabric manager of NVSwitch machines is not running */
    case cudaErrorSystemDriverMismatch:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: return true; /* also if the GPU has fallen off the bus */
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
    while (atomic_flag_test_and_set(&is_said)) pause(); /* another thread is reporting and ends the process */
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
    if (e == cudaSuccess && n > 0) e = cudaFree(NULL); /* creates the context */
    (void)cudaGetLastError();
    return is_the_gpu(e);
}
