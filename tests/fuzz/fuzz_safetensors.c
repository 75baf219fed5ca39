/* Any bytes as a safetensors file, and as the header of one with a correct length: an error sentence, or tensors that
 * cover the file exactly. The first byte chooses which. */
#include "data/safetensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    struct mode_safetensors f;
    struct mode_error err = {0};
    if (fd < 0) {
        fd = memfd_create("safetensors", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (size == 0) return 0;
    uint8_t length[8] = {0};
    const uint8_t kind = *data++;
    size--;
    const uint8_t *end = memchr(data, 0, size); /* the header ends at a NUL, what follows is data */
    uint64_t n = end ? (uint64_t)(end - data) : size;
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(n >> (8 * i));
    if (ftruncate(fd, 0) != 0) abort();
    if (kind & 1) {
        if (pwrite(fd, length, 8, 0) != 8 || pwrite(fd, data, n, 8) != (ssize_t)n) abort();
        if (end && pwrite(fd, end + 1, size - n - 1, (off_t)(8 + n)) != (ssize_t)(size - n - 1)) abort();
    } else if (pwrite(fd, data, size, 0) != (ssize_t)size) {
        abort();
    }
    if (mode_safetensors_open(&f, path, &err)) {
        if (!err.text[0]) abort();
        return 0;
    }
    size_t total = 0;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < f.n_tensors; i++) {
        const uint8_t *p = f.tensors[i].data;
        size_t bytes = mode_tensor_bytes(&f.tensors[i]);
        total += bytes;
        if (bytes) sum = (uint8_t)(sum + p[0] + p[bytes - 1]);
        if (!mode_safetensors_find(&f, f.tensors[i].name)) abort();
    }
    if (total > f.map.size) abort();
    mode_safetensors_close(&f);
    return 0;
}
