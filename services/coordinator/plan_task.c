/* plan_task.c - the TaskSpec of every kind of node: its contents determine the key, so they must be deterministic. */
#include "plan.h"

#include "base/str.h"
#include "base/version.h"
#include "msg/code_version.h"
#include "optim/schedule.h"
#include "pipeline/checkpoint.h"
#include "proto/assign.pb-c.h"
#include "proto/captions.pb-c.h"
#include "proto/cluster.pb-c.h"
#include "proto/embed.pb-c.h"
#include "proto/ensemble.pb-c.h"
#include "proto/evaluate.pb-c.h"
#include "proto/train.pb-c.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plan_spec_memory {
    Mode__Input *input;
    Mode__Input **inputs;
    size_t n, cap;
    uint8_t *request;
    char version[128];
};

static void set_request(struct plan_spec *s, const void *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    s->memory->request = mode_xmalloc(n + 1);
    protobuf_c_message_pack(message, s->memory->request);
    s->msg.request = (ProtobufCBinaryData){.data = s->memory->request, .len = n};
}

static void add_input(struct plan_spec *s, const char *digest, uint64_t size, char *name)
{
    struct plan_spec_memory *m = s->memory;
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 16;
        m->input = mode_xrealloc(m->input, m->cap * sizeof *m->input);
    }
    Mode__Input *in = &m->input[m->n++];
    mode__input__init(in);
    in->name = name;
    in->digest = mode_xstrdup(digest);
    in->size = size;
}

/* The output of a done node as an input under that name. */
static enum mode_status add_output(struct plan_spec *s, const struct plan_node *from, const char *output, char *name,
                                   struct mode_error *err)
{
    const Mode__Blob *blob = plan_output(from, output);
    if (!blob) {
        free(name);
        return MODE_FAIL(err, MODE_E_FORMAT, "the commit record of %s has no output \"%s\"", from->label, output);
    }
    add_input(s, blob->digest, blob->size, name);
    return MODE_OK;
}

static struct plan_shards all_shards(const struct plan *p)
{
    return (struct plan_shards){.to = {(uint32_t)p->shards.n}};
}

/* An output of every shard's node of that stage as inputs "prefix/0000", "prefix/0001", ... */
static enum mode_status add_shards(struct plan_spec *s, const struct plan *p, struct plan_shards shards,
                                   enum plan_stage stage, const char *output, const char *prefix,
                                   struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    uint32_t n = 0;
    for (int part = 0; part < 2; part++)
        for (uint32_t i = shards.from[part]; i < shards.to[part] && !st; i++)
            st = add_output(s, &p->node[p->first[stage] + i], output, mode_xasprintf("%s/%04u", prefix, n++), err);
    return st;
}

static char **shard_paths(const struct plan *p, struct plan_shards shards)
{
    char **paths = mode_xmalloc((plan_shards_count(shards) + 1) * sizeof *paths);
    uint32_t n = 0;
    for (int part = 0; part < 2; part++)
        for (uint32_t i = shards.from[part]; i < shards.to[part]; i++) paths[n++] = p->shards.shard[i].path;
    return paths;
}

static enum mode_status captions_task(struct plan_spec *s, const struct plan *p, const struct plan_node *x)
{
    const struct mode_shard *shard = &p->shards.shard[x->a];
    Mode__CaptionsRequest r = MODE__CAPTIONS_REQUEST__INIT;
    r.shard_path = shard->path;
    r.shard_size = shard->size;
    r.shard_mtime_ns = shard->mtime_ns;
    r.shard_name = shard->name;
    r.text_keys = p->spec.captions.text_keys.item;
    r.n_text_keys = p->spec.captions.text_keys.n;
    r.seed = p->spec.captions.seed;
    r.shard_index = x->a;
    r.has_all = r.all = p->spec.captions.all;
    if (p->spec.blur_faces[0]) r.blur = p->spec.blur_faces;
    r.strict = p->spec.captions.strict;
    r.has_skip_bad = r.skip_bad = x->left_out;
    r.max_image_pixels = p->spec.captions.max_image_pixels;
    set_request(s, &r);
    return MODE_OK;
}

/* NULL (not sent) for f32: the keys of such tasks stay as before. */
static char *precision_of(const struct mode_spec *spec)
{
    return strcmp(spec->precision, "f32") == 0 ? NULL : spec->precision;
}

