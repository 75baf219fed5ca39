/* clip_impl.h - struct mode_clip and its activations; for models/clip*.c only.
 *
 * Letters: B pairs, R packed rows (tokens) of a tower, P patches of an image, p patch_size, D width, F MLP width,
 * E joint embedding. */
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
    struct mode_param *ls_1, *ls_2; /* LayerScale of the two residual branches, or NULL */
};

struct clip_tower {
    struct mode_clip_tower_config cfg;
    bool causal;
    bool mean;     /* mean pooling over all rows but the class token; else one row is pooled */
    bool ln_after; /* with mean: the final LayerNorm follows pooling */
    /* Groups of parameters that are not trained, from the input on (clip_lock.c): 0: none; i + 1: what comes before
     * block i; layers + 1: all but the projection; layers + 2: the whole tower. */
    int64_t locked;
    struct clip_block *blocks;
    struct mode_param *ln_w, *ln_b;     /* ln_post or ln_final */
    struct mode_param *proj;            /* [D, E], or NULL */
    struct mode_param *proj_w, *proj_b; /* [E, D], [E] instead, or NULL; without either, ln's output is the features */
};

/* The first block that is trained; layers: none. */
static inline int64_t mode__clip_first_trained(const struct clip_tower *t)
{
    const int64_t first = t->locked > 0 ? t->locked - 1 : 0;
    return first < t->cfg.layers ? first : t->cfg.layers;
}

static inline int64_t mode__clip_trained_blocks(const struct clip_tower *t)
{
    return t->cfg.layers - mode__clip_first_trained(t);
}

static inline bool mode__clip_is_trained(const struct clip_tower *t) /* any part of it */
{
    return t->locked < t->cfg.layers + 2;
}

struct clip_block_acts {
    enum mode_clip_policy policy;
    struct mode_tensor ln_1, stats_1, qkv, attn, lse, mid, ln_2, stats_2, z, hidden, out; /* z: the pre-activation */
    struct mode_tensor branch_1, branch_2; /* the residual branches before LayerScale, if there is any */
    /* last block with one query per sequence: attn and everything after it have B rows, kv [R, 2D] replaces qkv */
    struct mode_tensor kv, ln_q, q, x_q;
};

struct clip_tower_acts {
    int64_t rows, seqs;   /* in use now; the arena is planned for the capacity */
    struct mode_tensor x; /* [R, D] input of the first block, in training of the first trained one */
    struct clip_block_acts *blocks;
    int64_t n_blocks; /* 1: inference, all blocks share their memory */
    bool keep;        /* training: activations of the trained blocks are saved for the backward pass, or recomputed */
    struct mode_tensor offsets, seq, pool; /* i32: first row of each sequence [B + 1], 0..B, its pooled row [B] */
    struct mode_tensor pooled, ln, ln_stats, emb, unit, norm; /* [B, D], [B, D], [B, 2], [B, E], [B, E], [B] */
    struct mode_tensor d_unit, d_emb, d_ln, d_pooled;
    struct mode_tensor all, d_all;  /* [N, E]: of all N pairs of a step; unit and d_unit are the micro-batch's rows */
    struct mode_tensor d_q, d_ln_q; /* [B, D]: of the pooled queries */
    struct mode_tensor rows_ln, rows_stats;       /* mean pooling after the final LayerNorm: [R, D], [R, 2] */
    struct mode_tensor d_x, d_a, d_hidden, d_qkv; /* [R, D] x 2, [R, F], [R, 3D]: scratch; the last two may alias */
    struct mode_tensor d_branch;                  /* [R, D], with LayerScale */
};

struct clip_arena {              /* bump allocator for tensors; base NULL: only counts bytes */
    enum mode_dtype activations; /* their dtype: f32 or bf16 */
    char *base;
    size_t used;
    bool overflow;
};

struct clip_images { /* pixels or pictures, from index `first` on; borrowed */
    const float *pixels;
    const struct mode_pictures *pictures;
    int64_t first;
};

struct clip_step_result { /* what the host reads after a step */
    double loss;
    float logit_scale; /* the logarithm */
};

