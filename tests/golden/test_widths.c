/* Towers as wide as the published ones (ViT-B-32, ViT-L-14, BERT base; two layers and one) against open_clip and
 * transformers in double precision. The weights are counted out on both sides: make_width_goldens.py says how. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "models/bert.h"
#include "models/clip_train.h"
#include "nn/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEED = 20, PROBES = 256 };

static struct mode_rng numbers(const char *name)
{
    uint32_t h = 2166136261u;
    for (const char *c = name; *c; c++) h = (h ^ (uint8_t)*c) * 16777619u;
    return mode_rng_for(SEED, MODE_RNG_TEST, h, 0);
}

static void uniform(float *out, const char *name, int64_t n, float scale, float about)
{
    struct mode_rng r = numbers(name);
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)((double)((int32_t)(mode_rng_u32(&r) >> 8) - (1 << 23)) * 0x1p-23 * scale + about);
}

static void weight(float *out, const char *name, int n_dims, int64_t rows, int64_t n)
{
    size_t len = strlen(name);
    float scale = 1;
    if (n_dims == 0) {
        out[0] = 2.625f;
        return;
    }
    while (n_dims > 1 && scale * scale * (float)(n / rows) > 4) scale /= 2;
    if (n_dims > 1)
        uniform(out, name, n, scale, 0);
    else
        uniform(out, name, n, 0.25f, len > 7 && strcmp(name + len - 7, ".weight") == 0 ? 1 : 0);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(diff / size);
}

static void open_golden(struct mode_safetensors *f, const char *name)
{
    struct mode_error err;
    char *path = mode_xasprintf("%s/tests/golden/widths/%s.safetensors", MODE_SOURCE_DIR, name);
    if (mode_safetensors_open(f, path, &err)) fail_msg("%s", err.text);
    free(path);
}

static const struct mode_tensor *need(const struct mode_safetensors *f, const char *kind, const char *name)
{
    char *key = mode_xasprintf("%s%s", kind, name);
    const struct mode_tensor *t = mode_safetensors_find(f, key);
    if (!t) fail_msg("%s is missing", key);
    free(key);
    return t;
}

/* The whole error from its sample of entries, and the norm. */
static void check_gradient(const struct mode_safetensors *f, const struct mode_param *p, const char *model)
{
    double norm = *(const double *)need(f, "norm.", p->name)->data, found = 0, off = 0;
    const float *want = need(f, "probes.", p->name)->data, *got = mode_f32(&p->grad);
    int64_t n = mode_tensor_count(&p->grad);
    double limit = p->value.n_dims < 2 ? 1e-4 : 2e-5;
    char *name = mode_xasprintf("probe.%s", p->name);
    struct mode_rng r = numbers(name);
    for (int64_t i = 0; i < n; i++) found += (double)got[i] * got[i];
    for (int i = 0; i < PROBES; i++) {
        double d = (double)got[mode_rng_u32(&r) % (uint64_t)n] - want[i];
        off += d * d;
    }
    off = sqrt(off / PROBES * (double)n) / norm;
    found = fabs(sqrt(found) - norm) / norm;
    if (!(off < limit) || !(found < limit))
        fail_msg("%s: gradient of %s: off by %.3g, its norm by %.3g (limit %.3g)", model, p->name, off, found, limit);
    free(name);
}

static void check_clip(const char *name, const char *backend)
{
    struct mode_safetensors f;
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_error err;
    open_golden(&f, name);
    if (mode_backend_open(&be, backend, &err) ||
        mode_clip_create(&clip, be, mode_safetensors_meta(&f, "model_cfg"), NULL, 1, &err))
        fail_msg("%s", err.text);
    size_t n_params;
    struct mode_param *p = mode_clip_params(clip, &n_params);
    for (size_t i = 0; i < n_params; i++) {
        struct mode_tensor *v = &p[i].value;
        weight(mode_f32(v), p[i].name, v->n_dims, v->n_dims ? v->dim[0] : 1, mode_tensor_count(v));
    }
    const struct mode_tensor *lengths = need(&f, "n_ids", "");
    const int32_t *n_ids = lengths->data;
    int64_t b = lengths->dim[0], e = mode_clip_embed_dim(clip), context = mode_clip_context(clip);
    int64_t side = mode_clip_preprocess(clip)->size, at = 0, vocab = 0;
    for (size_t i = 0; i < n_params; i++)
        if (strcmp(p[i].name, "token_embedding.weight") == 0) vocab = p[i].value.dim[0];
    float *pixels = mode_xmalloc((size_t)(b * 3 * side * side) * sizeof *pixels);
    float *out = mode_xmalloc((size_t)(b * e) * sizeof *out);
    int32_t *ids = mode_xmalloc((size_t)(b * context) * sizeof *ids);
    uniform(pixels, "pixels", b * 3 * side * side, 2, 0);
    struct mode_rng r = numbers("ids");
    for (int64_t i = 0; i < b * context; i++) {
        int32_t id = (int32_t)(mode_rng_u32(&r) % (uint64_t)(vocab - 2)) + 1, k = (int32_t)(i % context);
        if (k < n_ids[i / context]) ids[at++] = k == n_ids[i / context] - 1 ? (int32_t)vocab - 1 : id;
    }
    assert_int_equal(mode_clip_encode_images(clip, out, pixels, b, 0, &err), MODE_OK);
    double off = distance(out, need(&f, "image", "")->data, b * e);
    if (!(off < 2e-6)) fail_msg("%s: image features off by %.3g", name, off);
    assert_int_equal(mode_clip_encode_texts(clip, out, ids, n_ids, b, 0, &err), MODE_OK);
    off = distance(out, need(&f, "text", "")->data, b * e);
    if (!(off < 2e-6)) fail_msg("%s: text features off by %.3g", name, off);
    double loss, want = *(const double *)need(&f, "loss", "")->data;
    if (mode_clip_train_begin(clip, b, &err) || mode_clip_train_step(clip, &loss, pixels, ids, n_ids, b, &err))
        fail_msg("%s", err.text);
    if (!(fabs(loss - want) < 2e-6 * want)) fail_msg("%s: loss %.9g, expected %.9g", name, loss, want);
    assert_int_equal(2 * n_params + 4, f.n_tensors);
    for (size_t i = 0; i < n_params; i++) check_gradient(&f, &p[i], name);
    free(pixels);
    free(out);
    free(ids);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    mode_safetensors_close(&f);
}

