/* Tokenizers and text encoder against their references (tests/golden/make_text_goldens.py; the hard lines of
 * tokens.jsonl are a sample of check_tokenizers.py's). Needs the real merges and encoder: MODE_TEST_MODELS = the folder
 * made by deploy/fetch-models.sh; without it the tests are skipped, and say so. */
#include "base/file.h"
#include "data/safetensors.h"
#include "data/tokenizer.h"
#include "models/bert.h"
#include "nn/backend.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_IDS = 512 };

static struct mode_error err;
static json_t *rows;       /* of text.jsonl */
static json_t *hard;       /* of tokens.jsonl */
static const char *models; /* NULL: skip    */

/* The bytes of a row: "text", or "hex" if they are not UTF-8. */
static size_t bytes_of(char *out, size_t cap, const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    if (text) {
        size_t n = json_string_length(text);
        assert_true(n <= cap);
        memcpy(out, json_string_value(text), n);
        return n;
    }
    const char *hex = json_string_value(json_object_get(row, "hex"));
    size_t n = strlen(hex) / 2;
    assert_true(n <= cap);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (char)byte;
    }
    return n;
}

static void check(const struct mode_tokenizer *t, const char *key, const json_t *list, int max_ids)
{
    static char text[1 << 14];
    int32_t ids[MAX_IDS];
    size_t i, wrong = 0;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        const json_t *want = json_object_get(row, key);
        int n = mode_tokenizer_encode(t, text, bytes_of(text, sizeof text, row), ids, max_ids);
        bool same = (size_t)n == json_array_size(want);
        for (int k = 0; same && k < n; k++) same = ids[k] == json_integer_value(json_array_get(want, (size_t)k));
        if (same) continue;
        if (wrong++ < 10) print_error("%s: text %zu: \"%s\"\n", key, i, text);
    }
    if (wrong) fail_msg("%s: the ids of %zu of %zu texts differ", key, wrong, json_array_size(list));
}

static void check_clip(const char *key, enum mode_clip_clean clean)
{
    struct mode_tokenizer *t;
    char *path = mode_path_join(models, "bpe_simple_vocab_16e6.txt.gz");
    if (mode_tokenizer_open_clip(&t, path, clean, &err)) fail_msg("%s", err.text);
    check(t, key, rows, 77);
    check(t, key, hard, 77);
    mode_tokenizer_close(&t);
    free(path);
}

static void test_clip_ids_are_those_of_open_clip(void **state)
{
    (void)state;
    check_clip("clip", MODE_CLIP_CLEAN_OPENAI);
}

static void test_clip_ids_are_those_of_hugging_face(void **state)
{
    (void)state;
    check_clip("hf", MODE_CLIP_CLEAN_HF);
}

static void test_bert_ids_are_those_of_hugging_face(void **state)
{
    (void)state;
    struct mode_tokenizer *t;
    char *dir = mode_path_join(models, "encoder");
    if (mode_tokenizer_open_bert(&t, dir, &err)) fail_msg("%s", err.text); /* tokenizer.json */
    check(t, "bert", rows, MAX_IDS);
    check(t, "bert", hard, 77);
    mode_tokenizer_close(&t);

    char bare[] = "/tmp/mode-vocab-XXXXXX"; /* vocab.txt alone gives the same tokenizer */
    assert_non_null(mkdtemp(bare));
    char *from = mode_path_join(dir, "vocab.txt"), *to = mode_path_join(bare, "vocab.txt");
    assert_int_equal(mode_file_copy(from, to, false, &err), MODE_OK);
    if (mode_tokenizer_open_bert(&t, bare, &err)) fail_msg("%s", err.text);
    check(t, "bert", rows, MAX_IDS);
    check(t, "bert", hard, 77);
    mode_tokenizer_close(&t);

    char *config = mode_path_join(bare, "tokenizer_config.json");
    static const char no_lower[] = "{\"do_lower_case\": false}";
    assert_int_equal(mode_file_write_atomic(config, no_lower, sizeof no_lower - 1, &err), MODE_OK);
    if (mode_tokenizer_open_bert(&t, bare, &err)) fail_msg("%s", err.text);
    check(t, "cased", hard, 77);
    mode_tokenizer_close(&t);
    free(config);
    mode_dir_remove(bare, NULL);
    free(from);
    free(to);
    free(dir);
}

