/* Every row: the ensemble and the dense model as bars with their standard errors, the experts as dots. */
#include "pipeline/report_parts.h"

#include <math.h>

/* In a wide drawing a row's name, bars and numbers stand beside each other, in a narrow one the bars and numbers below
 * the name. */
struct layout {
    const char *css;
    int left, right;           /* x of 0 and of 100 percent */
    int width, top, row, bars; /* of the drawing; above the first row; a row's height; its bars begin so far down */
    int ensemble, dense, difference; /* x of the numbers */
    const char *anchor;              /* of the difference */
};
static const struct layout layouts[] = {{"wide", 250, 750, 1010, 26, 40, 0, 776, 850, 908, "start"},
                                        {"narrow", 0, 212, 340, 42, 72, 32, 236, 302, 340, "end"}};

static double at(const struct layout *l, double percent)
{
    return l->left + (l->right - l->left) * percent / 100;
}

static void bar(struct mode_str *s, const struct layout *l, const struct mode_outcome *o, double y, double height,
                const char *colour)
{
    double error, v = 100 * mode_outcome_mean(o, &error), lo = fmax(0, v - 100 * error),
                  hi = fmin(100, v + 100 * error);
    mode_str_printf(s,
                    "<rect class=\"fill %s\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" "
                    "opacity=\".88\"/>"
                    "<path d=\"M%.1f %.1fH%.1f\" stroke=\"currentColor\" stroke-width=\"1\" opacity=\".55\"/>\n",
                    colour, l->left, y, at(l, v) - l->left, height, at(l, lo), y + height / 2, at(l, hi));
}

static void draw_bars(struct mode_str *s, const struct layout *l, const struct mode_ensemble *e,
                      const struct mode_ensemble_row *row, double y)
{
    char buf[16];
    bar(s, l, &row->router[e->router], y + 4, 10, "xe");
    if (e->dense >= 0) bar(s, l, &row->model[e->dense], y + 16, 7, "xd");
    mode_str_printf(s,
                    "<path d=\"M%.1f %.1fv26\" stroke=\"currentColor\" stroke-dasharray=\"2 2\" "
                    "opacity=\".7\"><title>without looking: %.1f</title></path>\n",
                    at(l, 100 * row->chance), y + 1, 100 * row->chance);
    for (int c = 0; c < e->n; c++) {
        double v = 100 * mode_outcome_mean(&row->model[c], NULL);
        mode_str_printf(s,
                        "<circle class=\"fill %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\" stroke=\"var(--card)\" "
                        "stroke-width=\"1.2\"><title>expert %d: %.1f</title></circle>\n",
                        mode_report_colour(e, c, buf), at(l, v), y + 9, c, v);
    }
}

static void draw_row(struct mode_str *s, const struct layout *l, const struct mode_ensemble *e,
                     const struct mode_ensemble_row *row, double y)
{
    const struct mode_outcome *mine = &row->router[e->router];
    static const char *const what[] = {"accuracy",          "mean per class",         "image for a text",
                                       "text for an image", "mean average precision", "mean of top-1 and top-5",
                                       "area under ROC"};
    mode_str_printf(s, "<text x=\"0\" y=\"%.1f\">", y + 13);
    mode_str_add_html(s, e->task[row->task].name);
    mode_str_printf(
        s, "</text><text class=soft x=\"0\" y=\"%.1f\" font-size=\"10.5\">%s, %lld answer%s, %lld sample%s</text>\n",
        y + 27, what[row->measure], (long long)row->n_classes, MODE_PLURAL(row->n_classes), (long long)mine->n,
        MODE_PLURAL(mine->n));
    draw_bars(s, l, e, row, y + l->bars);
    double v = 100 * mode_outcome_mean(mine, NULL);
    mode_str_printf(s, "<text x=\"%d\" y=\"%.1f\" font-weight=\"600\">%.1f</text>\n", l->ensemble, y + l->bars + 14, v);
    if (e->dense < 0) return;
    double error, d = 100 * mode_outcome_difference(mine, &row->model[e->dense], &error);
    error *= 100;
    const char *colour = d > 2 * error && d > 0    ? "var(--good)"
                         : d < -2 * error && d < 0 ? "var(--bad)"
                                                   : "var(--soft)";
    mode_str_printf(s,
                    "<text x=\"%d\" y=\"%.1f\">%.1f</text><text x=\"%d\" y=\"%.1f\" text-anchor=%s "
                    "style=\"fill:%s\">%+.1f &#177; %.1f</text>\n",
                    l->dense, y + l->bars + 14, 100 * mode_outcome_mean(&row->model[e->dense], NULL), l->difference,
                    y + 14, l->anchor, colour, d, error);
}

