#include "models/clip_train.h"

#include "models/clip_impl.h"

#include <stdlib.h>

void mode_clip_set_dense(struct mode_clip *clip, bool dense)
{
    MODE_ASSERT(!clip->train);
    clip->dense = dense;
    mode__clip_acts_free(&clip->infer, clip->be);
}

size_t mode_clip_train_bytes(const struct mode_clip *clip, int64_t batch)
{
    struct clip_acts a = {0};
    bool fits = mode__clip_acts_plan(&a, clip, batch, true, NULL);
    free(a.image.blocks);
    free(a.text.blocks);
    return fits ? a.arena.used + 3 * clip->n_floats * sizeof(float) : SIZE_MAX;
}

enum mode_status mode_clip_train_begin(struct mode_clip *clip, int64_t batch, struct mode_error *err)
{
    float **kinds[] = {&clip->grads, &clip->ms, &clip->vs};
    enum mode_status st = MODE_OK;
    MODE_ASSERT(!clip->train);
    for (int k = 0; k < 3 && st == MODE_OK; k++) {
        void *mem = NULL;
        if (!*kinds[k]) st = mode_backend_alloc(clip->be, &mem, clip->n_floats * sizeof(float), err);
        if (mem) *kinds[k] = mem;
    }
    if (st == MODE_OK) st = mode__clip_acts_new(&clip->train, clip, batch, true, err);
    if (st) return st;
    for (size_t i = 0; i < clip->n_params; i++) {
        struct mode_param *p = &clip->params[i];
        ptrdiff_t at = mode_f32(&p->value) - clip->values;
        p->grad.data = clip->grads + at;
        p->m.data = clip->ms + at;
        p->v.data = clip->vs + at;
    }
    return MODE_OK;
}

enum mode_status mode_clip_train_step(struct mode_clip *clip, double *loss, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err)
{
    struct clip_acts *a = clip->train;
    MODE_ASSERT(a);
    if (b < 1 || b > a->batch)
        return MODE_FAIL(err, MODE_E_VALUE, "a step of %lld pairs; training was begun for 1 to %lld", (long long)b,
                         (long long)a->batch);
    enum mode_status st = mode__clip_check_texts(clip, ids, n_ids, b, err);
    if (st) return st;
    struct mode_tensor grads = mode_tensor_1d(clip->grads, MODE_DTYPE_F32, (int64_t)clip->n_floats);
    struct mode_tensor logits = mode_tensor_2d(a->logits.data, MODE_DTYPE_F32, b, b);
    mode_zero(clip->be, &grads);
    mode__clip_image_forward(clip, a, pixels, b);
    mode__clip_text_forward(clip, a, ids, n_ids, b);
    mode_contrastive(clip->be, loss, &a->image.d_unit, &a->text.d_unit, &clip->logit_scale->grad, &logits,
                     &a->image.unit, &a->text.unit, &clip->logit_scale->value);
    mode__clip_text_back(clip, a);
    mode__clip_image_back(clip, a);
    return MODE_OK;
}
