/* ref.h - the reference backend's functions; the contracts are those of nn/ops.h. Plain loops, accumulation in double:
 * read these files to learn what an op does. Never optimised.
 *
 * The same code serves "ref" and "ref-bf16": a tensor's dtype says how it is stored, get widens and put rounds. */
#ifndef MODE_NN_REF_REF_H
#define MODE_NN_REF_REF_H

#include "nn/backend_impl.h"
#include "tensor/half.h"

/* Element i of a tensor of f32 or bf16. */
static inline double mode__ref_get(const struct mode_tensor *t, int64_t i)
{
    return t->dtype == MODE_DTYPE_BF16 ? mode_bf16_to_f32(((const uint16_t *)t->data)[i]) : mode_f32(t)[i];
}

static inline void mode__ref_put(struct mode_tensor *t, int64_t i, double x)
{
    if (t->dtype == MODE_DTYPE_BF16)
        ((uint16_t *)t->data)[i] = mode_f32_to_bf16((float)x);
    else
        mode_f32(t)[i] = (float)x;
}

static inline void mode__ref_add(struct mode_tensor *t, int64_t i, double x)
{
    mode__ref_put(t, i, mode__ref_get(t, i) + x);
}

/* x rounded to t's dtype, as a pre-activation is before its activation. */
static inline double mode__ref_stored(double x, const struct mode_tensor *t)
{
    return t->dtype == MODE_DTYPE_BF16 ? mode_bf16_to_f32(mode_f32_to_bf16((float)x)) : (float)x;
}

/* linear.c */
double mode__ref_act_value(double x, enum mode_act act);
double mode__ref_act_slope(double x, enum mode_act act);
void mode__ref_linear(struct mode_backend *, struct mode_tensor *y, struct mode_tensor *z, const struct mode_tensor *x,
                      const struct mode_tensor *w, const struct mode_tensor *b, const struct mode_tensor *add,
                      enum mode_act act);
void mode__ref_linear_back(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dw,
                           struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                           const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act);
void mode__ref_activate(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *z, enum mode_act act);
void mode__ref_project(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                       const struct mode_tensor *w);
void mode__ref_project_back(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dw,
                            const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w);

/* fp8.c: the same, with fp8 operands while mode_backend_narrow is on */
void mode__ref_fp8_linear(struct mode_backend *, struct mode_tensor *y, struct mode_tensor *z,
                          const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                          const struct mode_tensor *add, enum mode_act act);
void mode__ref_fp8_linear_back(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dw,
                               struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                               const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act);

/* rows.c */
void mode__ref_scale(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                     const struct mode_tensor *g, const struct mode_tensor *add);
void mode__ref_scale_back(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dg,
                          const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *g);
void mode__ref_mean_rows(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                         const struct mode_tensor *offsets, int64_t skip);
void mode__ref_mean_rows_back(struct mode_backend *, struct mode_tensor *dx, const struct mode_tensor *dy,
                              const struct mode_tensor *offsets, int64_t skip);

/* norm.c */
void mode__ref_layernorm(struct mode_backend *, struct mode_tensor *y, struct mode_tensor *stats,
                         const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                         float eps);
void mode__ref_layernorm_back(struct mode_backend *, struct mode_tensor *dx, struct mode_tensor *dw,
                              struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                              const struct mode_tensor *stats, const struct mode_tensor *w,
                              const struct mode_tensor *add);
void mode__ref_l2norm(struct mode_backend *, struct mode_tensor *y, struct mode_tensor *norm,
                      const struct mode_tensor *x);
void mode__ref_l2norm_back(struct mode_backend *, struct mode_tensor *dx, const struct mode_tensor *dy,
                           const struct mode_tensor *y, const struct mode_tensor *norm);

/* attention.c */
void mode__ref_attention(struct mode_backend *, struct mode_tensor *out, struct mode_tensor *lse,
                         const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s);
void mode__ref_attention_back(struct mode_backend *, struct mode_tensor *dq, struct mode_tensor *dkv,
                              const struct mode_tensor *dout, const struct mode_tensor *out,
                              const struct mode_tensor *lse, const struct mode_tensor *q, const struct mode_tensor *kv,
                              const struct mode_attention *s);

/* nearest.c */
void mode__ref_nearest_rows(struct mode_backend *, struct mode_tensor *id, struct mode_tensor *distance,
                            struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                            const struct mode_tensor *c, bool cosine);
void mode__ref_costs(struct mode_backend *, struct mode_tensor *cost, const struct mode_tensor *x,
                     const struct mode_tensor *c, bool cosine);
void mode__ref_group_rows(struct mode_backend *, struct mode_tensor *first, struct mode_tensor *members,
                          const struct mode_tensor *id);
void mode__ref_group_means(struct mode_backend *, struct mode_tensor *means, const struct mode_tensor *x,
                           const struct mode_tensor *first, const struct mode_tensor *members, bool unit);

/* embed.c; pixels.c */
void mode__ref_embed(struct mode_backend *, struct mode_tensor *x, const struct mode_tensor *table,
                     const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets);
void mode__ref_embed_back(struct mode_backend *, struct mode_tensor *dtable, struct mode_tensor *dpos,
                          const struct mode_tensor *dx, const struct mode_tensor *ids,
                          const struct mode_tensor *offsets);
void mode__ref_picture_patches(struct mode_backend *, struct mode_tensor *cols, const struct mode_pictures *pictures,
                               int64_t first, int64_t side, int64_t p);
void mode__ref_patches(struct mode_backend *, struct mode_tensor *cols, const struct mode_tensor *pixels, int64_t p);
void mode__ref_image_tokens(struct mode_backend *, struct mode_tensor *x, const struct mode_tensor *patch,
                            const struct mode_tensor *cls, const struct mode_tensor *pos,
                            const struct mode_tensor *kept);
void mode__ref_image_tokens_back(struct mode_backend *, struct mode_tensor *dpatch, struct mode_tensor *dcls,
                                 struct mode_tensor *dpos, const struct mode_tensor *dx,
                                 const struct mode_tensor *kept);
void mode__ref_gather(struct mode_backend *, struct mode_tensor *y, const struct mode_tensor *x,
                      const struct mode_tensor *rows);
void mode__ref_scatter_add(struct mode_backend *, struct mode_tensor *x, const struct mode_tensor *y,
                           const struct mode_tensor *rows);

/* loss.c */
void mode__ref_contrastive(struct mode_backend *, struct mode_tensor *row, struct mode_tensor *col,
                           struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                           const struct mode_tensor *logit_scale);
void mode__ref_join_columns(struct mode_backend *, struct mode_tensor *col, const struct mode_tensor *each);
void mode__ref_contrastive_back(struct mode_backend *, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                                struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                                const struct mode_tensor *b, const struct mode_tensor *logit_scale,
                                const struct mode_tensor *row, const struct mode_tensor *col, int64_t first);

/* optim.c */
void mode__ref_adamw(struct mode_backend *, struct mode_param *p, size_t n, const struct mode_adamw_step *s);
void mode__ref_grad_squares(struct mode_backend *, double *sum, const struct mode_param *p, size_t n);
void mode__ref_rounded(struct mode_backend *, struct mode_tensor *copy, const struct mode_tensor *x);
void mode__ref_clamp(struct mode_backend *, struct mode_tensor *x, float low, float high);
void mode__ref_zero(struct mode_backend *, struct mode_tensor *x);

#endif
