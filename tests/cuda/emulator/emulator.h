/* emulator.h - shared by the parts of the emulator: blocks.cpp runs kernels, hopper.cpp the asynchronous copies and
 * matrix instructions, streams.cpp schedules streams, runtime.cpp keeps memory. */
#ifndef MODE_EMULATOR_H
#define MODE_EMULATOR_H

#include <block.h>

#include <mutex>
#include <set>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define MODE_EMU_ASAN 1
#else
#define MODE_EMU_ASAN 0
#endif

namespace mode_emu
{

enum : size_t { SHARED_DEFAULT = 48 * 1024, SHARED_MOST = 227 * 1024 }; /* default and largest opt-in of any GPU */
size_t shared_most();                                                   /* runtime.cpp: opt-in limit of this one */
int capability();                                                       /* runtime.cpp: 10 * major + minor */
enum : unsigned char { POISON = 0xff };                                 /* floats are NaN, integers -1 */

struct grid {
    const char *name;
    dim3 blocks, threads;
    size_t shared;
    bool raised;                /* opted in to more than 48 KiB */
    unsigned cluster;           /* blocks per cluster, neighbours in x */
    std::function<void()> body; /* what one thread does */
};
void run_grid(const grid &g); /* blocks.cpp */
/* runtime.cpp. The allocation of device memory that holds p: *low <= p < *high; false: there is none */
bool device_range(const void *p, uintptr_t *low, uintptr_t *high);

/* hopper.cpp, called by blocks.cpp: no thread can run, so asynchronous copies that were put off complete now; all
 * threads of a cluster have ended. */
void deliver_late();
void end_of_cluster();

/* Held by every call: one thread at a time runs the work of streams. */
extern std::recursive_mutex lock; /* runtime.cpp */
using locked = std::lock_guard<std::recursive_mutex>;
cudaError_t note(cudaError_t e); /* for cudaGetLastError */
/* runtime.cpp. The sticky error after which the GPU does no more work, or cudaSuccess; checked before each piece of
 * work. */
cudaError_t fault(bool is_work = false); /* is_work: a piece of work of a stream begins */
cudaError_t fault_or(cudaError_t e);
struct working { /* while it lives, the host may access device memory */
    working();
    ~working();
};

/* streams.cpp. Enqueues the work of a kernel, a copy or a library call. */
void enqueue(cudaStream_t stream, std::function<void()> work);
void run_everything();
/* Aborts when the calling thread captures: CUDA refuses `what` then, and invalidates the capture. */
void not_in_a_capture(const char *what);
bool is_captured(cudaStream_t stream);
/* runtime.cpp. `what` (a kernel, or a key for one of a library's) is launched into the stream. Aborts when its first
 * launch is in a capture, where lazy loading cannot load it. */
void must_be_loaded(std::set<const void *> &loaded_ones, const void *what, const char *name, cudaStream_t stream);
bool can_launch(cudaStream_t stream); /* MODE_EMULATOR_CAPTURE=fails: false in a capture */

} // namespace mode_emu

#endif
