/* bert_impl.h - inside of struct mode_text_encoder; for models/bert*.c only.
 *
 * Letters: V ids, P places, D width, I inner width, R packed rows of a batch, B sequences. */
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
    float *weights; /* the block all tensors below point into */
    size_t n_weights, used;
    uint16_t *copies; /* bf16 backend: the tensors that products read point in here instead */
    struct mode_tensor words, positions, ln_w, ln_b; /* [V, D], [P, D], [D], [D] */
    struct bert_layer *layers;
    struct mode_tensor pooler_w, pooler_b; /* [D, D], [D]; only when pooling needs it */
};

enum { BERT_SLOTS = 2 };

/* Activations of one batch: R packed rows, B sequences. Lists and results are of two: while a device computes one
 * batch, the host takes what became of the one before and writes the lists of the next. */
struct bert_acts {
    void *block;
    char *x, *y, *qkv, *attended, *hidden,
        *first;         /* [R, D], [R, D], [R, 3D], [R, D], [R, I], [B, D]: as be stores them */
    float *unit, *norm; /* [B, D], [B] */
    int32_t *own;       /* 0, 1, ... B for sequences of one row */
    int64_t rows;       /* the most that a batch has */
    struct bert_slot {
        int32_t *lists, *ids, *offsets; /* [R], [B + 1], both in lists */
        size_t bytes;                   /* of lists */
        struct mode_results *out;       /* [B, D] */
        size_t first;                   /* of the sorted texts; n: none on their way */
        int64_t n;
    } slot[BERT_SLOTS];
};

/* bert_forward.c. rows: of a batch, and at most as many sequences. E_MEMORY; close what open left behind. */
enum mode_status mode__bert_acts_open(struct bert_acts *a, struct mode_backend *be, const struct mode__bert_config *c,
                                      size_t rows, struct mode_error *err);
void mode__bert_acts_close(struct bert_acts *a, struct mode_backend *be);
/* The ids and offsets of a slot's n sequences -> a->unit [n, D]. */
void mode__bert_forward(struct mode_text_encoder *enc, struct bert_acts *a, const struct bert_slot *s);

#endif
