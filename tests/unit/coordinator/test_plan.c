/* The planner: which tasks follow from which inputs and parameters. */
#include "held_outputs.h"
#include "plan_runs.h"

#include "proto/embed.pb-c.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_a_task_of_an_unknown_kind_is_left_out_of_its_folder(void **state)
{
    (void)state;
    static const char *const tasks[] = {"tasks", "tasks/t2", "others"};
    struct mode_error err = {0};
    put_file("others/t2/test/nshards.txt", "1");
    put_file("others/t2/dataset_type.txt", "captioning\n");
    put_file("tasks/t1/dataset_type.txt", "multilabel\n");
    for (int i = 0; i < 3; i++) {
        struct mode_spec spec;
        struct plan *p;
        char *text = mode_xasprintf("name: y\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                                    "tokenizer: {merges: m.gz}\nevaluate: {tasks: %s}\n",
                                    tasks[i]);
        if (mode_spec_parse(&spec, text, folder, "spec", &err)) fail_msg("%s", err.text);
        enum mode_status st = plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err);
        free(text);
        if (i == 2) { /* nothing is left */
            assert_int_equal(st, MODE_E_NOINPUT);
            assert_non_null(strstr(err.text, "none of its tasks (1) can be evaluated"));
            continue;
        }
        if (i == 1) { /* named, it is refused */
            assert_int_equal(st, MODE_E_FORMAT);
            assert_non_null(strstr(err.text, "task type \"captioning\", expected classification, multilabel or"));
            continue;
        }
        if (st) fail_msg("%s", err.text);
        assert_int_equal(p->n_tasks, 2);
        assert_int_equal(p->skipped.n, 1);
        assert_non_null(strstr(p->skipped.item[0], "tasks/t2 is left out: its dataset_type.txt says \"captioning\""));
        assert_string_equal(p->task[0].kind, "classification");
        assert_string_equal(p->task[1].kind, "multilabel");
        plan_close(&p);
    }
    char *type = mode_path_join(folder, "tasks/t1/dataset_type.txt");
    assert_int_equal(unlink(type), 0);
    free(type);
}

static void test_a_changed_parameter_redoes_only_what_depends_on_it(void **state)
{
    (void)state;
    struct what w = AS_BEFORE;
    expect(w, (unsigned[]){2, 2, 2, 1, 0, 2, 0, 0, 1, 1, 2, 0, 8, 1});
    w.router = "uniform";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
    w.router = "paper, params: lambda=0.1, top_experts: 1";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
    w.router = "paper, params: lambda=0.1";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
    w = (struct what)AS_BEFORE;
    w.batch = "7"; /* the evaluation's batch */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1});
    w = (struct what)AS_BEFORE;
    w.lr = "2e-3";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 8, 1});
    w = (struct what)AS_BEFORE;
    w.fine = "6"; /* other groups: the seed and the dense model do not know them */
    expect(w, (unsigned[]){0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2, 0, 4, 1});
    w = (struct what)AS_BEFORE;
    w.pooling = "cls";
    expect(w, (unsigned[]){0, 2, 2, 1, 0, 2, 0, 0, 0, 0, 2, 0, 4, 1});
    w = (struct what)AS_BEFORE;
    w.captions_seed = "2";
    expect(w, (unsigned[]){2, 2, 0, 1, 0, 2, 0, 0, 1, 1, 2, 0, 8, 1});
    w = (struct what)AS_BEFORE;
    w.precision = "tf32";
    expect(w, (unsigned[]){0, 2, 2, 1, 0, 2, 0, 0, 1, 1, 2, 0, 8, 1});
    w = (struct what)AS_BEFORE;
    w.train = ", algorithms: chosen.txt"; /* the file's contents count */
    put_file("chosen.txt", "mode-algorithms 2\none");
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 8, 1});
    put_file("chosen.txt", "mode-algorithms 2\nother");
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 8, 1});
}

static void test_added_data_touch_nothing_that_exists(void **state)
{
    (void)state;
    struct what w = AS_BEFORE;
    unsigned got[PLAN_STAGES];
    w.captions_seed = "77"; /* a run of its own */
    run(got, w);
    w.added = ", added: [new]"; /* two shards, one expert, two tasks to evaluate it on */
    expect(w, (unsigned[]){2, 2, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0, 2, 1});
    w.added = ", added: [new, newer]";
    expect(w, (unsigned[]){1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 2, 1});
    w.added = ", added: [new]"; /* back again */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});

    struct mode_spec spec;
    struct mode_error err = {0};
    struct plan *p;
    assert_int_equal(mode_spec_parse(&spec,
                                     "name: x\ndata: {train: shards, added: [new, shards/1.tar]}\nencoder: {dir: enc}\n"
                                     "model: ViT-B-32\ntokenizer: {merges: m.gz}\nevaluate: {tasks: tasks}\n",
                                     folder, "spec", &err),
                     MODE_OK);
    assert_int_not_equal(plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err),
                         MODE_OK); /* a shard of the first data again */
    assert_non_null(strstr(err.text, "1.tar"));
}

static void test_a_changed_shard_redoes_what_saw_it(void **state)
{
    (void)state;
    unsigned got[PLAN_STAGES];
    struct what w = AS_BEFORE;
    run(got, w);
    put_file("shards/1.tar", "longer than before");
    run(got, w);
    assert_int_equal(got[PLAN_CAPTIONS], 1);
    assert_int_equal(got[PLAN_EMBED], 1);
    assert_int_equal(got[PLAN_WORDS], 0);
    assert_int_equal(got[PLAN_ASSIGN], 2); /* the centres moved */
    assert_int_equal(got[PLAN_SEED], 1);
}

