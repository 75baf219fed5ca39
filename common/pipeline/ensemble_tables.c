/* result.csv and weights.json, and comparisons of systems over all rows. */
#include "base/file.h"
#include "base/str.h"
#include "pipeline/ensemble.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double percent(const struct mode_outcome *o)
{
    return 100 * mode_outcome_mean(o, NULL);
}

static void add_field(struct mode_str *s, const char *text)
{
    if (!strpbrk(text, ",\"\n\r")) {
        mode_str_printf(s, ",%s", text);
        return;
    }
    mode_str_add_cstr(s, ",\"");
    for (; *text; text++) {
        if (*text == '"') mode_str_add_char(s, '"');
        mode_str_add_char(s, *text);
    }
    mode_str_add_char(s, '"');
}

enum mode_status mode_ensemble_write_csv(const struct mode_ensemble *e, const char *path, struct mode_error *err)
{
    int extra = e->n_models - e->n, n_values = e->n + 3 + extra;
    double *sums = mode_xcalloc(MODE_FAMILY_COUNT * (size_t)n_values, sizeof *sums);
    struct mode_str s = {0};
    mode_str_add_cstr(&s, ",dataset,num_classes");
    for (int c = 0; c < e->n; c++) mode_str_printf(&s, ",expert-%d", c);
    mode_str_add_cstr(&s, ",expert-max,all_unit,ensemble");
    for (int m = e->n; m < e->n_models; m++) mode_str_printf(&s, ",%s", e->model[m]);
    mode_str_add_cstr(&s, ",metric\n");
    for (int r = 0; r < e->n_rows; r++) {
        const struct mode_ensemble_row *row = &e->row[r];
        double *value = mode_xcalloc((size_t)n_values, sizeof *value), *v = value, top = -1,
               *sum = sums + row->family * n_values;
        for (int c = 0; c < e->n; c++, v++) {
            *v = percent(&row->model[c]);
            top = *v > top ? *v : top;
        }
        *v++ = top;
        *v++ = percent(&row->router[MODE_ROUTER_UNIFORM]);
        *v++ = percent(&row->router[e->router]);
        for (int m = e->n; m < e->n_models; m++) *v++ = percent(&row->model[m]);
        mode_str_printf(&s, "%d", r);
        add_field(&s, row->dataset);
        mode_str_printf(&s, ",%lld", (long long)row->n_classes);
        for (int i = 0; i < n_values; i++) {
            mode_str_printf(&s, ",%.4f", value[i]);
            sum[i] += value[i];
        }
        mode_str_printf(&s, ",%s\n", mode_measure_name(row->measure));
        free(value);
    }
    for (int k = MODE_FAMILY_COUNT - 1, line = e->n_rows; k >= 0; k--) { /* classification last, as in the reference */
        const int n_rows = mode_ensemble_rows(e, (enum mode_family)k);
        const double *sum = sums + k * n_values;
        if (!n_rows) continue;
        mode_str_printf(&s, "%d,average%s,", line++, k == MODE_FAMILY_RETRIEVAL ? "_retrieval" : "");
        for (int i = 0; i < n_values; i++) mode_str_printf(&s, ",%.4f", sum[i] / n_rows);
        mode_str_add_cstr(&s, ",\n");
    }
    enum mode_status st = mode_file_write_atomic(path, s.data, s.len, err);
    mode_str_clear(&s);
    free(sums);
    return st;
}

static json_t *numbers(const double *v, int n)
{
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, json_real(v[i]));
    return a;
}

/* A JSON string; if s is not UTF-8, its bytes >= 0x80 become "?". */
static json_t *text(const char *s)
{
    json_t *j = json_string(s);
    if (j) return j;
    char *copy = mode_xstrdup(s);
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    j = json_string(copy);
    free(copy);
    return j;
}

