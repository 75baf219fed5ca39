/* plan.h - turns a run spec into a graph of tasks.
 *
 * A plan is a graph of nodes. A node's key is the digest of its whole TaskSpec, inputs included, so it is known only
 * when everything before it is committed: the plan unfolds as commits come in. A node whose commit record exists is
 * done without being run ("cached"), so resubmitting a finished run takes moments, and a changed parameter redoes only
 * what depends on it.
 *
 *     captions/s -> embed/s ----> cluster -> assign/s -.        added data: embed/s -> grow/j -> assign/s, where
 *         |                          |                 |        grow/j appends to the centres of cluster, grow/j-1
 *         |                          |                 v
 *         '-> train/seed --> train/dense, train/expert-k -> evaluate/model/task -> ensemble
 *                                                 words/t ------------------------^
 *
 * An expert for tasks (experts_for): words/t of these, or names/x of a file, and the centres and assignments of data.train
 * -> select/x -> train/x, which continues from the seed like dense and is evaluated like every model.
 *
 * With data.bad_shards: skip the captions of a shard that cannot be read as a tar are requested a second time, by a
 * request that skips it: keys of the other shards do not depend on the option (docs/decisions/0045).
 *
 * With train.init there is train/init -> train/seed. If the seed is not trained further, both are one task.
 *
 *     plan_open(&plan, &spec, store, &world, digests, NULL, &err);
 *     while (plan_more(plan) && plan_next(plan, &node, &err) == MODE_OK)
 *         if (node != PLAN_NONE) ...                                    // to be run: plan->node[node].key
 *     plan_done(plan, node, &err);                                      // its commit record exists
 *
 * Threads: one caller. */
#ifndef MODE_COORDINATOR_PLAN_H
#define MODE_COORDINATOR_PLAN_H

#include "base/index.h"
#include "digests.h"
#include "pipeline/sources.h"
#include "pipeline/spec.h"
#include "store/artifacts.h"

#include <jansson.h>

enum plan_stage {
    PLAN_CAPTIONS,
    PLAN_EMBED,
    PLAN_WORDS,
    PLAN_CLUSTER,
    PLAN_GROW,
    PLAN_ASSIGN,
    PLAN_SELECT,
    PLAN_INIT,
    PLAN_SEED,
    PLAN_DENSE,
    PLAN_EXPERTS,
    PLAN_SELECTED,
    PLAN_EVALUATE,
    PLAN_ENSEMBLE,
    PLAN_STAGES
};
const char *plan_stage_name(enum plan_stage s);    /* "train-experts" */
const char *plan_stage_service(enum plan_stage s); /* "train" */
/* Stall timeout of a task, ms. */
uint64_t plan_stage_stall_ms(enum plan_stage s);

enum plan_state {
    PLAN_WAITING, /* on inputs                                 */
    PLAN_LIVE,    /* handed to the core                        */
    PLAN_DONE,    /* committed                                 */
    PLAN_LOST,    /* quarantined, cancelled, or behind one     */
};

#define PLAN_NONE UINT32_MAX

struct plan_node {
    enum plan_stage stage;
    uint32_t a, b;             /* shard, task, expert, model, entry of experts_for; task of an evaluation */
    char *label;               /* "captions/0007" */
    char key[MODE_DIGEST_HEX]; /* "" while unknown */
    enum plan_state state;
    bool summed;          /* has been DONE: included in the sums */
    bool left_out;        /* captions of a shard that turned out not to be a tar: one without samples is requested */
    uint8_t n_redone;     /* how often its outputs were found damaged */
    bool cached, counted; /* counted: an assignment whose commit record states the number of pairs of each expert */
    uint32_t n_missing;   /* inputs not done */
    uint32_t *needs;      /* nodes, in the order of the inputs */
    uint32_t n_needs;
    uint32_t *feeds; /* nodes that depend on it */
    uint32_t n_feeds;
    uint32_t same;        /* another node of this plan with the same key, or PLAN_NONE */
    Mode__Commit *commit; /* once DONE */
};

struct plan_sum { /* over the commit records of a stage's done nodes */
    uint64_t rows_in, rows_out, rejects;
    uint64_t retries; /* attempts beyond the first, of tasks that were not cached */
    double seconds;
};

struct plan_task { /* an evaluation task */
    char *name, *dir;
    const char *kind; /* classification | multilabel | retrieval */
    char digest[DIGESTS_VALUE], words_digest[DIGESTS_VALUE];
};

struct plan_for {           /* an entry of experts_for */
    uint32_t *task, n_task; /* its tasks, in plan order; empty if it has names of its own */
    struct mode_spec_list names;
};

