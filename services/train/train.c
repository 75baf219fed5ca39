#include "train.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/str.h"
#include "dist/meeting.h"
#include "dist/ranks.h"
#include "nn/choice.h"
#include "optim/schedule.h"
#include "pipeline/checkpoint.h"
#include "pipeline/given.h"
#include "pipeline/train.h"
#include "proto/train.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hook {
    struct mode_job *job;
    const char *name;
    double last_log; /* seconds */
};

static void on_progress(void *ctx, const struct mode_train_progress *p)
{
    struct hook *h = ctx;
    double now = mode_clock_s();
    const struct mode_job_train_step step = {p->loss, p->lr, p->logit_scale, p->samples_per_second};
    mode_job_train_step(h->job, &step);
    mode_job_progress(h->job, p->step - p->start_step, p->end_step - p->start_step, "steps");
    if (p->step != p->end_step && now - h->last_log < 30) return;
    h->last_log = now;
    mode_log_info("train_step",
                  "model=%s step=%llu of=%llu epoch=%.3f loss=%.4f lr=%.3g logit_scale=%.2f samples_per_s=%.1f "
                  "data_s=%.3f step_s=%.3f",
                  h->name, (unsigned long long)p->step, (unsigned long long)p->end_step, p->epoch, p->loss, p->lr,
                  p->logit_scale, p->samples_per_second, p->data_seconds, p->step_seconds);
}

static void on_notice(void *ctx, const char *text)
{
    mode_log_info("notice", "model=%s %s", ((struct hook *)ctx)->name, text);
}

static void on_memory(void *ctx, const struct mode_train_memory *m)
{
    struct hook *h = ctx;
    char *plan = mode_train_memory_json(m);
    mode_log_info("memory_plan", "model=%s mib=%zu plan=%s", h->name, m->total >> 20, plan);
    free(plan);
}

static void on_validated(void *ctx, const struct mode_validation_result *r)
{
    const struct hook *h = ctx;
    mode_job_goes_on(h->job);
    mode_job_score(h->job, &(struct mode_job_score){r->task, r->measure, r->value, r->step});
    mode_log_info("validated", "model=%s step=%llu task=%s %s=%.4f seconds=%.1f", h->name, (unsigned long long)r->step,
                  r->task, r->measure, r->value, r->seconds);
}

static void on_validating(void *ctx)
{
    mode_job_goes_on(((struct hook *)ctx)->job);
}

static bool on_stopping(void *ctx)
{
    return mode_job_stopping(((struct hook *)ctx)->job);
}

static bool on_fetching(void *ctx, uint64_t done, uint64_t total)
{
    struct mode_job *job = ((struct hook *)ctx)->job;
    mode_job_progress(job, done, total, "bytes of the shards");
    return !mode_job_stopping(job);
}

static char *on_checkpoint_dir(void *ctx, const char *name)
{
    return mode_path_join(mode_job_checkpoint_mine(((struct hook *)ctx)->job), name);
}

static enum mode_status on_checkpoint_done(void *ctx, const char *name, struct mode_error *err)
{
    return mode_job_checkpoint_done(((struct hook *)ctx)->job, name, err);
}

static enum mode_status need_input(const char **path, struct mode_job *job, const char *name, struct mode_error *err)
{
    *path = mode_job_input(job, name);
    return *path ? MODE_OK : MODE_FAIL(err, MODE_E_VALUE, "the train task has no input \"%s\"", name);
}

/* captions/0000 .. and assign/0000 .. belong to the shard paths in order */
static enum mode_status gather_shards(struct mode_stream_shard *shards, struct mode_job *job,
                                      const Mode__TrainRequest *r, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    char name[32];
    for (size_t i = 0; !st && i < r->n_shard_paths; i++) {
        shards[i].tar = r->shard_paths[i];
        snprintf(name, sizeof name, "captions/%04zu", i);
        if ((st = need_input(&shards[i].captions, job, name, err)) || (r->expert < 0 && !r->selected)) continue;
        snprintf(name, sizeof name, "assign/%04zu", i);
        st = need_input(&shards[i].assign, job, name, err);
    }
    return st;
}

