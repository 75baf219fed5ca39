#include "nn/mirror.h"

#include "base/str.h"

#include <stdlib.h>

static void *room_for(struct mode_mirror *m, size_t bytes)
{
    if (bytes > m->room_bytes || !m->room) {
        free(m->room);
        m->room = mode_xmalloc(bytes + 1);
        m->room_bytes = bytes;
    }
    return m->room;
}

const void *mode_mirror_read(struct mode_mirror *m, const void *data, size_t bytes)
{
    if (!mode_backend_is_device(m->be)) return data;
    mode_backend_copy(m->be, room_for(m, bytes), data, bytes);
    return m->room;
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
    return room_for(m, bytes);
}

void mode_mirror_send(struct mode_mirror *m)
{
    if (m->to) mode_backend_copy(m->be, m->to, m->room, m->bytes);
    m->to = NULL;
}

void mode_mirror_clear(struct mode_mirror *m)
{
    free(m->room);
    m->room = m->to = NULL;
    m->room_bytes = m->bytes = 0;
}
