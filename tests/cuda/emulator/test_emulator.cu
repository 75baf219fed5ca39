/* test_emulator.cu - the emulator finds what it should: each mistake of the table, made in its own process, must end
 * that process with the given message. Correct code must pass: results of warp operations, matrix fragments and
 * rounding are compared with plain loops. */
#include "emulator.h"
#include "mistakes.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <nn/cuda/ptx.cuh>

#include <vector>

enum { ALL = -1 };

/* n floats of managed memory, 0, 1, 2, ... */
static float *numbers(int n)
{
    float *x;
    CHECK(cudaMallocManaged((void **)&x, (size_t)n * sizeof *x, cudaMemAttachGlobal) == cudaSuccess);
    for (int i = 0; i < n; i++) x[i] = (float)i;
    return x;
}

/* ---- mistakes ---- */

static __global__ void half_a_barrier(float *x)
{
    if (threadIdx.x < 32) __syncthreads();
    x[threadIdx.x] = 1;
    __shfl_sync(ALL, 1, 0);
    if (threadIdx.x >= 32) __syncthreads();
}
static void makes_half_a_barrier()
{
    half_a_barrier<<<1, 64>>>(numbers(64));
}

static __global__ void barrier_of_some(float *x)
{
    if (threadIdx.x % 2) __syncthreads();
    x[threadIdx.x] = 1;
    __syncwarp();
}
static void makes_barrier_of_some()
{
    barrier_of_some<<<1, 64>>>(numbers(64));
}

static __global__ void shuffle_of_some(float *x)
{
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_xor_sync(ALL, x[threadIdx.x], 1);
    else
        __syncthreads();
}
static void makes_shuffle_of_some()
{
    shuffle_of_some<<<1, 32>>>(numbers(32));
}

static __global__ void shuffle_from_the_dead(float *x)
{
    if (threadIdx.x >= 16) return;
    x[threadIdx.x] = __shfl_xor_sync(ALL, x[threadIdx.x], 16);
}
static void makes_shuffle_from_the_dead()
{
    shuffle_from_the_dead<<<1, 32>>>(numbers(32));
}

static __global__ void shuffle_outside_the_mask(float *x)
{
    x[threadIdx.x] = __shfl_sync(0xffffu, x[threadIdx.x], 0);
}
static void makes_shuffle_outside_the_mask()
{
    shuffle_outside_the_mask<<<1, 32>>>(numbers(32));
}

static void makes_shuffle_of_a_short_warp()
{
    shuffle_from_the_dead<<<1, 16>>>(numbers(32));
}

