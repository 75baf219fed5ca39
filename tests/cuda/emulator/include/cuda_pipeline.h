/* cuda_pipeline.h - asynchronous copies to shared memory. They are made when they are waited for, so that a thread that
 * does not wait finds NaN. A thread that ends with copies in flight is reported. */
#ifndef MODE_EMULATOR_CUDA_PIPELINE_H
#define MODE_EMULATOR_CUDA_PIPELINE_H

#include <cuda_runtime.h>

#include <map>
#include <vector>

namespace mode_emu
{

struct async_copy {
    void *to;
    const void *from;
    size_t bytes;
    int group; /* commits before it: its group */
};
struct async_copies {
    std::vector<async_copy> under_way;
    int commits;
};
inline std::map<const void *, async_copies> copies; /* of each thread */

} // namespace mode_emu

static inline void __pipeline_memcpy_async(void *to, const void *from, size_t bytes)
{
    if ((bytes != 4 && bytes != 8 && bytes != 16) || ((uintptr_t)to | (uintptr_t)from) % bytes)
        mode_emu::fault("a copy of %zu bytes from %p to %p is not of 4, 8 or 16 aligned bytes", bytes, from, to);
    mode_emu::async_copies &c = mode_emu::copies[mode_emu::self];
    c.under_way.push_back({to, from, bytes, c.commits});
    mode_emu::self->copies++;
}

static inline void __pipeline_commit()
{
    mode_emu::copies[mode_emu::self].commits++;
}

/* Waits for all but the last n groups. */
static inline void __pipeline_wait_prior(size_t n)
{
    mode_emu::async_copies &c = mode_emu::copies[mode_emu::self];
    std::vector<mode_emu::async_copy> rest;
    for (const mode_emu::async_copy &x : c.under_way) {
        if (x.group + (int)n < c.commits) {
            memcpy(x.to, x.from, x.bytes);
            mode_emu::self->copies--;
        } else {
            rest.push_back(x);
        }
    }
    c.under_way = rest;
}

#endif
