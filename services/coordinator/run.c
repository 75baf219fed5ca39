#include "run.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/fresh.h"
#include "base/log.h"
#include "base/str.h"
#include "msg/status_json.h"
#include "pipeline/captions.h"
#include "pipeline/validation.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STORE_RETRY_S  5.0
#define INPUT_RETRY_S  10.0
#define SUBMISSION_S   60.0 /* how long an ended submission is kept for repeated requests */
#define PLAN_SAVE_S    5.0  /* minimum interval while it unfolds */
#define MOST_REDONE    3    /* redos of one task: beyond that the disk is bad and a person must act */
#define PLAN_SAVE_PART 50.0 /* and at most 1/50 of the time: plans of large runs are megabytes */

static void run_free(struct runs *r, struct run *run)
{
    if (!run) return;
    if (planner_forget(run->plan ? r->writer : r->planner, &run->job)) run->plan = NULL;
    plan_close(&run->plan);
    free(run->core_task);
    free(run->name);
    free(run->folder);
    free(run->text);
    free(run->idempotency);
    free(run->message);
    free(run);
}

static void set_message(struct run *run, const char *text)
{
    free(run->message);
    run->message = mode_xstrdup(text);
}

static char *run_folder(const struct runs *r, const char *name)
{
    return mode_xasprintf("%s/runs/%s", mode_store_root(r->store), name);
}

/* Writes or removes the file of tasks that workers evaluate during training. */
static enum mode_status save_validation(const struct runs *r, const struct run *run, struct mode_error *err)
{
    const struct plan *p = run->plan;
    char *dir = run_folder(r, run->name), *path = mode_path_join(dir, "validation.json"),
         **dirs = mode_xcalloc(p->n_tasks + 1, sizeof *dirs);
    const char **digests = mode_xcalloc(p->n_tasks + 1, sizeof *digests);
    for (uint32_t t = 0; t < p->n_tasks; t++) {
        dirs[t] = p->task[t].dir;
        digests[t] = p->task[t].digest;
    }
    const struct mode_validation_options o = {.n = p->n_tasks,
                                              .dir = dirs,
                                              .digest = digests,
                                              .every = p->spec.train.evaluate_steps,
                                              .batch = (int64_t)p->spec.evaluate.batch};
    enum mode_status st = MODE_OK;
    if (o.every > 0 && o.n > 0)
        st = mode_validation_save(&o, path, err);
    else if (unlink(path) != 0 && errno != ENOENT)
        st = mode_output_fail(err, errno, path, "be removed");
    free(digests);
    free(dirs);
    free(path);
    free(dir);
    return st;
}

/* Inputs whose paths JSON cannot hold are examined again when the coordinator starts. */
static enum mode_status save_inputs(const struct runs *r, const struct run *run, struct mode_error *err)
{
    char *dir = run_folder(r, run->name), *path = mode_path_join(dir, "inputs.json");
    enum mode_status st = plan_inputs_save(run->plan, path, err);
    if (st == MODE_E_VALUE) {
        mode_log_failure("inputs_not_kept", err);
        st = unlink(path) == 0 || errno == ENOENT ? MODE_OK : mode_output_fail(err, errno, path, "be removed");
    }
    if (!st) st = save_validation(r, run, err);
    free(path);
    free(dir);
    return st;
}

static enum mode_status run_save(const struct runs *r, const struct run *run, bool with_spec, struct mode_error *err)
{
    char *dir = run_folder(r, run->name), *spec = mode_path_join(dir, "spec.yaml"),
         *file = mode_path_join(dir, "run.json");
    json_t *json = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:s}", "name", run->name, "base_dir", run->folder,
                             "idempotency", run->idempotency, "state", (int)run->state, "created_unix_ms",
                             (json_int_t)run->created_ms, "finished_unix_ms", (json_int_t)run->finished_ms, "message",
                             run->message);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    enum mode_status st = text ? mode_dir_make(dir, err) : MODE_FAIL(err, MODE_E_VALUE, "%s: not UTF-8", run->name);
    if (!st && with_spec) st = mode_file_write_atomic(spec, run->text, strlen(run->text), err);
    if (!st && with_spec) st = save_inputs(r, run, err);
    if (!st) st = mode_file_write_atomic(file, text, strlen(text), err);
    json_decref(json);
    free(text);
    free(dir);
    free(spec);
    free(file);
    return st;
}

