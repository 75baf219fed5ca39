/* Which blocks are kept whole, which are lean, which are made again: the quickest way that fits.
 *
 * DESIGN: bytes are counted by the plan itself (clip_acts.c), time in floating point operations. A byte that a lean
 * block saves costs less than one that a checkpointed block saves, and the latter costs the more the wider the tower: so
 * blocks become lean one after another until the plan fits, then checkpoints, the narrower tower's first; what is then
 * left over is given back to the blocks for which it saves the most. */
#include "models/clip_impl.h"

/* Numbers that are read or written in place of one floating point operation of a product take this many. */
static const double TRAFFIC = 64;

/* Of one pair through one block: its way in, or what its policy makes again of it. */
static double way_in(const struct mode_clip_tower_config *t, int64_t tokens, bool pooled)
{
    double d = (double)t->width, f = (double)t->mlp, r = (double)tokens, q = pooled ? 1 : r;
    return 2 * r * 2 * d * d + 2 * q * 2 * d * d + 4 * q * d * f + 4 * q * r * d;
}

static double made_again(const struct mode_clip_tower_config *t, int64_t tokens, bool pooled, enum mode_clip_policy p)
{
    double d = (double)t->width, f = (double)t->mlp, r = (double)tokens, q = pooled ? 1 : r;
    switch (p) {
    case MODE_CLIP_LEAN: return TRAFFIC * (2 * r * d + 2 * q * d + 3 * q * f);
    case MODE_CLIP_CHECKPOINT: return way_in(t, tokens, pooled) - (t->layer_scale ? 0 : 2 * q * d * f);
    default: return 0;
    }
}

double mode__clip_again(const struct mode_clip *clip)
{
    double in = 0, again = 0;
    for (int k = 0; k < 2; k++) {
        const struct clip_tower *t = k ? &clip->text : &clip->image;
        const int64_t *n = k ? clip->kept.text : clip->kept.image;
        int64_t tokens = k ? clip->cfg.context_length : mode__clip_image_tokens(clip);
        for (int64_t i = 0; i < t->cfg.layers; i++) {
            bool pooled = i == t->cfg.layers - 1 && mode__clip_pooled_last(clip, t);
            in += way_in(&t->cfg, tokens, pooled);
            again += made_again(&t->cfg, tokens, pooled, mode__clip_policy(n, i));
        }
    }
    return again / in;
}

void mode_clip_set_blocks(struct mode_clip *clip, const struct mode_clip_blocks *blocks)
{
    int64_t image = 0, text = 0;
    for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
        MODE_ASSERT(blocks->image[p] >= 0 && blocks->text[p] >= 0);
        image += blocks->image[p];
        text += blocks->text[p];
    }
    MODE_ASSERT(!clip->train && image == clip->image.cfg.layers && text == clip->text.cfg.layers);
    clip->kept = *blocks;
}

struct fit {
    struct mode_clip *clip;
    int64_t batch, *narrow, *wide; /* the two towers' numbers */
    size_t bytes;
};

static bool fits(const struct fit *f)
{
    struct mode_clip_memory m;
    mode_clip_memory(&m, f->clip, f->batch);
    return m.total <= f->bytes;
}

/* Until it fits, or nothing is left to move. */
static bool save(const struct fit *f, int64_t *n, enum mode_clip_policy from, enum mode_clip_policy to)
{
    while (!fits(f) && n[from] > 0) {
        n[from]--;
        n[to]++;
    }
    return fits(f);
}

/* As long as it fits; true: something was moved. */
static bool spend(const struct fit *f, int64_t *n, enum mode_clip_policy from, enum mode_clip_policy to)
{
    bool any = false;
    while (n[from] > 0) {
        n[from]--;
        n[to]++;
        if (fits(f)) {
            any = true;
            continue;
        }
        n[from]++;
        n[to]--;
        break;
    }
    return any;
}

bool mode_clip_fit(struct mode_clip *clip, int64_t batch, size_t bytes)
{
    bool image_wide = clip->image.cfg.width >= clip->text.cfg.width, any = true;
    struct fit f = {clip, batch, image_wide ? clip->kept.text : clip->kept.image,
                    image_wide ? clip->kept.image : clip->kept.text, bytes};
    mode_clip_set_memory(clip, clip->accumulate, false);
    if (!save(&f, f.narrow, MODE_CLIP_KEEP, MODE_CLIP_LEAN) && !save(&f, f.wide, MODE_CLIP_KEEP, MODE_CLIP_LEAN) &&
        !save(&f, f.narrow, MODE_CLIP_LEAN, MODE_CLIP_CHECKPOINT) &&
        !save(&f, f.wide, MODE_CLIP_LEAN, MODE_CLIP_CHECKPOINT))
        return false;
    while (any) {
        any = spend(&f, f.wide, MODE_CLIP_CHECKPOINT, MODE_CLIP_LEAN);
        any |= spend(&f, f.narrow, MODE_CLIP_CHECKPOINT, MODE_CLIP_LEAN);
        any |= spend(&f, f.wide, MODE_CLIP_LEAN, MODE_CLIP_KEEP);
        any |= spend(&f, f.narrow, MODE_CLIP_LEAN, MODE_CLIP_KEEP);
    }
    return true;
}
