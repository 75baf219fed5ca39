/* spec.h - the run spec: one YAML file.
 *
 *     struct mode_spec spec;
 *     st = mode_spec_load(&spec, "run.yaml", NULL, &err);
 *     ...
 *     mode_spec_clear(&spec);
 *
 * docs/RUN.md explains every key. Unknown keys are errors that name the key, its line and the nearest known key;
 * so are duplicate keys, values of the wrong kind and values out of range (all MODE_E_CONFIG). Paths relative to
 * the folder of the spec file are made absolute. Only the spec is read, and `model` if it is a path, or, if it is
 * missing, the config of train.init's folder: mode_spec_check checks whether the inputs exist.
 *
 * Threads: reentrant; a spec belongs to one caller. */
#ifndef MODE_PIPELINE_SPEC_H
#define MODE_PIPELINE_SPEC_H

#include "base/error.h"
#include "pipeline/cache.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_spec_list {
    char **item;
    size_t n;
};

struct mode_spec_for { /* experts_for: a task-specific expert */
    char *name;        /* mode_spec_is_name, and not mode_spec_is_taken */
    bool all;          /* `tasks: all`: every task with class names */
    struct mode_spec_list tasks;
    char *classes;    /* file of class names; NULL: those of tasks, or all */
    uint64_t nearest; /* fine centres selected by each word */
    int line;         /* of the spec, for errors that are found later */
};

struct mode_spec {
    char *name;   /* [A-Za-z0-9._-]{1,64}, not starting with '.' */
    char *folder; /* absolute folder that relative paths start from */
    char *text;   /* the YAML as read */
    uint64_t seed;
    char *precision;                  /* f32 | tf32 | bf16 */
    struct mode_spec_list data_train; /* sources: see sources.h */
    char *blur_faces;                 /* "" or a selector such as json:face_bbox */
    struct mode_spec_list data_added; /* sources, each of which becomes one more expert */
    bool skip_bad_shards;             /* bad_shards: skip */
    struct mode_spec_for *experts_for;
    size_t n_experts_for;
    struct {
        struct mode_spec_list text_keys;
        uint64_t seed;
        bool all; /* `per_sample: all` */
        bool strict;
        uint64_t max_image_pixels;
    } captions;
    struct {
        char *dir, *hub, *pooling; /* with hub, dir is its folder in the cache */
        uint64_t max_tokens;
    } encoder;
    struct {
        uint64_t fine, coarse, seed, sample_per_centre, added_fine, fine_iterations, coarse_iterations;
        char *metric;
    } cluster;
    char *model_config;      /* open_clip model_cfg, JSON text */
    char *preprocess_config; /* open_clip preprocess_cfg, JSON text */
    char *tokenizer_merges;  /* bpe_simple_vocab_16e6.txt.gz */
    bool merges_by_default;  /* it is the cache's */
    struct {
        uint64_t batch, warmup_steps, seed, checkpoint_steps;
        bool by_windows; /* `order: windows` */
        uint64_t window_shards;
        uint64_t evaluate_steps; /* validation interval; 0: none */
        bool warmup_given;
        char *schedule;          /* a name of optim/schedule.h */
        uint64_t cooldown_steps; /* 0 without constant_cooldown */
        double cooldown_power, cooldown_end;
        double lr, beta1, beta2, eps, weight_decay, grad_clip_norm, out_ratio, scale_min, scale_max;
        double patch_dropout;       /* if it is not given: the model config's */
        bool lock_image, lock_text; /* locked towers; the numbers are 0 without them */
        uint64_t lock_image_unlocked_groups, lock_text_unlocked_layers;
        uint64_t accumulate;              /* micro-batches of a step (gradient caching) */
        bool checkpoint_activations;      /* activation checkpointing in all blocks */
        char *algorithms;                 /* file of GEMM algorithms; "": by rule */
        char *init;                       /* pretrained model (given.h); "": random weights */
        char *init_hub;                   /* NULL, or ORG/NAME on the hub: init is its folder in the cache */
        uint64_t seed_steps, total_steps; /* total 0 = by epochs */
        double seed_epochs, epochs;       /* passes over the kept pairs */
        bool share_steps;                 /* `expert_steps: share` */
    } train;
    struct {
        struct mode_spec_list tasks; /* CLIP_benchmark folders */
        uint64_t batch;
    } evaluate;
    char *router, *router_params; /* params: mode_router_params_parse */
    uint64_t top_experts;         /* 0: all */
};

