/* report.h - a run on one page: report.html, and its numbers for scripts: summary.json.
 *
 * The page is one file: inline style, inline SVG, pictures as data: URIs, no script, nothing fetched. Every
 * text that comes from data is escaped. Same inputs, same bytes; clock times are here and in summary.json,
 * never in result.csv. */
#ifndef MODE_PIPELINE_REPORT_H
#define MODE_PIPELINE_REPORT_H

#include "pipeline/corpus.h"
#include "pipeline/curves.h"
#include "pipeline/ensemble.h"

struct mode_report_stage {
    const char *service;
    uint64_t tasks;
    double seconds; /* sum over the stage's tasks */
    uint64_t peak_rss_bytes;
};

struct mode_report {
    const char *run_name;
    const char *spec; /* the run's spec as text; may be NULL */
    const struct mode_ensemble *ensemble;
    const struct mode_corpus *corpus; /* NULL: no captions were given; those sections are left out */
    const struct mode_curve *curve;   /* [n_curves] */
    int n_curves;
    const struct mode_report_stage *stage; /* [n_stages] in pipeline order */
    int n_stages;
};

enum mode_status mode_report_write(const struct mode_report *r, const char *path, struct mode_error *err);
enum mode_status mode_summary_write(const struct mode_report *r, const char *path, struct mode_error *err);

#endif