static __global__ void unwritten_shared(float *x)
{
    __shared__ float part[64];
    part[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = part[threadIdx.x + 1];
}
static void reads_unwritten_shared()
{
    float *x = numbers(64);
    unwritten_shared<<<1, 32>>>(x);
    cudaDeviceSynchronize();
    for (int i = 0; i < 32; i++)
        if (std::isnan(x[i])) mode_emu::fault("NaN");
}

static __global__ void no_barrier(float *x)
{
    __shared__ float part[256];
    part[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = part[(threadIdx.x + 100) % 256];
}
static void forgets_a_barrier()
{
    float *x = numbers(256);
    no_barrier<<<1, 256>>>(x);
    cudaDeviceSynchronize();
    for (int i = 0; i < 256; i++)
        if (std::isnan(x[i])) mode_emu::fault("NaN");
}

static __global__ void add_one(float *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] += 1;
}
static __global__ void set_zero(float *x, int n)
{
    if ((int)threadIdx.x < n) x[threadIdx.x] = 0;
}
static void writes_behind_an_allocation()
{
    float *x = numbers(64);
    set_zero<<<1, 96>>>(x, 65);
    cudaFree(x);
}

static __global__ void behind_shared(int n)
{
    __shared__ float part[10];
    float *p = part;
    for (int i = 0; i < n; i++) p[i] = 0;
}
static void writes_behind_shared_memory()
{
    behind_shared<<<1, 1>>>(11);
}

static __global__ void behind_dynamic_shared(int n)
{
    extern __shared__ float part[];
    for (int i = 0; i < n; i++) part[i] = 0;
}
static void writes_behind_dynamic_shared_memory()
{
    behind_dynamic_shared<<<1, 1, 10 * sizeof(float)>>>(11);
}

static __global__ void four_at_a_time(float *x)
{
    *(float4 *)x = make_float4(1, 2, 3, 4);
}
static void stores_four_where_two_may_begin()
{
    four_at_a_time<<<1, 1>>>(numbers(8) + 2);
}

static void gives_host_memory_to_a_kernel()
{
    std::vector<float> x(64);
    add_one<<<1, 64>>>(x.data(), 64);
}

static void reads_before_waiting()
{
    cudaStream_t s;
    float *x = numbers(64);
    cudaStreamCreate(&s);
    add_one<<<1, 64, 0, s>>>(x, 64);
    if (x[3] != 4) mode_emu::fault("too early");
}

static void forgets_an_event()
{
    cudaStream_t s, t;
    float *x = numbers(64), *y = numbers(64);
    setenv("MODE_EMULATOR_STREAMS", "late", 1);
    cudaStreamCreate(&s);
    cudaStreamCreate(&t);
    add_one<<<1, 64, 0, s>>>(x, 64);
    cudaMemcpyAsync(y, x, 64 * sizeof *x, cudaMemcpyDefault, t);
    cudaStreamSynchronize(t);
    cudaStreamSynchronize(s);
    if (y[3] != 4) mode_emu::fault("too early");
}

static cudaStream_t capturing()
{
    cudaStream_t s;
    cudaStreamCreate(&s);
    add_one<<<1, 1, 0, s>>>(nullptr, 0); /* loads its code */
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    return s;
}
static cudaGraphExec_t captured(cudaStream_t s)
{
    cudaGraph_t g;
    cudaGraphExec_t exec;
    CHECK(cudaStreamEndCapture(s, &g) == cudaSuccess && cudaGraphInstantiate(&exec, g, 0) == cudaSuccess);
    CHECK(cudaGraphDestroy(g) == cudaSuccess);
    return exec;
}

static void launches_a_kernel_first_in_a_capture()
{
    float *x = numbers(64);
    set_zero<<<1, 64, 0, capturing()>>>(x, 64);
}
/* The limit at launch time applies to captured launches, too. */
static void lowers_the_limit_of_a_captured_launch()
{
    const auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    cudaStream_t s;
    cudaStreamCreate(&s);
    behind_dynamic_shared<<<1, 1, 64, s>>>(1);
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(cudaFuncSetAttribute(behind_dynamic_shared, most, 60000) == cudaSuccess);
    behind_dynamic_shared<<<1, 1, 60000, s>>>(1);
    CHECK(cudaFuncSetAttribute(behind_dynamic_shared, most, 50000) == cudaSuccess);
    behind_dynamic_shared<<<1, 1, 50000, s>>>(1);
    cudaGraphLaunch(captured(s), s);
}
static void allocates_in_a_capture()
{
    cudaStream_t s = capturing();
    add_one<<<1, 64, 0, s>>>(numbers(64), 64);
}
static void frees_memory_in_a_capture()
{
    float *x = numbers(64);
    capturing();
    cudaFree(x);
}
static void waits_in_a_capture()
{
    float *x = numbers(64);
    cudaStream_t s = capturing();
    add_one<<<1, 64, 0, s>>>(x, 64);
    cudaStreamSynchronize(s);
}
static void waits_for_all_in_a_capture()
{
    capturing();
    cudaDeviceSynchronize();
}
static void waits_for_an_event_in_a_capture()
{
    cudaEvent_t e;
    cudaEventCreate(&e);
    capturing();
    cudaEventSynchronize(e);
}
static void forgets_the_stream_in_a_capture()
{
    float *x = numbers(64);
    capturing();
    add_one<<<1, 64>>>(x, 64);
}
static void reads_what_was_only_captured()
{
    float *x = numbers(64);
    cudaStream_t s = capturing();
    add_one<<<1, 64, 0, s>>>(x, 64);
    captured(s);
    cudaDeviceSynchronize();
    if (x[3] != 4) mode_emu::fault("nothing ran");
}
static void reads_a_graph_s_result_before_waiting()
{
    float *x = numbers(64);
    cudaStream_t s = capturing();
    add_one<<<1, 64, 0, s>>>(x, 64);
    cudaGraphLaunch(captured(s), s);
    if (x[3] != 4) mode_emu::fault("too early");
}
static void launches_a_graph_of_freed_memory()
{
    float *x = numbers(64);
    cudaStream_t s = capturing();
    add_one<<<1, 64, 0, s>>>(x, 64);
    cudaGraphExec_t exec = captured(s);
    cudaFree(x);
    cudaGraphLaunch(exec, s);
}
static void copies_pageable_memory_in_a_capture()
{
    float *x = numbers(64), from = 1;
    cudaMemcpyAsync(x, &from, sizeof from, cudaMemcpyDefault, capturing());
}
static void changes_what_a_graph_has_yet_to_copy()
{
    float *x = numbers(64), *from;
    CHECK(cudaMallocHost((void **)&from, sizeof *from) == cudaSuccess);
    *from = 1;
    cudaStream_t s = capturing();
    cudaMemcpyAsync(x, from, sizeof *from, cudaMemcpyDefault, s);
    cudaGraphExec_t exec = captured(s);
    *from = 2;
    cudaGraphLaunch(exec, s);
    cudaStreamSynchronize(s);
    if (x[0] != 1) mode_emu::fault("another number");
}

/* Two streams: t copies what s wrote, then s waits for t and overwrites it. One of the three events may be left out;
 * `captured`: as a graph. Returns the copy, 1 if correct. */
enum { FORK = 1, REUSE = 2, JOIN = 4 };
static float beside(int events, bool as_graph, const char *order)
{
    cudaStream_t s, t;
    cudaEvent_t e;
    cudaGraphExec_t exec;
    float *x = numbers(64), *y = numbers(64), copied;
    setenv("MODE_EMULATOR_STREAMS", order, 1);
    cudaStreamCreate(&s);
    cudaStreamCreate(&t);
    cudaEventCreate(&e);
    add_one<<<1, 1, 0, s>>>(nullptr, 0);
    if (as_graph) CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    auto joins = [e](cudaStream_t behind, cudaStream_t first) {
        cudaEventRecord(e, first);
        cudaStreamWaitEvent(behind, e, 0);
    };
    cudaMemsetAsync(x, 0, 64 * sizeof *x, s);
    if (!(events & FORK)) joins(t, s); /* before the work of s: t only joins the capture */
    add_one<<<1, 64, 0, s>>>(x, 64);
    if (events & FORK) joins(t, s);
    cudaMemcpyAsync(y, x, 64 * sizeof *x, cudaMemcpyDefault, t);
    if (events & REUSE) joins(s, t);
    add_one<<<1, 64, 0, s>>>(x, 64);
    if (events & JOIN) joins(s, t);
    if (as_graph) {
        exec = captured(s);
        cudaGraphLaunch(exec, s);
        cudaGraphExecDestroy(exec);
    }
    cudaStreamSynchronize(s);
    copied = y[63];
    cudaDeviceSynchronize();
    cudaStreamDestroy(s);
    cudaStreamDestroy(t);
    cudaEventDestroy(e);
    cudaFree(x);
    cudaFree(y);
    return copied;
}
static void is_found_as(int events, bool as_graph, const char *order)
{
    if (beside(events, as_graph, order) != 1) mode_emu::fault("another number");
}
static void forgets_the_fork()
{
    is_found_as(REUSE | JOIN, false, "10");
}
static void forgets_the_reuse()
{
    is_found_as(FORK | JOIN, false, "late");
}
static void forgets_the_reuse_in_the_order_of_streams()
{
    is_found_as(FORK | JOIN, false, "01");
}
static void forgets_the_join()
{
    is_found_as(FORK, false, "late");
}
static void forgets_the_fork_in_a_graph()
{
    is_found_as(REUSE | JOIN, true, "10");
}
static void forgets_the_reuse_in_a_graph()
{
    is_found_as(FORK | JOIN, true, "late");
}
static void forgets_the_join_in_a_graph()
{
    beside(FORK, true, "late");
}
static void forgets_the_priorities_of_a_graph()
{
    cudaStream_t t, s = capturing();
    cudaEvent_t e;
    cudaStreamCreateWithPriority(&t, cudaStreamDefault, -1);
    cudaEventCreate(&e);
    cudaEventRecord(e, s);
    cudaStreamWaitEvent(t, e, 0);
    cudaEventRecord(e, t);
    cudaStreamWaitEvent(s, e, 0);
    captured(s);
}
static void waits_in_a_capture_for_what_is_outside()
{
    cudaStream_t t;
    cudaEvent_t e;
    cudaStreamCreate(&t);
    cudaEventCreate(&e);
    cudaEventRecord(e, t);
    cudaStreamWaitEvent(capturing(), e, 0);
}
static void waits_for_a_capture_that_has_ended()
{
    cudaStream_t t, s = capturing();
    cudaEvent_t e;
    cudaStreamCreate(&t);
    cudaEventCreate(&e);
    cudaEventRecord(e, s);
    captured(s);
    cudaStreamWaitEvent(t, e, 0);
}

static void fail_by(cudaError_t wanted, const char *words)
{
    if (cudaGetLastError() == wanted) mode_emu::fault("%s", words);
}
static void asks_for_too_many_threads()
{
    add_one<<<1, 1025>>>(numbers(1), 1);
    fail_by(cudaErrorInvalidConfiguration, "refused");
}
static void asks_for_too_high_a_grid()
{
    add_one<<<dim3(1, 65536), 32>>>(numbers(1), 1);
    fail_by(cudaErrorInvalidConfiguration, "refused");
}
static void asks_for_no_blocks()
{
    add_one<<<0, 32>>>(numbers(1), 1);
    fail_by(cudaErrorInvalidConfiguration, "refused");
}
static void asks_for_shared_memory_without_opt_in()
{
    behind_dynamic_shared<<<1, 1, 49 * 1024>>>(1);
    fail_by(cudaErrorInvalidValue, "refused");
}
static void asks_for_more_shared_memory_than_there_is()
{
    if (cudaFuncSetAttribute(behind_dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024))
        fail_by(cudaErrorInvalidValue, "refused");
}

static __global__ void declares_too_much()
{
    __shared__ float part[13000];
    part[threadIdx.x] = 0;
}
static void declares_more_than_48_kib()
{
    declares_too_much<<<1, 1>>>();
}

static __global__ void __launch_bounds__(2 * 32) made_for_two_warps(int n)
{
    extern __shared__ int part[];
    __shared__ int more[1024];
    if ((int)threadIdx.x < n) part[threadIdx.x] = more[threadIdx.x] = 0;
}
static void asks_for_more_threads_than_bounds_say()
{
    made_for_two_warps<<<1, 65, 4>>>(1);
}
static void declares_and_asks_for_more_than_48_kib()
{
    made_for_two_warps<<<1, 64, 47 * 1024>>>(1);
}

static __global__ void mma_by_half_a_warp(float *x)
{
    float c[4] = {0, 0, 0, 0};
    const uint32_t a[4] = {0, 0, 0, 0};
    if (threadIdx.x < 16) return;
    mma_m16n8k16(c, a, 0, 0);
    x[threadIdx.x] = c[0];
}
static void makes_mma_by_half_a_warp()
{
    mma_by_half_a_warp<<<1, 32>>>(numbers(256));
}

static __global__ void matrices_off_16_bytes(float *x)
{
    __shared__ __align__(16) __nv_bfloat16 rows[8 * 24];
    uint32_t to[4];
    ldmatrix(to, rows + threadIdx.x % 8 * 24 + 4);
    x[threadIdx.x] = (float)to[0];
}
static void loads_matrices_off_16_bytes()
{
    matrices_off_16_bytes<<<1, 32>>>(numbers(256));
}

static __global__ void copy_beside(float *x, const float *from, bool waits)
{
    __shared__ __align__(16) float part[128];
    __pipeline_memcpy_async(part + 4 * threadIdx.x, from + 4 * threadIdx.x, 16);
    if (waits) __pipeline_commit();
    if (waits) __pipeline_wait_prior(0);
    __syncthreads();
    if (waits) x[threadIdx.x] = part[127 - threadIdx.x];
    if (waits) return;
    x[threadIdx.x] = part[threadIdx.x];
    __pipeline_commit();
    __pipeline_wait_prior(0);
}
static void reads_a_copy_before_waiting()
{
    float *x = numbers(256), *from = numbers(128);
    copy_beside<<<1, 32>>>(x, from, false);
    cudaDeviceSynchronize();
    if (std::isnan(x[0])) fprintf(stderr, "NaN\n"), abort(); /* its own copy, in any order */
}

static __global__ void copy_left_behind(const float *from)
{
    __shared__ __align__(16) float part[128];
    __pipeline_memcpy_async(part + 4 * threadIdx.x, from + 4 * threadIdx.x, 16);
}
static void ends_before_its_copies()
{
    copy_left_behind<<<1, 32>>>(numbers(128));
}

static void runs_out_of_memory()
{
    void *p;
    setenv("MODE_EMULATOR_MEMORY", "1000000", 1);
    CHECK(cudaMalloc(&p, 600000) == cudaSuccess);
    if (cudaMalloc(&p, 600000) == cudaErrorMemoryAllocation) mode_emu::fault("refused");
}

#if MODE_EMU_ASAN
#define EDGE(words) "AddressSanitizer"
#else
#define EDGE(words) words
#endif

static void writes_device_memory_on_the_host()
{
    float *x;
    CHECK(cudaMalloc(&x, 64) == cudaSuccess);
    x[0] = 1;
}
static void reads_device_memory_on_the_host()
{
    float *x;
    CHECK(cudaMalloc(&x, 64 * sizeof *x) == cudaSuccess);
    cudaMemset(x, 0, 64 * sizeof *x);
    add_one<<<1, 64>>>(x, 64);
    cudaDeviceSynchronize(); /* synchronising is not enough */
    if (x[3] == 1) fprintf(stderr, "read\n");
}
static void gives_pinned_memory_to_a_kernel()
{
    float *x;
    CHECK(cudaMallocHost((void **)&x, 64 * sizeof *x) == cudaSuccess);
    add_one<<<1, 64>>>(x, 64);
}
static void copies_behind_an_allocation()
{
    float *x, y[17] = {0};
    CHECK(cudaMalloc(&x, 64) == cudaSuccess);
    if (cudaMemcpyAsync(x, y, sizeof y, cudaMemcpyHostToDevice, nullptr) == cudaErrorInvalidValue)
        mode_emu::fault("refused");
}
static void asks_events_without_a_clock_for_the_time()
{
    cudaEvent_t e;
    float ms;
    CHECK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming) == cudaSuccess);
    if (cudaEventElapsedTime(&ms, e, e) == cudaErrorInvalidResourceHandle) mode_emu::fault("refused");
}
static void asks_events_that_were_never_recorded_for_the_time()
{
    cudaEvent_t e;
    float ms;
    CHECK(cudaEventCreate(&e) == cudaSuccess);
    if (cudaEventElapsedTime(&ms, e, e) == cudaErrorInvalidResourceHandle) mode_emu::fault("refused");
}
static void pins_a_page_twice()
{
    static char x[3 * 4096];
    CHECK(cudaHostRegister(x, 5000, 0) == cudaSuccess);
    if (cudaHostRegister(x + 5000, 100, 0) == cudaErrorHostMemoryAlreadyRegistered) mode_emu::fault("refused");
}
static void copies_in_the_wrong_direction()
{
    float *x, y = 0;
    CHECK(cudaMalloc(&x, 64) == cudaSuccess);
    if (cudaMemcpyAsync(x, &y, sizeof y, cudaMemcpyDeviceToHost, nullptr) == cudaErrorInvalidValue)
        mode_emu::fault("refused");
}