/* s as JSON; false when it is not UTF-8. */
static bool add_string(struct mode_str *out, const char *s)
{
    json_t *j = json_string(s);
    if (!j) return false;
    char *text = json_dumps(j, JSON_ENCODE_ANY);
    mode_str_add_cstr(out, text);
    free(text);
    json_decref(j);
    return true;
}

/* runs/<name>/plan.json: the known task keys, for readers of the store without a coordinator. */
static void save_plan(const struct runs *r, struct run *run)
{
    struct mode_error problem = {0}, *err = &problem;
    const struct plan *p = run->plan;
    const double began = mode_clock_s();
    struct mode_str text = {0};
    bool good = true;
    /* a running coordinator may add tasks at any time: garbage collection must not rely on it */
    bool settled = run->state != MODE__RUN_STATE__RUN_RUNNING || (r->stopping && !plan_more(p));
    mode_str_printf(&text, "{\n \"settled\": %s,\n \"experts\": %u,\n \"shards\": [", settled ? "true" : "false",
                    plan_experts(p));
    for (size_t i = 0; i < p->shards.n; i++) {
        mode_str_add_cstr(&text, i ? ",\n  " : "\n  ");
        good &= add_string(&text, p->shards.shard[i].path);
    }
    mode_str_add_cstr(&text, "\n ],\n \"shard_end\": ["); /* of data.train, then of each addition */
    for (uint32_t j = 0; j <= p->n_added; j++) mode_str_printf(&text, "%s%u", j ? ", " : "", p->shard_end[j]);
    mode_str_add_cstr(&text, "],\n \"nodes\": [");
    for (uint32_t n = 0; n < p->n_nodes; n++) {
        const struct plan_node *x = &p->node[n];
        mode_str_printf(&text, "%s{\"stage\": \"%s\", \"label\": ", n ? ",\n  " : "\n  ", plan_stage_name(x->stage));
        good &= add_string(&text, x->label);
        mode_str_printf(&text, ", \"key\": \"%s\", \"done\": %s}", x->key, x->state == PLAN_DONE ? "true" : "false");
    }
    mode_str_add_cstr(&text, "\n ]\n}\n");
    char *dir = run_folder(r, run->name), *file = mode_path_join(dir, "plan.json");
    enum mode_status st = good ? mode_file_write_atomic(file, text.data, text.len, err)
                               : MODE_FAIL(err, MODE_E_VALUE, "%s: a shard's path is not UTF-8", run->name);
    mode_str_clear(&text);
    free(file);
    free(dir);
    run->plan_news = false;
    run->plan_saved_s = mode_clock_s();
    run->plan_cost_s = run->plan_saved_s - began;
    if (st) mode_log_failure("plan_not_saved", err);
}

static void close_run(struct runs *r, struct run *run, Mode__RunState state, const char *message)
{
    struct mode_error err = {0};
    run->state = state;
    run->finished_ms = mode_clock_wall_ms();
    set_message(run, message);
    mode_log_info("run_ended", "run=%s state=%s seconds=%.1f %s", run->name, mode_run_state_name(state),
                  mode_clock_s() - run->started_s, message);
    if (run->plan) save_plan(r, run);
    if (run_save(r, run, false, &err)) mode_log_failure("run_not_saved", &err);
}

/* The run no longer needs any task. */
static void let_go(struct runs *r, struct run *run, int64_t now_ms)
{
    for (uint32_t n = 0; run->plan && !run->let_go && n < run->plan->n_nodes; n++)
        if (run->core_task[n] != CORE_NONE) core_task_unwant(r->core, run->core_task[n], now_ms);
    run->let_go = true;
}

struct run *runs_find(const struct runs *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->run[i]->name, name) == 0) return r->run[i];
    return NULL;
}

static void take_plan(struct run *run, struct planner_job *job)
{
    run->plan = job->plan;
    job->plan = NULL;
    run->core_task = mode_xmalloc(run->plan->n_nodes * sizeof *run->core_task);
    for (uint32_t n = 0; n < run->plan->n_nodes; n++) run->core_task[n] = CORE_NONE;
    run->started_s = mode_clock_s();
}

static void add_run(struct runs *r, struct run *run)
{
    r->run = mode_xrealloc(r->run, (r->n + 1) * sizeof(struct run *));
    r->run[r->n++] = run;
}

