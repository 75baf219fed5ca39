#include "plan.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "data/evalset.h"
#include "models/clip_config.h"
#include "nn/backend.h"
#include "pipeline/captions.h"
#include "pipeline/shard_ahead.h"
#include "pipeline/train.h"
#include "remote/shards.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* stall: the longest time without visible progress of a task. On a CPU every item of a step counts as progress; on a
 * GPU the first step of a large model takes long, so training has ten minutes. */
static const struct {
    const char *name, *service;
    uint64_t stall_ms;
} stages[PLAN_STAGES] = {
    [PLAN_CAPTIONS] = {"captions", "captions", 300000},  [PLAN_EMBED] = {"embed", "embed", 300000},
    [PLAN_WORDS] = {"words", "embed", 300000},           [PLAN_CLUSTER] = {"cluster", "cluster", 900000},
    [PLAN_GROW] = {"grow", "cluster", 900000},           [PLAN_ASSIGN] = {"assign", "assign", 300000},
    [PLAN_SELECT] = {"select", "assign", 900000},        [PLAN_INIT] = {"train-init", "train", 600000},
    [PLAN_SEED] = {"train-seed", "train", 600000},       [PLAN_DENSE] = {"train-dense", "train", 600000},
    [PLAN_EXPERTS] = {"train-experts", "train", 600000}, [PLAN_SELECTED] = {"train-selected", "train", 600000},
    [PLAN_EVALUATE] = {"evaluate", "evaluate", 300000},  [PLAN_ENSEMBLE] = {"ensemble", "ensemble", 300000},
};

const char *plan_stage_name(enum plan_stage s)
{
    return stages[s].name;
}

const char *plan_stage_service(enum plan_stage s)
{
    return stages[s].service;
}

uint64_t plan_stage_stall_ms(enum plan_stage s)
{
    return stages[s].stall_ms;
}

char *plan_model_name(const struct plan *p, uint32_t model)
{
    if (model < 2) return mode_xstrdup(model ? "seed" : "dense");
    const uint32_t k = model - 2, n = plan_experts(p);
    return k < n ? mode_xasprintf("expert-%u", k) : mode_xstrdup(p->spec.experts_for[k - n].name);
}

uint32_t plan_model_node(const struct plan *p, uint32_t model)
{
    if (model == 0) return p->first[PLAN_DENSE];
    if (model == 1) return p->first[PLAN_SEED];
    const uint32_t k = model - 2, n = plan_experts(p);
    return k < n ? p->first[PLAN_EXPERTS] + k : p->first[PLAN_SELECTED] + k - n;
}

uint32_t plan_experts(const struct plan *p)
{
    return (uint32_t)p->spec.cluster.coarse + p->n_added;
}

struct plan_shards plan_base_shards(const struct plan *p)
{
    return (struct plan_shards){.to = {p->shard_end[0]}};
}

struct plan_shards plan_expert_shards(const struct plan *p, uint32_t expert)
{
    struct plan_shards s = plan_base_shards(p);
    if (expert >= p->spec.cluster.coarse) {
        uint32_t j = expert - (uint32_t)p->spec.cluster.coarse;
        s.from[1] = p->shard_end[j];
        s.to[1] = p->shard_end[j + 1];
    }
    return s;
}

uint32_t plan_shards_count(struct plan_shards s)
{
    return s.to[0] - s.from[0] + s.to[1] - s.from[1];
}

uint32_t plan_centres_node(const struct plan *p, uint32_t expert)
{
    uint32_t coarse = (uint32_t)p->spec.cluster.coarse;
    return expert < coarse ? p->first[PLAN_CLUSTER] : p->first[PLAN_GROW] + expert - coarse;
}

/* ---------------------------------------------------------------------------------------------- the graph */

static uint32_t add_node(struct plan *p, enum plan_stage stage, uint32_t a, uint32_t b, char *label)
{
    if ((p->n_nodes & (p->n_nodes - 1)) == 0)
        p->node = mode_xrealloc(p->node, (p->n_nodes ? 2 * (size_t)p->n_nodes : 1) * sizeof *p->node);
    p->node[p->n_nodes] = (struct plan_node){.stage = stage, .a = a, .b = b, .label = label, .same = PLAN_NONE};
    return p->n_nodes++;
}

