/* ops.h - the table of operations every model is written in, and the one place where their arguments are checked.
 *
 * A backend (nn/ref: slow reference; nn/cpu and nn/cuda: fast) fills one struct mode_ops. Models call the functions
 * below the table: they assert shapes and dtypes, time the op when profiling is on, and call through. Backends may
 * assume checked arguments.
 *
 *     mode_layernorm(be, &a->ln, &a->ln_stats, &x, &w->ln_w, &w->ln_b, 1e-5f);
 *     mode_linear_act(be, &a->hidden, &a->pre, &a->ln, &w->fc_w, &w->fc_b, MODE_ACT_QUICK_GELU);
 *     mode_linear_add(be, &x, &a->hidden, &w->proj_w, &w->proj_b, &x);             // residual, in place
 *
 * Rules, tested for every op:
 *   - backward ADDS into parameter gradients (dw, db, dtable ...) and OVERWRITES gradients of activations;
 *   - outputs must not overlap inputs, except where an op says that they may;
 *   - results are bit-identical for any number of threads;
 *   - tensors are f32 and row-major unless said otherwise; ref accumulates in double;
 *   - some have the backend's activation type, f32 or bf16 (mode_backend_activations), are accumulated in f32 or wider
 *     and rounded once when stored: activations and their gradients, and w and b of linear and project, which on a bf16
 *     backend are rounded copies of parameters. Always f32: statistics, lse, norms, unit rows and their gradients, the
 *     loss, all other parameters, gradients of parameters.
 *
 * Sequences of different lengths are packed: their rows are concatenated, and offsets [B + 1] i32 (offsets[0] = 0; also
 * known as cu_seqlens) says where each begins. So text needs no padding and no masks.
 *
 * Tensors are in the backend's memory (mode_backend_alloc). Lists (offsets, ids, rows) and struct mode_adamw_step are
 * in memory of mode_backend_share, which the host has a copy of: the checks here read lists on the host.
 *
 * Letters: m rows, k inputs, n outputs of a linear layer; R packed rows, B sequences, D width, H heads.
 * Threads: one caller per backend. */
#ifndef MODE_NN_OPS_H
#define MODE_NN_OPS_H

#include "nn/backend.h"
#include "nn/param.h"
#include "nn/pixels.h"
#include "nn/update.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mode_act {
    MODE_ACT_NONE,
    MODE_ACT_GELU,       /* x * Phi(x), by erf: open_clip, BERT "gelu"                 */
    MODE_ACT_GELU_TANH,  /* its tanh approximation: BERT "gelu_new", "gelu_pytorch_tanh" */
    MODE_ACT_QUICK_GELU, /* x * sigmoid(1.702 x): OpenAI's and MetaCLIP's CLIP          */
    MODE_ACT_TANH        /* BERT pooler                                                 */
};

/* How attention finds its heads. q is [Rq, lq] and kv is [Rk, lk]; a row's query, key and value are `width` contiguous
 * columns from q_at, k_at, v_at on. Self-attention over one fused projection: q and kv are the same tensor [R, 3D] with
 * q_at 0, k_at D, v_at 2D. q_offsets and kv_offsets hold B + 1 entries; causal needs them to be equal. Scores are
 * scaled by 1 / sqrt(width / heads). */
struct mode_attention {
    int64_t width, heads; /* heads divides width                */
    int64_t q_at, k_at, v_at;
    bool causal; /* row i of a sequence sees rows 0..i */
    const struct mode_tensor *q_offsets, *kv_offsets;
    int64_t longest; /* upper bound of a sequence's rows; 0: unknown. Only the cuda backend reads it. */
};