static void test_what_is_behind_a_lost_task_is_lost_and_comes_back(void **state)
{
    (void)state;
    struct mode_spec spec;
    struct mode_error err = {0};
    struct plan *p;
    uint32_t n, live = 0, first = PLAN_NONE;
    assert_int_equal(mode_spec_parse(&spec,
                                     "name: y\nseed: 99\ndata: {train: shards}\nencoder: {dir: enc}\n"
                                     "model: ViT-B-32\ntokenizer: {merges: m.gz}\n",
                                     folder, "spec", &err),
                     MODE_OK);
    assert_int_equal(plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err), MODE_OK);
    while (plan_more(p)) {
        assert_int_equal(plan_next(p, &n, &err), MODE_OK);
        if (n == PLAN_NONE) continue; /* the words of an evaluation are done: an earlier test made them */
        if (first == PLAN_NONE) first = n;
        live++;
    }
    assert_int_equal(live, 2); /* the captions; no other key is known yet */
    plan_lost(p, first);
    assert_int_equal(p->node[p->first[PLAN_ENSEMBLE]].state, PLAN_LOST);
    assert_int_equal(p->node[p->first[PLAN_EMBED] + 1].state, PLAN_WAITING); /* of the other shard */
    assert_false(plan_stuck(p));                                             /* the other caption task still runs */
    plan_lost(p, first + 1);
    assert_true(plan_stuck(p));
    plan_revive(p, first);
    plan_revive(p, first + 1);
    assert_false(plan_stuck(p));
    assert_int_equal(p->node[p->first[PLAN_ENSEMBLE]].state, PLAN_WAITING);
    plan_close(&p);
}

/* With expert_steps: share an expert trains for its share of the pairs. The commit records have their number; if not,
 * the assignments are opened (here they are invalid, so that shows). */
static void test_shares_are_planned_from_the_commit_records(void **state)
{
    (void)state;
    struct mode_spec spec;
    struct mode_error err = {0};
    struct plan *p;
    uint32_t n;
    for (int noted = 1; noted >= 0; noted--) {
        char *text = mode_xasprintf("name: z\nseed: %d\ndata: {train: shards}\nencoder: {dir: enc}\n"
                                    "model: ViT-B-32\ntokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                                    "train: {batch: 100, seed_steps: 10, total_steps: 110, expert_steps: share}\n",
                                    500 + noted);
        assign_note = noted ? "{\"pairs\": [300, 200]}" : NULL;
        assert_int_equal(mode_spec_parse(&spec, text, folder, "spec", &err), MODE_OK);
        assert_int_equal(plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err), MODE_OK);
        enum mode_status st = MODE_OK;
        while (!st && plan_more(p)) {
            if ((st = plan_next(p, &n, &err)) || n == PLAN_NONE) continue;
            commit(p, &p->node[n]);
            if (p->node[n].stage == PLAN_EXPERTS) {
                Mode__TrainRequest *r = request_of(&p->node[n]);
                assert_int_equal(r->start_step, 10);
                assert_int_equal(r->end_step, p->node[n].a ? 10 + 40 : 10 + 60); /* 600 and 400 of 1,000 pairs */
                mode__train_request__free_unpacked(r, NULL);
            }
            assert_int_equal(plan_done(p, n, &err), MODE_OK);
        }
        assert_int_equal(st, noted ? MODE_OK : MODE_E_FORMAT);
        if (!noted) assert_non_null(strstr(err.text, "train/expert-0"));
        plan_close(&p);
        free(text);
    }
    assign_note = "{\"pairs\": [300, 200]}";
}

/* An expert with less than a batch of pairs is found as soon as its pairs are counted, before it trains. */
static void test_pools_are_checked_when_all_is_assigned(void **state)
{
    (void)state;
    static const struct {
        const char *note, *added, *batch, *words;
    } cases[] = {
        {"{\"pairs\": [500, 0]}", "", "100", "expert 1 gets 0 of the 1000 pairs, and 100 of the others"},
        {"{\"pairs\": [480, 20]}", "", "200",
         "expert 1 gets 40 of the 1000 pairs, and 96 of the others per epoch: too few "
         "for train.batch = 200. HINT: a smaller train.batch, or fewer experts"},
        {"{\"pairs\": [480, 20]}", "", "136", NULL},
        {"{\"pairs\": [500, 500]}", ", added: [newer]", "600", NULL},
        {"{\"pairs\": [500, 500]}", ", added: [newer]", "601", "expert 2 gets 500 of the 1500 pairs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf(
            "name: z\nseed: %zu\ndata: {train: shards%s}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
            "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
            "train: {batch: %s, out_ratio: 0.1, seed_steps: 10, total_steps: 110}\n",
            700 + i, cases[i].added, cases[i].batch);
        enum mode_status st = run_until(&p, text, cases[i].note, &err);
        assert_int_equal(st, cases[i].words ? MODE_E_VALUE : MODE_OK);
        if (cases[i].words && !strstr(err.text, cases[i].words)) fail_msg("%s", err.text);
        if (cases[i].words && !*cases[i].added) assert_int_equal(p->n_done[PLAN_EXPERTS], 0);
        assert_int_equal(plan_trained(p), !cases[i].words);
        plan_close(&p);
        if (cases[i].words) { /* submitted again: the commit records say the same */
            assert_int_equal(run_until(&p, text, cases[i].note, &err), MODE_E_VALUE);
            plan_close(&p);
        }
        free(text);
    }
}

/* The outputs of each node are lost in turn: it alone is recomputed (and what has its key), its consumers wait, and
 * nothing is counted twice. */
