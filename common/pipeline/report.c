#include "pipeline/report.h"

#include "base/file.h"
#include "pipeline/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mode_report_count(struct mode_str *s, int64_t n)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)n);
    size_t len = strlen(digits);
    for (size_t i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0 && digits[i - 1] != '-') mode_str_add_char(s, ',');
        mode_str_add_char(s, digits[i]);
    }
}

const char *mode_report_colour(const struct mode_ensemble *e, int model, char *buf)
{
    if (model == e->dense) return "xd";
    if (model == e->seed) return "xs";
    const int selected = model - (e->n_models - e->n_selected);
    snprintf(buf, 16, "%c%d", selected >= 0 ? 'y' : 'x', selected >= 0 ? selected : model);
    return buf;
}

double mode_report_tick(double range, int want)
{
    if (!(range > 0)) return 1;
    double unit = pow(10, floor(log10(range / want)));
    for (;; unit *= 10)
        for (int f = 1; f <= 5; f += f == 1 ? 1 : 3)
            if (range / (unit * f) <= want) return unit * f;
}

void mode_report_base64(struct mode_str *s, const unsigned char *data, size_t size)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        unsigned v = (unsigned)data[i] << 16 | (left > 1 ? (unsigned)data[i + 1] << 8 : 0) |
                     (left > 2 ? data[i + 2] : 0);
        mode_str_add_char(s, digit[v >> 18]);
        mode_str_add_char(s, digit[v >> 12 & 63]);
        mode_str_add_char(s, left > 1 ? digit[v >> 6 & 63] : '=');
        mode_str_add_char(s, left > 2 ? digit[v & 63] : '=');
    }
}

static void tile(struct mode_str *s, const char *name, const char *value, const char *note)
{
    mode_str_printf(s, "<div class=tile><b>%s</b><span>%s</span><small>%s</small></div>\n", value, name, note);
}

/* Number of rows on which the model is above chance by more than two standard errors. */
static int above_chance(const struct mode_ensemble *e, enum mode_family family, int model)
{
    int n = 0;
    for (int r = 0; r < e->n_rows; r++) {
        if (e->row[r].family != family) continue;
        double error, v = mode_outcome_mean(&e->row[r].model[model], &error);
        n += v - e->row[r].chance > 2 * error;
    }
    return n;
}

static void sentences(struct mode_str *s, const struct mode_ensemble *e)
{
    static const char *const word[] = {"worse", "even", "better"};
    struct mode_comparison c[3 * MODE_FAMILY_COUNT];
    int best, n = 0;
    char *name = mode_ensemble_name(e, e->router);
    for (int k = 0; k < MODE_FAMILY_COUNT; k++)
        n += mode_ensemble_compare(e, (enum mode_family)k, e->router, c + n, &best);
    for (int i = 0; i < n; i++) {
        int v = mode_comparison_verdict(&c[i]);
        char *sentence = mode_comparison_sentence(&c[i]);
        mode_str_printf(s, "<p class=\"%s\"><i class=\"mark %s\"></i>%s ", i == 0 ? "first" : "", word[v + 1], name);
        mode_str_add_html(s, sentence);
        mode_str_add_cstr(s, ".</p>\n");
        free(sentence);
    }
    free(name);
    int added = mode_centres_added(&e->centres);
    if (added)
        mode_str_printf(s,
                        "<p class=note>%d of the %d experts (from expert-%d on) came later, with data of %s own, which "
                        "the dense model has not seen: it is no baseline for this ensemble.</p>\n",
                        added, e->centres.n, e->centres.n - added, added == 1 ? "its" : "their");
}

static void score_tiles(struct mode_str *s, const struct mode_ensemble *e, enum mode_family family)
{
    struct mode_comparison c[3];
    int best, n_rows = mode_ensemble_rows(e, family);
    char value[64], note[128], some[64] = "";
    const char *what = mode_family_name(family);
    if (!mode_ensemble_compare(e, family, e->router, c, &best)) return;
    if (mode_ensemble_is_approximate(e, e->router))
        snprintf(some, sizeof some, ", approximate: %d of %d experts", e->top_experts, e->n);
    snprintf(value, sizeof value, "%.2f", mode_ensemble_router_average(e, family, e->router));
    snprintf(note, sizeof note, "router %s%s, mean over %d %s row%s", mode_router_name(e->router), some, n_rows, what,
             MODE_PLURAL(n_rows));
    tile(s, "ensemble", value, note);
    if (e->dense >= 0) {
        snprintf(value, sizeof value, "%.2f", mode_ensemble_model_average(e, family, e->dense));
        snprintf(note, sizeof note, "above chance on %d of %d %s row%s", above_chance(e, family, e->dense), n_rows,
                 what, MODE_PLURAL(n_rows));
        tile(s, "dense model", value, note);
    }
    snprintf(value, sizeof value, "%.2f", mode_ensemble_model_average(e, family, best));
    snprintf(note, sizeof note, "expert %d, %s", best, what);
    tile(s, "best single expert", value, note);
}