static const mistake mistakes[] = {
    {"half a block at one barrier, half at another", makes_half_a_barrier, "different barriers"},
    {"a barrier in a branch of some lanes", makes_barrier_of_some, "deadlock"},
    {"a shuffle that half the lanes reach", makes_shuffle_of_some, "deadlock"},
    {"a shuffle from lanes that have ended", makes_shuffle_from_the_dead, "which has ended or is not in the mask"},
    {"a shuffle by lanes outside its mask", makes_shuffle_outside_the_mask, "which leaves it out"},
    {"a full mask in a warp of 16 lanes", makes_shuffle_of_a_short_warp, "the last warp of this block has 16 lanes"},
    {"shared memory read before it is written", reads_unwritten_shared, "NaN"},
    {"a barrier left out", forgets_a_barrier, "NaN"},
    {"a write behind an allocation", writes_behind_an_allocation, EDGE("behind an allocation of 256 bytes")},
    {"a write behind shared memory", writes_behind_shared_memory, EDGE("behind the end of 40 bytes")},
    {"a write behind dynamic shared memory", writes_behind_dynamic_shared_memory, EDGE("behind the end of 40 bytes")},
    {"16 bytes stored at a multiple of 8", stores_four_where_two_may_begin, "misaligned address"},
    {"memory of the host in a kernel", gives_host_memory_to_a_kernel, "argument 1 points to memory that the device"},
    {"a result read before waiting", reads_before_waiting, "too early"},
    {"two streams without an event", forgets_an_event, "too early"},
    {"a kernel that is first met in a capture", launches_a_kernel_first_in_a_capture,
     "met for the first time in a capture"},
    {"leave for shared memory taken back from a graph", lowers_the_limit_of_a_captured_launch,
     "was recorded with 60000 bytes of shared memory and is allowed 50000 now"},
    {"memory taken in a capture", allocates_in_a_capture, "memory is taken while a stream is captured"},
    {"memory given back in a capture", frees_memory_in_a_capture, "memory is given back while"},
    {"a stream waited for in a capture", waits_in_a_capture, "a stream is waited for while"},
    {"the device waited for in a capture", waits_for_all_in_a_capture, "the device is waited for while"},
    {"an event waited for in a capture", waits_for_an_event_in_a_capture, "an event is waited for while"},
    {"the default stream in a capture", forgets_the_stream_in_a_capture, "the default stream is used while"},
    {"memory that is not pinned copied in a capture", copies_pageable_memory_in_a_capture, "not pinned is copied"},
    {"a capture taken for a run", reads_what_was_only_captured, "nothing ran"},
    {"a graph's result read before waiting", reads_a_graph_s_result_before_waiting, "too early"},
    {"a graph of memory that is gone", launches_a_graph_of_freed_memory, "argument 1 points to memory that the device"},
    {"the source of a captured copy changed", changes_what_a_graph_has_yet_to_copy, "another number"},
    {"a stream that starts too early", forgets_the_fork, "another number"},
    {"memory used again too early", forgets_the_reuse, "another number"},
    {"memory used again too early, streams in order", forgets_the_reuse_in_the_order_of_streams, "another number"},
    {"a stream that nobody waits for", forgets_the_join, "another number"},
    {"a branch of a graph that starts too early", forgets_the_fork_in_a_graph, "another number"},
    {"memory used again too early in a graph", forgets_the_reuse_in_a_graph, "another number"},
    {"a branch of a graph that nobody waits for", forgets_the_join_in_a_graph, "is not joined at its end"},
    {"a graph that forgets the priorities of its streams", forgets_the_priorities_of_a_graph, "UseNodePriority"},
    {"an event from outside in a capture", waits_in_a_capture_for_what_is_outside, "from outside is waited for"},
    {"an event of a capture that has ended", waits_for_a_capture_that_has_ended,
     "capture that has ended is waited for"},
    {"1025 threads", asks_for_too_many_threads, "refused"},
    {"65536 rows of blocks", asks_for_too_high_a_grid, "refused"},
    {"no blocks", asks_for_no_blocks, "refused"},
    {"more threads than __launch_bounds__", asks_for_more_threads_than_bounds_say, "__launch_bounds__ says 64"},
    {"48 KiB of shared memory, of which some is declared", declares_and_asks_for_more_than_48_kib, "49152 is the most"},
    {"49 KiB of shared memory without leave", asks_for_shared_memory_without_opt_in, "refused"},
    {"228 KiB of shared memory", asks_for_more_shared_memory_than_there_is, "refused"},
    {"52 KB of declared shared memory", declares_more_than_48_kib, "declares 52000 bytes"},
    {"a matrix operation of half a warp", makes_mma_by_half_a_warp, "needs all 32 lanes"},
    {"matrices off 16 bytes", loads_matrices_off_16_bytes, "not aligned to 16 bytes"},
    {"a copy beside the thread read too early", reads_a_copy_before_waiting, "NaN"},
    {"a thread that ends before its copies", ends_before_its_copies, "of its copies and products are under way"},
    {"more memory than the device has", runs_out_of_memory, "refused"},
    {"device memory written by the host", writes_device_memory_on_the_host, EDGE("the host touches memory of the")},
    {"device memory read by the host", reads_device_memory_on_the_host, EDGE("the host touches memory of the")},
    {"pinned memory in a kernel", gives_pinned_memory_to_a_kernel, "is the host's: every access would cross the bus"},
    {"a copy in the wrong direction", copies_in_the_wrong_direction, "refused"},
    {"a copy behind an allocation", copies_behind_an_allocation, "refused"},
    {"the time between events that have none", asks_events_without_a_clock_for_the_time, "refused"},
    {"the time between events that never were", asks_events_that_were_never_recorded_for_the_time, "refused"},
    {"a page pinned twice", pins_a_page_twice, "refused"},
};