enum { MODE_SPEC_MOST_FOR = 1000 };
/* Is it a valid name of a run or of a model of experts_for: 1 to 64 letters, digits, '.', '_', '-', not starting with
 * '.'? */
bool mode_spec_is_name(const char *name);
/* Would a model of this name collide with another folder of experts/, column of result.csv or name in summary.json? */
bool mode_spec_is_taken(const char *name);

/* fetch: called for the spec's Hub models if everything else is valid (services/mode/hub.h); NULL: they may be missing in
 * the cache, and model_config is then NULL if it is to come from train.init. Clear spec also after a failure. MODE_E_CONFIG; MODE_E_NOINPUT, MODE_E_IO: the file; those of fetch. */
typedef enum mode_status mode_spec_fetch_fn(enum mode_hub_kind kind, const char *id, struct mode_error *err);
enum mode_status mode_spec_load(struct mode_spec *spec, const char *path, mode_spec_fetch_fn *fetch,
                                struct mode_error *err);
/* train.init must be in the cache if `model` is missing. text: YAML, NUL-terminated; folder: absolute; what: names the text in errors ("run.yaml"). */
enum mode_status mode_spec_parse(struct mode_spec *spec, const char *text, const char *folder, const char *what,
                                 struct mode_error *err);
void mode_spec_clear(struct mode_spec *spec);
/* The folders of the evaluation tasks: entries of `given` that are CLIP_benchmark folders, and the CLIP_benchmark
 * folders found below those that are not, sorted by path, to a depth of MODE_SPEC_TASKS_DEPTH. key names `given` in
 * errors (evaluate.tasks). Two with the same base name: MODE_E_CONFIG. An unreadable folder is an error, too
 * (MODE_E_PERM, MODE_E_IO), as it may contain tasks. A task of an unsupported kind is skipped if it was found below a
 * folder, with a sentence in `skipped` (may be NULL); if it was named itself it stays, to be refused later
 * (mode_evalset_known_kind). The caller clears both lists. */
enum { MODE_SPEC_TASKS_DEPTH = 4 };
enum mode_status mode_spec_tasks(const struct mode_spec_list *given, const char *key, struct mode_spec_list *out,
                                 struct mode_spec_list *skipped, struct mode_error *err);
void mode_spec_list_add(struct mode_spec_list *list, char *item); /* takes ownership of item */
void mode_spec_list_clear(struct mode_spec_list *list);
void mode_spec_list_copy(struct mode_spec_list *to, const struct mode_spec_list *from); /* to must be empty */
/* Is the encoder, or train.init, one on the Hub that is not in the cache yet, so that `mode run` will download it? */
bool mode_spec_awaits_encoder(const struct mode_spec *spec);
bool mode_spec_awaits_init(const struct mode_spec *spec);
/* Check the inputs. fetched: models on the Hub must be in the cache, too. MODE_E_NOINPUT: the encoder, the tokenizer,
 * a task's folder, a file of experts_for or train.init does not exist; MODE_E_FORMAT: a task of an unsupported kind;
 * MODE_E_CONFIG: train.init is not the configured model, or experts_for names a task that is not in evaluate.tasks or a
 * file without names. */
enum mode_status mode_spec_check(const struct mode_spec *spec, bool fetched, struct mode_error *err);
/* The schedule in optimizer steps for n_pairs kept pairs. given_steps: already done by the model of train.init.
 * MODE_E_CONFIG: no steps to train, the fork point is not before the end, or train.init is beyond it. */
enum mode_status mode_spec_steps(const struct mode_spec *spec, uint64_t n_pairs, uint64_t given_steps,
                                 uint64_t *seed_steps, uint64_t *total_steps, struct mode_error *err);

/* Warmup steps of a schedule of total_steps: train.warmup_steps, or if that is not given the default, but at most a
 * tenth of the schedule. MODE_E_CONFIG: it does not end before the schedule, or not before the cooldown. */
enum mode_status mode_spec_warmup(const struct mode_spec *spec, uint64_t total_steps, uint64_t *warmup,
                                  struct mode_error *err);
/* The upper limit of the default warmup: a tenth of the schedule. */
static inline uint64_t mode_warmup_most(uint64_t total_steps)
{
    return total_steps / 10;
}

#endif
