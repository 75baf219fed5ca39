/* A tiny BERT made here: what the loader takes and refuses, and that a text's vector is its own affair. Its numbers are
 * compared with the reference implementation in tests/golden. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "models/bert.h"
#include "nn/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 2, WIDTH = 12, HEADS = 3, INNER = 20, VOCAB = 9, POSITIONS = 16, MAX_TENSORS = 64 };

static char dir[] = "/tmp/mode-bert-XXXXXX";
static struct mode_backend *cpu, *ref;

static void put(const char *name, const char *text)
{
    struct mode_error err = {0};
    char *path = mode_path_join(dir, name);
    if (mode_file_write_atomic(path, text, strlen(text), &err)) fail_msg("%s", err.text);
    free(path);
}

static void drop(const char *name)
{
    char *path = mode_path_join(dir, name);
    remove(path);
    free(path);
}

static const char config[] = "{\"model_type\":\"bert\",\"num_hidden_layers\":2,\"hidden_size\":12,\"num_attention_heads\":3,"
                             "\"intermediate_size\":20,\"vocab_size\":9,\"max_position_embeddings\":16,"
                             "\"type_vocab_size\":2,\"layer_norm_eps\":1e-12,\"hidden_act\":\"gelu\"}";

/* Weights from a fixed generator. old: the prefix "bert." and gamma/beta. skip: leave out tensors with this in their name. */
static void put_weights(bool old, const char *skip)
{
    struct mode_tensor t[MAX_TENSORS];
    int n = 0;
    struct mode_str name = {0};
    struct mode_error err = {0};
    static const struct {
        const char *name;
        int rows, cols;
    } parts[] = {
        {"embeddings.word_embeddings.weight", VOCAB, WIDTH},
        {"embeddings.position_embeddings.weight", POSITIONS, WIDTH},
        {"embeddings.token_type_embeddings.weight", 2, WIDTH},
        {"embeddings.LayerNorm.weight", WIDTH, 0},
        {"embeddings.LayerNorm.bias", WIDTH, 0},
        {"pooler.dense.weight", WIDTH, WIDTH},
        {"pooler.dense.bias", WIDTH, 0},
        {"@attention.self.query.weight", WIDTH, WIDTH},
        {"@attention.self.query.bias", WIDTH, 0},
        {"@attention.self.key.weight", WIDTH, WIDTH},
        {"@attention.self.key.bias", WIDTH, 0},
        {"@attention.self.value.weight", WIDTH, WIDTH},
        {"@attention.self.value.bias", WIDTH, 0},
        {"@attention.output.dense.weight", WIDTH, WIDTH},
        {"@attention.output.dense.bias", WIDTH, 0},
        {"@attention.output.LayerNorm.weight", WIDTH, 0},
        {"@attention.output.LayerNorm.bias", WIDTH, 0},
        {"@intermediate.dense.weight", INNER, WIDTH},
        {"@intermediate.dense.bias", INNER, 0},
        {"@output.dense.weight", WIDTH, INNER},
        {"@output.dense.bias", WIDTH, 0},
        {"@output.LayerNorm.weight", WIDTH, 0},
        {"@output.LayerNorm.bias", WIDTH, 0},
    };
    for (int layer = -1; layer < LAYERS; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            bool in_layer = parts[i].name[0] == '@';
            if (in_layer != (layer >= 0)) continue;
            mode_str_reset(&name);
            mode_str_add_cstr(&name, old ? "bert." : "");
            if (in_layer) mode_str_printf(&name, "encoder.layer.%d.", layer);
            mode_str_add_cstr(&name, parts[i].name + in_layer);
            if (skip && strstr(name.data, skip)) continue;
            bool is_norm = strstr(name.data, "LayerNorm") != NULL, is_weight = strstr(name.data, "weight") != NULL;
            if (old && is_norm) {
                name.len -= is_weight ? 6 : 4;
                mode_str_add_cstr(&name, is_weight ? "gamma" : "beta");
            }
            int count = parts[i].rows * (parts[i].cols ? parts[i].cols : 1);
            float *x = mode_xmalloc((size_t)count * sizeof *x);
            struct mode_rng rng = mode_rng_for(5, MODE_RNG_TEST, (uint64_t)(layer + 1), i);
            for (int k = 0; k < count; k++)
                x[k] = (float)((is_norm && is_weight ? 1 : 0) + 0.4 * mode_rng_normal(&rng));
            t[n] = parts[i].cols ? mode_tensor_2d(x, MODE_DTYPE_F32, parts[i].rows, parts[i].cols)
                                 : mode_tensor_1d(x, MODE_DTYPE_F32, parts[i].rows);
            t[n++].name = mode_xstrdup(name.data);
        }
    char *path = mode_path_join(dir, "model.safetensors");
    if (mode_safetensors_write(path, t, (size_t)n, NULL, 0, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < n; i++) {
        free(t[i].data);
        free((void *)(uintptr_t)t[i].name);
    }
    mode_str_clear(&name);
    free(path);
}

static const char *const texts[] = {"a", "b a c d a b c d", "", "c", "d d d d d d d d d d d d d d d d d d d d", "a b", "b a"};
enum { N_TEXTS = sizeof texts / sizeof texts[0] };

static void encode(float out[N_TEXTS][WIDTH], struct mode_backend *be, const char *pooling, const char *const *which, size_t n)
{
    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    if (mode_text_encoder_open(&enc, be, dir, pooling, 0, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_text_encoder_dim(enc), WIDTH);
    if (mode_text_encoder_encode(enc, out[0], which, n, NULL, NULL, &err)) fail_msg("%s", err.text);
    mode_text_encoder_close(&enc);
    assert_null(enc);
}

static const char *const poolings[] = {"pooler", "cls", "mean"};

static void test_backends_agree_and_rows_are_unit(void **state)
{
    (void)state;
    float x[N_TEXTS][WIDTH], y[N_TEXTS][WIDTH];
    for (int p = 0; p < 3; p++) {
        encode(x, cpu, poolings[p], texts, N_TEXTS);
        encode(y, ref, poolings[p], texts, N_TEXTS);
        for (int i = 0; i < N_TEXTS; i++) {
            double squares = 0;
            for (int k = 0; k < WIDTH; k++) {
                squares += (double)x[i][k] * x[i][k];
                if (!(fabs((double)x[i][k] - y[i][k]) < 2e-6)) fail_msg("%s: %s: %g, %g", poolings[p], texts[i], x[i][k], y[i][k]);
            }
            assert_true(fabs(squares - 1) < 1e-5);
        }
        assert_memory_not_equal(x[5], x[6], sizeof x[5]); /* order matters */
    }
}

static void test_a_vector_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    float all[N_TEXTS][WIDTH], one[N_TEXTS][WIDTH];
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
    for (int i = 0; i < MANY; i++) assert_memory_equal(out + i * WIDTH, all[(i * 7 + i / 100) % N_TEXTS], sizeof *all);
    free(many);
    free(out);
}

static void test_old_names_give_the_same_vectors(void **state)
{
    (void)state;
    float x[N_TEXTS][WIDTH], y[N_TEXTS][WIDTH];
    encode(x, cpu, "pooler", texts, N_TEXTS);
    put_weights(true, NULL);
    encode(y, cpu, "pooler", texts, N_TEXTS);
    assert_memory_equal(x, y, sizeof x);
    put_weights(false, NULL);
}

static enum mode_status stop_at_once(void *ctx, size_t done, size_t total)
{
    *(size_t *)ctx = done * 1000 + total;
    return MODE_E_STOPPED;
}

static void test_a_tick_may_stop_the_work(void **state)
{
    (void)state;
    float x[N_TEXTS][WIDTH];
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
    assert_int_equal(max_tokens, POSITIONS);
    assert_int_equal(strncmp(a, "bert:", 5), 0);
    assert_string_equal(a + 5 + 16, ":pooler:16");
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, NULL, 0, &err), MODE_OK);
    assert_string_equal(mode_text_encoder_id(enc), a);
    mode_text_encoder_close(&enc);

    put("1_Pooling/config.json", "{\"word_embedding_dimension\":12,\"pooling_mode_cls_token\":false,\"pooling_mode_mean_tokens\":true}");
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

    put("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nd\nc\n"); /* other words, other encoder */
    assert_int_equal(mode_text_encoder_id_of(dir, NULL, 0, b, NULL, NULL, &err), MODE_OK);
    assert_string_not_equal(a, b);
    put("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\n");
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
    const char *at = strstr(config, from);
    assert_non_null(at);
    char *text = mode_xasprintf("%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    put("config.json", text);
    free(text);
    refused(words);
    put("config.json", config);
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
    refused_config("layers\":2", "layers\":1", "there are 1 layers");
    refused_config("layers\":2", "layers\":3", "encoder.layer.2");
    refused_config("layers\":2", "layers\":0", "num_hidden_layers");
    refused_config("size\":20", "size\":21", "[20, 12]");
    refused_config("size\":9", "size\":8", "the model knows 8");
    refused_config("1e-12", "\"small\"", "layer_norm_eps");
    refused_config("\"vocab_size\":9", "\"vocab_size\":1000000", "cannot hold");
    put_weights(false, "layer.1.output.dense.bias");
    refused("encoder.layer.1.output.dense.bias is missing");
    put_weights(false, "embeddings.LayerNorm.weight");
    refused("embeddings.LayerNorm.weight is missing");
    put_weights(false, NULL);

    struct mode_text_encoder *enc;
    struct mode_error err = {0};
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "max", 0, &err), MODE_E_VALUE);
    assert_int_equal(mode_text_encoder_open(&enc, cpu, dir, "cls", POSITIONS + 1, &err), MODE_E_VALUE);
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
    put("config.json", config);
    put("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\n");
    put_weights(false, NULL);
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