/* ---- what is right ---- */

static __global__ void warp_operations(float *x, int *votes)
{
    int lane = (int)threadIdx.x;
    float v = (float)lane;
    x[lane] = __shfl_xor_sync(ALL, v, 5);
    x[32 + lane] = __shfl_down_sync(ALL, v, 3);
    x[64 + lane] = __shfl_up_sync(ALL, v, 3);
    x[96 + lane] = __shfl_sync(ALL, v, 7);
    x[128 + lane] = __shfl_down_sync(ALL, v, 3, 8);
    x[160 + lane] = __shfl_sync(ALL, v, 2, 16);
    for (int i = 0; i < 6; i++) votes[lane + 32 * i] = 0;
    votes[lane] = (int)__ballot_sync(ALL, lane % 3 == 0);
    votes[32 + lane] = __any_sync(ALL, lane == 31);
    votes[64 + lane] = __all_sync(ALL, lane != 31);
    if (lane < 16)
        votes[96 + lane] = (int)__reduce_add_sync(0xffffu, lane);
    else
        votes[96 + lane] = (int)__reduce_max_sync(0xffff0000u, lane);
    votes[128 + lane] = __syncthreads_count(lane > 4);
    votes[160 + lane] = __syncthreads_or(lane == 9) + 2 * __syncthreads_and(lane < 31);
}

