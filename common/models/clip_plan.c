/* Chooses the blocks' policies (keep, lean, checkpoint): the fastest choice that fits into memory.
 *
 * DESIGN: only the number of blocks per policy matters, so an exhaustive search is cheap: about 10^6 combinations for
 * the largest model, milliseconds. Bytes are the memory plan's (clip_acts.c): saved activations add up block by block;
 * the reused region depends only on each tower's most saving policy, which its first blocks have. Time is estimated in
 * FLOPs. */
#include "models/clip_impl.h"

#include <math.h>
#include <string.h>

/* One value read or written by a memory-bound op takes as long as this many FLOPs of a GEMM. */
static const double TRAFFIC = 64;

/* FLOPs of one pair in one block: of its forward, and of what its policy recomputes. */
static double forward_flops(const struct mode_clip_tower_config *t, int64_t tokens, bool pooled)
{
    double d = (double)t->width, f = (double)t->mlp, r = (double)tokens, q = pooled ? 1 : r;
    return 2 * r * 2 * d * d + 2 * q * 2 * d * d + 4 * q * d * f + 4 * q * r * d;
}

static double recompute_flops(const struct mode_clip_tower_config *t, int64_t tokens, bool pooled,
                              enum mode_clip_policy p)
{
    double d = (double)t->width, f = (double)t->mlp, r = (double)tokens, q = pooled ? 1 : r;
    switch (p) {
    case MODE_CLIP_LEAN: return TRAFFIC * (2 * r * d + 2 * q * d + 3 * q * f);
    case MODE_CLIP_CHECKPOINT: return forward_flops(t, tokens, pooled) - (t->layer_scale ? 0 : 2 * q * d * f);
    default: return 0;
    }
}

double mode__clip_recompute_share(const struct mode_clip *clip)
{
    double forward = 0, again = 0;
    for (int k = 0; k < 2; k++) {
        const struct clip_tower *t = k ? &clip->text : &clip->image;
        const int64_t *n = k ? clip->kept.text : clip->kept.image;
        int64_t tokens = k ? clip->cfg.context_length : mode__clip_image_rows(clip, true);
        const int64_t first = mode__clip_first_trained(t);
        for (int64_t i = 0; i < t->cfg.layers; i++) {
            bool pooled = i == t->cfg.layers - 1 && mode__clip_pooled_last(clip, t);
            forward += forward_flops(&t->cfg, tokens, pooled);
            if (i >= first) again += recompute_flops(&t->cfg, tokens, pooled, mode__clip_policy(n, i - first));
        }
    }
    return again / forward;
}

void mode_clip_set_blocks(struct mode_clip *clip, const struct mode_clip_blocks *blocks)
{
    int64_t image = 0, text = 0;
    for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
        MODE_ASSERT(blocks->image[p] >= 0 && blocks->text[p] >= 0);
        image += blocks->image[p];
        text += blocks->text[p];
    }
    MODE_ASSERT(!clip->train && image == mode__clip_trained_blocks(&clip->image) &&
                text == mode__clip_trained_blocks(&clip->text));
    clip->kept = *blocks;
}

/* The cost of each policy in a tower: [0] of a block, [1] of its last block. All zero without trained blocks. */
struct choice {
    int64_t layers, *n;                  /* trained blocks; n: output, blocks per policy */
    size_t kept[2][MODE_CLIP_POLICIES];  /* bytes */
    double again[2][MODE_CLIP_POLICIES]; /* FLOPs */
};

static struct choice choice_of(struct mode_clip *clip, const struct clip_tower *t, int64_t *n, int64_t batch)
{
    struct choice c = {.layers = mode__clip_trained_blocks(t), .n = n};
    int64_t tokens = t == &clip->text ? clip->cfg.context_length : mode__clip_image_rows(clip, true);
    bool pooled = mode__clip_pooled_last(clip, t);
    for (int p = 0; p < MODE_CLIP_POLICIES && c.layers > 0; p++)
        for (int last = 0; last < 2; last++) {
            c.kept[last][p] = mode__clip_kept_bytes(clip, t, batch, last ? t->cfg.layers - 1 : -1, p);
            c.again[last][p] = recompute_flops(&t->cfg, tokens, last && pooled, p);
        }
    return c;
}

/* The cost of `checkpoint` checkpointed blocks, then `lean` ones, the rest kept. Returns the first block's policy. */
static enum mode_clip_policy tower_cost(size_t *kept, double *again, const struct choice *c, int64_t checkpoint,
                                        int64_t lean)
{
    const int64_t n[MODE_CLIP_POLICIES] = {c->layers - checkpoint - lean, lean, checkpoint};
    const enum mode_clip_policy last = mode__clip_policy(n, c->layers - 1);
    *kept = c->kept[1][last];
    *again = c->again[1][last];
    for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
        const int64_t others = n[p] - (p == (int)last);
        *kept += (size_t)others * c->kept[0][p];
        *again += (double)others * c->again[0][p];
    }
    return mode__clip_policy(n, 0);
}

static void set(const struct choice *c, int64_t checkpoint, int64_t lean)
{
    c->n[MODE_CLIP_KEEP] = c->layers - checkpoint - lean;
    c->n[MODE_CLIP_LEAN] = lean;
    c->n[MODE_CLIP_CHECKPOINT] = checkpoint;
}

/* Bytes of the reused region where these are the towers' most saving policies. */
static size_t turns_of(struct mode_clip *clip, int64_t batch, int image, int text)
{
    struct mode_clip_memory m;
    memset(&clip->kept, 0, sizeof clip->kept);
    clip->kept.image[image] = mode__clip_trained_blocks(&clip->image);
    clip->kept.text[text] = mode__clip_trained_blocks(&clip->text);
    mode_clip_memory(&m, clip, batch);
    return m.turns;
}

bool mode_clip_fit(struct mode_clip *clip, int64_t batch, size_t bytes)
{
    struct mode_clip_memory all, m;
    double best = INFINITY;
    mode_clip_set_memory(clip, clip->accumulate, true);
    mode_clip_memory(&all, clip, batch);
    if (all.total > bytes) return false;
    const struct choice image = choice_of(clip, &clip->image, clip->kept.image, batch),
                        text = choice_of(clip, &clip->text, clip->kept.text, batch);
    const size_t rest = all.total - all.turns - all.kept[MODE_CLIP_CHECKPOINT];
    size_t turns[MODE_CLIP_POLICIES][MODE_CLIP_POLICIES];
    for (int p = 0; p < MODE_CLIP_POLICIES; p++)
        for (int q = 0; q < MODE_CLIP_POLICIES; q++) turns[p][q] = turns_of(clip, batch, p, q);
    for (int64_t a = 0; a <= image.layers; a++)
        for (int64_t b = 0; a + b <= image.layers; b++) {
            size_t kept[2];
            double again[2];
            const enum mode_clip_policy p = tower_cost(&kept[0], &again[0], &image, a, b);
            for (int64_t c = 0; c <= text.layers && again[0] < best; c++)
                for (int64_t d = 0; c + d <= text.layers; d++) {
                    const enum mode_clip_policy q = tower_cost(&kept[1], &again[1], &text, c, d);
                    const size_t total = rest + kept[0] + kept[1] + turns[p][q];
                    if (total > bytes || again[0] + again[1] >= best) continue;
                    best = again[0] + again[1];
                    set(&image, a, b);
                    set(&text, c, d);
                }
        }
    mode_clip_memory(&m, clip, batch);
    MODE_ASSERT(best < INFINITY && m.total <= bytes);
    return true;
}
