/* The ledger: how many samples were kept, and how many dropped for which reason. */
#include "pipeline/report_parts.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(struct mode_str *s, bool ok, const char *what, int64_t a, int64_t b)
{
    mode_str_printf(s, "<li class=\"%s\">%s %s: ", ok ? "ok" : "no", ok ? "&#10003;" : "&#10007;", what);
    mode_report_count(s, a);
    mode_str_add_cstr(s, ok ? " = " : " &ne; ");
    mode_report_count(s, b);
    mode_str_add_cstr(s, "</li>\n");
}

static void row(struct mode_str *s, const char *css, const char *name, int64_t n, int64_t of)
{
    mode_str_printf(s, "<tr%s><td>%s</td><td>", css, name);
    mode_report_count(s, n);
    mode_str_printf(s, "</td><td>%.2f %%</td></tr>\n", of ? 100.0 * (double)n / (double)of : 0.0);
}

/* Shards that are not here, or not whole. */
static void lost(struct mode_str *s, const char *what, int64_t n, int64_t of)
{
    if (!n) return;
    mode_str_printf(s, "<li class=\"no\">&#10007; %s: ", what);
    mode_report_count(s, n);
    mode_str_add_cstr(s, " of ");
    mode_report_count(s, of);
    mode_str_add_cstr(s, "</li>\n");
}

void mode_report_ledger(struct mode_str *s, const struct mode_report *r)
{
    const struct mode_corpus *c = r->corpus;
    int64_t fates = 0, experts = 0;
    if (!c) return;
    mode_str_add_cstr(s, "<section><h2>Ledger of samples</h2>\n<p class=lead>Every sample of every shard "
                         "ends in exactly one place.</p>\n<div class=card><table>"
                         "<tr><th>fate</th><th>samples</th><th>share</th></tr>\n");
    for (int k = 0; k < MODE_FATE_COUNT; k++) {
        fates += c->fate[k];
        if (c->fate[k] || k == MODE_FATE_KEPT) row(s, "", mode_fate_name((enum mode_fate)k), c->fate[k], c->samples);
    }
    row(s, " class=sum", "samples in", c->samples, c->samples);
    for (int i = 0; i < c->n; i++) {
        char name[32];
        snprintf(name, sizeof name, "kept, for expert %d", i);
        row(s, "", name, c->expert[i].rows, c->samples);
        experts += c->expert[i].rows;
    }
    mode_str_add_cstr(s, "</table>\n<ul class=checks>\n");
    check(s, fates == c->samples, "fates sum to the samples of all shards", fates, c->samples);
    check(s, c->fate[MODE_FATE_KEPT] == c->rows, "every kept pair was assigned", c->fate[MODE_FATE_KEPT], c->rows);
    check(s, experts == c->rows, "experts share out all pairs, none twice", experts, c->rows);
    for (int i = 0; i < r->n_curves; i++) {
        int e = -1;
        if (sscanf(r->curve[i].model, "expert-%d", &e) != 1 || e < 0 || e >= c->n || !r->curve[i].train) continue;
        char what[64];
        snprintf(what, sizeof what, "expert %d trained on all of its pairs", e);
        int64_t n = (int64_t)mode_curve_number(&r->curve[i], "in_cluster");
        check(s, n == c->expert[e].rows, what, n, c->expert[e].rows);
    }
    for (int j = 0; j < r->n_selected; j++) {
        if (!r->selected[j].n_among) continue;
        const char *name = r->ensemble->model[r->selected[j].model];
        for (int i = 0; i < r->n_curves; i++) {
            if (strcmp(r->curve[i].model, name) != 0 || !r->curve[i].train) continue;
            char *what = mode_xasprintf("%s trained on all pairs of its clusters, which other experts have as well",
                                        name);
            const int64_t n = (int64_t)mode_curve_number(&r->curve[i], "in_cluster");
            check(s, n == r->selected[j].rows, what, n, r->selected[j].rows);
            free(what);
        }
    }
    lost(s, "shards cut short, whose rest is in no number", c->cut_shards, c->n_shards);
    lost(s, "shards skipped because they cannot be read; none of their samples is counted", c->bad_shards, c->n_shards);
    mode_str_add_cstr(s, "</ul></div></section>\n");
}
