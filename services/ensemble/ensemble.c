#include "ensemble.h"

#include "base/str.h"
#include "pipeline/ensemble_run.h"
#include "proto/ensemble.pb-c.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_EXPERTS = 4096 };

/* The input "<kind>/<a>" or "<kind>/<a>/<b>", or NULL. */
static const char *find(const struct mode_job *job, const char *kind, const char *a, const char *b)
{
    char *name = b ? mode_xasprintf("%s/%s/%s", kind, a, b) : mode_xasprintf("%s/%s", kind, a);
    const char *path = mode_job_input(job, name);
    free(name);
    return path;
}

static enum mode_status need(const struct mode_job *job, const char **path, const char *kind, const char *a,
                             const char *b, struct mode_error *err)
{
    *path = find(job, kind, a, b);
    if (*path) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE, "ensemble: input %s/%s%s%s is missing", kind, a, b ? "/" : "", b ? b : "");
}

static void on_task(void *ctx, int done, int total)
{
    mode_job_progress(ctx, (uint64_t)done, (uint64_t)total, "tasks");
}

/* Everything the run refers to; freed together. */
struct plan {
    char **model;
    const char **steps, **train, **logits;
    struct mode_ensemble_run_task *task;
    struct mode_corpus_shard *shard;
    struct mode_ensemble_selected *selected;
    int n_models;
};

static void read_models(struct plan *p, const Mode__EnsembleRequest *r, const struct mode_job *job)
{
    static const char *const others[] = {"dense", "seed"};
    const size_t most = r->experts + 3 + r->n_selected;
    p->model = mode_xcalloc(most, sizeof *p->model);
    p->steps = mode_xcalloc(most, sizeof *p->steps);
    p->train = mode_xcalloc(most, sizeof *p->train);
    for (uint32_t k = 0; k < r->experts; k++) p->model[p->n_models++] = mode_xasprintf("expert-%u", k);
    for (int i = 0; i < 2; i++)
        if (r->n_tasks ? find(job, "logits", others[i], r->tasks[0]->name) : find(job, "train", others[i], NULL))
            p->model[p->n_models++] = mode_xstrdup(others[i]);
    for (size_t j = 0; j < r->n_selected; j++) p->model[p->n_models++] = mode_xstrdup(r->selected[j]->name);
    for (int m = 0; m < p->n_models; m++) {
        p->steps[m] = find(job, "steps", p->model[m], NULL);
        p->train[m] = find(job, "train", p->model[m], NULL);
    }
}

static enum mode_status read_tasks(struct plan *p, const Mode__EnsembleRequest *r, const struct mode_job *job,
                                   struct mode_error *err)
{
    enum mode_status st;
    p->task = mode_xcalloc(r->n_tasks + 1, sizeof *p->task);
    p->logits = mode_xcalloc(r->n_tasks * (size_t)p->n_models + 1, sizeof *p->logits);
    for (size_t t = 0; t < r->n_tasks; t++) {
        const Mode__EnsembleTask *x = r->tasks[t];
        const char **logits = p->logits + t * (size_t)p->n_models;
        enum mode_task_kind kind = mode_task_kind_parse(x->kind);
        if (kind == MODE_TASK_OTHER)
            return MODE_FAIL(err, MODE_E_VALUE, "ensemble: task %s is of kind \"%s\", expected " MODE_TASK_KINDS,
                             x->name, x->kind);
        p->task[t] = (struct mode_ensemble_run_task){.name = x->name, .dir = x->dir, .logits = logits, .kind = kind};
        if ((st = need(job, &p->task[t].words, "words", x->name, NULL, err))) return st;
        for (int m = 0; m < p->n_models; m++)
            if ((st = need(job, &logits[m], "logits", p->model[m], x->name, err))) return st;
    }
    return MODE_OK;
}

static enum mode_status read_selected(struct plan *p, const Mode__EnsembleRequest *r, const struct mode_job *job,
                                      struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    p->selected = mode_xcalloc(r->n_selected + 1, sizeof *p->selected);
    for (size_t j = 0; j < r->n_selected && !st; j++) {
        p->selected[j] = (struct mode_ensemble_selected){.name = r->selected[j]->name,
                                                         .task = (const char *const *)r->selected[j]->tasks,
                                                         .n_tasks = (int)r->selected[j]->n_tasks};
        st = need(job, &p->selected[j].selection, "selection", r->selected[j]->name, NULL, err);
    }
    return st;
}