static enum mode_status embed_task(struct plan_spec *s, const struct plan *p, const struct plan_node *x,
                                   struct mode_error *err)
{
    Mode__EmbedRequest r = MODE__EMBED_REQUEST__INIT;
    r.encoder_dir = p->spec.encoder.dir;
    r.encoder_id = p->encoder_id;
    r.pooling = p->spec.encoder.pooling;
    r.max_tokens = (uint32_t)p->spec.encoder.max_tokens;
    r.precision = precision_of(&p->spec);
    uint32_t j;
    if (x->stage == PLAN_WORDS && plan_for_of_words(p, x, &j)) {
        r.texts = p->for_tasks[j].names.item;
        r.n_texts = p->for_tasks[j].names.n;
    } else if (x->stage == PLAN_WORDS) {
        r.task_dir = p->task[x->a].dir;
        r.task_digest = p->task[x->a].words_digest;
    }
    set_request(s, &r);
    if (x->stage == PLAN_WORDS) return MODE_OK;
    return add_output(s, &p->node[x->needs[0]], "captions.bin", mode_xstrdup("captions"), err);
}

/* grow: fine centres of added data, as one more coarse group of the previous centres. */
static enum mode_status cluster_task(struct plan_spec *s, const struct plan *p, const struct plan_node *x,
                                     struct mode_error *err)
{
    Mode__ClusterRequest r = MODE__CLUSTER_REQUEST__INIT;
    bool grow = x->stage == PLAN_GROW;
    uint64_t fine = p->spec.cluster.fine;
    struct plan_shards shards = plan_base_shards(p);
    enum mode_status st = MODE_OK;
    if (grow) {
        fine = p->spec.cluster.added_fine ? p->spec.cluster.added_fine : fine / p->spec.cluster.coarse;
        shards = (struct plan_shards){.from = {p->shard_end[x->a]}, .to = {p->shard_end[x->a + 1]}};
    }
    r.fine = (uint32_t)fine;
    r.coarse = grow ? 1 : (uint32_t)p->spec.cluster.coarse;
    r.metric = p->spec.cluster.metric;
    r.seed = p->spec.cluster.seed;
    r.sample_per_centre = (uint32_t)p->spec.cluster.sample_per_centre;
    r.fine_iterations = (uint32_t)p->spec.cluster.fine_iterations;
    r.coarse_iterations = (uint32_t)p->spec.cluster.coarse_iterations;
    r.encoder_id = p->encoder_id;
    set_request(s, &r);
    if (grow)
        st = add_output(s, &p->node[x->needs[x->n_needs - 1]], "centres.safetensors", mode_xstrdup("centres"), err);
    return st ? st : add_shards(s, p, shards, PLAN_EMBED, "feat.safetensors", "feat", err);
}

static enum mode_status assign_task(struct plan_spec *s, const struct plan *p, const struct plan_node *x,
                                    struct mode_error *err)
{
    Mode__AssignRequest r = MODE__ASSIGN_REQUEST__INIT;
    r.shard_index = x->a;
    r.encoder_id = p->encoder_id;
    const struct plan_node *centres = &p->node[x->needs[1]];
    if (centres->stage == PLAN_GROW) {
        r.has_only_coarse = 1;
        r.only_coarse = (int32_t)(p->spec.cluster.coarse + centres->a);
    }
    set_request(s, &r);
    enum mode_status st = add_output(s, &p->node[x->needs[0]], "feat.safetensors", mode_xstrdup("feat"), err);
    return st ? st : add_output(s, centres, "centres.safetensors", mode_xstrdup("centres"), err);
}

/* needs: the centres, every file of words, every assignment. */
static enum mode_status select_task(struct plan_spec *s, const struct plan *p, const struct plan_node *x,
                                    struct mode_error *err)
{
    Mode__AssignRequest r = MODE__ASSIGN_REQUEST__INIT;
    const struct plan_shards shards = plan_base_shards(p);
    const uint32_t n_words = x->n_needs - 1 - plan_shards_count(shards);
    r.encoder_id = p->encoder_id;
    r.has_nearest = 1;
    r.nearest = (uint32_t)p->spec.experts_for[x->a].nearest;
    set_request(s, &r);
    enum mode_status st = add_output(s, &p->node[x->needs[0]], "centres.safetensors", mode_xstrdup("centres"), err);
    for (uint32_t i = 0; i < n_words && !st; i++)
        st = add_output(s, &p->node[x->needs[1 + i]], "feat.safetensors", mode_xasprintf("words/%04u", i), err);
    return st ? st : add_shards(s, p, shards, PLAN_ASSIGN, "assign.safetensors", "assign", err);
}

