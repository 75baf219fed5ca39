/* clip_impl.h - inside of struct mode_clip; for models/clip*.c only.
 *
 * Letters: B pairs, R packed rows of a tower, D width, F hidden width, H heads, E joint embedding. */
#ifndef MODE_MODELS_CLIP_IMPL_H
#define MODE_MODELS_CLIP_IMPL_H

#include "models/clip_config.h"
#include "models/clip_train.h"
#include "nn/mirror.h"
#include "nn/ops.h"
#include "nn/results.h"

struct clip_block { /* parameters of one residual block */
    struct mode_param *ln_1_w, *ln_1_b, *qkv_w, *qkv_b, *out_w, *out_b;
    struct mode_param *ln_2_w, *ln_2_b, *fc_w, *fc_b, *proj_w, *proj_b;
    struct mode_param *ls_1, *ls_2; /* layer scale of the two branches, or NULL */
};

struct clip_tower {
    struct mode_clip_tower_config cfg;
    bool causal;
    bool mean;     /* pooled by the mean over all rows but the first, not by one row */
    bool ln_after; /* with mean: the last layer norm comes after it */
    struct clip_block *blocks;
    struct mode_param *ln_w, *ln_b;     /* ln_post or ln_final */
    struct mode_param *proj;            /* [D, E], or NULL */
    struct mode_param *proj_w, *proj_b; /* [E, D], [E] in its place, or NULL: the features are the norm's output */
};

struct clip_block_acts {
    enum mode_clip_policy policy;
    struct mode_tensor ln_1, stats_1, qkv, attn, lse, mid, ln_2, stats_2, z, hidden, out; /* z: hidden's argument */
    struct mode_tensor branch_1, branch_2; /* with layer scale: the branches before it */
    /* last block with one query per sequence: the tensors above after qkv have B rows, kv takes its place */
    struct mode_tensor kv, ln_q, q, x_q;
};

struct clip_tower_acts {
    int64_t rows, seqs;   /* in use now; capacity is what the arena was planned for */
    struct mode_tensor x; /* [R, D] input of the first block */
    struct clip_block_acts *blocks;
    int64_t n_blocks;                      /* 1: inference, every block reuses the same memory       */
    bool keep;                             /* training: what the way back needs is kept, or made again */
    struct mode_tensor offsets, seq, pool; /* i32: [B + 1], 0..B, row of each sequence that is pooled [B] */
    struct mode_tensor pooled, ln, ln_stats, emb, unit, norm; /* [B, D], [B, D], [B, 2], [B, E], [B, E], [B] */
    struct mode_tensor d_unit, d_emb, d_ln, d_pooled;
    struct mode_tensor all, d_all;  /* [N, E]: unit and d_unit of all N pairs of a step; those are this piece's rows */
    struct mode_tensor d_q, d_ln_q; /* [B, D]: of the pooled queries          */
    struct mode_tensor rows_ln, rows_stats;       /* mean pooling after the norm: [R, D], [R, 2] */
    struct mode_tensor d_x, d_a, d_hidden, d_qkv; /* [R, D] x 2, [R, F], [R, 3D] in the same place: under way */
    struct mode_tensor d_branch;                  /* [R, D], with layer scale */
};

struct clip_arena {              /* tensors one after another; base NULL: only counts */
    enum mode_dtype activations; /* of mode__clip_acts_plan's */
    char *base;
    size_t used;
    bool overflow;
};

struct clip_images { /* from number `first` on; one of the two */
    const float *pixels;
    const struct mode_pictures *pictures;
    int64_t first;
};

struct clip_told { /* what the host wants to know of a step */
    double loss;
    float logit_scale;
};