static void warp_operations_are_cuda_s()
{
    float *x = numbers(192);
    int *v;
    CHECK(cudaMallocManaged((void **)&v, 192 * sizeof *v, cudaMemAttachGlobal) == cudaSuccess);
    warp_operations<<<1, 32>>>(x, v);
    cudaDeviceSynchronize();
    for (int i = 0; i < 32; i++) {
        CHECK(x[i] == (float)(i ^ 5));
        CHECK(x[32 + i] == (float)(i + 3 < 32 ? i + 3 : i));
        CHECK(x[64 + i] == (float)(i >= 3 ? i - 3 : i));
        CHECK(x[96 + i] == 7);
        CHECK(x[128 + i] == (float)(i % 8 + 3 < 8 ? i + 3 : i));
        CHECK(x[160 + i] == (float)(i / 16 * 16 + 2));
        CHECK(v[i] == 0x49249249);
        CHECK(v[32 + i] == 1 && v[64 + i] == 0);
        CHECK(v[96 + i] == (i < 16 ? 120 : 31));
        CHECK(v[128 + i] == 27 && v[160 + i] == 1);
    }
    cudaFree(x);
    cudaFree(v);
}

/* d [16, 16] = (a b^T, or a b) + c, then again with the rounded result as a. Leading dimension of a and b: 24. */
static __global__ void mma_tile(float *d, const __nv_bfloat16 *a, const __nv_bfloat16 *b, const float *c,
                                bool transposed)
{
    __shared__ __align__(16) __nv_bfloat16 rows[2 * 16 * 24];
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t left[4], right[4];
    float sum[2][4];
    for (int i = lane; i < 16 * 24; i += 32) {
        rows[i] = a[i];
        rows[16 * 24 + i] = b[i];
    }
    __syncwarp();
    ldmatrix(left, rows + lane % 16 * 24 + lane / 16 * 8);
    if (transposed)
        ldmatrix(right, rows + (16 + lane / 16 * 8 + lane % 8) * 24 + lane / 8 % 2 * 8);
    else
        ldmatrix_transposed(right, rows + (16 + lane % 16) * 24 + lane / 16 * 8);
    for (int again = 0; again < 2; again++) {
        for (int j = 0; j < 2; j++)
            for (int e = 0; e < 4; e++) sum[j][e] = c[(g + e / 2 * 8) * 16 + j * 8 + 2 * t + e % 2];
        mma_m16n8k16(sum[0], left, right[0], right[1]);
        mma_m16n8k16(sum[1], left, right[2], right[3]);
        for (int i = 0; i < 4; i++) {
            __nv_bfloat162 two = __floats2bfloat162_rn(sum[i / 2][i % 2 * 2], sum[i / 2][i % 2 * 2 + 1]);
            memcpy(&left[i], &two, sizeof two);
        }
    }
    for (int j = 0; j < 2; j++)
        for (int e = 0; e < 4; e++) d[(g + e / 2 * 8) * 16 + j * 8 + 2 * t + e % 2] = sum[j][e];
}

