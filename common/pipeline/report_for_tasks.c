/* Task-specific models: how much data they were trained on, and their scores on their tasks. */
#include "pipeline/report_parts.h"

#include <stdlib.h>

static void comparisons(struct mode_str *s, const struct mode_report *r, const struct mode_report_selected *x)
{
    static const char *const word[] = {"worse", "even", "better"};
    for (int k = 0; k < MODE_FAMILY_COUNT; k++) {
        struct mode_comparison c[2];
        const int n = mode_ensemble_compare_model(r->ensemble, (enum mode_family)k, x->model, x->task, x->n_tasks, c);
        for (int i = 0; i < n; i++) {
            char *sentence = mode_comparison_sentence(&c[i]);
            mode_str_printf(s, "<p><i class=\"mark %s\"></i>%s ", word[mode_comparison_verdict(&c[i]) + 1],
                            x->n_tasks ? "On these tasks it" : "On all tasks it");
            mode_str_add_html(s, sentence);
            mode_str_add_cstr(s, ".</p>\n");
            free(sentence);
        }
    }
}

void mode_report_for_tasks(struct mode_str *s, const struct mode_report *r)
{
    const struct mode_ensemble *e = r->ensemble;
    char buf[16];
    if (!r->n_selected) return;
    mode_str_add_cstr(s,
                      "<section><h2>Experts for tasks</h2>\n<p class=lead>One model for the words of some tasks: every "
                      "word chooses the fine clusters that it is nearest to, and the model is trained on the pairs of "
                      "all of these. The pairs are a second use of the experts&rsquo;, and the model is no part of "
                      "the ensemble.</p>\n");
    for (int j = 0; j < r->n_selected; j++) {
        const struct mode_report_selected *x = &r->selected[j];
        mode_str_printf(s, "<div class=\"card expert %s\"><div class=head><h3>", mode_report_colour(e, x->model, buf));
        mode_str_add_html(s, e->model[x->model]);
        mode_str_add_cstr(s, "</h3><small>");
        if (r->corpus && x->n_among) {
            mode_report_count(s, x->rows);
            mode_str_printf(s, " pair%s (%.1f %%) in ", MODE_PLURAL(x->rows),
                            r->corpus->rows ? 100.0 * (double)x->rows / (double)r->corpus->rows : 0.0);
        }
        if (x->n_among) mode_str_printf(s, "%d of %d fine cluster%s", x->n_fine, x->n_among, MODE_PLURAL(x->n_among));
        mode_str_add_cstr(s, "</small></div>\n<div class=words>");
        for (int i = 0; i < x->n_tasks; i++) {
            mode_str_add_cstr(s, "<span>");
            mode_str_add_html(s, x->task[i]);
            mode_str_add_cstr(s, "</span>");
        }
        mode_str_add_cstr(s, "</div>\n");
        comparisons(s, r, x);
        mode_str_add_cstr(s, "</div>\n");
    }
    mode_str_add_cstr(s, "</section>\n");
}
