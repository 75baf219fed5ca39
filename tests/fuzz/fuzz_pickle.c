/* Any bytes as a file of torch.save, and as the pickle inside a valid one: an error sentence, or tensors whose elements
 * all lie within the file. The code of the sandboxed process, here without the sandbox, so that the sanitizers see it.
 * The first byte chooses which. */
#include "torch_fixture.h"

#include "base/error.h"
#include "data/torch_file.h"

#include <stdlib.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SCRATCH = 8 << 20 };

static void read_all(const uint8_t *file, size_t size)
{
    static struct mode_torch_plan *plan;
    static uint8_t *memory;
    struct mode_error err = {0};
    if (!plan) {
        memory = malloc(SCRATCH);
        plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (!memory || plan == MAP_FAILED) abort();
    }
    struct mode_scratch s = {memory, SCRATCH, 0};
    mode_torch_plan_make(plan, &s, file, size);
    if (plan->status) {
        if (!plan->text[0]) abort();
        return;
    }
    if (mode_torch_plan_check(plan, size, &err)) abort();
    volatile uint8_t sum = 0;
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        const struct mode_torch_entry *e = &plan->entry[i];
        uint64_t last = (uint64_t)e->offset, each = mode_dtype_size(e->dtype);
        bool empty = false;
        for (int k = 0; k < e->n_dims; k++) {
            empty |= e->dim[k] == 0;
            if (e->dim[k]) last += (uint64_t)((e->dim[k] - 1) * e->stride[k]);
        }
        if (empty) continue;
        sum = (uint8_t)(sum + file[e->begin + (uint64_t)e->offset * each] + file[e->begin + last * each + each - 1]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    if (data[0] & 1) {
        struct mode_str file = {0};
        put_torch_zip(&file, data + 1, size - 1, data[0] & 2);
        read_all((const uint8_t *)file.data, file.len);
        mode_str_clear(&file);
    } else {
        uint8_t *copy = malloc(size); /* its own allocation: ASan catches a read past the end */
        if (!copy) abort();
        memcpy(copy, data + 1, size - 1);
        read_all(copy, size - 1);
        free(copy);
    }
    return 0;
}
