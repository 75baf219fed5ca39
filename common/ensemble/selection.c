#include "ensemble/selection.h"

#include "base/file.h"
#include "base/parallel.h"
#include "base/str.h"
#include "cluster/cost.h"
#include "cluster/nearest.h"
#include "data/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void mode_selection_init(struct mode_selection *s, const struct mode_centres *c, const char *digest)
{
    *s = (struct mode_selection){.m = c->m,
                                 .chosen = mode_xcalloc((size_t)c->m, sizeof *s->chosen),
                                 .encoder_id = mode_xstrdup(c->encoder_id),
                                 .centres = mode_xstrdup(digest),
                                 .grown_from = c->grown_from ? mode_xstrdup(c->grown_from) : NULL};
}

struct search {
    const struct mode_centres *c;
    const float *words;
    const int32_t *first; /* [k] every word's nearest */
    struct mode_chosen *out;
};

/* The next nearest centres of a word after the first, by insertion into a sorted list; in f64, ties to the lower id. */
static void one_word(void *ctx, int64_t word, int thread)
{
    const struct search *q = ctx;
    const struct mode_centres *c = q->c;
    const int nearest = q->out->nearest;
    int32_t *id = q->out->fine_id + word * nearest;
    double *square = mode_xmalloc((size_t)nearest * sizeof *square);
    int n = 1;
    (void)thread;
    id[0] = q->first[word];
    square[0] = -1;
    for (int i = 0; i < c->m; i++) {
        double sum = 0;
        if (i == id[0]) continue;
        for (int j = 0; j < c->d; j++) {
            const double d = (double)q->words[word * c->d + j] - (double)c->fine[(int64_t)i * c->d + j];
            sum += d * d;
        }
        int at = n;
        while (at > 1 && sum < square[at - 1]) at--;
        if (at == nearest) continue;
        if (n < nearest) n++;
        memmove(id + at + 1, id + at, (size_t)(n - 1 - at) * sizeof *id);
        memmove(square + at + 1, square + at, (size_t)(n - 1 - at) * sizeof *square);
        id[at] = i;
        square[at] = sum;
    }
    for (int i = 1; i < n; i++) q->out->distance[word * nearest + i] = (float)sqrt(square[i]);
    free(square);
}

enum mode_status mode_selection_add(struct mode_selection *s, struct mode_chosen *chosen, const struct mode_centres *c,
                                    const float *words, int k, int nearest, struct mode_error *err)
{
    struct mode_chosen all = {.k = k, .nearest = nearest < c->m ? nearest : c->m};
    int32_t *first = NULL;
    float *distance = NULL;
    enum mode_status st;
    MODE_ASSERT(s->m == c->m && nearest >= 1);
    if (chosen) *chosen = (struct mode_chosen){0};
    if (k < 1) return MODE_FAIL(err, MODE_E_VALUE, "selection: a task without words selects nothing");
    if ((st = mode_rows_check(words, k, c->d, true, NULL, "task words", err))) return st;
    const size_t n = (size_t)k * (size_t)all.nearest;
    all.fine_id = malloc(n * sizeof *all.fine_id);
    all.distance = malloc(n * sizeof *all.distance);
    first = malloc((size_t)k * sizeof *first);
    distance = malloc((size_t)k * sizeof *distance);
    if (!all.fine_id || !all.distance || !first || !distance) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "selection: no memory for %d words", k);
        goto out;
    }
    /* also for cosine centres, as the routers do: for unit rows L2 gives the same order */
    if ((st = mode_nearest(NULL, first, distance, MODE_METRIC_EUCLIDEAN, words, k, c->fine, c->m, c->d, err))) goto out;
    struct search q = {c, words, first, &all};
    if (all.nearest > 1)
        mode_parallel_for(k, one_word, &q);
    else
        memcpy(all.fine_id, first, (size_t)k * sizeof *first);
    for (int i = 0; i < k; i++) all.distance[(int64_t)i * all.nearest] = distance[i];
    for (size_t i = 0; i < n; i++) {
        s->n_chosen += !s->chosen[all.fine_id[i]];
        s->chosen[all.fine_id[i]] = 1;
    }
    if (chosen) {
        *chosen = all;
        all = (struct mode_chosen){0};
    }
out:
    mode_chosen_clear(&all);
    free(first);
    free(distance);
    return st;
}

enum mode_status mode_selection_save(const struct mode_selection *s, const char *path, struct mode_error *err)
{
    struct mode_tensor chosen = mode_tensor_1d(s->chosen, MODE_DTYPE_I32, s->m);
    char k_id[] = "encoder_id", k_centres[] = "centres", k_grown[] = "grown_from";
    struct mode_meta meta[] = {{k_id, s->encoder_id}, {k_centres, s->centres}, {k_grown, s->grown_from}};
    chosen.name = "chosen";
    return mode_safetensors_write(path, &chosen, 1, meta, s->grown_from ? 3 : 2, err);
}

enum mode_status mode_selection_load(struct mode_selection *s, const char *path, struct mode_error *err)
{
    struct mode_safetensors f;
    const struct mode_tensor *chosen;
    *s = (struct mode_selection){0};
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    const char *id = mode_safetensors_meta(&f, "encoder_id"), *centres = mode_safetensors_meta(&f, "centres"),
               *grown_from = mode_safetensors_meta(&f, "grown_from");
    if ((st = mode_safetensors_need(&f, "chosen", MODE_DTYPE_I32, 1, (int64_t[]){-1}, &chosen, err))) goto out;
    if (!id || !centres || chosen->dim[0] < 1 || chosen->dim[0] > INT32_MAX) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: is not a selection: it lacks centres, or the metadata encoder_id and centres", path);
        goto out;
    }
    s->m = (int)chosen->dim[0];
    s->chosen = mode_xmalloc((size_t)s->m * sizeof *s->chosen);
    s->encoder_id = mode_xstrdup(id);
    s->centres = mode_xstrdup(centres);
    s->grown_from = grown_from ? mode_xstrdup(grown_from) : NULL;
    memcpy(s->chosen, chosen->data, (size_t)s->m * sizeof *s->chosen);
    for (int i = 0; i < s->m && !st; i++) {
        if (s->chosen[i] != 0 && s->chosen[i] != 1)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: chosen of fine centre %d is %d, expected 0 or 1", path, i,
                           s->chosen[i]);
        s->n_chosen += s->chosen[i] == 1;
    }
out:
    mode_safetensors_close(&f);
    return st;
}

void mode_selection_clear(struct mode_selection *s)
{
    free(s->chosen);
    free(s->encoder_id);
    free(s->centres);
    free(s->grown_from);
    *s = (struct mode_selection){0};
}

void mode_chosen_clear(struct mode_chosen *c)
{
    free(c->fine_id);
    free(c->distance);
    *c = (struct mode_chosen){0};
}