struct mode_ops {
    const char *name;            /* "ref", "cpu" */
    enum mode_dtype activations; /* F32 or BF16 */
    void (*linear)(struct mode_backend *, struct mode_tensor *y, struct mode_tensor *z, const struct mode_tensor *x,
                   const struct mode_tensor *w, const struct mode_tensor *b, const struct mode_tensor *add,
                   enum mode_act act);
    void (*linear_back)(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dw, struct mode_tensor *db,
                        const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w,
                        const struct mode_tensor *z, enum mode_act act);
    void (*activate)(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *z, enum mode_act act);
    void (*project)(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                    const struct mode_tensor *w);
    void (*project_back)(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dw,
                         const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w);
    void (*layernorm)(struct mode_backend *, struct mode_tensor *y, struct mode_tensor *stats,
                      const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b, float eps);
    void (*layernorm_back)(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dw,
                           struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                           const struct mode_tensor *stats, const struct mode_tensor *w, const struct mode_tensor *add);
    void (*attention)(struct mode_backend *, struct mode_tensor *out, struct mode_tensor *lse,
                      const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s);
    void (*attention_back)(struct mode_backend *, struct mode_tensor *dq, struct mode_tensor *dkv,
                           const struct mode_tensor *dout, const struct mode_tensor *out, const struct mode_tensor *lse,
                           const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s);
    void (*embed)(struct mode_backend *, struct mode_tensor *x, const struct mode_tensor *table,
                  const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets);
    void (*embed_back)(struct mode_backend *, struct mode_tensor *dtable, struct mode_tensor *dpos,
                       const struct mode_tensor *dx, const struct mode_tensor *ids, const struct mode_tensor *offsets);
    void (*picture_patches)(struct mode_backend *, struct mode_tensor *cols, const struct mode_pictures *pictures,
                            int64_t first, int64_t side, int64_t p);
    void (*patches)(struct mode_backend *, struct mode_tensor *cols, const struct mode_tensor *pixels, int64_t p);
    void (*image_tokens)(struct mode_backend *, struct mode_tensor *x, const struct mode_tensor *patch,
                         const struct mode_tensor *cls, const struct mode_tensor *pos, const struct mode_tensor *kept);
    void (*image_tokens_back)(struct mode_backend *, struct mode_tensor *dpatch, struct mode_tensor *dcls,
                              struct mode_tensor *dpos, const struct mode_tensor *dx, const struct mode_tensor *kept);
    void (*gather)(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                   const struct mode_tensor *rows);
    void (*scatter_add)(struct mode_backend *, struct mode_tensor *x, const struct mode_tensor *y,
                        const struct mode_tensor *rows);
    void (*scale)(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                  const struct mode_tensor *g, const struct mode_tensor *add);
    void (*scale_back)(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dg,
                       const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *g);
    void (*mean_rows)(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                      const struct mode_tensor *offsets, int64_t skip);
    void (*mean_rows_back)(struct mode_backend *, struct mode_tensor *dx, const struct mode_tensor *dy,
                           const struct mode_tensor *offsets, int64_t skip);
    void (*l2norm)(struct mode_backend *, struct mode_tensor *y, struct mode_tensor *norm, const struct mode_tensor *x);
    void (*l2norm_back)(struct mode_backend *, struct mode_tensor *dx, const struct mode_tensor *dy,
                        const struct mode_tensor *y, const struct mode_tensor *norm);
    void (*contrastive)(struct mode_backend *, struct mode_tensor *row, struct mode_tensor *col,
                        struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                        const struct mode_tensor *logit_scale);
    void (*join_columns)(struct mode_backend *, struct mode_tensor *col, const struct mode_tensor *each);
    void (*contrastive_back)(struct mode_backend *, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                             struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                             const struct mode_tensor *b, const struct mode_tensor *logit_scale,
                             const struct mode_tensor *row, const struct mode_tensor *col, int64_t first);
    void (*adamw)(struct mode_backend *, struct mode_param *p, size_t n, const struct mode_adamw_step *s);
    void (*grad_squares)(struct mode_backend *, double *sum, const struct mode_param *p, size_t n);
    void (*rounded)(struct mode_backend *, struct mode_tensor *copy, const struct mode_tensor *x);
    void (*clamp)(struct mode_backend *, struct mode_tensor *x, float low, float high);
    void (*zero)(struct mode_backend *, struct mode_tensor *x);
    void (*nearest_rows)(struct mode_backend *, struct mode_tensor *id, struct mode_tensor *distance,
                         struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                         const struct mode_tensor *c, bool cosine);
    void (*costs)(struct mode_backend *, struct mode_tensor *cost, const struct mode_tensor *x,
                  const struct mode_tensor *c, bool cosine);
    void (*group_rows)(struct mode_backend *, struct mode_tensor *first, struct mode_tensor *members,
                       const struct mode_tensor *id);
    void (*group_means)(struct mode_backend *, struct mode_tensor *means, const struct mode_tensor *x,
                        const struct mode_tensor *first, const struct mode_tensor *members, bool unit);
};

