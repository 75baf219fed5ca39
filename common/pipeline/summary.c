/* summary.json: the report's numbers for scripts. */
#include "base/file.h"
#include "base/str.h"
#include "pipeline/report_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *score(const struct mode_outcome *o, double chance)
{
    double error, v = mode_outcome_mean(o, &error);
    json_t *j = json_object();
    json_object_set_new(j, "value", real(v));
    json_object_set_new(j, "standard_error", real(error));
    json_object_set_new(j, "above_chance", json_boolean(v - chance > 2 * error));
    return j;
}

static json_t *rows_of(const struct mode_ensemble *e)
{
    json_t *all = json_array();
    for (int r = 0; r < e->n_rows; r++) {
        const struct mode_ensemble_row *row = &e->row[r];
        json_t *o = json_object(), *models = json_object(), *routers = json_object();
        json_object_set_new(o, "dataset", json_string(row->dataset));
        json_object_set_new(o, "task", json_string(e->task[row->task].name));
        json_object_set_new(o, "metric", json_string(mode_measure_name(row->measure)));
        json_object_set_new(o, "num_classes", json_integer(row->n_classes));
        json_object_set_new(o, "samples", json_integer(row->router[0].n));
        json_object_set_new(o, "chance", real(row->chance));
        for (int m = 0; m < e->n_models; m++)
            json_object_set_new(models, e->model[m], score(&row->model[m], row->chance));
        for (int k = 0; k < MODE_ROUTER_COUNT; k++)
            json_object_set_new(routers, mode_router_name((enum mode_router)k), score(&row->router[k], row->chance));
        json_object_set_new(o, "models", models);
        json_object_set_new(o, "ensembles", routers);
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *tasks_of(const struct mode_ensemble *e)
{
    json_t *all = json_array();
    for (int t = 0; t < e->n_tasks; t++) {
        const struct mode_ensemble_task *x = &e->task[t];
        json_t *o = json_object(), *models = json_object(), *routers = json_object();
        json_object_set_new(o, "task", json_string(x->name));
        json_object_set_new(o, "kind", json_string(mode_task_kind_name(x->kind)));
        json_object_set_new(o, "images", json_integer(x->n_images));
        json_object_set_new(o, x->kind == MODE_TASK_RETRIEVAL ? "texts" : "classes", json_integer(x->n_columns));
        for (int m = 0; m < e->n_models; m++) json_object_set(models, e->model[m], x->model_metrics[m]);
        for (int k = 0; k < MODE_ROUTER_COUNT; k++)
            json_object_set(routers, mode_router_name((enum mode_router)k), x->router_metrics[k]);
        json_object_set_new(o, "models", models);
        json_object_set_new(o, "ensembles", routers);
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *against_of(const char *name, const struct mode_comparison *c)
{
    static const char *const verdict[] = {"worse", "not_distinguishable", "better"};
    json_t *j = json_object();
    char *sentence = mode_comparison_sentence(c);
    json_object_set_new(j, "than", json_string(c->than));
    json_object_set_new(j, "difference", real(c->difference));
    json_object_set_new(j, "standard_error", real(c->error));
    json_object_set_new(j, "wins", json_integer(c->wins));
    json_object_set_new(j, "ties", json_integer(c->ties));
    json_object_set_new(j, "losses", json_integer(c->losses));
    json_object_set_new(j, "verdict", json_string(verdict[mode_comparison_verdict(c) + 1]));
    json_object_set_new(j, "sentence", json_sprintf("%s %s.", name, sentence));
    free(sentence);
    return j;
}

static json_t *routers_of(const struct mode_ensemble *e, enum mode_family family)
{
    json_t *all = json_object();
    for (int k = 0; k < MODE_ROUTER_COUNT; k++) {
        struct mode_comparison c[3];
        int best, n = mode_ensemble_compare(e, family, (enum mode_router)k, c, &best);
        json_t *o = json_object(), *against = json_array();
        json_object_set_new(o, "average", real(mode_ensemble_router_average(e, family, (enum mode_router)k)));
        json_object_set_new(o, "mean_entropy", real(mode_ensemble_entropy(e, family, (enum mode_router)k)));
        for (int i = 0; i < n; i++) {
            char *name = mode_ensemble_name(e, (enum mode_router)k);
            json_array_append_new(against, against_of(name, &c[i]));
            free(name);
        }
        json_object_set_new(o, "against", against);
        json_object_set_new(all, mode_router_name((enum mode_router)k), o);
    }
    return all;
}

static json_t *ledger_of(const struct mode_corpus *c)
{
    json_t *o = json_object(), *fates = json_object(), *experts = json_array(), *fine = json_array();
    int64_t sum = 0, most = 0, least = INT64_MAX;
    for (int k = 0; k < MODE_FATE_COUNT; k++)
        json_object_set_new(fates, mode_fate_name((enum mode_fate)k), json_integer(c->fate[k]));
    for (int i = 0; i < c->n; i++) {
        json_t *x = json_object(), *words = json_array();
        json_object_set_new(x, "rows", json_integer(c->expert[i].rows));
        json_object_set_new(x, "fine_clusters", json_integer(c->expert[i].n_fine));
        for (int w = 0; w < c->expert[i].n_words; w++) {
            json_t *word = json_string(c->expert[i].word[w].text);
            if (word) json_array_append_new(words, word);
        }
        json_object_set_new(x, "words", words);
        json_array_append_new(experts, x);
        sum += c->expert[i].rows;
    }
    for (int i = 0; i < c->m; i++) {
        json_array_append_new(fine, json_integer(c->fine_rows[i]));
        most = c->fine_rows[i] > most ? c->fine_rows[i] : most;
        least = c->fine_rows[i] < least ? c->fine_rows[i] : least;
    }
    json_object_set_new(o, "shards", json_integer(c->n_shards));
    json_object_set_new(o, "cut_shards", json_integer(c->cut_shards));
    if (c->bad_shards) json_object_set_new(o, "bad_shards", json_integer(c->bad_shards));
    json_object_set_new(o, "samples", json_integer(c->samples));
    json_object_set_new(o, "kept", json_integer(c->rows));
    json_object_set_new(o, "fates", fates);
    json_object_set_new(o, "reconciles", json_boolean(sum == c->rows && c->fate[MODE_FATE_KEPT] == c->rows));
    json_object_set_new(o, "experts", experts);
    json_object_set_new(o, "fine_rows_largest", json_integer(most));
    json_object_set_new(o, "fine_rows_smallest", json_integer(least));
    json_object_set_new(o, "fine_rows", fine);
    return o;
}

/* Task-specific models, compared on the rows of their tasks. */
static json_t *selected_of(const struct mode_report *r)
{
    json_t *all = json_array();
    for (int j = 0; j < r->n_selected; j++) {
        const struct mode_report_selected *x = &r->selected[j];
        const char *name = r->ensemble->model[x->model];
        json_t *o = json_object(), *tasks = json_array(), *against = json_array();
        for (int i = 0; i < x->n_tasks; i++) json_array_append_new(tasks, json_string(x->task[i]));
        for (int k = 0; k < MODE_FAMILY_COUNT; k++) {
            struct mode_comparison c[2];
            const int n = mode_ensemble_compare_model(r->ensemble, (enum mode_family)k, x->model, x->task, x->n_tasks,
                                                      c);
            for (int i = 0; i < n; i++) {
                json_t *one = against_of(name, &c[i]);
                json_object_set_new(one, "kind", json_string(mode_family_name((enum mode_family)k)));
                json_array_append_new(against, one);
            }
        }
        json_object_set_new(o, "name", json_string(name));
        json_object_set_new(o, "tasks", tasks);
        if (x->n_among) json_object_set_new(o, "fine_clusters", json_integer(x->n_fine));
        if (r->corpus && x->n_among) json_object_set_new(o, "rows", json_integer(x->rows));
        json_object_set_new(o, "against", against);
        json_array_append_new(all, o);
    }
    return all;
}

/* Keys of classification have no suffix; those of retrieval have one. */
static void set_of(json_t *o, const char *key, enum mode_family family, json_t *value)
{
    char *name = mode_xasprintf("%s%s", key, family == MODE_FAMILY_RETRIEVAL ? "_retrieval" : "");
    json_object_set_new(o, name, value);
    free(name);
}

static void add_averages(json_t *o, const struct mode_ensemble *e, enum mode_family family)
{
    struct mode_comparison c[3];
    int best;
    if (!mode_ensemble_compare(e, family, e->router, c, &best)) return;
    json_t *averages = json_object();
    set_of(o, "best_single_expert", family, json_string(e->model[best]));
    for (int m = 0; m < e->n_models; m++)
        json_object_set_new(averages, e->model[m], real(mode_ensemble_model_average(e, family, m)));
    json_object_set_new(averages, "all_unit", real(mode_ensemble_router_average(e, family, MODE_ROUTER_UNIFORM)));
    json_object_set_new(averages, "ensemble", real(mode_ensemble_router_average(e, family, e->router)));
    set_of(o, "averages", family, averages);
    set_of(o, "routers", family, routers_of(e, family));
}

enum mode_status mode_summary_write(const struct mode_report *r, const char *path, struct mode_error *err)
{
    const struct mode_ensemble *e = r->ensemble;
    json_t *o = json_object(), *train = json_object();
    json_object_set_new(o, "run", json_string(r->run_name));
    json_object_set_new(o, "router", json_string(mode_router_name(e->router)));
    json_object_set_new(o, "experts", json_integer(e->n));
    if (e->top_experts) json_object_set_new(o, "top_experts", json_integer(e->top_experts));
    for (int k = 0; k < MODE_FAMILY_COUNT; k++) add_averages(o, e, (enum mode_family)k);
    if (r->n_selected) json_object_set_new(o, "selected", selected_of(r));
    json_object_set_new(o, "rows", rows_of(e));
    json_object_set_new(o, "tasks", tasks_of(e));
    if (r->n_skipped) {
        json_t *skipped = json_array();
        for (int i = 0; i < r->n_skipped; i++) json_array_append_new(skipped, json_string(r->skipped[i]));
        json_object_set_new(o, "skipped", skipped);
    }
    json_object_set_new(o, "experts_added", json_integer(mode_centres_added(&e->centres)));
    json_object_set_new(o, "certificate", json_loads(e->centres.certificate, 0, NULL));
    if (r->corpus) json_object_set_new(o, "ledger", ledger_of(r->corpus));
    for (int i = 0; i < r->n_curves; i++)
        if (r->curve[i].train) json_object_set(train, r->curve[i].model, r->curve[i].train);
    json_object_set_new(o, "train", train);
    char *dump = json_dumps(o, MODE_SUMMARY_JSON);
    json_decref(o);
    if (!dump) return MODE_FAIL(err, MODE_E_VALUE, "%s: a name in the run is not UTF-8", path);
    enum mode_status st = mode_file_write_atomic(path, dump, strlen(dump), err);
    free(dump);
    return st;
}