static void test_clip_of_published_width(void **state)
{
    (void)state;
    check_clip("ViT-B-32", "cpu");
    check_clip("ViT-L-14", "cpu");
}

/* ---- BERT --------------------------------------------------------------------------------------------------- */

static void put(const char *dir, const char *name, const char *text)
{
    struct mode_error err;
    char *path = mode_path_join(dir, name);
    assert_int_equal(mode_file_write_atomic(path, text, strlen(text), &err), MODE_OK);
    free(path);
}

/* The folder transformers would have written. shapes: lines of "NAME dimensions rows columns". */
static void write_bert(const char *dir, const char *config, const char *shapes)
{
    struct mode_tensor t[64];
    size_t n = 0;
    struct mode_error err;
    struct mode_str vocab = {0};
    for (const char *line = shapes; *line; line = strchr(line, '\n') + 1, n++) {
        char name[128];
        int dims;
        long long rows, cols;
        assert_true(n < 64 && sscanf(line, "%127s %d %lld %lld", name, &dims, &rows, &cols) == 4);
        float *x = mode_xmalloc((size_t)(rows * cols) * sizeof *x);
        weight(x, name, dims, rows, rows * cols);
        t[n] = dims == 1 ? mode_tensor_1d(x, MODE_DTYPE_F32, rows) : mode_tensor_2d(x, MODE_DTYPE_F32, rows, cols);
        t[n].name = mode_xstrdup(name);
    }
    char *path = mode_path_join(dir, "model.safetensors");
    assert_int_equal(mode_safetensors_write(path, t, n, NULL, 0, &err), MODE_OK);
    free(path);
    for (size_t i = 0; i < n; i++) {
        free(t[i].data);
        free((char *)(uintptr_t)t[i].name);
    }
    mode_str_add_cstr(&vocab, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n");
    for (int i = 0; i < 26; i++) mode_str_printf(&vocab, "%c\n", 'a' + i);
    put(dir, "vocab.txt", vocab.data);
    put(dir, "config.json", config);
    mode_str_clear(&vocab);
}

static void test_bert_of_published_width(void **state)
{
    static const char *const poolings[] = {"pooler", "cls", "mean"};
    char dir[] = "/tmp/mode-widths-XXXXXX", *texts[8];
    struct mode_safetensors f;
    struct mode_backend *be;
    struct mode_error err;
    (void)state;
    open_golden(&f, "bert-base");
    assert_non_null(mkdtemp(dir));
    write_bert(dir, mode_safetensors_meta(&f, "config"), mode_safetensors_meta(&f, "shapes"));
    const struct mode_tensor *lengths = need(&f, "n_ids", "");
    int64_t n = lengths->dim[0];
    struct mode_rng r = numbers("letters");
    assert_true(n <= 8);
    for (int64_t i = 0; i < n; i++) {
        struct mode_str text = {0};
        for (int k = 0; k < 64; k++) {
            char letter = (char)('a' + mode_rng_u32(&r) % 26);
            if (k < ((const int32_t *)lengths->data)[i] - 2) mode_str_printf(&text, "%s%c", k ? " " : "", letter);
        }
        texts[i] = text.data;
    }
    assert_int_equal(mode_backend_open(&be, "cpu", &err), MODE_OK);
    for (int k = 0; k < 3; k++) {
        struct mode_text_encoder *enc;
        if (mode_text_encoder_open(&enc, be, dir, poolings[k], 0, &err)) fail_msg("%s", err.text);
        const struct mode_tensor *want = need(&f, poolings[k], "");
        float *out = mode_xmalloc((size_t)mode_tensor_count(want) * sizeof *out);
        assert_int_equal(mode_text_encoder_dim(enc), want->dim[1]);
        if (mode_text_encoder_encode(enc, out, (const char *const *)texts, (size_t)n, NULL, NULL, &err))
            fail_msg("%s", err.text);
        double off = distance(out, want->data, mode_tensor_count(want));
        if (!(off < 2e-6)) fail_msg("bert-base, %s: vectors off by %.3g", poolings[k], off);
        free(out);
        mode_text_encoder_close(&enc);
    }
    for (int64_t i = 0; i < n; i++) free(texts[i]);
    mode_backend_close(&be);
    mode_dir_remove(dir, NULL);
    mode_safetensors_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip_of_published_width),
        cmocka_unit_test(test_bert_of_published_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