struct clip_acts {
    int64_t batch, micro; /* pairs of a step at most; of a micro-batch, which passes the towers at once */
    struct clip_arena arena;
    bool is_lent; /* the arena's memory belongs to another clip_acts */
    /* Lists that the host writes before a step, in memory visible to host and device (mode_backend_share). Each
     * micro-batch has its own, so that the host need not wait until the device has read the previous ones. */
    struct clip_arena shared;
    int64_t image_rows;            /* of an image: its class token and its patches, in training those kept */
    int32_t *lists;                /* [micro-batches, lists_each]: offsets, pool and ids of texts */
    int64_t lists_each, text_rows; /* text_rows: packed rows of a micro-batch's texts at most */
    int64_t pads, round;           /* padding texts, which bring the packed rows to a multiple of round */
    double *loss;                  /* backend memory, not the arena's */
    struct mode_results *result;   /* struct clip_step_result of the last step; training only */
    struct clip_pairs {            /* a range of a step's pairs; the caller's memory */
        struct clip_images images;
        const int32_t *ids, *n_ids;
        int64_t first, n;
    } step;                          /* those of mode_clip_train_load */
    size_t kept[MODE_CLIP_POLICIES]; /* bytes of the arena: blocks' saved activations, by policy */
    size_t turns;                    /* bytes at its end that are reused by several phases of a step */
    struct clip_tower_acts image, text;
    struct mode_tensor cols, patch;          /* [B P, 3 p p], [B P, D]; with patch dropout [B K, D] */
    struct mode_tensor kept_cols;            /* with patch dropout, [B K, 3 p p]: of the K patches of an image kept */
    struct mode_tensor kept_rows;            /* and i32 [B K]: which rows of cols they are */
    int32_t *patch_lists;                    /* [micro-batches, micro K]: kept_rows of each */
    int32_t *drawn;                          /* those of the next step; the host's memory */
    struct mode_tensor tokens, tokens_stats; /* [R, D], [R, 2]: before ln_pre; saved in training */
    struct mode_tensor ids;                  /* i32 [R] */
    struct mode_tensor logits;               /* a tile of rows (mode_contrastive_work) */
    struct mode_tensor lse_row, lse_col;     /* f64 [N], N pairs of the whole step; lse_col [M] in a group */
    /* in a group of processes with N pairs each, M in all: gathered texts, their gradients, every process's lse_col */
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
    bool branches;                /* the towers run concurrently; mode_clip_set_branches */
    bool pictures;                /* in training; mode_clip_set_pictures */
    int64_t accumulate;           /* micro-batches of a step, 1 by default */
    double patch_dropout;         /* in training; 0: none. mode_clip_set_patch_dropout */
    uint64_t patch_seed;          /* of its draws */
    uint64_t place;               /* of the step's first pair; mode_clip_train_place */
    struct mode_clip_blocks kept; /* policies of the blocks, all MODE_CLIP_KEEP by default */
    struct mode_ranks *group;     /* NULL: this process trains alone */
    int parcels;                  /* of the group, the first of PARCELS; after train_begin */
    mode_clip_made *made;         /* mode_clip_set_made; may be NULL */
    void *made_ctx;
    bool is_final_backward; /* now runs the step's last micro-batch backward, which completes the gradients */

    struct mode_param *params;
    struct clip_init { /* initial distribution of a parameter */
        int kind;
        double scale;
    } * init;
    size_t n_params, cap_params;
    size_t n_floats;                 /* of all parameters, each rounded up to 64 bytes */
    size_t n_trained;                /* of those that are not locked; the locked ones come first */
    float *values, *grads, *ms, *vs; /* backend memory, one block each, in the order of clip.c's by_depth; without
                                      * locked parameters but for values */
    void *copies;                    /* GEMM operands rounded to bf16; NULL where activations are f32 */
    size_t copy_bytes;

    struct mode_param *positional, *logit_scale, *class_embedding, *visual_positional, *conv, *ln_pre_w, *ln_pre_b,
        *token_embedding;
    struct clip_tower image, text;

    struct clip_acts *infer, *train;
};

/* clip.c */
size_t mode__clip_block_params(const struct clip_block *b);    /* their number, consecutive from ln_1_w on */
int64_t mode__clip_image_tokens(const struct mode_clip *clip); /* class token included */
/* The same in a pass: in training those that patch dropout keeps. */
int64_t mode__clip_image_rows(const struct mode_clip *clip, bool train);
/* Parameters with zero values (be NULL: without memory); JSON texts and preprocessing stay unset. E_MEMORY. */
enum mode_status mode__clip_new(struct mode_clip **clip, struct mode_backend *be, const struct mode_clip_config *cfg,
                                struct mode_error *err);
/* Allocates values and bf16 copies of all parameters, in an order that depends on what is locked, and copies what they
 * held before. E_MEMORY. */