static void test_what_is_undone_is_done_again_and_counted_once(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct plan *p;
    put_file("given10", "10");
    static const char text[] = "name: z\nseed: 900\ndata: {train: shards, added: [newer]}\nencoder: {dir: enc}\n"
                               "model: ViT-B-32\ntokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                               "train: {batch: 100, seed_steps: 10, total_steps: 110, init: given10}\n";
    if (run_until(&p, text, assign_note, &err)) fail_msg("%s", err.text);
    assert_true(plan_finished(p));
    const struct plan_node *seed = &p->node[p->first[PLAN_SEED]], *init = &p->node[p->first[PLAN_INIT]];
    assert_string_equal(seed->key, init->key); /* one task under two names */
    const uint64_t pairs = p->pairs[0], rows = p->sum[PLAN_CAPTIONS].rows_out;
    for (uint32_t n = 0; n < p->n_nodes; n++) {
        const struct plan_node *x = &p->node[n];
        char *aside = NULL;
        uint32_t next, again = 0;
        assert_int_equal(mode_store_commit_aside(store, &aside, x->key, &err), MODE_OK);
        assert_non_null(aside);
        free(aside);
        plan_undo(p, n);
        assert_false(plan_finished(p));
        while (plan_more(p)) {
            assert_int_equal(plan_next(p, &next, &err), MODE_OK);
            if (next == PLAN_NONE) continue;
            again++;
            assert_string_equal(p->node[next].key, x->key);
            commit(p, &p->node[next]);
            assert_int_equal(plan_done(p, next, &err), MODE_OK);
        }
        assert_int_equal(again, 1);
        assert_true(plan_finished(p));
    }
    assert_int_equal(p->pairs[0], pairs);
    assert_int_equal(p->sum[PLAN_CAPTIONS].rows_out, rows);
    plan_close(&p);

    /* a consumer that was handed out goes back to waiting, and is checked again after it */
    struct mode_spec spec;
    uint32_t n, embed = PLAN_NONE;
    char *aside = NULL;
    assert_int_equal(mode_spec_parse(&spec,
                                     "name: y\nseed: 901\ndata: {train: shards}\nencoder: {dir: enc}\n"
                                     "model: ViT-B-32\ntokenizer: {merges: m.gz}\n",
                                     folder, "spec", &err),
                     MODE_OK);
    assert_int_equal(plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err), MODE_OK);
    while (embed == PLAN_NONE && plan_more(p)) {
        assert_int_equal(plan_next(p, &n, &err), MODE_OK);
        if (n == PLAN_NONE) continue;
        if (p->node[n].stage == PLAN_EMBED) {
            embed = n;
        } else {
            commit(p, &p->node[n]);
            assert_int_equal(plan_done(p, n, &err), MODE_OK);
        }
    }
    uint32_t captions = p->node[embed].needs[0];
    assert_int_equal(mode_store_commit_aside(store, &aside, p->node[captions].key, &err), MODE_OK);
    free(aside);
    plan_undo(p, captions);
    plan_wait(p, embed);
    assert_int_equal(p->node[embed].state, PLAN_WAITING);
    while (plan_more(p)) {
        assert_int_equal(plan_next(p, &n, &err), MODE_OK);
        assert_true(n != embed || p->node[captions].state == PLAN_DONE);
        if (n != captions) continue;
        commit(p, &p->node[n]);
        assert_int_equal(plan_done(p, n, &err), MODE_OK);
    }
    assert_int_equal(p->node[embed].state, PLAN_LIVE);
    plan_close(&p);
}

/* The warm-up in the requests: never longer than the schedule; a notice if it extends past the fork point. */
static void test_a_warm_up_past_the_fork_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *train;
        uint64_t warmup;
        bool said;
    } cases[] = {{"seed_steps: 10, total_steps: 110", 11, true},
                 {"seed_steps: 20, total_steps: 110", 11, false},
                 {"seed_steps: 10, total_steps: 110, warmup_steps: 109", 109, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mode_error err = {0};
        struct plan *p;
        Mode__TaskSpec *task;
        char *text = mode_xasprintf(
            "name: z\nseed: %zu\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
            "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\ntrain: {batch: 100, %s}\n",
            800 + i, cases[i].train);
        if (run_until(&p, text, assign_note, &err)) fail_msg("%s", err.text);
        assert_int_equal(mode_store_task_get(store, &task, p->node[p->first[PLAN_SEED]].key, &err), MODE_OK);
        Mode__TrainRequest *r = mode__train_request__unpack(NULL, task->request.len, task->request.data);
        assert_int_equal(r->warmup_steps, cases[i].warmup);
        mode__train_request__free_unpacked(r, NULL);
        mode__task_spec__free_unpacked(task, NULL);
        assert_int_equal(p->warning != NULL, cases[i].said);
        if (p->warning) assert_non_null(strstr(p->warning, "past the fork point at step 10"));
        plan_close(&p);
        free(text);
    }
    struct mode_error err = {0};
    struct plan *p;
    assert_int_equal(run_until(&p,
                               "name: z\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                               "tokenizer: {merges: m.gz}\ntrain: {batch: 100, seed_epochs: 1, epochs: 2, "
                               "warmup_steps: 20}\n",
                               assign_note, &err),
                     MODE_E_CONFIG); /* 20 steps, which is known only when the pairs are counted */
    assert_non_null(strstr(err.text, "train.warmup_steps is 20"));
    plan_close(&p);
}

/* Only a spec that sets it has the schedule in its requests. A seed that ends before the cooldown is one of constant
 * rate, whose request does not say what comes after it. */
static void test_a_schedule_is_in_the_requests(void **state)
{
    (void)state;
    static const struct {
        const char *train, *schedule[2]; /* of the seed; of the others */
        uint64_t total[2], cooldown[2];
        bool said;
    } cases[] = {
        {"warmup_steps: 2", {"cosine", "cosine"}, {10, 10}, {0, 0}, false},
        {"warmup_steps: 2, schedule: cosine", {"cosine", "cosine"}, {10, 10}, {0, 0}, false},
        {"warmup_steps: 2, schedule: constant", {"constant", "constant"}, {5, 10}, {0, 0}, false},
        {"schedule: constant_cooldown, cooldown_steps: 5", {"constant", "constant_cooldown"}, {5, 10}, {0, 5}, false},
        {"schedule: constant_cooldown, cooldown_steps: 3, cooldown_power: 2, cooldown_end: 1e-5",
         {"constant", "constant_cooldown"},
         {5, 10},
         {0, 3},
         false},
        {"schedule: constant_cooldown, cooldown_steps: 6",
         {"constant_cooldown", "constant_cooldown"},
         {10, 10},
         {6, 6},
         true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf("name: z\nseed: 602\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                                    "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                                    "train: {batch: 100, %s, seed_steps: 5, total_steps: 10}\n",
                                    cases[i].train);
        assert_int_equal(run_until(&p, text, assign_note, &err), MODE_OK);
        for (enum plan_stage s = PLAN_SEED; s <= PLAN_EXPERTS; s++) {
            Mode__TrainRequest *r = request_of(&p->node[p->first[s]]);
            const int k = s != PLAN_SEED;
            assert_string_equal(r->schedule, cases[i].schedule[k]);
            assert_int_equal(r->total_steps, cases[i].total[k]);
            assert_int_equal(r->cooldown_steps, cases[i].cooldown[k]);
            assert_int_equal(r->has_cooldown_steps, cases[i].cooldown[k] > 0);
            assert_int_equal(r->has_cooldown_power, i == 4 && k);
            assert_int_equal(r->has_cooldown_end, i == 4 && k);
            assert_true(i != 4 || !k || (r->cooldown_power == 2 && r->cooldown_end == 1e-5));
            mode__train_request__free_unpacked(r, NULL);
        }
        assert_int_equal(p->warning != NULL, cases[i].said);
        if (p->warning) assert_non_null(strstr(p->warning, "6 of 10 begin before the fork at step 5"));
        plan_close(&p);
        free(text);
    }
}

/* What comes after the fork of a constant rate does not redo the seed. */
static void test_a_seed_of_constant_rate_is_kept(void **state)
{
    (void)state;
    unsigned got[PLAN_STAGES];
    struct what w = AS_BEFORE;
    w.captions_seed = "89"; /* a run of its own */
    w.train = ", schedule: constant_cooldown, cooldown_steps: 2";
    run(got, w);
    w.total = "15"; /* the default warm-up stays one step */
    w.train = ", schedule: constant_cooldown, cooldown_steps: 5";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 6, 1});
    w.train = ", schedule: constant_cooldown, cooldown_steps: 3, cooldown_power: 2";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 6, 1});
    w.train = ", schedule: constant";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 6, 1});
    w.added = ", added: [newer]"; /* its expert alone is trained */
    expect(w, (unsigned[]){1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 2, 1});
    w.added = "";
    w.train = ", schedule: constant_cooldown, cooldown_steps: 6"; /* begins before the fork */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 8, 1});
}

