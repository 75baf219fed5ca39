#include "pipeline/evaluate.h"

#include "base/parallel.h"
#include "base/str.h"
#include "models/clip.h"
#include "tensor/tensor.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

int64_t mode_evaluate_columns(const struct mode_evalset *e)
{
    return e->kind == MODE_TASK_RETRIEVAL ? e->n_texts : e->n_classes;
}

/* out [C, E]: classes are taken a few at a time, so that 1000 classes with 80 templates need little memory */
static enum mode_status class_vectors(float *out, struct mode_clip *clip, const struct mode_tokenizer *tokenizer,
                                      const struct mode_evalset *set, int64_t batch,
                                      const struct mode_encode_hook *hook, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    int e = mode_clip_embed_dim(clip), n_templates = set->n_templates;
    int group = (int)(batch / n_templates) + 1; /* classes */
    char **prompts = mode_xcalloc((size_t)group * (size_t)n_templates, sizeof *prompts);
    float *features = mode_xmalloc((size_t)group * (size_t)n_templates * (size_t)e * sizeof *features);
    double *mean = mode_xmalloc((size_t)e * sizeof *mean);
    for (int first = 0; !st && first < set->n_classes; first += group) {
        int n = set->n_classes - first < group ? set->n_classes - first : group;
        for (int i = 0; i < n * n_templates; i++)
            prompts[i] = mode_evalset_prompt(set, i % n_templates, first + i / n_templates);
        st = mode_encode_texts(clip, tokenizer, features, prompts, (int64_t)n * n_templates, batch, false, NULL, err);
        for (int i = 0; i < n * n_templates; i++) free(prompts[i]);
        for (int k = 0; !st && k < n; k++) {
            double norm = 0;
            for (int j = 0; j < e; j++) {
                mean[j] = 0;
                for (int t = 0; t < n_templates; t++)
                    mean[j] += (double)features[((int64_t)k * n_templates + t) * e + j];
                mean[j] /= n_templates;
                norm += mean[j] * mean[j];
            }
            norm = sqrt(norm);
            if (!(norm > 0))
                st = MODE_FAIL(err, MODE_E_VALUE, "task %s: the text features of class %s cancel out or are not finite",
                               set->name, set->classes[first + k]);
            for (int j = 0; j < e; j++) out[(int64_t)(first + k) * e + j] = (float)(mean[j] / norm);
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

enum { BLOCK = 64 }; /* images a GEMM takes; fixed, so that results do not depend on the threads */

struct product {
    float *out;
    const float *images, *texts;
    int64_t n, c;
    int e;
};

static void product_block(void *ctx, int64_t block, int thread)
{
    struct product *p = ctx;
    int64_t first = block * BLOCK, n = p->n - first < BLOCK ? p->n - first : BLOCK;
    (void)thread;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)p->c, p->e, 1.0f, p->images + first * p->e, p->e,
                p->texts, p->e, 0.0f, p->out + first * p->c, (int)p->c);
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
    if (set->kind == MODE_TASK_RETRIEVAL)
        st = mode_encode_texts(clip, tokenizer, texts, set->texts, c, batch, false, hook, err);
    else
        st = class_vectors(texts, clip, tokenizer, set, batch, hook, err);
    if (!st) st = mode_encode_pictures(clip, images, pictures, n, batch, false, hook, err);
    if (st) {
        st = mode_error_prefix(err, st, "task %s", set->name);
        goto out;
    }
    openblas_set_num_threads(1);
    struct product p = {cosine, images, texts, n, c, e};
    mode_parallel_for((n + BLOCK - 1) / BLOCK, product_block, &p);
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