static void add_needs(struct plan *p, uint32_t node, uint32_t first, uint32_t n)
{
    struct plan_node *x = &p->node[node];
    x->needs = mode_xrealloc(x->needs, (x->n_needs + (size_t)n) * sizeof *x->needs);
    for (uint32_t i = 0; i < n; i++) x->needs[x->n_needs++] = first + i;
    x->n_missing = x->n_needs;
}

static void set_state(struct plan *p, struct plan_node *x, enum plan_state state)
{
    p->n_in[x->state]--;
    p->n_in[state]++;
    x->state = state;
}

/* Enqueues a node for plan_next. */
static void look_at(struct plan *p, uint32_t node)
{
    if (p->n_todo == p->cap_todo) { /* nodes are enqueued once, unless something is redone */
        p->cap_todo += p->n_nodes;
        p->todo = mode_xrealloc(p->todo, p->cap_todo * sizeof *p->todo);
    }
    p->todo[p->n_todo++] = node;
}

static void add_shard_needs(struct plan *p, uint32_t node, enum plan_stage stage, struct plan_shards s)
{
    for (int i = 0; i < 2; i++) add_needs(p, node, p->first[stage] + s.from[i], s.to[i] - s.from[i]);
}

uint32_t plan_shard_expert(const struct plan *p, uint32_t shard)
{
    uint32_t j = 0;
    while (shard >= p->shard_end[j]) j++;
    return j ? (uint32_t)p->spec.cluster.coarse + j - 1 : 0;
}

static void add_stage(struct plan *p, enum plan_stage s)
{
    uint32_t n_shards = (uint32_t)p->shards.n, *first = p->first;
    first[s] = p->n_nodes;
    switch (s) {
    case PLAN_CAPTIONS:
    case PLAN_EMBED:
    case PLAN_ASSIGN:
        for (uint32_t i = 0; i < n_shards; i++) {
            uint32_t n = add_node(p, s, i, 0, mode_xasprintf("%s/%04u", stages[s].name, i));
            if (s == PLAN_EMBED) add_needs(p, n, first[PLAN_CAPTIONS] + i, 1);
            if (s == PLAN_ASSIGN) {
                add_needs(p, n, first[PLAN_EMBED] + i, 1);
                add_needs(p, n, plan_centres_node(p, plan_shard_expert(p, i)), 1);
            }
        }
        break;
    case PLAN_WORDS:
        for (uint32_t t = 0; t < p->n_tasks; t++) add_node(p, s, t, 0, mode_xasprintf("words/%s", p->task[t].name));
        for (uint32_t j = 0; j < p->spec.n_experts_for; j++)
            if (p->for_tasks[j].names.n)
                add_node(p, s, p->n_tasks + j, 0, mode_xasprintf("names/%s", p->spec.experts_for[j].name));
        break;
    case PLAN_SELECT: /* of data.train only, like dense: added data does not change what exists */
        for (uint32_t j = 0; j < p->spec.n_experts_for; j++) {
            const struct plan_for *f = &p->for_tasks[j];
            uint32_t n = add_node(p, s, j, 0, mode_xasprintf("select/%s", p->spec.experts_for[j].name));
            add_needs(p, n, first[PLAN_CLUSTER], 1);
            for (uint32_t i = 0; i < f->n_task; i++) add_needs(p, n, first[PLAN_WORDS] + f->task[i], 1);
            if (f->names.n) add_needs(p, n, plan_for_names_node(p, j), 1);
            add_shard_needs(p, n, PLAN_ASSIGN, plan_base_shards(p));
        }
        break;
    case PLAN_CLUSTER:
        add_shard_needs(p, add_node(p, s, 0, 0, mode_xstrdup("cluster")), PLAN_EMBED, plan_base_shards(p));
        break;
    case PLAN_GROW:
        for (uint32_t j = 0; j < p->n_added; j++) {
            uint32_t n = add_node(p, s, j, 0, mode_xasprintf("grow/%u", j));
            add_needs(p, n, first[PLAN_EMBED] + p->shard_end[j], p->shard_end[j + 1] - p->shard_end[j]);
            add_needs(p, n, j ? n - 1 : first[PLAN_CLUSTER], 1);
        }
        break;
    case PLAN_INIT: /* without inputs: problems with the model show at once */
        if (p->init_digest[0]) add_node(p, s, 0, 0, mode_xstrdup("train/init"));
        break;
    case PLAN_SEED:
    case PLAN_DENSE:
    case PLAN_EXPERTS:
    case PLAN_SELECTED: {
        const uint32_t n_experts = plan_experts(p), base = s == PLAN_SELECTED  ? 2 + n_experts
                                                           : s == PLAN_EXPERTS ? 2
                                                                               : s == PLAN_SEED;
        const uint32_t n_models = s == PLAN_SELECTED  ? (uint32_t)p->spec.n_experts_for
                                  : s == PLAN_EXPERTS ? n_experts
                                                      : 1;
        for (uint32_t k = 0; k < n_models; k++) {
            char *name = plan_model_name(p, base + k);
            uint32_t n = add_node(p, s, k, 0, mode_xasprintf("train/%s", name));
            free(name);
            struct plan_shards shards = s == PLAN_EXPERTS ? plan_expert_shards(p, k) : plan_base_shards(p);
            add_shard_needs(p, n, PLAN_CAPTIONS, shards);
            if (s == PLAN_EXPERTS || s == PLAN_SELECTED) add_shard_needs(p, n, PLAN_ASSIGN, shards);
            if (s == PLAN_EXPERTS) add_needs(p, n, plan_centres_node(p, k), 1);
            if (s == PLAN_SELECTED) add_needs(p, n, first[PLAN_SELECT] + k, 1);
            if (s != PLAN_SEED)
                add_needs(p, n, first[PLAN_SEED], 1);
            else
                add_needs(p, n, first[PLAN_INIT], first[PLAN_SEED] - first[PLAN_INIT]);
        }
        break;
    }
    case PLAN_EVALUATE:
        for (uint32_t m = 0; m < p->n_models; m++)
            for (uint32_t t = 0; t < p->n_tasks; t++) {
                char *name = plan_model_name(p, m);
                uint32_t n = add_node(p, s, m, t, mode_xasprintf("evaluate/%s/%s", name, p->task[t].name));
                free(name);
                add_needs(p, n, plan_model_node(p, m), 1);
            }
        break;
    case PLAN_ENSEMBLE: { /* the report covers everything */
        uint32_t n = add_node(p, s, 0, 0, mode_xstrdup("ensemble"));
        add_needs(p, n, 0, n);
        break;
    }
    case PLAN_STAGES: break;
    }
    first[s + 1] = p->n_nodes;
}