static enum mode_status check_tokenizer(const Mode__TrainRequest *r, struct mode_error *err)
{
    char digest[MODE_DIGEST_HEX];
    enum mode_status st = mode_digest_file(r->tokenizer_path, digest, NULL, err);
    if (!st && strcmp(digest, r->tokenizer_digest) != 0)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: has digest %s, the task was planned with %s", r->tokenizer_path, digest,
                       r->tokenizer_digest);
    return st;
}

/* Number of processes: up to the number of GPUs, such that the batch can be divided among them. */
static int team_of(const struct mode_job *job, const struct mode_backend *be, const Mode__TrainRequest *r)
{
    const int64_t pieces = r->accumulate > 1 ? r->accumulate : 1;
    int n = mode_backend_is_device(be) ? mode_job_gpus(job) : 1;
    if (n > MODE_RANKS_MAX) n = MODE_RANKS_MAX;
    while (n > 1 && (r->batch % n != 0 || r->batch / n < pieces)) n--;
    if (n < mode_job_gpus(job))
        mode_log_warn("fewer_gpus", "model=%s %d of the %d GPUs train it: %s", r->name, n, mode_job_gpus(job),
                      mode_backend_is_device(be) ? "the batch cannot be shared by more"
                                                 : "the backend does not run on a GPU");
    return n;
}

_Static_assert((int)MODE_TEAM_SECRET == (int)MODE_MEETING_SECRET, "a team's secret is said where it meets");
enum { MEET_S = 300 }; /* the others load CUDA and the store's files first */

static enum mode_status join(struct mode_ranks **group, struct mode_job *job, struct mode_backend *be,
                             const Mode__TrainRequest *r, struct mode_error *err)
{
    const struct mode_job_team *t = mode_job_team(job);
    struct mode_meeting *meeting = NULL;
    enum mode_status st = MODE_OK;
    if (t->rank == 0) {
        const int n = team_of(job, be, r);
        if (n == 1) return MODE_OK;
        if ((st = mode_job_team_start(job, n, mode_backend_name(be), err))) return st;
    }
    const struct mode_meeting_options o = {.rank = t->rank,
                                           .size = t->size,
                                           .place = t->place,
                                           .secret = t->secret,
                                           .timeout_s = MEET_S,
                                           .stopping = mode_job_team_broken,
                                           .ctx = job};
    st = mode_meeting_open(&meeting, &o, err);
    return st ? st : mode_backend_ranks(group, be, &meeting, err);
}

/* <run>/tensorboard/<model>, or NULL: the caller frees. */
static char *board_dir(const struct mode_job *job, const char *model)
{
    const char *run = mode_job_run_dir(job);
    return run && model[0] != '.' && !strchr(model, '/') ? mode_xasprintf("%s/tensorboard/%s", run, model) : NULL;
}

/* <run>/validation/<model>.jsonl, or NULL: the caller frees. */
static char *validation_path(const struct mode_job *job, const char *model)
{
    struct mode_error err;
    char *dir = mode_path_join(mode_job_run_dir(job), "validation"), *path = NULL;
    if (model[0] != '.' && !strchr(model, '/') &&
        mode_validation_begin(&path, dir, model, mode_job_key(job), &err) != MODE_OK)
        mode_log_failure("validations_not_kept", &err);
    free(dir);
    return path;
}

/* Opens the evaluation during training. It is not part of the request, since no model depends on it. */
static enum mode_status open_validation(struct mode_validation **v, char **path, const struct mode_job *job,
                                        const Mode__TrainRequest *r, struct mode_error *err)
{
    const char *run = mode_job_run_dir(job);
    if (!run || r->init_path) return MODE_OK;
    char *plan = mode_path_join(run, "validation.json");
    enum mode_status st = mode_validation_open_saved(v, plan, mode_job_team(job)->rank == 0, err);
    free(plan);
    if (*v && mode_job_team(job)->rank == 0) *path = validation_path(job, r->name);
    return st;
}

