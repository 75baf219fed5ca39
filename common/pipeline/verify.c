#include "pipeline/verify.h"

#include "base/rng.h"
#include "base/str.h"
#include "data/image.h"
#include "data/safetensors.h"
#include "data/tokenizer.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "nn/mirror.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SEED = 2024, LONGEST_TEXT = 77, SIDE = 12, PAIRS = 5, CONTEXT = 9, END = 22 };

/* The file of reference vectors, embedded in this library. */
__asm__(".section .rodata\n"
        ".balign 64\n"
        "mode__verify_goldens:\n"
        ".incbin \"" MODE_VERIFY_GOLDENS "\"\n"
        "mode__verify_goldens_end:\n"
        ".byte 0\n"
        ".previous\n");
/* Hidden, so that they are addressed directly. Otherwise they go through the global offset table, and on aarch64, where
 * both are local symbols of this file, the linker merged their two entries into one. */
extern __attribute__((visibility("hidden"))) const unsigned char mode__verify_goldens[], mode__verify_goldens_end[];

/* The safetensors reader needs a file: an anonymous one (memfd) with these bytes. */
static enum mode_status open_goldens(struct mode_safetensors *f, struct mode_error *err)
{
    size_t n = (size_t)(mode__verify_goldens_end - mode__verify_goldens), at = 0;
    char path[64];
    int fd = memfd_create("mode-verify-goldens", MFD_CLOEXEC);
    if (fd < 0) return MODE_FAIL(err, MODE_E_IO, "memory for the stored vectors: %s", strerror(errno));
    while (at < n) {
        ssize_t w = write(fd, mode__verify_goldens + at, n - at);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) {
            close(fd);
            return MODE_FAIL(err, MODE_E_IO, "memory for the stored vectors: %s", strerror(errno));
        }
        at += (size_t)w;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    enum mode_status st = mode_safetensors_open(f, path, err);
    close(fd);
    return st;
}

static const char *meta_of(const struct mode_safetensors *f, const char *kind, int i)
{
    char key[32];
    snprintf(key, sizeof key, "%s.%d", kind, i);
    return mode_safetensors_meta(f, key);
}

static void tell(const struct mode_verify_hooks *h, const char *stage, const char *tensor, double error,
                 double tolerance, int64_t worst, double ours, double exact)
{
    const struct mode_verify_row row = {stage, tensor, error, tolerance, worst, ours, exact};
    h->row(h->ctx, &row);
}

/* ---- tokenizer ------------------------------------------------------------------------------------------------- */

enum mode_status mode_verify_tokenizer(const char *merges, const struct mode_verify_hooks *hooks,
                                       struct mode_error *err)
{
    struct mode_safetensors f = {0};
    struct mode_tokenizer *t = NULL;
    json_t *texts = NULL;
    const struct mode_tensor *ids, *n;
    enum mode_status st = open_goldens(&f, err);
    if (st) return st;
    hooks->begin(hooks->ctx, "tokenizer");
    if ((st = mode_safetensors_need(&f, "text.ids", MODE_DTYPE_I32, 2, (int64_t[]){-1, LONGEST_TEXT}, &ids, err)) ||
        (st = mode_safetensors_need(&f, "text.n", MODE_DTYPE_I32, 1, (int64_t[]){-1}, &n, err)) ||
        (st = mode_tokenizer_open_clip(&t, merges, MODE_CLIP_CLEAN_OPENAI, err)))
        goto out;
    texts = json_loads(mode_safetensors_meta(&f, "texts"), 0, NULL);
    MODE_ASSERT((int64_t)json_array_size(texts) == ids->dim[0] && n->dim[0] == ids->dim[0]);
    for (int64_t i = 0; i < ids->dim[0]; i++) {
        const char *text = json_string_value(json_array_get(texts, (size_t)i));
        const int32_t *want = (const int32_t *)ids->data + i * LONGEST_TEXT;
        int32_t got[LONGEST_TEXT] = {0}, len = ((const int32_t *)n->data)[i];
        int k = 0, m = mode_tokenizer_encode(t, text, strlen(text), got, LONGEST_TEXT);
        while (k < LONGEST_TEXT && got[k] == want[k]) k++;
        bool same = k == LONGEST_TEXT && m == len;
        if (k == LONGEST_TEXT) k = 0;
        tell(hooks, "tokens", text, same ? 0 : 1, 0.5, k, got[k], want[k]);
    }
out:
    json_decref(texts);
    mode_tokenizer_close(&t);
    mode_safetensors_close(&f);
    return st;
}

