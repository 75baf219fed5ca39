/* Argument checks, once for all backends: a broken contract is a bug of the caller. */
#include "nn/ops.h"

#include "base/clock.h"
#include "base/error.h"
#include "nn/backend_impl.h"

#include <math.h>

/* f(x), f(y), ... of up to 11 arguments */
#define EACH_1(f, x)                                        f(x)
#define EACH_2(f, x, ...)                                   f(x), EACH_1(f, __VA_ARGS__)
#define EACH_3(f, x, ...)                                   f(x), EACH_2(f, __VA_ARGS__)
#define EACH_4(f, x, ...)                                   f(x), EACH_3(f, __VA_ARGS__)
#define EACH_5(f, x, ...)                                   f(x), EACH_4(f, __VA_ARGS__)
#define EACH_6(f, x, ...)                                   f(x), EACH_5(f, __VA_ARGS__)
#define EACH_7(f, x, ...)                                   f(x), EACH_6(f, __VA_ARGS__)
#define EACH_8(f, x, ...)                                   f(x), EACH_7(f, __VA_ARGS__)
#define EACH_9(f, x, ...)                                   f(x), EACH_8(f, __VA_ARGS__)
#define EACH_10(f, x, ...)                                  f(x), EACH_9(f, __VA_ARGS__)
#define EACH_11(f, x, ...)                                  f(x), EACH_10(f, __VA_ARGS__)
#define EACH_OF(a, b, c, d, e, f, g, h, i, j, k, each, ...) each
#define EACH(f, ...)                                                                                                   \
    EACH_OF(__VA_ARGS__, EACH_11, EACH_10, EACH_9, EACH_8, EACH_7, EACH_6, EACH_5, EACH_4, EACH_3, EACH_2, EACH_1, 0)  \
    (f, __VA_ARGS__)

/* An op writes its non-const tensor arguments and reads the const ones. */
#define WRITTEN(x) _Generic((x), struct mode_tensor * : (x), default : NULL)
#define READ(x)    _Generic((x), const struct mode_tensor * : (x), default : NULL)
#define TENSOR(x)  _Generic((x), struct mode_tensor * : (x), const struct mode_tensor * : (x), default : NULL)

/* Call an op through the table; when profiling, record its time, nominal FLOPs and minimal memory traffic (each of its
 * tensors once). */
#define CALL(op, n_flops, ...)                                                                                         \
    CALL_MOVING(op, n_flops, bytes_of(EACH_AS(TENSOR, const struct mode_tensor *, __VA_ARGS__)), __VA_ARGS__)
#define EACH_AS(f, type, ...)                                                                                          \
    (type const[]){EACH(f, __VA_ARGS__)}, (int)(sizeof((type const[]){EACH(f, __VA_ARGS__)}) / sizeof(type))

