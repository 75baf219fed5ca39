/* mode encode - pictures and texts to the vectors of a CLIP, or of a run's experts together, as .npy. */
#include "ask.h"
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
#include "pipeline/evaluate.h"
#include "pipeline/predict.h"
#include "ranges.h"
#include "verb.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct backend_options backend;
    struct router_options router;
    struct ask_options ask; /* queries: --texts */
    const char *model, *experts, *images, *out;
    int64_t batch, threads;
    bool raw;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR",
                 "folder of open_clip or Hugging Face, or hf-hub:ORG/NAME"),
    MODE_OPT_STR(struct options, experts, "experts", NULL, "DIR",
                 "or all experts of a finished run together: WORKSPACE/experts"),
    MODE_OPT_STR(struct options, images, "images", NULL, "FILE", "paths of pictures, one per line"),
    MODE_OPT_STR(struct options, ask.queries, "texts", NULL, "FILE", "texts, one per line (UTF-8)"),
    ASK_OPTIONS(struct options),
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR", "where image_features.npy and text_features.npy go"),
    MODE_OPT_FLAG(struct options, raw, "raw", "with --model: do not normalise the rows"),
    ASK_ROUTER_OPTIONS(struct options),
    ASK_ENCODER_OPTION(struct options),
    MERGES_OPTION(struct options, ask.merges),
    MODE_OPT_INT(struct options, batch, "batch", "256", "N", "pictures or texts in a batch"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("batch", 1, 1 << 20), RANGE_THREADS, RANGE_END};

#define IMAGES "image_features.npy"
#define TEXTS  "text_features.npy"

static const char prose[] =
    "Rows are in the order of the lines: [N, E] f32, L2-normalised. A picture that cannot be read or decoded is an "
    "error. With --classes a row of text_features is a class: the mean over its names and templates, normalised.\n\n"
    "With --experts a row is [n * E], expert after expert, and the inner product of a picture's row and a text's is "
    "the score of `mode predict`: each expert's part of a picture's row has length 1, its part of a text's row the "
    "expert's weight. So pictures go into an inner-product index once, and later queries decide how the experts are "
    "weighted: each text on its own, classes all together. The weights go to stderr; encoder, router and merges file "
    "are the run's unless they are given.";

/* Inputs and results. */
struct job {
    const struct options *o;
    struct lines pictures, texts; /* texts: only with one model */
    const char *images_to, *texts_to;
    int64_t width; /* of a row */
    int64_t n_texts;
    float *images, *words; /* [pictures, width], [n_texts, width] */
};

static enum mode_status make_rows(float **rows, int64_t n, int64_t width, const char *path, struct mode_error *err)
{
    size_t bytes;
    if (mode_mul_size((size_t)n + 1, (size_t)width * sizeof **rows, &bytes)) *rows = malloc(bytes);
    return *rows ? MODE_OK : MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %lld vectors", path, (long long)n);
}

/* Once. */
static void on_notice(void *ctx, const char *text)
{
    bool *told = ctx;
    if (!*told) fprintf(stderr, "%s\n", text);
    *told = true;
}

/* ---- one model ---- */

static enum mode_status encode_texts(struct job *j, struct mode_clip *clip, const struct mode_tokenizer *tokenizer,
                                     struct mode_error *err)
{
    const struct options *o = j->o;
    struct mode_evalset words = {0};
    const char *path = o->ask.classes ? o->ask.classes : o->ask.queries;
    enum mode_status st = o->ask.classes ? ask_words(&words, &o->ask, err) : MODE_OK;
    j->n_texts = o->ask.classes ? words.n_classes : j->texts.n;
    if (!st) st = make_rows(&j->words, j->n_texts, j->width, path, err);
    if (!st && o->ask.classes)
        st = mode_evaluate_texts(j->words, clip, tokenizer, &words, o->batch, NULL, err);
    else if (!st)
        st = mode_encode_texts(clip, tokenizer, j->words, j->texts.line, j->texts.n, o->batch, o->raw, NULL, err);
    mode_evalset_close(&words);
    return st;
}