void mode_report_verdict(struct mode_str *s, const struct mode_report *r)
{
    const struct mode_ensemble *e = r->ensemble;
    char value[64], note[128];
    mode_str_add_cstr(s, "<section class=verdict>\n");
    if (e->n_rows)
        sentences(s, e);
    else
        mode_str_add_cstr(s, "<p class=first>The run names no evaluation task: the experts are trained, and nothing is "
                             "measured.</p>\n");
    mode_str_add_cstr(s, "<div class=tiles>\n");
    for (int k = 0; k < MODE_FAMILY_COUNT; k++) score_tiles(s, e, (enum mode_family)k);
    if (r->corpus) {
        struct mode_str count = {0};
        mode_report_count(&count, r->corpus->rows);
        const int64_t shards = r->corpus->n_shards - r->corpus->bad_shards;
        snprintf(note, sizeof note, "in %lld shard%s, %d fine cluster%s", (long long)shards, MODE_PLURAL(shards),
                 r->corpus->m, MODE_PLURAL(r->corpus->m));
        tile(s, "training pairs", count.data, note);
        mode_str_clear(&count);
    }
    snprintf(value, sizeof value, "%d", e->n);
    snprintf(note, sizeof note, "%s", e->n == 1 ? "" : "trained apart from one another");
    tile(s, e->n == 1 ? "expert" : "experts", value, note);
    mode_str_add_cstr(s, "</div>\n");
    if (!e->n_rows) {
        mode_str_add_cstr(s, "</section>\n");
        return;
    }
    mode_str_add_cstr(
        s, "<p class=note>Numbers are percent. &plusmn; is one standard error, from paired differences "
           "sample by sample; "
           "&ldquo;beats&rdquo; and &ldquo;is worse&rdquo; mean a difference of more than two of them. A "
           "classification task is one row "
           "(accuracy, or the measure that is customary where it says so), a retrieval task two (recall at "
           "1, both ways); the two kinds are averaged apart, and all rows of a kind count alike. Task tables and "
           "every figure: "
           "<code>result.csv</code>, <code>summary.json</code>, <code>weights.json</code>.</p>\n</section>\n");
}

enum mode_status mode_report_write(const struct mode_report *r, const char *path, struct mode_error *err)
{
    struct mode_str s = {0};
    mode_str_add_cstr(&s, "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
                          "<meta name=viewport content=\"width=device-width, initial-scale=1\">\n<title>");
    mode_str_add_html(&s, r->run_name);
    mode_str_add_cstr(&s, " &middot; MoDE</title>\n<style>\n");
    for (int i = 0; mode_report_css[i]; i++) mode_str_add_cstr(&s, mode_report_css[i]);
    for (int i = 0; i < r->ensemble->n; i++) /* experts past the fixed palette: hues a golden angle apart */
        if (i >= 8) mode_str_printf(&s, ".x%d{--c:hsl(%d 55%% 52%%)}\n", i, (int)(i * 137.508) % 360);
    for (int i = 4; i < r->n_selected; i++)
        mode_str_printf(&s, ".y%d{--c:hsl(%d 60%% 45%%)}\n", i, (int)(100 + i * 137.508) % 360);
    mode_str_add_cstr(&s, "</style>\n</head>\n<body>\n<header><p class=brand>MoDE &middot; CLIP data experts "
                          "via clustering</p><h1>");
    mode_str_add_html(&s, r->run_name);
    mode_str_add_cstr(&s, "</h1></header>\n<main>\n");
    mode_report_verdict(&s, r);
    if (r->ensemble->n_rows) mode_report_tasks(&s, r);
    mode_report_for_tasks(&s, r);
    mode_report_experts(&s, r);
    mode_report_map(&s, r);
    if (r->ensemble->n_rows) mode_report_router(&s, r);
    mode_report_loss(&s, r);
    mode_report_ledger(&s, r);
    mode_str_add_cstr(&s, MODE_REPORT_COST_MARK);
    if (r->spec) {
        mode_str_add_cstr(&s, "<section><h2>The run</h2>\n<details><summary>Run spec</summary><pre>");
        mode_str_add_html(&s, r->spec);
        mode_str_add_cstr(&s,
                          "</pre></details>\n<details><summary>Balance certificate of the clustering</summary><pre>");
        mode_str_add_html(&s, r->ensemble->centres.certificate);
        mode_str_add_cstr(&s, "</pre></details></section>\n");
    }
    mode_str_add_cstr(&s, "</main>\n</body>\n</html>\n");
    enum mode_status st = mode_file_write_atomic(path, s.data, s.len, err);
    mode_str_clear(&s);
    return st;
}