/* The same for ops that touch only parts of a tensor, or memory that is not in a tensor. */
#define CALL_MOVING(op, n_flops, n_bytes, ...)                                                                         \
    do {                                                                                                               \
        double t0_ = be->profile ? clock_begin(be, MODE__OP_##op) : 0;                                                 \
        if (be->kind) {                                                                                                \
            struct mode_tensor *const written_[] = {EACH(WRITTEN, __VA_ARGS__)};                                       \
            const struct mode_tensor *const read_[] = {EACH(READ, __VA_ARGS__)};                                       \
            be->kind->uses(be, written_, read_, (int)(sizeof written_ / sizeof *written_));                            \
        }                                                                                                              \
        be->ops->op(be, __VA_ARGS__);                                                                                  \
        if (be->profile) note(be, MODE__OP_##op, t0_, (double)(n_flops), (double)(n_bytes));                           \
    } while (0)

/* Ops are timed by the device's events, on the host by its clock. */
static double clock_begin(struct mode_backend *be, enum mode__op op)
{
    if (!be->kind) return mode_clock_s();
    be->kind->clock_begin(be, op);
    return 0;
}

static void note(struct mode_backend *be, enum mode__op op, double since, double flops, double bytes)
{
    if (be->kind)
        be->kind->clock_end(be);
    else
        be->time[op].seconds += mode_clock_s() - since;
    be->time[op].flops += flops;
    be->time[op].bytes += bytes;
    be->time[op].calls++;
}

static double bytes_of(const struct mode_tensor *const *t, int n)
{
    double bytes = 0;
    for (int i = 0; i < n; i++)
        if (t[i]) bytes += (double)mode_tensor_bytes(t[i]);
    return bytes;
}

static bool is_f32(const struct mode_tensor *t, int n_dims)
{
    return t->dtype == MODE_DTYPE_F32 && t->n_dims == n_dims && t->data;
}

static bool is_matrix(const struct mode_tensor *t, int64_t rows, int64_t cols)
{
    return is_f32(t, 2) && t->dim[0] == rows && t->dim[1] == cols;
}

static bool is_vector(const struct mode_tensor *t, int64_t n)
{
    return is_f32(t, 1) && t->dim[0] == n;
}

/* Of the backend's activation type. */
static bool is_act(const struct mode_backend *be, const struct mode_tensor *t, int n_dims)
{
    return t->dtype == be->ops->activations && t->n_dims == n_dims && t->data;
}

static bool is_rows(const struct mode_backend *be, const struct mode_tensor *t, int64_t rows, int64_t cols)
{
    return is_act(be, t, 2) && t->dim[0] == rows && t->dim[1] == cols;
}

static bool is_index(const struct mode_tensor *t, int64_t n)
{
    return t->dtype == MODE_DTYPE_I32 && t->n_dims == 1 && t->dim[0] == n && t->data;
}

static void linear(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z, const struct mode_tensor *x,
                   const struct mode_tensor *w, const struct mode_tensor *b, const struct mode_tensor *add,
                   enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, w, n, k) && is_rows(be, y, m, n));
    MODE_ASSERT(!b || (is_act(be, b, 1) && b->dim[0] == n));
    MODE_ASSERT(!z || (is_rows(be, z, m, n) && z->data != y->data));
    MODE_ASSERT(!add || is_rows(be, add, m, n));
    MODE_ASSERT(y->data != x->data);
    CALL(linear, 2.0 * (double)m * (double)n * (double)k, y, z, x, w, b, add, act);
}

void mode_linear(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                 const struct mode_tensor *w, const struct mode_tensor *b)
{
    linear(be, y, NULL, x, w, b, NULL, MODE_ACT_NONE);
}

void mode_linear_act(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z, const struct mode_tensor *x,
                     const struct mode_tensor *w, const struct mode_tensor *b, enum mode_act act)
{
    linear(be, y, z, x, w, b, NULL, act);
}

void mode_activate(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *z, enum mode_act act)
{
    int64_t m = z->dim[0], n = z->dim[1];
    MODE_ASSERT(is_act(be, z, 2) && is_rows(be, y, m, n) && y->data != z->data);
    CALL(activate, mode_tensor_count(z), y, z, act);
}

void mode_linear_add(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                     const struct mode_tensor *w, const struct mode_tensor *b, const struct mode_tensor *add)
{
    linear(be, y, NULL, x, w, b, add, MODE_ACT_NONE);
}

void mode_linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw, struct mode_tensor *db,
                      const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w)
{
    mode_linear_back_act(be, dx, dw, db, dy, x, w, NULL, MODE_ACT_NONE);
}

void mode_linear_back_act(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                          struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                          const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, w, n, k) && is_rows(be, dy, m, n) && is_matrix(dw, n, k));
    MODE_ASSERT(!dx || is_rows(be, dx, m, k));
    MODE_ASSERT(!db || is_vector(db, n));
    MODE_ASSERT(z ? is_rows(be, z, m, k) && act != MODE_ACT_NONE : act == MODE_ACT_NONE);
    MODE_ASSERT(!z || !dx || dx->data != z->data);
    CALL(linear_back, (dx ? 4.0 : 2.0) * (double)m * (double)n * (double)k, dx, dw, db, dy, x, w, z, act);
}

void mode_project(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                  const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, w, k, n) && is_rows(be, y, m, n) && y->data != x->data);
    CALL(project, 2.0 * (double)m * (double)n * (double)k, y, x, w);
}

void mode_project_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                       const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, w, k, n) && is_rows(be, dy, m, n) && is_matrix(dw, k, n));
    MODE_ASSERT(is_rows(be, dx, m, k));
    CALL(project_back, 4.0 * (double)m * (double)n * (double)k, dx, dw, dy, x, w);
}

void mode_layernorm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *stats,
                    const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b, float eps)
{
    int64_t m = x->dim[0], d = x->dim[1];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, y, m, d) && is_vector(w, d) && is_vector(b, d));
    MODE_ASSERT(!stats || is_matrix(stats, m, 2));
    CALL(layernorm, 8.0 * (double)m * (double)d, y, stats, x, w, b, eps);
}

