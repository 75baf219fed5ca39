/* nccl.h - the NCCL functions that are used, declared by NCCL's header if it is found, else here: NCCL keeps these
 * ABI-stable. The library is loaded at run time. Inside nn/cuda only. */
#ifndef MODE_NN_CUDA_NCCL_H
#define MODE_NN_CUDA_NCCL_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#if defined(MODE_NCCL_HEADER) /* set by cuda.cmake */
#include <nccl.h>
_Static_assert(ncclSuccess == 0 && ncclInProgress == 7 && ncclSum == 0 && ncclUint8 == 1 && ncclFloat32 == 7 &&
                   ncclFloat64 == 8 && sizeof(ncclUniqueId) == 128 && offsetof(ncclConfig_t, magic) == 8 &&
                   offsetof(ncclConfig_t, maxCTAs) == 28 && offsetof(ncclConfig_t, netName) == 32,
               "NCCL's declarations are not those below");
#else
#include <limits.h>
typedef struct ncclComm *ncclComm_t;
typedef struct {
    char internal[128];
} ncclUniqueId;
typedef enum { ncclSuccess = 0, ncclInProgress = 7 } ncclResult_t; /* all other values are errors */
typedef enum { ncclSum = 0 } ncclRedOp_t;
typedef enum { ncclUint8 = 1, ncclFloat32 = 7, ncclFloat64 = 8 } ncclDataType_t;
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
typedef struct { /* as in NCCL 2.18; `size` and `version` tell newer libraries which layout it is */
    size_t size;
    unsigned int magic, version;
    int blocking, cgaClusterSize, minCTAs, maxCTAs;
    const char *netName;
    int splitShare;
} ncclConfig_t;
#define NCCL_CONFIG_INITIALIZER                                                                                        \
    {                                                                                                                  \
        sizeof(ncclConfig_t), 0xcafebeef, 21800, INT_MIN, INT_MIN, INT_MIN, INT_MIN, NULL, INT_MIN                     \
    }
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result);
const char *ncclGetErrorString(ncclResult_t result);
const char *ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t comm, cudaStream_t s);
ncclResult_t ncclReduceScatter(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t s);
ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t s);
ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t s);
#endif

/* All are in NCCL 2.14. */
#define MODE__NCCL_CALLS(X)                                                                                            \
    X(ncclGetUniqueId)                                                                                                 \
    X(ncclCommInitRankConfig)                                                                                          \
    X(ncclCommAbort)                                                                                                   \
    X(ncclCommDestroy)                                                                                                 \
    X(ncclCommGetAsyncError)                                                                                           \
    X(ncclGetErrorString)                                                                                              \
    X(ncclGetLastError) X(ncclAllGather) X(ncclReduceScatter) X(ncclAllReduce) X(ncclBroadcast)

struct mode__nccl {
#define X(name) __typeof__(&name) name;
    MODE__NCCL_CALLS(X)
#undef X
};
extern struct mode__nccl mode__nccl; /* nccl.c: filled when a group is created */

#endif