static void matrix_fragments_multiply()
{
    __nv_bfloat16 *a, *b;
    float *c = numbers(256), *d = numbers(256);
    CHECK(cudaMallocManaged((void **)&a, 16 * 24 * sizeof *a, cudaMemAttachGlobal) == cudaSuccess);
    CHECK(cudaMallocManaged((void **)&b, 16 * 24 * sizeof *b, cudaMemAttachGlobal) == cudaSuccess);
    for (int i = 0; i < 16 * 24; i++) a[i] = __float2bfloat16((float)(i * 7 % 31 - 15));
    for (int i = 0; i < 16 * 24; i++) b[i] = __float2bfloat16((float)(i * 11 % 29 - 14));
    for (bool transposed : {false, true}) {
        float left[256], sum[256];
        mma_tile<<<1, 32>>>(d, a, b, c, transposed);
        cudaDeviceSynchronize();
        for (int i = 0; i < 256; i++) left[i] = (float)a[i / 16 * 24 + i % 16];
        for (int again = 0; again < 2; again++) {
            for (int i = 0; i < 16; i++)
                for (int j = 0; j < 16; j++) {
                    float s = 0;
                    for (int k = 0; k < 16; k++)
                        s += left[i * 16 + k] * (float)(transposed ? b[j * 24 + k] : b[k * 24 + j]);
                    sum[i * 16 + j] = c[i * 16 + j] + s;
                }
            for (int i = 0; i < 256; i++) left[i] = (float)__float2bfloat16(sum[i]);
        }
        for (int i = 0; i < 256; i++) CHECK(d[i] == sum[i]);
    }
    for (void *p : {(void *)a, (void *)b, (void *)c, (void *)d}) cudaFree(p);
}