void mode_layernorm_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                         struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                         const struct mode_tensor *stats, const struct mode_tensor *w, const struct mode_tensor *add)
{
    int64_t m = x->dim[0], d = x->dim[1];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, dx, m, d) && is_rows(be, dy, m, d) && is_matrix(stats, m, 2));
    MODE_ASSERT(is_vector(w, d) && is_vector(dw, d) && is_vector(db, d));
    MODE_ASSERT(!add || is_rows(be, add, m, d));
    CALL(layernorm_back, 16.0 * (double)m * (double)d, dx, dw, db, dy, x, stats, w, add);
}

/* Shapes and offsets agree; returns the FLOPs of q k^T. */
static double check_attention(const struct mode_backend *be, const struct mode_tensor *q, const struct mode_tensor *kv,
                              const struct mode_attention *s)
{
    int64_t b = s->q_offsets->dim[0] - 1;
    MODE_ASSERT(is_act(be, q, 2) && is_act(be, kv, 2) && b >= 0 && s->heads > 0 && s->width % s->heads == 0);
    MODE_ASSERT(s->q_at + s->width <= q->dim[1] && s->k_at + s->width <= kv->dim[1] &&
                s->v_at + s->width <= kv->dim[1]);
    MODE_ASSERT(is_index(s->q_offsets, b + 1) && is_index(s->kv_offsets, b + 1));
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    double products = 0;
    MODE_ASSERT(qo[0] == 0 && ko[0] == 0 && qo[b] == q->dim[0] && ko[b] == kv->dim[0]);
    for (int64_t i = 0; i < b; i++) {
        MODE_ASSERT(qo[i] <= qo[i + 1] && ko[i] < ko[i + 1]);
        MODE_ASSERT(!s->causal || (qo[i] == ko[i] && qo[i + 1] == ko[i + 1]));
        products += (double)(qo[i + 1] - qo[i]) * (double)(ko[i + 1] - ko[i]);
    }
    return 2.0 * products * (double)s->width;
}

void mode_attention(struct mode_backend *be, struct mode_tensor *out, struct mode_tensor *lse,
                    const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s)
{
    double flops = check_attention(be, q, kv, s);
    MODE_ASSERT(is_rows(be, out, q->dim[0], s->width));
    MODE_ASSERT(!lse || is_matrix(lse, q->dim[0], s->heads));
    CALL(attention, 2.0 * flops, out, lse, q, kv, s);
}

void mode_attention_back(struct mode_backend *be, struct mode_tensor *dq, struct mode_tensor *dkv,
                         const struct mode_tensor *dout, const struct mode_tensor *out, const struct mode_tensor *lse,
                         const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s)
{
    double flops = check_attention(be, q, kv, s);
    MODE_ASSERT(is_rows(be, out, q->dim[0], s->width) && is_rows(be, dout, q->dim[0], s->width));
    MODE_ASSERT(is_matrix(lse, q->dim[0], s->heads));
    MODE_ASSERT(is_rows(be, dq, q->dim[0], q->dim[1]) && is_rows(be, dkv, kv->dim[0], kv->dim[1]));
    CALL(attention_back, 5.0 * flops, dq, dkv, dout, out, lse, q, kv, s);
}

static void check_embed(const struct mode_backend *be, const struct mode_tensor *x, const struct mode_tensor *table,
                        const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets)
{
    int64_t r = x->dim[0], d = x->dim[1], b = offsets->dim[0] - 1;
    MODE_ASSERT(is_act(be, x, 2) && is_f32(table, 2) && is_f32(pos, 2) && table->dim[1] == d && pos->dim[1] == d);
    MODE_ASSERT(is_index(ids, r) && is_index(offsets, b + 1));
    const int32_t *id = ids->data, *o = offsets->data;
    MODE_ASSERT(o[0] == 0 && o[b] == r);
    for (int64_t i = 0; i < b; i++) MODE_ASSERT(o[i] <= o[i + 1] && o[i + 1] - o[i] <= pos->dim[0]);
    for (int64_t i = 0; i < r; i++) MODE_ASSERT(id[i] >= 0 && id[i] < table->dim[0]);
}

