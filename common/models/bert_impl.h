/* bert_impl.h - struct mode_text_encoder and its activations; for models/bert*.c only.
 *
 * Letters: V vocabulary, P positions, D width, I MLP width, R packed rows (tokens) of a batch, B sequences. */
#ifndef MODE_MODELS_BERT_IMPL_H
#define MODE_MODELS_BERT_IMPL_H

#include "models/bert.h"
#include "models/bert_folder.h"
#include "nn/results.h"

struct mode_tokenizer;

struct bert_layer {
    struct mode_tensor qkv_w, qkv_b;                         /* [3D, D], [3D] */
    struct mode_tensor out_w, out_b, out_ln_w, out_ln_b;     /* [D, D], [D] ... */
    struct mode_tensor fc_w, fc_b;                           /* [I, D], [I]   */
    struct mode_tensor proj_w, proj_b, proj_ln_w, proj_ln_b; /* [D, I], [D] ... */
};

struct mode_text_encoder {
    struct mode_backend *be;
    struct mode__bert_config c;
    enum mode__pooling pooling;
    int max_tokens;
    char id[MODE_ENCODER_ID];
    struct mode_tokenizer *tokenizer;
    float *weights; /* f32, the backend's memory; all tensors below point into it */
    size_t n_weights, used;
    uint16_t *copies; /* bf16 backend: GEMM operands, rounded; their tensors point in here instead */
    struct mode_tensor words, positions, ln_w, ln_b; /* [V, D], [P, D], [D], [D] */
    struct bert_layer *layers;
    struct mode_tensor pooler_w, pooler_b; /* [D, D], [D]; only when pooling needs it */
};

enum { BERT_SLOTS = 2 };

/* Activations of one batch: R packed rows, B sequences. Lists and results are double-buffered: while a GPU computes one
 * batch, the host copies out the results of the previous one and writes the lists of the next. */
struct bert_acts {
    void *block;
    char *x, *y, *qkv, *attended, *hidden,
        *first;         /* [R, D], [R, D], [R, 3D], [R, D], [R, I], [B, D]: f32 or bf16 (mode_backend_activations) */
    float *unit, *norm; /* [B, D], [B] */
    int32_t *own;       /* offsets of sequences of one row: 0, 1, ... B */
    int64_t rows;       /* capacity: R of a batch at most */
    struct bert_slot {
        int32_t *lists, *ids, *offsets; /* ids [R] and offsets [B + 1] lie in lists, visible to host and device */
        size_t bytes;                   /* of lists */
        struct mode_results *out;       /* [B, D] */
        size_t first;                   /* the batch is first .. first + n of the sorted texts */
        int64_t n;                      /* 0: no batch in flight */
    } slot[BERT_SLOTS];
};

/* bert_forward.c. rows: capacity in tokens, which bounds the number of sequences, too. E_MEMORY; close even then. */
enum mode_status mode__bert_acts_open(struct bert_acts *a, struct mode_backend *be, const struct mode__bert_config *c,
                                      size_t rows, struct mode_error *err);
void mode__bert_acts_close(struct bert_acts *a, struct mode_backend *be);
/* Forward pass of the slot's n sequences (ids, offsets) -> a->unit [n, D]. Ops only: nothing is waited for. */
void mode__bert_forward(struct mode_text_encoder *enc, struct bert_acts *a, const struct bert_slot *s);

#endif
