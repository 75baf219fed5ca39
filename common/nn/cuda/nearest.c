/* Clustering on host or device tensors: rows are copied in, some at a time, and results copied out. */
#include "nn/cuda/nearest.h"

#include "nn/cuda/device.h"
#include "nn/cuda/kernels.h"

enum { COST_BYTES = 32 << 20, MIN_ROWS = 128 }; /* bytes of costs at a time, where they go to the host */

static bool on_device(const void *p)
{
    struct cudaPointerAttributes at;
    CUDA_OK(cudaPointerGetAttributes(&at, p));
    return at.type == cudaMemoryTypeDevice;
}

/* p itself if it is device memory, else a copy of it in `scratch`. */
static const void *to_device(struct mode_backend *be, const void *p, void *scratch, size_t bytes)
{
    if (on_device(p)) return p;
    CUDA_OK(cudaMemcpyAsync(scratch, p, bytes, cudaMemcpyHostToDevice, mode__cuda_of(be)->stream));
    return scratch;
}

static void to_host(struct mode_backend *be, void *p, const void *scratch, size_t bytes)
{
    if (p != scratch) CUDA_OK(cudaMemcpyAsync(p, scratch, bytes, cudaMemcpyDeviceToHost, mode__cuda_of(be)->stream));
}

/* A bump allocator, aligned to 64 bytes: a first pass with base NULL counts the bytes. */
struct arena {
    char *base;
    size_t used;
};

static void *arena_alloc(struct arena *r, size_t bytes)
{
    void *p = r->base ? r->base + r->used : NULL;
    r->used += (bytes + 63) / 64 * 64;
    return p;
}

struct scratch {
    float *x, *c, *x_sq, *c_sq, *out, *distance, *largest;
    int32_t *id, *candidates;
    void *x_half, *c_half;
    struct mode__cuda_halved *x_of, *c_of;
    struct mode__cuda_centres centres;
};

enum use { FOR_COSTS, BY_PRODUCTS, BY_TILES };

/* rows: at a time. is_ready: their halves are given. */
static struct scratch scratch_of(struct mode_backend *be, int64_t rows, int64_t k, int64_t d, enum use use,
                                 bool is_ready)
{
    struct arena r = {0};
    struct scratch a = {0};
    const bool tiles = use == BY_TILES;
    const size_t padded = (size_t)(k + MODE__CUDA_CENTRE_PADDING) * sizeof(float);
    for (int pass = 0; pass < 2; pass++) {
        a.x = arena_alloc(&r, (size_t)(rows * d) * sizeof *a.x);
        a.c = arena_alloc(&r, (size_t)(k * d) * sizeof *a.c);
        if (use == FOR_COSTS) {
            a.x_sq = arena_alloc(&r, (size_t)rows * sizeof *a.x_sq);
            a.c_sq = arena_alloc(&r, (size_t)k * sizeof *a.c_sq);
            a.out = arena_alloc(&r, (size_t)(rows * k) * sizeof *a.out);
        } else {
            a.id = arena_alloc(&r, (size_t)rows * sizeof *a.id);
            a.distance = arena_alloc(&r, (size_t)rows * sizeof *a.distance);
            a.candidates = arena_alloc(&r, tiles ? (size_t)rows * MODE__CUDA_CANDIDATES * sizeof *a.candidates : 0);
            a.x_half = arena_alloc(&r, is_ready ? 0 : mode__cuda_halves_bytes(rows, d, tiles));
            a.x_of = arena_alloc(&r, is_ready ? 0 : (size_t)rows * sizeof *a.x_of);
            a.c_half = arena_alloc(&r, mode__cuda_halves_bytes(k, d, tiles));
            a.c_of = arena_alloc(&r, (size_t)k * sizeof *a.c_of);
            a.largest = arena_alloc(&r, MODE__CUDA_PARTS * sizeof *a.largest);
            a.centres.plus = arena_alloc(&r, padded);
            a.centres.most = arena_alloc(&r, 3 * sizeof *a.centres.most);
        }
        if (pass == 0) r = (struct arena){mode__backend_work(be, r.used), 0};
    }
    return a;
}

/* Rows per launch of the tile kernel: several per cluster, so that the tail is short. */
static int64_t tile_rows(bool is_ready)
{
    return (mode__cuda_multiprocessors() + 1) / 2 * (int64_t)MODE__CUDA_ROW_PADDING * (is_ready ? 8 : 2);
}

/* Layout of ready rows: struct mode__cuda_halved of each, then the halves. */
static size_t ready_head(int64_t n)
{
    return ((size_t)n * sizeof(struct mode__cuda_halved) + 1023) / 1024 * 1024;
}

size_t mode__cuda_nearest_ready_bytes(struct mode_backend *be, int64_t n, int64_t d)
{
    return n == 0 ? 0 : ready_head(n) + mode__cuda_halves_bytes(n, d, mode__cuda_nearest_by_tiles(be, n));
}