void mode_embed(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *table,
                const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets)
{
    check_embed(be, x, table, pos, ids, offsets);
    CALL_MOVING(embed, mode_tensor_count(x), mode_tensor_bytes(x) + sizeof(float) * (size_t)mode_tensor_count(x), x,
                table, pos, ids, offsets);
}

void mode_embed_back(struct mode_backend *be, struct mode_tensor *dtable, struct mode_tensor *dpos,
                     const struct mode_tensor *dx, const struct mode_tensor *ids, const struct mode_tensor *offsets)
{
    check_embed(be, dx, dtable, dpos, ids, offsets);
    CALL_MOVING(embed_back, 2 * mode_tensor_count(dx), mode_tensor_bytes(dx), dtable, dpos, dx, ids, offsets);
}

/* Checks a window of the table, as far as possible without reading the bytes. */
static bool is_window(const struct mode_pixels_window *w, int64_t bytes, int64_t side)
{
    const int64_t across = (int64_t)mode_pixels_taps_bytes(w->n_x, w->across_most),
                  down = (int64_t)mode_pixels_taps_bytes(w->n_y, w->down_most);
    return w->width > 0 && w->height > 0 && w->across_most > 0 && w->down_most > 0 && w->n_x > 0 && w->n_y > 0 &&
           w->x >= 0 && w->y >= 0 && w->x <= side - w->n_x && w->y <= side - w->n_y && w->rgb >= 0 && w->across >= 0 &&
           w->down >= 0 && w->across % 4 == 0 && w->down % 4 == 0 && w->across + across <= bytes &&
           w->down + down <= bytes && w->rgb + (int64_t)w->width * w->height * 3 <= bytes &&
           mode_pixels_between(w) <= INT32_MAX;
}

void mode_picture_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_pictures *pictures,
                          int64_t first, int64_t side, int64_t p)
{
    MODE_ASSERT(p > 0 && side > 0 && side % p == 0);
    const int64_t each = side / p * (side / p), b = cols->dim[0] / each;
    MODE_ASSERT(is_rows(be, cols, b * each, 3 * p * p) && first >= 0 && pictures->levels);
    MODE_ASSERT(b == 0 || (pictures->bytes && pictures->n_bytes <= INT64_MAX));
    double bytes = (double)mode_tensor_bytes(cols);
    for (int64_t i = 0; i < b; i++) {
        const struct mode_pixels_window *w = &pictures->windows[first + i];
        MODE_ASSERT(is_window(w, (int64_t)pictures->n_bytes, side));
        bytes += 3.0 * w->width * w->height;
    }
    CALL_MOVING(picture_patches, 0, bytes, cols, pictures, first, side, p);
}

void mode_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_tensor *pixels, int64_t p)
{
    int64_t b = pixels->dim[0], s = pixels->dim[2];
    MODE_ASSERT(is_f32(pixels, 4) && pixels->dim[1] == 3 && pixels->dim[3] == s && p > 0 && s % p == 0);
    MODE_ASSERT(is_rows(be, cols, b * (s / p) * (s / p), 3 * p * p));
    CALL(patches, 0, cols, pixels, p);
}

/* kept: as many patches of each of b images of `patches`, in ascending order. */
static void check_kept(const struct mode_tensor *kept, int64_t b, int64_t patches)
{
    const int32_t *row = kept->data;
    int64_t each = b > 0 ? kept->dim[0] / b : 0;
    MODE_ASSERT(is_index(kept, b * each) && (each > 0 || b == 0));
    for (int64_t i = 0; i < b * each; i++)
        MODE_ASSERT(row[i] / patches == i / each && row[i] >= 0 && (i % each == 0 || row[i] > row[i - 1]));
}

static void check_image_tokens(const struct mode_backend *be, const struct mode_tensor *x,
                               const struct mode_tensor *patch, const struct mode_tensor *cls,
                               const struct mode_tensor *pos, const struct mode_tensor *kept)
{
    int64_t d = x->dim[1], t = pos->dim[0], b = x->dim[0] - patch->dim[0];
    MODE_ASSERT(is_act(be, x, 2) && is_f32(pos, 2) && pos->dim[1] == d && is_vector(cls, d));
    MODE_ASSERT(b >= 0 && is_rows(be, patch, kept ? kept->dim[0] : b * (t - 1), d));
    if (kept) check_kept(kept, b, t - 1);
}

