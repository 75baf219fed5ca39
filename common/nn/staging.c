#include "nn/staging.h"

#include "base/str.h"
#include "nn/backend_impl.h"

#include <stdlib.h>

enum { ALIGN = 64, PAGE = 4096 /* pages of its own: memory is pinned by the page, and no page twice */ };

enum mode_status mode_staging_open(struct mode_staging **staging, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct mode_staging *s = *staging = mode_xcalloc(1, sizeof *s);
    s->be = be;
    s->bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    const size_t pages = s->bytes / PAGE + (s->bytes % PAGE || s->bytes == 0);
    s->host = s->bytes >= bytes && pages <= SIZE_MAX / PAGE ? aligned_alloc(PAGE, pages * PAGE) : NULL;
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