/* y [m, n] = act(x [m, k] @ w [n, k]^T + b [n]); b may be NULL. */
void mode_linear(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                 const struct mode_tensor *w, const struct mode_tensor *b);
/* The same with an activation; z [m, n] receives the pre-activation for the backward pass (NULL: not needed). */
void mode_linear_act(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z, const struct mode_tensor *x,
                     const struct mode_tensor *w, const struct mode_tensor *b, enum mode_act act);
/* y [m, n] = act(z) for z [m, n] of mode_linear_act or mode_linear: bit-identical, so y can be recomputed instead of
 * stored. */
void mode_activate(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *z, enum mode_act act);
/* y = x @ w^T + b + add [m, n]; y may be add. */
void mode_linear_add(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                     const struct mode_tensor *w, const struct mode_tensor *b, const struct mode_tensor *add);
/* dx = dy @ w; dw += dy^T @ x; db += sum of dy's rows. dx, db may be NULL. */
void mode_linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw, struct mode_tensor *db,
                      const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w);
/* The same where x = act(z [m, k]): dx = (dy @ w) * act'(z) is the gradient of z; dx may be x, but not z. */
void mode_linear_back_act(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                          struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                          const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act);

/* y [m, n] = x [m, k] @ w [k, n], and its backward (CLIP stores its two projections this way round). */
void mode_project(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                  const struct mode_tensor *w);
void mode_project_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                       const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w);

/* y = (x - mean) / sqrt(var + eps) * w + b for each row of x [m, D]; stats [m, 2] receives mean and 1 / sqrt(var + eps)
 * for the backward pass (NULL: not needed). y may be x. */
void mode_layernorm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *stats,
                    const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b, float eps);
/* dx = d(layernorm) + add; add [m, D] is the gradient from the residual branch (may be NULL); dx may be add or dy. */
void mode_layernorm_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                         struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                         const struct mode_tensor *stats, const struct mode_tensor *w, const struct mode_tensor *add);

/* out [Rq, width] = softmax(q k^T / sqrt(width / heads)) v, per sequence and head; lse [Rq, heads] receives each row's
 * log-sum-exp for the backward pass (NULL: not needed). A sequence without keys is a bug of the caller. */
void mode_attention(struct mode_backend *be, struct mode_tensor *out, struct mode_tensor *lse,
                    const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s);
/* dq, dkv: laid out as q and kv; only the columns that s selects are written. The same tensor if q and kv are. */
void mode_attention_back(struct mode_backend *be, struct mode_tensor *dq, struct mode_tensor *dkv,
                         const struct mode_tensor *dout, const struct mode_tensor *out, const struct mode_tensor *lse,
                         const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s);

/* x [R, D] = table [V, D][ids [R] i32] + pos [>= longest sequence, D][position in the sequence]. */
void mode_embed(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *table,
                const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets);
void mode_embed_back(struct mode_backend *be, struct mode_tensor *dtable, struct mode_tensor *dpos,
                     const struct mode_tensor *dx, const struct mode_tensor *ids, const struct mode_tensor *offsets);

/* im2col: cols [B * g * g, 3 * p * p] from a model's input, pixels [B, 3, S, S] f32, g = S / p: a row per patch (row by
 * row), in it channel, y, x, the order of a convolution's weights. */
void mode_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_tensor *pixels, int64_t p);
/* The same from decoded pictures first .. first + B - 1 of any sizes (nn/pixels.h): Pillow's resize in its own fixed
 * point, then a lookup table to floats, without pixels [B, 3, side, side] in between. Bit-identical on every backend,
 * and to mode_patches of data/preprocess.c's pixels. */
