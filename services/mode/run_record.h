/* run_record.h - a run's tasks and their outputs, read from the store alone: runs/<name>/plan.json and the commit
 * records behind it (docs/FORMATS.md). */
#ifndef MODE_SERVICES_MODE_RUN_RECORD_H
#define MODE_SERVICES_MODE_RUN_RECORD_H

#include "base/error.h"
#include "base/index.h"
#include "store/artifacts.h"

#include <jansson.h>
#include <stddef.h>

struct run_record {
    struct mode_store *store;
    json_t *plan;
    struct mode_index by_label; /* of plan's nodes */
    int n_experts;
    size_t n_shards;
    size_t n_added;    /* experts of added data */
    json_t *shard_end; /* [n_added + 1] where the shards of data.train and of each addition end; borrowed from plan */
};

/* MODE_E_NOINPUT: no such run, or not planned yet; MODE_E_FORMAT: plan.json is damaged. Close also after a failure. */
enum mode_status run_record_open(struct run_record *r, const char *workspace, const char *run, struct mode_error *err);
void run_record_close(struct run_record *r);

/* The run that experts/ comes from, and the folder of its text encoder; the caller frees. MODE_E_NOINPUT: there is
 * none. */
enum mode_status run_record_latest(char **run, const char *workspace, struct mode_error *err);
enum mode_status run_record_encoder(char **dir, const char *workspace, struct mode_error *err);

/* A text field of a node of the plan (label, key, stage), "" if missing. */
const char *run_record_text(const json_t *node, const char *field);
const char *run_record_shard(const struct run_record *r, size_t shard); /* its path */
/* The folders of its evaluation tasks, an array of texts. MODE_E_FORMAT: inputs.json is damaged. */
enum mode_status run_record_tasks(json_t **dirs, const char *workspace, const char *run, struct mode_error *err);
/* The label of the task that made the centres of all experts. */
void run_record_centres_label(const struct run_record *r, char *label, size_t size);

/* Iterates over the models of experts_for: the name of the first at or after node *at of the plan, which is advanced;
 * NULL: no more. Borrowed. */
const char *run_record_selected(const struct run_record *r, size_t *at);

/* For the task with that label: its commit (the caller frees it) and the path of one of its outputs, whose digest is
 * verified (path and output may be NULL). MODE_E_NOINPUT: not done; MODE_E_VALUE: the plan has no such task;
 * MODE_E_FORMAT: no such output, or a damaged file. */
enum mode_status run_record_output(const struct run_record *r, Mode__Commit **commit, char **path, const char *label,
                                   const char *output, struct mode_error *err);

#endif