static void copies_beside_a_thread_arrive()
{
    float *x = numbers(32), *from = numbers(128);
    copy_beside<<<1, 32>>>(x, from, true);
    cudaDeviceSynchronize();
    for (int i = 0; i < 32; i++) CHECK(x[i] == from[127 - i]);
    cudaFree(x);
    cudaFree(from);
}

static void sixteen_bits_are_rounded_to_even()
{
    CHECK((float)__float2bfloat16(1.00390625f) == 1.0f);       /* 1 + 2^-8: a tie, down to even */
    CHECK((float)__float2bfloat16(1.01171875f) == 1.015625f);  /* 1 + 3 * 2^-8: a tie, up to even */
    CHECK((float)__float2bfloat16(1.00390637f) == 1.0078125f); /* just over the tie */
    CHECK((float)__float2bfloat16(3.4e38f) == __builtin_inff());
    CHECK(std::isnan((float)__float2bfloat16(__builtin_nanf(""))));
    CHECK((float)__float2bfloat16(-0.0f) == 0 && __float2bfloat16(-0.0f).__x == 0x8000);
    for (unsigned i = 0; i < 0x10000; i++) { /* every 16-bit value converts to itself */
        __half h;
        h.__x = (unsigned short)i;
        if ((i & 0x7c00) != 0x7c00) CHECK(__float2half((float)h).__x == i);
        if ((i & 0x7f80) != 0x7f80)
            CHECK(__float2bfloat16(__bfloat162float(__ushort_as_bfloat16((unsigned short)i))).__x == i);
    }
    CHECK((float)__float2half(2049.0f) == 2048 && (float)__float2half(2051.0f) == 2052);
    CHECK((float)__float2half(65520.0f) == __builtin_inff() && (float)__float2half(65519.0f) == 65504);
    CHECK((float)__float2half(0x1p-25f) == 0 && (float)__float2half(0x1.8p-24f) == 0x1p-23f);
}