static void report(struct mode_job *job, const struct mode_train_result *result, int n_processes)
{
    char *note = mode_xasprintf(
        "{\"final_loss\": %.6g, \"steps\": %llu, \"resumed_at\": %llu, \"seconds\": %.3f, \"data_seconds\": "
        "%.3f, \"validation_seconds\": %.3f, "
        "\"samples_seen\": %llu, \"in_cluster\": %llu, \"out_of_cluster\": %llu, \"parameters\": %zu, \"processes\": "
        "%d}",
        result->final_loss, (unsigned long long)result->steps_run, (unsigned long long)result->resumed_at,
        result->seconds, result->data_seconds, result->validation_seconds, (unsigned long long)result->samples_seen,
        (unsigned long long)result->in_cluster, (unsigned long long)result->out_of_cluster, result->parameters,
        n_processes);
    mode_job_note(job, note);
    free(note);
    /* own rows only: over all experts they sum to the rows of the run; the few shared ones are in the note */
    mode_job_count_rows(job, result->rows, result->in_cluster);
    mode_job_count_reject(job, "other_cluster", result->outside);
}

/* Converts a given model to our format, so that later tasks use it as if it had been trained here. */
static enum mode_status take_given(struct mode_job *job, const Mode__TrainRequest *r,
                                   const struct mode_train_outputs *outputs, struct mode_error *err)
{
    struct mode_given g = {0};
    char hex[MODE_DIGEST_HEX], *left = NULL, *note = NULL;
    enum mode_status st = mode_given_find(&g, r->init_path, err);
    if (!st) st = mode_given_agree(&g, r->model_config, r->preprocess_config, err);
    if (!st) st = mode_given_take(&g, outputs, &left, err);
    if (!st) st = mode_given_digest(&g, hex, err); /* after reading it: verifies that it is the planned one */
    if (!st && strcmp(hex, r->init_digest) != 0)
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "%s: has changed since the run was planned: its digest was %.12s and is %.12s. HINT: submit the "
                       "run again to begin with what is there now",
                       r->init_path, r->init_digest, hex);
    if (st) goto out;
    if (left[0]) mode_log_info("notice", "model=%s %s: %s", r->name, r->init_path, left);
    note = mode_xasprintf("{\"init\": \"%s\", \"step\": %llu}", hex, (unsigned long long)g.step);
    mode_job_note(job, note);
out:
    free(left);
    free(note);
    mode_given_clear(&g);
    return st;
}