/* train.init: the bytes count, not the path; without steps of its own the seed is that model. */
static void test_a_given_model_is_where_the_seed_begins(void **state)
{
    (void)state;
    unsigned got[PLAN_STAGES];
    struct what w = AS_BEFORE;
    w.captions_seed = "88"; /* a run of its own */
    run(got, w);
    w.train = ", init: given.bin";
    put_file("given.bin", "0 one");
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 0, 8, 1});
    put_file("given.bin", "0 other");
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 0, 8, 1});
    w.lr = "2e-3"; /* it is not imported again */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 8, 1});
    w.lr = "1e-3";
    put_file("elsewhere/given.bin", "0 other");
    w.train = ", init: elsewhere/given.bin";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1});

    w.train = ", init: given.bin";
    w.seed_steps = "0"; /* the imported model is the seed */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 8, 1});
    w.lr = "3e-3"; /* its evaluation is not repeated either */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 6, 1});
    w.added = ", added: [newer]";
    expect(w, (unsigned[]){1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 2, 1});
    w.added = "";
    put_file("given.bin", "0 a third");
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 0, 8, 1});
    put_file("given.bin", "10 with moments");
    w.seed_steps = "10";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 0, 8, 1});
}

/* The tasks' requests; a seed of 0 steps is the task that imports the model. */
/* Only a spec that sets it has the field in its requests: the keys of others stay. */
static void test_an_order_by_windows_is_in_the_requests(void **state)
{
    (void)state;
    static const char *const train[] = {"order: shuffle", "order: windows", "order: windows, window_shards: 3"};
    static const uint32_t window[] = {0, 16, 3};
    for (size_t i = 0; i < sizeof train / sizeof *train; i++) {
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf("name: z\nseed: 601\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                                    "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                                    "train: {batch: 100, %s, seed_steps: 5, total_steps: 9}\n",
                                    train[i]);
        assert_int_equal(run_until(&p, text, assign_note, &err), MODE_OK);
        for (enum plan_stage s = PLAN_SEED; s <= PLAN_EXPERTS; s++) {
            Mode__TrainRequest *r = request_of(&p->node[p->first[s]]);
            assert_int_equal(r->has_window_shards, window[i] > 0);
            assert_int_equal(r->window_shards, window[i]);
            mode__train_request__free_unpacked(r, NULL);
        }
        plan_close(&p);
        free(text);
    }
}

static void test_patch_dropout_is_in_the_requests(void **state)
{
    (void)state;
    for (int given = 0; given < 2; given++) {
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf("name: z\nseed: 603\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                                    "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                                    "train: {batch: 100, patch_dropout: %s, seed_steps: 5, total_steps: 9}\n",
                                    given ? "0.5" : "0");
        assert_int_equal(run_until(&p, text, assign_note, &err), MODE_OK);
        for (enum plan_stage s = PLAN_SEED; s <= PLAN_EXPERTS; s++) {
            Mode__TrainRequest *r = request_of(&p->node[p->first[s]]);
            assert_int_equal(r->has_patch_dropout, given);
            assert_true(r->patch_dropout == 0.5 * given);
            mode__train_request__free_unpacked(r, NULL);
        }
        plan_close(&p);
        free(text);
    }
}

