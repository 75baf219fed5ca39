/* plan_runs.h - whole runs of the planner without a worker: a task is "done" by committing fake outputs that depend
 * only on its key. For tests of the planner. */
#ifndef MODE_TESTS_PLAN_RUNS_H
#define MODE_TESTS_PLAN_RUNS_H

#include "base/str.h"
#include "plan.h"
#include "plan_world.h"
#include "proto/train.pb-c.h"
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char folder[] = "/tmp/mode-plan-XXXXXX";
static struct mode_store *store;

static inline void put_file(const char *name, const char *text)
{
    assert_int_equal(put_file_in(folder, name, text), MODE_OK);
}

static inline int set_up(void **state)
{
    (void)state;
    struct mode_error err = {0};
    if (!mkdtemp(folder)) return 1;
    put_file("shards/0.tar", "0");
    put_file("shards/1.tar", "1");
    put_file("new/a.tar", "a");
    put_file("new/b.tar", "b");
    put_file("newer/c.tar", "c");
    put_file("tasks/t0/test/nshards.txt", "1");
    put_file("tasks/t1/test/nshards.txt", "1");
    put_file("tasks/t2/test/nshards.txt", "1"); /* of an unknown kind: it makes no tasks */
    put_file("tasks/t2/dataset_type.txt", "captioning\n");
    put_file("enc/config.json", "{}");
    put_file("m.gz", "merges");
    return mode_store_open(&store, folder, &err) != MODE_OK;
}

static inline int tear_down(void **state)
{
    (void)state;
    struct mode_error err = {0};
    mode_store_close(&store);
    return mode_dir_remove(folder, &err) != MODE_OK;
}

static const char *assign_note = "{\"pairs\": [300, 200]}"; /* of every shard of data.train */

static uint32_t cut_shard = PLAN_NONE; /* its captions task reports a truncated tar */

static const char *bad_shards = ""; /* numbers of those whose captions cannot be made but by leaving them out */

static const char *select_note = "{\"words\": 3, \"chosen\": 2, \"fine\": 8, \"pairs\": 250, \"rows\": 1000}";

static const char *select_outcome;

static unsigned n_executed; /* tasks of run_until that were not found done */

static inline Mode__TrainRequest *request_of(const struct plan_node *x)
{
    struct mode_error err = {0};
    Mode__TaskSpec *task;
    assert_int_equal(mode_store_task_get(store, &task, x->key, &err), MODE_OK);
    Mode__TrainRequest *r = mode__train_request__unpack(NULL, task->request.len, task->request.data);
    mode__task_spec__free_unpacked(task, NULL);
    assert_non_null(r);
    return r;
}

/* A task's outputs depend on everything that its key depends on; an imported model is the same wherever it was, and so
 * are selected clusters, if select_outcome says what they are. */
static inline char *outcome(const struct plan_node *x)
{
    if (x->stage == PLAN_SELECT && select_outcome) return mode_xstrdup(select_outcome);
    if (x->stage != PLAN_INIT) return mode_xstrdup(x->key);
    Mode__TrainRequest *r = request_of(x);
    char *bytes = mode_xstrdup(r->init_digest);
    mode__train_request__free_unpacked(r, NULL);
    return bytes;
}

/* For a shard of an addition: all pairs are the new expert's. The caller frees. */
static inline char *added_note(uint32_t expert)
{
    struct mode_str s = {0};
    mode_str_add_cstr(&s, "{\"pairs\": [");
    for (uint32_t k = 0; k < expert; k++) mode_str_add_cstr(&s, "0, ");
    mode_str_add_cstr(&s, "500]}");
    return s.data;
}

static inline void commit(const struct plan *p, const struct plan_node *x)
{
    static const char *const all[] = {"captions.bin",          "feat.safetensors",
                                      "centres.safetensors",   "assign.safetensors",
                                      "open_clip_config.json", "open_clip_model.safetensors",
                                      "steps.jsonl",           "train.json",
                                      "logits.safetensors",    "metrics.json",
                                      "selection.safetensors"};
    enum { N = sizeof all / sizeof all[0] };
    struct mode_error err = {0};
    Mode__Commit c = MODE__COMMIT__INIT;
    Mode__Blob blob[N], *blobs[N];
    char digest[MODE_DIGEST_HEX];
    char *bytes = outcome(x);
    assert_int_equal(mode_store_put_bytes(store, digest, bytes, strlen(bytes), &err), MODE_OK);
    free(bytes);
    for (int i = 0; i < N; i++) {
        mode__blob__init(&blob[i]);
        blob[i].name = (char *)(uintptr_t)all[i];
        blob[i].digest = digest;
        blob[i].size = 64; /* never read */
        blobs[i] = &blob[i];
    }
    bool created;
    c.key = (char *)(uintptr_t)x->key;
    c.service = (char *)(uintptr_t)plan_stage_service(x->stage);
    c.outputs = blobs;
    c.n_outputs = x->stage == PLAN_SELECT ? N : N - 1; /* a training reads all of its parent's outputs */
    c.rows_in = c.rows_out = 500;
    c.worker = "w";
    char *note = x->stage == PLAN_ASSIGN && plan_shard_expert(p, x->a) ? added_note(plan_shard_expert(p, x->a)) : NULL;
    if (x->stage == PLAN_ASSIGN) c.note = note ? note : (char *)(uintptr_t)assign_note;
    if (x->stage == PLAN_CAPTIONS)
        c.note = (char *)(uintptr_t)(x->a == cut_shard ? "{\"cut_at\": 512}" : "{\"cut_at\": 0}");
    if (x->stage == PLAN_CAPTIONS && x->left_out) {
        c.note = (char *)(uintptr_t) "{\"cut_at\": 0, \"bad\": \"is not a tar\"}";
        c.rows_in = c.rows_out = 0;
    }
    if (x->stage == PLAN_SELECT) c.note = (char *)(uintptr_t)select_note;
    assert_int_equal(mode_store_commit_create(store, &created, NULL, &c, &err), MODE_OK);
    free(note);
}