static void remove_run(struct runs *r, struct run *run)
{
    size_t i = 0;
    while (r->run[i] != run) i++;
    memmove(&r->run[i], &r->run[i + 1], (r->n - i - 1) * sizeof *r->run);
    r->n--;
    run_free(r, run);
}

/* ---------------------------------------------------------------------------------------------- submissions */

static void submission_free(struct runs *r, struct run_submission *s)
{
    planner_forget(r->planner, &s->job);
    mode_spec_list_clear(&s->warnings);
    free(s->text);
    free(s->folder);
    free(s->idempotency);
    free(s->run);
    free(s);
}

static void end_submission(struct runs *r, struct run_submission *s)
{
    planner_forget(r->planner, &s->job);
    s->ended = true;
    s->ended_s = mode_clock_s();
}

/* Answers a submission if a run of that name exists: the same one, or a conflict. */
static bool is_there(struct runs *r, struct run_submission *s, const char *name)
{
    struct run *old = s->dry ? NULL : runs_find(r, name);
    if (!old) return false;
    bool same = strcmp(old->text, s->text) == 0 && strcmp(old->folder, s->folder) == 0;
    bool open = old->state == MODE__RUN_STATE__RUN_RUNNING;
    if (open && !same) {
        s->st = MODE_FAIL(&s->err, MODE_E_TEMP,
                          "the run %s is unfinished and has another spec; wait for it or `mode cancel %s`", name, name);
        return true;
    }
    if (!same || (!open && strcmp(old->idempotency, s->idempotency) != 0)) return false;
    if (old->plan) mode_spec_list_copy(&s->warnings, &old->plan->skipped);
    s->run = mode_xstrdup(name);
    return true;
}

static enum mode_status add_new_run(struct runs *r, struct run_submission *s)
{
    struct run *old = runs_find(r, s->job->plan->spec.name), *run = mode_xcalloc(1, sizeof *run);
    run->name = mode_xstrdup(s->job->plan->spec.name);
    run->folder = mode_xstrdup(s->folder);
    run->text = mode_xstrdup(s->text);
    run->idempotency = mode_xstrdup(s->idempotency);
    run->state = MODE__RUN_STATE__RUN_RUNNING;
    run->created_ms = mode_clock_wall_ms();
    run->message = mode_xstrdup("");
    run->retry = true;
    take_plan(run, s->job);
    enum mode_status st = run_save(r, run, true, &s->err);
    if (st) {
        run_free(r, run);
        return st;
    }
    save_plan(r, run);
    if (old) remove_run(r, old); /* it has ended: its tasks are no longer needed */
    add_run(r, run);
    s->run = mode_xstrdup(run->name);
    s->created = true;
    return MODE_OK;
}

static void take_submission(struct runs *r, struct run_submission *s)
{
    const struct planner_job *job = s->job;
    s->err = job->err;
    if ((s->st = job->st) == MODE_OK && !is_there(r, s, job->plan->spec.name)) { /* it may have been submitted
                                                                                    meanwhile */
        s->tasks = job->plan->n_nodes;
        mode_spec_list_copy(&s->warnings, &job->plan->skipped);
        if (!s->dry) s->st = add_new_run(r, s);
    }
    end_submission(r, s);
}

struct run_submission *runs_submission(const struct runs *r, const char *idempotency)
{
    for (size_t i = 0; i < r->n_submissions; i++)
        if (strcmp(r->submission[i]->idempotency, idempotency) == 0) return r->submission[i];
    return NULL;
}

static void drop_submission(struct runs *r, size_t i)
{
    submission_free(r, r->submission[i]);
    memmove(&r->submission[i], &r->submission[i + 1], (--r->n_submissions - i) * sizeof *r->submission);
}

struct run_submission *runs_submit(struct runs *r, const char *text, const char *folder, const char *idempotency,
                                   bool dry)
{
    struct run_submission *s = runs_submission(r, idempotency);
    struct mode_spec spec;
    if (s && s->dry == dry && strcmp(s->text, text) == 0 && strcmp(s->folder, folder) == 0) return s;
    for (size_t i = 0; s && i < r->n_submissions; i++)
        if (r->submission[i] == s) drop_submission(r, i);
    s = mode_xcalloc(1, sizeof *s);
    s->text = mode_xstrdup(text);
    s->folder = mode_xstrdup(folder);
    s->idempotency = mode_xstrdup(idempotency);
    s->dry = dry;
    r->submission = mode_xrealloc(r->submission, (r->n_submissions + 1) * sizeof *r->submission);
    r->submission[r->n_submissions++] = s;
    if ((s->st = mode_spec_parse(&spec, text, folder, "spec", &s->err))) {
        end_submission(r, s);
        return s;
    }
    if (is_there(r, s, spec.name))
        end_submission(r, s);
    else
        s->job = planner_ask(r->planner, text, folder, NULL);
    mode_spec_clear(&spec);
    return s;
}

