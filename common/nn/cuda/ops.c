/* The op table of the cuda backend; contracts are those of nn/ops.h. */
#include "nn/cuda/cudnn_attention.h"
#include "nn/cuda/device.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/nearest.h"
#include "nn/cuda/optim.h"
#include "nn/cuda/product_act.h"

static cudaStream_t stream_of(const struct mode_backend *be)
{
    return mode__cuda_of(be)->stream;
}

static float *data_of(const struct mode_tensor *t)
{
    return t ? mode_f32(t) : NULL;
}

static float *work_of(struct mode_backend *be, int64_t floats)
{
    return mode__backend_work(be, (size_t)floats * sizeof(float));
}

static bool is_bf16(const struct mode_backend *be)
{
    return be->ops->activations == MODE_DTYPE_BF16;
}

static void *at(const struct mode_tensor *t)
{
    return t ? t->data : NULL;
}

/* Lists are memory of mode_backend_share: the checks of nn/ops.c read the host copy, kernels the device copy. */
static const int32_t *list_of(const struct mode_backend *be, const struct mode_tensor *t)
{
    const int32_t *list = mode__cuda_shared(be, t->data);
    MODE_ASSERT(list || t->dim[0] == 0);
    return list;
}

static void launched(void)
{
    CUDA_OK(cudaGetLastError());
}

static void linear(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z, const struct mode_tensor *x,
                   const struct mode_tensor *w, const struct mode_tensor *b, const struct mode_tensor *add,
                   enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    bool half = is_bf16(be);
    const struct mode__product_act with_act = {.result = y->data,
                                               .z = at(z),
                                               .factor = x->data,
                                               .weight = w->data,
                                               .bias = at(b),
                                               .m = m,
                                               .n = n,
                                               .k = k,
                                               .act = act};
    const struct mode__product p = {.c = y->data,
                                    .a = x->data,
                                    .b = w->data,
                                    .b_transposed = true,
                                    .m = m,
                                    .n = n,
                                    .k = k,
                                    .add = at(add),
                                    .bias = at(b),
                                    .bf16 = half,
                                    .c_bf16 = half};
    MODE_ASSERT(!add || (!z && act == MODE_ACT_NONE));
    if (m == 0) return;
    if (z || act != MODE_ACT_NONE)
        mode__cuda_product_act(be, &with_act);
    else
        mode__cuda_product(be, &p);
    launched();
}

static void activate(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *z, enum mode_act act)
{
    if (z->dim[0] == 0) return;
    mode__cuda_epilogue(stream_of(be), is_bf16(be), y->data, z->data, z->dim[0], z->dim[1], NULL, (int)act);
    launched();
}

/* dw += a^T b in f32, summed over the rows of a and b */
static void add_weight_gradient(struct mode_backend *be, struct mode_tensor *dw, const struct mode_tensor *a,
                                const struct mode_tensor *b)
{
    const struct mode__product p = {.c = dw->data,
                                    .a = a->data,
                                    .a_transposed = true,
                                    .b = b->data,
                                    .m = a->dim[1],
                                    .n = b->dim[1],
                                    .k = a->dim[0],
                                    .add = dw->data,
                                    .bf16 = is_bf16(be)};
    mode__cuda_product(be, &p);
}

/* y [m, n] = x [m, k] op(w) */
static void times_weights(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                          const struct mode_tensor *w, bool transposed)
{
    const struct mode__product p = {.c = y->data,
                                    .a = x->data,
                                    .b = w->data,
                                    .b_transposed = transposed,
                                    .m = x->dim[0],
                                    .n = y->dim[1],
                                    .k = x->dim[1],
                                    .bf16 = is_bf16(be),
                                    .c_bf16 = is_bf16(be)};
    mode__cuda_product(be, &p);
}

static void linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw, struct mode_tensor *db,
                        const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w,
                        const struct mode_tensor *z, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    if (m == 0) return;
    mode__beside_begin(be);
    add_weight_gradient(be, dw, dy, x);
    if (db)
        mode__cuda_column_sums(stream_of(be), is_bf16(be), mode_f32(db), work_of(be, mode__cuda_sum_work(m, n)),
                               dy->data, m, n);
    mode__beside_end(be, dy, x);
    mode__cuda_writes(be, &dx, 1); /* dx may be x */
    if (dx && z)
        mode__cuda_product_act(be, &(struct mode__product_act){.result = dx->data,
                                                               .z = z->data,
                                                               .factor = dy->data,
                                                               .weight = w->data,
                                                               .m = m,
                                                               .n = k,
                                                               .k = n,
                                                               .act = act,
                                                               .back = true});
    else if (dx)
        times_weights(be, dx, dy, w, false);
    launched();
}

static void project(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                    const struct mode_tensor *w)
{
    if (x->dim[0] > 0) times_weights(be, y, x, w, false);
}

