/* A map of the fine centres: PCA to two dimensions, by power iteration. */
#include "pipeline/report_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 1010, HEIGHT = 560, MARGIN = 46, MOST_NAMES = 16, ROUNDS = 400 };

/* First principal component v [d] of the rows of x [m, d] (mean 0); orthogonal to `not_this` unless it is NULL. */
static void principal(double *v, const double *x, int m, int d, const double *not_this)
{
    double *next = mode_xcalloc((size_t)d, sizeof *next);
    for (int j = 0; j < d; j++) v[j] = 1 + 0.37 * sin(1.7 * j + (not_this ? 1 : 0)); /* an arbitrary start */
    for (int round = 0; round < ROUNDS; round++) {
        if (not_this) {
            double dot = 0;
            for (int j = 0; j < d; j++) dot += v[j] * not_this[j];
            for (int j = 0; j < d; j++) v[j] -= dot * not_this[j];
        }
        memset(next, 0, (size_t)d * sizeof *next);
        for (int i = 0; i < m; i++) {
            double dot = 0;
            for (int j = 0; j < d; j++) dot += x[i * d + j] * v[j];
            for (int j = 0; j < d; j++) next[j] += dot * x[i * d + j];
        }
        double len = 0;
        for (int j = 0; j < d; j++) len += next[j] * next[j];
        len = sqrt(len);
        if (!(len > 0)) break; /* no variance left */
        for (int j = 0; j < d; j++) v[j] = next[j] / len;
    }
    int top = 0; /* the sign is arbitrary: make the largest component positive */
    for (int j = 1; j < d; j++) top = fabs(v[j]) > fabs(v[top]) ? j : top;
    if (v[top] < 0)
        for (int j = 0; j < d; j++) v[j] = -v[j];
    free(next);
}

/* xy [m, 2] in pixels. */
static void project(double *xy, const struct mode_centres *c)
{
    int m = c->m, d = c->d;
    double *x = mode_xcalloc((size_t)m * (size_t)d, sizeof *x), *v = mode_xcalloc(2 * (size_t)d, sizeof *v);
    for (int j = 0; j < d; j++) {
        double mean = 0;
        for (int i = 0; i < m; i++) mean += c->fine[(int64_t)i * d + j] / (double)m;
        for (int i = 0; i < m; i++) x[(int64_t)i * d + j] = c->fine[(int64_t)i * d + j] - mean;
    }
    principal(v, x, m, d, NULL);
    principal(v + d, x, m, d, v);
    for (int a = 0; a < 2; a++) {
        double lo = INFINITY, hi = -INFINITY, size = a ? HEIGHT : WIDTH;
        for (int i = 0; i < m; i++) {
            double dot = 0;
            for (int j = 0; j < d; j++) dot += x[(int64_t)i * d + j] * v[a * d + j];
            xy[2 * i + a] = dot;
            lo = fmin(lo, dot);
            hi = fmax(hi, dot);
        }
        double scale = hi > lo ? (size - 2 * MARGIN) / (hi - lo) : 0;
        for (int i = 0; i < m; i++) xy[2 * i + a] = scale > 0 ? MARGIN + (xy[2 * i + a] - lo) * scale : size / 2;
    }
    free(x);
    free(v);
}

/* xy [m, 2]: the centres' positions. wide: with each expert's words; else numbers alone, in larger type. */
static void labels(struct mode_str *s, const struct mode_report *r, const double *xy, bool wide)
{
    const struct mode_centres *c = &r->ensemble->centres;
    double *label = mode_xcalloc((size_t)c->n * 3, sizeof *label); /* mean position of each expert's centres */
    for (int i = 0; i < c->m; i++) {
        double *l = label + 3 * c->fine_to_coarse[i];
        l[0] += xy[2 * i];
        l[1] += xy[2 * i + 1];
        l[2] += 1;
    }
    /* the words of many experts would cover the map and each other */
    const bool names = wide && c->n <= MOST_NAMES;
    const double high = names ? 18 : wide ? 15 : 38, across = names ? 240 : wide ? 22 : 50;
    mode_str_printf(s, "<g class=%s>\n", wide ? "wide" : "narrow");
    for (int k = 0; k < c->n; k++) {
        double x = label[3 * k] / label[3 * k + 2], y = label[3 * k + 1] / label[3 * k + 2];
        for (int o = 0; o < k; o++) /* avoid overlapping labels */
            if (fabs(label[3 * o + 1] - y) < high && fabs(label[3 * o] - x) < across) y = label[3 * o + 1] + high;
        label[3 * k] = x;
        label[3 * k + 1] = y;
        mode_str_printf(s, "<text class=halo x=\"%.1f\" y=\"%.1f\" text-anchor=middle font-weight=600>%s%d", x, y,
                        names ? "Expert " : "", k);
        for (int w = 0; names && r->corpus && w < 3 && w < r->corpus->expert[k].n_words; w++) {
            mode_str_add_cstr(s, w ? ", " : ": ");
            mode_str_add_html(s, r->corpus->expert[k].word[w].text);
        }
        mode_str_add_cstr(s, "</text>\n");
    }
    mode_str_add_cstr(s, "</g>\n");
    free(label);
}

void mode_report_map(struct mode_str *s, const struct mode_report *r)
{
    const struct mode_centres *c = &r->ensemble->centres;
    double *xy = mode_xcalloc((size_t)c->m * 2, sizeof *xy), most = 1;
    char buf[16];
    project(xy, c);
    for (int i = 0; i < c->m; i++) most = fmax(most, (double)(r->corpus ? r->corpus->fine_rows[i] : c->fine_size[i]));
    mode_str_printf(s,
                    "<section><h2>Map of the fine clusters</h2>\n<p class=lead>The %d fine centre%s along the "
                    "two directions in which they differ most, "
                    "coloured by expert, area by pairs. Point at one to read its most typical caption. Two "
                    "directions of %d cannot show everything: "
                    "clusters that overlap here may be far apart.</p>\n<div class=card><svg class=map viewBox=\"0 0 %d "
                    "%d\" role=img aria-label=\"map of fine clusters\">\n",
                    c->m, MODE_PLURAL(c->m), c->d, WIDTH, HEIGHT);
    double top = c->m > 400 ? 12 : 20;
    for (int i = 0; i < c->m; i++) {
        int64_t rows = r->corpus ? r->corpus->fine_rows[i] : c->fine_size[i];
        mode_str_printf(s,
                        "<circle class=\"fill %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill-opacity=\".62\" "
                        "stroke=\"var(--card)\" stroke-width=\".8\"><title>expert %d, %lld pair%s",
                        mode_report_colour(r->ensemble, c->fine_to_coarse[i], buf), xy[2 * i], xy[2 * i + 1],
                        fmax(2, top * sqrt((double)rows / most)), c->fine_to_coarse[i], (long long)rows,
                        MODE_PLURAL(rows));
        if (r->corpus && r->corpus->fine_caption[i]) {
            mode_str_add_cstr(s, ": ");
            mode_str_add_html(s, r->corpus->fine_caption[i]);
        }
        mode_str_add_cstr(s, "</title></circle>\n");
    }
    labels(s, r, xy, true);
    labels(s, r, xy, false);
    mode_str_add_cstr(s, "</svg></div></section>\n");
    free(xy);
}
