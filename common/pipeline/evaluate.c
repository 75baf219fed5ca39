#include "pipeline/evaluate.h"

#include "base/str.h"
#include "models/clip.h"
#include "nn/ops.h"

#include <math.h>
#include <stdlib.h>

enum { DEVICE_TEXTS = 4096 };

int64_t mode_evaluate_columns(const struct mode_evalset *e)
{
    return e->kind == MODE_TASK_RETRIEVAL ? e->n_texts : e->n_classes;
}

/* out [C, E]; in groups of classes, which bounds memory for 1000 classes with 80 templates and lets a slow CPU stop
 * soon; on a GPU groups are larger. */
static enum mode_status class_vectors(float *out, struct mode_clip *clip, const struct mode_tokenizer *tokenizer,
                                      const struct mode_evalset *set, int64_t batch,
                                      const struct mode_encode_hook *hook, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    int e = mode_clip_embed_dim(clip), most = 1;
    for (int k = 0; k < set->n_classes; k++)
        if (mode_evalset_n_prompts(set, k) > most) most = mode_evalset_n_prompts(set, k);
    if (mode_backend_is_device(mode_clip_backend(clip)) && batch < DEVICE_TEXTS) batch = DEVICE_TEXTS;
    int group = (int)(batch / most) + 1; /* classes */
    char **prompts = mode_xcalloc((size_t)group * (size_t)most, sizeof *prompts);
    float *features = mode_xmalloc((size_t)group * (size_t)most * (size_t)e * sizeof *features);
    double *mean = mode_xmalloc((size_t)e * sizeof *mean);
    for (int first = 0; !st && first < set->n_classes; first += group) {
        int n = set->n_classes - first < group ? set->n_classes - first : group;
        int64_t n_prompts = 0, at = 0;
        for (int k = first; k < first + n; k++)
            for (int i = 0; i < mode_evalset_n_prompts(set, k); i++)
                prompts[n_prompts++] = mode_evalset_prompt(set, i, k);
        st = mode_encode_texts(clip, tokenizer, features, prompts, n_prompts, batch, false, NULL, err);
        for (int64_t i = 0; i < n_prompts; i++) free(prompts[i]);
        for (int k = 0; !st && k < n; k++) {
            const int its = mode_evalset_n_prompts(set, first + k);
            double norm = 0;
            for (int j = 0; j < e; j++) {
                mean[j] = 0;
                for (int t = 0; t < its; t++) mean[j] += (double)features[(at + t) * e + j];
                mean[j] /= its;
                norm += mean[j] * mean[j];
            }
            norm = sqrt(norm);
            if (!(norm > 0))
                st = MODE_FAIL(err, MODE_E_VALUE, "task %s: the text features of class %s cancel out or are not finite",
                               set->name, set->classes[first + k]);
            for (int j = 0; j < e; j++) out[(int64_t)(first + k) * e + j] = (float)(mean[j] / norm);
            at += its;
        }
        if (!st && hook && hook->more &&
            !hook->more(hook->ctx, (uint64_t)(first + n), (uint64_t)set->n_classes, "classes"))
            st = MODE_FAIL(err, MODE_E_STOPPED, "stopped after %d of %d classes", first + n, set->n_classes);
    }
    free(prompts);
    free(features);
    free(mean);
    return st;
}

enum mode_status mode_evaluate_texts(float *out, struct mode_clip *clip, const struct mode_tokenizer *tokenizer,
                                     const struct mode_evalset *e, int64_t batch, const struct mode_encode_hook *hook,
                                     struct mode_error *err)
{
    if (e->kind == MODE_TASK_RETRIEVAL)
        return mode_encode_texts(clip, tokenizer, out, e->texts, e->n_texts, batch, false, hook, err);
    return class_vectors(out, clip, tokenizer, e, batch, hook, err);
}

enum mode_status mode_evaluate_cosines(float *cosine, const float *images, int64_t n, const float *texts, int64_t c,
                                       int64_t e, struct mode_error *err)
{
    struct mode_backend *be;
    struct mode_tensor y = mode_tensor_2d(cosine, MODE_DTYPE_F32, n, c),
                       x = mode_tensor_2d((void *)(uintptr_t)images, MODE_DTYPE_F32, n, e),
                       w = mode_tensor_2d((void *)(uintptr_t)texts, MODE_DTYPE_F32, c, e);
    enum mode_status st = mode_backend_open(&be, "cpu", err);
    if (!st) mode_linear(be, &y, &x, &w, NULL);
    mode_backend_close(&be);
    return st;
}

enum mode_status mode_evaluate(float *cosine, struct mode_clip *clip, const struct mode_tokenizer *tokenizer,
                               const struct mode_evalset *set, int64_t batch, const struct mode_encode_hook *hook,
                               struct mode_error *err)
{
    enum mode_status st;
    int e = mode_clip_embed_dim(clip);
    int64_t n = set->n_images, c = mode_evaluate_columns(set);
    struct mode_encode_picture *pictures = mode_xcalloc((size_t)n, sizeof *pictures);
    float *images = malloc((size_t)n * (size_t)e * sizeof *images),
          *texts = malloc((size_t)c * (size_t)e * sizeof *texts);
    if (!images || !texts) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "task %s: no memory for %lld image and %lld text features", set->name,
                       (long long)n, (long long)c);
        goto out;
    }
    for (int64_t i = 0; i < n; i++)
        pictures[i] = (struct mode_encode_picture){set->image[i], set->image_size[i], set->image_key[i]};
    st = mode_evaluate_texts(texts, clip, tokenizer, set, batch, hook, err);
    if (!st) st = mode_encode_pictures(clip, images, pictures, n, batch, false, hook, err);
    if (st) {
        st = mode_error_prefix(err, st, "task %s", set->name);
        goto out;
    }
    st = mode_evaluate_cosines(cosine, images, n, texts, c, e, err);
out:
    free(pictures);
    free(images);
    free(texts);
    return st;
}

struct mode_result mode_evaluate_result(const struct mode_evalset *e, const float *cosine, const char *model_name)
{
    return (struct mode_result){.task_name = e->name,
                                .model_name = model_name,
                                .kind = e->kind,
                                .n = e->n_images,
                                .c = mode_evaluate_columns(e),
                                .cosine = cosine,
                                .truth = e->kind == MODE_TASK_RETRIEVAL ? e->image_of_text : e->label};
}