static void link_feeds(struct plan *p)
{
    for (uint32_t n = 0; n < p->n_nodes; n++)
        for (uint32_t i = 0; i < p->node[n].n_needs; i++) p->node[p->node[n].needs[i]].n_feeds++;
    for (uint32_t n = 0; n < p->n_nodes; n++) {
        p->node[n].feeds = mode_xmalloc((p->node[n].n_feeds + 1) * sizeof(uint32_t));
        p->node[n].n_feeds = 0;
    }
    for (uint32_t n = 0; n < p->n_nodes; n++)
        for (uint32_t i = 0; i < p->node[n].n_needs; i++) {
            struct plan_node *from = &p->node[p->node[n].needs[i]];
            from->feeds[from->n_feeds++] = n;
        }
}

static enum mode_status look_at_tasks(struct plan *p, const struct plan_world *world, struct digests *d,
                                      struct mode_error *err)
{
    struct mode_spec_list dirs;
    enum mode_status st = mode_spec_tasks(&p->spec.evaluate.tasks, "evaluate.tasks", &dirs, &p->skipped, err);
    if (st) return st;
    p->task = mode_xcalloc(dirs.n + 1, sizeof *p->task);
    digests_begin(d, "the evaluation tasks");
    for (size_t i = 0; i < dirs.n; i++) digests_expect(d, PLAN_DIGEST_TASK, dirs.item[i]);
    for (size_t i = 0; i < dirs.n && !st; i++) {
        struct plan_task *t = &p->task[p->n_tasks++];
        t->dir = mode_xstrdup(dirs.item[i]);
        size_t n = strlen(t->dir);
        while (n > 1 && t->dir[n - 1] == '/') t->dir[--n] = 0;
        t->name = mode_xstrdup(mode_path_base(t->dir));
        enum mode_task_kind kind;
        st = mode_evalset_known_kind(&kind, t->dir, err);
        if (!st) t->kind = mode_task_kind_name(kind);
        if (!st) st = world->task_digest(t->digest, d, t->dir, err);
        if (!st) st = world->words_digest(t->words_digest, d, t->dir, err);
        if (st) st = mode_error_prefix(err, st, "evaluation task %s", t->name);
    }
    mode_spec_list_clear(&dirs);
    return st;
}

