/* disk.c - stops handing out tasks when the disk is nearly full. */
#include "server.h"

#include "base/memory.h"

#include <stdio.h>

#define LOOK_MS    1000
#define MOST_FLOOR ((uint64_t)1 << 30)
#define PART       50 /* 2 % of a small disk is enough to finish running tasks */

void server_watch_disk(struct server *s, int64_t now_ms)
{
    struct core *c = &s->core;
    const bool was = c->no_room;
    uint64_t size = 0;
    if (now_ms < s->disk_ms) return;
    s->disk_ms = now_ms + LOOK_MS;
    s->free_bytes = (s->look_at_disk ? s->look_at_disk : mode_store_free_bytes)(s->store, &size);
    if (!size) return; /* not known */
    s->floor_bytes = size / PART < MOST_FLOOR ? size / PART : MOST_FLOOR;
    if (s->min_free_mib >= 0) s->floor_bytes = (uint64_t)s->min_free_mib << 20;
    c->no_room = s->free_bytes < s->floor_bytes + (was ? s->floor_bytes / 4 : 0); /* hysteresis */
    if (c->no_room && !was) {
        char text[300];
        server_paused(s, text, sizeof text);
        server_note(s, "warn", "disk_full", "%s", text);
    } else if (was && !c->no_room) {
        char room[MODE_SIZE_TEXT];
        server_note(s, "info", "disk_room", "the workspace has room again (%s): tasks are handed out",
                    mode_size_text(room, s->free_bytes));
    }
}

bool server_paused(const struct server *s, char *text, size_t size)
{
    if (!s->core.no_room) return false;
    char room[MODE_SIZE_TEXT], least[MODE_SIZE_TEXT];
    snprintf(text, size,
             "the workspace's disk has %s free, at least %s are needed: no task is handed out until there is room, "
             "running tasks continue. HINT: `mode gc` says what could be freed",
             mode_size_text(room, s->free_bytes), mode_size_text(least, s->floor_bytes));
    return true;
}