struct what { /* parts of the spec that tests vary */
    const char *captions_seed, *pooling, *fine, *lr, *batch, *router, *total, *added, *precision, *train, *seed_steps;
    const char *more; /* lines of the spec */
};
#define AS_BEFORE                                                                                                      \
    {                                                                                                                  \
        "1", "mean", "8", "1e-3", "100", "paper", "12", "", "f32", "", "10", ""                                        \
    }

/* Do the whole run; executed[stage] = tasks that were not found done. */
static inline void run(unsigned executed[PLAN_STAGES], struct what w)
{
    struct mode_spec spec;
    struct mode_error err = {0};
    struct plan *p;
    uint32_t n;
    char *text = mode_xasprintf(
        "name: x\nprecision: %s\ndata: {train: shards%s}\ncaptions: {seed: %s}\nencoder: {dir: enc, pooling: %s}\n"
        "cluster: {fine: %s, coarse: 2}\nmodel: ViT-B-32\ntokenizer: {merges: m.gz}\n"
        "train: {lr: %s, batch: 100, seed_steps: %s, total_steps: %s%s}\n"
        "evaluate: {tasks: tasks, batch: %s}\nensemble: {router: %s}\n%s",
        w.precision, w.added, w.captions_seed, w.pooling, w.fine, w.lr, w.seed_steps, w.total, w.train, w.batch,
        w.router, w.more);
    memset(executed, 0, PLAN_STAGES * sizeof *executed);
    if (mode_spec_parse(&spec, text, folder, "spec", &err)) fail_msg("%s", err.text);
    if (plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err)) fail_msg("%s", err.text);
    while (plan_more(p)) {
        if (plan_next(p, &n, &err)) fail_msg("%s", err.text);
        if (n == PLAN_NONE) continue;
        executed[p->node[n].stage]++;
        commit(p, &p->node[n]);
        if (plan_done(p, n, &err)) fail_msg("%s", err.text);
    }
    assert_true(plan_finished(p));
    assert_false(plan_stuck(p));
    plan_close(&p);
    free(text);
}

/* order of stages: captions embed words cluster grow assign select init seed dense experts selected evaluate ensemble
 */
static inline void expect(struct what w, const unsigned want[PLAN_STAGES])
{
    unsigned got[PLAN_STAGES];
    run(got, w);
    for (enum plan_stage s = 0; s < PLAN_STAGES; s++)
        if (got[s] != want[s]) fail_msg("%s: %u tasks, expected %u", plan_stage_name(s), got[s], want[s]);
    run(got, w); /* and once done, all of it is found again */
    for (enum plan_stage s = 0; s < PLAN_STAGES; s++) assert_int_equal(got[s], 0);
}

/* What the server does where a worker says that a task's input is bad. */
static inline bool is_left_out(struct plan *p, uint32_t n)
{
    const struct plan_node *x = &p->node[n];
    if (x->stage != PLAN_CAPTIONS || x->left_out || !strchr(bad_shards, (char)('0' + x->a))) return false;
    if (!plan_leave_out(p, n)) plan_lost(p, n);
    return true;
}

/* Runs the plan of the spec, with that note of every assignment, until something says no. */
static inline enum mode_status run_until(struct plan **p, const char *text, const char *note, struct mode_error *err)
{
    struct mode_spec spec;
    enum mode_status st;
    uint32_t n;
    const char *keep = assign_note;
    if (mode_spec_parse(&spec, text, folder, "spec", err)) fail_msg("%s", err->text);
    if (plan_open(p, &spec, store, &fake_world, NULL, NULL, err)) fail_msg("%s", err->text);
    assign_note = note;
    for (st = MODE_OK; !st && plan_more(*p);) {
        if ((st = plan_next(*p, &n, err)) || n == PLAN_NONE || is_left_out(*p, n)) continue;
        n_executed++;
        commit(*p, &(*p)->node[n]);
        st = plan_done(*p, n, err);
    }
    assign_note = keep;
    return st;
}

#endif