static char *window_warning(const struct plan *p, uint64_t room)
{
    uint64_t *bytes = mode_xmalloc(p->shards.n * sizeof *bytes);
    for (size_t i = 0; i < p->shards.n; i++) bytes[i] = mode_remote_bytes(p->shards.shard[i].path);
    char *warning = mode_shard_ahead_warning(bytes, p->shards.n, (uint32_t)p->spec.train.window_shards, room);
    free(bytes);
    return warning;
}

/* Training reads at random: if the shard cache cannot hold all shards, or two windows, it fetches pictures one by one.
 * Workers may have other cache folders than this machine, but their warning would come too late. */
static enum mode_status check_room(struct plan *p, struct mode_error *err)
{
    const uint64_t bytes = mode_shards_remote_bytes(&p->shards);
    char have[MODE_SIZE_TEXT], most[MODE_SIZE_TEXT];
    uint64_t room = 0;
    enum mode_status st = bytes ? mode_shard_room(&room, err) : MODE_OK;
    if (!st && bytes > room && p->spec.train.by_windows)
        p->warning = window_warning(p, room);
    else if (!st && bytes > room)
        p->warning = mode_xasprintf(
            "the remote shards have %s, and the shard cache holds at most %s: training will request pictures one by "
            "one, every time. HINT: train.order: windows, MODE_SHARD_CACHE_BYTES, a larger disk "
            "by MODE_SHARD_CACHE, or a copy of the shards",
            mode_size_text(have, bytes), mode_size_text(most, room));
    return st;
}

/* Makes one list of all shards, so that duplicates are detected across sources, and the end of each source in it. */
static enum mode_status look_at_shards(struct plan *p, struct digests *d, struct mode_error *err)
{
    const struct mode_spec_list *train = &p->spec.data_train, *added = &p->spec.data_added;
    char **source = mode_xmalloc((train->n + added->n + 1) * sizeof *source);
    enum mode_status st = MODE_OK;
    p->n_added = (uint32_t)added->n;
    p->shard_end = mode_xmalloc((added->n + 1) * sizeof *p->shard_end);
    for (size_t i = 0; i < train->n; i++) source[i] = train->item[i];
    for (size_t j = 0; j <= added->n && !st; j++) {
        if (j) source[train->n + j - 1] = added->item[j - 1];
        mode_shards_clear(&p->shards);
        st = mode_sources_expand(&p->shards, source, train->n + j, p->spec.folder, err);
        if (st) mode_error_prefix(err, st, "data");
        p->shard_end[j] = (uint32_t)p->shards.n;
    }
    free(source);
    if (st) return st;
    digests_begin(d, "the shards' addresses");
    st = mode_shards_look(&p->shards, err);
    return st ? st : check_room(p, err);
}

/* A training's record names every shard and two files for each. Checks that it fits now, not after everything is
 * embedded. */
static enum mode_status check_record(const struct plan *p, size_t most, struct mode_error *err)
{
    enum { INPUT = 64 + 40 }; /* bytes per input: digest, size, "captions/0007" and framing */
    size_t bytes = 1 << 20;
    for (size_t i = 0; i < p->shards.n; i++) bytes += strlen(p->shards.shard[i].path) + 4 + 2 * INPUT;
    if (bytes <= most) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "data.train: %zu shards; the record of a training that names them all would have some %zu MiB, at "
                     "most %zu are allowed. HINT: fewer, larger shards",
                     p->shards.n, bytes >> 20, most >> 20);
}

/* A wrong merges file, or a model with too small a vocabulary, would otherwise be detected only when training
 * begins. */
