/* The contrastive loss of a step: over this process's pairs, or over the global batch of a group.
 *
 * In a group a process computes the logits of its own images (rows) with all texts (columns). Row log-sum-exps are
 * complete; column log-sum-exps are combined over the processes (all-gather). Then the gradients of its own images are
 * complete, and those of the texts are partial sums, which a reduce-scatter adds up, each process receiving its own
 * texts. So gradients flow through the gathered features, and the result is that of one process with the global batch:
 * nothing is averaged.
 *
 * Source: open_clip's --local-loss --gather-with-grad, whose result is the same. There a process computes its rows of
 * both logit matrices; here only of image by text, with half the FLOPs. */
#include "models/clip_impl.h"

enum mode_status mode__clip_gather_texts(struct mode_clip *clip, struct mode_error *err)
{
    struct clip_acts *a = clip->train;
    struct mode_ranks *g = clip->group;
    int64_t b = a->step.n, e = a->texts.dim[1];
    a->texts.dim[0] = a->d_texts.dim[0] = g->size * b;
    mode_ranks_begin(g, clip->parcels + PARCEL_TEXTS);
    enum mode_status st = mode_ranks_all_gather(g, a->texts.data, a->text.all.data, (size_t)(b * e), MODE_DTYPE_F32,
                                                err);
    mode_ranks_end(g);
    return st;
}

enum mode_status mode__clip_loss(struct mode_clip *clip, struct mode_tensor *d_image, struct mode_tensor *d_text,
                                 const struct mode_tensor *image, const struct mode_tensor *text,
                                 struct mode_error *err)
{
    struct clip_acts *a = clip->train;
    struct mode_ranks *g = clip->group;
    int64_t b = image->dim[0], e = image->dim[1], n = g ? g->size * b : b;
    struct mode_tensor logits = mode_tensor_2d(a->logits.data, MODE_DTYPE_F32, mode_contrastive_rows(b, n), n);
    struct mode_tensor scale = clip->logit_scale->value, d_scale = clip->logit_scale->grad;
    enum mode_status st;
    scale.n_dims = d_scale.n_dims = 0; /* shape [1] is passed as a scalar */
    a->lse_row.dim[0] = b;
    a->lse_col.dim[0] = n;
    if (!g) {
        mode_contrastive(clip->be, &a->lse_row, &a->lse_col, &logits, image, text, &scale);
        mode_contrastive_back(clip->be, a->loss, d_image, d_text, &d_scale, &logits, image, text, &scale, &a->lse_row,
                              &a->lse_col, 0);
        return MODE_OK;
    }
    mode_contrastive(clip->be, &a->lse_row, &a->lse_col, &logits, image, &a->texts, &scale);
    st = mode_ranks_all_gather(g, a->lse_cols, a->lse_col.data, (size_t)n, MODE_DTYPE_F64, err);
    if (st) return st;
    struct mode_tensor columns = mode_tensor_2d(a->lse_cols, MODE_DTYPE_F64, g->size, n);
    mode_join_columns(clip->be, &a->lse_col, &columns);
    mode_contrastive_back(clip->be, a->loss, d_image, &a->d_texts, &d_scale, &logits, image, &a->texts, &scale,
                          &a->lse_row, &a->lse_col, g->rank * b);
    /* both overlap with the image tower's backward, which needs neither; no op of this step needs the loss */
    mode_ranks_begin(g, clip->parcels + PARCEL_D_TEXT);
    if (mode__clip_is_trained(&clip->text))
        st = mode_ranks_reduce_scatter(g, d_text->data, a->d_texts.data, (size_t)(b * e), MODE_DTYPE_F32, err);
    if (!st) st = mode_ranks_all_reduce(g, a->loss, 1, MODE_DTYPE_F64, err);
    mode_ranks_end(g);
    return st;
}
