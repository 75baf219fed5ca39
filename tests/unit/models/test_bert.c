/* A tiny BERT made here: what the loader accepts and refuses, and that a text's features do not depend on its batch.
 * The values are compared with the reference implementation in tests/golden. */
#include "models/bert.h"
#include "nn/backend.h"
#include "tiny_bert.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-bert-XXXXXX";
static struct mode_backend *cpu, *ref;

static void put(const char *name, const char *text)
{
    tiny_write_text(dir, name, text);
}

static void drop(const char *name)
{
    char *path = mode_path_join(dir, name);
    remove(path);
    free(path);
}

static const char *const texts[] = {"a",  "b a c d a b c d", "", "c", "d d d d d d d d d d d d d d d d d d d d", "a b",
                                    "b a"};
enum { N_TEXTS = sizeof texts / sizeof texts[0] };

static void encode(float out[N_TEXTS][TINY_WIDTH], struct mode_backend *be, const char *pooling,
                   const char *const *which, size_t n)
{
    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    if (mode_text_encoder_open(&enc, be, dir, pooling, 0, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_text_encoder_dim(enc), TINY_WIDTH);
    if (mode_text_encoder_encode(enc, out[0], which, n, NULL, NULL, &err)) fail_msg("%s", err.text);
    mode_text_encoder_close(&enc);
    assert_null(enc);
}

static const char *const poolings[] = {"pooler", "cls", "mean"};

static void test_backends_agree_and_rows_are_unit(void **state)
{
    (void)state;
    float x[N_TEXTS][TINY_WIDTH], y[N_TEXTS][TINY_WIDTH];
    for (int p = 0; p < 3; p++) {
        encode(x, cpu, poolings[p], texts, N_TEXTS);
        encode(y, ref, poolings[p], texts, N_TEXTS);
        for (int i = 0; i < N_TEXTS; i++) {
            double squares = 0;
            for (int k = 0; k < TINY_WIDTH; k++) {
                squares += (double)x[i][k] * x[i][k];
                if (!(fabs((double)x[i][k] - y[i][k]) < 2e-6))
                    fail_msg("%s: %s: %g, %g", poolings[p], texts[i], x[i][k], y[i][k]);
            }
            assert_true(fabs(squares - 1) < 1e-5);
        }
        assert_memory_not_equal(x[5], x[6], sizeof x[5]); /* order matters */
    }
}

static void test_a_vector_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    float all[N_TEXTS][TINY_WIDTH], one[N_TEXTS][TINY_WIDTH];
    for (int p = 0; p < 3; p++) {
        encode(all, cpu, poolings[p], texts, N_TEXTS);
        for (int i = 0; i < N_TEXTS; i++) {
            encode(one, cpu, poolings[p], &texts[i], 1);
            assert_memory_equal(all[i], one[0], sizeof one[0]);
        }
    }
    enum { MANY = 9000 }; /* more than one window, many batches */
    const char **many = mode_xmalloc(MANY * sizeof *many);
    float *out = mode_xmalloc(MANY * sizeof *one);
    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    for (int i = 0; i < MANY; i++) many[i] = texts[(i * 7 + i / 100) % N_TEXTS];
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "mean", 0, &err), MODE_OK);
    assert_int_equal(mode_text_encoder_encode(enc, out, many, MANY, NULL, NULL, &err), MODE_OK);
    mode_text_encoder_close(&enc);
    for (int i = 0; i < MANY; i++)
        assert_memory_equal(out + i * TINY_WIDTH, all[(i * 7 + i / 100) % N_TEXTS], sizeof *all);
    free(many);
    free(out);
}

static void test_old_names_give_the_same_vectors(void **state)
{
    (void)state;
    float x[N_TEXTS][TINY_WIDTH], y[N_TEXTS][TINY_WIDTH];
    encode(x, cpu, "pooler", texts, N_TEXTS);
    tiny_write_weights(dir, true, NULL);
    encode(y, cpu, "pooler", texts, N_TEXTS);
    assert_memory_equal(x, y, sizeof x);
    tiny_write_weights(dir, false, NULL);
}

static enum mode_status stop_at_once(void *ctx, size_t done, size_t total)
{
    *(size_t *)ctx = done * 1000 + total;
    return MODE_E_STOPPED;
}

static void test_a_tick_may_stop_the_work(void **state)
{
    (void)state;
    float x[N_TEXTS][TINY_WIDTH];
    size_t seen = 0;
    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "cls", 0, &err), MODE_OK);
    assert_int_equal(mode_text_encoder_encode(enc, x[0], texts, N_TEXTS, stop_at_once, &seen, &err), MODE_E_STOPPED);
    assert_int_equal(seen, N_TEXTS * 1000 + N_TEXTS);
    mode_text_encoder_close(&enc);
}

