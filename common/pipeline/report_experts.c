/* What every expert was trained on: its share of the pairs, its frequent words, a few of its pictures. */
#include "pipeline/report_parts.h"

static void pictures(struct mode_str *s, const struct mode_corpus_expert *x)
{
    if (!x->n_pictures) return;
    mode_str_add_cstr(s, "<div class=pics>\n");
    for (int i = 0; i < x->n_pictures; i++) {
        const struct mode_corpus_picture *p = &x->picture[i];
        mode_str_printf(s,
                        "<figure><div><img width=\"%d\" height=\"%d\" style=\"width:auto;height:auto\" "
                        "alt=\"\" src=\"data:image/jpeg;base64,",
                        p->width, p->height);
        mode_report_base64(s, p->jpeg, p->jpeg_size);
        mode_str_add_cstr(s, "\"></div><figcaption title=\"");
        mode_str_add_html(s, p->caption);
        mode_str_add_cstr(s, "\">");
        mode_str_add_html(s, p->caption);
        mode_str_add_cstr(s, "</figcaption></figure>\n");
    }
    mode_str_add_cstr(s, "</div>\n");
}

void mode_report_experts(struct mode_str *s, const struct mode_report *r)
{
    const struct mode_corpus *c = r->corpus;
    if (!c) return;
    mode_str_add_cstr(s, "<section><h2>Experts</h2>\n<p class=lead>The pairs each expert was trained on. The "
                         "words are those that set its captions "
                         "apart from the other experts&rsquo;, strongest first; the pictures are drawn at "
                         "random, each from another fine cluster.</p>\n");
    for (int i = 0; i < c->n; i++) {
        const struct mode_corpus_expert *x = &c->expert[i];
        double share = c->rows ? 100.0 * (double)x->rows / (double)c->rows : 0;
        char buf[16];
        mode_str_printf(s, "<div class=\"card expert %s\"><div class=head><h3>Expert %d</h3><small>",
                        mode_report_colour(r->ensemble, i, buf), i);
        mode_report_count(s, x->rows);
        mode_str_printf(s,
                        " pair%s (%.1f %%) in %d fine cluster%s</small></div><div class=bar><i "
                        "style=\"width:%.2f%%\"></i></div>\n<div class=words>",
                        MODE_PLURAL(x->rows), share, x->n_fine, MODE_PLURAL(x->n_fine), share);
        for (int w = 0; w < x->n_words; w++) {
            mode_str_printf(s, "<span title=\"in %lld caption%s\">", (long long)x->word[w].count,
                            MODE_PLURAL(x->word[w].count));
            mode_str_add_html(s, x->word[w].text);
            mode_str_add_cstr(s, "</span>");
        }
        mode_str_add_cstr(s, "</div>\n");
        pictures(s, x);
        mode_str_add_cstr(s, "</div>\n");
    }
    if (c->pictures_unreadable)
        mode_str_printf(s, "<p class=note>%lld drawn picture%s could not be read and %s taken.</p>\n",
                        (long long)c->pictures_unreadable, MODE_PLURAL(c->pictures_unreadable),
                        c->pictures_unreadable == 1 ? "another one was" : "others were");
    mode_str_add_cstr(s, "</section>\n");
}