/* ---------------------------------------------------------------------------------------------- plans that are made */

static void ask_plan(struct runs *r, struct run *run)
{
    char *dir = run_folder(r, run->name), *inputs = mode_path_join(dir, "inputs.json");
    run->retry_at_s = 0;
    run->job = planner_ask(r->planner, run->text, run->folder, inputs);
    free(inputs);
    free(dir);
}

/* Transient planning failures of an earlier run: after a reboot its data may be mounted or reachable a little later. */
static bool may_pass(enum mode_status st)
{
    return st == MODE_E_PEER || st == MODE_E_NOINPUT || st == MODE_E_IO || st == MODE_E_PERM || st == MODE_E_TEMP;
}

static void take_planned(struct runs *r, struct run *run)
{
    struct planner_job *job = run->job;
    struct mode_error err = {0};
    if (job->st == MODE_OK) {
        take_plan(run, job);
        if (!run->plan->kept_inputs && save_inputs(r, run, &err)) mode_log_failure("inputs_not_kept", &err);
        set_message(run, "");
        mode_log_info("run_resumed", "run=%s tasks=%u", run->name, run->plan->n_nodes);
    } else if (may_pass(job->st)) {
        if (strcmp(run->message, job->err.text) != 0)
            core_note(r->core, CORE_NONE, "run %s waits and tries again every %.0f s: %s", run->name, INPUT_RETRY_S,
                      job->err.text);
        set_message(run, job->err.text);
        run->retry_at_s = mode_clock_s() + INPUT_RETRY_S;
    } else {
        run->failed = job->st;
        close_run(r, run, MODE__RUN_STATE__RUN_FAILED, job->err.text);
    }
    planner_forget(r->planner, &run->job);
}

bool runs_unplanned(const struct runs *r)
{
    bool some = false;
    for (size_t i = 0; i < r->n; i++) some |= r->run[i]->state == MODE__RUN_STATE__RUN_RUNNING && !r->run[i]->plan;
    return some;
}

bool runs_planning(const struct runs *r)
{
    bool some = false;
    for (size_t i = 0; i < r->n; i++) some |= r->run[i]->job && !r->run[i]->plan;
    return some;
}

/* ---------------------------------------------------------------------------------------------- a start */

static enum mode_status load_one(struct runs *r, const char *name, struct mode_error *err)
{
    char *dir = run_folder(r, name), *spec = mode_path_join(dir, "spec.yaml"), *file = mode_path_join(dir, "run.json");
    char *text = NULL, *data = NULL;
    size_t size;
    json_t *json = NULL;
    json_error_t why;
    struct run *run = mode_xcalloc(1, sizeof *run);
    enum mode_status st = mode_file_read(file, 1u << 20, &data, &size, err);
    if (!st) st = mode_file_read(spec, 1u << 20, &text, &size, err);
    if (st) goto out;
    const char *base, *idempotency, *message;
    int state;
    json_int_t created, finished;
    if (!(json = json_loads(data, JSON_REJECT_DUPLICATES, &why)) ||
        json_unpack(json, "{s:s, s:s, s:i, s:I, s:I, s:s}", "base_dir", &base, "idempotency", &idempotency, "state",
                    &state, "created_unix_ms", &created, "finished_unix_ms", &finished, "message", &message) != 0) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s is damaged", file);
        goto out;
    }
    run->name = mode_xstrdup(name);
    run->folder = mode_xstrdup(base);
    run->text = text;
    text = NULL;
    run->idempotency = mode_xstrdup(idempotency);
    run->state = (Mode__RunState)state;
    run->created_ms = created;
    run->finished_ms = finished;
    run->message = mode_xstrdup(message);
    add_run(r, run);
    run->restore = run->registered = true;
    if (run->state == MODE__RUN_STATE__RUN_RUNNING) ask_plan(r, run);
    run = NULL;
out:
    run_free(r, run);
    json_decref(json);
    free(text);
    free(data);
    free(dir);
    free(spec);
    free(file);
    return st;
}

