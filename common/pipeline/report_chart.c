/* Line charts over the optimizer steps, one line per model. */
#include "pipeline/report_parts.h"

#include <math.h>

enum { LEFT = 46, MARGIN = 10, TOP = 12, FOOT = 40, NARROW = 340 };

/* The range of the y axis: minimum and maximum rounded outwards to ticks. Returns the distance of ticks. */
static double find_range(double *bottom, double *top, const struct mode_report_line *line, int n_lines, int ticks)
{
    double lo = INFINITY, hi = -INFINITY;
    for (int i = 0; i < n_lines; i++)
        for (int j = 0; j < line[i].n; j++) {
            if (!isfinite(line[i].y[j])) continue;
            lo = fmin(lo, line[i].y[j]);
            hi = fmax(hi, line[i].y[j]);
        }
    const double tick = mode_report_tick(hi > lo ? hi - lo : 1, ticks);
    *bottom = floor(lo / tick) * tick;
    *top = ceil(hi / tick) * tick;
    if (*top <= *bottom) *top = *bottom + tick;
    return tick;
}

/* css: a class name; "": none. */
static void draw(struct mode_str *s, const struct mode_report_chart *c, const char *css,
                 const struct mode_report_line *line, int n_lines)
{
    const int right = c->width - MARGIN, foot = c->height - FOOT;
    double bottom, top, tick = find_range(&bottom, &top, line, n_lines, foot / 44 < 3 ? 3 : foot / 44),
                        xtick = mode_report_tick(c->last, c->width / 110);
    mode_str_printf(s, "<svg class=\"%s\" viewBox=\"0 0 %d %d\" role=img aria-label=\"", css, c->width, c->height);
    mode_str_add_html(s, c->label);
    mode_str_add_cstr(s, "\">\n");
    for (int i = 0; i * tick <= top - bottom + tick / 2; i++) {
        const double v = bottom + i * tick, y = foot - (foot - TOP) * (v - bottom) / (top - bottom);
        mode_str_printf(s,
                        "<path class=grid d=\"M%d %.1fH%d\"/><text class=soft x=\"%d\" y=\"%.1f\" "
                        "text-anchor=end>%.3g%s</text>\n",
                        LEFT, y, right, LEFT - 8, y + 4, v, c->sign);
    }
    for (double v = 0; v <= c->last; v += xtick)
        mode_str_printf(s, "<text class=soft x=\"%.1f\" y=\"%d\" text-anchor=%s>%.0f</text>\n",
                        LEFT + (right - LEFT) * v / c->last, foot + 20, v > 0.97 * c->last ? "end" : "middle", v);
    mode_str_printf(s, "<text class=soft x=\"%d\" y=\"%d\" text-anchor=end>optimizer steps</text>\n", right, foot + 36);
    for (int i = 0; i < n_lines; i++) {
        struct mode_str dots = {0};
        bool started = false;
        if (!line[i].n) continue;
        mode_str_printf(s, "<path class=\"stroke %s\" stroke-width=\"1.8\" stroke-linejoin=round d=\"", line[i].colour);
        for (int j = 0; j < line[i].n; j++) {
            if (!isfinite(line[i].y[j])) continue;
            const double x = LEFT + (right - LEFT) * line[i].x[j] / c->last,
                         y = foot - (foot - TOP) * (line[i].y[j] - bottom) / (top - bottom);
            mode_str_printf(s, "%s%.1f %.1f", started ? "L" : "M", x, y);
            if (c->dots) {
                mode_str_printf(&dots, "<circle class=\"fill %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"><title>",
                                line[i].colour, x, y);
                mode_str_add_html(&dots, line[i].name);
                mode_str_printf(&dots, ", step %.0f: %.2f%s</title></circle>\n", line[i].x[j], line[i].y[j], c->sign);
            }
            started = true;
        }
        mode_str_add_cstr(s, "\"><title>");
        mode_str_add_html(s, line[i].name);
        mode_str_add_cstr(s, "</title></path>\n");
        mode_str_add(s, dots.data, dots.len);
        mode_str_clear(&dots);
    }
    mode_str_add_cstr(s, "</svg>\n");
}

void mode_report_draw(struct mode_str *s, const struct mode_report_chart *c, const struct mode_report_line *line,
                      int n_lines)
{
    struct mode_report_chart narrow = *c;
    narrow.width = NARROW;
    narrow.height = c->height > 280 ? c->height * 3 / 4 : 210;
    draw(s, c, c->width > NARROW ? "wide" : "", line, n_lines);
    if (c->width > NARROW) draw(s, &narrow, "narrow", line, n_lines);
}

void mode_report_key(struct mode_str *s, const struct mode_report_line *line, int n_lines)
{
    mode_str_add_cstr(s, "<div class=key>");
    for (int i = 0; i < n_lines; i++) {
        if (!line[i].n) continue;
        mode_str_printf(s, "<span class=\"%s\"><i class=chip></i>", line[i].colour);
        mode_str_add_html(s, line[i].name);
        mode_str_add_cstr(s, "</span>");
    }
    mode_str_add_cstr(s, "</div>");
}
