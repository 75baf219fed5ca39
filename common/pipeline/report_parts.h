/* report_parts.h - the sections of report.html, each in a file of its own; for report*.c alone. */
#ifndef MODE_PIPELINE_REPORT_PARTS_H
#define MODE_PIPELINE_REPORT_PARTS_H

#include "base/str.h"
#include "pipeline/report.h"

extern const char *const mode_report_css[]; /* pieces, NULL at the end */

void mode_report_verdict(struct mode_str *s, const struct mode_report *r);
void mode_report_experts(struct mode_str *s, const struct mode_report *r);
void mode_report_map(struct mode_str *s, const struct mode_report *r);
void mode_report_tasks(struct mode_str *s, const struct mode_report *r);
void mode_report_for_tasks(struct mode_str *s, const struct mode_report *r);
void mode_report_router(struct mode_str *s, const struct mode_report *r);
void mode_report_loss(struct mode_str *s, const struct mode_report *r);
void mode_report_ledger(struct mode_str *s, const struct mode_report *r);
/* Of what the models scored while they trained: folder of <model>.jsonl, and the summary for what they score in the end.
 * Nothing where no model was evaluated. */
void mode_report_validation(struct mode_str *s, const char *dir, const json_t *summary);

#define MODE_SUMMARY_JSON (JSON_INDENT(1) | JSON_REAL_PRECISION(9)) /* how summary.json is printed */

/* 16028 -> "16,028" */
void mode_report_count(struct mode_str *s, int64_t n);
/* Class of a model's colour: "x3" for experts, "xd" dense, "xs" seed, "y0" for those of words. buf holds 16 bytes. */
const char *mode_report_colour(const struct mode_ensemble *e, int model, char *buf);
struct mode_report_line {
    const char *name;
    char colour[16]; /* class */
    int n;
    double *x, *y; /* [n]; what is not finite is left out */
};
struct mode_report_chart {
    const char *label; /* for who cannot see it */
    int width, height;
    double last;      /* step at the right end; 0 is the left one */
    bool dots;        /* at every point */
    const char *sign; /* after the numbers of the upright axis */
};
/* Lines over optimizer steps, an <svg>. The caller has looked that there is a finite point. */
void mode_report_draw(struct mode_str *s, const struct mode_report_chart *c, const struct mode_report_line *line,
                      int n_lines);
/* The models' colours, for all lines that have points. */
void mode_report_key(struct mode_str *s, const struct mode_report_line *line, int n_lines);
/* A step for axis ticks, 1, 2 or 5 times a power of ten, so that range holds about `want` of them. */
double mode_report_tick(double range, int want);
void mode_report_base64(struct mode_str *s, const unsigned char *data, size_t size);

#endif