static void *ready_halves(const struct mode_tensor *ready, int64_t n, int64_t first, int64_t d, bool tiles)
{
    return (char *)ready->data + ready_head(n) + (size_t)(first * mode__cuda_halves_width(d, tiles)) * 2;
}

void mode__cuda_nearest_ready(struct mode_backend *be, struct mode_tensor *ready, const struct mode_tensor *x)
{
    const int64_t n = x->dim[0], d = x->dim[1], most = tile_rows(true);
    const bool here = on_device(x->data), tiles = mode__cuda_nearest_by_tiles(be, n);
    const int64_t w = here || n < most ? n : most;
    float *scratch = here ? NULL : mode__backend_work(be, (size_t)(w * d) * sizeof *scratch);
    for (int64_t i = 0; i < n; i += w) {
        const int64_t rows = w < n - i ? w : n - i;
        mode__cuda_halves(
            mode__cuda_of(be)->stream, ready_halves(ready, n, i, d, tiles), (struct mode__cuda_halved *)ready->data + i,
            to_device(be, mode_f32(x) + i * d, scratch, (size_t)(rows * d) * sizeof *scratch), rows, d, NULL, tiles);
    }
    CUDA_OK(cudaGetLastError());
}

/* fp16 on every cuda backend: what fp16 cannot decide is decided in double, so only the speed depends on it
 * (docs/decisions/0025-nearest-centres-on-gpus.md). By tiles (nearest_hopper.cu) ranks never leave registers; else
 * cuBLASLt computes dot products w rows at a time, and w (nn/ops.h) should be chosen so that these, the rows' halves
 * and the rows compared exactly stay in L2. */
void mode__cuda_op_nearest_rows(struct mode_backend *be, struct mode_tensor *id, struct mode_tensor *distance,
                                struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                                const struct mode_tensor *c, bool cosine)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    const int64_t n = x->dim[0], d = x->dim[1], k = c->dim[0];
    if (n == 0) return;
    const bool tiles = mode__cuda_nearest_by_tiles(be, n);
    const int64_t most = tiles ? tile_rows(ready) : work->dim[0], w = most < n ? most : n;
    MODE_ASSERT(!ready || mode_tensor_bytes(ready) == mode__cuda_nearest_ready_bytes(be, n, d));
    struct scratch r = scratch_of(be, w, k, d, tiles ? BY_TILES : BY_PRODUCTS, ready);
    bool id_here = on_device(id->data), distance_here = distance && on_device(distance->data);
    struct mode__cuda_nearest a = {.dot = mode_f32(work), .centres = r.centres, .k = k, .d = d, .cosine = cosine};
    struct mode__cuda_tiles t = {
        .c = r.c_half, .centres = r.centres, .k = k, .d = d, .cosine = cosine, .spin_limit = -1};
    struct mode__product dots = {.c = mode_f32(work),
                                 .b = r.c_half,
                                 .b_transposed = true,
                                 .n = k,
                                 .k = mode__cuda_halves_width(d, false),
                                 .f16 = true};
    a.c = to_device(be, c->data, r.c, (size_t)(k * d) * sizeof(float));
    mode__cuda_largest(stream, r.largest, a.c, k * d);
    mode__cuda_halves(stream, r.c_half, r.c_of, a.c, k, d, r.largest, tiles);
    mode__cuda_halved_centres(stream, &r.centres, r.c_of, a.c, k, d, cosine);
    for (int64_t i = 0; i < n; i += w) {
        int32_t *to_id = (int32_t *)id->data + i, *ids = id_here ? to_id : r.id;
        float *to = distance ? mode_f32(distance) + i : NULL, *distances = distance_here || !to ? to : r.distance;
        a.n = t.n = dots.m = w < n - i ? w : n - i;
        a.x = to_device(be, mode_f32(x) + i * d, r.x, (size_t)(a.n * d) * sizeof(float));
        a.x_of = t.x_of = ready ? (struct mode__cuda_halved *)ready->data + i : r.x_of;
        dots.a = t.x = ready ? ready_halves(ready, n, i, d, tiles) : r.x_half;
        if (!ready) mode__cuda_halves(stream, r.x_half, r.x_of, a.x, a.n, d, NULL, tiles);
        if (tiles) {
            CUDA_OK(mode__cuda_nearest_tiles(stream, ids, r.candidates, &t, 0));
            mode__cuda_measured(stream, ids, distances, r.candidates, &a);
        } else {
            mode__cuda_product(be, &dots);
            mode__cuda_nearest(stream, ids, distances, &a);
        }
        CUDA_OK(cudaGetLastError());
        to_host(be, to_id, ids, (size_t)a.n * sizeof *ids);
        if (to) to_host(be, to, distances, (size_t)a.n * sizeof *to);
    }
}