static void test_identity_says_what_decides_the_vectors(void **state)
{
    (void)state;
    char a[MODE_ENCODER_ID], b[MODE_ENCODER_ID];
    const char *pooling;
    int max_tokens;
    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    assert_int_equal(mode_text_encoder_id_of(dir, NULL, 0, a, &pooling, &max_tokens, &err), MODE_OK);
    assert_string_equal(pooling, "pooler");
    assert_int_equal(max_tokens, TINY_POSITIONS);
    assert_int_equal(strncmp(a, "bert:", 5), 0);
    assert_string_equal(a + 5 + 16, ":pooler:16");
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, NULL, 0, &err), MODE_OK);
    assert_string_equal(mode_text_encoder_id(enc), a);
    mode_text_encoder_close(&enc);

    put("1_Pooling/config.json",
        "{\"word_embedding_dimension\":12,\"pooling_mode_cls_token\":false,\"pooling_mode_mean_tokens\":true}");
    put("sentence_bert_config.json", "{\"max_seq_length\":8}");
    assert_int_equal(mode_text_encoder_id_of(dir, NULL, 0, b, &pooling, &max_tokens, &err), MODE_OK);
    assert_string_equal(b + 5 + 16, ":mean:8");
    assert_int_equal(strncmp(a, b, 21), 0);
    assert_int_equal(mode_text_encoder_id_of(dir, "pooler", 16, b, NULL, NULL, &err), MODE_OK);
    assert_string_equal(a, b);
    put("1_Pooling/config.json", "{\"pooling_mode_max_tokens\":true}");
    assert_int_equal(mode_text_encoder_id_of(dir, NULL, 0, b, NULL, NULL, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "pooling_mode_max_tokens"));
    put("modules.json", "[{\"type\":\"sentence_transformers.models.Dense\"}]");
    assert_int_equal(mode_text_encoder_id_of(dir, NULL, 0, b, NULL, NULL, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "Dense"));
    drop("1_Pooling/config.json");
    drop("sentence_bert_config.json");
    drop("modules.json");

    put("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nd\nc\n"); /* another vocabulary, another encoder_id */
    assert_int_equal(mode_text_encoder_id_of(dir, NULL, 0, b, NULL, NULL, &err), MODE_OK);
    assert_string_not_equal(a, b);
    put("vocab.txt", tiny_vocab);
}

static void refused(const char *words)
{
    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "cls", 0, &err), MODE_E_FORMAT);
    if (!strstr(err.text, words)) fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    assert_null(enc);
}

static void refused_config(const char *from, const char *to, const char *words)
{
    const char *at = strstr(tiny_config, from);
    assert_non_null(at);
    char *text = mode_xasprintf("%.*s%s%s", (int)(at - tiny_config), tiny_config, to, at + strlen(from));
    put("config.json", text);
    free(text);
    refused(words);
    put("config.json", tiny_config);
}

static void test_what_is_not_plain_bert_is_refused_by_name(void **state)
{
    (void)state;
    refused_config("\"bert\"", "\"roberta\"", "roberta");
    refused_config("\"model_type\":\"bert\",", "", "model_type is missing");
    refused_config("\"gelu\"", "\"gelu\",\"position_embedding_type\":\"relative_key\"", "relative_key");
    refused_config("\"gelu\"", "\"relu\"", "relu");
    refused_config("\"gelu\"", "\"gelu\",\"is_decoder\":true", "is_decoder");
    refused_config("heads\":3", "heads\":5", "multiple of 5 heads");
    refused_config("layers\":2", "layers\":1", "specifies 1 layers");
    refused_config("layers\":2", "layers\":3", "encoder.layer.2");
    refused_config("layers\":2", "layers\":0", "num_hidden_layers");
    refused_config("size\":20", "size\":21", "[20, 12]");
    refused_config("size\":16", "size\":8", "the model has 8");
    refused_config("1e-12", "\"small\"", "layer_norm_eps");
    refused_config("\"vocab_size\":16", "\"vocab_size\":1000000", "cannot hold");
    tiny_write_weights(dir, false, "layer.1.output.dense.bias");
    refused("encoder.layer.1.output.dense.bias is missing");
    tiny_write_weights(dir, false, "embeddings.LayerNorm.weight");
    refused("embeddings.LayerNorm.weight is missing");
    tiny_write_weights(dir, false, NULL);

    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "max", 0, &err), MODE_E_VALUE);
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "cls", TINY_POSITIONS + 1, &err), MODE_E_VALUE);
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "cls", 2, &err), MODE_E_VALUE);
    assert_int_equal(mode_text_encoder_open(&enc, cpu, "/nonexistent", "cls", 0, &err), MODE_E_NOINPUT);
}

static int setup(void **state)
{
    (void)state;
    struct mode_error err = {0};
    if (!mkdtemp(dir) || mode_backend_open(&cpu, "cpu", &err) || mode_backend_open(&ref, "ref", &err)) return -1;
    char *pooling = mode_path_join(dir, "1_Pooling");
    if (mode_dir_make(pooling, &err)) return -1;
    free(pooling);
    tiny_write(dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mode_backend_close(&cpu);
    mode_backend_close(&ref);
    return mode_dir_remove(dir, NULL) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backends_agree_and_rows_are_unit),
        cmocka_unit_test(test_a_vector_does_not_depend_on_its_neighbours),
        cmocka_unit_test(test_old_names_give_the_same_vectors),
        cmocka_unit_test(test_a_tick_may_stop_the_work),
        cmocka_unit_test(test_identity_says_what_decides_the_vectors),
        cmocka_unit_test(test_what_is_not_plain_bert_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