/* The seed and all that follows it are locked alike, and every lock is another training; without one no field is sent. */
static void test_locked_towers_are_in_the_requests(void **state)
{
    (void)state;
    static const char *const locks[] = {"", ", lock_image: true", ", lock_image: true, lock_image_unlocked_groups: 2",
                                        ", lock_text: true", ", lock_text: true, lock_text_unlocked_layers: 3"};
    enum { N = sizeof locks / sizeof *locks };
    char keys[N][MODE_DIGEST_HEX];
    put_file("given.bin", "0 x");
    for (size_t i = 0; i < N; i++) {
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf("name: z\nseed: 605\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                                    "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                                    "train: {batch: 100, init: given.bin, seed_steps: 5, total_steps: 9%s}\n",
                                    locks[i]);
        if (run_until(&p, text, assign_note, &err)) fail_msg("%s", err.text);
        for (enum plan_stage s = PLAN_SEED; s <= PLAN_EXPERTS; s++) {
            Mode__TrainRequest *r = request_of(&p->node[p->first[s]]);
            assert_int_equal(r->has_lock_image, i == 1 || i == 2);
            assert_int_equal(r->lock_image, r->has_lock_image);
            assert_int_equal(r->has_lock_image_unlocked_groups, i == 2);
            assert_int_equal(r->lock_image_unlocked_groups, i == 2 ? 2 : 0);
            assert_int_equal(r->has_lock_text, i >= 3);
            assert_int_equal(r->lock_text, r->has_lock_text);
            assert_int_equal(r->has_lock_text_unlocked_layers, i == 4);
            assert_int_equal(r->lock_text_unlocked_layers, i == 4 ? 3 : 0);
            mode__train_request__free_unpacked(r, NULL);
        }
        snprintf(keys[i], sizeof keys[i], "%s", p->node[p->first[PLAN_SEED]].key);
        for (size_t k = 0; k < i; k++) assert_string_not_equal(keys[i], keys[k]);
        plan_close(&p);
        free(text);
    }
}

static void test_requests_of_a_run_that_begins_with_a_model(void **state)
{
    (void)state;
    static const struct {
        const char *given, *seed_steps;
        uint64_t init_step, fork;
    } cases[] = {{"0 x", "5", 0, 5}, {"0 x", "0", 0, 0}, {"4 x", "5", 4, 5}, {"5 x", "5", 5, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mode_spec spec;
        struct mode_error err = {0};
        struct plan *p;
        uint32_t n;
        put_file("given.bin", cases[i].given);
        char *text = mode_xasprintf("name: z\nseed: 600\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                                    "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                                    "train: {batch: 100, init: given.bin, seed_steps: %s, total_steps: 9}\n",
                                    cases[i].seed_steps);
        assert_int_equal(mode_spec_parse(&spec, text, folder, "spec", &err), MODE_OK);
        assert_int_equal(plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err), MODE_OK);
        while (plan_more(p)) {
            assert_int_equal(plan_next(p, &n, &err), MODE_OK);
            if (n == PLAN_NONE) continue;
            commit(p, &p->node[n]);
            assert_int_equal(plan_done(p, n, &err), MODE_OK);
        }
        const struct plan_node *init = &p->node[p->first[PLAN_INIT]], *seed = &p->node[p->first[PLAN_SEED]],
                               *dense = &p->node[p->first[PLAN_DENSE]];
        const bool trained = cases[i].fork > cases[i].init_step;
        assert_int_equal(strcmp(init->key, seed->key) != 0, trained);
        Mode__TrainRequest *r = request_of(init);
        assert_string_equal(r->init_digest, p->init_digest);
        assert_string_equal(mode_path_base(r->init_path), "given.bin");
        assert_int_equal(r->n_shard_paths, 0);
        mode__train_request__free_unpacked(r, NULL);
        for (int k = 0; k < 2; k++) {
            const struct plan_node *x = k ? dense : seed;
            if (!k && !trained) continue;
            r = request_of(x);
            assert_null(r->init_path);
            assert_string_equal(r->init, plan_output(init, "open_clip_model.safetensors")->digest);
            assert_int_equal(r->start_step, k ? cases[i].fork : cases[i].init_step);
            assert_int_equal(r->end_step, k ? 9 : cases[i].fork);
            mode__train_request__free_unpacked(r, NULL);
            Mode__TaskSpec *task;
            bool found = false;
            assert_int_equal(mode_store_task_get(store, &task, x->key, &err), MODE_OK);
            for (size_t j = 0; j < task->n_inputs; j++)
                found |= strcmp(task->inputs[j]->name, "parent/open_clip_model.safetensors") == 0 &&
                         strcmp(task->inputs[j]->digest,
                                plan_output(k ? seed : init, "open_clip_model.safetensors")->digest) == 0;
            assert_true(found);
            mode__task_spec__free_unpacked(task, NULL);
        }
        plan_close(&p);
        free(text);
    }
}

/* Errors that training would find much later are refused at submission, with the spec's key. */
static void refused(const char *key, const char *words, const char *model)
{
    struct mode_spec spec;
    struct mode_error err = {0};
    struct plan *p;
    struct plan_world real = fake_world;
    char *text = mode_xasprintf(
        "name: z\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: %s\n"
        "tokenizer: {merges: m.gz}\n%s",
        model, strcmp(key, "train.init") == 0 ? "train: {init: given.bin, seed_steps: 2, total_steps: 5}\n" : "");
    if (strcmp(key, "tokenizer.merges") == 0) real.tokenizer_ids = server_world.tokenizer_ids;
    if (mode_spec_parse(&spec, text, folder, "spec", &err)) fail_msg("%s", err.text);
    assert_int_equal(plan_open(&p, &spec, store, &real, NULL, NULL, &err), MODE_E_CONFIG);
    if (strncmp(err.text, key, strlen(key)) != 0 || !strstr(err.text, words)) fail_msg("%s", err.text);
    free(text);
}

static void test_what_does_not_fit_together_is_refused_by_its_key(void **state)
{
    (void)state;
    refused("tokenizer.merges", "m.gz: line 2", "ViT-B-32"); /* it contains the word "merges" */
    put_file("given.bin", "3 x");
    refused("train.init", "given.bin is at step 3 of its schedule, beyond the fork point (2)", "ViT-B-32");
    refused("model", "vocab_size is 49407, expected at least 49408",
            "{embed_dim: 32, vision_cfg: {image_size: 32, patch_size: 8, width: 32, layers: 1, head_width: 16}, "
            "text_cfg: {context_length: 77, vocab_size: 49407, width: 32, heads: 2, layers: 1}}");
}

