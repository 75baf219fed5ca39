/* emulator.h - between the parts of the emulator: blocks.cpp runs kernels, hopper.cpp what goes on beside their
 * threads, streams.cpp says when, runtime.cpp keeps memory. */
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

enum : size_t { SHARED_DEFAULT = 48 * 1024, SHARED_MOST = 227 * 1024 }; /* of any GPU */
size_t shared_most();                                                   /* runtime.cpp: of this one */
int capability();                                                       /* runtime.cpp: 10 * major + minor */
enum : unsigned char { POISON = 0xff };                                 /* floats are NaN, integers -1 */

struct grid {
    const char *name;
    dim3 blocks, threads;
    size_t shared;
    bool raised;                /* more than 48 KiB of it were allowed */
    unsigned cluster;           /* so many blocks, next to each other in x, run together */
    std::function<void()> body; /* what one thread does */
};
void run_grid(const grid &g); /* blocks.cpp */

/* hopper.cpp, called by blocks.cpp. No thread can go on: what has been left to the last now happens. A cluster's
 * threads have all ended. */
void deliver_late();
void end_of_cluster();

/* Everything holds it, and one thread at a time runs what streams hold. */
extern std::recursive_mutex lock; /* runtime.cpp */
using locked = std::lock_guard<std::recursive_mutex>;
cudaError_t note(cudaError_t e); /* for cudaGetLastError */
/* runtime.cpp. The error by which the GPU has failed for good, or none; asked whenever a piece of work would run. */
cudaError_t fault(bool is_work = false); /* is_work: a piece of a stream's work begins */
cudaError_t fault_or(cudaError_t e);
struct working { /* while it lives, memory of the device may be touched */
    working();
    ~working();
};

/* streams.cpp. Work of a kernel, a copy or a library's call, put into a stream. */
void enqueue(cudaStream_t stream, std::function<void()> work);
void run_everything();
/* What a capture does not allow, CUDA refuses and fails the capture with it: a mistake wherever it is made. */
void not_in_a_capture(const char *what);
bool is_captured(cudaStream_t stream);
/* runtime.cpp. `what` (a kernel, or what a library has one for) is put into the stream; in a capture it is no first time. */
void must_be_loaded(std::set<const void *> &loaded_ones, const void *what, const char *name, cudaStream_t stream);
bool can_launch(cudaStream_t stream); /* MODE_EMULATOR_CAPTURE=fails: not into a capture */

} // namespace mode_emu

#endif
