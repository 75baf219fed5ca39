/* Any bytes as a tar, plain or compressed: iteration terminates, and every member lies within the input. */
#include "data/tar.h"

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
    struct mode_tar_data d;
    struct mode_tar_member m;
    struct mode_error err = {0};
    bool got = true;
    if (fd < 0) {
        fd = memfd_create("tar", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    if (mode_tar_data_open(&d, path, &err)) return 0;
    struct mode_tar t = mode_tar_walk(&d, path);
    volatile uint8_t sum = 0;
    while (mode_tar_next(&t, &m, &got, &err) == MODE_OK && got) {
        if (m.offset > d.size || (m.whole && m.size > d.size - m.offset) || m.header >= d.size) abort();
        if (strlen(m.name) > MODE_TAR_MAX_NAME && m.kind != MODE_TAR_OTHER) abort();
        if (m.whole && m.size) sum = (uint8_t)(sum + d.data[m.offset] + d.data[m.offset + m.size - 1]);
    }
    mode_tar_clear(&t);
    mode_tar_data_close(&d);
    return 0;
}