static int by_created(const void *a, const void *b)
{
    const struct run *x = *(struct run *const *)a, *y = *(struct run *const *)b;
    return x->created_ms < y->created_ms ? -1 : x->created_ms > y->created_ms;
}

enum mode_status runs_load(struct runs *r, struct mode_store *store, struct core *core, const struct plan_world *world,
                           struct mode_error *err)
{
    *r = (struct runs){.store = store, .core = core};
    char *dir = mode_xasprintf("%s/runs", mode_store_root(store));
    enum mode_status st = planner_open(&r->planner, store, world, err);
    if (!st) st = planner_open(&r->writer, store, world, err);
    if (!st) st = planner_open(&r->checker, store, world, err);
    if (!st) st = mode_dir_make(dir, err);
    DIR *d = st ? NULL : mode_fresh_opendir(dir);
    struct dirent *e;
    if (!st && !d) st = MODE_FAIL(err, MODE_E_IO, "%s: %s", dir, strerror(errno));
    while (d && (e = readdir(d))) {
        struct mode_error problem = {0};
        char *file = mode_xasprintf("%s/%s/run.json", dir, e->d_name);
        if (e->d_name[0] != '.' && mode_file_exists(file) && load_one(r, e->d_name, &problem))
            mode_log_failure("run_not_loaded", &problem);
        free(file);
    }
    if (d) closedir(d);
    if (r->n) qsort(r->run, r->n, sizeof *r->run, by_created);
    free(dir);
    return st;
}

void runs_save_plans(struct runs *r, bool stopping)
{
    r->stopping = stopping;
    for (size_t i = 0; i < r->n; i++)
        if (r->run[i]->plan && r->run[i]->state == MODE__RUN_STATE__RUN_RUNNING) save_plan(r, r->run[i]);
}

static void check_free(struct runs *r, struct run_check *c)
{
    planner_forget(r->checker, &c->job);
    free(c->task);
}

bool runs_clear(struct runs *r)
{
    for (size_t i = 0; i < r->n; i++) run_free(r, r->run[i]);
    while (r->n_submissions) drop_submission(r, r->n_submissions - 1);
    while (r->n_checks) check_free(r, &r->check[--r->n_checks]);
    bool all = planner_close(&r->planner);
    all &= planner_close(&r->writer);
    all &= planner_close(&r->checker);
    free(r->check);
    free(r->submission);
    free(r->run);
    *r = (struct runs){0};
    return all;
}

/* The failure of the first quarantined task: why the run cannot finish. */
static char *first_loss(const struct runs *r, const struct run *run)
{
    uint32_t n_lost = 0;
    bool is_shard = false;
    const struct core_task *first = NULL;
    for (uint32_t n = 0; n < run->plan->n_nodes; n++) {
        if (run->core_task[n] == CORE_NONE) continue;
        const struct core_task *t = &r->core->task[run->core_task[n]];
        if (t->state != CORE_QUARANTINED) continue;
        n_lost++;
        if (first) continue;
        first = t;
        is_shard = run->plan->node[n].stage == PLAN_CAPTIONS && t->last_status == MODE_E_FORMAT;
    }
    if (!first) return mode_xstrdup("a task it needs was cancelled");
    const char *why = first->last_text ? first->last_text : core_fail_name(first->last_fail);
    char *hinted = is_shard ? mode_captions_bad_hint(why, "data.bad_shards: skip") : NULL,
         *text = mode_xasprintf("%u task%s cannot be done; %s: %s", n_lost, MODE_PLURAL(n_lost), first->label,
                                hinted ? hinted : why);
    free(hinted);
    return text;
}

static void end_failed(struct runs *r, struct run *run, const char *why, int64_t now_ms)
{
    close_run(r, run, MODE__RUN_STATE__RUN_FAILED, why);
    let_go(r, run, now_ms);
}

/* Tasks were given up. If all models are trained, the experts are still materialised, since evaluation can be redone
 * from them. The report stays that of the previous run. */
static void fail_run(struct runs *r, struct run *run, int64_t now_ms)
{
    char *why = first_loss(r, run);
    if (plan_trained(run->plan)) {
        run->job = planner_ask_results(r->writer, run->plan, NULL, why);
        return;
    }
    end_failed(r, run, why, now_ms);
    free(why);
}

