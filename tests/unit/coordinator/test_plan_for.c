/* The planner: experts for tasks (experts_for). */
#include "plan_runs.h"

#include "proto/embed.pb-c.h"

#define FOR "experts_for: "

/* An expert for tasks depends on their words, the clusters and the seed: it is added and removed alone. */
static void test_an_expert_for_tasks_touches_nothing_else(void **state)
{
    (void)state;
    struct what w = AS_BEFORE;
    unsigned got[PLAN_STAGES];
    w.captions_seed = "78"; /* a run of its own */
    run(got, w);
    w.more = FOR "[{name: t, tasks: t0}]\n"; /* the words are done; two tasks to evaluate it on */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 1});
    w.more = FOR "[{name: other, tasks: t0}]\n"; /* the same selection under another name is another model */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1});
    w.more = FOR "[{name: t, tasks: t0, nearest: 2}]\n";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 1});
    w.more = FOR "[{name: t, tasks: [t1, t0]}]\n";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 1});
    w.more = FOR "[{name: t, tasks: [t0, t1]}]\n"; /* in any order */
    run(got, w);
    assert_int_equal(got[PLAN_SELECT] + got[PLAN_SELECTED], 0);
    w.more = FOR "[{name: t, tasks: all}]\n";
    run(got, w);
    assert_int_equal(got[PLAN_SELECT] + got[PLAN_SELECTED], 0);
    put_file("some-names.txt", "kite\n");
    w.more = FOR "[{name: birds, classes: some-names.txt}]\n";
    expect(w, (unsigned[]){0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 1});
    w.router = "uniform";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
    w.router = "paper";
    w.lr = "3e-3"; /* changes all trainings, but not the selection */
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1, 10, 1});
    w.lr = "1e-3";
    w.added = ", added: [new]"; /* it uses data.train alone */
    run(got, w);
    assert_int_equal(got[PLAN_SELECT] + got[PLAN_SELECTED], 0);
    assert_int_equal(got[PLAN_EXPERTS], 1);
    w = (struct what)AS_BEFORE; /* back again */
    w.captions_seed = "78";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
}

static void test_other_words_that_choose_the_same_train_nothing(void **state)
{
    (void)state;
    struct what w = AS_BEFORE;
    unsigned got[PLAN_STAGES];
    w.captions_seed = "79";
    select_outcome = "clusters 2 and 5 of all: 64 bytes, as the commit record here say";
    w.more = FOR "[{name: t, tasks: t0}]\n";
    run(got, w);
    assert_int_equal(got[PLAN_SELECTED], 1);
    w.more = FOR "[{name: t, tasks: t1}]\n";
    expect(w, (unsigned[]){0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1});
    select_outcome = NULL;
}

/* The request of a training on selected clusters: that of an expert, except for the map. */
static void test_requests_of_an_expert_for_tasks(void **state)
{
    (void)state;
    for (int share = 0; share < 2; share++) {
        struct mode_error err = {0};
        struct plan *p;
        bool has_selection = false, has_parent = false;
        char *text = mode_xasprintf(
            "name: z\nseed: 620\ndata: {train: shards}\nencoder: {dir: enc, pooling: mean}\nmodel: ViT-B-32\n"
            "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\nevaluate: {tasks: tasks}\n"
            "train: {batch: 100, seed_steps: 10, total_steps: 110, expert_steps: %s}\n" FOR
            "[{name: t, tasks: [t1, t0]}, {name: u, classes: two.txt}]\n",
            share ? "share" : "same");
        put_file("two.txt", "kite\thobby\nrook\n");
        assert_int_equal(run_until(&p, text, assign_note, &err), MODE_OK);
        assert_int_equal(p->n_models, 6);
        for (uint32_t j = 0; j < 2; j++) {
            char *name = plan_model_name(p, 4 + j);
            assert_string_equal(name, j ? "u" : "t");
            assert_int_equal(plan_model_node(p, 4 + j), p->first[PLAN_SELECTED] + j);
            free(name);
        }
        const struct plan_node *x = &p->node[p->first[PLAN_SELECTED]], *select = &p->node[p->first[PLAN_SELECT]];
        assert_string_equal(x->label, "train/t");
        assert_string_equal(select->label, "select/t");
        Mode__TrainRequest *r = request_of(x);
        assert_string_equal(r->name, "t");
        assert_true(r->selected);
        assert_int_equal(r->expert, -1);
        assert_int_equal(r->start_step, 10);
        assert_int_equal(r->end_step, share ? 10 + 25 : 110); /* 250 of 1,000 pairs */
        mode__train_request__free_unpacked(r, NULL);
        Mode__TaskSpec *task;
        assert_int_equal(mode_store_task_get(store, &task, x->key, &err), MODE_OK);
        for (size_t i = 0; i < task->n_inputs; i++) {
            const char *name = task->inputs[i]->name;
            assert_string_not_equal(name, "centres");
            has_selection |= strcmp(name, "selection") == 0 &&
                             strcmp(task->inputs[i]->digest, plan_output(select, "selection.safetensors")->digest) == 0;
            has_parent |= strcmp(name, "parent/open_clip_model.safetensors") == 0;
        }
        assert_true(has_selection && has_parent);
        mode__task_spec__free_unpacked(task, NULL);
        /* centres, words of t0 before those of t1, assignments; names from a file separately */
        assert_int_equal(mode_store_task_get(store, &task, select->key, &err), MODE_OK);
        static const char *const inputs[] = {"centres", "words/0000", "words/0001", "assign/0000", "assign/0001"};
        assert_int_equal(task->n_inputs, 5);
        for (size_t i = 0; i < 5; i++) assert_string_equal(task->inputs[i]->name, inputs[i]);
        assert_string_equal(task->inputs[1]->digest,
                            plan_output(&p->node[p->first[PLAN_WORDS]], "feat.safetensors")->digest);
        mode__task_spec__free_unpacked(task, NULL);
        x = &p->node[plan_for_names_node(p, 1)];
        assert_string_equal(x->label, "names/u");
        assert_int_equal(mode_store_task_get(store, &task, x->key, &err), MODE_OK);
        Mode__EmbedRequest *e = mode__embed_request__unpack(NULL, task->request.len, task->request.data);
        assert_int_equal(e->n_texts, 3);
        assert_string_equal(e->texts[1], "hobby");
        assert_null(e->task_dir);
        mode__embed_request__free_unpacked(e, NULL);
        mode__task_spec__free_unpacked(task, NULL);
        plan_close(&p);
        free(text);
    }
}