/* Training parameters stay empty here: they must not affect the key. */
static void init_task(struct plan_spec *s, const struct plan *p)
{
    Mode__TrainRequest r = MODE__TRAIN_REQUEST__INIT;
    char name[] = "seed", nothing[] = "";
    r.name = name;
    r.model_config = p->spec.model_config;
    r.preprocess_config = p->spec.preprocess_config;
    r.tokenizer_path = r.tokenizer_digest = nothing;
    r.init_path = p->spec.train.init;
    r.init_digest = (char *)p->init_digest;
    set_request(s, &r);
}

/* As with other keys, only set values are sent. */
static void set_locks(Mode__TrainRequest *r, const struct mode_spec *spec)
{
    r->has_lock_image = r->lock_image = spec->train.lock_image;
    r->lock_image_unlocked_groups = (uint32_t)spec->train.lock_image_unlocked_groups;
    r->has_lock_image_unlocked_groups = r->lock_image_unlocked_groups > 0;
    r->has_lock_text = r->lock_text = spec->train.lock_text;
    r->lock_text_unlocked_layers = (uint32_t)spec->train.lock_text_unlocked_layers;
    r->has_lock_text_unlocked_layers = r->lock_text_unlocked_layers > 0;
}

/* Only set values are sent, here as below. A seed that ends before the cooldown is trained at a constant rate: its key
 * depends neither on the cooldown nor on the total, so the same seed serves any number of steps after the fork. */
static void set_schedule(Mode__TrainRequest *r, const struct mode_spec *spec, bool seed)
{
    enum mode_schedule_kind kind = MODE_SCHEDULE_COSINE;
    mode_schedule_named(&kind, spec->train.schedule);
    if (kind == MODE_SCHEDULE_COSINE) return;
    if (seed && r->end_step <= r->total_steps - spec->train.cooldown_steps) {
        kind = MODE_SCHEDULE_CONSTANT;
        r->total_steps = r->end_step;
    }
    r->schedule = (char *)mode_schedule_name(kind);
    if (kind == MODE_SCHEDULE_CONSTANT) return;
    r->has_cooldown_steps = 1;
    r->cooldown_steps = spec->train.cooldown_steps;
    r->has_cooldown_power = spec->train.cooldown_power != 1;
    r->cooldown_power = spec->train.cooldown_power;
    r->has_cooldown_end = spec->train.cooldown_end != 0;
    r->cooldown_end = spec->train.cooldown_end;
}

static void warn_about_fork(struct plan *p, uint64_t warmup, uint64_t seed_steps, uint64_t total_steps)
{
    const uint64_t cooldown = p->spec.train.cooldown_steps;
    if (p->warning) return;
    if (warmup > seed_steps)
        p->warning = mode_xasprintf("train.warmup_steps %llu extends past the fork point at step %llu: the experts "
                                    "start while the learning rate is still rising",
                                    (unsigned long long)warmup, (unsigned long long)seed_steps);
    else if (total_steps - cooldown < seed_steps)
        p->warning = mode_xasprintf("train.cooldown_steps %llu of %llu begin before the fork at step %llu: the seed's "
                                    "learning rate already falls, and the experts begin below the peak",
                                    (unsigned long long)cooldown, (unsigned long long)total_steps,
                                    (unsigned long long)seed_steps);
}