/* A run that was planned before, with its inputs.json. */
static enum mode_status open_kept(struct plan **p, const char *text, const char *inputs, struct mode_error *err)
{
    struct mode_spec spec;
    if (mode_spec_parse(&spec, text, folder, "spec", err)) fail_msg("%s", err->text);
    return plan_open(p, &spec, store, &fake_world, NULL, inputs, err);
}

static void expect_same_inputs(const struct plan *p, const struct plan *q)
{
    assert_int_equal(p->n_nodes, q->n_nodes);
    assert_int_equal(p->shards.n, q->shards.n);
    for (size_t i = 0; i < p->shards.n; i++) {
        assert_string_equal(p->shards.shard[i].path, q->shards.shard[i].path);
        assert_string_equal(p->shards.shard[i].name, q->shards.shard[i].name);
        assert_true(p->shards.shard[i].size == q->shards.shard[i].size);
        assert_true(p->shards.shard[i].mtime_ns == q->shards.shard[i].mtime_ns);
    }
    for (uint32_t j = 0; j <= p->n_added; j++) assert_int_equal(p->shard_end[j], q->shard_end[j]);
    for (uint32_t t = 0; t < p->n_tasks; t++) {
        assert_string_equal(p->task[t].dir, q->task[t].dir);
        assert_string_equal(p->task[t].name, q->task[t].name);
        assert_string_equal(p->task[t].kind, q->task[t].kind);
        assert_string_equal(p->task[t].digest, q->task[t].digest);
        assert_string_equal(p->task[t].words_digest, q->task[t].words_digest);
    }
    for (size_t j = 0; j < p->spec.n_experts_for; j++) {
        assert_int_equal(p->for_tasks[j].n_task, q->for_tasks[j].n_task);
        assert_int_equal(p->for_tasks[j].names.n, q->for_tasks[j].names.n);
    }
    assert_int_equal(p->skipped.n, q->skipped.n);
    assert_string_equal(p->encoder_id, q->encoder_id);
    assert_string_equal(p->tokenizer_digest, q->tokenizer_digest);
    assert_string_equal(p->init_digest, q->init_digest);
    assert_true(p->init_step == q->init_step);
    assert_string_equal(p->spec.model_config, q->spec.model_config);
}

/* A coordinator that restarts in mid-run: added shards and tasks, a rewritten merges file and a rewritten model do not
 * change the run. A missing input is an error that says so. */
static void test_a_run_keeps_the_inputs_it_was_planned_from(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct plan *p, *q;
    char *inputs = mode_path_join(folder, "inputs.json"), *shard = mode_path_join(folder, "kept/1.tar"), *moved;
    static const char text[] =
        "name: kept\ndata: {train: kept, added: [new]}\nencoder: {dir: enc}\ncluster: {fine: 4, coarse: 2}\n"
        "model: ViT-B-32\ntokenizer: {merges: m.gz}\nevaluate: {tasks: kept-tasks}\n"
        "experts_for: [{name: t, tasks: all}, {name: u, classes: kept-names.txt}]\n"
        "train: {batch: 100, init: kept.bin, seed_steps: 5, total_steps: 9}\n";
    put_file("kept/0.tar", "0");
    put_file("kept/1.tar", "1");
    put_file("kept.bin", "3 x");
    put_file("kept-names.txt", "kite\n");
    put_file("kept-tasks/a/test/nshards.txt", "1");
    put_file("kept-tasks/b/test/nshards.txt", "1");
    put_file("kept-tasks/b/dataset_type.txt", "captioning\n");
    if (open_kept(&p, text, NULL, &err)) fail_msg("%s", err.text);
    assert_false(p->kept_inputs);
    if (plan_inputs_save(p, inputs, &err)) fail_msg("%s", err.text);
    put_file("kept/2.tar", "2");
    put_file("kept/1.tar", "another one");
    put_file("kept-tasks/c/test/nshards.txt", "1");
    put_file("kept.bin", "4 y");
    put_file("kept-names.txt", "rook\nkite\n");
    put_file("m.gz", "others");
    if (open_kept(&q, text, inputs, &err)) fail_msg("%s", err.text);
    assert_true(q->kept_inputs);
    expect_same_inputs(p, q);
    assert_int_equal(q->skipped.n, 1);
    plan_close(&q);

    moved = mode_xasprintf("%s.away", shard); /* for a while */
    assert_int_equal(rename(shard, moved), 0);
    assert_int_equal(open_kept(&q, text, inputs, &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "kept/1.tar"));
    assert_int_equal(rename(moved, shard), 0);
    if (open_kept(&q, text, inputs, &err)) fail_msg("%s", err.text);
    plan_close(&q);

    /* of another spec, damaged, missing: all inputs are examined again */
    char *other = mode_xasprintf("%s# another\n", text);
    if (open_kept(&q, other, inputs, &err)) fail_msg("%s", err.text);
    assert_false(q->kept_inputs);
    assert_int_equal(q->shards.n, p->shards.n + 1);
    plan_close(&q);
    put_file("inputs.json", "{\"version\": 3}");
    if (open_kept(&q, text, inputs, &err)) fail_msg("%s", err.text);
    assert_false(q->kept_inputs);
    plan_close(&q);
    assert_int_equal(unlink(inputs), 0);
    if (open_kept(&q, text, inputs, &err)) fail_msg("%s", err.text);
    assert_int_equal(q->shards.n, p->shards.n + 1);
    assert_string_not_equal(q->tokenizer_digest, p->tokenizer_digest);
    plan_close(&q);
    plan_close(&p);
    put_file("m.gz", "merges");
    free(other);
    free(moved);
    free(shard);
    free(inputs);
}

