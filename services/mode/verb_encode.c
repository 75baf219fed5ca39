/* mode encode - pictures and texts to a CLIP's vectors, as .npy. */
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/npy.h"
#include "data/tokenizer.h"
#include "hub.h"
#include "lines.h"
#include "merges.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "pipeline/encode.h"
#include "ranges.h"
#include "verb.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct backend_options backend;
    const char *model, *images, *texts, *merges, *out;
    int64_t batch, threads;
    bool raw;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR",
                 "folder of open_clip or Hugging Face, or hf-hub:ORG/NAME"),
    MODE_OPT_STR(struct options, images, "images", NULL, "FILE", "paths of pictures, one per line"),
    MODE_OPT_STR(struct options, texts, "texts", NULL, "FILE", "texts, one per line (UTF-8)"),
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR", "where image_features.npy and text_features.npy go"),
    MODE_OPT_FLAG(struct options, raw, "raw", "do not make the rows unit vectors"),
    MERGES_OPTION(struct options, merges),
    MODE_OPT_INT(struct options, batch, "batch", "256", "N", "pictures or texts in a batch"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("batch", 1, 1 << 20), RANGE_THREADS, RANGE_END};

#define IMAGES "image_features.npy"
#define TEXTS  "text_features.npy"

static const char prose[] = "Rows are in the order of the lines: [N, E] f32. A picture that cannot be read or decoded "
                            "is an error.";

/* What is to be encoded, and where its vectors go. */
struct list {
    const char *path, *to;
    struct lines in;
};

static enum mode_status read_list(struct list *l, const char *path, struct mode_error *err)
{
    l->path = path;
    return path ? lines_read(&l->in, path, err) : MODE_OK;
}

static float *rows_of(const struct list *l, const struct mode_clip *clip, struct mode_error *err)
{
    size_t bytes;
    float *out = NULL;
    if (mode_mul_size((size_t)l->in.n + 1, (size_t)mode_clip_embed_dim(clip) * sizeof *out, &bytes))
        out = malloc(bytes);
    if (!out) MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %lld vectors", l->path, (long long)l->in.n);
    return out;
}

static enum mode_status write_features(const struct list *l, float *data, const struct mode_clip *clip,
                                       struct mode_error *err)
{
    struct mode_tensor t = mode_tensor_2d(data, MODE_DTYPE_F32, l->in.n, mode_clip_embed_dim(clip));
    return mode_npy_write(l->to, &t, err);
}

static enum mode_status encode_texts(const struct options *o, const struct list *l, struct mode_clip *clip,
                                     const struct mode_tokenizer *tokenizer, struct mode_error *err)
{
    float *out = rows_of(l, clip, err);
    if (!out) return MODE_E_MEMORY;
    enum mode_status st = mode_encode_texts(clip, tokenizer, out, l->in.line, l->in.n, o->batch, o->raw, NULL, err);
    if (!st) st = write_features(l, out, clip, err);
    free(out);
    return st;
}

/* Once. */
static void on_notice(void *ctx, const char *text)
{
    bool *told = ctx;
    if (!*told) fprintf(stderr, "%s\n", text);
    *told = true;
}

static enum mode_status encode_images(const struct options *o, const struct list *l, struct mode_clip *clip,
                                      struct mode_error *err)
{
    bool told = false;
    const struct mode_encode_hook hook = {.ctx = &told, .notice = on_notice};
    int64_t failed;
    float *out = rows_of(l, clip, err);
    if (!out) return MODE_E_MEMORY;
    enum mode_status st = mode_encode_picture_files(clip, out, l->in.line, l->in.n, o->batch, o->raw, &hook, &failed,
                                                    err);
    if (st && failed < l->in.n) mode_error_prefix(err, st, "%s, line %lld", l->path, (long long)failed + 1);
    if (!st) st = write_features(l, out, clip, err);
    free(out);
    return st;
}

static enum mode_status encode(const struct options *o, struct list *images, struct list *texts, struct mode_error *err)
{
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    struct mode_tokenizer *tokenizer = NULL;
    enum mode_status st = MODE_OK;
    if (texts->path && (st = mode_tokenizer_open_clip(&tokenizer, o->merges, MODE_CLIP_CLEAN_OPENAI, err))) goto out;
    if ((st = backend_open(&be, &o->backend, err)) || (st = mode_clip_load(&clip, be, o->model, err))) goto out;
    if (mode_clip_note(clip)[0]) fprintf(stderr, "%s: %s\n", o->model, mode_clip_note(clip));
    if (images->path && (st = encode_images(o, images, clip, err))) goto out;
    if (texts->path) st = encode_texts(o, texts, clip, tokenizer, err);
    for (const struct list *l = images; !st && l; l = l == images ? texts : NULL)
        if (l->path)
            printf("%s/%s [%lld, %d]\n", o->out, l == images ? IMAGES : TEXTS, (long long)l->in.n,
                   mode_clip_embed_dim(clip));
out:
    mode_clip_close(&clip);
    mode_backend_close(&be);
    mode_tokenizer_close(&tokenizer);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct list images = {0}, texts = {0};
    struct mode_output_folder folder = {0};
    struct mode_output_set set = {0};
    char *fetched = NULL;
    int n = 0;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode encode --model DIR [--images FILE] [--texts FILE] --out DIR", prose);
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n, err))) return st;
    if ((st = arguments_check(n, 0, argv, NULL, err)) || (st = option_needed(o.model, "--model DIR", err)) ||
        (st = option_needed(o.out, "--out DIR", err)) ||
        (st = option_needed(o.images ? o.images : o.texts, "--images FILE or --texts FILE", err)) ||
        (st = ranges_check(&o, table, ranges, err)) || (st = backend_check(&o.backend, err)))
        return st;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    char *path[] = {mode_path_join(o.out, IMAGES), mode_path_join(o.out, TEXTS)};
    if ((o.texts && (st = merges_find(&o.merges, err))) || (st = mode_hub_clip(&o.model, &fetched, err)) ||
        (st = read_list(&images, o.images, err)) || (st = read_list(&texts, o.texts, err)) ||
        (st = mode_output_folder_make(&folder, o.out, err)))
        goto out;
    const char *const names[] = {path[o.images ? 0 : 1], path[1]};
    const size_t n_names = o.images && o.texts ? 2 : 1;
    const char *const inputs[] = {o.model, o.images, o.texts, o.merges};
    st = mode_output_apart(o.out, inputs, 4, err);
    for (size_t i = 0; !st && i < n_names; i++) st = mode_output_apart(names[i], inputs, 4, err);
    if (!st && !(st = mode_output_set_open(&set, names, n_names, err))) {
        images.to = set.aside[0];
        texts.to = set.aside[n_names - 1];
        st = encode(&o, &images, &texts, err);
        st = mode_output_set_close(&set, st, err);
    }
out:
    mode_output_folder_close(&folder, st != MODE_OK);
    lines_free(&images.in);
    lines_free(&texts.in);
    free(path[0]);
    free(path[1]);
    free(fetched);
    return st;
}

const struct mode_verb mode_verb_encode = {"encode", "pictures and texts to CLIP vectors (.npy)", run};
