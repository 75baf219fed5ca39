/* Training losses of every model over the steps of the schedule. */
#include "pipeline/report_parts.h"

#include <math.h>
#include <string.h>

enum { LEFT = 46, RIGHT = 1000, WIDTH = 1010, TOP = 12, BOTTOM = 300, HEIGHT = 340, POINTS = 120 };

static int model_index(const struct mode_ensemble *e, const char *name)
{
    for (int m = 0; m < e->n_models; m++)
        if (strcmp(e->model[m], name) == 0) return m;
    return -1;
}

/* Means over groups of neighbouring steps, the same for all curves: POINTS of them over `last` steps. Returns
 * how many. */
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

void mode_report_loss(struct mode_str *s, const struct mode_report *r)
{
    double x[POINTS], y[POINTS], last = 1, lo = INFINITY, hi = -INFINITY;
    char buf[16];
    for (int i = 0; i < r->n_curves; i++)
        if (r->curve[i].n) last = fmax(last, r->curve[i].step[r->curve[i].n - 1]);
    for (int i = 0; i < r->n_curves; i++) {
        int n = smooth(&r->curve[i], last, x, y);
        for (int j = 0; j < n; j++) {
            if (!isfinite(y[j])) continue;
            lo = fmin(lo, y[j]);
            hi = fmax(hi, y[j]);
        }
    }
    if (!r->n_curves || !(hi >= lo)) return;
    double tick = mode_report_tick(hi > lo ? hi - lo : 1, 6), bottom = floor(lo / tick) * tick,
           top = ceil(hi / tick) * tick;
    if (top <= bottom) top = bottom + tick;
    double xtick = mode_report_tick(last, 9);
    mode_str_add_cstr(s, "<section><h2>Training</h2>\n<p class=lead>Contrastive loss of the batches, "
                         "averaged over neighbouring steps. The experts and the dense "
                         "model go on from the same seed model. An expert&rsquo;s batches hold pairs of one "
                         "kind, which are harder to tell apart: its loss is not comparable with the "
                         "dense model&rsquo;s.</p>\n");
    add_origin(s, r);
    mode_str_add_cstr(s, "<div class=card><div class=key>");
    for (int i = 0; i < r->n_curves; i++) {
        if (!r->curve[i].n) continue; /* a seed that was not trained */
        int m = model_index(r->ensemble, r->curve[i].model);
        mode_str_printf(s, "<span class=\"%s\"><i class=chip></i>",
                        m < 0 ? "xs" : mode_report_colour(r->ensemble, m, buf));
        mode_str_add_html(s, r->curve[i].model);
        mode_str_add_cstr(s, "</span>");
    }
    mode_str_printf(s, "</div><svg viewBox=\"0 0 %d %d\" role=img aria-label=\"training loss\">\n", WIDTH, HEIGHT);
    for (int i = 0; i * tick <= top - bottom + tick / 2; i++) {
        double v = bottom + i * tick, py = BOTTOM - (BOTTOM - TOP) * (v - bottom) / (top - bottom);
        mode_str_printf(s,
                        "<path class=grid d=\"M%d %.1fH%d\"/><text class=soft x=\"%d\" y=\"%.1f\" "
                        "text-anchor=end>%.3g</text>\n",
                        LEFT, py, RIGHT, LEFT - 8, py + 4, v);
    }
    for (double v = 0; v <= last; v += xtick)
        mode_str_printf(s, "<text class=soft x=\"%.1f\" y=\"%d\" text-anchor=%s>%.0f</text>\n",
                        LEFT + (RIGHT - LEFT) * v / last, BOTTOM + 20, v > 0.97 * last ? "end" : "middle", v);
    mode_str_printf(s, "<text class=soft x=\"%d\" y=\"%d\" text-anchor=end>optimizer steps</text>\n", RIGHT,
                    BOTTOM + 36);
    for (int i = 0; i < r->n_curves; i++) {
        if (!r->curve[i].n) continue;
        int m = model_index(r->ensemble, r->curve[i].model), n = smooth(&r->curve[i], last, x, y);
        const char *colour = m < 0 ? "xs" : mode_report_colour(r->ensemble, m, buf);
        bool started = false;
        mode_str_printf(s, "<path class=\"stroke %s\" stroke-width=\"1.8\" stroke-linejoin=round d=\"", colour);
        for (int j = 0; j < n; j++) {
            if (!isfinite(y[j])) continue;
            mode_str_printf(s, "%s%.1f %.1f", started ? "L" : "M", LEFT + (RIGHT - LEFT) * x[j] / last,
                            BOTTOM - (BOTTOM - TOP) * (y[j] - bottom) / (top - bottom));
            started = true;
        }
        mode_str_add_cstr(s, "\"><title>");
        mode_str_add_html(s, r->curve[i].model);
        mode_str_add_cstr(s, "</title></path>\n");
    }
    mode_str_add_cstr(s, "</svg>\n<details><summary>What each model was trained "
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
    mode_str_add_cstr(s, "</table></details></div></section>\n");
}
