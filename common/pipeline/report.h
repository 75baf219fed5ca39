/* report.h - the report of a run: report.html, and its numbers for scripts: summary.json.
 *
 * The page is one file: inline style, inline SVG, pictures as data: URIs, no script, nothing fetched. Every
 * text that comes from data is escaped. Same inputs, same bytes: times, memory and validation results are inserted
 * afterwards by the coordinator, which has seen the whole run (mode_report_complete).
 *
 * Threads: reentrant. */
#ifndef MODE_PIPELINE_REPORT_H
#define MODE_PIPELINE_REPORT_H

#include "pipeline/corpus.h"
#include "pipeline/curves.h"
#include "pipeline/ensemble.h"

struct mode_report_stage {
    const char *name, *service;
    uint64_t tasks;
    double seconds;          /* sum over the stage's tasks */
    uint64_t peak_rss_bytes; /* maximum over the tasks' processes */
    char backends[96];       /* "cpu-avx2, cuda"; "" for stages that use none */
};

struct mode_report_process {
    const char *name;
    uint64_t peak_rss_bytes;
};

struct mode_report_cost {
    const char *key;                       /* of the task that wrote the two files: identifies the run's results */
    const struct mode_report_stage *stage; /* [n_stages] in pipeline order */
    int n_stages;
    const struct mode_report_process *process; /* [n_processes] processes that are not workers */
    int n_processes;
};

struct mode_report_selected { /* a task-specific model */
    int model;                /* its index among the models */
    int n_fine, n_among;      /* selected fine clusters, and all that could be (without added sources); 0: not known */
    int64_t rows;             /* pairs in the selected ones; 0 without a corpus */
    const char *const *task;  /* [n_tasks] whose words selected them; 0: other words */
    int n_tasks;
};

struct mode_report {
    const char *run_name;
    const char *spec; /* the run's spec as text; may be NULL */
    const struct mode_ensemble *ensemble;
    const struct mode_corpus *corpus; /* NULL: no captions; their sections are omitted */
    const struct mode_curve *curve;   /* [n_curves] */
    int n_curves;
    const char *const *skipped; /* [n_skipped] sentences: tasks that were skipped, and why */
    int n_skipped;
    const struct mode_report_selected *selected; /* [n_selected] */
    int n_selected;
};

enum mode_status mode_report_write(const struct mode_report *r, const char *path, struct mode_error *err);
enum mode_status mode_summary_write(const struct mode_report *r, const char *path, struct mode_error *err);

/* Insert time and memory into the page (at MODE_REPORT_COST_MARK) and the summary (key, stages, processes), and
 * validation results into the page, beside its curves: from validation_dir, the folder of <model>.jsonl
 * (pipeline/validation.h), which may be missing.
 * MODE_E_FORMAT: one of the files is not a report or summary, or is complete already. */
#define MODE_REPORT_COST_MARK       "<!-- time and memory -->\n"
#define MODE_REPORT_VALIDATION_MARK "<!-- results while they trained -->\n"
enum mode_status mode_report_complete(const char *html_path, const char *summary_path,
                                      const struct mode_report_cost *cost, const char *validation_dir,
                                      struct mode_error *err);

#endif