/* Queries about the world outside the store, replaced in tests. d caches digests. */
struct plan_world {
    /* the encoder's identity; "auto" pooling and 0 max_tokens of the spec are resolved in it. Errors name the key */
    enum mode_status (*encoder_id)(char **id, struct digests *d, struct mode_spec *spec, struct mode_error *err);
    enum mode_status (*task_digest)(char hex[DIGESTS_VALUE], struct digests *d, const char *dir,
                                    struct mode_error *err);
    enum mode_status (*words_digest)(char hex[DIGESTS_VALUE], struct digests *d, const char *dir,
                                     struct mode_error *err);
    /* vocabulary size of the tokenizer with this merges file; MODE_E_FORMAT when it is not one */
    enum mode_status (*tokenizer_ids)(int64_t *n, const char *merges, struct mode_error *err);
    /* the model of train.init: digest of its files, and its step. Also checks that it is complete */
    enum mode_status (*init)(char hex[DIGESTS_VALUE], uint64_t *step, struct digests *d, const struct mode_spec *spec,
                             struct mode_error *err);
};
/* The name of a task's digest in d, used to announce the amount to read. */
#define PLAN_DIGEST_TASK "task"

struct plan {
    struct mode_spec spec;
    struct mode_store *store;
    struct mode_shards shards;    /* of data.train, then of each source of data.added */
    uint32_t n_added, *shard_end; /* [n_added + 1]: base shards end at [0], those of addition j at [j + 1] */
    struct plan_task *task;
    struct mode_spec_list skipped; /* messages: tasks that are left out, and why */
    uint32_t n_tasks, n_models;    /* models: dense, seed, expert-0 ..., then those of experts_for */
    struct plan_for *for_tasks;    /* [spec.n_experts_for] */
    char *encoder_id;
    char tokenizer_digest[MODE_DIGEST_HEX];
    char *algorithms;                /* contents of train.algorithms, or NULL */
    char init_digest[DIGESTS_VALUE]; /* of train.init, or "" */
    uint64_t init_step;              /* its step in the schedule */
    bool kept_inputs;                /* inputs are those of the file it was opened with */
    char *warning;                   /* about something allowed but unusual; owned by whoever reports it */
    struct plan_node *node;
    uint32_t n_nodes, first[PLAN_STAGES + 1]; /* nodes of stage s: [first[s], first[s + 1]) */
    struct mode_index by_key;
    uint32_t *todo, n_todo, todo_at, cap_todo; /* nodes whose inputs are done, queue of plan_next */
    uint32_t bad_node;     /* set by a reader that finds an output of this plan damaged: its node, */
    const Mode__Blob *bad; /* and the blob; NULL = none */
    uint32_t n_done[PLAN_STAGES], n_cached[PLAN_STAGES];
    uint32_t n_in[PLAN_LOST + 1]; /* nodes in each state */
    struct plan_sum sum[PLAN_STAGES];
    uint64_t *pairs;      /* [plan_experts] over the counted assignments */
    uint32_t *n_assigned; /* [n_added + 1] shards of each source whose assignment is done */
    bool all_counted;     /* all assignments are counted */
    uint32_t n_cut, cut;  /* truncated shards, and the first one seen */
    uint64_t cut_at;      /* byte position of its end */
    uint32_t *n_bad;      /* [n_added + 1] skipped shards of each source */
    uint32_t first_bad;   /* the first one seen of all, */
    char *bad_why;        /* and why; NULL: none */
};

/* Takes over the spec (also after a failure). Examines every input: MODE_E_NOINPUT, MODE_E_CONFIG. It does not touch
 * the store, so it may run in another thread than the functions below. inputs: a file of plan_inputs_save with the
 * inputs as of submission; they are then only checked for existence. NULL, or a file without them: inputs are examined
 * now. */
enum mode_status plan_open(struct plan **out, struct mode_spec *spec, struct mode_store *store,
                           const struct plan_world *world, struct digests *d, const char *inputs,
                           struct mode_error *err);
void plan_close(struct plan **p);
/* For a finished plan: frees the nodes, keeps the counts. */
void plan_forget_nodes(struct plan *p);

/* Whether nodes are queued for plan_next. */
bool plan_more(const struct plan *p);
/* Processes one of them: if it must be run, its TaskSpec is stored, its key set, and its state LIVE. PLAN_NONE: it is
 * committed already and counted as done. After a failure the same node is processed again. */
enum mode_status plan_next(struct plan *p, uint32_t *node, struct mode_error *err);
/* The node's commit record exists: its dependents may proceed. All nodes with its key are done. MODE_E_VALUE: done, but
 * the run cannot continue, because an expert has too few pairs or too many shards are skipped. plan_next returns the
 * same for nodes it finds
 * committed. */
enum mode_status plan_done(struct plan *p, uint32_t node, struct mode_error *err);
/* The node and everything that depends on it will not be done. */
void plan_lost(struct plan *p, uint32_t node);
/* The work of a live node cannot be done, because of its input. If it is the captions of a shard, and data.bad_shards
 * is skip, the node waits to be examined again, as one that requests captions that skip the shard. */
bool plan_leave_out(struct plan *p, uint32_t node);
/* A lost node is retried: it and its lost dependents are live or waiting again. */
void plan_revive(struct plan *p, uint32_t node);
/* An output of a done node (and of all with its key) is damaged and its commit record was removed: it is redone.
 * Dependents that are done stay done; those without a key wait for it. */
