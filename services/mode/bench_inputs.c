#include "bench_inputs.h"

#include "base/file.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "merges.h"
#include "models/clip_config.h"
#include "models/clip_train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS RANGE("rounds", 1, 1000000)
const struct option_range bench_ranges[] = {ROUNDS, RANGE_END};
const struct option_range bench_turns_ranges[] = {ROUNDS, RANGE("seconds", 0, 3600), RANGE_END};

bool bench_turn(bool turns)
{
    int c = '\n';
    if (turns)
        while ((c = getchar()) != EOF && c != '\n') continue;
    return c != EOF;
}

enum mode_status bench_lines_read(struct bench_lines *l, const char *path, struct mode_error *err)
{
    size_t size;
    *l = (struct bench_lines){0};
    enum mode_status st = mode_file_read(path, 0, &l->data, &size, err);
    if (st) return st;
    for (size_t i = 0; i < size; i++) l->n += l->data[i] == '\n';
    l->n += size > 0 && l->data[size - 1] != '\n';
    l->line = mode_xmalloc((l->n + 1) * sizeof *l->line);
    char *at = l->data;
    for (size_t i = 0; i < l->n; i++) {
        l->line[i] = at;
        at += strcspn(at, "\n");
        *at++ = '\0';
    }
    if (l->n > 0) return MODE_OK;
    bench_lines_clear(l);
    return MODE_FAIL(err, MODE_E_VALUE, "%s: holds no text", path);
}

void bench_lines_clear(struct bench_lines *l)
{
    free(l->data);
    free(l->line);
    *l = (struct bench_lines){0};
}

enum mode_status bench_texts_read(struct bench_texts *t, const char *path, const char *merges, int64_t context,
                                  struct mode_error *err)
{
    struct mode_tokenizer *tokenizer = NULL;
    struct bench_lines lines = {0};
    *t = (struct bench_texts){0};
    enum mode_status st = merges_find(&merges, err);
    if (!st) st = mode_tokenizer_open_clip(&tokenizer, merges, MODE_CLIP_CLEAN_OPENAI, err);
    if (!st) st = bench_lines_read(&lines, path, err);
    if (st) goto out;
    t->n = (int64_t)lines.n;
    t->ids = mode_xmalloc(lines.n * (size_t)context * sizeof *t->ids);
    t->n_ids = mode_xmalloc(lines.n * sizeof *t->n_ids);
    for (size_t i = 0; i < lines.n; i++) {
        t->n_ids[i] = mode_tokenizer_encode(tokenizer, lines.line[i], strlen(lines.line[i]), t->ids + t->tokens,
                                            (int)context);
        t->tokens += t->n_ids[i];
    }
out:
    bench_lines_clear(&lines);
    mode_tokenizer_close(&tokenizer);
    return st;
}

void bench_texts_clear(struct bench_texts *t)
{
    free(t->ids);
    free(t->n_ids);
    *t = (struct bench_texts){0};
}

enum mode_status bench_floats_read(struct bench_floats *f, const char *path, int64_t each, struct mode_error *err)
{
    size_t bytes, one = (size_t)each * sizeof(float);
    char *data;
    *f = (struct bench_floats){0};
    enum mode_status st = mode_file_read(path, 0, &data, &bytes, err);
    if (st) return st;
    if (bytes == 0 || bytes % one != 0) {
        free(data);
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: %zu bytes; a multiple of %zu (%lld float32) is expected", path, bytes,
                         one, (long long)each);
    }
    f->data = (float *)(void *)data;
    f->n = (int64_t)(bytes / one);
    return MODE_OK;
}

void bench_floats_clear(struct bench_floats *f)
{
    free(f->data);
    *f = (struct bench_floats){0};
}

enum mode_status bench_model_check(const char *model, const char *config, struct mode_error *err)
{
    if (!model == !config)
        return MODE_FAIL(err, MODE_E_USAGE, "either --model DIR or --config NAME is needed%s",
                         model ? ", not both" : "");
    char *json = config ? mode_clip_config_by_name(config) : NULL;
    const bool known = json || !config;
    free(json);
    if (known) return MODE_OK;
    struct mode_str names = {0};
    for (size_t i = 0; mode_clip_config_name(i); i++)
        mode_str_printf(&names, "%s%s", i ? ", " : "", mode_clip_config_name(i));
    enum mode_status st = MODE_FAIL(err, MODE_E_USAGE,
                                    "--config: \"%.60s\" is not known; known are %s, each also with -quickgelu", config,
                                    names.data);
    mode_str_clear(&names);
    return st;
}

enum mode_status bench_clip_open(struct mode_clip **clip, struct mode_backend *be, const char *model,
                                 const char *config, struct mode_error *err)
{
    *clip = NULL;
    enum mode_status st = bench_model_check(model, config, err);
    if (st) return st;
    if (model) return mode_clip_load(clip, be, model, err);
    char *json = mode_clip_config_by_name(config);
    st = mode_clip_create(clip, be, json, NULL, 1, err);
    free(json);
    return st;
}

int64_t bench_picture_floats(const struct mode_clip *clip)
{
    const int64_t size = mode_clip_preprocess(clip)->size;
    return 3 * size * size;
}