static enum mode_status train_task(struct plan_spec *s, struct plan *p, const struct plan_node *x,
                                   struct mode_error *err)
{
    const struct mode_spec *spec = &p->spec;
    Mode__TrainRequest r = MODE__TRAIN_REQUEST__INIT;
    uint64_t kept = 0, seed_steps, total_steps, warmup;
    enum mode_status st;
    /* of data.train only: added data must not change existing schedules */
    for (uint32_t i = 0; i < p->shard_end[0]; i++) kept += p->node[p->first[PLAN_CAPTIONS] + i].commit->rows_out;
    if ((st = mode_spec_steps(spec, kept, p->init_step, &seed_steps, &total_steps, err)) ||
        (st = mode_spec_warmup(spec, total_steps, &warmup, err)))
        return st;
    bool seed = x->stage == PLAN_SEED, expert = x->stage == PLAN_EXPERTS, selected = x->stage == PLAN_SELECTED;
    const struct plan_node *init = p->init_digest[0] ? &p->node[p->first[PLAN_INIT]] : NULL;
    const Mode__Blob *weights = init ? plan_output(init, MODE_FILE_CLIP_WEIGHTS) : NULL;
    if (seed && init && seed_steps == p->init_step) { /* the given model is the fork point */
        init_task(s, p);
        return MODE_OK;
    }
    if (init && !weights) return MODE_FAIL(err, MODE_E_FORMAT, "the commit record of %s has no weights", init->label);
    if (seed) warn_about_fork(p, warmup, seed_steps, total_steps);
    char *name = plan_model_name(p, expert ? x->a + 2 : selected ? x->a + 2 + plan_experts(p) : seed);
    r.name = name;
    r.model_config = spec->model_config;
    r.preprocess_config = spec->preprocess_config;
    r.tokenizer_path = spec->tokenizer_merges;
    r.tokenizer_digest = p->tokenizer_digest;
    r.seed = spec->train.seed;
    r.batch = (uint32_t)spec->train.batch;
    r.lr = spec->train.lr;
    r.beta1 = spec->train.beta1;
    r.beta2 = spec->train.beta2;
    r.eps = spec->train.eps;
    r.weight_decay = spec->train.weight_decay;
    r.warmup_steps = warmup;
    r.total_steps = total_steps;
    r.start_step = seed ? p->init_step : seed_steps;
    r.end_step = seed ? seed_steps : total_steps;
    set_schedule(&r, spec, seed);
    r.out_ratio = spec->train.out_ratio;
    r.checkpoint_steps = spec->train.checkpoint_steps;
    r.scale_min = spec->train.scale_min;
    r.scale_max = spec->train.scale_max;
    /* only set values are sent: the keys of tasks without them stay as before */
    r.has_grad_clip_norm = spec->train.grad_clip_norm > 0;
    r.grad_clip_norm = spec->train.grad_clip_norm;
    r.has_accumulate = spec->train.accumulate > 1;
    r.accumulate = (uint32_t)spec->train.accumulate;
    r.precision = precision_of(spec);
    r.has_checkpoint_activations = r.checkpoint_activations = spec->train.checkpoint_activations;
    r.algorithms = p->algorithms;
    r.has_patch_dropout = spec->train.patch_dropout > 0;
    r.patch_dropout = spec->train.patch_dropout;
    set_locks(&r, spec);
    r.has_window_shards = spec->train.by_windows;
    r.window_shards = (uint32_t)spec->train.window_shards;
    if (init) r.init = weights->digest;
    if (expert) {
        r.has_expert = 1;
        r.expert = (int32_t)x->a;
    }
    r.has_selected = r.selected = selected;
    if ((expert || selected) && spec->train.share_steps) {
        uint64_t pool = 0, rest = total_steps - seed_steps;
        if ((st = expert ? plan_pool_size(&pool, p, x->a, err) : plan_selected_pairs(&pool, p, x->a, err))) goto out;
        uint64_t own = (uint64_t)llround((double)rest * (double)pool / (double)kept);
        if (own < 1) own = 1;
        if (own > rest) own = rest;
        r.end_step = seed_steps + own;
        r.has_schedule_stride = 1;
        r.schedule_stride = (double)rest / (double)own;
    }
    struct plan_shards shards = expert ? plan_expert_shards(p, x->a) : plan_base_shards(p);
    char **paths = shard_paths(p, shards);
    r.shard_paths = paths;
    r.n_shard_paths = plan_shards_count(shards);
    set_request(s, &r);
    free(paths);
    if ((st = add_shards(s, p, shards, PLAN_CAPTIONS, "captions.bin", "captions", err))) goto out;
    if (expert || selected) {
        const struct plan_node *map = &p->node[expert ? plan_centres_node(p, x->a) : p->first[PLAN_SELECT] + x->a];
        if ((st = add_shards(s, p, shards, PLAN_ASSIGN, "assign.safetensors", "assign", err))) goto out;
        if ((st = add_output(s, map, expert ? "centres.safetensors" : "selection.safetensors",
                             mode_xstrdup(expert ? "centres" : "selection"), err)))
            goto out;
    }
    if (!seed || init) {
        const Mode__Commit *parent = seed ? init->commit : p->node[p->first[PLAN_SEED]].commit;
        for (size_t i = 0; i < parent->n_outputs; i++)
            add_input(s, parent->outputs[i]->digest, parent->outputs[i]->size,
                      mode_xasprintf("parent/%s", parent->outputs[i]->name));
    }
out:
    free(name);
    return st;
}

