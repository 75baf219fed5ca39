#include "pipeline/given.h"

#include "base/str.h"
#include "data/safetensors.h"
#include "data/weights.h"
#include "models/clip_config.h"
#include "pipeline/checkpoint.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Detects damage that shows in config and headers, without reading the weights. */
static enum mode_status check_headers(const struct mode_clip_files *f, struct mode_error *err)
{
    static const char kind[] = ".safetensors";
    struct mode_clip_config config;
    struct mode_safetensors weights = {0};
    const size_t n = strlen(f->weights), k = strlen(kind);
    enum mode_status st = f->model_cfg ? mode_clip_config_parse(&config, f->model_cfg, f->config, err) : MODE_OK;
    if (!st && n > k && strcmp(f->weights + n - k, kind) == 0) {
        st = mode_safetensors_open(&weights, f->weights, err);
        mode_safetensors_close(&weights);
    }
    return st;
}

enum mode_status mode_given_find_folder(struct mode_given *g, const char *dir, bool weights_alone,
                                        struct mode_error *err)
{
    *g = (struct mode_given){.folder = true};
    enum mode_status st = mode_clip_files_find(&g->files, dir, err);
    if (!st) st = check_headers(&g->files, err);
    if (st || weights_alone) return st;
    g->optimizer = mode_path_join(dir, MODE_FILE_CLIP_OPTIMIZER);
    if (mode_file_exists(g->optimizer)) return mode_checkpoint_step(&g->step, g->optimizer, err);
    free(g->optimizer);
    g->optimizer = NULL;
    return MODE_OK;
}

/* Could the path have been meant as an open_clip tag? In a run it has been made absolute, so tags are recognised by
 * their prefix. */
static bool may_be_tag(const char *path)
{
    static const char *const known[] = {"openai", "laion",   "datacomp", "commonpool", "metaclip",
                                        "dfn",    "yfcc15m", "cc12m",    "webli"};
    const char *name = mode_path_base(path);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(name, known[i], strlen(known[i])) == 0 && !strchr(name, '.')) return true;
    return !strchr(path, '/');
}

enum mode_status mode_given_fail(int why, const char *path, struct mode_error *err)
{
    if (why != ENOENT || !may_be_tag(path)) return mode_input_fail(err, why, path, "be opened");
    return MODE_FAIL(
        err, MODE_E_NOINPUT,
        "%s: no such file or folder. HINT: open_clip's tags (openai, laion2b_s34b_b79k, ...) are not known; "
        "name such a model as hf-hub:ORG/NAME, or its file",
        path);
}

enum mode_status mode_given_find(struct mode_given *g, const char *path, struct mode_error *err)
{
    struct stat s;
    *g = (struct mode_given){0};
    if (stat(path, &s) != 0) return mode_given_fail(errno, path, err);
    if (S_ISDIR(s.st_mode)) return mode_given_find_folder(g, path, false, err);
    g->files.weights = mode_xstrdup(path);
    return check_headers(&g->files, err);
}

void mode_given_clear(struct mode_given *g)
{
    mode_clip_files_clear(&g->files);
    free(g->optimizer);
    *g = (struct mode_given){0};
}

/* ---- is it this model? ---------------------------------------------------------------------------------------- */

enum { MOST_TRAITS = 40 };
struct trait {
    const char *name;
    char value[80];
};

