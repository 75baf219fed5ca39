#include "cluster/nearest.h"

#include "nn/ops.h"

/* Of products at a time: with their rows, which are three quarters as many numbers at a width of 768, and those in
 * fp16, they are to stay in a GPU's second cache (50 MB). */
enum { WORK_BYTES = 16 << 20, MIN_ROWS = 128 };

enum mode_status mode_nearest(struct mode_backend *be, int32_t *id, float *distance, enum mode_metric metric,
                              const float *x, int64_t n, const float *c, int k, int d, struct mode_error *err)
{
    struct mode_backend *own = NULL;
    void *scratch = NULL;
    int64_t rows = WORK_BYTES / (int64_t)sizeof(float) / k / MIN_ROWS * MIN_ROWS;
    if (rows < MIN_ROWS) rows = MIN_ROWS;
    if (rows > n) rows = n;
    if (n == 0) return MODE_OK;
    enum mode_status st = be ? MODE_OK : mode_backend_open(&own, "cpu", err);
    if (st) return st;
    if (!be) be = own;
    if (!(st = mode_backend_alloc(be, &scratch, (size_t)rows * (size_t)k * sizeof(float), err))) {
        struct mode_tensor ids = mode_tensor_1d(id, MODE_DTYPE_I32, n),
                           distances = mode_tensor_1d(distance, MODE_DTYPE_F32, n),
                           work = mode_tensor_2d(scratch, MODE_DTYPE_F32, rows, k),
                           points = mode_tensor_2d((void *)(uintptr_t)x, MODE_DTYPE_F32, n, d),
                           centres = mode_tensor_2d((void *)(uintptr_t)c, MODE_DTYPE_F32, k, d);
        mode_nearest_rows(be, &ids, distance ? &distances : NULL, &work, &points, &centres,
                          metric == MODE_METRIC_COSINE);
        mode_backend_sync(be);
    }
    mode_backend_free(be, scratch);
    mode_backend_close(&own);
    return st;
}
