#include "nn/mirror.h"

#include "base/str.h"

#include <stdlib.h>

static void *buffer_for(struct mode_mirror *m, size_t bytes)
{
    if (bytes > m->buffer_bytes || !m->buffer) {
        free(m->buffer);
        m->buffer = mode_xmalloc(bytes + 1);
        m->buffer_bytes = bytes;
    }
    return m->buffer;
}

const void *mode_mirror_read(struct mode_mirror *m, const void *data, size_t bytes)
{
    if (!mode_backend_is_device(m->be)) return data;
    mode_backend_copy(m->be, buffer_for(m, bytes), data, bytes);
    return m->buffer;
}

const void *mode_mirror_fetch(void *mirror, const void *data, size_t bytes)
{
    return mode_mirror_read(mirror, data, bytes);
}

void *mode_mirror_write(struct mode_mirror *m, void *data, size_t bytes)
{
    if (!mode_backend_is_device(m->be)) return data;
    m->to = data;
    m->bytes = bytes;
    return buffer_for(m, bytes);
}

void mode_mirror_send(struct mode_mirror *m)
{
    if (m->to) mode_backend_copy(m->be, m->to, m->buffer, m->bytes);
    m->to = NULL;
}

void mode_mirror_clear(struct mode_mirror *m)
{
    free(m->buffer);
    m->buffer = m->to = NULL;
    m->buffer_bytes = m->bytes = 0;
}