enum mode_status train_work(struct mode_job *job, struct mode_error *err)
{
    Mode__TrainRequest *r = mode_job_unpack(job, &mode__train_request__descriptor, err);
    struct mode_stream_shard *shards = NULL;
    struct mode_backend *be = NULL;
    struct mode_validation *validation = NULL;
    char *results = NULL;
    struct mode_train_parent parent = {0};
    struct mode_train_result result;
    char why[MODE_BACKEND_WHY];
    enum mode_status st;
    if (!r) return err->status;
    struct hook hook = {.job = job, .name = r->name, .last_log = mode_clock_s()};
    const bool first = mode_job_team(job)->rank == 0;
    char *dir = board_dir(job, r->name);
    const struct mode_board_place board = {dir, mode_job_fence(job)};
    struct mode_train_hooks hooks = {.ctx = &hook,
                                     .memory = first ? on_memory : NULL,
                                     .progress = first ? on_progress : NULL,
                                     .notice = first ? on_notice : NULL,
                                     .validated = first ? on_validated : NULL,
                                     .validating = first ? on_validating : NULL,
                                     .stopping = on_stopping,
                                     .fetching = on_fetching,
                                     .checkpoint_dir = on_checkpoint_dir,
                                     .checkpoint_done = on_checkpoint_done,
                                     .resume_from = mode_job_checkpoint_latest(job),
                                     .board = dir ? &board : NULL};
    struct mode_train_spec spec = {.name = r->name,
                                   .model_config = r->model_config,
                                   .preprocess_config = r->preprocess_config,
                                   .tokenizer = r->tokenizer_path,
                                   .seed = r->seed,
                                   .batch = r->batch,
                                   .lr = r->lr,
                                   .beta1 = r->beta1,
                                   .beta2 = r->beta2,
                                   .eps = r->eps,
                                   .weight_decay = r->weight_decay,
                                   .grad_clip_norm = r->grad_clip_norm,
                                   .accumulate = r->accumulate,
                                   .checkpoint_activations = r->checkpoint_activations,
                                   .algorithms = r->algorithms,
                                   .warmup_steps = r->warmup_steps,
                                   .total_steps = r->total_steps,
                                   .cooldown_steps = r->cooldown_steps,
                                   .cooldown_power = r->cooldown_power,
                                   .cooldown_end = r->cooldown_end,
                                   .start_step = r->start_step,
                                   .end_step = r->end_step,
                                   .schedule_stride = r->schedule_stride,
                                   .checkpoint_steps = r->checkpoint_steps,
                                   .expert = r->expert,
                                   .out_ratio = r->out_ratio,
                                   .scale_min = r->scale_min,
                                   .scale_max = r->scale_max,
                                   .patch_dropout = r->patch_dropout,
                                   .lock = {.image = r->lock_image,
                                            .text = r->lock_text,
                                            .image_unlocked_groups = r->lock_image_unlocked_groups,
                                            .text_unlocked_layers = r->lock_text_unlocked_layers},
                                   .window_shards = r->window_shards,
                                   .n_shards = r->n_shard_paths,
                                   .init = r->init};
    struct mode_train_outputs outputs = {.config = mode_job_output(job, MODE_FILE_CLIP_CONFIG),
                                         .weights = mode_job_output(job, MODE_FILE_CLIP_WEIGHTS),
                                         .optimizer = mode_job_output(job, MODE_FILE_CLIP_OPTIMIZER),
                                         .steps = mode_job_output(job, MODE_FILE_STEPS),
                                         .summary = mode_job_output(job, MODE_FILE_TRAIN)};
    if (r->init_path) {
        st = take_given(job, r, &outputs, err);
        goto out;
    }
    if (!mode_schedule_named(&spec.schedule, r->schedule)) {
        st = MODE_FAIL(err, MODE_E_VALUE, "training %s: its schedule is \"%s\", expected one of " MODE_SCHEDULE_NAMES,
                       r->name, r->schedule);
        goto out;
    }
    if ((st = check_tokenizer(r, err)) || (st = open_validation(&validation, &results, job, r, err))) goto out;
    spec.validation = validation;
    outputs.validation = results;
    shards = mode_xcalloc(r->n_shard_paths, sizeof *shards);
    if ((st = gather_shards(shards, job, r, err))) goto out;
    spec.shards = shards;
    if (r->expert >= 0 && (st = need_input(&spec.centres, job, "centres", err))) goto out;
    if (r->selected && (st = need_input(&spec.selection, job, "selection", err))) goto out;
    if (r->start_step > 0 || r->init) {
        if ((st = need_input(&parent.config, job, "parent/" MODE_FILE_CLIP_CONFIG, err))) goto out;
        if ((st = need_input(&parent.weights, job, "parent/" MODE_FILE_CLIP_WEIGHTS, err))) goto out;
        if (r->start_step > 0 && (st = need_input(&parent.optimizer, job, "parent/" MODE_FILE_CLIP_OPTIMIZER, err)))
            goto out;
        spec.parent = &parent;
    }
    if ((st = mode_backend_choose(&be, why, mode_job_backend(job), r->precision, err))) goto out;
    if ((st = join(&hooks.group, job, be, r, err))) goto out;
    const int n_processes = hooks.group ? hooks.group->size : 1;
    if (first)
        mode_log_info("backend", "model=%s name=%s processes=%d threads=%d %s", r->name, mode_backend_name(be),
                      n_processes, mode_parallel_threads(), why);
    mode_job_made_on(job, mode_backend_name(be));
    st = mode_train(&result, be, &spec, &outputs, &hooks, err);
    mode_ranks_close(&hooks.group, st == MODE_OK || st == MODE_E_STOPPED);
    if (st || !first) goto out;
    if (result.device_pixels)
        mode_log_info("device_pixels", "model=%s resized_by_host=%llu", r->name,
                      (unsigned long long)result.host_resized);
    report(job, &result, n_processes);
out:
    st = mode_job_team_end(job, st, err);
    mode_backend_close(&be);
    mode_validation_close(&validation);
    free(results);
    free(dir);
    free(shards);
    mode__train_request__free_unpacked(r, NULL);
    return st;
}
