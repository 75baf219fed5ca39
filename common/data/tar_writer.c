#include "base/file.h"
#include "base/str.h"
#include "data/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = MODE_TAR_BLOCK };

struct mode_tar_writer {
    char *path, *temp;
    FILE *file;
};

enum mode_status mode_tar_writer_open(struct mode_tar_writer **w, const char *path, struct mode_error *err)
{
    char *temp = mode_xasprintf("%s.tmp-XXXXXX", path);
    const int fd = mkostemp(temp, O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    *w = NULL;
    if (!file) {
        const int e = errno;
        if (fd >= 0) {
            close(fd);
            unlink(temp);
        }
        free(temp);
        return mode_output_fail(err, e, path, "be created");
    }
    *w = mode_xmalloc(sizeof **w);
    **w = (struct mode_tar_writer){.path = mode_xstrdup(path), .temp = temp, .file = file};
    return MODE_OK;
}

static enum mode_status put(struct mode_tar_writer *w, const void *data, size_t size, struct mode_error *err)
{
    static const uint8_t zeros[BLOCK];
    const size_t pad = (BLOCK - size % BLOCK) % BLOCK;
    if (fwrite(data, 1, size, w->file) != size || fwrite(zeros, 1, pad, w->file) != pad)
        return MODE_FAIL(err, MODE_E_IO, "%s: writing failed: %s", w->path, strerror(errno));
    return MODE_OK;
}

/* Fields are octal with a NUL at the end; the header was zeroed. */
static enum mode_status put_header(struct mode_tar_writer *w, const char *name, size_t name_size, size_t size,
                                   char type, struct mode_error *err)
{
    char h[BLOCK] = {0};
    unsigned sum = 0;
    memcpy(h, name, name_size < 100 ? name_size : 100);
    memcpy(h + 100, "0000444", 7);
    memcpy(h + 108, "0000000", 7);
    memcpy(h + 116, "0000000", 7);
    snprintf(h + 124, 12, "%011llo", (unsigned long long)size);
    memcpy(h + 136, "00000000000", 11);
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 257, "ustar", 6);
    memcpy(h + 263, "00", 2);
    memcpy(h + 265, "mode", 4);
    memcpy(h + 297, "mode", 4);
    for (int i = 0; i < BLOCK; i++) sum += (unsigned char)h[i];
    snprintf(h + 148, 7, "%06o", sum & 0777777u);
    h[155] = ' ';
    return put(w, h, BLOCK, err);
}

enum mode_status mode_tar_writer_add(struct mode_tar_writer *w, const char *name, const void *data, size_t size,
                                     struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    const size_t n = strlen(name);
    if (n == 0 || n > MODE_TAR_MAX_NAME)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: a member name of %zu bytes, expected 1 to %d", w->path, n,
                         MODE_TAR_MAX_NAME);
    if (size >> 33)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: member %s of %zu bytes, 8 GiB is too large", w->path, name, size);
    if (n > 100) { /* a pax header with the full name: "<length> path=<name>\n", where the length includes itself */
        size_t length = n + 7, digits = 1;
        for (size_t v = length + digits; v >= 10; v /= 10) digits++;
        if (length + digits >= 1000 && digits < 4) digits = 4;
        char *record = mode_xasprintf("%zu path=%s\n", length + digits, name);
        MODE_ASSERT(strlen(record) == length + digits);
        st = put_header(w, "pax", 3, length + digits, 'x', err);
        if (!st) st = put(w, record, length + digits, err);
        free(record);
    }
    if (!st) st = put_header(w, name, n, size, '0', err);
    if (!st) st = put(w, data, size, err);
    return st;
}

enum mode_status mode_tar_writer_finish(struct mode_tar_writer **w, struct mode_error *err)
{
    static const uint8_t end[2 * BLOCK];
    struct mode_tar_writer *v = *w;
    enum mode_status st = put(v, end, sizeof end, err);
    if (!st && (fflush(v->file) != 0 || fchmod(fileno(v->file), 0644) != 0 || fsync(fileno(v->file)) != 0))
        st = MODE_FAIL(err, MODE_E_IO, "%s: writing failed: %s", v->path, strerror(errno));
    if (!st && rename(v->temp, v->path) != 0) st = mode_output_fail(err, errno, v->path, "be created");
    if (!st) {
        free(v->temp);
        v->temp = NULL;
    }
    mode_tar_writer_close(w);
    return st;
}

void mode_tar_writer_close(struct mode_tar_writer **w)
{
    struct mode_tar_writer *v = *w;
    if (!v) return;
    fclose(v->file);
    if (v->temp) unlink(v->temp);
    free(v->temp);
    free(v->path);
    free(v);
    *w = NULL;
}
