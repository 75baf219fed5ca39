/* Training losses of every model over the optimizer steps. */
#include "pipeline/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS = 120 };

static int model_index(const struct mode_ensemble *e, const char *name)
{
    for (int m = 0; m < e->n_models; m++)
        if (strcmp(e->model[m], name) == 0) return m;
    return -1;
}

/* Means over groups of consecutive steps, of the same size for all curves: POINTS groups over `last` steps. Returns how
 * many this curve has. */
static int smooth(const struct mode_curve *c, double last, double *x, double *y)
{
    int group = last > POINTS ? (int)ceil(last / POINTS) : 1, n = 0;
    if (group < (c->n + POINTS - 1) / POINTS) group = (c->n + POINTS - 1) / POINTS;
    for (int i = 0; i < c->n; i += group, n++) {
        int end = i + group < c->n ? i + group : c->n;
        x[n] = y[n] = 0;
        for (int j = i; j < end; j++) {
            x[n] += c->step[j] / (end - i);
            y[n] += c->loss[j] / (end - i);
        }
    }
    return n;
}

/* Where the seed came from, if not from random weights. */
static void add_origin(struct mode_str *s, const struct mode_report *r)
{
    for (int i = 0; i < r->n_curves; i++) {
        const struct mode_curve *c = &r->curve[i];
        const char *init = json_string_value(json_object_get(c->train, "init"));
        double start = mode_curve_number(c, "start_step"), end = mode_curve_number(c, "end_step");
        if (!init || strcmp(c->model, "seed") != 0) continue;
        if (end > start)
            mode_str_printf(s,
                            "<p class=lead>The seed began with the model of <code>train.init</code>, not with random "
                            "weights, and was trained from step %.0f to %.0f. That model&rsquo;s weights: <code>",
                            start, end);
        else
            mode_str_printf(s,
                            "<p class=lead>The seed is the model of <code>train.init</code> as it was given, at step "
                            "%.0f; it was not trained here. Its weights: <code>",
                            start);
        mode_str_add_html(s, init);
        mode_str_add_cstr(s, "</code></p>\n");
    }
}

/* All models of a run have the same patch dropout; one that was imported has none. */
static void add_patch_dropout(struct mode_str *s, const struct mode_report *r)
{
    double share = 0;
    for (int i = 0; i < r->n_curves; i++) share = fmax(share, mode_curve_number(&r->curve[i], "patch_dropout"));
    if (share > 0)
        mode_str_printf(s,
                        "<p class=lead>Patch dropout: a step of training drops %g&nbsp;%% of every picture&rsquo;s "
                        "patches, at random; evaluation uses all of them (<code>train.patch_dropout</code>).</p>\n",
                        100 * share);
}

/* All models of a run are locked alike; one that was imported is not. */
static void add_lock(struct mode_str *s, const struct mode_report *r, const char *tower, const char *key,
                     const char *number, const char *part)
{
    const struct mode_curve *c = r->curve;
    while (c < r->curve + r->n_curves && !mode_curve_flag(c, key)) c++;
    if (c == r->curve + r->n_curves) return;
    const double n = mode_curve_number(c, number);
    mode_str_printf(
        s, "<p class=lead>The %s tower was locked in training: its weights are those of <code>train.init</code>",
        tower);
    if (n > 0) mode_str_printf(s, ", but those of its last %g %s%s", n, part, n > 1 ? "s" : "");
    mode_str_printf(s, " (<code>train.%s</code>).</p>\n", key);
}

static void section(struct mode_str *s, const struct mode_report *r, const struct mode_report_line *line, double last)
{
    const struct mode_report_chart chart = {
        .label = "training loss", .width = 1010, .height = 340, .last = last, .sign = ""};
    mode_str_add_cstr(s, "<section><h2>Training</h2>\n<p class=lead>Contrastive loss of the batches, "
                         "averaged over neighbouring steps. The experts and the dense "
                         "model go on from the same seed model. An expert&rsquo;s batches hold pairs of one "
                         "kind, which are harder to tell apart: its loss is not comparable with the "
                         "dense model&rsquo;s.</p>\n");
    add_origin(s, r);
    add_patch_dropout(s, r);
    add_lock(s, r, "image", "lock_image", "lock_image_unlocked_groups", "group");
    add_lock(s, r, "text", "lock_text", "lock_text_unlocked_layers", "layer");
    mode_str_add_cstr(s, "<div class=card>");
    mode_report_key(s, line, r->n_curves);
    mode_report_draw(s, &chart, line, r->n_curves);
    mode_str_add_cstr(s, "<details><summary>What each model was trained "
                         "on</summary><table><tr><th>model</th><th>pairs of its own</th><th>others per epoch</th>"
                         "<th>steps</th><th>pairs seen</th><th>final loss</th></tr>\n");
    for (int i = 0; i < r->n_curves; i++) {
        const struct mode_curve *c = &r->curve[i];
        mode_str_add_cstr(s, "<tr><td>");
        mode_str_add_html(s, c->model);
        mode_str_add_cstr(s, "</td><td>");
        mode_report_count(s, (int64_t)mode_curve_number(c, "in_cluster"));
        mode_str_add_cstr(s, "</td><td>");
        mode_report_count(s, (int64_t)mode_curve_number(c, "out_of_cluster_per_epoch"));
        mode_str_printf(s, "</td><td>%.0f to %.0f</td><td>", mode_curve_number(c, "start_step"),
                        mode_curve_number(c, "end_step"));
        mode_report_count(s, (int64_t)mode_curve_number(c, "samples_seen"));
        if (c->n)
            mode_str_printf(s, "</td><td>%.4f</td></tr>\n", mode_curve_number(c, "final_loss"));
        else
            mode_str_add_cstr(s, "</td><td></td></tr>\n");
    }
    mode_str_add_cstr(s, "</table></details></div>\n" MODE_REPORT_VALIDATION_MARK "</section>\n");
}

void mode_report_loss(struct mode_str *s, const struct mode_report *r)
{
    double(*point)[2][POINTS] = mode_xcalloc((size_t)r->n_curves + 1, sizeof *point), last = 1;
    struct mode_report_line *line = mode_xcalloc((size_t)r->n_curves + 1, sizeof *line);
    bool any = false;
    for (int i = 0; i < r->n_curves; i++)
        if (r->curve[i].n) last = fmax(last, r->curve[i].step[r->curve[i].n - 1]);
    for (int i = 0; i < r->n_curves; i++) {
        const int m = model_index(r->ensemble, r->curve[i].model);
        char buf[16];
        line[i] = (struct mode_report_line){.name = r->curve[i].model, /* a seed that was not trained has no points */
                                            .n = smooth(&r->curve[i], last, point[i][0], point[i][1]),
                                            .x = point[i][0],
                                            .y = point[i][1]};
        snprintf(line[i].colour, sizeof line[i].colour, "%s", m < 0 ? "xs" : mode_report_colour(r->ensemble, m, buf));
        for (int j = 0; j < line[i].n; j++) any |= isfinite(line[i].y[j]) != 0;
    }
    if (any) section(s, r, line, last);
    free(line);
    free(point);
}
