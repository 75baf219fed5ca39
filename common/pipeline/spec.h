/* spec.h - a run, as a person writes it: one YAML file.
 *
 *     struct mode_spec spec;
 *     st = mode_spec_load(&spec, "run.yaml", NULL, &err);
 *     ...
 *     mode_spec_clear(&spec);
 *
 * docs/RUN.md explains every key. Unknown keys are errors that name the key, its line and the nearest known key;
 * so are keys given twice, values of the wrong kind and values out of range (all MODE_E_CONFIG). Relative paths
 * are relative to the folder of the spec file and are absolute here. Nothing is read but the spec and, when
 * `model` is a path, that file, or, when it is left out, the config of train.init's folder: mode_spec_check looks
 * whether the inputs exist.
 *
 * Threads: pure; a spec belongs to one caller. */
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

struct mode_spec_for { /* an expert for the words of tasks, or of a file */
    char *name;        /* as a run's, and none that a model, a column or a file of experts/ has */
    bool all;          /* tasks: all: every task that has class names */
    struct mode_spec_list tasks;
    char *classes; /* file of names; NULL: tasks, or all */
    uint64_t nearest;
    int line; /* of the spec, for sentences on what is known later */
};

struct mode_spec {
    char *name;   /* [A-Za-z0-9._-]{1,64}, not starting with '.' */
    char *folder; /* absolute folder that relative paths start from */
    char *text;   /* the YAML as read */
    uint64_t seed;
    char *precision;                  /* f32 | tf32 | bf16 */
    struct mode_spec_list data_train; /* sources: see sources.h */
    char *blur_faces;                 /* "" or a selector such as json:face_bbox */
    struct mode_spec_list data_added; /* each a source of its own: one more expert */
    struct mode_spec_for *experts_for;
    size_t n_experts_for;
    struct {
        struct mode_spec_list text_keys;
        uint64_t seed;
        bool all; /* per_sample: all */
        bool strict;
        uint64_t max_image_pixels;
    } captions;
    struct {
        char *dir, *hub, *pooling; /* with hub, dir is where it lies in the cache */
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
        bool by_windows; /* order: windows */
        uint64_t window_shards;
        uint64_t evaluate_steps; /* 0: never while it trains */
        bool warmup_given;
        double lr, beta1, beta2, eps, weight_decay, grad_clip_norm, out_ratio, scale_min, scale_max;
        uint64_t accumulate;              /* pieces in which a batch is computed; 1 = whole */
        bool checkpoint_activations;      /* recompute them on the way back */
        char *algorithms;                 /* file of algorithms of matrix products; "": by rule */
        char *init;                       /* a model to begin with (given.h); "": random weights */
        char *init_hub;                   /* NULL, or ORG/NAME on the hub: init is where it lies in the cache */
        uint64_t seed_steps, total_steps; /* total 0 = by epochs */
        double seed_epochs, epochs;       /* passes over the kept pairs */
        bool share_steps;                 /* expert_steps: share */
    } train;
    struct {
        struct mode_spec_list tasks; /* CLIP_benchmark folders */
        uint64_t batch;
    } evaluate;
    char *router, *router_params; /* params: mode_router_params_parse */
    uint64_t top_experts;         /* 0: all */
};

enum { MODE_SPEC_MOST_FOR = 1000 };
/* What a run, or a model of experts_for, may be called: 1 to 64 letters, digits, '.', '_', '-', not starting with '.'. */
bool mode_spec_is_name(const char *name);
/* Of a model: it would be a folder of experts/ or a column of result.csv that is another's, or stand beside another of
 * this name in summary.json. */
bool mode_spec_is_taken(const char *name);

/* fetch: called for what the spec names on the hub, when all else in it is right (services/mode/hub.h); NULL: it must
 * be in the cache. */
typedef enum mode_status mode_spec_fetch_fn(enum mode_hub_kind kind, const char *id, struct mode_error *err);
enum mode_status mode_spec_load(struct mode_spec *spec, const char *path, mode_spec_fetch_fn *fetch,
                                struct mode_error *err);
/* text: YAML, NUL-terminated; folder: absolute; what: how errors call the text ("run.yaml"). */
enum mode_status mode_spec_parse(struct mode_spec *spec, const char *text, const char *folder, const char *what,
                                 struct mode_error *err);
void mode_spec_clear(struct mode_spec *spec);
/* The folders of the evaluation tasks: entries of `given`, which errors call key (evaluate.tasks), that are CLIP_benchmark folders, and the
 * CLIP_benchmark folders below those that are not, by path, down to MODE_SPEC_TASKS_DEPTH folders. Two of the same base
 * name: MODE_E_CONFIG. One that cannot be read is an error, too (MODE_E_PERM, MODE_E_IO): it may hold tasks. A task of a
 * kind that cannot be evaluated is left out where it was only found in a folder, with a sentence in `skipped` (may be
 * NULL); one that is named stays, to be refused (mode_evalset_known_kind). Both lists are the caller's to clear. */
enum { MODE_SPEC_TASKS_DEPTH = 4 };
enum mode_status mode_spec_tasks(const struct mode_spec_list *given, const char *key, struct mode_spec_list *out,
                                 struct mode_spec_list *skipped, struct mode_error *err);
void mode_spec_list_add(struct mode_spec_list *list, char *item); /* takes item over */
void mode_spec_list_clear(struct mode_spec_list *list);
void mode_spec_list_copy(struct mode_spec_list *to, const struct mode_spec_list *from); /* to: cleared */
/* MODE_E_NOINPUT with a sentence when the encoder, the tokenizer, a task's folder or the model to begin with is not
 * there; MODE_E_CONFIG when that is another model. */
enum mode_status mode_spec_check(const struct mode_spec *spec, struct mode_error *err);
/* The schedule in optimizer steps for n_pairs kept pairs. given_steps: those behind the model of train.init.
 * MODE_E_CONFIG when it has no step to train, or the fork point is not before the end, or the given model is beyond it.
 */
enum mode_status mode_spec_steps(const struct mode_spec *spec, uint64_t n_pairs, uint64_t given_steps,
                                 uint64_t *seed_steps, uint64_t *total_steps, struct mode_error *err);

/* Steps of warm-up of a schedule of total_steps: train.warmup_steps; where the spec does not give it, at most a tenth
 * of the schedule. MODE_E_CONFIG when it does not end before the schedule. */
enum mode_status mode_spec_warmup(const struct mode_spec *spec, uint64_t total_steps, uint64_t *warmup,
                                  struct mode_error *err);
/* A tenth of a schedule: what a warm-up is at most where nobody says how long it is. */
static inline uint64_t mode_warmup_most(uint64_t total_steps)
{
    return total_steps / 10;
}

#endif