void mode__cuda_op_costs(struct mode_backend *be, struct mode_tensor *cost, const struct mode_tensor *x,
                         const struct mode_tensor *c, bool cosine)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    int64_t n = x->dim[0], d = x->dim[1], k = c->dim[0], w = COST_BYTES / (int64_t)sizeof(float) / k;
    if (n == 0) return;
    bool here = on_device(cost->data);
    w = w < MIN_ROWS ? MIN_ROWS : w / MIN_ROWS * MIN_ROWS;
    w = w < n ? w : n;
    struct scratch r = scratch_of(be, w, k, d, FOR_COSTS, false);
    const float *centres = to_device(be, c->data, r.c, (size_t)(k * d) * sizeof(float));
    if (!cosine) mode__cuda_row_squares(stream, r.c_sq, centres, k, d);
    for (int64_t i = 0; i < n; i += w) {
        int64_t rows = w < n - i ? w : n - i;
        float *to = mode_f32(cost) + i * k, *out = here ? to : r.out;
        const float *points = to_device(be, mode_f32(x) + i * d, r.x, (size_t)(rows * d) * sizeof(float));
        if (!cosine) mode__cuda_row_squares(stream, r.x_sq, points, rows, d);
        mode__cuda_dots(be, out, points, centres, rows, k, d);
        mode__cuda_costs(stream, out, cosine ? NULL : r.x_sq, cosine ? NULL : r.c_sq, rows, k);
        CUDA_OK(cudaGetLastError());
        to_host(be, to, out, (size_t)(rows * k) * sizeof *to);
    }
}

void mode__cuda_op_group_rows(struct mode_backend *be, struct mode_tensor *first, struct mode_tensor *members,
                              const struct mode_tensor *id)
{
    int64_t n = id->dim[0], k = first->dim[0] - 1;
    size_t first_bytes = mode_tensor_bytes(first), member_bytes = mode_tensor_bytes(members);
    struct arena r = {0};
    void *keys = NULL;
    int32_t *first_scratch = NULL, *member_scratch = NULL, *id_scratch = NULL;
    for (int pass = 0; pass < 2; pass++) {
        keys = arena_alloc(&r, mode__cuda_group_bytes(n, k));
        first_scratch = arena_alloc(&r, first_bytes);
        member_scratch = arena_alloc(&r, member_bytes);
        id_scratch = arena_alloc(&r, member_bytes);
        if (pass == 0) r = (struct arena){mode__backend_work(be, r.used), 0};
    }
    int32_t *starts = on_device(first->data) ? first->data : first_scratch,
            *order = on_device(members->data) ? members->data : member_scratch;
    mode__cuda_group_rows(mode__cuda_of(be)->stream, starts, order, keys,
                          to_device(be, id->data, id_scratch, member_bytes), n, k);
    CUDA_OK(cudaGetLastError());
    to_host(be, first->data, starts, first_bytes);
    to_host(be, members->data, order, member_bytes);
}

_Static_assert((int)MODE__CUDA_PIECE_ROWS == (int)MODE__PIECE_ROWS, "pieces are those of nn/exact.c");

void mode__cuda_op_group_means(struct mode_backend *be, struct mode_tensor *means, const struct mode_tensor *x,
                               const struct mode_tensor *first, const struct mode_tensor *members, bool unit)
{
    int64_t groups = means->dim[0], n = members->dim[0], d = x->dim[1];
    size_t x_bytes = on_device(x->data) ? 0 : mode_tensor_bytes(x), mean_bytes = mode_tensor_bytes(means);
    struct arena r = {0};
    float *x_scratch = NULL, *mean_scratch = NULL;
    int32_t *first_scratch = NULL, *member_scratch = NULL;
    double *sum = NULL;
    if (groups == 0) return;
    for (int pass = 0; pass < 2; pass++) {
        sum = arena_alloc(&r, (size_t)(mode__cuda_mean_places(groups, n) * d) * sizeof *sum);
        mean_scratch = arena_alloc(&r, mean_bytes);
        first_scratch = arena_alloc(&r, (size_t)(groups + 1) * sizeof *first_scratch);
        member_scratch = arena_alloc(&r, (size_t)n * sizeof *member_scratch);
        x_scratch = arena_alloc(&r, x_bytes);
        if (pass == 0) r = (struct arena){mode__backend_work(be, r.used), 0};
    }
    const float *rows = to_device(be, x->data, x_scratch, x_bytes);
    const int32_t *starts = to_device(be, first->data, first_scratch, mode_tensor_bytes(first)),
                  *order = to_device(be, members->data, member_scratch, mode_tensor_bytes(members));
    float *out = on_device(means->data) ? mode_f32(means) : mean_scratch;
    if (out == mean_scratch)
        (void)to_device(be, means->data, mean_scratch, mean_bytes); /* empty groups keep their old mean */
    mode__cuda_group_means(mode__cuda_of(be)->stream, out, sum, rows, starts, order, groups, n, d, unit);
    CUDA_OK(cudaGetLastError());
    to_host(be, means->data, out, mean_bytes);
}