struct clip_acts {
    int64_t batch, micro; /* pairs of a step; of them together in the towers */
    struct clip_arena arena;
    bool is_lent; /* the arena's memory is another one's */
    /* What the host writes before a step lies in memory that both sides have (mode_backend_share). Every piece has its
     * lists, so that none waits for another to be done with them. */
    struct clip_arena shared;
    int32_t *lists;                /* [pieces, lists_each]: offsets, pool and ids of texts */
    int64_t lists_each, text_rows; /* most rows of a piece's texts */
    int64_t pads, round;           /* texts that fill up; their rows make all texts' a multiple of it */
    double *loss;                  /* memory of its own */
    struct mode_results *told;     /* struct clip_told of the last step; training alone */
    struct clip_pairs {            /* some of a step's pairs; the caller's memory */
        struct clip_images images;
        const int32_t *ids, *n_ids;
        int64_t first, n;
    } step;                          /* those of mode_clip_train_load */
    size_t kept[MODE_CLIP_POLICIES]; /* bytes of the arena: of blocks, by policy */
    size_t turns;                    /* those at its end, which hold one thing after another */
    struct clip_tower_acts image, text;
    struct mode_tensor cols, patch;          /* [B P, 3 p p], [B P, D] */
    struct mode_tensor tokens, tokens_stats; /* [R, D], [R, 2]: before ln_pre; kept in training */
    struct mode_tensor ids;                  /* i32 [R] */
    struct mode_tensor logits;               /* as many of them as are made at a time */
    struct mode_tensor lse_row, lse_col;     /* f64 [N], N pairs of the whole step */
    /* several processes with N pairs each, M together: the texts of all, their gradients, lse_col [M] of each process
     */
    struct mode_tensor texts, d_texts; /* [M, E] */
    double *lse_cols;                  /* [size, M] */
};

struct mode_clip {
    struct mode_backend *be;
    struct mode_clip_config cfg;
    struct mode_preprocess preprocess;
    char *model_cfg, *preprocess_cfg, *note;
    bool dense_tokens, full_last_block;
    bool pad_texts;               /* in training; mode_clip_set_padding */
    bool branches;                /* the towers side by side; mode_clip_set_branches */
    bool pictures;                /* in training; mode_clip_set_pictures */
    int64_t accumulate;           /* pieces of a step, 1 by default */
    struct mode_clip_blocks kept; /* policies of the blocks, all MODE_CLIP_KEEP by default */
    struct mode_ranks *group;     /* NULL: this process trains alone */
    int parcels;                  /* of the group, the first of PARCELS; after train_begin */
    mode_clip_made *made;         /* mode_clip_set_made; may be NULL */
    void *made_ctx;
    bool is_last_way; /* the way back that finishes gradients: the last piece's */

    struct mode_param *params;
    struct clip_init { /* how a parameter is drawn */
        int kind;
        double scale;
    } * init;
    size_t n_params, cap_params;
    size_t n_floats;                 /* of all parameters, each rounded up to 64 bytes */
    float *values, *grads, *ms, *vs; /* one block of memory per kind, in the order that clip.c's depth_of says */
    void *copies;                    /* of what products read, rounded; NULL where activations are f32 */
    size_t copy_bytes;

    struct mode_param *positional, *logit_scale, *class_embedding, *visual_positional, *conv, *ln_pre_w, *ln_pre_b,
        *token_embedding;
    struct clip_tower image, text;

    struct clip_acts *infer, *train;
};

/* clip.c */
size_t mode__clip_block_params(const struct clip_block *b);    /* from ln_1_w on */
int64_t mode__clip_image_tokens(const struct mode_clip *clip); /* class token included */
/* Parameters, their values zero (be NULL: without memory); no texts, no preprocessing. E_MEMORY. */
enum mode_status mode__clip_new(struct mode_clip **clip, struct mode_backend *be, const struct mode_clip_config *cfg,
                                struct mode_error *err);
/* Takes what inference needs, unless it has been; between the steps of a training, what that can lend. */
enum mode_status mode__clip_infer_begin(struct mode_clip *clip, struct mode_error *err);
/* Pictures or texts at a time then, at most, of a training with so many of them together in the towers. */
int64_t mode__clip_between_batch(const struct mode_clip *clip, int64_t micro);
/* Random values, as mode_clip_create says. */
void mode__clip_draw(struct mode_clip *clip, uint64_t seed);

