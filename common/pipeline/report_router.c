/* The routers: the score of each, and the weights of the one in use with the words behind them. */
#include "pipeline/report_parts.h"

#include <math.h>

static void comparison(struct mode_str *s, const struct mode_ensemble *e, enum mode_family family)
{
    mode_str_printf(s,
                    "<div class=card><table><tr><th>router</th><th>average, %s</th>%s<th>against the plain "
                    "average</th><th>mean entropy (%.2f = all alike)</th></tr>\n",
                    mode_family_name(family), e->dense >= 0 ? "<th>against dense</th>" : "", log(e->n));
    for (int r = 0; r < MODE_ROUTER_COUNT; r++) {
        struct mode_comparison c[3];
        int best, n = mode_ensemble_compare(e, family, (enum mode_router)r, c, &best);
        mode_str_printf(s, "<tr><td%s>%s%s</td><td>%.2f</td>", (enum mode_router)r == e->router ? " class=best" : "",
                        mode_router_name((enum mode_router)r), (enum mode_router)r == e->router ? " (in use)" : "",
                        mode_ensemble_router_average(e, family, (enum mode_router)r));
        for (int i = 0; i < n - 1; i++) mode_str_printf(s, "<td>%+.2f &plusmn; %.2f</td>", c[i].difference, c[i].error);
        mode_str_printf(s, "<td>%.3f</td></tr>\n", mode_ensemble_entropy(e, family, (enum mode_router)r));
    }
    mode_str_add_cstr(s, "</table></div>\n");
}

static void heat(struct mode_str *s, const struct mode_ensemble *e, enum mode_router router)
{
    char buf[16];
    mode_str_add_cstr(s, "<table><tr><th>task</th>");
    for (int c = 0; c < e->n; c++)
        mode_str_printf(s, "<th class=\"%s\" style=\"text-align:center\"><i class=chip></i>%d</th>",
                        mode_report_colour(e, c, buf), c);
    mode_str_add_cstr(s, "<th>entropy</th><th>words</th><th>mean distance</th></tr>\n");
    for (int t = 0; t < e->n_tasks; t++) {
        const struct mode_ensemble_task *x = &e->task[t];
        double distance = 0;
        for (int i = 0; i < x->near.k; i++) distance += x->near.distance[i] / (double)x->near.k;
        mode_str_add_cstr(s, "<tr><td>");
        mode_str_add_html(s, x->name);
        mode_str_add_cstr(s, "</td>");
        for (int c = 0; c < e->n; c++)
            mode_str_printf(s, "<td class=heat style=\"background:rgba(var(--heat),%.3f)\">%.3f</td>",
                            0.72 * x->weight[router][c], x->weight[router][c]);
        mode_str_printf(s, "<td>%.3f</td><td>%d</td><td>%.3f</td></tr>\n", x->entropy[router], x->near.k, distance);
    }
    mode_str_add_cstr(s, "</table>\n");
}

/* Which words have which expert as the nearest: explains the weights. */
static void why(struct mode_str *s, const struct mode_report *r, const struct mode_ensemble_task *t)
{
    enum { SHOWN = 14 };
    char buf[16];
    mode_str_add_cstr(s, "<details><summary>");
    mode_str_add_html(s, t->name);
    mode_str_add_cstr(s, "</summary><dl class=why>");
    for (int c = 0; c < r->ensemble->n; c++) {
        int count = 0;
        for (int i = 0; i < t->near.k; i++) count += t->near.expert[i] == c;
        mode_str_printf(s, "<dt class=\"%s\"><i class=chip></i>expert %d: %d</dt><dd>",
                        mode_report_colour(r->ensemble, c, buf), c, count);
        for (int i = 0, shown = 0; i < t->near.k && shown < SHOWN; i++) {
            if (t->near.expert[i] != c) continue;
            const char *like = r->corpus ? r->corpus->fine_caption[t->near.fine_id[i]] : NULL;
            mode_str_add_cstr(s, shown++ ? " &middot; <span title=\"" : "<span title=\"");
            if (like) {
                mode_str_add_cstr(s, "nearest cluster: ");
                mode_str_add_html(s, like);
            }
            mode_str_add_cstr(s, "\">");
            mode_str_add_html(s, t->word[i]);
            mode_str_add_cstr(s, "</span>");
        }
        mode_str_add_cstr(s, count > SHOWN ? " &hellip;</dd>" : "</dd>");
    }
    mode_str_add_cstr(s, "</dl></details>\n");
}

void mode_report_router(struct mode_str *s, const struct mode_report *r)
{
    const struct mode_ensemble *e = r->ensemble;
    mode_str_printf(s,
                    "<section><h2>Routing</h2>\n<p class=lead>Each task&rsquo;s own words are matched with "
                    "the nearest fine clusters; a router turns the matches into one weight per "
                    "expert. Below: what each router scores, and the weights of <b>%s</b>. Near-equal "
                    "weights mean the router hardly chooses.</p>\n",
                    mode_router_name(e->router));
    if (e->top_experts)
        mode_str_printf(s,
                        "<p class=note>Approximate: of every task&rsquo;s weights only the %d greatest of %d are kept, "
                        "but for the plain average.</p>\n",
                        e->top_experts, e->n);
    for (int k = 0; k < MODE_FAMILY_COUNT; k++)
        if (mode_ensemble_rows(e, (enum mode_family)k)) comparison(s, e, (enum mode_family)k);
    mode_str_add_cstr(s, "<div class=card>");
    heat(s, e, e->router);
    for (int i = 0; i < MODE_ROUTER_COUNT; i++) {
        if ((enum mode_router)i == e->router || i == MODE_ROUTER_UNIFORM) continue;
        mode_str_printf(s, "<details><summary>Weights of %s</summary>", mode_router_name((enum mode_router)i));
        heat(s, e, (enum mode_router)i);
        mode_str_add_cstr(s, "</details>\n");
    }
    mode_str_add_cstr(s, "</div>\n<div class=card><h3>Why these weights</h3>");
    for (int t = 0; t < e->n_tasks; t++) why(s, r, &e->task[t]);
    mode_str_add_cstr(s, "</div></section>\n");
}
