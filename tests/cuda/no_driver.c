/* A stand-in for libcuda.so.1 on machines without a driver, for `make cudnn-plans` only.
 *
 * cuDNN compiles the kernels of a plan itself, for a device that is only described, and then hands the code to the
 * driver, which keeps it for the first launch. Here the code is checked (is it a GPU program?) and dropped; calls that
 * need a device return CUDA_ERROR_NO_DEVICE. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { DONE = 0, NO_DEVICE = 100, NOT_CODE = 200, CUDA_MACHINE = 190 /* ELF e_machine of NVIDIA GPUs */ };

#define WITHOUT_DEVICE(X)                                                                                              \
    X(cuInit)                                                                                                          \
    X(cuKernelGetFunction)                                                                                             \
    X(cuCtxGetCurrent)                                                                                                 \
    X(cuCtxGetDevice)                                                                                                  \
    X(cuCtxGetLimit)                                                                                                   \
    X(cuCtxPopCurrent)                                                                                                 \
    X(cuCtxPushCurrent)                                                                                                \
    X(cuDeviceGet)                                                                                                     \
    X(cuDeviceGetAttribute)                                                                                            \
    X(cuDeviceGetCount)                                                                                                \
    X(cuDevicePrimaryCtxRelease)                                                                                       \
    X(cuDevicePrimaryCtxReset)                                                                                         \
    X(cuDevicePrimaryCtxRetain)                                                                                        \
    X(cuDriverGetVersion)                                                                                              \
    X(cuFuncGetAttribute)                                                                                              \
    X(cuFuncSetAttribute)                                                                                              \
    X(cuLaunchCooperativeKernel)                                                                                       \
    X(cuLaunchKernel)                                                                                                  \
    X(cuLaunchKernelEx)                                                                                                \
    X(cuLibraryLoadFromFile)                                                                                           \
    X(cuLinkAddData)                                                                                                   \
    X(cuLinkAddData_v2)                                                                                                \
    X(cuLinkAddFile_v2)                                                                                                \
    X(cuLinkComplete)                                                                                                  \
    X(cuLinkCreate)                                                                                                    \
    X(cuLinkCreate_v2)                                                                                                 \
    X(cuLinkDestroy)                                                                                                   \
    X(cuMemcpyDtoH_v2)                                                                                                 \
    X(cuModuleGetFunction)                                                                                             \
    X(cuModuleGetGlobal_v2)                                                                                            \
    X(cuModuleLoadData)                                                                                                \
    X(cuModuleLoadDataEx)                                                                                              \
    X(cuModuleLoadFatBinary)                                                                                           \
    X(cuModuleUnload)                                                                                                  \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor)                                                                     \
    X(cuOccupancyMaxPotentialClusterSize)                                                                              \
    X(cuStreamGetCtx)                                                                                                  \
    X(cuStreamSynchronize)                                                                                             \
    X(cuTensorMapEncodeIm2col)                                                                                         \
    X(cuTensorMapEncodeTiled)

#define X(name)                                                                                                        \
    int name(void);                                                                                                    \
    int name(void)                                                                                                     \
    {                                                                                                                  \
        return NO_DEVICE;                                                                                              \
    }
WITHOUT_DEVICE(X)
#undef X

static char kernel[256]; /* name of the last one; handles point to it */

const char *no_driver_kernel(void);
const char *no_driver_kernel(void)
{
    return kernel;
}

int cuGetErrorName(int error, const char **text);
int cuGetErrorName(int error, const char **text)
{
    *text = error == NOT_CODE ? "NOT_CODE" : "NO_DEVICE";
    return DONE;
}

int cuGetErrorString(int error, const char **text);
int cuGetErrorString(int error, const char **text)
{
    *text = error == NOT_CODE ? "this is no program for a GPU" : "there is no device";
    return DONE;
}

int cuLibraryLoadData(void **library, const void *code);
int cuLibraryLoadData(void **library, const void *code)
{
    const unsigned char *byte = code;
    if (memcmp(byte, "\177ELF", 4) != 0 || (byte[18] | byte[19] << 8) != CUDA_MACHINE) return NOT_CODE;
    *library = kernel;
    return DONE;
}

int cuLibraryUnload(void *library);
int cuLibraryUnload(void *library)
{
    (void)library;
    return DONE;
}

int cuLibraryGetKernel(void **found, void *library, const char *name);
int cuLibraryGetKernel(void **found, void *library, const char *name)
{
    (void)library;
    snprintf(kernel, sizeof kernel, "%s", name);
    *found = kernel;
    return DONE;
}

int cuKernelSetAttribute(int attribute, int value, void *k, int device);
int cuKernelSetAttribute(int attribute, int value, void *k, int device)
{
    (void)attribute;
    (void)value;
    (void)k;
    (void)device;
    return DONE;
}

int cuKernelGetAttribute(int *value, int attribute, void *k, int device);
int cuKernelGetAttribute(int *value, int attribute, void *k, int device)
{
    (void)attribute;
    (void)k;
    (void)device;
    *value = 0;
    return DONE;
}
