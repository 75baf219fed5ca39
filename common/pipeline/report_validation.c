/* Validation scores during training, inserted into a finished page. */
#include "base/file.h"
#include "pipeline/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scores { /* a chart line per row of the summary and model */
    const json_t *row;
    int n_rows, n_models;
    struct mode_report_line *line; /* [n_rows, n_models] */
    double last;                   /* the last step of any line */
    bool any;                      /* some model has validation results */
};

/* The rows of <model>.jsonl as a JSON array. Malformed lines are skipped; a missing file gives an empty array. */
static json_t *load(const char *dir, const char *model)
{
    char *path = mode_xasprintf("%s/%s.jsonl", dir, model), *text = NULL, *rest = NULL;
    json_t *rows = json_array();
    if (mode_file_read(path, 0, &text, NULL, NULL) == MODE_OK)
        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            json_t *row = json_loads(line, 0, NULL);
            if (json_is_number(json_object_get(row, "step")) && json_is_string(json_object_get(row, "dataset")))
                json_array_append(rows, row);
            json_decref(row);
        }
    free(path);
    free(text);
    return rows;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static void add_point(struct mode_report_line *l, double x, const json_t *share)
{
    l->x[l->n] = x;
    l->y[l->n++] = json_is_number(share) ? 100 * json_number_value(share) : NAN;
}

/* rows: the model's validation results. The last point of the line is its final score. */
static void fill(struct mode_report_line *l, const json_t *row, const json_t *rows, const json_t *train)
{
    const char *task = text_of(row, "task"), *metric = text_of(row, "metric");
    const size_t most = json_array_size(rows) + 1;
    const json_t *end = json_object_get(train, "end_step"),
                 *value = json_object_get(json_object_get(json_object_get(row, "models"), l->name), "value");
    const json_t *one;
    size_t i;
    l->x = mode_xcalloc(most, sizeof *l->x);
    l->y = mode_xcalloc(most, sizeof *l->y);
    json_array_foreach(rows, i, one) if (strcmp(text_of(one, "dataset"), task) == 0) add_point(
        l, json_number_value(json_object_get(one, "step")), json_object_get(json_object_get(one, "metrics"), metric));
    if (value && end) add_point(l, json_number_value(end), value);
}

/* Index of a task-specific model; -1: it is none. */
static int selected_at(const json_t *summary, const char *model)
{
    const json_t *x;
    size_t i;
    json_array_foreach(json_object_get(summary, "selected"), i,
                       x) if (strcmp(text_of(x, "name"), model) == 0) return (int)i;
    return -1;
}

static void open_scores(struct scores *x, const char *dir, const json_t *summary)
{
    json_t *models = json_object_get(summary, "train"), *train;
    const char *model;
    int m = 0;
    *x = (struct scores){.row = json_object_get(summary, "rows"), .n_models = (int)json_object_size(models), .last = 1};
    x->n_rows = (int)json_array_size(x->row);
    x->line = mode_xcalloc((size_t)x->n_rows * (size_t)x->n_models + 1, sizeof *x->line);
    json_object_foreach(models, model, train)
    {
        json_t *rows = load(dir, model);
        x->any |= json_array_size(rows) > 0;
        for (int r = 0; r < x->n_rows; r++) {
            struct mode_report_line *l = &x->line[r * x->n_models + m];
            l->name = model;
            int at;
            const int expert = strncmp(model, "expert-", 7) == 0 ? atoi(model + 7) : -1;
            if (expert >= 0)
                snprintf(l->colour, sizeof l->colour, "x%d", expert);
            else if ((at = selected_at(summary, model)) >= 0)
                snprintf(l->colour, sizeof l->colour, "y%d", at);
            else
                snprintf(l->colour, sizeof l->colour, "%s", strcmp(model, "dense") == 0 ? "xd" : "xs");
            fill(l, json_array_get(x->row, (size_t)r), rows, train);
            if (l->n) x->last = fmax(x->last, l->x[l->n - 1]);
        }
        json_decref(rows);
        m++;
    }
}

static void clear_lines(struct mode_report_line *line, int n)
{
    for (int i = 0; i < n; i++) {
        free(line[i].x);
        free(line[i].y);
    }
    free(line);
}

static bool is_retrieval(const json_t *row)
{
    return strstr(text_of(row, "metric"), "_retrieval_recall@") != NULL;
}