static enum mode_status evaluate_task(struct plan_spec *s, const struct plan *p, const struct plan_node *x,
                                      struct mode_error *err)
{
    static const char *const files[] = {"open_clip_config.json", "open_clip_model.safetensors"};
    Mode__EvaluateRequest r = MODE__EVALUATE_REQUEST__INIT;
    char *name = plan_model_name(p, x->a);
    enum mode_status st = MODE_OK;
    r.model_name = name;
    r.task_name = p->task[x->b].name;
    r.task_dir = p->task[x->b].dir;
    r.task_digest = (char *)p->task[x->b].digest;
    r.tokenizer_path = p->spec.tokenizer_merges;
    r.tokenizer_digest = (char *)p->tokenizer_digest;
    r.batch = (uint32_t)p->spec.evaluate.batch;
    r.precision = precision_of(&p->spec);
    set_request(s, &r);
    free(name);
    for (int i = 0; i < 2 && !st; i++) st = add_output(s, &p->node[x->needs[0]], files[i], mode_xstrdup(files[i]), err);
    return st;
}

static enum mode_status ensemble_inputs(struct plan_spec *s, struct plan *p, struct mode_error *err)
{
    enum mode_status st = add_output(s, &p->node[plan_centres_node(p, plan_experts(p) - 1)], "centres.safetensors",
                                     mode_xstrdup("centres"), err);
    if (!st) st = add_shards(s, p, all_shards(p), PLAN_CAPTIONS, "captions.bin", "captions", err);
    if (!st) st = add_shards(s, p, all_shards(p), PLAN_ASSIGN, "assign.safetensors", "assign", err);
    for (uint32_t t = 0; t < p->n_tasks && !st; t++)
        st = add_output(s, &p->node[p->first[PLAN_WORDS] + t], "feat.safetensors",
                        mode_xasprintf("words/%s", p->task[t].name), err);
    for (uint32_t m = 0; m < p->n_models && !st; m++) {
        char *name = plan_model_name(p, m);
        const struct plan_node *model = &p->node[plan_model_node(p, m)];
        for (uint32_t t = 0; t < p->n_tasks && !st; t++) {
            const struct plan_node *e = &p->node[p->first[PLAN_EVALUATE] + m * p->n_tasks + t];
            st = add_output(s, e, "logits.safetensors", mode_xasprintf("logits/%s/%s", name, p->task[t].name), err);
            if (!st) st = add_output(s, e, "metrics.json", mode_xasprintf("metrics/%s/%s", name, p->task[t].name), err);
        }
        if (!st) st = add_output(s, model, "steps.jsonl", mode_xasprintf("steps/%s", name), err);
        if (!st) st = add_output(s, model, "train.json", mode_xasprintf("train/%s", name), err);
        free(name);
    }
    for (uint32_t j = 0; j < p->spec.n_experts_for && !st; j++)
        st = add_output(s, &p->node[p->first[PLAN_SELECT] + j], "selection.safetensors",
                        mode_xasprintf("selection/%s", p->spec.experts_for[j].name), err);
    return st;
}

static void add_selected(Mode__EnsembleRequest *r, const struct plan *p)
{
    const size_t n = p->spec.n_experts_for;
    Mode__EnsembleSelected *x = mode_xcalloc(n + 1, sizeof *x);
    r->selected = mode_xcalloc(n + 1, sizeof *r->selected);
    r->n_selected = n;
    r->selected[0] = x; /* for clear_selected, even if there are none */
    for (size_t j = 0; j < n; j++) {
        const struct plan_for *f = &p->for_tasks[j];
        mode__ensemble_selected__init(&x[j]);
        x[j].name = p->spec.experts_for[j].name;
        x[j].tasks = mode_xcalloc(f->n_task + (size_t)1, sizeof *x[j].tasks);
        for (uint32_t i = 0; i < f->n_task; i++) x[j].tasks[x[j].n_tasks++] = p->task[f->task[i]].name;
        r->selected[j] = &x[j];
    }
}

