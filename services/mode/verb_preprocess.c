/* mode preprocess - pictures to a model's input, for comparing with other pipelines. */
#include "base/file.h"
#include "base/options.h"
#include "base/str.h"
#include "data/image.h"
#include "data/npy.h"
#include "models/clip_config.h"
#include "verb.h"

#include <stdlib.h>
#include <string.h>

struct options {
    const char *out, *model, *resize;
    int64_t size;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, out, "out", NULL, "FILE", "[N, 3, S, S] float32, as .npy"),
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR",
                 "open_clip folder: its size, mean, deviation and resize mode"),
    MODE_OPT_INT(struct options, size, "size", "224", "S", "without --model: input side, pixels"),
    MODE_OPT_STR(struct options, resize, "resize-mode", "shortest", "NAME",
                 "without --model: shortest | longest | squash"),
    MODE_OPT_END};

static const char usage[] = "mode preprocess FILE... --out x.npy [options]";
static const char prose[] =
    "Decodes pictures and applies the evaluation transform: bicubic resize, centre crop, mean and deviation\n"
    "(OpenAI's without --model). Byte for byte what Pillow 12 and torchvision give.";

static enum mode_status settings_of_model(struct mode_preprocess *p, const char *dir, struct mode_error *err)
{
    char *path = mode_path_join(dir, "open_clip_config.json"), *text = NULL, *model = NULL, *preprocess = NULL;
    struct mode_clip_config c;
    enum mode_status st = mode_file_read(path, 1 << 20, &text, NULL, err);
    if (!st) st = mode_clip_config_split(&model, &preprocess, text, path, err);
    if (!st) st = mode_clip_config_parse(&c, model, path, err);
    if (!st) st = mode_clip_preprocess_parse(p, preprocess, c.image_size, path, err);
    free(path);
    free(text);
    free(model);
    free(preprocess);
    return st;
}

static enum mode_status settings_of_options(struct mode_preprocess *p, const struct options *o, struct mode_error *err)
{
    static const char *const modes[] = {"shortest", "longest", "squash"};
    int m = 0;
    if (o->size < 1 || o->size > 4096) return MODE_FAIL(err, MODE_E_USAGE, "--size: expected 1 to 4096");
    while (m < 3 && strcmp(modes[m], o->resize) != 0) m++;
    if (m == 3)
        return MODE_FAIL(err, MODE_E_USAGE, "--resize-mode: \"%s\", expected shortest, longest or squash", o->resize);
    mode_preprocess_default(p, (int)o->size);
    p->resize_mode = m;
    return MODE_OK;
}

static enum mode_status one_file(const struct mode_preprocess *p, const char *path, float *out, struct mode_error *err)
{
    const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct mode_mapping map;
    enum mode_status st = mode_file_map(path, &map, err);
    if (st) return st;
    const struct mode_picture file = {.data = map.data, .size = map.size, .limits = &limits};
    st = mode_preprocess_eval_file(p, &file, out, err);
    mode_file_unmap(&map);
    return st ? mode_error_prefix(err, st, "%s", path) : MODE_OK;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_preprocess p;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if (n_args == 0 || !o.out) return MODE_FAIL(err, MODE_E_USAGE, "usage: %s", usage);
    if ((st = o.model ? settings_of_model(&p, o.model, err) : settings_of_options(&p, &o, err))) return st;
    const size_t one = 3 * (size_t)p.size * (size_t)p.size;
    float *out = calloc((size_t)n_args, one * sizeof *out);
    if (!out) return MODE_FAIL(err, MODE_E_MEMORY, "no memory for %d pictures of %d pixels a side", n_args, p.size);
    for (int i = 0; !st && i < n_args; i++) st = one_file(&p, argv[i + 1], out + (size_t)i * one, err);
    if (!st) {
        const int64_t dim[] = {n_args, 3, p.size, p.size};
        const struct mode_tensor t = mode_tensor_make(out, MODE_DTYPE_F32, 4, dim);
        st = mode_npy_write(o.out, &t, err);
    }
    free(out);
    return st;
}

const struct mode_verb mode_verb_preprocess = {"preprocess", "pictures to a model's input, as .npy", run};