enum mode_status mode__clip_place(struct mode_clip *clip, struct mode_error *err);
/* Allocates the activations of inference unless that is done; after train_begin they borrow training's. E_MEMORY. */
enum mode_status mode__clip_infer_begin(struct mode_clip *clip, struct mode_error *err);
/* Inference batch between training steps, at most; micro: training's micro-batch. */
int64_t mode__clip_between_batch(const struct mode_clip *clip, int64_t micro);
/* Random values, as mode_clip_create says. */
void mode__clip_draw(struct mode_clip *clip, uint64_t seed);

/* clip_store.c */
/* Names and shapes of the parameters without memory: only params, cfg and the JSON texts may be used. */
struct mode_clip_files;
enum mode_status mode__clip_describe(struct mode_clip **clip, const struct mode_clip_files *f, struct mode_error *err);
/* open_clip_config.json; the caller frees. */
char *mode__clip_config_text(const struct mode_clip *clip);

/* clip_tower.c: does the last block compute only the pooled rows? */
bool mode__clip_pooled_last(const struct mode_clip *clip, const struct clip_tower *t);

/* clip_acts.c: the policy of a layer; n: layers per policy. The first layers save the most memory. */
enum mode_clip_policy mode__clip_policy(const int64_t n[MODE_CLIP_POLICIES], int64_t layer);
/* Bytes of a layer's activations saved for the backward pass; layer -1: of any but the last. */
size_t mode__clip_kept_bytes(const struct mode_clip *clip, const struct clip_tower *t, int64_t batch, int64_t layer,
                             enum mode_clip_policy policy);
/* Lay out the activations of `batch` pairs at `base` and the host's lists at `shared`; both NULL: only count bytes.
 * False: batch is out of range, or the bytes overflow. */
bool mode__clip_acts_plan(struct clip_acts *a, const struct mode_clip *clip, int64_t batch, bool train, char *base,
                          char *shared);
/* lender (may be NULL): its memory is used if it suffices. The two must not be in use at the same time, and the lender
 * is freed last. E_VALUE: batch is out of range; E_MEMORY. */
enum mode_status mode__clip_acts_new(struct clip_acts **a, const struct mode_clip *clip, int64_t batch, bool train,
                                     const struct clip_acts *lender, struct mode_error *err);
void mode__clip_acts_free(struct clip_acts **a, struct mode_backend *be);

/* clip_lock.c */
bool mode__clip_is_locked(const struct mode_clip *clip, const struct mode_param *p);

/* clip_plan.c: FLOPs recomputed in the backward pass, as a fraction of the forward pass. */
double mode__clip_recompute_share(const struct mode_clip *clip);

/* clip_train.c: upper bound on the scratch bytes of a training op. */
size_t mode__clip_workspace(const struct mode_clip *clip, int64_t batch);
/* Calls `made` if this is the step's final backward: gradients of the n parameters from p on are complete. p may be
 * NULL. */
void mode__clip_made(struct mode_clip *clip, const struct mode_param *p, size_t n);

/* Collectives that overlap with ops (dist/ranks.h). */
enum { PARCEL_TEXTS, PARCEL_D_TEXT, PARCELS };
/* clip_loss.c: all-gather of the text features, after the text tower's forward and before mode__clip_loss. E_PEER. */
enum mode_status mode__clip_gather_texts(struct mode_clip *clip, struct mode_error *err);
/* clip_loss.c: the loss of unit features [N, E] into train->loss, their gradients (overwritten) and that of logit_scale
 * (accumulated). E_PEER: in a group. */
enum mode_status mode__clip_loss(struct mode_clip *clip, struct mode_tensor *d_image, struct mode_tensor *d_text,
                                 const struct mode_tensor *image, const struct mode_tensor *text,
                                 struct mode_error *err);

/* clip_tower.c. begin: sets the inputs of a pass; the rest of it is ops only. piece: index of the micro-batch, which
 * selects its rows of `all` and its lists; ids NULL: its second forward in this step, the lists are still valid. */
void mode__clip_image_begin(struct mode_clip *clip, struct clip_acts *a, int64_t piece,
                            const struct clip_images *images, int64_t b);
/* With patch dropout: draw which patches the pairs from clip->place on keep; and take what was drawn for all passes of
 * this step, of b pairs. */
void mode__clip_draw_patches(struct mode_clip *clip, struct clip_acts *a);
void mode__clip_keep_patches(struct mode_clip *clip, struct clip_acts *a, int64_t b);
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