void mode_image_tokens(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *patch,
                       const struct mode_tensor *cls, const struct mode_tensor *pos, const struct mode_tensor *kept)
{
    check_image_tokens(be, x, patch, cls, pos, kept);
    CALL(image_tokens, mode_tensor_count(x), x, patch, cls, pos, kept);
}

void mode_image_tokens_back(struct mode_backend *be, struct mode_tensor *dpatch, struct mode_tensor *dcls,
                            struct mode_tensor *dpos, const struct mode_tensor *dx, const struct mode_tensor *kept)
{
    check_image_tokens(be, dx, dpatch, dcls, dpos, kept);
    CALL(image_tokens_back, mode_tensor_count(dx), dpatch, dcls, dpos, dx, kept);
}

static void check_rows(const struct mode_backend *be, const struct mode_tensor *y, const struct mode_tensor *x,
                       const struct mode_tensor *rows)
{
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, y, rows->dim[0], x->dim[1]) && is_index(rows, rows->dim[0]));
    const int32_t *r = rows->data;
    for (int64_t i = 0; i < rows->dim[0]; i++) MODE_ASSERT(r[i] >= 0 && r[i] < x->dim[0]);
}

void mode_gather(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                 const struct mode_tensor *rows)
{
    check_rows(be, y, x, rows);
    CALL_MOVING(gather, 0, 2 * mode_tensor_bytes(y), y, x, rows);
}

void mode_scatter_add(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *y,
                      const struct mode_tensor *rows)
{
    check_rows(be, y, x, rows);
    CALL_MOVING(scatter_add, mode_tensor_count(y), 3 * mode_tensor_bytes(y), x, y, rows);
}

void mode_scale(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                const struct mode_tensor *g, const struct mode_tensor *add)
{
    int64_t m = x->dim[0], d = x->dim[1];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, y, m, d) && is_vector(g, d) && is_rows(be, add, m, d));
    CALL(scale, 2 * mode_tensor_count(x), y, x, g, add);
}

void mode_scale_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dg,
                     const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *g)
{
    int64_t m = x->dim[0], d = x->dim[1];
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, dx, m, d) && is_rows(be, dy, m, d) && is_vector(g, d) &&
                is_vector(dg, d));
    CALL(scale_back, 3 * mode_tensor_count(x), dx, dg, dy, x, g);
}

static void check_mean(const struct mode_backend *be, const struct mode_tensor *y, const struct mode_tensor *x,
                       const struct mode_tensor *offsets, int64_t skip)
{
    int64_t b = offsets->dim[0] - 1;
    MODE_ASSERT(is_act(be, x, 2) && is_rows(be, y, b, x->dim[1]) && is_index(offsets, b + 1) && skip >= 0);
    const int32_t *o = offsets->data;
    MODE_ASSERT(o[0] == 0 && o[b] == x->dim[0]);
    for (int64_t i = 0; i < b; i++) MODE_ASSERT(o[i] + skip < o[i + 1]);
}

void mode_mean_rows(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                    const struct mode_tensor *offsets, int64_t skip)
{
    check_mean(be, y, x, offsets, skip);
    CALL(mean_rows, mode_tensor_count(x), y, x, offsets, skip);
}

void mode_mean_rows_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                         const struct mode_tensor *offsets, int64_t skip)
{
    check_mean(be, dy, dx, offsets, skip);
    CALL(mean_rows_back, mode_tensor_count(dx), dx, dy, offsets, skip);
}

void mode_l2norm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *norm, const struct mode_tensor *x)
{
    MODE_ASSERT((is_act(be, x, 2) || is_f32(x, 2)) && is_matrix(y, x->dim[0], x->dim[1]) && is_vector(norm, x->dim[0]));
    CALL(l2norm, 3 * mode_tensor_count(x), y, norm, x);
}

void mode_l2norm_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                      const struct mode_tensor *y, const struct mode_tensor *norm)
{
    MODE_ASSERT(is_f32(y, 2) && is_rows(be, dx, y->dim[0], y->dim[1]) && is_matrix(dy, y->dim[0], y->dim[1]));
    MODE_ASSERT(is_vector(norm, y->dim[0]));
    CALL(l2norm_back, 5 * mode_tensor_count(y), dx, dy, y, norm);
}

static bool is_f64_vector(const struct mode_tensor *t, int64_t n)
{
    return t->dtype == MODE_DTYPE_F64 && t->n_dims == 1 && t->dim[0] == n && t->data;
}

