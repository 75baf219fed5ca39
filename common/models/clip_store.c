/* Creates models from JSON and files, and saves them. */
#include "models/clip.h"

#include "base/file.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "models/clip_folder.h"
#include "models/clip_impl.h"
#include "models/clip_weights.h"
#include "tensor/half.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A model with zero parameters; the JSON texts are copied. */
static enum mode_status new_from_json(struct mode_clip **clip, struct mode_backend *be, const char *model_cfg,
                                      const char *preprocess_cfg, const char *what, struct mode_error *err)
{
    struct mode_clip_config cfg;
    struct mode_preprocess preprocess;
    enum mode_status st = mode_clip_config_parse(&cfg, model_cfg, what, err);
    if (!st) st = mode_clip_preprocess_parse(&preprocess, preprocess_cfg, cfg.image_size, what, err);
    if (!st) st = mode__clip_new(clip, be, &cfg, err);
    if (st) return st;
    (*clip)->preprocess = preprocess;
    (*clip)->model_cfg = mode_xstrdup(model_cfg);
    (*clip)->preprocess_cfg = preprocess_cfg ? mode_xstrdup(preprocess_cfg) : NULL;
    return MODE_OK;
}

enum mode_status mode_clip_create(struct mode_clip **clip, struct mode_backend *be, const char *model_cfg_json,
                                  const char *preprocess_cfg_json, uint64_t seed, struct mode_error *err)
{
    *clip = NULL;
    enum mode_status st = new_from_json(clip, be, model_cfg_json, preprocess_cfg_json, "model_cfg", err);
    if (!st) mode__clip_draw(*clip, seed);
    return st;
}

enum mode_status mode_clip_read_weights(struct mode_clip *c, const char *path, struct mode_error *err)
{
    struct mode_weights w;
    struct mode__clip_tensors t = {0};
    struct mode_str note = {0};
    struct mode_mirror m = {.be = c->be};
    size_t n_of[MODE_DTYPE_BOOL + 1] = {0};
    enum mode_status st = mode_weights_open(&w, path, err);
    if (st) return st;
    if ((st = mode__clip_tensors_read(&t, c->params, c->n_params, &w, path, err))) goto out;
    for (size_t i = 0; i < t.n; i++) {
        struct mode_tensor *to = &c->params[i].value;
        float *here = mode_mirror_write(&m, to->data, mode_tensor_bytes(to));
        MODE_ASSERT(mode_half_to_f32(here, t.list[i].data, t.list[i].dtype, (size_t)mode_tensor_count(to)));
        mode_mirror_send(&m);
        n_of[t.list[i].dtype]++;
    }
    mode_clip_refresh(c);
    mode_str_add_cstr(&note, w.note);
    for (size_t k = MODE_DTYPE_F64; k <= MODE_DTYPE_BF16; k++)
        if (n_of[k])
            mode_str_printf(&note, "%s%zu of %zu tensors are %s, computed with as F32 (%s)", note.len ? "; " : "",
                            n_of[k], t.n, mode_dtype_name((enum mode_dtype)k),
                            k == MODE_DTYPE_F64 ? "rounded" : "exact");
    free(c->note);
    c->note = note.data;
out:
    mode_mirror_clear(&m);
    mode__clip_tensors_clear(&t);
    mode_weights_close(&w);
    return st;
}

static enum mode_status load(struct mode_clip **clip, struct mode_backend *be, const struct mode_clip_files *f,
                             struct mode_error *err)
{
    enum mode_status st = new_from_json(clip, be, f->model_cfg, f->preprocess_cfg, f->config, err);
    if (!st && (st = mode_clip_read_weights(*clip, f->weights, err))) mode_clip_close(clip);
    return st;
}

enum mode_status mode_clip_load_files(struct mode_clip **clip, struct mode_backend *be, const char *config_path,
                                      const char *weights_path, struct mode_error *err)
{
    struct mode_clip_files f;
    *clip = NULL;
    enum mode_status st = mode_clip_files_read(&f, config_path, err);
    if (!st) f.weights = mode_xstrdup(weights_path);
    if (!st) st = load(clip, be, &f, err);
    mode_clip_files_clear(&f);
    return st;
}

enum mode_status mode_clip_load(struct mode_clip **clip, struct mode_backend *be, const char *dir,
                                struct mode_error *err)
{
    struct mode_clip_files f;
    *clip = NULL;
    enum mode_status st = mode_clip_files_find(&f, dir, err);
    if (!st) st = load(clip, be, &f, err);
    mode_clip_files_clear(&f);
    return st;
}

enum mode_status mode__clip_describe(struct mode_clip **clip, const struct mode_clip_files *f, struct mode_error *err)
{
    return new_from_json(clip, NULL, f->model_cfg, f->preprocess_cfg, f->config, err);
}

char *mode__clip_config_text(const struct mode_clip *clip)
{
    json_t *model = json_loads(clip->model_cfg, 0, NULL);
    json_t *pre = clip->preprocess_cfg ? json_loads(clip->preprocess_cfg, 0, NULL) : json_object();
    MODE_ASSERT(model && pre);
    if (!clip->preprocess_cfg) {
        const struct mode_preprocess *p = &clip->preprocess;
        json_object_set_new(pre, "mean", json_pack("[f,f,f]", p->mean[0], p->mean[1], p->mean[2]));
        json_object_set_new(pre, "std", json_pack("[f,f,f]", p->std[0], p->std[1], p->std[2]));
        json_object_set_new(pre, "interpolation", json_string("bicubic"));
        json_object_set_new(pre, "resize_mode", json_string("shortest"));
    }
    json_t *root = json_pack("{s:o,s:o}", "model_cfg", model, "preprocess_cfg", pre);
    MODE_ASSERT(root);
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    MODE_ASSERT(text);
    return text;
}

enum mode_status mode_clip_save(const struct mode_clip *clip, const char *config_path, const char *weights_path,
                                struct mode_error *err)
{
    struct mode_tensor *list = mode_xcalloc(clip->n_params, sizeof *list);
    char *text = mode__clip_config_text(clip);
    for (size_t i = 0; i < clip->n_params; i++) list[i] = clip->params[i].value;
    struct mode_meta meta = {.key = "format", .value = "pt"};
    struct mode_mirror m = {.be = clip->be};
    enum mode_status st = mode_safetensors_write_from(weights_path, list, clip->n_params, &meta, 1, mode_mirror_fetch,
                                                      &m, err);
    mode_mirror_clear(&m);
    if (st == MODE_OK) st = mode_file_write_atomic(config_path, text, strlen(text), err);
    free(text);
    free(list);
    return st;
}

const char *mode_clip_note(const struct mode_clip *clip)
{
    return clip->note ? clip->note : "";
}

const char *mode_clip_model_cfg(const struct mode_clip *clip)
{
    return clip->model_cfg;
}
