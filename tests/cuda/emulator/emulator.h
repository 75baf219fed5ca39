/* emulator.h - between the parts of the emulator: blocks.cpp runs kernels, runtime.cpp keeps streams and memory. */
#ifndef MODE_EMULATOR_H
#define MODE_EMULATOR_H

#include <block.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define MODE_EMU_ASAN 1
#else
#define MODE_EMU_ASAN 0
#endif

namespace mode_emu {

enum : size_t { SHARED_DEFAULT = 48 * 1024, SHARED_MOST = 227 * 1024 };
enum : unsigned char { POISON = 0xff }; /* floats are NaN, integers -1 */

struct grid {
    const char *name;
    dim3 blocks, threads;
    size_t shared;
    std::function<void()> body; /* what one thread does */
};
void run_grid(const grid &g); /* blocks.cpp */

/* What kernels run under: one at a time. For work that a library puts into a stream too. */
void enqueue(cudaStream_t stream, std::function<void()> work); /* runtime.cpp */

} // namespace mode_emu

#endif