static void problem(struct runs *r, struct run *run, enum mode_status st, const struct mode_error *err, int64_t now_ms)
{
    if (st == MODE_E_IO || st == MODE_E_TEMP || st == MODE_E_PEER) { /* the store: try again */
        mode_log_failure("store_failed", err);
        set_message(run, err->text);
        run->retry_at_s = mode_clock_s() + STORE_RETRY_S;
        return;
    }
    run->failed = st;
    end_failed(r, run, err->text, now_ms);
}

/* An output of a done node is damaged: its task is redone, to the same bytes. Its commit record is put aside first:
 * blobs without a record may be missing. */
static bool redo(struct runs *r, struct run *run, uint32_t n, const char *digest, int64_t now_ms)
{
    const struct plan_node *x = &run->plan->node[n];
    struct mode_error err = {0};
    char *aside = NULL;
    if (x->n_redone >= MOST_REDONE) return false;
    if (!mode_store_commit_aside(r->store, &aside, x->key, &err)) mode_store_blob_discard(r->store, digest, &err);
    if (err.text[0]) {
        mode_log_failure("not_redone", &err);
        free(aside);
        return false;
    }
    core_note(r->core, CORE_NONE, "blob %.16s of %s is damaged or missing: it is recomputed%s%s", digest, x->label,
              aside ? "; its commit record was moved to " : "", aside ? aside : "");
    free(aside);
    for (uint32_t i = plan_find(run->plan, x->key); i != PLAN_NONE; i = run->plan->node[i].same) {
        if (run->core_task[i] != CORE_NONE) core_task_unwant(r->core, run->core_task[i], now_ms);
        run->core_task[i] = CORE_NONE;
    }
    plan_undo(run->plan, n);
    return true;
}

/* Handles the outcome of writing a run's results. */
static void take_results(struct runs *r, struct run *run, int64_t now_ms)
{
    const struct planner_job *job = run->job;
    const char *why = job->results.why;
    if (why && job->st) {
        mode_log_failure("experts_not_made", &job->err);
        end_failed(r, run, why, now_ms);
    } else if (why) {
        char *more = mode_xasprintf("%s. All models are trained; they are in experts/", why);
        end_failed(r, run, more, now_ms);
        free(more);
    } else if (job->st) {
        const Mode__Blob *bad = run->plan->bad; /* remake it, then write the results again */
        if (!job->bad || !redo(r, run, run->plan->bad_node, bad->digest, now_ms))
            problem(r, run, job->st, &job->err, now_ms);
    } else {
        close_run(r, run, MODE__RUN_STATE__RUN_DONE, "");
        let_go(r, run, now_ms);
        plan_forget_nodes(run->plan);
        free(run->core_task);
        run->core_task = NULL;
        malloc_trim(0); /* hundreds of MB after a large run; the next one may be days away */
    }
    planner_forget(r->writer, &run->job);
}

/* Given up because of its input's content; after a restart the status is unknown. */
static bool is_bad(const struct core_task *t)
{
    return t->last_fail == CORE_FAIL_INPUT && (t->last_status == MODE_E_FORMAT || !t->last_status);
}

/* Tells the plan how the core's task of this node ended, if it has. */
static enum mode_status tell_plan(struct runs *r, struct run *run, uint32_t n, struct mode_error *err)
{
    enum core_state state = r->core->task[run->core_task[n]].state;
    if (state == CORE_COMMITTED) return plan_done(run->plan, n, err);
    if (state == CORE_QUARANTINED && is_bad(&r->core->task[run->core_task[n]]) && plan_leave_out(run->plan, n)) {
        core_task_pardon(r->core, run->core_task[n]);
        run->core_task[n] = CORE_NONE;
    } else if (state == CORE_QUARANTINED || state == CORE_CANCELLED) {
        plan_lost(run->plan, n);
    }
    return MODE_OK;
}

/* After a store failure: passes on tasks that ended meanwhile. */
static enum mode_status catch_up(struct runs *r, struct run *run, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (uint32_t n = 0; n < run->plan->n_nodes && !st; n++)
        if (run->core_task[n] != CORE_NONE && run->plan->node[n].state == PLAN_LIVE) st = tell_plan(r, run, n, err);
    if (!st) {
        run->retry_at_s = 0;
        set_message(run, "");
    }
    return st;
}