static void test_vectors_are_those_of_hugging_face(void **state)
{
    (void)state;
    static const char *const poolings[] = {"pooler", "cls", "mean"};
    struct mode_backend *be;
    struct mode_safetensors want;
    char *dir = mode_path_join(models, "encoder");
    if (mode_safetensors_open(&want, MODE_SOURCE_DIR "/tests/golden/text_vectors.safetensors", &err))
        fail_msg("%s", err.text);
    assert_int_equal(mode_backend_open(&be, "cpu", &err), MODE_OK);
    for (int p = 0; p < 3; p++) {
        struct mode_text_encoder *enc;
        const struct mode_tensor *w;
        const int64_t dim[] = {-1, 384};
        const char *texts[64];
        if (mode_safetensors_need(&want, poolings[p], MODE_DTYPE_F32, 2, dim, &w, &err)) fail_msg("%s", err.text);
        size_t n = (size_t)w->dim[0], d = (size_t)w->dim[1];
        assert_true(n <= 64 && n <= json_array_size(rows));
        for (size_t i = 0; i < n; i++) texts[i] = json_string_value(json_object_get(json_array_get(rows, i), "text"));
        if (mode_text_encoder_open(&enc, be, dir, poolings[p], 256, &err)) fail_msg("%s", err.text);
        assert_int_equal(mode_text_encoder_dim(enc), d);
        float *x = malloc(n * d * sizeof *x);
        if (mode_text_encoder_encode(enc, x, texts, n, NULL, NULL, &err)) fail_msg("%s", err.text);
        double worst = 0;
        for (size_t i = 0; i < n; i++) {
            double cosine = 0;
            for (size_t k = 0; k < d; k++) cosine += (double)x[i * d + k] * mode_f32(w)[i * d + k];
            if (1 - cosine > worst) worst = 1 - cosine;
        }
        print_message("%s: largest 1 - cos over %zu texts: %.2g\n", poolings[p], n, worst);
        assert_true(worst <= 1e-6);
        free(x);
        mode_text_encoder_close(&enc);
    }
    mode_backend_close(&be);
    mode_safetensors_close(&want);
    free(dir);
}

static json_t *load_rows(const char *path)
{
    char *data, *line, *next;
    size_t size;
    if (mode_file_read(path, 0, &data, &size, &err)) return NULL;
    json_t *list = json_array();
    for (line = data; *line; line = next) {
        next = strchr(line, '\n');
        json_t *row = json_loadb(line, (size_t)(next - line), JSON_ALLOW_NUL, NULL);
        if (!row || json_array_append_new(list, row) != 0) return NULL;
        next++;
    }
    free(data);
    return list;
}

static int setup(void **state)
{
    (void)state;
    rows = load_rows(MODE_SOURCE_DIR "/tests/golden/text.jsonl");
    hard = load_rows(MODE_SOURCE_DIR "/tests/golden/tokens.jsonl");
    if (!rows || !hard) return -1;
    models = getenv("MODE_TEST_MODELS");
    char *merges = models ? mode_path_join(models, "bpe_simple_vocab_16e6.txt.gz") : NULL;
    if (!merges || !mode_file_exists(merges)) {
        print_message("SKIPPED: set MODE_TEST_MODELS to the folder that deploy/fetch-models.sh fills (now: %s)\n",
                      models ? models : "not set");
        exit(77);
    }
    free(merges);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(rows);
    json_decref(hard);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip_ids_are_those_of_open_clip),
        cmocka_unit_test(test_clip_ids_are_those_of_hugging_face),
        cmocka_unit_test(test_bert_ids_are_those_of_hugging_face),
        cmocka_unit_test(test_vectors_are_those_of_hugging_face),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