static double value_at(const struct mode_report_line *l, double step, int near)
{
    if (near < l->n && l->x[near] == step) return l->y[near]; /* usually all tasks have the same steps */
    for (int j = 0; j < l->n; j++)
        if (l->x[j] == step) return l->y[j];
    return NAN;
}

/* Every model's mean over the rows of one kind, of which there are *n. Steps that some of these rows lack are skipped.
 * name: the row's, if it is the only one. */
static struct mode_report_line *average(const struct scores *x, bool retrieval, int *n, const char **name)
{
    struct mode_report_line *mean = mode_xcalloc((size_t)x->n_models + 1, sizeof *mean);
    *n = 0;
    for (int r = 0; r < x->n_rows; r++) {
        const json_t *row = json_array_get(x->row, (size_t)r);
        if (is_retrieval(row) != retrieval) continue;
        for (int m = 0; m < x->n_models; m++) {
            const struct mode_report_line *l = &x->line[r * x->n_models + m];
            if (*n == 0) {
                mean[m] = *l;
                mean[m].x = mode_xcalloc((size_t)l->n + 1, sizeof *l->x);
                mean[m].y = mode_xcalloc((size_t)l->n + 1, sizeof *l->y);
                memcpy(mean[m].x, l->x, (size_t)l->n * sizeof *l->x);
            }
            for (int j = 0; j < mean[m].n; j++) mean[m].y[j] += value_at(l, mean[m].x[j], j);
        }
        *name = text_of(row, "dataset");
        ++*n;
    }
    for (int m = 0; m < x->n_models; m++)
        for (int j = 0; j < mean[m].n; j++) mean[m].y[j] /= *n;
    return mean;
}

static bool is_empty(const struct mode_report_line *line, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < line[i].n; j++)
            if (isfinite(line[i].y[j])) return false;
    return true;
}

static void add_chart(struct mode_str *s, const struct scores *x, const struct mode_report_line *line,
                      const char *title, int width, int height)
{
    const struct mode_report_chart chart = {
        .label = title, .width = width, .height = height, .last = x->last, .dots = true, .sign = "%"};
    if (is_empty(line, x->n_models)) return;
    mode_str_add_cstr(s, "<div><h3>");
    mode_str_add_html(s, title);
    mode_str_add_cstr(s, "</h3>\n");
    mode_report_draw(s, &chart, line, x->n_models);
    mode_str_add_cstr(s, "</div>\n");
}

static void add_average(struct mode_str *s, const struct scores *x, bool retrieval)
{
    int n;
    const char *name = "";
    struct mode_report_line *mean = average(x, retrieval, &n, &name);
    char *title = n == 1 ? mode_xstrdup(name)
                         : mode_xasprintf("Mean of %d %s rows", n, retrieval ? "retrieval" : "classification");
    if (n) add_chart(s, x, mean, title, 1010, 260);
    clear_lines(mean, x->n_models);
    free(title);
}

static void add_rows(struct mode_str *s, const struct scores *x)
{
    mode_str_add_cstr(s, "<details><summary>Row by row</summary><div class=charts>\n");
    for (int r = 0; r < x->n_rows; r++) {
        const json_t *row = json_array_get(x->row, (size_t)r);
        const char *name = text_of(row, "dataset"), *metric = text_of(row, "metric");
        char *title = strcmp(metric, "acc1") == 0 || is_retrieval(row) ? mode_xstrdup(name)
                                                                       : mode_xasprintf("%s, %s", name, metric);
        add_chart(s, x, &x->line[r * x->n_models], title, 340, 190);
        free(title);
    }
    mode_str_add_cstr(s, "</div></details>");
}

void mode_report_validation(struct mode_str *s, const char *dir, const json_t *summary)
{
    struct scores x;
    open_scores(&x, dir, summary);
    if (x.any && x.n_rows) {
        mode_str_add_cstr(s,
                          "<h3>Results while they trained</h3>\n<p class=lead>The rows of the tasks as every model "
                          "scored them on its way (<code>train.evaluate_steps</code>), percent; its last point is the "
                          "result above. An expert sees one kind of pairs: alone it may fall behind on tasks of other "
                          "kinds, which is what the others are for.</p>\n<div class=card>");
        mode_report_key(s, x.line, x.n_models);
        add_average(s, &x, false);
        add_average(s, &x, true);
        if (x.n_rows > 1) add_rows(s, &x);
        mode_str_add_cstr(s, "</div>\n");
    }
    clear_lines(x.line, x.n_rows * x.n_models);
}