static void check_contrastive(const struct mode_tensor *row, const struct mode_tensor *col,
                              const struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                              const struct mode_tensor *logit_scale)
{
    int64_t m = a->dim[0], n = b->dim[0];
    MODE_ASSERT(is_f32(a, 2) && m > 0 && m <= n && is_matrix(b, n, a->dim[1]) && is_f32(logit_scale, 0));
    MODE_ASSERT(is_f64_vector(row, m) && is_f64_vector(col, n));
    MODE_ASSERT(is_f32(work, 2) && work->dim[0] >= 1 && work->dim[0] <= m && work->dim[1] == n);
}

void mode_contrastive(struct mode_backend *be, struct mode_tensor *row, struct mode_tensor *col,
                      struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                      const struct mode_tensor *logit_scale)
{
    int64_t m = a->dim[0], n = b->dim[0], e = a->dim[1];
    check_contrastive(row, col, work, a, b, logit_scale);
    CALL(contrastive, 2.0 * (double)m * (double)n * (double)e, row, col, work, a, b, logit_scale);
}

void mode_join_columns(struct mode_backend *be, struct mode_tensor *col, const struct mode_tensor *each)
{
    int64_t n = col->dim[0];
    MODE_ASSERT(is_f64_vector(col, n) && each->dtype == MODE_DTYPE_F64 && each->n_dims == 2 && each->data);
    MODE_ASSERT(each->dim[0] > 0 && each->dim[1] == n);
    CALL(join_columns, mode_tensor_count(each), col, each);
}

void mode_contrastive_back(struct mode_backend *be, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                           struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                           const struct mode_tensor *b, const struct mode_tensor *logit_scale,
                           const struct mode_tensor *row, const struct mode_tensor *col, int64_t first)
{
    int64_t m = a->dim[0], n = b->dim[0], e = a->dim[1];
    check_contrastive(row, col, work, a, b, logit_scale);
    MODE_ASSERT(is_matrix(da, m, e) && is_matrix(db, n, e) && is_f32(dlogit_scale, 0));
    MODE_ASSERT(first >= 0 && first + m <= n);
    double products = work->dim[0] < m ? 6 : 4;
    CALL(contrastive_back, products * (double)m * (double)n * (double)e, loss, da, db, dlogit_scale, work, a, b,
         logit_scale, row, col, first);
}

enum { LOGITS = 16 << 20, LOGIT_ROWS = 64 };

int64_t mode_contrastive_rows(int64_t m, int64_t n)
{
    int64_t rows = LOGITS / n > LOGIT_ROWS ? LOGITS / n : LOGIT_ROWS;
    return rows < m ? rows : m;
}

int64_t mode_contrastive_work(int64_t m, int64_t n)
{
    if (mode_contrastive_rows(m, n) == m) return m * n;
    return n > LOGITS / LOGIT_ROWS ? n * LOGIT_ROWS : LOGITS;
}

double mode_log_add(double a, double b)
{
    double top = fmax(a, b);
    return top + log(exp(a - top) + exp(b - top));
}

/* CALL does not see the tensors inside struct mode_param. */
static void uses_params(struct mode_backend *be, struct mode_param *p, size_t n, bool updated)
{
    for (size_t i = 0; be->kind && i < n; i++) {
        if (p[i].frozen) continue;
        struct mode_tensor *const written[] = {&p[i].value, &p[i].m, &p[i].v, mode_param_copy(&p[i])};
        struct mode_tensor *const none[4] = {NULL};
        const struct mode_tensor *const read[4] = {&p[i].grad};
        be->kind->uses(be, updated ? written : none, read, 4);
    }
}

void mode_adamw(struct mode_backend *be, struct mode_param *p, size_t n, const struct mode_adamw_step *s)
{
    double count = 0, bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i].frozen) continue;
        int64_t own = mode_tensor_count(&p[i].value);
        const struct mode_tensor *all[] = {&p[i].value, &p[i].grad, &p[i].m, &p[i].v}, *copy = mode_param_copy(&p[i]);
        for (int k = 0; k < 4; k++)
            MODE_ASSERT(all[k]->dtype == MODE_DTYPE_F32 && all[k]->data && mode_tensor_count(all[k]) == own);
        MODE_ASSERT(!copy || (copy->dtype == MODE_DTYPE_BF16 && mode_tensor_count(copy) == own));
        count += (double)own;
        bytes += (double)own * (copy ? 30 : 28); /* value, m, v: read and written; gradient: read; copy: written */
    }
    uses_params(be, p, n, true);
    CALL_MOVING(adamw, 12 * count, bytes, p, n, s);
}