static enum mode_status encode_images(struct job *j, struct mode_clip *clip, struct mode_error *err)
{
    const struct options *o = j->o;
    bool told = false;
    const struct mode_encode_hook hook = {.ctx = &told, .notice = on_notice};
    int64_t failed = j->pictures.n;
    enum mode_status st = make_rows(&j->images, j->pictures.n, j->width, o->images, err);
    if (!st)
        st = mode_encode_picture_files(clip, j->images, j->pictures.line, j->pictures.n, o->batch, o->raw, &hook,
                                       &failed, err);
    if (st && failed < j->pictures.n) lines_blame(o->images, failed, st, err);
    return st;
}

static enum mode_status encode_by_model(struct job *j, struct mode_error *err)
{
    const struct options *o = j->o;
    const bool has_words = o->ask.queries || o->ask.classes;
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    struct mode_tokenizer *tokenizer = NULL;
    enum mode_status st = MODE_OK;
    if (has_words && (st = mode_tokenizer_open_clip(&tokenizer, o->ask.merges, MODE_CLIP_CLEAN_OPENAI, err))) goto out;
    if ((st = backend_open(&be, &o->backend, err)) || (st = mode_clip_load(&clip, be, o->model, err))) goto out;
    if (mode_clip_note(clip)[0]) fprintf(stderr, "%s: %s\n", o->model, mode_clip_note(clip));
    j->width = mode_clip_embed_dim(clip);
    if (o->images && (st = encode_images(j, clip, err))) goto out;
    if (has_words) st = encode_texts(j, clip, tokenizer, err);
out:
    mode_clip_close(&clip);
    mode_backend_close(&be);
    mode_tokenizer_close(&tokenizer);
    return st;
}

/* ---- the experts together ---- */

static enum mode_status encode_by_experts(struct job *j, struct mode_error *err)
{
    const struct options *o = j->o;
    bool told = false;
    struct ask ask = {0};
    struct mode_ensemble_vectors v = {0};
    const struct mode_encode_hook hook = {.ctx = &told, .notice = on_notice};
    int64_t failed = j->pictures.n;
    struct mode_predict_spec s = {
        .picture = j->pictures.line, .n_pictures = j->pictures.n, .failed = &failed, .batch = o->batch, .hook = &hook};
    enum mode_status st = MODE_OK;
    if (o->images && !j->pictures.n)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: is empty; expected paths of pictures, one per line", o->images);
    st = ask_open(&ask, &s, o->experts, &o->ask, &o->router, err);
    if (!st) st = backend_open(&s.be, &o->backend, err);
    if (!st) {
        st = mode_predict_vectors(&v, &s, err);
        if (st && failed < j->pictures.n) lines_blame(o->images, failed, st, err);
        st = ask_end(&ask, o->experts, st, err);
    }
    if (!st) {
        if (o->ask.classes) ask_print_weights(v.weight, v.n, NULL);
        for (int64_t q = 0; o->ask.queries && q < v.columns; q++)
            ask_print_weights(v.weight + q * v.n, v.n, ask.words.texts[q]);
        j->width = v.width;
        j->n_texts = v.columns;
        j->images = v.pictures;
        j->words = v.words;
        v.pictures = v.words = NULL;
    }
    mode_ensemble_vectors_clear(&v);
    mode_backend_close(&s.be);
    ask_close(&ask);
    return st;
}

static enum mode_status write_rows(const char *to, float *rows, int64_t n, int64_t width, struct mode_error *err)
{
    const struct mode_tensor t = mode_tensor_2d(rows, MODE_DTYPE_F32, n, width);
    return mode_npy_write(to, &t, err);
}