/* clip_store.c */
/* Names and shapes of the parameters without memory for them: good for nothing but params and cfg. */
struct mode_clip_files;
enum mode_status mode__clip_describe(struct mode_clip **clip, const struct mode_clip_files *f, struct mode_error *err);
/* open_clip_config.json; the caller frees. */
char *mode__clip_config_text(const struct mode_clip *clip);

/* clip_tower.c: does the last block compute the pooled rows alone? */
bool mode__clip_pooled_last(const struct mode_clip *clip, const struct clip_tower *t);

/* clip_acts.c: the policy of a layer: the first ones save the most. */
enum mode_clip_policy mode__clip_policy(const int64_t n[MODE_CLIP_POLICIES], int64_t layer);
/* Bytes kept of a layer under a policy; layer -1: of any but the last. */
size_t mode__clip_kept_bytes(const struct mode_clip *clip, const struct clip_tower *t, int64_t batch, int64_t layer,
                             enum mode_clip_policy policy);
/* Plan for batch pairs at `base`, what the host touches at `shared` (NULL: only count bytes; false when they overflow a
 * size_t). */
bool mode__clip_acts_plan(struct clip_acts *a, const struct mode_clip *clip, int64_t batch, bool train, char *base,
                          char *shared);
/* lender: whose memory this is in where it does, or NULL; the two are used by turns, and the lender goes last. */
enum mode_status mode__clip_acts_new(struct clip_acts **a, const struct mode_clip *clip, int64_t batch, bool train,
                                     const struct clip_acts *lender, struct mode_error *err);
void mode__clip_acts_free(struct clip_acts **a, struct mode_backend *be);

/* clip_plan.c: what is made again on the way back, as a share of the way in, by floating point operations. */
double mode__clip_again(const struct mode_clip *clip);

/* clip_train.c: scratch of an op of a training, at most. */
size_t mode__clip_workspace(const struct mode_clip *clip, int64_t batch);
/* On the last way back, nothing is added to the gradients of n parameters from p on any more. p may be
 * NULL. */
void mode__clip_made(struct mode_clip *clip, const struct mode_param *p, size_t n);

/* What is exchanged beside the ops. */
enum { PARCEL_TEXTS, PARCEL_D_TEXT, PARCELS };
/* clip_loss.c: the features of all processes' texts to each, once the own ones are made; before mode__clip_loss. */
enum mode_status mode__clip_gather_texts(struct mode_clip *clip, struct mode_error *err);
/* clip_loss.c: the loss of unit features [N, E] into train->loss, their gradients (overwritten) and that of logit_scale
 * (added to). */
enum mode_status mode__clip_loss(struct mode_clip *clip, struct mode_tensor *d_image, struct mode_tensor *d_text,
                                 const struct mode_tensor *image, const struct mode_tensor *text,
                                 struct mode_error *err);

/* clip_tower.c. begin: inputs to their places, the rest of a pass is ops alone. piece: whose rows of `all` and whose
 * lists are meant; a piece that is begun again in the same step finds its lists as they were (ids NULL). */
void mode__clip_image_begin(struct mode_clip *clip, struct clip_acts *a, int64_t piece,
                            const struct clip_images *images, int64_t b);
void mode__clip_image_forward(struct mode_clip *clip, struct clip_acts *a);
void mode__clip_image_back(struct mode_clip *clip, struct clip_acts *a);
void mode__clip_text_begin(struct mode_clip *clip, struct clip_acts *a, int64_t piece, const int32_t *ids,
                           const int32_t *n_ids, int64_t b);
void mode__clip_text_forward(struct mode_clip *clip, struct clip_acts *a);
void mode__clip_text_back(struct mode_clip *clip, struct clip_acts *a);
/* E_VALUE: an id or a length is out of range; names the text. */
enum mode_status mode__clip_check_texts(const struct mode_clip *clip, const int32_t *ids, const int32_t *n_ids,
                                        int64_t b, struct mode_error *err);

#endif