static enum mode_status look_at_tokenizer(struct plan *p, const struct plan_world *world, struct mode_error *err)
{
    struct mode_clip_config model;
    const char *merges = p->spec.tokenizer_merges;
    int64_t n_ids;
    uint64_t size;
    struct mode_error why;
    enum mode_status st = mode_digest_file(merges, p->tokenizer_digest, &size, &why);
    if (!st) st = world->tokenizer_ids(&n_ids, merges, &why);
    if (st == MODE_E_FORMAT) st = MODE_E_CONFIG; /* the file exists, but the spec must name another */
    if (st) return MODE_FAIL(err, st, "tokenizer.merges: %s", why.text);
    if ((st = mode_clip_config_parse(&model, p->spec.model_config, "model", err))) return st;
    if (model.vocab_size < n_ids)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "model: text_cfg.vocab_size is %lld, expected at least %lld: the tokenizer of "
                         "tokenizer.merges (%s) has that many ids",
                         (long long)model.vocab_size, (long long)n_ids, merges);
    return MODE_OK;
}

static enum mode_status read_algorithms(char **text, const char *path, struct mode_error *err)
{
    enum mode_status st = mode_file_read(path, MODE_TRAIN_ALGORITHMS_MOST, text, NULL, err);
    if (!st && strncmp(*text, MODE_ALGORITHMS_FIRST_LINE, strlen(MODE_ALGORITHMS_FIRST_LINE)) != 0)
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: was not written by `mode train --algorithms`", path);
    return st ? mode_error_prefix(err, st, "train.algorithms") : MODE_OK;
}

/* If the schedule is in steps, a model beyond the fork point is detected now. */
static enum mode_status look_at_init(struct plan *p, const struct plan_world *world, struct digests *d,
                                     struct mode_error *err)
{
    if (!p->spec.train.init[0]) return MODE_OK;
    enum mode_status st = world->init(p->init_digest, &p->init_step, d, &p->spec, err);
    if (st) return mode_error_prefix(err, st, "train.init");
    if (!p->spec.train.total_steps || p->init_step <= p->spec.train.seed_steps) return MODE_OK;
    return mode_spec_steps(&p->spec, UINT64_MAX, p->init_step, &(uint64_t){0}, &(uint64_t){0}, err);
}

static enum mode_status look_at_inputs(struct plan *p, const struct plan_world *world, struct digests *d,
                                       struct mode_error *err)
{
    enum mode_status st = mode_spec_check(&p->spec, true, err);
    if (!st) st = look_at_shards(p, d, err);
    if (!st) st = check_record(p, MODE_STORE_MAX_RECORD, err);
    if (!st) st = world->encoder_id(&p->encoder_id, d, &p->spec, err);
    if (!st) st = look_at_tokenizer(p, world, err);
    if (!st && p->spec.train.algorithms[0]) st = read_algorithms(&p->algorithms, p->spec.train.algorithms, err);
    if (!st) st = look_at_init(p, world, d, err);
    if (!st) st = look_at_tasks(p, world, d, err);
    if (!st) st = plan_for_look(p, err);
    digests_begin(d, NULL);
    return st;
}

enum mode_status plan_open(struct plan **out, struct mode_spec *spec, struct mode_store *store,
                           const struct plan_world *world, struct digests *d, const char *inputs,
                           struct mode_error *err)
{
    struct plan *p = mode_xcalloc(1, sizeof *p);
    struct mode_error why = {0};
    enum mode_status st;
    *out = NULL;
    p->spec = *spec;
    *spec = (struct mode_spec){0};
    p->store = store;
    if (inputs && plan_inputs_load(p, inputs, &why) == MODE_OK) {
        p->kept_inputs = true;
        if ((st = plan_inputs_find(p, err))) goto out;
    } else {
        if (inputs) mode_log_warn("planned_anew", "run=%s its inputs are inspected again: %s", p->spec.name, why.text);
        if ((st = look_at_inputs(p, world, d, err))) goto out;
    }
    p->n_models = plan_experts(p) + 2 + (uint32_t)p->spec.n_experts_for;
    p->pairs = mode_xcalloc(plan_experts(p), sizeof *p->pairs);
    p->n_assigned = mode_xcalloc(p->n_added + 1, sizeof *p->n_assigned);
    p->n_bad = mode_xcalloc(p->n_added + 1, sizeof *p->n_bad);
    p->all_counted = true;
    for (enum plan_stage s = 0; s < PLAN_STAGES; s++) add_stage(p, s);
    link_feeds(p);
    p->n_in[PLAN_WAITING] = p->n_nodes;
    for (uint32_t n = 0; n < p->n_nodes; n++)
        if (!p->node[n].n_missing) look_at(p, n);
    *out = p;
    return MODE_OK;
out:
    plan_close(&p);
    return st;
}

