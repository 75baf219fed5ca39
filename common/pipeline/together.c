#include "pipeline/together.h"

#include "base/str.h"
#include "nn/backend.h"
#include "optim/sharded.h"
#include "pipeline/checkpoint.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT = 128 }; /* bytes of a configuration text that the ranks compare */

struct mode_together {
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *params; /* borrowed from clip */
    size_t n_params;
    struct mode_ranks *group;
    struct mode_adamw_step *now;
    struct mode_backend_repeats repeats;
    struct mode_sharded *sharded; /* with a group */
    double *number;               /* [1], backend memory: operand of an all-reduce */
    char *texts;                  /* [size, TEXT], backend memory: result of an all-gather */
};

enum mode_status mode_together_open(struct mode_together **t, struct mode_backend *be, struct mode_clip *clip,
                                    struct mode_ranks *group, struct mode_error *err)
{
    struct mode_together *x = *t = mode_xcalloc(1, sizeof *x);
    void *number = NULL, *texts = NULL;
    *x = (struct mode_together){.be = be, .clip = clip, .group = group};
    x->params = mode_clip_params(clip, &x->n_params);
    enum mode_status st = mode_adamw_begin(&x->now, be, err);
    if (st || !group) return st;
    struct mode_flat flat = mode_clip_flat(clip);
    st = mode_backend_alloc(be, &number, sizeof *x->number, err);
    if (!st) st = mode_backend_alloc(be, &texts, (size_t)group->size * TEXT, err);
    x->number = number;
    x->texts = texts;
    if (!st) st = mode_sharded_open(&x->sharded, be, group, x->params, x->n_params, &flat, 0, err);
    if (!st) mode_clip_set_made(clip, mode_sharded_made, x->sharded);
    return st;
}

void mode_together_close(struct mode_together **t)
{
    struct mode_together *x = *t;
    if (!x) return;
    mode_clip_set_made(x->clip, NULL, NULL);
    mode_sharded_close(&x->sharded);
    mode_backend_free(x->be, x->now);
    mode_backend_free(x->be, x->number);
    mode_backend_free(x->be, x->texts);
    free(x);
    *t = NULL;
}

bool mode_together_first(const struct mode_together *t)
{
    return !t->group || t->group->rank == 0;
}

enum mode_status mode_together_begin(struct mode_together *t, const char *text, struct mode_error *err)
{
    struct mode_ranks *g = t->group;
    if (!g) return MODE_OK;
    char *own = t->texts + g->rank * TEXT, all[MODE_RANKS_MAX * TEXT] = {0};
    MODE_ASSERT(strlen(text) < TEXT && g->size <= MODE_RANKS_MAX);
    strcpy(all, text);
    mode_backend_copy(t->be, own, all, TEXT);
    enum mode_status st = mode_ranks_all_gather(g, t->texts, own, TEXT, MODE_DTYPE_U8, err);
    if (st) return st;
    mode_backend_copy(t->be, all, t->texts, (size_t)g->size * TEXT);
    if ((st = mode_ranks_check(g, err))) return st;
    for (int r = 1; r < g->size; r++)
        if (memcmp(all, all + r * TEXT, TEXT) != 0)
            return MODE_FAIL(err, MODE_E_VALUE,
                             "process %d of %d was started with other options, other data or another step than process "
                             "0: all must be the same",
                             r, g->size);
    if ((st = mode_sharded_broadcast(t->sharded, err))) return st;
    mode_clip_refresh(t->clip);
    return MODE_OK;
}

void mode_together_tell(struct mode_together *t, const struct mode_adamw *options, int64_t step)
{
    mode_adamw_tell(t->now, options, step);
}

static enum mode_status step_ops(struct mode_together *t, struct mode_error *err)
{
    enum mode_status st = mode_clip_train_compute(t->clip, err);
    if (st) return st;
    if (t->group) {
        if (!(st = mode_sharded_reduce(t->sharded, err))) st = mode_sharded_update(t->sharded, t->now, err);
    } else {
        mode_adamw_update(t->be, t->params, t->n_params, t->now);
    }
    if (!st) mode_clip_clamp(t->clip);
    return st;
}

