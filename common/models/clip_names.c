/* open_clip's plain ViTs by name: its model_configs/ as a table. */
#include "models/clip_config.h"

#include "base/str.h"

#include <jansson.h>
#include <string.h>

static const struct named {
    const char *name;
    int embed_dim, image_size, layers, width, head_width, patch_size;
    double mlp_ratio; /* of the image tower */
    int text_width, text_heads, text_layers;
    double layer_scale; /* of the image tower; 0: none */
} table[] = {
    {"ViT-S-32", 384, 224, 12, 384, 64, 32, 4, 384, 6, 12, 0},
    {"ViT-S-32-alt", 256, 224, 12, 384, 64, 32, 4, 256, 4, 10, 0},
    {"ViT-S-16", 384, 224, 12, 384, 64, 16, 4, 384, 6, 12, 0},
    {"ViT-S-16-alt", 256, 224, 12, 384, 64, 16, 4, 256, 4, 10, 0},
    {"ViT-M-32", 512, 224, 12, 512, 64, 32, 4, 512, 8, 12, 0},
    {"ViT-M-32-alt", 384, 224, 12, 512, 64, 32, 4, 384, 6, 12, 0},
    {"ViT-M-16", 512, 224, 12, 512, 64, 16, 4, 512, 8, 12, 0},
    {"ViT-M-16-alt", 384, 224, 12, 512, 64, 16, 4, 384, 6, 12, 1e-4},
    {"ViT-B-32", 512, 224, 12, 768, 64, 32, 4, 512, 8, 12, 0},
    {"ViT-B-32-256", 512, 256, 12, 768, 64, 32, 4, 512, 8, 12, 0},
    {"ViT-B-32-plus-256", 640, 256, 12, 896, 64, 32, 4, 640, 10, 12, 0},
    {"ViT-B-16", 512, 224, 12, 768, 64, 16, 4, 512, 8, 12, 0},
    {"ViT-B-16-plus", 640, 224, 12, 896, 64, 16, 4, 640, 10, 12, 0},
    {"ViT-B-16-plus-240", 640, 240, 12, 896, 64, 16, 4, 640, 10, 12, 0},
    {"ViT-L-16", 768, 224, 24, 1024, 64, 16, 4, 768, 12, 12, 0},
    {"ViT-L-16-320", 768, 320, 24, 1024, 64, 16, 4, 768, 12, 12, 0},
    {"ViT-L-14", 768, 224, 24, 1024, 64, 14, 4, 768, 12, 12, 0},
    {"ViT-L-14-280", 768, 280, 24, 1024, 64, 14, 4, 768, 12, 12, 0},
    {"ViT-L-14-336", 768, 336, 24, 1024, 64, 14, 4, 768, 12, 12, 0},
    {"ViT-H-16", 1024, 224, 32, 1280, 80, 16, 4, 1024, 16, 24, 0},
    {"ViT-H-14", 1024, 224, 32, 1280, 80, 14, 4, 1024, 16, 24, 0},
    {"ViT-H-14-378", 1024, 378, 32, 1280, 80, 14, 4, 1024, 16, 24, 0},
    {"ViT-g-14", 1024, 224, 40, 1408, 88, 14, 4.3637, 1024, 16, 24, 0},
    {"ViT-bigG-14", 1280, 224, 48, 1664, 104, 14, 4.9231, 1280, 20, 32, 0},
    {"ViT-e-14", 1280, 224, 56, 1792, 112, 14, 8.5715, 1280, 20, 36, 0},
};

const char *mode_clip_config_name(size_t i)
{
    return i < sizeof table / sizeof *table ? table[i].name : NULL;
}

/* Is `name` this known name of length n, with or without -quickgelu, "/" being as good as "-"? */
static bool is_called(const char *name, const char *known, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (name[i] != known[i] && !(name[i] == '/' && known[i] == '-')) return false;
    return !name[n] || strcmp(name + n, "-quickgelu") == 0;
}

char *mode_clip_config_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct named *t = &table[i];
        size_t n = strlen(t->name);
        if (!is_called(name, t->name, n)) continue;
        json_t *vision = json_pack("{s:i, s:i, s:i, s:i}", "image_size", t->image_size, "layers", t->layers, "width",
                                   t->width, "patch_size", t->patch_size);
        json_t *text = json_pack("{s:i, s:i, s:i, s:i, s:i}", "context_length", 77, "vocab_size", 49408, "width",
                                 t->text_width, "heads", t->text_heads, "layers", t->text_layers);
        MODE_ASSERT(vision && text);
        if (t->head_width != 64) json_object_set_new(vision, "head_width", json_integer(t->head_width));
        if (t->mlp_ratio != 4) json_object_set_new(vision, "mlp_ratio", json_real(t->mlp_ratio));
        if (t->layer_scale > 0) json_object_set_new(vision, "ls_init_value", json_real(t->layer_scale));
        json_t *config = json_pack("{s:i, s:o, s:o}", "embed_dim", t->embed_dim, "vision_cfg", vision, "text_cfg",
                                   text);
        MODE_ASSERT(config);
        if (name[n]) json_object_set_new(config, "quick_gelu", json_true());
        char *out = json_dumps(config, JSON_COMPACT | JSON_REAL_PRECISION(15));
        json_decref(config);
        MODE_ASSERT(out);
        return out;
    }
    return NULL;
}