/* ---- pictures -------------------------------------------------------------------------------------------------- */

static enum mode_status check_picture(const struct mode_safetensors *f, int i, const char *name,
                                      const struct mode_verify_hooks *hooks, struct mode_error *err)
{
    static const char *const modes[] = {"; shortest", "; longest", "; squash"}; /* enum mode_resize */
    static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    const struct mode_tensor *file, *want;
    struct mode_preprocess p;
    struct mode_image im = {0};
    char key[48];
    enum mode_status st;
    snprintf(key, sizeof key, "picture.%d", i);
    if ((st = mode_safetensors_need(f, key, MODE_DTYPE_U8, 1, (int64_t[]){-1}, &file, err))) return st;
    snprintf(key, sizeof key, "picture.%d.pixels", i);
    if ((st = mode_safetensors_need(f, key, MODE_DTYPE_F32, 3, (int64_t[]){3, -1, -1}, &want, err))) return st;
    mode_preprocess_default(&p, (int)want->dim[1]);
    for (int m = 0; m < 3; m++)
        if (strstr(name, modes[m])) p.resize_mode = m;
    int64_t n = mode_tensor_count(want), worst = 0;
    float *got = mode_xmalloc((size_t)n * sizeof *got);
    if (!(st = mode_image_decode(&im, file->data, (size_t)file->dim[0], &limits, err)) &&
        !(st = mode_preprocess_eval(&p, &im, got, err))) {
        for (int64_t k = 0; k < n; k++)
            if (!(fabsf(got[k] - mode_f32(want)[k]) <= fabsf(got[worst] - mode_f32(want)[worst]))) worst = k;
        /* another libjpeg may round by up to 2 of 255 levels; everything else is exact up to the rounding of the
         * normalisation */
        double limit = strncmp(name, "jpeg", 4) == 0 ? 2 / 255.0 / 0.26 : 1e-6;
        tell(hooks, "pixels", name, fabs((double)got[worst] - mode_f32(want)[worst]), limit, worst, got[worst],
             mode_f32(want)[worst]);
    }
    mode_image_clear(&im);
    free(got);
    return st;
}

enum mode_status mode_verify_preprocessing(const struct mode_verify_hooks *hooks, struct mode_error *err)
{
    struct mode_safetensors f = {0};
    const char *name;
    enum mode_status st = open_goldens(&f, err);
    if (st) return st;
    hooks->begin(hooks->ctx, "preprocessing");
    for (int i = 0; !st && (name = meta_of(&f, "picture", i)); i++) st = check_picture(&f, i, name, hooks, err);
    mode_safetensors_close(&f);
    return st;
}

/* ---- tiny models ----------------------------------------------------------------------------------------------- */

static struct mode_rng numbers_of(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (const char *p = name; *p; p++) h = (h ^ (unsigned char)*p) * 16777619u;
    return mode_rng_for(SEED, MODE_RNG_TEST, h, 0);
}

/* Must be bit-identical to tests/golden/make_verify_goldens.py. */
static void draw(struct mode_mirror *m, struct mode_param *p)
{
    float *to = mode_mirror_write(m, p->value.data, mode_tensor_bytes(&p->value));
    struct mode_rng r = numbers_of(p->name);
    int64_t n = mode_tensor_count(&p->value);
    size_t len = strlen(p->name);
    int dims = p->value.n_dims;
    bool gain = (dims == 1 && len > 7 && strcmp(p->name + len - 7, ".weight") == 0) ||
                (len > 6 && strcmp(p->name + len - 6, ".gamma") == 0);
    double span = dims < 2 ? 0.3 : 2.0 / sqrt((double)(n / p->value.dim[0]));
    for (int64_t i = 0; i < n; i++) to[i] = (float)((gain ? 1.0 : 0.0) + span * (2 * mode_rng_uniform(&r) - 1));
    if (strcmp(p->name, "logit_scale") == 0) to[0] = 1.25f;
    mode_mirror_send(m);
}

