/* clip_variants.h - small CLIPs of every kind of tower. */
#ifndef MODE_TESTS_CLIP_VARIANTS_H
#define MODE_TESTS_CLIP_VARIANTS_H

#include "base/rng.h"
#include "base/str.h"
#include "models/clip_train.h"

/* Every other kind of tower: %s vision, %s text, %s the rest. */
static const char VARIANT[] = "{\"embed_dim\": 12, %s"
                              " \"vision_cfg\": {\"image_size\": 12, \"patch_size\": 4, \"width\": 16, \"layers\": 3,"
                              "                  \"head_width\": 8, %s},"
                              " \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 23, \"width\": 12, \"heads\": 3,"
                              "                \"layers\": 3, %s}}";
static const char *const variants[][3] = {
    {"\"quick_gelu\": true,", "\"pool_type\": \"tok\"", "\"pool_type\": \"argmax\""},
    {"", "\"pool_type\": \"avg\", \"ls_init_value\": 0.4", "\"pool_type\": \"first\", \"ls_init_value\": 0.3"},
    {"\"nonscalar_logit_scale\": true,", "\"pool_type\": \"avg\", \"final_ln_after_pool\": true",
     "\"pool_type\": \"last\", \"proj_bias\": true"},
    {"\"custom_text\": true,", "\"no_ln_pre\": true, \"act_kwargs\": {\"approximate\": \"tanh\"}",
     "\"no_causal_mask\": true, \"proj_type\": \"none\", \"norm_kwargs\": {\"eps\": 1e-6}"},
    {"\"init_logit_scale\": 1.5,", "\"pos_embed_type\": \"sin_cos_2d\", \"mlp_ratio\": 0.7",
     "\"pool_type\": \"eos\", \"eos_id\": 22"},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static inline char *variant(int i)
{
    return mode_xasprintf(VARIANT, variants[i][0], variants[i][1], variants[i][2]);
}

/* A freshly initialised model has tiny gradients in places: make weights larger, so that errors exceed the rounding. On
 * the host. */
static inline void variant_perturb(struct mode_clip *clip)
{
    size_t n;
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) {
        struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 2, i);
        for (int64_t j = 0; j < mode_tensor_count(&p[i].value); j++)
            mode_f32(&p[i].value)[j] += 0.15f * (float)mode_rng_normal(&r);
    }
}

#endif
