/* mode preprocess - pictures to a model's input, for comparing with other pipelines. */
#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/image.h"
#include "data/npy.h"
#include "models/clip_config.h"
#include "models/clip_folder.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *out, *model, *resize, *filter;
    int64_t size, fill, threads;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, out, "out", NULL, "FILE", "[N, 3, S, S] float32, as .npy"),
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR",
                 "model folder: its size and its preprocess_cfg (weights are not needed)"),
    MODE_OPT_INT(struct options, size, "size", "224", "S", "without --model: input side, pixels"),
    MODE_OPT_STR(struct options, resize, "resize-mode", "shortest", "NAME",
                 "without --model: shortest | longest | squash"),
    MODE_OPT_STR(struct options, filter, "interpolation", "bicubic", "NAME", "without --model: bicubic | bilinear"),
    MODE_OPT_INT(struct options, fill, "fill-color", "0", "N",
                 "without --model: value of the padding of longest, 0 to 255"),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("size", 1, 4096), RANGE("fill-color", 0, 255), RANGE_THREADS,
                                             RANGE_END};

static const char usage[] = "mode preprocess FILE... --out x.npy [options]";
static const char prose[] =
    "Decodes pictures (JPEG, PNG, WebP; detected from the content, not the name) and applies open_clip's evaluation "
    "transform: resize, centre crop, normalisation by mean and standard deviation (OpenAI's without --model). Byte for "
    "byte what Pillow 12 and torchvision give for the picture converted to RGB. Row i is FILE i. If pictures cannot be "
    "read, each of them is reported on stderr, nothing is written, and the exit code is that of the first.";

static enum mode_status settings_of_model(struct mode_preprocess *p, const char *dir, struct mode_error *err)
{
    struct mode_clip_files f;
    struct mode_clip_config c;
    enum mode_status st = mode_clip_files_find_config(&f, dir, err);
    if (!st) st = mode_clip_config_parse(&c, f.model_cfg, f.config, err);
    if (!st) st = mode_clip_preprocess_parse(p, f.preprocess_cfg, c.image_size, f.config, err);
    mode_clip_files_clear(&f);
    return st;
}

static enum mode_status choose(int *out, const char *option, const char *value, const char *const *names,
                               struct mode_error *err)
{
    for (*out = 0; names[*out]; ++*out)
        if (strcmp(names[*out], value) == 0) return MODE_OK;
    struct mode_str known = {0};
    for (int i = 0; names[i]; i++)
        mode_str_printf(&known, "%s%s", i == 0 ? "" : names[i + 1] ? ", " : " or ", names[i]);
    enum mode_status st = MODE_FAIL(err, MODE_E_USAGE, "--%s: \"%s\" is unknown; expected %s", option, value,
                                    known.data);
    mode_str_clear(&known);
    return st;
}

static enum mode_status settings_of_options(struct mode_preprocess *p, const struct options *o, struct mode_error *err)
{
    static const char *const resizes[] = {"shortest", "longest", "squash", NULL}; /* enum mode_resize */
    static const char *const filters[] = {"bicubic", "bilinear", NULL};           /* enum mode_filter */
    enum mode_status st;
    mode_preprocess_default(p, (int)o->size);
    if ((st = choose(&p->resize_mode, "resize-mode", o->resize, resizes, err)) ||
        (st = choose(&p->filter, "interpolation", o->filter, filters, err)))
        return st;
    p->fill = (uint8_t)o->fill;
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

struct work {
    const struct mode_preprocess *p;
    char **paths;
    float *out;
    size_t one; /* floats of a picture */
    struct mode_error *errors;
};

static void one_item(void *ctx, int64_t item, int thread)
{
    struct work *w = ctx;
    (void)thread;
    one_file(w->p, w->paths[item], w->out + (size_t)item * w->one, &w->errors[item]);
}

static enum mode_status all_files(const struct mode_preprocess *p, const char *out_path, char **paths, int n,
                                  struct mode_error *err)
{
    const int64_t dim[] = {n, 3, p->size, p->size};
    struct work w = {.p = p, .paths = paths, .one = 3 * (size_t)p->size * (size_t)p->size};
    int bad = 0;
    enum mode_status st = MODE_OK;
    w.out = calloc((size_t)n, w.one * sizeof *w.out);
    w.errors = calloc((size_t)n, sizeof *w.errors);
    if (!w.out || !w.errors) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for %d pictures of %d pixels a side", n, p->size);
        goto out;
    }
    mode_parallel_for(n, one_item, &w);
    for (int i = 0; i < n; i++) {
        if (!w.errors[i].status) continue;
        if (bad++ == 0) {
            if (err) *err = w.errors[i]; /* printed by the caller */
            st = w.errors[i].status;
        } else
            fprintf(stderr, "mode preprocess: %s\n", w.errors[i].text);
    }
    if (st) {
        if (n > 1) fprintf(stderr, "mode preprocess: %d of %d pictures cannot be read; nothing is written\n", bad, n);
        goto out;
    }
    const struct mode_tensor t = mode_tensor_make(w.out, MODE_DTYPE_F32, 4, dim);
    st = mode_npy_write(out_path, &t, err);
out:
    free(w.out);
    free(w.errors);
    return st;
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
    if (st || (st = option_needed(n_args ? argv[1] : NULL, "FILE", err)) ||
        (st = option_needed(o.out, "--out FILE", err)) || (st = ranges_check(&o, table, ranges, err)))
        return st;
    if (o.threads) mode_parallel_set_threads((int)o.threads);
    if ((st = o.model ? settings_of_model(&p, o.model, err) : settings_of_options(&p, &o, err)) ||
        (st = mode_output_file(o.out, err)) || (st = mode_output_apart(o.out, &o.model, 1, err)) ||
        (st = mode_output_apart(o.out, (const char *const *)argv + 1, (size_t)n_args, err)))
        return st;
    return all_files(&p, o.out, argv + 1, n_args, err);
}

const struct mode_verb mode_verb_preprocess = {"preprocess", "pictures to a model's input, as .npy", run};
