/* Towers as wide as the published ones (ViT-B-32, ViT-L-14, BERT base; two layers and one) against open_clip and
 * transformers in double precision. The weights are generated on both sides (counted.h). */
#include "counted.h"

#include "base/file.h"
#include "models/bert.h"
#include "nn/backend.h"

#include <stdio.h>

enum { PROBES = 256 };

static void open_golden(struct mode_safetensors *f, const char *name)
{
    struct mode_error err;
    char *path = mode_xasprintf("%s/tests/golden/widths/%s.safetensors", MODE_SOURCE_DIR, name);
    if (mode_safetensors_open(f, path, &err)) fail_msg("%s", err.text);
    free(path);
}

/* The relative error, estimated from the sampled entries, and that of the norm. */
static void check_gradient(const struct mode_safetensors *f, const struct mode_param *p, const char *model)
{
    double norm = *(const double *)counted_need(f, "norm.", p->name)->data, found = 0, off = 0;
    const float *want = counted_need(f, "probes.", p->name)->data, *got = mode_f32(&p->grad);
    int64_t n = mode_tensor_count(&p->grad);
    double limit = counted_limit(p);
    char *name = mode_xasprintf("probe.%s", p->name);
    struct mode_rng r = counted_numbers(name);
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
    const struct mode_param *p = mode_clip_params(clip, &n_params);
    counted_step(clip, &f, "", name, false);
    assert_int_equal(2 * n_params + 4, f.n_tensors);
    for (size_t i = 0; i < n_params; i++) check_gradient(&f, &p[i], name);
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

/* A folder as transformers would have written it. shapes: lines of "NAME dimensions rows columns". */
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
        counted_weight(x, name, dims, rows, rows * cols);
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
    const struct mode_tensor *lengths = counted_need(&f, "n_ids", "");
    int64_t n = lengths->dim[0];
    struct mode_rng r = counted_numbers("letters");
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
        const struct mode_tensor *want = counted_need(&f, poolings[k], "");
        float *out = mode_xmalloc((size_t)mode_tensor_count(want) * sizeof *out);
        assert_int_equal(mode_text_encoder_dim(enc), want->dim[1]);
        if (mode_text_encoder_encode(enc, out, (const char *const *)texts, (size_t)n, NULL, NULL, &err))
            fail_msg("%s", err.text);
        double off = counted_distance(out, want->data, mode_tensor_count(want));
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