void plan_forget_nodes(struct plan *p)
{
    for (uint32_t n = 0; n < p->n_nodes; n++) {
        free(p->node[n].label);
        free(p->node[n].needs);
        free(p->node[n].feeds);
        if (p->node[n].commit) mode__commit__free_unpacked(p->node[n].commit, NULL);
    }
    free(p->node);
    free(p->todo);
    mode_index_clear(&p->by_key);
    p->node = NULL;
    p->todo = NULL;
    p->n_nodes = p->n_todo = p->todo_at = p->cap_todo = 0;
}

void plan_close(struct plan **pp)
{
    struct plan *p = *pp;
    *pp = NULL;
    if (!p) return;
    plan_forget_nodes(p);
    plan_inputs_forget(p);
    free(p->pairs);
    free(p->n_assigned);
    free(p->n_bad);
    free(p->bad_why);
    free(p->encoder_id);
    free(p->algorithms);
    free(p->warning);
    mode_spec_clear(&p->spec);
    free(p);
}

/* ---------------------------------------------------------------------------------------------- unfolding */

/* Takes ownership of text. If everything was cached, an earlier warning has not been reported yet. */
static void add_warning(struct plan *p, char *text)
{
    char *before = p->warning;
    p->warning = before ? mode_xasprintf("%s; %s", before, text) : text;
    if (before) free(text);
    free(before);
}

/* A skipped shard. With too many of them the source itself is wrong, and a run on the rest would mean nothing. */
static enum mode_status count_bad(struct plan *p, uint32_t shard, const char *why, struct mode_error *err)
{
    uint32_t j = 0;
    while (shard >= p->shard_end[j]) j++;
    if (!p->bad_why) {
        p->first_bad = shard;
        p->bad_why = mode_xstrdup(why);
    }
    char *key = j ? mode_xasprintf("data.added, source %u", j) : mode_xstrdup("data.train");
    enum mode_status st = mode_captions_check_bad(++p->n_bad[j], p->shard_end[j] - (j ? p->shard_end[j - 1] : 0), key,
                                                  p->shards.shard[shard].path, why, err);
    free(key);
    return st;
}

/* Samples cut off a shard, and those of a shard that cannot be read, have no fate: nothing else would report them. */
static enum mode_status count_lost(struct plan *p, const struct plan_node *x, struct mode_error *err)
{
    json_t *o = x->commit->note ? json_loads(x->commit->note, 0, NULL) : NULL;
    const json_int_t at = json_integer_value(json_object_get(o, "cut_at"));
    const char *why = json_string_value(json_object_get(o, "bad"));
    enum mode_status st = why ? count_bad(p, x->a, why, err) : MODE_OK;
    json_decref(o);
    if (at > 0 && !p->n_cut++) {
        p->cut = x->a;
        p->cut_at = (uint64_t)at;
    }
    if (st || p->n_done[PLAN_CAPTIONS] < p->shards.n) return st;
    uint32_t n_bad = 0;
    for (uint32_t j = 0; j <= p->n_added; j++) n_bad += p->n_bad[j];
    if (p->n_cut)
        add_warning(p,
                    mode_xasprintf("%u of %zu shard%s %s truncated (%s at byte %llu%s): samples up to there are used, "
                                   "the rest is missing. HINT: copy the shard again completely, then `mode run` again",
                                   p->n_cut, p->shards.n, MODE_PLURAL(p->shards.n), p->n_cut == 1 ? "is" : "are",
                                   p->shards.shard[p->cut].path, (unsigned long long)p->cut_at,
                                   p->n_cut == 1 ? "" : ", and others"));
    if (n_bad)
        add_warning(p, mode_xasprintf("%u of %zu shard%s %s skipped (%s: %.300s%s): none of %s samples is used or "
                                      "counted. HINT: copy the shard again completely, then `mode run` again",
                                      n_bad, p->shards.n, MODE_PLURAL(p->shards.n), n_bad == 1 ? "is" : "are",
                                      p->shards.shard[p->first_bad].path, p->bad_why, n_bad == 1 ? "" : "; and others",
                                      n_bad == 1 ? "its" : "their"));
    return MODE_OK;
}