static void project_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                         const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w)
{
    if (x->dim[0] == 0) return;
    mode__beside_begin(be);
    add_weight_gradient(be, dw, x, dy);
    mode__beside_end(be, dy, x);
    times_weights(be, dx, dy, w, true);
}

static void layernorm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *stats,
                      const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b, float eps)
{
    MODE_ASSERT(x->dim[1] <= MODE__CUDA_NORM_MOST);
    if (x->dim[0] == 0) return;
    mode__cuda_layernorm(stream_of(be), is_bf16(be), y->data, data_of(stats), x->data, mode_f32(w), mode_f32(b),
                         x->dim[0], x->dim[1], eps);
    launched();
}

static void layernorm_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                           struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                           const struct mode_tensor *stats, const struct mode_tensor *w, const struct mode_tensor *add)
{
    int64_t m = x->dim[0], d = x->dim[1];
    MODE_ASSERT(d <= MODE__CUDA_NORM_MOST);
    if (m == 0) return;
    mode__cuda_layernorm_back(stream_of(be), is_bf16(be), dx->data, mode_f32(dw), mode_f32(db),
                              work_of(be, mode__cuda_norm_work(m, d)), dy->data, x->data, mode_f32(stats), mode_f32(w),
                              at(add), m, d);
    launched();
}

static struct mode__cuda_attention attention_of(const struct mode_backend *be, const struct mode_tensor *q,
                                                const struct mode_tensor *kv, const struct mode_attention *s)
{
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    int64_t n_seq = s->q_offsets->dim[0] - 1, longest = 1;
    bool one_query = true;
    for (int64_t b = 0; b < n_seq; b++) {
        int64_t nq = qo[b + 1] - qo[b], nk = ko[b + 1] - ko[b];
        longest = nq > longest ? nq : nk > longest ? nk : longest;
        one_query &= nq == 1;
    }
    MODE_ASSERT(s->width / s->heads <= 256 && (s->longest == 0 || longest <= s->longest));
    return (struct mode__cuda_attention){.q = q->data,
                                         .kv = kv->data,
                                         .lq = q->dim[1],
                                         .lk = kv->dim[1],
                                         .q_at = s->q_at,
                                         .k_at = s->k_at,
                                         .v_at = s->v_at,
                                         .heads = s->heads,
                                         .dh = s->width / s->heads,
                                         .rows_q = q->dim[0],
                                         .rows_k = kv->dim[0],
                                         .n_seq = n_seq,
                                         .q_offsets = list_of(be, s->q_offsets),
                                         .kv_offsets = list_of(be, s->kv_offsets),
                                         .longest = s->longest ? s->longest : longest,
                                         .one_query = one_query,
                                         .causal = s->causal,
                                         .bf16 = q->dtype == MODE_DTYPE_BF16};
}

static void attention(struct mode_backend *be, struct mode_tensor *out, struct mode_tensor *lse,
                      const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s)
{
    struct mode__cuda_attention a = attention_of(be, q, kv, s);
    if (a.rows_q == 0) return;
    mode__attention_by_best(be, out->data, data_of(lse), &a, s->longest);
}

static void attention_back(struct mode_backend *be, struct mode_tensor *dq, struct mode_tensor *dkv,
                           const struct mode_tensor *dout, const struct mode_tensor *out, const struct mode_tensor *lse,
                           const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s)
{
    struct mode__cuda_attention a = attention_of(be, q, kv, s);
    if (a.rows_q == 0) return;
    mode__attention_back_by_best(be, dq->data, dkv->data, dout->data, out->data, mode_f32(lse), &a, s->longest);
}

static void embed(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *table,
                  const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets)
{
    if (x->dim[0] == 0) return;
    mode__cuda_embed(stream_of(be), is_bf16(be), x->data, mode_f32(table), mode_f32(pos), list_of(be, ids),
                     list_of(be, offsets), x->dim[0], offsets->dim[0] - 1, x->dim[1]);
    launched();
}

static void embed_back(struct mode_backend *be, struct mode_tensor *dtable, struct mode_tensor *dpos,
                       const struct mode_tensor *dx, const struct mode_tensor *ids, const struct mode_tensor *offsets)
{
    if (dx->dim[0] == 0) return;
    mode__cuda_embed_back(stream_of(be), is_bf16(be), mode_f32(dtable), mode_f32(dpos),
                          mode__backend_work(be, mode__cuda_embed_work(dx->dim[0], dx->dim[1])), dx->data,
                          list_of(be, ids), list_of(be, offsets), dx->dim[0], offsets->dim[0] - 1, dpos->dim[0],
                          dx->dim[1]);
    launched();
}