static void test_what_words_choose_is_checked_before_it_is_trained_on(void **state)
{
    (void)state;
    static const struct {
        const char *note, *batch, *words;
    } cases[] = {
        {"{\"pairs\": 0}", "100",
         "words of t select clusters with 0 of the 1000 pairs, and 100 of the others per epoch"},
        {"{\"pairs\": 40}", "200",
         "with 40 of the 1000 pairs, and 96 of the others per epoch: too few for train.batch = 200"},
        {"{\"pairs\": 40}", "136", NULL},
        {"{}", "100", "select/t does not say how many pairs"},
    };
    const char *keep = select_note;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf(
            "name: z\nseed: %zu\ndata: {train: shards}\nencoder: {dir: enc, pooling: mean}\nmodel: ViT-B-32\n"
            "tokenizer: {merges: m.gz}\ncluster: {fine: 8, coarse: 2}\n"
            "evaluate: {tasks: tasks}\n" FOR "[{name: t, tasks: t0}]\n"
            "train: {batch: %s, out_ratio: 0.1, seed_steps: 10, total_steps: 110}\n",
            800 + i, cases[i].batch);
        select_note = cases[i].note;
        enum mode_status st = run_until(&p, text, assign_note, &err);
        assert_int_equal(st == MODE_OK, cases[i].words == NULL);
        if (cases[i].words && !strstr(err.text, cases[i].words)) fail_msg("%s", err.text);
        if (cases[i].words) assert_int_equal(p->n_done[PLAN_SELECTED], 0);
        assert_int_equal(plan_trained(p), !cases[i].words);
        plan_close(&p);
        free(text);
    }
    select_note = keep;
}

static void test_tasks_and_names_that_are_none_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *tasks, *experts, *words;
        enum mode_status st;
    } cases[] = {
        {"tasks", "[{name: t, tasks: t0},\n {name: u, tasks: [t0, t01]}]",
         "experts_for, line 9: u is for the task \"t01\", which is not among the 2 of evaluate.tasks; the nearest is "
         "t0",
         MODE_E_CONFIG},
        {"asked", "[{name: t, tasks: all}]",
         "experts_for, line 8: t is for all tasks with class names, and evaluate.tasks", MODE_E_CONFIG},
        {"tasks", "[{name: t, classes: empty.txt}]", "experts_for, line 8: the classes of t: ", MODE_E_CONFIG},
        {"tasks", "[{name: t, classes: gap.txt}]", "gap.txt: line 2 is blank", MODE_E_CONFIG},
        {"tasks", "[{name: t, classes: none.txt}]", "none.txt", MODE_E_NOINPUT},
    };
    put_file("asked/r/test/nshards.txt", "1");
    put_file("asked/r/dataset_type.txt", "retrieval\n");
    put_file("empty.txt", "");
    put_file("gap.txt", "kite\n\nrook\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mode_spec spec;
        struct mode_error err = {0};
        struct plan *p;
        char *text = mode_xasprintf("name: z\nseed: 3\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\n"
                                    "tokenizer: {merges: m.gz}\nevaluate: {tasks: %s}\nexperts_for: %s\n",
                                    cases[i].tasks, cases[i].experts);
        if (mode_spec_parse(&spec, text, folder, "spec", &err)) fail_msg("%s", err.text);
        assert_int_equal(plan_open(&p, &spec, store, &fake_world, NULL, NULL, &err), cases[i].st);
        if (!strstr(err.text, cases[i].words)) fail_msg("%s", err.text);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_expert_for_tasks_touches_nothing_else),
        cmocka_unit_test(test_other_words_that_choose_the_same_train_nothing),
        cmocka_unit_test(test_requests_of_an_expert_for_tasks),
        cmocka_unit_test(test_what_words_choose_is_checked_before_it_is_trained_on),
        cmocka_unit_test(test_tasks_and_names_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