enum mode_status mode_ensemble_write_weights(const struct mode_ensemble *e, const char *path, struct mode_error *err)
{
    json_t *all = json_object(), *tasks = json_array();
    json_object_set_new(all, "experts", json_integer(e->n));
    json_object_set_new(all, "router", json_string(mode_router_name(e->router)));
    json_object_set_new(all, "max_entropy", json_real(log(e->n)));
    json_t *params = json_object();
#define X(name, value, least, most, help) json_object_set_new(params, #name, json_real(e->params.name));
    MODE_ROUTER_PARAMS(X)
#undef X
    json_object_set_new(all, "params", params);
    json_object_set_new(all, "top_experts", json_integer(e->top_experts));
    json_object_set_new(all, "tasks", tasks);
    for (int t = 0; t < e->n_tasks; t++) {
        const struct mode_ensemble_task *x = &e->task[t];
        json_t *o = json_object(), *routers = json_object(), *words = json_array();
        json_object_set_new(o, "task", text(x->name));
        json_object_set_new(o, "kind", json_string(mode_task_kind_name(x->kind)));
        for (int r = 0; r < MODE_ROUTER_COUNT; r++) {
            json_t *w = json_object();
            json_object_set_new(w, "weights", numbers(x->weight[r], e->n));
            json_object_set_new(w, "entropy", json_real(x->entropy[r]));
            json_object_set_new(routers, mode_router_name((enum mode_router)r), w);
        }
        json_object_set_new(o, "routers", routers);
        for (int i = 0; i < x->near.k; i++) {
            json_t *w = json_object();
            json_object_set_new(w, "word", text(x->word[i]));
            json_object_set_new(w, "fine", json_integer(x->near.fine_id[i]));
            json_object_set_new(w, "expert", json_integer(x->near.expert[i]));
            json_object_set_new(w, "distance", json_real((double)x->near.distance[i]));
            json_array_append_new(words, w);
        }
        json_object_set_new(o, "words", words);
        json_array_append_new(tasks, o);
    }
    char *dump = json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(all);
    MODE_ASSERT(dump);
    enum mode_status st = mode_file_write_atomic(path, dump, strlen(dump), err);
    free(dump);
    return st;
}

struct mode_comparison mode_compare(const char *than, const struct mode_outcome *const *a,
                                    const struct mode_outcome *const *b, int n_rows)
{
    struct mode_comparison c = {.than = than, .row = "row", .n_rows = n_rows};
    double var = 0;
    for (int r = 0; r < n_rows; r++) {
        double error, d = 100 * mode_outcome_difference(a[r], b[r], &error);
        c.mine += percent(a[r]) / n_rows;
        c.other += percent(b[r]) / n_rows;
        c.difference += d / n_rows;
        var += 1e4 * error * error;
        c.wins += d > 1e-9;
        c.losses += d < -1e-9;
        c.ties += fabs(d) <= 1e-9;
    }
    c.error = sqrt(var) / n_rows;
    return c;
}

int mode_comparison_verdict(const struct mode_comparison *c)
{
    if (c->difference > 2 * c->error && c->difference > 0) return 1;
    if (c->difference < -2 * c->error && c->difference < 0) return -1;
    return 0;
}

char *mode_comparison_sentence(const struct mode_comparison *c)
{
    int v = mode_comparison_verdict(c);
    const char *verb = v > 0               ? "beats"
                       : v < 0             ? "is worse than"
                       : c->difference > 0 ? "is ahead of, but not distinguishable from,"
                       : c->difference < 0 ? "is behind, but not distinguishable from,"
                                           : "equals";
    return mode_xasprintf(
        "%s %s: %+.2f ± %.2f points (%.2f against %.2f; better on %d, equal on %d, worse on %d of %d %s%s)", verb,
        c->than, c->difference, c->error, c->mine, c->other, c->wins, c->ties, c->losses, c->n_rows, c->row,
        MODE_PLURAL(c->n_rows));
}

static const char *row_of(enum mode_family family)
{
    static const char *const row[] = {
#define X(name, text) text " row",
        MODE_FAMILY_MAP(X)
#undef X
    };
    return row[family];
}

const char *mode_family_name(enum mode_family family)
{
    static const char *const names[] = {
#define X(name, text) text,
        MODE_FAMILY_MAP(X)
#undef X
    };
    return names[family];
}

int mode_ensemble_rows(const struct mode_ensemble *e, enum mode_family family)
{
    int n = 0;
    for (int r = 0; r < e->n_rows; r++) n += e->row[r].family == family;
    return n;
}

double mode_ensemble_model_average(const struct mode_ensemble *e, enum mode_family family, int model)
{
    double s = 0;
    for (int r = 0; r < e->n_rows; r++)
        if (e->row[r].family == family) s += percent(&e->row[r].model[model]);
    return s / mode_ensemble_rows(e, family);
}