static void clear_selected(Mode__EnsembleRequest *r)
{
    for (size_t j = 0; j < r->n_selected; j++) free(r->selected[j]->tasks);
    free(r->selected[0]);
    free(r->selected);
}

static enum mode_status ensemble_task(struct plan_spec *s, struct plan *p, struct mode_error *err)
{
    Mode__EnsembleRequest r = MODE__ENSEMBLE_REQUEST__INIT;
    Mode__EnsembleTask *task = mode_xcalloc(p->n_tasks + 1, sizeof *task);
    Mode__EnsembleTask **tasks = mode_xcalloc(p->n_tasks + 1, sizeof *tasks);
    for (uint32_t t = 0; t < p->n_tasks; t++) {
        mode__ensemble_task__init(&task[t]);
        task[t].name = p->task[t].name;
        task[t].dir = p->task[t].dir;
        task[t].kind = (char *)p->task[t].kind;
        tasks[t] = &task[t];
    }
    r.run_name = p->spec.name;
    r.router = p->spec.router;
    r.router_params = p->spec.router_params;
    r.top_experts = (uint32_t)p->spec.top_experts;
    r.experts = plan_experts(p);
    r.tasks = tasks;
    r.n_tasks = p->n_tasks;
    r.shard_paths = shard_paths(p, all_shards(p));
    r.n_shard_paths = p->shards.n;
    r.spec_yaml = p->spec.text;
    r.seed = p->spec.seed;
    r.skipped = p->skipped.item;
    r.n_skipped = p->skipped.n;
    add_selected(&r, p);
    set_request(s, &r);
    clear_selected(&r);
    free(r.shard_paths);
    free(task);
    free(tasks);
    return ensemble_inputs(s, p, err);
}

enum mode_status plan_task_spec(struct plan_spec *s, struct plan *p, uint32_t node, struct mode_error *err)
{
    const struct plan_node *x = &p->node[node];
    enum mode_status st = MODE_E_GENERIC;
    *s = (struct plan_spec){.memory = mode_xcalloc(1, sizeof *s->memory)};
    mode__task_spec__init(&s->msg);
    s->msg.service = (char *)plan_stage_service(x->stage);
    mode_code_version(s->memory->version, sizeof s->memory->version, s->msg.service);
    s->msg.code_version = s->memory->version;
    switch (x->stage) {
    case PLAN_CAPTIONS: st = captions_task(s, p, x); break;
    case PLAN_EMBED:
    case PLAN_WORDS: st = embed_task(s, p, x, err); break;
    case PLAN_CLUSTER:
    case PLAN_GROW: st = cluster_task(s, p, x, err); break;
    case PLAN_ASSIGN: st = assign_task(s, p, x, err); break;
    case PLAN_SELECT: st = select_task(s, p, x, err); break;
    case PLAN_INIT:
        init_task(s, p);
        st = MODE_OK;
        break;
    case PLAN_SEED:
    case PLAN_DENSE:
    case PLAN_EXPERTS:
    case PLAN_SELECTED: st = train_task(s, p, x, err); break;
    case PLAN_EVALUATE: st = evaluate_task(s, p, x, err); break;
    case PLAN_ENSEMBLE: st = ensemble_task(s, p, err); break;
    case PLAN_STAGES: break;
    }
    if (st) {
        plan_spec_clear(s);
        return st;
    }
    s->memory->inputs = mode_xmalloc((s->memory->n + 1) * sizeof *s->memory->inputs);
    for (size_t i = 0; i < s->memory->n; i++) s->memory->inputs[i] = &s->memory->input[i];
    s->msg.inputs = s->memory->inputs;
    s->msg.n_inputs = s->memory->n;
    return MODE_OK;
}

void plan_spec_clear(struct plan_spec *s)
{
    for (size_t i = 0; s->memory && i < s->memory->n; i++) {
        free(s->memory->input[i].name);
        free(s->memory->input[i].digest);
    }
    if (s->memory) {
        free(s->memory->input);
        free(s->memory->inputs);
        free(s->memory->request);
        free(s->memory);
    }
    *s = (struct plan_spec){0};
}
