#include "models/clip_folder.h"

#include "base/file.h"
#include "base/str.h"
#include "data/clip_vocab.h"
#include "models/clip_hf.h"
#include "models/clip_impl.h"
#include "models/clip_weights.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_JSON = 1 << 20, CLIP_VOCABULARY = 49408 };

/* A Hugging Face config, and preprocessor_config.json beside it if there is one. */
static enum mode_status read_hf(struct mode_clip_files *f, const char *json, struct mode_error *err)
{
    char *dir = mode_xstrdup(f->config), *text = NULL;
    *(char *)(uintptr_t)mode_path_base(dir) = 0;
    char *path = mode_xasprintf("%spreprocessor_config.json", dir);
    enum mode_status st = mode__clip_hf_config_read(&f->model_cfg, json, f->config, err);
    if (!st && mode_file_exists(path)) {
        st = mode_file_read(path, MAX_JSON, &text, NULL, err);
        if (!st) st = mode__clip_hf_preprocess_read(&f->preprocess_cfg, text, path, err);
    }
    free(text);
    free(path);
    free(dir);
    return st;
}

enum mode_status mode_clip_files_read(struct mode_clip_files *f, const char *config_path, struct mode_error *err)
{
    char *json = NULL;
    *f = (struct mode_clip_files){.config = mode_xstrdup(config_path)};
    enum mode_status st = mode_file_read(config_path, MAX_JSON, &json, NULL, err);
    if (!st && mode__clip_hf_is(json))
        st = read_hf(f, json, err);
    else if (!st)
        st = mode_clip_config_split(&f->model_cfg, &f->preprocess_cfg, json, config_path, err);
    free(json);
    return st;
}

enum mode_status mode_clip_files_find_config(struct mode_clip_files *f, const char *dir, struct mode_error *err)
{
    static const char *const configs[] = {"open_clip_config.json", "config.json"};
    char *path = NULL;
    enum mode_status st = mode_input_folder(dir, err);
    *f = (struct mode_clip_files){0};
    if (st && st != MODE_E_NOINPUT) return st;
    if (st && mode_file_exists(dir))
        return MODE_FAIL(
            err, MODE_E_NOINPUT,
            "%s: is a file, expected the folder of a CLIP model. HINT: `mode convert %s DIR --to open_clip "
            "--config MODEL` makes one of a file of weights",
            dir, dir);
    for (size_t i = 0; i < 2; i++) {
        path = mode_path_join(dir, configs[i]);
        if (mode_file_exists(path)) break;
        free(path);
        path = NULL;
    }
    if (!path)
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "%s: is not the folder of a CLIP model: it has neither open_clip_config.json nor config.json",
                         dir);
    st = mode_clip_files_read(f, path, err);
    free(path);
    return st;
}

enum mode_status mode_clip_files_find(struct mode_clip_files *f, const char *dir, struct mode_error *err)
{
    enum mode_status st = mode_clip_files_find_config(f, dir, err);
    if (st) return st;
    f->weights = mode_weights_in(dir);
    if (!f->weights)
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s: there is no open_clip_model.safetensors (nor the other usual names) beside the config",
                       dir);
    return st;
}

