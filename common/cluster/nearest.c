#include "cluster/nearest.h"

#include "base/str.h"
#include "nn/ops.h"

#include <stdlib.h>

/* Scratch for the dot products of a batch of rows: with the rows themselves (three quarters as many values at k = 1024
 * and d = 768) and their fp16 copy it should stay in a GPU's L2 cache (50 MB). */
enum { WORK_BYTES = 16 << 20, MIN_ROWS = 128 };

struct mode_nearest {
    struct mode_backend *be, *own; /* own: NULL if be is the caller's */
    struct mode_tensor x, ready;   /* ready.data: NULL without mode_nearest_ready */
    void *work;
    int64_t work_floats;
};

static enum mode_status open_for(struct mode_nearest **out, struct mode_backend *be, const float *x, int64_t n, int d,
                                 int k, bool again, struct mode_error *err)
{
    struct mode_nearest *a = *out = mode_xcalloc(1, sizeof *a);
    enum mode_status st = be ? MODE_OK : mode_backend_open(&a->own, "cpu", err);
    int64_t rows = WORK_BYTES / (int64_t)sizeof(float) / k / MIN_ROWS * MIN_ROWS;
    if (rows < MIN_ROWS) rows = MIN_ROWS;
    if (rows > n) rows = n;
    a->be = be ? be : a->own;
    a->x = mode_tensor_2d((void *)(uintptr_t)x, MODE_DTYPE_F32, n, d);
    a->work_floats = rows * k;
    if (!st && n > 0) st = mode_backend_alloc(a->be, &a->work, (size_t)a->work_floats * sizeof(float), err);
    if (st) {
        mode_nearest_close(out);
        return st;
    }
    const size_t bytes = again ? mode_nearest_ready_bytes(a->be, n, d) : 0;
    void *room = NULL;
    if (bytes > 0 && !mode_backend_alloc(a->be, &room, bytes, NULL)) {
        a->ready = mode_tensor_1d(room, MODE_DTYPE_U8, (int64_t)bytes);
        mode_nearest_ready(a->be, &a->ready, &a->x);
    }
    return MODE_OK;
}

enum mode_status mode_nearest_open(struct mode_nearest **a, struct mode_backend *be, const float *x, int64_t n, int d,
                                   int k, struct mode_error *err)
{
    return open_for(a, be, x, n, d, k, true, err);
}

void mode_nearest_again(struct mode_nearest *a, int32_t *id, float *distance, enum mode_metric metric, const float *c,
                        int k)
{
    const int64_t n = a->x.dim[0], d = a->x.dim[1];
    if (n == 0) return;
    MODE_ASSERT(k >= 1 && k <= a->work_floats);
    int64_t rows = a->work_floats / k < n ? a->work_floats / k : n;
    struct mode_tensor ids = mode_tensor_1d(id, MODE_DTYPE_I32, n),
                       distances = mode_tensor_1d(distance, MODE_DTYPE_F32, n),
                       work = mode_tensor_2d(a->work, MODE_DTYPE_F32, rows, k),
                       centres = mode_tensor_2d((void *)(uintptr_t)c, MODE_DTYPE_F32, k, d);
    mode_nearest_rows(a->be, &ids, distance ? &distances : NULL, &work, &a->x, a->ready.data ? &a->ready : NULL,
                      &centres, metric == MODE_METRIC_COSINE);
    mode_backend_sync(a->be);
}

void mode_nearest_close(struct mode_nearest **a)
{
    if (!*a) return;
    if ((*a)->be) {
        mode_backend_free((*a)->be, (*a)->ready.data);
        mode_backend_free((*a)->be, (*a)->work);
    }
    mode_backend_close(&(*a)->own);
    free(*a);
    *a = NULL;
}

enum mode_status mode_nearest(struct mode_backend *be, int32_t *id, float *distance, enum mode_metric metric,
                              const float *x, int64_t n, const float *c, int k, int d, struct mode_error *err)
{
    struct mode_nearest *a;
    enum mode_status st = open_for(&a, be, x, n, d, k, false, err);
    if (!st) mode_nearest_again(a, id, distance, metric, c, k);
    mode_nearest_close(&a);
    return st;
}