/* In batches whose intermediate pictures fit in L2, each in a slot of the largest one's size. */
static void picture_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_pictures *pictures,
                            int64_t first, int64_t side, int64_t p)
{
    const int64_t each = side / p * (side / p), n = cols->dim[0] / each;
    const size_t picture = (size_t)(3 * side * side) * mode_dtype_size(cols->dtype);
    for (int64_t at = 0, next; at < n; at = next) {
        int64_t most = 0;
        for (next = at; next < n && next - at < MODE__CUDA_PIXELS_MOST; next++) {
            int64_t needs = (mode_pixels_between(&pictures->windows[first + next]) + 15) / 16 * 16;
            if (needs < most) needs = most;
            if (next > at && needs * (next - at + 1) > MODE_PIXELS_BETWEEN) break;
            most = needs;
        }
        uint8_t *between = mode__backend_work(be, (size_t)(most * (next - at)));
        mode__cuda_picture_patches(stream_of(be), is_bf16(be), (char *)cols->data + (size_t)at * picture, between, most,
                                   pictures, first + at, next - at, side, p);
    }
    launched();
}

static void patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_tensor *pixels, int64_t p)
{
    struct cudaPointerAttributes at;
    const float *from = mode_f32(pixels);
    if (pixels->dim[0] == 0) return;
    CUDA_OK(cudaPointerGetAttributes(&at, from));
    if (at.type == cudaMemoryTypeUnregistered || at.type == cudaMemoryTypeHost) { /* host memory, pinned or not */
        float *here = mode__backend_work(be, mode_tensor_bytes(pixels));
        CUDA_OK(cudaMemcpyAsync(here, from, mode_tensor_bytes(pixels), cudaMemcpyHostToDevice, stream_of(be)));
        from = here;
    }
    mode__cuda_patches(stream_of(be), is_bf16(be), cols->data, from, pixels->dim[0], pixels->dim[2], p);
    launched();
}

static void image_tokens(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *patch,
                         const struct mode_tensor *cls, const struct mode_tensor *pos, const struct mode_tensor *kept)
{
    const int64_t n = x->dim[0] - patch->dim[0];
    if (n == 0) return;
    mode__cuda_image_tokens(stream_of(be), is_bf16(be), x->data, patch->data, mode_f32(cls), mode_f32(pos),
                            kept ? list_of(be, kept) : NULL, n, x->dim[0] / n, pos->dim[0], x->dim[1]);
    launched();
}

static void image_tokens_back(struct mode_backend *be, struct mode_tensor *dpatch, struct mode_tensor *dcls,
                              struct mode_tensor *dpos, const struct mode_tensor *dx, const struct mode_tensor *kept)
{
    const int64_t n = dx->dim[0] - dpatch->dim[0];
    if (n == 0) return;
    mode__cuda_image_tokens_back(stream_of(be), is_bf16(be), dpatch->data, mode_f32(dcls), mode_f32(dpos), dx->data,
                                 kept ? list_of(be, kept) : NULL, n, dx->dim[0] / n, dpos->dim[0], dx->dim[1]);
    launched();
}

static void gather(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                   const struct mode_tensor *rows)
{
    if (rows->dim[0] == 0) return;
    mode__cuda_gather(stream_of(be), is_bf16(be), y->data, x->data, list_of(be, rows), rows->dim[0], x->dim[1]);
    launched();
}

static void scatter_add(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *y,
                        const struct mode_tensor *rows)
{
    if (rows->dim[0] == 0) return;
    mode__cuda_scatter_add(stream_of(be), is_bf16(be), x->data, y->data, list_of(be, rows), rows->dim[0], x->dim[1]);
    launched();
}

static void scale(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                  const struct mode_tensor *g, const struct mode_tensor *add)
{
    if (x->dim[0] == 0) return;
    mode__cuda_scale(stream_of(be), is_bf16(be), y->data, x->data, mode_f32(g), add->data, x->dim[0], x->dim[1]);
    launched();
}

static void scale_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dg,
                       const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *g)
{
    int64_t m = x->dim[0], d = x->dim[1];
    if (m == 0) return;
    mode__cuda_scale_back(stream_of(be), is_bf16(be), dx->data, mode_f32(dg), work_of(be, mode__cuda_sum_work(m, d)),
                          dy->data, x->data, mode_f32(g), m, d);
    launched();
}

static void mean_rows(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                      const struct mode_tensor *offsets, int64_t skip)
{
    if (y->dim[0] == 0) return;
    mode__cuda_mean_rows(stream_of(be), is_bf16(be), y->data, x->data, list_of(be, offsets), y->dim[0], x->dim[1],
                         skip);
    launched();
}

static void mean_rows_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                           const struct mode_tensor *offsets, int64_t skip)
{
    if (dy->dim[0] == 0) return;
    mode__cuda_mean_rows_back(stream_of(be), is_bf16(be), dx->data, dy->data, list_of(be, offsets), dy->dim[0],
                              dx->dim[1], skip);
    launched();
}