void mode_clip_files_clear(struct mode_clip_files *f)
{
    free(f->config);
    free(f->model_cfg);
    free(f->preprocess_cfg);
    free(f->weights);
    *f = (struct mode_clip_files){0};
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static enum mode_status write_text(const char *dir, const char *name, const char *text, struct mode_error *err)
{
    char *path = mode_path_join(dir, name);
    enum mode_status st = mode_file_write_atomic(path, text, strlen(text), err);
    free(path);
    return st;
}

static enum mode_status write_tensors(const char *path, const struct mode__clip_tensors *t, struct mode_error *err)
{
    const struct mode_meta meta = {.key = "format", .value = "pt"};
    return mode_safetensors_write(path, t->list, t->n, &meta, 1, err);
}

static enum mode_status write_hf(const char *dir, const struct mode_clip *clip, const struct mode__clip_tensors *t,
                                 const char *merges, const char *what, struct mode_error *err)
{
    struct mode__clip_tensors theirs = {0};
    char *config = NULL, *preprocess = NULL, *weights = mode_path_join(dir, "model.safetensors");
    enum mode_status st;
    if (!(st = mode__clip_hf_config_write(&config, &clip->cfg, what, err)) &&
        !(st = mode__clip_hf_preprocess_write(&preprocess, &clip->preprocess, what, err)) &&
        !(st = mode__clip_tensors_to_hf(&theirs, t, what, err)) && !(st = write_tensors(weights, &theirs, err)) &&
        !(st = write_text(dir, "config.json", config, err)) &&
        !(st = write_text(dir, "preprocessor_config.json", preprocess, err)) && merges &&
        clip->cfg.vocab_size >= CLIP_VOCABULARY)
        st = mode_clip_vocab_write(dir, merges, (int)clip->cfg.context_length, err);
    mode__clip_tensors_clear(&theirs);
    free(config);
    free(preprocess);
    free(weights);
    return st;
}

static enum mode_status write_open_clip(const char *config_path, const char *weights_path, const struct mode_clip *clip,
                                        const struct mode__clip_tensors *t, struct mode_error *err)
{
    char *config = mode__clip_config_text(clip);
    enum mode_status st = write_tensors(weights_path, t, err);
    if (!st) st = mode_file_write_atomic(config_path, config, strlen(config), err);
    free(config);
    return st;
}

/* A model's files, opened: names, shapes and borrowed data. */
struct opened {
    struct mode_clip *clip;
    struct mode_weights w;
    struct mode__clip_tensors t;
};

static enum mode_status open_files(struct opened *o, const struct mode_clip_files *f, struct mode_error *err)
{
    *o = (struct opened){0};
    enum mode_status st = mode__clip_describe(&o->clip, f, err);
    if (!st) st = mode_weights_open(&o->w, f->weights, err);
    return st ? st : mode__clip_tensors_read(&o->t, o->clip->params, o->clip->n_params, &o->w, f->weights, err);
}

static void close_files(struct opened *o)
{
    mode__clip_tensors_clear(&o->t);
    mode_weights_close(&o->w);
    mode_clip_close(&o->clip);
}

enum mode_status mode_clip_files_check(const struct mode_clip_files *f, struct mode_error *err)
{
    struct opened o;
    enum mode_status st = open_files(&o, f, err);
    close_files(&o);
    return st;
}

enum mode_status mode_clip_files_copy(const char *config_path, const char *weights_path,
                                      const struct mode_clip_files *f, char **note, struct mode_error *err)
{
    struct opened o;
    if (note) *note = NULL;
    enum mode_status st = open_files(&o, f, err);
    if (!st) st = write_open_clip(config_path, weights_path, o.clip, &o.t, err);
    if (!st && note) *note = mode_xstrdup(o.w.note);
    close_files(&o);
    return st;
}

static enum mode_status write_folder(const char *dir, const struct opened *o, enum mode_clip_format format,
                                     const char *merges, const char *what, struct mode_error *err)
{
    if (format == MODE_CLIP_HF) return write_hf(dir, o->clip, &o->t, merges, what, err);
    char *config = mode_path_join(dir, "open_clip_config.json"),
         *weights = mode_path_join(dir, "open_clip_model.safetensors");
    enum mode_status st = write_open_clip(config, weights, o->clip, &o->t, err);
    free(config);
    free(weights);
    return st;
}

enum mode_status mode_clip_convert(const char *out, const struct mode_clip_files *in, enum mode_clip_format format,
                                   const char *merges, char **note, struct mode_error *err)
{
    struct opened o = {0};
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    char *name = mode_xasprintf("%.*s", (int)n, out), *temporary = mode_xasprintf("%s.new-XXXXXX", name);
    bool made = false;
    struct stat s;
    if (note) *note = NULL;
    enum mode_status st = MODE_OK;
    if (lstat(name, &s) == 0) st = MODE_FAIL(err, MODE_E_CREATE, "%s: exists already; nothing is overwritten", name);
    if (!st && !(made = mkdtemp(temporary))) st = mode_output_fail(err, errno, name, "be made");
    if (!st) st = open_files(&o, in, err);
    if (!st) st = write_folder(temporary, &o, format, merges, in->config, err);
    if (!st && (chmod(temporary, 0777 & ~(mode_t)022) != 0 || rename(temporary, name) != 0))
        st = mode_output_fail(err, errno, name, "be made");
    if (st) mode_error_rename(err, temporary, name);
    if (st && made) mode_dir_remove(temporary, NULL);
    if (!st && note) *note = mode_xstrdup(o.w.note);
    free(name);
    free(temporary);
    close_files(&o);
    return st;
}