static void fast_functions_are_as_far_off_as_cuda_says()
{
    CHECK(__fdividef(1, 0x1p126f) == 0x1p-126f && __fdividef(1, 0x1.8p126f) == 0 && __fdividef(-3, 0x1p127f) == 0);
    CHECK(__fdividef(1, __builtin_inff()) == 0 && std::isnan(__fdividef(__builtin_inff(), 0x1p127f)));
    CHECK(__expf(0) == 1 && __expf(-200) == 0 && std::isnan(__expf(__builtin_nanf(""))));
    CHECK(fabs(__expf(80) / exp(80.0) - 1) < 96 * 0x1p-23 && __expf(80) != expf(80));
    CHECK(exp2_approx(-126) == 0x1p-126f && exp2_approx(-126.5f) == 0 && exp2_approx(-__builtin_inff()) == 0);
    CHECK(std::isnan(exp2_approx(__builtin_nanf(""))));
}

static void graphs_and_events_keep_their_order()
{
    cudaStream_t s, t;
    cudaEvent_t e;
    cudaGraph_t g;
    cudaGraphExec_t exec;
    float *x = numbers(64), *y = numbers(64);
    cudaStreamCreate(&s);
    cudaStreamCreate(&t);
    cudaEventCreate(&e);
    add_one<<<1, 1, 0, s>>>(nullptr, 0);
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal) == cudaSuccess);
    add_one<<<1, 64, 0, s>>>(x, 64);
    add_one<<<1, 64, 0, s>>>(x, 32);
    CHECK(cudaStreamEndCapture(s, &g) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&exec, g, 0) == cudaSuccess);
    cudaStreamSynchronize(s);
    CHECK(x[1] == 1);
    for (int i = 0; i < 3; i++) cudaGraphLaunch(exec, s);
    cudaEventRecord(e, s);
    cudaStreamWaitEvent(t, e, 0);
    cudaMemcpyAsync(y, x, 64 * sizeof *x, cudaMemcpyDefault, t);
    cudaStreamSynchronize(t);
    CHECK(y[1] == 7 && y[63] == 66);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(g);
    cudaEventDestroy(e);
    cudaStreamDestroy(s);
    cudaStreamDestroy(t);
    cudaFree(x);
    cudaFree(y);
}

static void streams_with_their_events_are_right_in_every_order()
{
    for (const char *order : {"late", "01", "10", "shuffled", "shuffled", "shuffled"})
        for (int events : {FORK | REUSE, FORK | REUSE | JOIN})
            for (bool as_graph : {false, true}) CHECK(beside(events, as_graph, order) == 1);
    unsetenv("MODE_EMULATOR_STREAMS");
}

int main()
{
    const int bad = missed(mistakes, sizeof mistakes / sizeof *mistakes);
    warp_operations_are_cuda_s();
    matrix_fragments_multiply();
    copies_beside_a_thread_arrive();
    sixteen_bits_are_rounded_to_even();
    fast_functions_are_as_far_off_as_cuda_says();
    graphs_and_events_keep_their_order();
    streams_with_their_events_are_right_in_every_order();
    return bad > 0;
}
