/* report_parts.h - the sections of report.html, each in its own file; for report*.c only. */
#ifndef MODE_PIPELINE_REPORT_PARTS_H
#define MODE_PIPELINE_REPORT_PARTS_H

#include "base/str.h"
#include "pipeline/report.h"

extern const char *const mode_report_css[]; /* strings to concatenate, NULL-terminated */

void mode_report_verdict(struct mode_str *s, const struct mode_report *r);
void mode_report_experts(struct mode_str *s, const struct mode_report *r);
void mode_report_map(struct mode_str *s, const struct mode_report *r);
void mode_report_tasks(struct mode_str *s, const struct mode_report *r);
void mode_report_for_tasks(struct mode_str *s, const struct mode_report *r);
void mode_report_router(struct mode_str *s, const struct mode_report *r);
void mode_report_loss(struct mode_str *s, const struct mode_report *r);
void mode_report_ledger(struct mode_str *s, const struct mode_report *r);
/* Validation results during training; dir: folder of <model>.jsonl; summary: for the final scores. Adds nothing if no
 * model was evaluated. */
void mode_report_validation(struct mode_str *s, const char *dir, const json_t *summary);

#define MODE_SUMMARY_JSON (JSON_INDENT(1) | JSON_REAL_PRECISION(9)) /* jansson's flags for summary.json */

/* 16028 -> "16,028" */
void mode_report_count(struct mode_str *s, int64_t n);
/* CSS class of a model's colour: "x3" expert, "xd" dense, "xs" seed, "y0" task-specific. buf holds 16 bytes. */
const char *mode_report_colour(const struct mode_ensemble *e, int model, char *buf);
struct mode_report_line {
    const char *name;
    char colour[16]; /* CSS class */
    int n;
    double *x, *y; /* [n]; points that are not finite are skipped */
};
struct mode_report_chart {
    const char *label;
    int width, height; /* pixels */
    double last;       /* x axis: 0 to this step */
    bool dots;         /* a marker at every point */
    const char *sign;  /* unit after the numbers of the y axis */
};
/* A line chart over optimizer steps, as <svg>; if it is wide, a second one for narrow screens. At least one point must be
 * finite. */
void mode_report_draw(struct mode_str *s, const struct mode_report_chart *c, const struct mode_report_line *line,
                      int n_lines);
/* The legend, of all lines that have points. */
void mode_report_key(struct mode_str *s, const struct mode_report_line *line, int n_lines);
/* The distance of axis ticks: 1, 2 or 5 times a power of ten, so that range has about `want` of them. */
double mode_report_tick(double range, int want);
void mode_report_base64(struct mode_str *s, const unsigned char *data, size_t size);

#endif