static enum mode_status finish(struct plan *p, uint32_t node, bool cached, struct mode_error *err)
{
    struct plan_node *x = &p->node[node];
    if (x->state == PLAN_DONE) return MODE_OK;
    Mode__Commit *commit;
    enum mode_status st = mode_store_commit_get(p->store, &commit, x->key, err);
    if (st) return st;
    if (x->commit) mode__commit__free_unpacked(x->commit, NULL);
    x->commit = commit;
    if (x->state == PLAN_LOST) plan_revive(p, node);
    set_state(p, x, PLAN_DONE);
    x->cached = cached;
    p->n_done[x->stage]++;
    p->n_cached[x->stage] += cached;
    for (uint32_t i = 0; i < x->n_feeds; i++)
        if (--p->node[x->feeds[i]].n_missing == 0) look_at(p, x->feeds[i]);
    if (x->summed) return MODE_OK;
    x->summed = true;
    struct plan_sum *sum = &p->sum[x->stage];
    sum->rows_in += x->commit->rows_in;
    sum->rows_out += x->commit->rows_out;
    for (size_t i = 0; i < x->commit->n_rejects; i++) sum->rejects += x->commit->rejects[i]->n;
    sum->seconds += x->commit->seconds;
    if (!cached && x->commit->attempt > 1) sum->retries += x->commit->attempt - 1;
    if (x->stage == PLAN_CAPTIONS) return count_lost(p, x, err);
    if (x->stage == PLAN_ASSIGN) x->counted = plan_count_pairs(p, x->commit->note);
    if (x->stage == PLAN_SELECT) return plan_check_selected(p, x->a, err);
    return x->stage == PLAN_ASSIGN ? plan_check_pools(p, x->a, err) : MODE_OK;
}

static bool may_leave_out(const struct plan *p, const struct plan_node *x)
{
    return x->stage == PLAN_CAPTIONS && p->spec.skip_bad_shards && !x->left_out;
}

/* The node's task and key as they are now, and whether it is done. */
static enum mode_status make_spec(struct plan_spec *spec, bool *committed, struct plan *p, uint32_t node,
                                  struct mode_error *err)
{
    struct plan_node *x = &p->node[node];
    enum mode_status st = plan_task_spec(spec, p, node, err);
    if (st) return st;
    mode_task_key(x->key, &spec->msg);
    *committed = mode_store_commit_exists(p->store, x->key);
    return MODE_OK;
}

static enum mode_status open_node(struct plan *p, uint32_t node, bool *live, struct mode_error *err)
{
    struct plan_node *x = &p->node[node];
    struct plan_spec spec;
    bool committed;
    *live = false;
    enum mode_status st = make_spec(&spec, &committed, p, node, err);
    if (!st && !committed && may_leave_out(p, x)) { /* found not to be a tar before: it is not tried again */
        plan_spec_clear(&spec);
        x->left_out = true;
        st = make_spec(&spec, &committed, p, node, err);
        if (!st && !committed) {
            plan_spec_clear(&spec);
            x->left_out = false;
            st = make_spec(&spec, &committed, p, node, err);
        }
    }
    if (st) return mode_error_prefix(err, st, "%s", x->label);
    if (!committed) st = mode_store_task_put(p->store, x->key, &spec.msg, err);
    plan_spec_clear(&spec);
    if (st) return st;
    uint32_t twin = mode_index_get(&p->by_key, x->key);
    if (twin == node) twin = MODE_INDEX_NONE; /* a retry after a store failure */
    if (twin == MODE_INDEX_NONE) {
        mode_index_put(&p->by_key, x->key, node);
    } else { /* the same task under two names: executed once */
        x->same = p->node[twin].same;
        p->node[twin].same = node;
    }
    if (committed) return finish(p, node, true, err);
    set_state(p, x, twin == MODE_INDEX_NONE ? PLAN_LIVE : p->node[twin].state);
    *live = twin == MODE_INDEX_NONE;
    return MODE_OK;
}