void mode_picture_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_pictures *pictures,
                          int64_t first, int64_t side, int64_t p);
/* x [B * (1 + P), D]: per image the class embedding cls [D], then its patches [B * P, D]; plus pos [1 + P, D].
 * kept [B * K] i32: only these of all images' B * P patches are there, K of every image, in ascending order: x is
 * [B * (1 + K), D], patch [B * K, D], and a patch has the position that it has among the P. NULL: all are there. */
void mode_image_tokens(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *patch,
                       const struct mode_tensor *cls, const struct mode_tensor *pos, const struct mode_tensor *kept);
void mode_image_tokens_back(struct mode_backend *be, struct mode_tensor *dpatch, struct mode_tensor *dcls,
                            struct mode_tensor *dpos, const struct mode_tensor *dx, const struct mode_tensor *kept);

/* y [n, D] = x [m, D][rows [n] i32]; and x[rows[i]] += y[i], where rows are distinct. */
void mode_gather(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                 const struct mode_tensor *rows);
void mode_scatter_add(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *y,
                      const struct mode_tensor *rows);

/* y = x * g [D] + add (layer scale on a residual branch); y may be add. Backward: dx = dy * g. */
void mode_scale(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                const struct mode_tensor *g, const struct mode_tensor *add);
void mode_scale_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dg,
                     const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *g);

/* y [B, D] = mean pooling: of each sequence's rows of x [R, D] without its first `skip`; every sequence has more than
 * that. Backward: the skipped rows get zero. */
void mode_mean_rows(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                    const struct mode_tensor *offsets, int64_t skip);
void mode_mean_rows_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                         const struct mode_tensor *offsets, int64_t skip);

/* y = x / max(|x|, 1e-12) for each row; norm [m] receives the divisor. x is an activation or f32, y and dy are f32, dx
 * is the gradient of an activation. y may be x. */
void mode_l2norm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *norm, const struct mode_tensor *x);
void mode_l2norm_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                      const struct mode_tensor *y, const struct mode_tensor *norm);

/* CLIP's loss over a global batch of n pairs, m of them local: a [m, E] holds rows first .. first + m of one side, b
 * [n, E] all rows of the other; rows have unit length. logits [m, n] = exp(logit_scale) a b^T; the loss is the mean of
 * the two cross-entropies (rows, columns) with the targets (i, first + i). Logits are computed t rows at a time: work
 * [t, n], 1 <= t <= m, is scratch. With t = m they are computed once, and work must be left alone between the two
 * calls; with t < m the backward pass recomputes them.
 *
 * row [m] and col [n] (f64) receive the log-sum-exp of each row, and of each column over the local rows. Where other
 * processes hold the rest of the batch, col must be joined over all of them (mode_join_columns) before the backward
 * pass. */
void mode_contrastive(struct mode_backend *be, struct mode_tensor *row, struct mode_tensor *col,
                      struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                      const struct mode_tensor *logit_scale);
/* col [n] becomes the log-sum-exp of the columns of each [size, n]: log(e^a + e^b) pairwise, from the first row on. */
void mode_join_columns(struct mode_backend *be, struct mode_tensor *col, const struct mode_tensor *each);
/* loss and db [n, E] are overwritten with the local rows' contribution (complete if m is n), da [m, E] with its full
 * gradient; dlogit_scale (a scalar parameter) is added to. loss is in the backend's memory, as a tensor is. */
void mode_contrastive_back(struct mode_backend *be, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                           struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                           const struct mode_tensor *b, const struct mode_tensor *logit_scale,
                           const struct mode_tensor *row, const struct mode_tensor *col, int64_t first);
/* How many rows of logits to compute at a time: all m within 64 MiB, else as many as fit, at least 64. */
int64_t mode_contrastive_rows(int64_t m, int64_t n);
/* Floats of work that suffice for that many pairs, and for fewer. */
int64_t mode_contrastive_work(int64_t m, int64_t n);
/* log(e^a + e^b) */
double mode_log_add(double a, double b);

