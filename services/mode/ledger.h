/* ledger.h - accounts for every input sample of a run, from the store alone. */
#ifndef MODE_SERVICES_MODE_LEDGER_H
#define MODE_SERVICES_MODE_LEDGER_H

#include "base/error.h"
#include "data/captions.h"

#include <stdbool.h>

#define LEDGER_PROBLEMS 50

struct ledger {
    uint64_t shards, samples, fate[MODE_FATE_COUNT];
    uint64_t cut_shards, cut_at; /* truncated shards; byte position where the first one ends */
    char *cut;                   /* its name, or NULL */
    uint64_t bad_shards;         /* skipped: their contents are not a tar */
    char *bad;                   /* the first of them and why, or NULL */
    uint64_t embedded, assigned;
    int n_experts;
    uint64_t *pool;    /* [n_experts] pairs of the coarse group, counted from the assignments */
    uint64_t *trained; /* [n_experts] pairs of it according to the expert's training */
    struct ledger_selected {
        char *name;     /* of experts_for */
        uint64_t pairs; /* of the clusters that its words selected; each also belongs to an expert */
    } * selected;
    size_t n_selected;
    bool open; /* unfinished run: missing results are no problem, finished ones are checked */
    uint64_t n_tasks, n_done;
    size_t n_problems; /* may exceed LEDGER_PROBLEMS: then only the first are kept */
    char *problem[LEDGER_PROBLEMS];
};

/* Read runs/<name>/plan.json, the commit records and the artifacts behind them (their digests are checked). open: the
 * run has not ended. MODE_E_NOINPUT: no such run, or not planned yet. Sums that do not match are problems, not
 * errors. */
enum mode_status ledger_read(struct ledger *l, const char *workspace, const char *run, bool open,
                             struct mode_error *err);
void ledger_clear(struct ledger *l);

#endif