/* The node that made the input with this blob of a live task; PLAN_NONE: none. */
static uint32_t maker_of(uint32_t *node, uint64_t *size, const struct runs *r, const struct run *run, uint32_t task,
                         const char *digest)
{
    if (!run->plan || run->state != MODE__RUN_STATE__RUN_RUNNING) return PLAN_NONE;
    const uint32_t n = *node = plan_find(run->plan, r->core->task[task].key);
    if (n == PLAN_NONE || run->core_task[n] != task || run->plan->node[n].state != PLAN_LIVE) return PLAN_NONE;
    const struct plan_node *x = &run->plan->node[n];
    for (uint32_t i = 0; i < x->n_needs; i++) {
        const Mode__Commit *c = run->plan->node[x->needs[i]].commit;
        for (size_t o = 0; c && o < c->n_outputs; o++) {
            if (strcmp(c->outputs[o]->digest, digest) != 0) continue;
            *size = c->outputs[o]->size;
            return x->needs[i];
        }
    }
    return PLAN_NONE;
}

/* Makes the task wait for its input, which is being remade. */
static void wait_for_input(struct runs *r, struct run *run, uint32_t n, uint32_t task, int64_t now_ms)
{
    run->core_task[n] = CORE_NONE;
    plan_wait(run->plan, n);
    run->plan_news = true;
    core_task_unwant(r->core, task, now_ms);
}

static void look_at_blob(struct runs *r, uint32_t task, const char *digest, uint64_t size)
{
    size_t i = 0;
    while (i < r->n_checks && strcmp(r->check[i].digest, digest) != 0) i++;
    if (i == r->n_checks) {
        r->check = mode_xrealloc(r->check, ++r->n_checks * sizeof *r->check);
        r->check[i] = (struct run_check){.job = planner_ask_blob(r->checker, digest, size)};
        snprintf(r->check[i].digest, sizeof r->check[i].digest, "%s", digest);
        mode_log_info("blob_check", "digest=%.16s bytes=%llu a worker reports it damaged", digest,
                      (unsigned long long)size);
    }
    struct run_check *c = &r->check[i];
    c->task = mode_xrealloc(c->task, (c->n + 1) * sizeof *c->task);
    c->task[c->n++] = task;
    core_task_withhold(r->core, task);
}

void runs_input_bad(struct runs *r, uint32_t task, const char *digest, int64_t now_ms)
{
    bool is_asked = false;
    for (size_t k = 0; k < r->n; k++) {
        struct run *run = r->run[k];
        uint64_t size;
        uint32_t n, from = maker_of(&n, &size, r, run, task, digest);
        if (from == PLAN_NONE) continue;
        if (run->plan->node[from].state != PLAN_DONE) {
            wait_for_input(r, run, n, task, now_ms);
        } else if (!is_asked && run->plan->node[from].n_redone < MOST_REDONE) {
            look_at_blob(r, task, digest, size);
            is_asked = true;
        }
    }
}

static void blob_is_known(struct runs *r, const struct run_check *c, uint32_t task, int64_t now_ms)
{
    core_task_release(r->core, task);
    for (size_t k = 0; k < r->n; k++) {
        struct run *run = r->run[k];
        uint64_t size;
        uint32_t n, from = maker_of(&n, &size, r, run, task, c->digest);
        if (from == PLAN_NONE) continue;
        if (run->plan->node[from].state != PLAN_DONE || (c->job->bad && redo(r, run, from, c->digest, now_ms)))
            wait_for_input(r, run, n, task, now_ms);
    }
}

static void take_checks(struct runs *r, int64_t now_ms)
{
    for (size_t i = r->n_checks; i-- > 0;) {
        struct run_check c = r->check[i];
        if (!planner_made(r->checker, c.job)) continue;
        r->check[i] = r->check[--r->n_checks];
        if (c.job->st) mode_log_failure("blob_not_checked", &c.job->err);
        for (size_t t = 0; t < c.n; t++) blob_is_known(r, &c, c.task[t], now_ms);
        check_free(r, &c);
    }
}

