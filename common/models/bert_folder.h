/* bert_folder.h - what a Hugging Face folder of a BERT encoder says about itself; inside models/ only. */
#ifndef MODE_MODELS_BERT_FOLDER_H
#define MODE_MODELS_BERT_FOLDER_H

#include "models/bert.h"
#include "nn/ops.h"

enum mode__pooling { MODE__POOLING_POOLER, MODE__POOLING_CLS, MODE__POOLING_MEAN };
const char *mode__pooling_name(enum mode__pooling p);

struct mode__bert_config {
    int64_t layers, width, heads, inner, vocab, positions, types;
    float eps; /* of every layer norm */
    enum mode_act act;
};

/* config.json. Anything but plain BERT, and sizes out of bounds, are refused by name. */
enum mode_status mode__bert_config_load(struct mode__bert_config *c, const char *dir, struct mode_error *err);
/* pooling NULL and max_tokens 0 take what the folder says. */
enum mode_status mode__bert_choose(enum mode__pooling *p, int *max_tokens_out, const struct mode__bert_config *c,
                                   const char *dir, const char *pooling, int max_tokens, struct mode_error *err);
/* The file of weights: the first of mode_weights_in's names, "<dir>/model.safetensors" where there is none. The caller
 * frees. */
char *mode__bert_weights(const char *dir);
/* "bert:<16 hex>:<pooling>:<max tokens>" over the files that decide what comes out. */
enum mode_status mode__bert_identity(char id[MODE_ENCODER_ID], const char *dir, enum mode__pooling p, int max_tokens,
                                     struct mode_error *err);

#endif