static enum mode_status check_tiny(struct mode_backend *be, const struct mode_safetensors *f, int k, const char *model,
                                   const struct mode_verify_hooks *hooks, struct mode_error *err)
{
    static const int32_t n_ids[PAIRS] = {3, 9, 1, 6, 2};
    float pixels[PAIRS * 3 * SIDE * SIDE];
    int32_t ids[PAIRS * CONTEXT], *at = ids;
    struct mode_rng r = numbers_of("pixels");
    struct mode_clip *clip = NULL;
    char prefix[16];
    size_t n;
    enum mode_status st = mode_clip_create(&clip, be, model, NULL, 0, err);
    if (st) return st;
    struct mode_param *p = mode_clip_params(clip, &n);
    struct mode_mirror m = {.be = be};
    for (size_t i = 0; i < n; i++)
        if (!p[i].frozen) draw(&m, &p[i]);
    mode_mirror_clear(&m);
    for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++) pixels[i] = (float)(4 * mode_rng_uniform(&r) - 2);
    r = numbers_of("ids");
    for (int i = 0; i < PAIRS; i++)
        for (int j = 0; j < CONTEXT; j++) {
            int32_t id = 1 + (int32_t)(mode_rng_uniform(&r) * 21);
            if (j < n_ids[i]) *at++ = j == n_ids[i] - 1 ? END : id;
        }
    snprintf(prefix, sizeof prefix, "%d.", k);
    st = mode_clip_verify_stored(clip, f, prefix, pixels, ids, n_ids, PAIRS, hooks->row, hooks->ctx, err);
    mode_clip_close(&clip);
    return st;
}

enum mode_status mode_verify_reference(struct mode_backend *be, const struct mode_verify_hooks *hooks,
                                       struct mode_error *err)
{
    struct mode_safetensors f = {0};
    const char *text;
    enum mode_status st = open_goldens(&f, err);
    for (int k = 0; !st && (text = meta_of(&f, "config", k)); k++) {
        json_t *config = json_loads(text, 0, NULL);
        char *model = json_dumps(json_object_get(config, "model_cfg"), JSON_COMPACT);
        char *part = mode_xasprintf("reference: %s", json_string_value(json_object_get(config, "name")));
        MODE_ASSERT(model);
        hooks->begin(hooks->ctx, part);
        st = check_tiny(be, &f, k, model, hooks, err);
        free(part);
        free(model);
        json_decref(config);
    }
    mode_safetensors_close(&f);
    return st;
}

/* ---- the given model ------------------------------------------------------------------------------------------- */

enum mode_status mode_verify_model(struct mode_backend *be, const char *dir, int64_t pairs,
                                   const struct mode_verify_hooks *hooks, struct mode_error *err)
{
    struct mode_clip *clip = NULL;
    enum mode_status st = mode_clip_load(&clip, be, dir, err);
    if (st) return st;
    if (hooks->note && mode_clip_note(clip)[0]) hooks->note(hooks->ctx, mode_clip_note(clip));
    const struct mode_tensor *table = NULL;
    size_t n, side = (size_t)mode_clip_preprocess(clip)->size, pixels_n = (size_t)pairs * 3 * side * side;
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++)
        if (strstr(p[i].name, "token_embedding.weight")) table = &p[i].value;
    int context = mode_clip_context(clip);
    int32_t vocab = (int32_t)table->dim[0];
    float *pixels = mode_xmalloc(pixels_n * sizeof *pixels);
    int32_t *ids = mode_xmalloc((size_t)(pairs * context) * sizeof *ids), *at = ids;
    int32_t *n_ids = mode_xmalloc((size_t)pairs * sizeof *n_ids);
    struct mode_rng r = numbers_of("model");
    for (size_t i = 0; i < pixels_n; i++) pixels[i] = (float)mode_rng_normal(&r);
    for (int64_t i = 0; i < pairs; i++) { /* the first text fills the context */
        n_ids[i] = i == 0 ? context : 1 + (int32_t)mode_rng_below(&r, (uint64_t)context);
        for (int32_t j = 0; j < n_ids[i]; j++)
            *at++ = j == n_ids[i] - 1 ? vocab - 1 : (int32_t)mode_rng_below(&r, (uint64_t)vocab);
    }
    hooks->begin(hooks->ctx, "model");
    st = mode_clip_verify(clip, pixels, ids, n_ids, pairs, hooks->row, hooks->ctx, err);
    free(pixels);
    free(ids);
    free(n_ids);
    mode_clip_close(&clip);
    return st;
}