double mode_ensemble_router_average(const struct mode_ensemble *e, enum mode_family family, enum mode_router router)
{
    double s = 0;
    for (int r = 0; r < e->n_rows; r++)
        if (e->row[r].family == family) s += percent(&e->row[r].router[router]);
    return s / mode_ensemble_rows(e, family);
}

double mode_ensemble_entropy(const struct mode_ensemble *e, enum mode_family family, enum mode_router router)
{
    double s = 0;
    for (int r = 0; r < e->n_rows; r++) /* every task of a family has the same number of rows */
        if (e->row[r].family == family) s += e->task[e->row[r].task].entropy[router];
    return s / mode_ensemble_rows(e, family);
}

bool mode_ensemble_is_approximate(const struct mode_ensemble *e, enum mode_router router)
{
    return mode_router_top(router, e->top_experts) > 0;
}

char *mode_ensemble_name(const struct mode_ensemble *e, enum mode_router router)
{
    return mode_ensemble_is_approximate(e, router)
               ? mode_xasprintf("The ensemble (approximate: %d of %d experts)", e->top_experts, e->n)
               : mode_xstrdup("The ensemble");
}

int mode_ensemble_compare(const struct mode_ensemble *e, enum mode_family family, enum mode_router router,
                          struct mode_comparison out[3], int *best)
{
    const size_t all = (size_t)e->n_rows;
    const struct mode_outcome **mine, **other[3];
    const char *than[3];
    int n = 0, n_rows = 0;
    *best = 0;
    if (!mode_ensemble_rows(e, family)) return 0;
    for (int c = 1; c < e->n; c++)
        if (mode_ensemble_model_average(e, family, c) > mode_ensemble_model_average(e, family, *best)) *best = c;
    if (e->dense >= 0) than[n++] = "the dense model";
    than[n++] = "the plain average of the experts";
    than[n++] = "the best single expert";
    mine = mode_xcalloc(all, sizeof *mine);
    for (int i = 0; i < n; i++) other[i] = mode_xcalloc(all, sizeof **other);
    for (int r = 0; r < e->n_rows; r++) {
        const struct mode_ensemble_row *row = &e->row[r];
        if (row->family != family) continue;
        mine[n_rows] = &row->router[router];
        if (e->dense >= 0) other[0][n_rows] = &row->model[e->dense];
        other[n - 2][n_rows] = &row->router[MODE_ROUTER_UNIFORM];
        other[n - 1][n_rows++] = &row->model[*best];
    }
    for (int i = 0; i < n; i++) {
        out[i] = mode_compare(than[i], mine, other[i], n_rows);
        out[i].row = row_of(family);
        free(other[i]);
    }
    free(mine);
    return n;
}

static bool is_of(const char *name, const char *const *task, int n_tasks)
{
    for (int i = 0; i < n_tasks; i++)
        if (strcmp(task[i], name) == 0) return true;
    return n_tasks == 0;
}

int mode_ensemble_compare_model(const struct mode_ensemble *e, enum mode_family family, int model,
                                const char *const *task, int n_tasks, struct mode_comparison out[2])
{
    const size_t all = (size_t)e->n_rows + 1;
    const struct mode_outcome **mine = mode_xcalloc(all, sizeof *mine), **dense = mode_xcalloc(all, sizeof *dense),
                              **ensemble = mode_xcalloc(all, sizeof *ensemble);
    int n = 0, n_rows = 0;
    for (int r = 0; r < e->n_rows; r++) {
        const struct mode_ensemble_row *row = &e->row[r];
        if (row->family != family || !is_of(e->task[row->task].name, task, n_tasks)) continue;
        mine[n_rows] = &row->model[model];
        if (e->dense >= 0) dense[n_rows] = &row->model[e->dense];
        ensemble[n_rows++] = &row->router[e->router];
    }
    if (n_rows && e->dense >= 0) out[n++] = mode_compare("the dense model", mine, dense, n_rows);
    if (n_rows) out[n++] = mode_compare("the ensemble", mine, ensemble, n_rows);
    for (int i = 0; i < n; i++) out[i].row = row_of(family);
    free(mine);
    free(dense);
    free(ensemble);
    return n;
}