static void add(struct trait *t, int *n, const char *name, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void add(struct trait *t, int *n, const char *name, const char *fmt, ...)
{
    va_list ap;
    MODE_ASSERT(*n < MOST_TRAITS);
    t[*n].name = name;
    va_start(ap, fmt);
    vsnprintf(t[(*n)++].value, sizeof t->value, fmt, ap);
    va_end(ap);
}

static const char *yes(bool b)
{
    return b ? "true" : "false";
}

/* Everything that defines the architecture, by open_clip's keys; tensor names and initial values do not. */
static int traits_of(struct trait *t, const struct mode_clip_config *c)
{
    static const char *const pools[] = {"argmax", "eos", "first", "last"}, *const projections[] = {
                                                                               "linear", "linear with bias", "none"};
    static const char *const towers[2][6] = {
        {"vision_cfg.width", "vision_cfg.layers", "vision_cfg: heads", "vision_cfg: hidden width of the MLP",
         "vision_cfg.norm_kwargs.eps", "vision_cfg: layer scale"},
        {"text_cfg.width", "text_cfg.layers", "text_cfg: heads", "text_cfg: hidden width of the MLP",
         "text_cfg.norm_kwargs.eps", "text_cfg: layer scale"}};
    int n = 0;
    add(t, &n, "embed_dim", "%lld", (long long)c->embed_dim);
    add(t, &n, "quick_gelu", "%s", yes(c->quick_gelu));
    add(t, &n, "vision_cfg.image_size", "%lld", (long long)c->image_size);
    add(t, &n, "vision_cfg.patch_size", "%lld", (long long)c->patch_size);
    for (int k = 0; k < 2; k++) {
        const struct mode_clip_tower_config *x = k ? &c->text : &c->image;
        add(t, &n, towers[k][0], "%lld", (long long)x->width);
        add(t, &n, towers[k][1], "%lld", (long long)x->layers);
        add(t, &n, towers[k][2], "%lld", (long long)x->heads);
        add(t, &n, towers[k][3], "%lld", (long long)x->mlp);
        add(t, &n, k ? "text_cfg.act_kwargs.approximate" : "vision_cfg.act_kwargs.approximate", "%s",
            x->act == MODE_ACT_GELU_TANH ? "tanh" : "none");
        add(t, &n, towers[k][4], "%.6g", (double)x->ln_eps);
        add(t, &n, towers[k][5], "%s", yes(x->layer_scale));
    }
    add(t, &n, "text_cfg.context_length", "%lld", (long long)c->context_length);
    add(t, &n, "text_cfg.vocab_size", "%lld", (long long)c->vocab_size);
    add(t, &n, "vision_cfg.no_ln_pre", "%s", yes(!c->image_ln_pre));
    add(t, &n, "vision_cfg.pool_type", "%s", c->image_mean_pool ? "avg" : "tok");
    add(t, &n, "vision_cfg.final_ln_after_pool", "%s", yes(c->image_ln_after_pool));
    add(t, &n, "vision_cfg.pos_embed_type", "%s", c->image_sincos ? "sin_cos_2d" : "learnable");
    add(t, &n, "text_cfg.no_causal_mask", "%s", yes(!c->text_causal));
    add(t, &n, "text_cfg.proj_type", "%s", projections[c->text_proj]);
    /* Hugging Face pools at the end token's id, open_clip at the highest id: CLIP's end token is both */
    const bool highest = c->text_pool == MODE_CLIP_POOL_EOS && c->text_eos_id == c->vocab_size - 1;
    if (c->text_pool == MODE_CLIP_POOL_EOS && !highest)
        add(t, &n, "text_cfg.pool_type", "eos with eos_id %lld", (long long)c->text_eos_id);
    else
        add(t, &n, "text_cfg.pool_type", "%s", pools[highest ? MODE_CLIP_POOL_ARGMAX : c->text_pool]);
    return n;
}

static int picture_traits(struct trait *t, const struct mode_preprocess *p)
{
    static const char *const resizes[] = {"shortest", "longest", "squash"}, *const filters[] = {"bicubic", "bilinear"};
    int n = 0;
    add(t, &n, "mean", "%.6g, %.6g, %.6g", (double)p->mean[0], (double)p->mean[1], (double)p->mean[2]);
    add(t, &n, "std", "%.6g, %.6g, %.6g", (double)p->std[0], (double)p->std[1], (double)p->std[2]);
    add(t, &n, "resize_mode", "%s", resizes[p->resize_mode]);
    add(t, &n, "interpolation", "%s", filters[p->filter]);
    return n;
}

static enum mode_status same(const struct trait *got, const struct trait *want, int n, const char *what,
                             struct mode_error *err)
{
    for (int i = 0; i < n; i++)
        if (strcmp(got[i].value, want[i].value) != 0)
            return MODE_FAIL(
                err, MODE_E_CONFIG,
                "%s: %s is %s, expected %s as the `model` of the run. HINT: without `model` this config is used", what,
                got[i].name, got[i].value, want[i].value);
    return MODE_OK;
}

static enum mode_status compare(const struct mode_clip_files *f, const char *model_config,
                                const char *preprocess_config, struct mode_error *err)
{
    struct mode_clip_config a, b;
    struct mode_preprocess p, q;
    struct trait got[MOST_TRAITS], want[MOST_TRAITS];
    enum mode_status st = mode_clip_config_parse(&a, f->model_cfg, f->config, err);
    if (!st) st = mode_clip_config_parse(&b, model_config, "model", err);
    if (st) return st;
    traits_of(got, &a);
    if ((st = same(got, want, traits_of(want, &b), f->config, err)) || !f->preprocess_cfg) return st;
    if ((st = mode_clip_preprocess_parse(&p, f->preprocess_cfg, a.image_size, f->config, err)) ||
        (st = mode_clip_preprocess_parse(&q, preprocess_config, b.image_size, "model", err)))
        return st;
    picture_traits(got, &p);
    return same(got, want, picture_traits(want, &q), f->config, err);
}

static void replace(char **text, const char *by)
{
    free(*text);
    *text = by ? mode_xstrdup(by) : NULL;
}

enum mode_status mode_given_agree(struct mode_given *g, const char *model_config, const char *preprocess_config,
                                  struct mode_error *err)
{
    enum mode_status st = g->files.model_cfg ? compare(&g->files, model_config, preprocess_config, err) : MODE_OK;
    if (st) return st;
    if (!g->files.config) g->files.config = mode_xstrdup("model");
    replace(&g->files.model_cfg, model_config);
    replace(&g->files.preprocess_cfg, preprocess_config);
    return MODE_OK;
}

/* ---- digest, and outputs --------------------------------------------------------------------------------------- */

static enum mode_status add_file(struct mode_str *lines, const char *path, struct mode_error *err)
{
    char *dir = mode_path_folder(path);
    enum mode_status st = mode_digest_line(lines, dir, mode_path_base(path), err);
    free(dir);
    return st;
}

/* Path of a Hugging Face folder's preprocessor_config.json, or NULL. The caller frees. */
static char *preprocessor_of(const char *config)
{
    char *dir = mode_path_folder(config), *path = mode_path_join(dir, "preprocessor_config.json");
    const bool there = strcmp(mode_path_base(config), "config.json") == 0 && mode_file_exists(path);
    free(dir);
    if (there) return path;
    free(path);
    return NULL;
}

enum mode_status mode_given_digest(const struct mode_given *g, char hex[MODE_DIGEST_HEX], struct mode_error *err)
{
    struct mode_str lines = {0};
    enum mode_status st = mode_weights_digests(&lines, g->files.weights, err);
    if (!st && g->folder) {
        char *pictures = preprocessor_of(g->files.config);
        st = add_file(&lines, g->files.config, err);
        if (!st && pictures) st = add_file(&lines, pictures, err);
        free(pictures);
    }
    if (!st && g->optimizer) st = add_file(&lines, g->optimizer, err);
    if (!st) mode_digest_bytes(lines.data, lines.len, hex);
    mode_str_clear(&lines);
    return st;
}

/* It must not contain the model's path: keys of later tasks depend on these bytes. */
static enum mode_status write_summary(const struct mode_given *g, const struct mode_train_outputs *out,
                                      struct mode_error *err)
{
    char hex[MODE_DIGEST_HEX];
    enum mode_status st = mode_digest_file(out->weights, hex, NULL, err);
    if (st) return st;
    json_t *o = json_pack("{s:s, s:i, s:s, s:I, s:I, s:i}", "name", "seed", "expert", MODE_POOL_ALL, "init", hex,
                          "start_step", (json_int_t)g->step, "end_step", (json_int_t)g->step, "samples_seen", 0);
    MODE_ASSERT(o);
    char *text = json_dumps(o, JSON_INDENT(2));
    json_decref(o);
    MODE_ASSERT(text);
    st = mode_file_write_atomic(out->summary, text, strlen(text), err);
    free(text);
    return st;
}

enum mode_status mode_given_take(const struct mode_given *g, const struct mode_train_outputs *out, char **note,
                                 struct mode_error *err)
{
    enum mode_status st = mode_clip_files_copy(out->config, out->weights, &g->files, note, err);
    if (!st && g->step) st = mode_file_copy(g->optimizer, out->optimizer, false, err);
    if (!st) st = mode_file_write_atomic(out->steps, "", 0, err);
    return st ? st : write_summary(g, out, err);
}