/* A line for each stage with all tasks of this spec; stages: a bit for those with tasks that are found done. */
static void hold_keys(const char *text, const char *what, unsigned stages)
{
    struct mode_spec spec;
    struct mode_error err = {0};
    struct plan *p;
    uint32_t n;
    struct mode_str bytes[PLAN_STAGES] = {{0}};
    if (mode_spec_parse(&spec, text, folder, "spec", &err)) fail_msg("%s", err.text);
    if (plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err)) fail_msg("%s", err.text);
    while (plan_more(p)) {
        if (plan_next(p, &n, &err)) fail_msg("%s", err.text);
        if (n == PLAN_NONE) continue;
        const struct plan_node *x = &p->node[n];
        Mode__TaskSpec *task;
        assert_int_equal(mode_store_task_get(store, &task, x->key, &err), MODE_OK);
        size_t size = mode__task_spec__get_packed_size(task);
        uint8_t *packed = mode_xmalloc(size);
        mode__task_spec__pack(task, packed);
        mode_str_add(&bytes[x->stage], packed, size);
        mode__task_spec__free_unpacked(task, NULL);
        free(packed);
        commit(p, x);
        if (plan_done(p, n, &err)) fail_msg("%s", err.text);
    }
    for (enum plan_stage s = 0; s < PLAN_STAGES; s++) {
        if ((bytes[s].len > 0) != (stages >> s & 1)) fail_msg("%s: new tasks, or none", plan_stage_name(s));
        if (!bytes[s].len) continue;
        char *name = mode_xasprintf("%s/%s", what, plan_stage_name(s));
        held_key(plan_stage_service(s), name, (const uint8_t *)bytes[s].data, bytes[s].len, folder);
        mode_str_clear(&bytes[s]);
        free(name);
    }
    plan_close(&p);
}

/* The requests of a given spec are the same in every version, so finished work stays valid. */
static void test_the_bytes_that_keys_are_made_of(void **state)
{
    (void)state;
    static const char *const shards[] = {"shards/0.tar", "shards/1.tar", "new/a.tar", "new/b.tar"};
    const unsigned of_words = 1u << PLAN_SELECT | 1u << PLAN_SELECTED, all = (1u << PLAN_STAGES) - 1;
    const struct timespec then[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000}};
    put_file("given.pt", "3");
    for (int i = 0; i < 4; i++) {
        char *shard = mode_path_join(folder, shards[i]);
        assert_int_equal(utimensat(AT_FDCWD, shard, then, 0), 0);
        free(shard);
    }
    hold_keys(
        "name: keys\ndata: {train: shards, added: [new]}\nencoder: {dir: enc}\ncluster: {coarse: 2}\nmodel: ViT-B-32\n"
        "tokenizer: {merges: m.gz}\ntrain: {init: given.pt, batch: 100, seed_steps: 10, total_steps: 12}\n"
        "evaluate: {tasks: tasks}\n",
        "key", all & ~of_words);
    hold_keys("name: keys\nseed: 5\nprecision: bf16\n"
              "data: {train: shards, added: [new], blur_faces: \"json:face_bbox\"}\n"
              "captions: {text_keys: [txt], per_sample: all, strict: true}\n"
              "encoder: {dir: enc, pooling: cls, max_tokens: 40}\n"
              "cluster: {fine: 8, coarse: 2, metric: cosine, sample_per_centre: 9, added_fine: 2}\n"
              "model: ViT-L-14-quickgelu\ntokenizer: {merges: m.gz}\n"
              "train: {init: given.pt, batch: 100, seed_steps: 10, total_steps: 20, expert_steps: share, "
              "grad_clip_norm: 1, accumulate: 2, checkpoint_activations: true, out_ratio: 0.1}\n"
              "evaluate: {tasks: tasks, batch: 7}\nensemble: {router: share, params: tau=0.5, top_experts: 1}\n",
              "key-of-options", all & ~of_words);
    put_file("names.txt", "a red kite\nkestrel\thobby\n");
    hold_keys("name: keys\nseed: 6\ndata: {train: shards}\nencoder: {dir: enc}\ncluster: {fine: 8, coarse: 2}\n"
              "model: ViT-B-32\ntokenizer: {merges: m.gz}\n"
              "train: {batch: 100, seed_steps: 10, total_steps: 20, expert_steps: share}\nevaluate: {tasks: tasks}\n"
              "experts_for: [{name: both, tasks: all}, {name: one, tasks: t1, nearest: 3}, "
              "{name: birds, classes: names.txt}]\n",
              "key-for-tasks", all & ~(1u << PLAN_GROW | 1u << PLAN_INIT));
}

static void test_shards_that_are_cut_short_are_said_once_all_are_read(void **state)
{
    (void)state;
    for (int cut = 0; cut < 2; cut++) {
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf("name: z\ncaptions: {seed: %d}\ndata: {train: shards}\nencoder: {dir: enc}\n"
                                    "model: ViT-B-32\ntokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                                    "train: {batch: 100, seed_steps: 20, total_steps: 110}\n",
                                    900 + cut);
        cut_shard = cut ? 1 : PLAN_NONE;
        for (int again = 0; again < 2; again++) { /* and with all of it found done */
            if (run_until(&p, text, assign_note, &err)) fail_msg("%s", err.text);
            assert_int_equal(p->warning != NULL, cut);
            if (cut) assert_non_null(strstr(p->warning, "1 of 2 shards is truncated"));
            if (cut) assert_non_null(strstr(p->warning, "shards/1.tar at byte 512)"));
            plan_close(&p);
        }
        free(text);
    }
    cut_shard = PLAN_NONE;
}

static char *spec_with(const char *data, unsigned seed)
{
    return mode_xasprintf("name: z\ncaptions: {seed: %u}\ndata: {train: \"many/{00..%s\nencoder: {dir: enc}\n"
                          "model: ViT-B-32\ntokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
                          "train: {batch: 100, seed_steps: 20, total_steps: 110}\n",
                          seed, data);
}

static enum mode_status run_bad(struct plan **p, const char *bad, const char *data, unsigned seed,
                                struct mode_error *err)
{
    char *text = spec_with(data, seed);
    bad_shards = bad;
    n_executed = 0;
    enum mode_status st = run_until(p, text, assign_note, err);
    bad_shards = "";
    free(text);
    return st;
}

