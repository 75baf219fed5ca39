/* Any bytes as a captions file, and as one with correct sizes and checksum: an error sentence, or samples within the
 * file. The first byte chooses which. */
#include "data/captions.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VERSION_AT = 8, SAMPLES_AT = 12, CHECKSUM_AT = 16, SIZE_AT = 24, STRINGS_AT = 32, BOXES_AT = 92, HEAD = 128 };

/* Corrects the sizes in the header, where that is possible. */
static void put_right(uint8_t *file, size_t size)
{
    uint32_t version, samples, boxes;
    memcpy(&version, file + VERSION_AT, 4);
    memcpy(&samples, file + SAMPLES_AT, 4);
    memcpy(&boxes, file + BOXES_AT, 4);
    const uint64_t n = size, fixed = HEAD + (uint64_t)samples * 64 + (version == 2 ? (uint64_t)boxes * 16 : 0),
                   strings = fixed <= n ? n - fixed : 0;
    memcpy(file + SIZE_AT, &n, sizeof n);
    memcpy(file + STRINGS_AT, &strings, sizeof strings);
    const uint64_t sum = XXH3_64bits(file + SIZE_AT, size - SIZE_AT);
    memcpy(file + CHECKSUM_AT, &sum, sizeof sum);
}

static void walk(const struct mode_captions *c)
{
    volatile size_t sum = 0;
    uint64_t fates = 0;
    for (int f = 0; f < MODE_FATE_COUNT; f++) fates += c->fate_count[f];
    if (fates != c->n_samples || c->fate_count[MODE_FATE_KEPT] != c->n_rows) abort();
    for (uint32_t i = 0; i < c->n_samples; i++) {
        const struct mode_sample s = mode_captions_sample(c, i);
        sum = sum + strlen(s.key) + strlen(s.caption);
        for (uint32_t b = 0; b < s.n_boxes; b++) sum = sum + s.boxes[b].x0 + s.boxes[b].y1;
        if (s.image_offset > c->data_size || s.image_size > c->data_size - s.image_offset) abort();
    }
    for (uint32_t r = 0; r < c->n_rows; r++)
        if (mode_captions_row(c, r).caption[0] == '\0') abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    struct mode_captions c;
    struct mode_error err = {0};
    if (fd < 0) {
        fd = memfd_create("captions", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (size == 0) return 0;
    uint8_t *copy = mode_xmalloc(size);
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1 && size - 1 >= HEAD) put_right(copy, size - 1);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, copy, size - 1, 0) != (ssize_t)size - 1) abort();
    free(copy);
    if (mode_captions_load(&c, path, &err)) {
        if (!err.text[0]) abort();
        return 0;
    }
    walk(&c);
    mode_captions_clear(&c);
    return 0;
}