/* Inputs captions/<shard> and assign/<shard> come in the order of the request's shard_paths. */
static enum mode_status read_shards(struct plan *p, const Mode__EnsembleRequest *r, const struct mode_job *job,
                                    struct mode_error *err)
{
    const char *name, *path;
    size_t n = 0;
    p->shard = mode_xcalloc(r->n_shard_paths + 1, sizeof *p->shard);
    for (size_t i = 0; mode_job_input_at(job, i, &name, &path); i++) {
        if (strncmp(name, "captions/", 9) != 0) continue;
        if (n == r->n_shard_paths)
            return MODE_FAIL(err, MODE_E_VALUE, "ensemble: more captions than the %zu shards of the request", n);
        p->shard[n].captions = path;
        p->shard[n].tar = r->shard_paths[n];
        enum mode_status st = need(job, &p->shard[n++].assign, "assign", name + 9, NULL, err);
        if (st) return st;
    }
    if (n != r->n_shard_paths)
        return MODE_FAIL(err, MODE_E_VALUE, "ensemble: captions of %zu shards, the request names %zu", n,
                         r->n_shard_paths);
    return MODE_OK;
}

enum mode_status ensemble_work(struct mode_job *job, struct mode_error *err)
{
    struct plan p = {0};
    char *sentence = NULL;
    enum mode_status st;
    Mode__EnsembleRequest *r = mode_job_unpack(job, &mode__ensemble_request__descriptor, err);
    if (!r) return err->status;
    if (r->experts < 1 || r->experts > MAX_EXPERTS) {
        st = MODE_FAIL(err, MODE_E_VALUE, "ensemble: %u experts, expected 1 to %d", r->experts, MAX_EXPERTS);
        goto out;
    }
    if (r->top_experts > MAX_EXPERTS) {
        st = MODE_FAIL(err, MODE_E_VALUE, "ensemble: top_experts is %u, expected 0 to %d", r->top_experts, MAX_EXPERTS);
        goto out;
    }
    struct mode_ensemble_run run = {.run_name = r->run_name,
                                    .router = r->router,
                                    .router_params = r->router_params,
                                    .top_experts = (int)r->top_experts,
                                    .spec = r->spec_yaml,
                                    .seed = r->seed,
                                    .centres = mode_job_input(job, "centres"),
                                    .n_tasks = (int)r->n_tasks,
                                    .n_shards = (int)r->n_shard_paths,
                                    .skipped = (const char *const *)r->skipped,
                                    .n_skipped = (int)r->n_skipped,
                                    .progress = on_task,
                                    .ctx = job};
    if (!run.centres) {
        st = MODE_FAIL(err, MODE_E_VALUE, "ensemble: input centres is missing");
        goto out;
    }
    mode_job_progress(job, 0, r->n_tasks, "tasks");
    read_models(&p, r, job);
    if ((st = read_tasks(&p, r, job, err)) || (st = read_shards(&p, r, job, err)) ||
        (st = read_selected(&p, r, job, err)))
        goto out;
    run.n_models = p.n_models;
    run.selected = p.selected;
    run.n_selected = (int)r->n_selected;
    run.model = (const char *const *)p.model;
    run.steps = p.steps;
    run.train = p.train;
    run.task = p.task;
    run.shard = p.shard;
    struct mode_ensemble_outputs out = {mode_job_output(job, "result.csv"), mode_job_output(job, "summary.json"),
                                        mode_job_output(job, "report.html"), mode_job_output(job, "weights.json")};
    if ((st = mode_ensemble_run(&run, &out, &sentence, err))) goto out;
    mode_job_count_rows(job, r->n_tasks, r->n_tasks);
    struct mode_str note = {0}; /* the text contains neither quotes nor backslashes */
    if (sentence) {
        mode_str_printf(&note, "{\"verdict\": \"%s\"}", sentence);
        mode_job_note(job, note.data);
    }
    mode_str_clear(&note);
out:
    for (int m = 0; p.model && m < p.n_models; m++) free(p.model[m]);
    free(p.model);
    free(p.steps);
    free(p.train);
    free(p.logits);
    free(p.task);
    free(p.shard);
    free(p.selected);
    free(sentence);
    mode__ensemble_request__free_unpacked(r, NULL);
    return st;
}
