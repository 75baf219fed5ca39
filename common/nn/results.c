#include "nn/results.h"

#include "base/memory.h"
#include "base/str.h"
#include "nn/backend_impl.h"

#include <stdlib.h>
#include <string.h>

enum mode_status mode_results_open(struct mode_results **results, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err)
{
    struct mode_results *r = *results = mode_xcalloc(1, sizeof *r);
    enum mode_status st = MODE_OK;
    r->be = be;
    r->bytes = bytes;
    r->host = mode_memory_pages(bytes);
    if (!r->host)
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for %zu bytes on their way from the device", bytes);
    else if (be->kind) {
        mode_backend_pin(be, r->host, r->bytes);
        st = be->kind->results->open(r, err);
    }
    if (st) mode_results_close(results);
    return st;
}

void mode_results_close(struct mode_results **results)
{
    struct mode_results *r = *results;
    if (!r) return;
    if (r->be->kind && r->host) {
        r->be->kind->results->close(r);
        mode_backend_unpin(r->be, r->host);
    }
    free(r->host);
    free(r);
    *results = NULL;
}

void mode_results_take(struct mode_results *r, size_t at, const void *from, size_t n)
{
    MODE_ASSERT(at <= r->bytes && n <= r->bytes - at);
    if (r->be->kind) {
        struct mode_tensor *const none = NULL;
        const struct mode_tensor bytes = mode_tensor_1d((void *)(uintptr_t)from, MODE_DTYPE_U8, (int64_t)n);
        const struct mode_tensor *const read = &bytes;
        r->be->kind->uses(r->be, &none, &read, 1); /* as an op does: another stream may still be writing them */
        r->be->kind->results->take(r, at, from, n);
    } else
        memcpy((char *)r->host + at, from, n);
}

void mode_results_wait(struct mode_results *r)
{
    if (r->be->kind) r->be->kind->results->wait(r);
}
