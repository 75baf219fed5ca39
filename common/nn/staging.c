#include "nn/staging.h"

#include "base/memory.h"
#include "base/str.h"
#include "nn/backend_impl.h"

#include <stdlib.h>

enum { ALIGN = 64 };

enum mode_status mode_staging_open(struct mode_staging **staging, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct mode_staging *s = *staging = mode_xcalloc(1, sizeof *s);
    s->be = be;
    s->bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    s->host = s->bytes >= bytes ? mode_memory_pages(s->bytes) : NULL;
    if (!s->host)
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for a batch of %zu bytes on its way to the device", bytes);
    s->device = s->host;
    if (!st && be->kind) {
        mode_backend_pin(be, s->host, s->bytes);
        s->device = NULL;
        st = be->kind->staging->open(s, err);
    }
    if (st) mode_staging_close(staging);
    return st;
}

void mode_staging_close(struct mode_staging **staging)
{
    struct mode_staging *s = *staging;
    if (!s) return;
    if (s->be->kind && s->host) {
        s->be->kind->staging->close(s);
        mode_backend_unpin(s->be, s->host);
    }
    free(s->host);
    free(s);
    *staging = NULL;
}

void mode_staging_wait(struct mode_staging *s)
{
    if (s->be->kind) s->be->kind->staging->wait(s);
}

void mode_staging_send(struct mode_staging *s, size_t n)
{
    MODE_ASSERT(n <= s->bytes);
    if (s->be->kind) s->be->kind->staging->send(s, n);
}

void mode_staging_begin(struct mode_staging *s)
{
    if (s->be->kind) s->be->kind->staging->begin(s);
}

void mode_staging_end(struct mode_staging *s)
{
    if (s->be->kind) s->be->kind->staging->end(s);
}
