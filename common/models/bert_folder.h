/* bert_folder.h - config, pooling and identity of a Hugging Face folder of a BERT encoder; inside models/ only. */
#ifndef MODE_MODELS_BERT_FOLDER_H
#define MODE_MODELS_BERT_FOLDER_H

#include "models/bert.h"
#include "nn/ops.h"

enum mode__pooling { MODE__POOLING_POOLER, MODE__POOLING_CLS, MODE__POOLING_MEAN };
const char *mode__pooling_name(enum mode__pooling p);

struct mode__bert_config {
    int64_t layers, width, heads, inner, vocab, positions, types; /* inner: width of the MLP's hidden layer */
    float eps;                                                    /* of every LayerNorm */
    enum mode_act act;
};

/* Reads config.json. E_FORMAT: anything but plain BERT, or a size out of bounds; the error names the key. */
enum mode_status mode__bert_config_load(struct mode__bert_config *c, const char *dir, struct mode_error *err);
/* Resolves pooling NULL and max_tokens 0 as mode_text_encoder_open documents it. E_VALUE, E_FORMAT. */
enum mode_status mode__bert_choose(enum mode__pooling *p, int *max_tokens_out, const struct mode__bert_config *c,
                                   const char *dir, const char *pooling, int max_tokens, struct mode_error *err);
/* Path of the weights file: mode_weights_in's choice, else "<dir>/model.safetensors". The caller frees. */
char *mode__bert_weights(const char *dir);
/* "bert:<16 hex>:<pooling>:<max tokens>"; the hex digits are of a digest over all files that affect the vectors. */
enum mode_status mode__bert_identity(char id[MODE_ENCODER_ID], const char *dir, enum mode__pooling p, int max_tokens,
                                     struct mode_error *err);

#endif