static void repeated_ops(void *ctx)
{
    struct mode_error err;
    MODE_ASSERT(!step_ops(ctx, &err)); /* without a group nothing in it can fail */
}

enum mode_status mode_together_step(struct mode_together *t, const char **why_not, struct mode_error *err)
{
    struct mode_sequence key;
    *why_not = "";
    if (!mode_clip_train_sequence(t->clip, &key)) {
        if (mode_backend_is_device(t->be))
            *why_not = t->group ? "several processes train one model" : "a step is done in pieces";
        return step_ops(t, err);
    }
    key.shape[2] = t->now->clip_norm > 0;
    mode_backend_repeat(t->be, &key, repeated_ops, t);
    mode_backend_repeats(t->be, &t->repeats);
    *why_not = t->repeats.why_not;
    return MODE_OK;
}

double mode_together_norm(const struct mode_together *t)
{
    return mode_adamw_norm(t->now);
}

enum mode_status mode_together_check(struct mode_together *t, struct mode_error *err)
{
    return t->group ? mode_ranks_check(t->group, err) : MODE_OK;
}

enum mode_status mode_together_any(struct mode_together *t, bool *flag, struct mode_error *err)
{
    if (!t->group) return MODE_OK;
    double number = *flag;
    mode_backend_copy(t->be, t->number, &number, sizeof number);
    enum mode_status st = mode_ranks_all_reduce(t->group, t->number, 1, MODE_DTYPE_F64, err);
    mode_backend_copy(t->be, &number, t->number, sizeof number);
    if (!st) st = mode_ranks_check(t->group, err);
    if (!st) *flag = number > 0;
    return st;
}

/* A copy of the parameters' descriptors whose m and v lie in host memory, in the layout of the clip's flat buffer, which
 * has none of locked ones; the caller frees both. */
static struct mode_param *with_moments(float **moments, const struct mode_together *t)
{
    struct mode_flat flat = mode_clip_flat(t->clip);
    struct mode_param *p = mode_xcalloc(t->n_params, sizeof *p);
    *moments = mode_xcalloc(2 * flat.n, sizeof **moments);
    memcpy(p, t->params, t->n_params * sizeof *p);
    for (size_t i = 0; i < t->n_params; i++) {
        if (!p[i].grad.data) continue;
        p[i].m.data = *moments + (mode_f32(&p[i].value) - flat.values);
        p[i].v.data = mode_f32(&p[i].m) + flat.n;
    }
    return p;
}

enum mode_status mode_together_save_moments(struct mode_together *t, const char *path, uint64_t step,
                                            struct mode_error *err)
{
    float *moments = NULL;
    if (!t->group) return mode_checkpoint_save_moments(path, t->be, t->params, t->n_params, step, err);
    if (t->group->rank > 0) return mode_sharded_save_moments(t->sharded, NULL, NULL, err);
    struct mode_param *p = with_moments(&moments, t);
    enum mode_status st = mode_sharded_save_moments(t->sharded, moments, moments + mode_clip_flat(t->clip).n, err);
    if (!st) st = mode_checkpoint_save_moments(path, NULL, p, t->n_params, step, err);
    free(moments);
    free(p);
    return st;
}

enum mode_status mode_together_load_moments(struct mode_together *t, uint64_t *step, const char *path,
                                            struct mode_error *err)
{
    float *moments = NULL;
    if (!t->group) return mode_checkpoint_load_moments(t->be, t->params, t->n_params, step, path, err);
    struct mode_param *p = with_moments(&moments, t);
    enum mode_status st = mode_checkpoint_load_moments(NULL, p, t->n_params, step, path, err);
    if (!st) mode_sharded_load_moments(t->sharded, moments, moments + mode_clip_flat(t->clip).n);
    free(moments);
    free(p);
    return st;
}