static void draw(struct mode_str *s, const struct layout *l, const struct mode_ensemble *e)
{
    const int height = l->top + e->n_rows * l->row + 8, head = l->top - 12;
    mode_str_printf(s, "<svg class=%s viewBox=\"0 0 %d %d\" role=img aria-label=\"scores per task\">\n", l->css,
                    l->width, height);
    for (int p = 0; p <= 100; p += 20)
        mode_str_printf(s,
                        "<path class=grid d=\"M%.1f %dV%d\"/><text class=soft x=\"%.1f\" y=\"%d\" "
                        "text-anchor=%s>%d</text>\n",
                        at(l, p), l->top - 6, height - 6, at(l, p), head, at(l, p) > 0 ? "middle" : "start", p);
    mode_str_printf(s, "<text class=soft x=\"%d\" y=\"%d\">ensemble</text>", l->ensemble, head);
    if (e->dense >= 0)
        mode_str_printf(s,
                        "<text class=soft x=\"%d\" y=\"%d\">dense</text><text class=soft x=\"%d\" "
                        "y=\"14\" text-anchor=%s>difference</text>\n",
                        l->dense, head, l->difference, l->anchor);
    for (int i = 0; i < e->n_rows; i++) draw_row(s, l, e, &e->row[i], l->top + i * l->row);
    mode_str_add_cstr(s, "</svg>\n");
}

static void numbers(struct mode_str *s, const struct mode_ensemble *e)
{
    mode_str_add_cstr(s, "<details><summary>All numbers</summary><div "
                         "class=card><table><tr><th>task</th><th>metric</th><th>without looking</th>");
    for (int m = 0; m < e->n_models; m++) mode_str_printf(s, "<th>%s</th>", e->model[m]);
    mode_str_add_cstr(s, "<th>plain average</th><th>ensemble</th></tr>\n");
    for (int r = 0; r < e->n_rows; r++) {
        const struct mode_ensemble_row *row = &e->row[r];
        double mine = 100 * mode_outcome_mean(&row->router[e->router], NULL),
               unit = 100 * mode_outcome_mean(&row->router[MODE_ROUTER_UNIFORM], NULL), top = fmax(mine, unit);
        for (int m = 0; m < e->n_models; m++) top = fmax(top, 100 * mode_outcome_mean(&row->model[m], NULL));
        mode_str_add_cstr(s, "<tr><td>");
        mode_str_add_html(s, row->dataset);
        mode_str_printf(s, "</td><td>%s</td><td>%.1f</td>", mode_measure_name(row->measure), 100 * row->chance);
        for (int m = 0; m < e->n_models; m++) {
            double v = 100 * mode_outcome_mean(&row->model[m], NULL);
            mode_str_printf(s, "<td%s>%.1f</td>", v >= top ? " class=best" : "", v);
        }
        mode_str_printf(s, "<td%s>%.1f</td><td%s>%.1f</td></tr>\n", unit >= top ? " class=best" : "", unit,
                        mine >= top ? " class=best" : "", mine);
    }
    for (int k = 0; k < MODE_FAMILY_COUNT; k++) {
        const enum mode_family f = (enum mode_family)k;
        if (!mode_ensemble_rows(e, f)) continue;
        mode_str_printf(s, "<tr class=sum><td>average, %s</td><td></td><td></td>", mode_family_name(f));
        for (int m = 0; m < e->n_models; m++) mode_str_printf(s, "<td>%.2f</td>", mode_ensemble_model_average(e, f, m));
        mode_str_printf(s, "<td>%.2f</td><td>%.2f</td></tr>\n", mode_ensemble_router_average(e, f, MODE_ROUTER_UNIFORM),
                        mode_ensemble_router_average(e, f, e->router));
    }
    mode_str_add_cstr(s, "</table></div></details>\n");
}

void mode_report_tasks(struct mode_str *s, const struct mode_report *r)
{
    const struct mode_ensemble *e = r->ensemble;
    char buf[16];
    mode_str_add_cstr(s, "<section><h2>Tasks</h2>\n<p class=lead>What each system gets right. Bars are the "
                         "ensemble and the dense model, "
                         "with one standard error; dots are single experts; the dashed line is what the best "
                         "answer without looking at the picture scores.</p>\n"
                         "<div class=card><div class=key><span class=xe><i class=chip></i>ensemble</span>");
    if (e->dense >= 0) mode_str_add_cstr(s, "<span class=xd><i class=chip></i>dense</span>");
    for (int c = 0; c < e->n; c++)
        mode_str_printf(s, "<span class=\"%s\"><i class=chip style=\"border-radius:50%%\"></i>expert %d</span>",
                        mode_report_colour(e, c, buf), c);
    mode_str_add_cstr(s, "</div>\n");
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) draw(s, &layouts[i], e);
    numbers(s, e);
    for (int i = 0; i < r->n_skipped; i++) {
        mode_str_add_cstr(s, "<p class=note>Not evaluated: ");
        mode_str_add_html(s, r->skipped[i]);
        mode_str_add_cstr(s, ".</p>\n");
    }
    mode_str_add_cstr(s, "</div></section>\n");
}