static void test_shards_that_are_no_tar_are_left_out_where_the_spec_says_so(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct plan *p;
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/%02d.tar", i);
        put_file(name, "one of many");
    }
    /* by default it is a task that is given up */
    assert_int_equal(run_bad(&p, "3", "03}.tar\"}", 1, &err), MODE_OK);
    assert_true(plan_stuck(p));
    assert_int_equal(n_executed, 3 + 3); /* captions and vectors of the others */
    plan_close(&p);
    /* what those others have is found; the rest of the run is without the shard */
    assert_int_equal(run_bad(&p, "3", "03}.tar\", bad_shards: skip}", 1, &err), MODE_OK);
    assert_true(plan_finished(p));
    assert_int_equal(p->n_cached[PLAN_CAPTIONS], 3);
    assert_int_equal(p->n_cached[PLAN_EMBED], 3);
    assert_non_null(p->warning);
    assert_non_null(strstr(p->warning, "1 of 4 shards is skipped ("));
    assert_non_null(strstr(p->warning, "/many/03.tar: is not a tar): none of its samples is used or counted"));
    plan_close(&p);
    /* once more: nothing is tried again, and it is said again */
    assert_int_equal(run_bad(&p, "", "03}.tar\", bad_shards: skip}", 1, &err), MODE_OK);
    assert_true(plan_finished(p));
    assert_int_equal(n_executed, 0);
    assert_non_null(strstr(p->warning, "1 of 4 shards is skipped ("));
    plan_close(&p);
    /* and a run that does not leave out knows nothing of it */
    assert_int_equal(run_bad(&p, "3", "03}.tar\"}", 1, &err), MODE_OK);
    assert_true(plan_stuck(p));
    assert_null(p->warning);
    plan_close(&p);
    /* a whole copy: its own captions and vectors, and what saw it */
    put_file("many/03.tar", "a whole one");
    assert_int_equal(run_bad(&p, "", "03}.tar\", bad_shards: skip}", 1, &err), MODE_OK);
    assert_true(plan_finished(p));
    assert_null(p->warning);
    for (enum plan_stage s = PLAN_CAPTIONS; s <= PLAN_EMBED; s++) assert_int_equal(p->n_cached[s], 3);
    assert_int_equal(p->n_cached[PLAN_SEED], 0);
    plan_close(&p);
    /* with all good, the option is in no key but that of the report, which shows the spec */
    assert_int_equal(run_bad(&p, "", "03}.tar\"}", 1, &err), MODE_OK);
    assert_true(plan_finished(p));
    assert_int_equal(n_executed, 1);
    assert_int_equal(p->n_cached[PLAN_ENSEMBLE], 0);
    plan_close(&p);
}

static void test_too_many_shards_that_are_no_tar_are_a_wrong_source(void **state)
{
    (void)state;
    static const struct {
        const char *bad, *data, *says; /* NULL: the run is done */
    } cases[] = {
        {"0", "00}.tar\", bad_shards: skip}", "data.train: 1 of 1 shard is not a tar"},
        {"13", "03}.tar\", bad_shards: skip}", "data.train: 2 of 4 shards are not tars"},
        {"13", "19}.tar\", bad_shards: skip}", NULL},
        {"135", "19}.tar\", bad_shards: skip}", "data.train: 3 of 20 shards are not tars"},
        {"45", "03}.tar\", added: [new], bad_shards: skip}", "data.added, source 1: 2 of 2 shards are not tars"},
        {"06", "03}.tar\", added: [new, newer], bad_shards: skip}", "data.added, source 2: 1 of 1 shard is not a tar"},
        {"05", "03}.tar\", added: [new, newer], bad_shards: skip}", NULL},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int again = 0; again < 2; again++) { /* and where they are found left out */
            struct mode_error err = {0};
            struct plan *p;
            enum mode_status st = run_bad(&p, cases[i].bad, cases[i].data, 10 + i, &err);
            assert_int_equal(st, cases[i].says ? MODE_E_VALUE : MODE_OK);
            if (cases[i].says && !strstr(err.text, cases[i].says)) fail_msg("%s", err.text);
            if (!cases[i].says) assert_non_null(strstr(p->warning, "2 of "));
            if (!cases[i].says) assert_non_null(strstr(p->warning, "; and others): none of their samples"));
            plan_close(&p);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_keeps_the_inputs_it_was_planned_from),
        cmocka_unit_test(test_a_task_of_an_unknown_kind_is_left_out_of_its_folder),
        cmocka_unit_test(test_a_changed_parameter_redoes_only_what_depends_on_it),
        cmocka_unit_test(test_added_data_touch_nothing_that_exists),
        cmocka_unit_test(test_a_changed_shard_redoes_what_saw_it),
        cmocka_unit_test(test_what_is_behind_a_lost_task_is_lost_and_comes_back),
        cmocka_unit_test(test_shares_are_planned_from_the_commit_records),
        cmocka_unit_test(test_a_given_model_is_where_the_seed_begins),
        cmocka_unit_test(test_requests_of_a_run_that_begins_with_a_model),
        cmocka_unit_test(test_an_order_by_windows_is_in_the_requests),
        cmocka_unit_test(test_a_schedule_is_in_the_requests),
        cmocka_unit_test(test_a_seed_of_constant_rate_is_kept),
        cmocka_unit_test(test_patch_dropout_is_in_the_requests),
        cmocka_unit_test(test_locked_towers_are_in_the_requests),
        cmocka_unit_test(test_pools_are_checked_when_all_is_assigned),
        cmocka_unit_test(test_what_is_undone_is_done_again_and_counted_once),
        cmocka_unit_test(test_the_bytes_that_keys_are_made_of),
        cmocka_unit_test(test_a_warm_up_past_the_fork_is_said),
        cmocka_unit_test(test_what_does_not_fit_together_is_refused_by_its_key),
        cmocka_unit_test(test_shards_that_are_cut_short_are_said_once_all_are_read),
        cmocka_unit_test(test_shards_that_are_no_tar_are_left_out_where_the_spec_says_so),
        cmocka_unit_test(test_too_many_shards_that_are_no_tar_are_a_wrong_source),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