void plan_undo(struct plan *p, uint32_t node);
/* A live node (and all with its key) whose input is being remade goes back to waiting for it. */
void plan_wait(struct plan *p, uint32_t node);
uint32_t plan_find(const struct plan *p, const char *key); /* PLAN_NONE */
bool plan_finished(const struct plan *p);                  /* every node is DONE */
bool plan_stuck(const struct plan *p);                     /* some nodes are LOST, and none is LIVE or queued */
bool plan_trained(const struct plan *p);                   /* every model is trained */
/* Name of the i-th model: "dense", "seed", "expert-0", that of experts_for. The caller frees. */
char *plan_model_name(const struct plan *p, uint32_t model);
/* The node that trains the i-th model. */
uint32_t plan_model_node(const struct plan *p, uint32_t model);
/* All experts: those of the clustering and those of added data. */
uint32_t plan_experts(const struct plan *p);

/* Shards in order: [from[0], to[0]) and then [from[1], to[1]). */
struct plan_shards {
    uint32_t from[2], to[2];
};
struct plan_shards plan_base_shards(const struct plan *p);
struct plan_shards plan_expert_shards(const struct plan *p, uint32_t expert); /* base, and its own if it was added */
uint32_t plan_shards_count(struct plan_shards s);
/* The node whose centres this expert belongs to; those of all experts for plan_experts - 1. */
uint32_t plan_centres_node(const struct plan *p, uint32_t expert);

/* The expert that a shard of an addition belongs to; 0 for those of data.train. */
uint32_t plan_shard_expert(const struct plan *p, uint32_t shard);

/* plan_for.c: the tasks of experts_for, and the names of files. MODE_E_CONFIG: a task that is not in evaluate.tasks. */
enum mode_status plan_for_look(struct plan *p, struct mode_error *err);
/* Their part of inputs.json. */
json_t *plan_for_json(const struct plan *p);
bool plan_for_take(struct plan *p, const json_t *list);
void plan_for_forget(struct plan *p);
/* The node that embeds the names of entry j, which has a file of them. */
uint32_t plan_for_names_node(const struct plan *p, uint32_t j);
/* Whose words a node of PLAN_WORDS embeds: entry *j of experts_for; false: those of task a. */
bool plan_for_of_words(const struct plan *p, const struct plan_node *x, uint32_t *j);

/* plan_pools.c: Adds "pairs" of an assignment's note to plan->pairs; false: the note has none (made by an earlier
 * version). */
bool plan_count_pairs(struct plan *p, const char *note);
/* Pairs assigned to coarse group k, over the shards it may have pairs in, from the commit records, or from an
 * assignment itself whose record lacks the number. */
enum mode_status plan_pool_size(uint64_t *out, struct plan *p, uint32_t k, struct mode_error *err);
/* Pairs that entry j of experts_for has selected, from its commit record. */
enum mode_status plan_selected_pairs(uint64_t *out, const struct plan *p, uint32_t j, struct mode_error *err);
/* Checks a finished selection: it has pairs, and together with out-of-cluster pairs at least a batch. */
enum mode_status plan_check_selected(struct plan *p, uint32_t j, struct mode_error *err);
/* Called after a shard was assigned. If it was the last of its source, checks that every expert of that source has
 * pairs of its own, and together with out-of-cluster pairs at least a batch. MODE_E_VALUE otherwise. Training would
 * fail for that only after the seed is trained. */
enum mode_status plan_check_pools(struct plan *p, uint32_t shard, struct mode_error *err);

/* plan_inputs.c: saves everything that a plan learned from outside the spec. MODE_E_VALUE: a path is not UTF-8. */
enum mode_status plan_inputs_save(const struct plan *p, const char *path, struct mode_error *err);
/* Loads it into a plan that has only its spec. MODE_E_NOINPUT: no such file; MODE_E_FORMAT: it is damaged, of another
 * spec or another version. */
enum mode_status plan_inputs_load(struct plan *p, const char *path, struct mode_error *err);
void plan_inputs_forget(struct plan *p);
/* Checks that the inputs still exist. MODE_E_NOINPUT, MODE_E_PERM, MODE_E_IO. Their contents are checked by their
 * readers. */
enum mode_status plan_inputs_find(const struct plan *p, struct mode_error *err);

/* plan_task.c: the TaskSpec of a node whose inputs are all done, whose packed bytes are the key's input; free with
 * plan_spec_clear. */
struct plan_spec {
    Mode__TaskSpec msg;
    struct plan_spec_memory *memory;
};
enum mode_status plan_task_spec(struct plan_spec *out, struct plan *p, uint32_t node, struct mode_error *err);
void plan_spec_clear(struct plan_spec *s);

/* The output of that name of a committed node, or NULL. */
const Mode__Blob *plan_output(const struct plan_node *n, const char *name);

#endif