static void l2norm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *norm,
                   const struct mode_tensor *x)
{
    if (x->dim[0] == 0) return;
    mode__cuda_l2norm(stream_of(be), x->dtype == MODE_DTYPE_BF16, mode_f32(y), mode_f32(norm), x->data, x->dim[0],
                      x->dim[1]);
    launched();
}

static void l2norm_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                        const struct mode_tensor *y, const struct mode_tensor *norm)
{
    if (y->dim[0] == 0) return;
    mode__cuda_l2norm_back(stream_of(be), is_bf16(be), dx->data, mode_f32(dy), mode_f32(y), mode_f32(norm), y->dim[0],
                           y->dim[1]);
    launched();
}

static int64_t rows_at(const struct mode_tensor *work, const struct mode_tensor *a, int64_t i)
{
    int64_t left = a->dim[0] - i;
    return left < work->dim[0] ? left : work->dim[0];
}

static void contrastive(struct mode_backend *be, struct mode_tensor *row, struct mode_tensor *col,
                        struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                        const struct mode_tensor *logit_scale)
{
    int64_t m = a->dim[0], n = b->dim[0], e = a->dim[1], t = work->dim[0];
    for (int64_t i = 0; i < m; i += t) {
        mode__cuda_dots(be, mode_f32(work), mode_f32(a) + i * e, mode_f32(b), rows_at(work, a, i), n, e);
        mode__cuda_contrastive(stream_of(be), (double *)row->data + i, col->data, mode_f32(work), mode_f32(logit_scale),
                               rows_at(work, a, i), n, i > 0);
    }
    launched();
}

static void join_columns(struct mode_backend *be, struct mode_tensor *col, const struct mode_tensor *each)
{
    if (col->dim[0] == 0) return;
    mode__cuda_join_columns(stream_of(be), col->data, each->data, each->dim[0], col->dim[0]);
    launched();
}

static void contrastive_back(struct mode_backend *be, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                             struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                             const struct mode_tensor *b, const struct mode_tensor *logit_scale,
                             const struct mode_tensor *row, const struct mode_tensor *col, int64_t first)
{
    struct mode__cuda *c = mode__cuda_of(be);
    int64_t m = a->dim[0], n = b->dim[0], e = a->dim[1], t = work->dim[0];
    float *s = mode_f32(work);
    double *part = mode__backend_work(be, 2 * (size_t)m * sizeof *part), *slope = part + m;
    for (int64_t i = 0; i < m; i += t) {
        int64_t rows = rows_at(work, a, i);
        if (t < m) mode__cuda_dots(be, s, mode_f32(a) + i * e, mode_f32(b), rows, n, e);
        mode__cuda_contrastive_back(c->stream, s, part + i, slope + i, (const double *)row->data + i, col->data,
                                    mode_f32(logit_scale), rows, n, first + i);
        const struct mode__product by_a = {.c = mode_f32(da) + i * e, .a = s, .b = b->data, .m = rows, .n = e, .k = n};
        const struct mode__product by_b = {.c = db->data,
                                           .a = s,
                                           .a_transposed = true,
                                           .b = mode_f32(a) + i * e,
                                           .m = n,
                                           .n = e,
                                           .k = rows,
                                           .add = i > 0 ? db->data : NULL};
        mode__cuda_product(be, &by_a);
        mode__cuda_product(be, &by_b);
    }
    mode__cuda_contrastive_end(c->stream, loss, mode_f32(dlogit_scale), part, slope, m, n);
    launched();
}

static void zero(struct mode_backend *be, struct mode_tensor *x)
{
    CUDA_OK(cudaMemsetAsync(x->data, 0, mode_tensor_bytes(x), stream_of(be)));
}

#define OPS                                                                                                            \
    linear, linear_back, activate, project, project_back, layernorm, layernorm_back, attention, attention_back, embed, \
        embed_back, picture_patches, patches, image_tokens, image_tokens_back, gather, scatter_add, scale, scale_back, \
        mean_rows, mean_rows_back, l2norm, l2norm_back, contrastive, join_columns, contrastive_back,                   \
        mode__cuda_op_adamw, mode__cuda_op_grad_squares, mode__cuda_op_rounded, mode__cuda_op_clamp, zero,             \
        mode__cuda_op_nearest_rows, mode__cuda_op_costs, mode__cuda_op_group_rows, mode__cuda_op_group_means

const struct mode_ops mode__cuda_ops = {"cuda", MODE_DTYPE_F32, OPS},
                      mode__cuda_tf32_ops = {"cuda-tf32", MODE_DTYPE_F32, OPS},
                      mode__cuda_bf16_ops = {"cuda-bf16", MODE_DTYPE_BF16, OPS},
                      mode__cuda_fp8_ops = {"cuda-fp8", MODE_DTYPE_BF16, OPS};
