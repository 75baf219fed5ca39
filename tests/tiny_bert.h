/* tiny_bert.h - a Hugging Face folder of a BERT of two layers with weights from a fixed generator. */
#ifndef MODE_TESTS_TINY_BERT_H
#define MODE_TESTS_TINY_BERT_H

#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/safetensors.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { TINY_LAYERS = 2, TINY_WIDTH = 12, TINY_INNER = 20, TINY_VOCAB = 16, TINY_POSITIONS = 16 };

static const char tiny_vocab[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\nred\ngreen\nblue\nwhite\nsquare\npicture\nof\n";

static const char tiny_config[] =
    "{\"model_type\":\"bert\",\"num_hidden_layers\":2,\"hidden_size\":12,\"num_attention_heads\":3,"
    "\"intermediate_size\":20,\"vocab_size\":16,\"max_position_embeddings\":16,"
    "\"type_vocab_size\":2,\"layer_norm_eps\":1e-12,\"hidden_act\":\"gelu\"}";

/* Weights from a fixed generator. old: the prefix "bert." and gamma/beta. skip: leave out tensors with this in their
 * name. */
static inline void tiny_write_weights(const char *dir, bool old, const char *skip)
{
    struct mode_tensor t[64];
    int n = 0;
    struct mode_str name = {0};
    struct mode_error err = {0};
    static const struct {
        const char *name;
        int rows, cols;
    } parts[] = {
        {"embeddings.word_embeddings.weight", TINY_VOCAB, TINY_WIDTH},
        {"embeddings.position_embeddings.weight", TINY_POSITIONS, TINY_WIDTH},
        {"embeddings.token_type_embeddings.weight", 2, TINY_WIDTH},
        {"embeddings.LayerNorm.weight", TINY_WIDTH, 0},
        {"embeddings.LayerNorm.bias", TINY_WIDTH, 0},
        {"pooler.dense.weight", TINY_WIDTH, TINY_WIDTH},
        {"pooler.dense.bias", TINY_WIDTH, 0},
        {"@attention.self.query.weight", TINY_WIDTH, TINY_WIDTH},
        {"@attention.self.query.bias", TINY_WIDTH, 0},
        {"@attention.self.key.weight", TINY_WIDTH, TINY_WIDTH},
        {"@attention.self.key.bias", TINY_WIDTH, 0},
        {"@attention.self.value.weight", TINY_WIDTH, TINY_WIDTH},
        {"@attention.self.value.bias", TINY_WIDTH, 0},
        {"@attention.output.dense.weight", TINY_WIDTH, TINY_WIDTH},
        {"@attention.output.dense.bias", TINY_WIDTH, 0},
        {"@attention.output.LayerNorm.weight", TINY_WIDTH, 0},
        {"@attention.output.LayerNorm.bias", TINY_WIDTH, 0},
        {"@intermediate.dense.weight", TINY_INNER, TINY_WIDTH},
        {"@intermediate.dense.bias", TINY_INNER, 0},
        {"@output.dense.weight", TINY_WIDTH, TINY_INNER},
        {"@output.dense.bias", TINY_WIDTH, 0},
        {"@output.LayerNorm.weight", TINY_WIDTH, 0},
        {"@output.LayerNorm.bias", TINY_WIDTH, 0},
    };
    for (int layer = -1; layer < TINY_LAYERS; layer++)
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
    MODE_ASSERT(mode_safetensors_write(path, t, (size_t)n, NULL, 0, &err) == MODE_OK);
    for (int i = 0; i < n; i++) {
        free(t[i].data);
        free((void *)(uintptr_t)t[i].name);
    }
    mode_str_clear(&name);
    free(path);
}

static inline void tiny_write_text(const char *dir, const char *name, const char *text)
{
    struct mode_error err = {0};
    char *path = mode_path_join(dir, name);
    MODE_ASSERT(mode_file_write_atomic(path, text, strlen(text), &err) == MODE_OK);
    free(path);
}

/* The whole folder; pooling follows as "pooler". */
static inline void tiny_write(const char *dir)
{
    struct mode_error err = {0};
    MODE_ASSERT(mode_dir_make(dir, &err) == MODE_OK);
    tiny_write_text(dir, "config.json", tiny_config);
    tiny_write_text(dir, "vocab.txt", tiny_vocab);
    tiny_write_weights(dir, false, NULL);
}

#endif