/* PyTorch's AdamW for those of n parameters that are not frozen, of any shapes: with clip_norm, the gradient g is
 * multiplied by clip_norm / (sqrt(squares) + 1e-6) if that is below 1; w *= 1 - lr * weight_decay where the parameter
 * decays; m, v: moving averages of g and g^2; w -= lr * m^ / (sqrt(v^) + eps), m^ = m / fix1, v^ = v / fix2. On a bf16
 * backend the operand receives w rounded, where it is a separate tensor. With clip_norm and non-finite squares the
 * update is skipped. s is in memory of mode_backend_share. */
void mode_adamw(struct mode_backend *be, struct mode_param *p, size_t n, const struct mode_adamw_step *s);
/* sum, in the backend's memory or that of mode_backend_share, becomes the sum of squares of the same parameters'
 * gradients. */
void mode_grad_squares(struct mode_backend *be, double *sum, const struct mode_param *p, size_t n);
/* copy (bf16) = x (f32), elementwise */
void mode_rounded(struct mode_backend *be, struct mode_tensor *copy, const struct mode_tensor *x);
/* Clamp x (f32) to [low, high]; NaN stays NaN. */
void mode_clamp(struct mode_backend *be, struct mode_tensor *x, float low, float high);
void mode_zero(struct mode_backend *be, struct mode_tensor *x);

/* Clustering. These ops take tensors and lists in the backend's or in host memory; mode_backend_sync before reading
 * them.
 *
 * id [n] i32: the nearest row of c [k, d] to each row of x [n, d]; distance [n] (may be NULL): L2, or 1 - x.c where
 * cosine is set (unit rows). Decided in double from the differences, summed in a fixed order (nn/exact.c):
 * bit-identical on every backend, whatever the precision of its GEMMs. Ties go to the lower id. work [w, k]: scratch
 * for w rows at a time, in the backend's memory; w does not affect the result. ready: x preprocessed by
 * mode_nearest_ready, or NULL. */
void mode_nearest_rows(struct mode_backend *be, struct mode_tensor *id, struct mode_tensor *distance,
                       struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                       const struct mode_tensor *c, bool cosine);
/* For rows whose nearest centres are computed more than once: ready [mode_nearest_ready_bytes(be, n, d)] u8, in the
 * backend's memory, receives what nearest_rows derives from x [n, d] alone. Valid for that backend while x is
 * unchanged; results are bit-identical with and without it. 0 bytes: it would gain nothing, do not call it; on a GPU 2
 * per element, with the columns padded to a multiple of 64, and 12 per row. */
size_t mode_nearest_ready_bytes(struct mode_backend *be, int64_t n, int64_t d);
void mode_nearest_ready(struct mode_backend *be, struct mode_tensor *ready, const struct mode_tensor *x);
/* cost [n, k]: the squared L2 distance of every row of x [n, d] to every row of c [k, d], or 1 - x.c; never negative.
 */
void mode_costs(struct mode_backend *be, struct mode_tensor *cost, const struct mode_tensor *x,
                const struct mode_tensor *c, bool cosine);
/* first [k + 1] and members [n] i32: the rows i with id[i] = c are members[first[c]] .. members[first[c + 1] - 1], in
 * ascending order. id [n] i32 in [0, k). */
void mode_group_rows(struct mode_backend *be, struct mode_tensor *first, struct mode_tensor *members,
                     const struct mode_tensor *id);
/* means [k, d]: group i is the rows members[first[i]] .. members[first[i + 1] - 1] of x [n, d], summed in double in
 * that order, 256 at a time (nn/exact.c); unit: the mean scaled to unit length. An empty group, or one whose sum
 * vanishes, keeps its old mean. first [k + 1] and members i32. Bit-identical on every backend. */
void mode_group_means(struct mode_backend *be, struct mode_tensor *means, const struct mode_tensor *x,
                      const struct mode_tensor *first, const struct mode_tensor *members, bool unit);

#endif
