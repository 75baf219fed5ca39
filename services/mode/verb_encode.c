/* mode encode - pictures and texts to a CLIP's vectors, as .npy. */
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/npy.h"
#include "data/tokenizer.h"
#include "merges.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "pipeline/encode.h"
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
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR", "folder of open_clip or Hugging Face"),
    MODE_OPT_STR(struct options, images, "images", NULL, "FILE", "paths of pictures, one per line"),
    MODE_OPT_STR(struct options, texts, "texts", NULL, "FILE", "texts, one per line (UTF-8)"),
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR", "where image_features.npy and text_features.npy go"),
    MODE_OPT_FLAG(struct options, raw, "raw", "do not make the rows unit vectors"),
    MERGES_OPTION(struct options, merges),
    MODE_OPT_INT(struct options, batch, "batch", "256", "N", "pictures or texts in a batch"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_END};

static const char prose[] = "Rows are in the order of the lines: [N, E] f32. A picture that cannot be read or decoded "
                            "is an error.";

/* Cuts text (kept alive by the caller) into its lines; a final line without newline counts. */
static char **split_lines(char *text, int64_t *n)
{
    char **lines = NULL;
    *n = 0;
    while (*text) {
        char *end = strchr(text, '\n'), *next = end ? end + 1 : text + strlen(text);
        if (end) *end = '\0';
        size_t len = strlen(text);
        if (len && text[len - 1] == '\r') text[len - 1] = '\0';
        lines = mode_xrealloc(lines, (size_t)(*n + 1) * sizeof *lines);
        lines[(*n)++] = text;
        text = next;
    }
    return lines;
}

static enum mode_status write_features(const char *dir, const char *name, float *data, int64_t n, int e,
                                       struct mode_error *err)
{
    char *path = mode_path_join(dir, name);
    struct mode_tensor t = mode_tensor_2d(data, MODE_DTYPE_F32, n, e);
    enum mode_status st = mode_npy_write(path, &t, err);
    if (!st) printf("%s [%lld, %d]\n", path, (long long)n, e);
    free(path);
    return st;
}

static enum mode_status encode_texts(const struct options *o, struct mode_clip *clip, struct mode_error *err)
{
    struct mode_tokenizer *tokenizer = NULL;
    char *text = NULL, **lines = NULL;
    int64_t n = 0;
    float *out = NULL;
    int e = mode_clip_embed_dim(clip);
    enum mode_status st;
    if ((st = mode_tokenizer_open_clip(&tokenizer, o->merges, MODE_CLIP_CLEAN_OPENAI, err))) goto out;
    if ((st = mode_file_read(o->texts, 0, &text, NULL, err))) goto out;
    lines = split_lines(text, &n);
    out = mode_xmalloc((size_t)n * (size_t)e * sizeof *out);
    if ((st = mode_encode_texts(clip, tokenizer, out, lines, n, o->batch, o->raw, NULL, err))) goto out;
    st = write_features(o->out, "text_features.npy", out, n, e, err);
out:
    free(out);
    free(lines);
    free(text);
    mode_tokenizer_close(&tokenizer);
    return st;
}

/* Once. */
static void on_notice(void *ctx, const char *text)
{
    bool *told = ctx;
    if (!*told) fprintf(stderr, "%s\n", text);
    *told = true;
}

/* So many batches of files at a time are in memory. */
enum { BATCHES = 16 };
static enum mode_status encode_images(const struct options *o, struct mode_clip *clip, struct mode_error *err)
{
    char *text = NULL, **lines = NULL;
    int64_t n = 0;
    int e = mode_clip_embed_dim(clip);
    float *out = NULL;
    bool told = false;
    const struct mode_encode_hook hook = {.ctx = &told, .notice = on_notice};
    enum mode_status st = mode_file_read(o->images, 0, &text, NULL, err);
    if (st) return st;
    lines = split_lines(text, &n);
    out = mode_xmalloc((size_t)n * (size_t)e * sizeof *out);
    const int64_t most = o->batch < n / BATCHES ? o->batch * BATCHES : n;
    struct mode_encode_picture *p = mode_xcalloc((size_t)most, sizeof *p);
    struct mode_mapping *map = mode_xcalloc((size_t)most, sizeof *map);
    for (int64_t at = 0; !st && at < n; at += most) {
        int64_t b = n - at < most ? n - at : most, open = 0;
        for (; !st && open < b; open += !st) {
            if ((st = mode_file_map(lines[at + open], &map[open], err))) break;
            p[open] = (struct mode_encode_picture){map[open].data, map[open].size, lines[at + open]};
        }
        if (!st) st = mode_encode_pictures(clip, out + at * e, p, b, o->batch, o->raw, &hook, err);
        for (int64_t i = 0; i < open; i++) mode_file_unmap(&map[i]);
    }
    if (!st) st = write_features(o->out, "image_features.npy", out, n, e, err);
    free(p);
    free(map);
    free(out);
    free(lines);
    free(text);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    int n = 0;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode encode --model DIR [--images FILE] [--texts FILE] --out DIR", prose);
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n, err))) return st;
    if (!o.model || !o.out || (!o.images && !o.texts) || n || o.batch < 1)
        return MODE_FAIL(err, MODE_E_USAGE, "--model, --out and --images or --texts are needed, nothing else");
    if (o.texts && (st = merges_find(&o.merges, err))) return st;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    if ((st = mode_dir_make(o.out, err))) goto out;
    if ((st = backend_open(&be, &o.backend, err))) goto out;
    if ((st = mode_clip_load(&clip, be, o.model, err))) goto out;
    if (mode_clip_note(clip)[0]) fprintf(stderr, "%s: %s\n", o.model, mode_clip_note(clip));
    if (o.images && (st = encode_images(&o, clip, err))) goto out;
    if (o.texts) st = encode_texts(&o, clip, err);
out:
    mode_clip_close(&clip);
    mode_backend_close(&be);
    return st;
}

const struct mode_verb mode_verb_encode = {"encode", "pictures and texts to CLIP vectors (.npy)", run};
