/* Locked towers: which parameters are not trained. open_clip's groups of a tower, from its input on: 0 is what comes
 * before the blocks, i + 1 is block i, the last one with the final LayerNorm, layers + 1 is the projection. The first
 * `locked` groups of a tower are locked, so a tower's backward pass ends at the first group that is not.
 *
 * Source: open_clip 3.3.0, VisionTransformer.lock and lock_text_tower (docs/decisions/0049-locked-towers.md). */
#include "models/clip_impl.h"

/* The tower that p belongs to and its group there; NULL: logit_scale. */
static const struct clip_tower *group_of(int64_t *group, const struct mode_clip *c, const struct mode_param *p)
{
    const struct clip_tower *const towers[] = {&c->image, &c->text};
    *group = 0;
    if (p == c->logit_scale) return NULL;
    for (int k = 0; k < 2; k++) {
        const struct clip_tower *t = towers[k];
        for (int64_t i = 0; i < t->cfg.layers; i++) {
            *group = i + 1;
            if (p >= t->blocks[i].ln_1_w && p < t->blocks[i].ln_1_w + mode__clip_block_params(&t->blocks[i])) return t;
        }
        if (p == t->ln_w || p == t->ln_b) return t; /* group is the last block's */
        *group = t->cfg.layers + 1;
        if (p == t->proj || p == t->proj_w || p == t->proj_b) return t;
        *group = 0;
    }
    return p == c->token_embedding || p == c->positional ? &c->text : &c->image;
}

bool mode__clip_is_locked(const struct mode_clip *clip, const struct mode_param *p)
{
    int64_t group;
    const struct clip_tower *t = group_of(&group, clip, p);
    return t && group < t->locked;
}

static int64_t locked_groups(const struct clip_tower *t, bool lock, int64_t unlocked)
{
    const bool projects = t->proj || t->proj_w;
    const int64_t groups = t->cfg.layers + 1 + projects;
    MODE_ASSERT(unlocked >= 0);
    if (!lock || unlocked >= groups) return 0;
    return unlocked == 0 ? t->cfg.layers + 2 : groups - unlocked;
}

enum mode_status mode_clip_set_lock(struct mode_clip *clip, const struct mode_clip_lock *lock, struct mode_error *err)
{
    const int64_t image = locked_groups(&clip->image, lock->image, lock->image_unlocked_groups),
                  text = locked_groups(&clip->text, lock->text, lock->text_unlocked_layers);
    MODE_ASSERT(!clip->train);
    if (image == clip->image.locked && text == clip->text.locked) return MODE_OK;
    clip->image.locked = image;
    clip->text.locked = text;
    for (size_t i = 0; i < clip->n_params; i++) {
        struct mode_param *p = &clip->params[i];
        p->frozen = mode__clip_is_locked(clip, p) || (p == clip->visual_positional && clip->cfg.image_sincos);
    }
    mode_clip_set_memory(clip, clip->accumulate, false);
    return clip->be ? mode__clip_place(clip, err) : MODE_OK;
}

struct mode_clip_locked mode_clip_locked(const struct mode_clip *clip)
{
    struct mode_clip_locked l = {0};
    for (size_t i = 0; i < clip->n_params; i++) {
        const size_t n = (size_t)mode_tensor_count(&clip->params[i].value);
        const bool locked = mode__clip_is_locked(clip, &clip->params[i]);
        l.all_tensors++;
        l.all += n;
        l.tensors += locked;
        l.parameters += locked ? n : 0;
    }
    return l;
}
