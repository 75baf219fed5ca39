/* Time and memory of a run, inserted into a finished page and summary. */
#include "base/file.h"
#include "pipeline/report_parts.h"

#include <stdlib.h>
#include <string.h>

static double mib(uint64_t bytes)
{
    return (double)bytes / 1048576;
}

static void section(struct mode_str *s, const struct mode_report_cost *c)
{
    double all = 0;
    mode_str_add_cstr(s, "<section><h2>Time and memory</h2>\n<p class=lead>Working time of each stage: the "
                         "sum over its tasks, not the wait between them. Tasks of a "
                         "stage run side by side when there are workers.</p>\n<div "
                         "class=card><table><tr><th>stage</th><th>tasks</th><th>seconds</th><th>most memory "
                         "of one task&rsquo;s process</th><th>computed by</th></tr>\n");
    for (int i = 0; i < c->n_stages; i++) {
        const struct mode_report_stage *x = &c->stage[i];
        if (!x->tasks) continue;
        mode_str_add_cstr(s, "<tr><td>");
        mode_str_add_html(s, x->name);
        mode_str_printf(s, "</td><td>%llu</td><td>%.1f</td><td>%.0f MiB</td><td>", (unsigned long long)x->tasks,
                        x->seconds, mib(x->peak_rss_bytes));
        mode_str_add_html(s, x->backends);
        mode_str_add_cstr(s, "</td></tr>\n");
        all += x->seconds;
    }
    mode_str_printf(s, "<tr class=sum><td>sum</td><td></td><td>%.1f</td><td></td><td></td></tr></table></div>\n", all);
    if (c->n_processes) {
        mode_str_add_cstr(s,
                          "<div class=card><table><tr><th>the processes around them</th><th>most memory</th></tr>\n");
        for (int i = 0; i < c->n_processes; i++) {
            mode_str_add_cstr(s, "<tr><td>");
            mode_str_add_html(s, c->process[i].name);
            mode_str_printf(s, "</td><td>%.0f MiB</td></tr>\n", mib(c->process[i].peak_rss_bytes));
        }
        mode_str_add_cstr(s, "</table></div>\n");
    }
    mode_str_add_cstr(s, "</section>\n");
}

/* Append text up to the mark to s; returns what follows the mark, or NULL: no mark. */
static const char *up_to(struct mode_str *s, const char *text, const char *mark)
{
    const char *at = strstr(text, mark);
    if (!at) return NULL;
    mode_str_add(s, text, (size_t)(at - text));
    return at + strlen(mark);
}

static enum mode_status complete_page(const char *path, const struct mode_report_cost *c, const char *validation_dir,
                                      const json_t *summary, struct mode_error *err)
{
    struct mode_str s = {0};
    char *text;
    size_t size;
    enum mode_status st = mode_file_read(path, 0, &text, &size, err);
    if (st) return st;
    /* a page without curves, or from an earlier version, has no mark for validation results */
    const char *curves = up_to(&s, text, MODE_REPORT_VALIDATION_MARK), *rest;
    if (curves) mode_report_validation(&s, validation_dir, summary);
    if (!(rest = up_to(&s, curves ? curves : text, MODE_REPORT_COST_MARK))) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the page has no place for time and memory", path);
    } else {
        section(&s, c);
        mode_str_add_cstr(&s, rest);
        st = mode_file_write_atomic(path, s.data, s.len, err);
    }
    mode_str_clear(&s);
    free(text);
    return st;
}

static enum mode_status complete_summary(json_t *o, const char *path, const struct mode_report_cost *c,
                                         struct mode_error *err)
{
    json_t *stages = json_array(), *processes = json_array();
    for (int i = 0; i < c->n_stages; i++)
        if (c->stage[i].tasks)
            json_array_append_new(stages,
                                  json_pack("{s:s, s:s, s:I, s:f, s:I, s:s}", "stage", c->stage[i].name, "service",
                                            c->stage[i].service, "tasks", (json_int_t)c->stage[i].tasks, "seconds",
                                            c->stage[i].seconds, "peak_rss_bytes",
                                            (json_int_t)c->stage[i].peak_rss_bytes, "backends", c->stage[i].backends));
    for (int i = 0; i < c->n_processes; i++)
        json_array_append_new(processes, json_pack("{s:s, s:I}", "name", c->process[i].name, "peak_rss_bytes",
                                                   (json_int_t)c->process[i].peak_rss_bytes));
    json_object_set_new(o, "key", json_string(c->key));
    json_object_set_new(o, "stages", stages);
    json_object_set_new(o, "processes", processes);
    char *dump = json_dumps(o, MODE_SUMMARY_JSON);
    enum mode_status st = mode_file_write_atomic(path, dump, strlen(dump), err);
    free(dump);
    return st;
}

static enum mode_status open_summary(json_t **o, const char *path, struct mode_error *err)
{
    json_error_t why;
    char *text;
    size_t size;
    enum mode_status st = mode_file_read(path, 0, &text, &size, err);
    if (st) return st;
    *o = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    free(text);
    if (!json_is_object(*o)) return MODE_FAIL(err, MODE_E_FORMAT, "%s: not a JSON object", path);
    if (json_object_get(*o, "stages"))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: has its time and memory already", path);
    return MODE_OK;
}

enum mode_status mode_report_complete(const char *html_path, const char *summary_path, const struct mode_report_cost *c,
                                      const char *validation_dir, struct mode_error *err)
{
    json_t *summary = NULL;
    enum mode_status st = open_summary(&summary, summary_path, err);
    if (!st) st = complete_page(html_path, c, validation_dir, summary, err);
    if (!st) st = complete_summary(summary, summary_path, c, err);
    json_decref(summary);
    return st;
}
