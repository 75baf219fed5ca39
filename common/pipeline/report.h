/* report.h - a run on one page: report.html, and its numbers for scripts: summary.json.
 *
 * The page is one file: inline style, inline SVG, pictures as data: URIs, no script, nothing fetched. Every
 * text that comes from data is escaped. Same inputs, same bytes: what clocks and memory say, and what models scored
 * while they trained, is put in afterwards, by whoever has seen the whole run (mode_report_complete). */
#ifndef MODE_PIPELINE_REPORT_H
#define MODE_PIPELINE_REPORT_H

#include "pipeline/corpus.h"
#include "pipeline/curves.h"
#include "pipeline/ensemble.h"

struct mode_report_stage {
    const char *name, *service;
    uint64_t tasks;
    double seconds;          /* sum over the stage's tasks */
    uint64_t peak_rss_bytes; /* of the process of one task, the most */
    char backends[96];       /* that computed it, "cpu-avx2, cuda"; "" for stages that use none */
};

struct mode_report_process {
    const char *name;
    uint64_t peak_rss_bytes;
};

struct mode_report_cost {
    const char *key;                       /* of the task that wrote the two files: which run of it this is about */
    const struct mode_report_stage *stage; /* [n_stages] in pipeline order */
    int n_stages;
    const struct mode_report_process *process; /* [n_processes] all that do no tasks */
    int n_processes;
};

struct mode_report_selected { /* a model that was trained for the words of tasks */
    int model;                /* its place among the models */
    int n_fine, n_among;      /* fine clusters that the words chose, and those they chose among: of added data none; 0:
                               * nobody says */
    int64_t rows;             /* pairs in them; 0 without a corpus */
    const char *const *task;  /* [n_tasks]; 0: its words were nobody's */
    int n_tasks;
};

struct mode_report {
    const char *run_name;
    const char *spec; /* the run's spec as text; may be NULL */
    const struct mode_ensemble *ensemble;
    const struct mode_corpus *corpus; /* NULL: no captions were given; those sections are left out */
    const struct mode_curve *curve;   /* [n_curves] */
    int n_curves;
    const char *const *skipped; /* [n_skipped] sentences: tasks that were left out, and why */
    int n_skipped;
    const struct mode_report_selected *selected; /* [n_selected] */
    int n_selected;
};

enum mode_status mode_report_write(const struct mode_report *r, const char *path, struct mode_error *err);
enum mode_status mode_summary_write(const struct mode_report *r, const char *path, struct mode_error *err);

/* Put time and memory into the page (at MODE_REPORT_COST_MARK) and into the summary (key, stages, processes), and into
 * the page, where its curves are, what the models scored while they trained: of validation_dir, the folder of
 * <model>.jsonl (pipeline/validation.h), which need not be there.
 * MODE_E_FORMAT: one of them is no such file, or is complete already. */
#define MODE_REPORT_COST_MARK       "<!-- time and memory -->\n"
#define MODE_REPORT_VALIDATION_MARK "<!-- results while they trained -->\n"
enum mode_status mode_report_complete(const char *html_path, const char *summary_path,
                                      const struct mode_report_cost *cost, const char *validation_dir,
                                      struct mode_error *err);

#endif