static enum mode_status encode(struct job *j, struct mode_error *err)
{
    enum mode_status st = j->o->experts ? encode_by_experts(j, err) : encode_by_model(j, err);
    if (!st && j->images) st = write_rows(j->images_to, j->images, j->pictures.n, j->width, err);
    if (!st && j->words) st = write_rows(j->texts_to, j->words, j->n_texts, j->width, err);
    const char *out = j->o->out;
    if (!st && j->images) printf("%s/%s [%lld, %lld]\n", out, IMAGES, (long long)j->pictures.n, (long long)j->width);
    if (!st && j->words) printf("%s/%s [%lld, %lld]\n", out, TEXTS, (long long)j->n_texts, (long long)j->width);
    free(j->images);
    free(j->words);
    return st;
}

static enum mode_status check(const struct options *o, struct mode_error *err)
{
    const struct ask_options *a = &o->ask;
    enum mode_status st;
    if (!o->model == !o->experts)
        return MODE_FAIL(err, MODE_E_USAGE, "whose vectors? Give --model DIR, or --experts DIR for all of a run's");
    if ((st = option_needed(o->out, "--out DIR", err)) ||
        (st = option_needed(o->images    ? o->images
                            : a->queries ? a->queries
                                         : a->classes,
                            "--images FILE, --texts FILE or --classes FILE", err)))
        return st;
    if (a->queries && a->classes)
        return MODE_FAIL(err, MODE_E_USAGE, "give either --texts or --classes: both make %s", TEXTS);
    if (o->raw && (o->experts || a->classes))
        return MODE_FAIL(err, MODE_E_USAGE, "--raw: what %s",
                         o->experts ? "--experts makes has the lengths that make products scores"
                                    : "--classes makes are unit vectors by definition");
    if (o->model && (o->router.name || o->router.params || o->router.top >= 0 || a->encoder))
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--router, --router-params, --top-experts and --encoder are for --experts: one model has no "
                         "weight");
    return ask_check(a, &o->router, err);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct job job = {.o = &o};
    struct mode_output_folder folder = {0};
    struct mode_output_set set = {0};
    char *fetched = NULL;
    int n = 0;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_",
                          "mode encode (--model DIR | --experts DIR) [--images FILE] [--texts FILE | --classes FILE] "
                          "--out DIR",
                          prose);
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n, err))) return st;
    if ((st = arguments_check(n, 0, argv, "HINT: list the pictures in a file, one per line: --images FILE", err)) ||
        (st = check(&o, err)) || (st = ranges_check(&o, table, ranges, err)) || (st = backend_check(&o.backend, err)))
        return st;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    char *path[] = {mode_path_join(o.out, IMAGES), mode_path_join(o.out, TEXTS)};
    const bool has_words = o.ask.queries || o.ask.classes;
    if ((o.model && has_words && (st = merges_find(&o.ask.merges, err))) ||
        (o.model && (st = mode_hub_clip(&o.model, &fetched, err))) ||
        (o.images && (st = lines_read(&job.pictures, o.images, err))) ||
        (o.model && o.ask.queries && (st = lines_read(&job.texts, o.ask.queries, err))) ||
        (st = mode_output_folder_make(&folder, o.out, err)))
        goto out;
    const char *const names[] = {path[o.images ? 0 : 1], path[1]};
    const size_t n_names = o.images && has_words ? 2 : 1;
    const char *const inputs[] = {o.model,       o.experts,       o.images,    o.ask.queries,
                                  o.ask.classes, o.ask.templates, o.ask.merges};
    st = mode_output_apart(o.out, inputs, 7, err);
    for (size_t i = 0; !st && i < n_names; i++) st = mode_output_apart(names[i], inputs, 7, err);
    if (!st && !(st = mode_output_set_open(&set, names, n_names, err))) {
        job.images_to = set.aside[0];
        job.texts_to = set.aside[n_names - 1];
        st = encode(&job, err);
        st = mode_output_set_close(&set, st, err);
    }
out:
    mode_output_folder_close(&folder, st != MODE_OK);
    lines_free(&job.pictures);
    lines_free(&job.texts);
    free(path[0]);
    free(path[1]);
    free(fetched);
    return st;
}

const struct mode_verb mode_verb_encode = {"encode", "pictures and texts to embeddings of a CLIP, or of all experts",
                                           run};