void runs_planned(struct runs *r, int64_t now_ms)
{
    const double now = mode_clock_s();
    take_checks(r, now_ms);
    for (size_t i = r->n_submissions; i-- > 0;) {
        struct run_submission *s = r->submission[i];
        if (s->ended && now - s->ended_s > SUBMISSION_S) drop_submission(r, i);
    }
    for (size_t i = 0; i < r->n_submissions; i++)
        if (r->submission[i]->job && planner_made(r->planner, r->submission[i]->job))
            take_submission(r, r->submission[i]);
    for (size_t i = 0; i < r->n; i++) {
        struct run *run = r->run[i];
        if (run->job && run->plan && planner_made(r->writer, run->job)) take_results(r, run, now_ms);
        if (run->job && !run->plan && planner_made(r->planner, run->job)) take_planned(r, run);
        if (run->state == MODE__RUN_STATE__RUN_RUNNING && !run->plan && !run->job && now >= run->retry_at_s)
            ask_plan(r, run);
    }
}

static bool save_is_due(const struct run *run)
{
    double pause = PLAN_SAVE_PART * run->plan_cost_s;
    return run->plan_news && mode_clock_s() - run->plan_saved_s > (pause > PLAN_SAVE_S ? pause : PLAN_SAVE_S);
}

static void advance(struct runs *r, size_t i, run_wanted_fn *wanted, void *ctx, int64_t now_ms, double until_s)
{
    struct run *run = r->run[i];
    struct mode_error err = {0};
    uint32_t n;
    enum mode_status st = run->retry_at_s > 0 ? catch_up(r, run, &err) : MODE_OK;
    while (!st && plan_more(run->plan) && mode_clock_s() < until_s) {
        st = plan_next(run->plan, &n, &err);
        if (run->plan->warning) {
            core_note(r->core, CORE_NONE, "run %s: %s", run->name, run->plan->warning);
            free(run->plan->warning);
            run->plan->warning = NULL;
        }
        if (st || n == PLAN_NONE) continue;
        const struct plan_node *x = &run->plan->node[n];
        uint64_t order = (uint64_t)(i & 0xffff) << 40 | (uint64_t)n;
        const bool dispatch = r->core->dispatch;
        r->core->dispatch = dispatch && !run->restore; /* its restored state comes first */
        uint32_t t = core_task_want(r->core, x->key, plan_stage_service(x->stage), x->label, run->name, order,
                                    plan_stage_stall_ms(x->stage), run->retry, now_ms);
        run->core_task[n] = t;
        run->plan_news = true;
        if (wanted && run->restore) wanted(ctx, t);
        r->core->dispatch = dispatch;
        st = tell_plan(r, run, n, &err);
    }
    if (!plan_more(run->plan)) run->restore = false;
    if (!st && plan_finished(run->plan)) {
        run->plan->bad = NULL;
        run->job = planner_ask_results(r->writer, run->plan, r->peaks, NULL);
    } else if (!st && plan_stuck(run->plan)) {
        fail_run(r, run, now_ms);
    }
    if (st) problem(r, run, st, &err, now_ms);
    if (save_is_due(run)) save_plan(r, run);
}

bool runs_advance(struct runs *r, run_wanted_fn *wanted, void *ctx, int64_t now_ms, double until_s)
{
    bool more = false;
    for (size_t i = 0; i < r->n; i++) {
        struct run *run = r->run[i];
        if (!run->plan || run->job || run->state != MODE__RUN_STATE__RUN_RUNNING || mode_clock_s() < run->retry_at_s)
            continue;
        advance(r, i, wanted, ctx, now_ms, until_s);
        more |= run->state == MODE__RUN_STATE__RUN_RUNNING && run->retry_at_s <= 0 && plan_more(run->plan);
    }
    return more;
}

void runs_ended(struct runs *r, uint32_t task, int64_t now_ms)
{
    const struct core_task *t = &r->core->task[task];
    for (size_t i = 0; i < r->n; i++) {
        struct run *run = r->run[i];
        if (!run->plan || run->job || run->state != MODE__RUN_STATE__RUN_RUNNING)
            continue; /* with a job it has ended */
        uint32_t n = plan_find(run->plan, t->key);
        if (n == PLAN_NONE) continue;
        struct mode_error err = {0};
        enum mode_status st = run->core_task[n] == task ? tell_plan(r, run, n, &err) : MODE_OK;
        if (st) problem(r, run, st, &err, now_ms);
    }
}

bool run_cancel(struct runs *r, struct run *run, int64_t now_ms)
{
    if (run->state != MODE__RUN_STATE__RUN_RUNNING || (run->plan && run->job)) return false;
    planner_forget(r->planner, &run->job);
    close_run(r, run, MODE__RUN_STATE__RUN_CANCELLED, "cancelled");
    let_go(r, run, now_ms);
    return true;
}