void mode_grad_squares(struct mode_backend *be, double *sum, const struct mode_param *p, size_t n)
{
    double count = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i].frozen) continue;
        MODE_ASSERT(p[i].grad.dtype == MODE_DTYPE_F32 && p[i].grad.data);
        count += (double)mode_tensor_count(&p[i].grad);
    }
    uses_params(be, (struct mode_param *)(uintptr_t)p, n, false);
    CALL_MOVING(grad_squares, 2 * count, sizeof(float) * count, sum, p, n);
}

void mode_rounded(struct mode_backend *be, struct mode_tensor *copy, const struct mode_tensor *x)
{
    MODE_ASSERT(copy->dtype == MODE_DTYPE_BF16 && copy->data && x->dtype == MODE_DTYPE_F32 && x->data);
    MODE_ASSERT(mode_tensor_count(copy) == mode_tensor_count(x));
    CALL(rounded, 0, copy, x);
}

void mode_clamp(struct mode_backend *be, struct mode_tensor *x, float low, float high)
{
    MODE_ASSERT(x->dtype == MODE_DTYPE_F32 && x->data && low <= high);
    CALL(clamp, 0, x, low, high);
}

void mode_zero(struct mode_backend *be, struct mode_tensor *x)
{
    MODE_ASSERT(x->data);
    CALL(zero, 0, x);
}

void mode_nearest_rows(struct mode_backend *be, struct mode_tensor *id, struct mode_tensor *distance,
                       struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                       const struct mode_tensor *c, bool cosine)
{
    int64_t n = x->dim[0], d = x->dim[1], k = c->dim[0];
    MODE_ASSERT(is_f32(x, 2) && is_matrix(c, k, d) && is_index(id, n) && (!distance || is_vector(distance, n)));
    MODE_ASSERT(k > 0 && is_matrix(work, work->dim[0], k) && work->dim[0] > 0);
    CALL(nearest_rows, 2.0 * (double)n * (double)k * (double)d, id, distance, work, x, ready, c, cosine);
}

size_t mode_nearest_ready_bytes(struct mode_backend *be, int64_t n, int64_t d)
{
    return be->kind ? be->kind->nearest_ready_bytes(be, n, d) : 0;
}

void mode_nearest_ready(struct mode_backend *be, struct mode_tensor *ready, const struct mode_tensor *x)
{
    MODE_ASSERT(is_f32(x, 2) && ready->dtype == MODE_DTYPE_U8 && ready->data && be->kind);
    MODE_ASSERT(mode_tensor_bytes(ready) == mode_nearest_ready_bytes(be, x->dim[0], x->dim[1]));
    be->kind->uses(be, &ready, &x, 1);
    be->kind->nearest_ready(be, ready, x);
}

void mode_costs(struct mode_backend *be, struct mode_tensor *cost, const struct mode_tensor *x,
                const struct mode_tensor *c, bool cosine)
{
    int64_t n = x->dim[0], d = x->dim[1], k = c->dim[0];
    MODE_ASSERT(is_f32(x, 2) && is_matrix(c, k, d) && is_matrix(cost, n, k));
    CALL(costs, 2.0 * (double)n * (double)k * (double)d, cost, x, c, cosine);
}

void mode_group_rows(struct mode_backend *be, struct mode_tensor *first, struct mode_tensor *members,
                     const struct mode_tensor *id)
{
    MODE_ASSERT(first->dim[0] > 1 && is_index(first, first->dim[0]) && is_index(id, id->dim[0]));
    MODE_ASSERT(is_index(members, id->dim[0]));
    CALL(group_rows, 0, first, members, id);
}

void mode_group_means(struct mode_backend *be, struct mode_tensor *means, const struct mode_tensor *x,
                      const struct mode_tensor *first, const struct mode_tensor *members, bool unit)
{
    MODE_ASSERT(is_f32(x, 2) && is_matrix(means, means->dim[0], x->dim[1]));
    MODE_ASSERT(is_index(first, means->dim[0] + 1) && is_index(members, members->dim[0]));
    CALL(group_means, members->dim[0] * x->dim[1], means, x, first, members, unit);
}