bool plan_more(const struct plan *p)
{
    return p->todo_at < p->n_todo;
}

enum mode_status plan_next(struct plan *p, uint32_t *node, struct mode_error *err)
{
    uint32_t n = p->todo[p->todo_at];
    bool live = false;
    *node = PLAN_NONE;
    if (p->node[n].state == PLAN_WAITING) {
        enum mode_status st = open_node(p, n, &live, err);
        if (st) return st; /* the node stays at the head of the queue */
    }
    p->todo_at++;
    if (live) *node = n;
    return MODE_OK;
}

enum mode_status plan_done(struct plan *p, uint32_t node, struct mode_error *err)
{
    node = plan_find(p, p->node[node].key);
    for (; node != PLAN_NONE; node = p->node[node].same) {
        enum mode_status st = finish(p, node, false, err);
        if (st) return st;
    }
    return MODE_OK;
}

void plan_lost(struct plan *p, uint32_t node)
{
    struct plan_node *x = &p->node[node];
    if (x->state == PLAN_LOST || x->state == PLAN_DONE) return;
    set_state(p, x, PLAN_LOST);
    for (uint32_t i = 0; i < x->n_feeds; i++) plan_lost(p, x->feeds[i]);
    if (x->same != PLAN_NONE) plan_lost(p, x->same);
}

bool plan_leave_out(struct plan *p, uint32_t node)
{
    struct plan_node *x = &p->node[node];
    if (x->state != PLAN_LIVE || !may_leave_out(p, x)) return false;
    x->left_out = true;
    set_state(p, x, PLAN_WAITING);
    look_at(p, node);
    return true;
}

void plan_revive(struct plan *p, uint32_t node)
{
    struct plan_node *x = &p->node[node];
    if (x->state != PLAN_LOST) return;
    for (uint32_t i = 0; i < x->n_needs; i++)
        if (p->node[x->needs[i]].state == PLAN_LOST) return; /* still depends on another lost node */
    set_state(p, x, x->key[0] && !x->n_missing ? PLAN_LIVE : PLAN_WAITING);
    for (uint32_t i = 0; i < x->n_feeds; i++) plan_revive(p, x->feeds[i]);
    if (x->same != PLAN_NONE) plan_revive(p, x->same);
}

void plan_undo(struct plan *p, uint32_t node)
{
    for (uint32_t n = plan_find(p, p->node[node].key), next; n != PLAN_NONE; n = next) {
        struct plan_node *x = &p->node[n];
        next = x->same;
        x->same = PLAN_NONE; /* twins are matched again when processed */
        if (x->state != PLAN_DONE) continue;
        set_state(p, x, PLAN_WAITING);
        p->n_done[x->stage]--;
        p->n_cached[x->stage] -= x->cached;
        x->cached = false;
        x->n_redone++;
        for (uint32_t i = 0; i < x->n_feeds; i++) p->node[x->feeds[i]].n_missing++;
        look_at(p, n);
    }
}

void plan_wait(struct plan *p, uint32_t node)
{
    for (uint32_t n = plan_find(p, p->node[node].key), next; n != PLAN_NONE; n = next) {
        struct plan_node *x = &p->node[n];
        next = x->same;
        x->same = PLAN_NONE;
        if (x->state == PLAN_LIVE) set_state(p, x, PLAN_WAITING);
    }
}

uint32_t plan_find(const struct plan *p, const char *key)
{
    return mode_index_get(&p->by_key, key);
}

bool plan_finished(const struct plan *p)
{
    return p->n_in[PLAN_DONE] == p->n_nodes;
}

bool plan_stuck(const struct plan *p)
{
    return !plan_more(p) && !p->n_in[PLAN_LIVE] && p->n_in[PLAN_LOST];
}

bool plan_trained(const struct plan *p)
{
    return p->n_done[PLAN_SEED] + p->n_done[PLAN_DENSE] + p->n_done[PLAN_EXPERTS] + p->n_done[PLAN_SELECTED] ==
           p->n_models;
}

const Mode__Blob *plan_output(const struct plan_node *n, const char *name)
{
    for (size_t i = 0; n->commit && i < n->commit->n_outputs; i++)
        if (strcmp(n->commit->outputs[i]->name, name) == 0) return n->commit->outputs[i];
    return NULL;
}
