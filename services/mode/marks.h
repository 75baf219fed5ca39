/* marks.h - which tasks and files of a workspace its runs need: what `mode gc` must not free.
 *
 * What a run needs is in its runs/<name>/plan.json: the keys of its tasks, as far as they are known, and the outputs
 * that their commit records name. Nothing else is asked: an input of a task is an output of another of the same run. */
#ifndef MODE_SERVICES_MODE_MARKS_H
#define MODE_SERVICES_MODE_MARKS_H

#include "base/index.h"
#include "proto/envelope.pb-c.h"
#include "store/gc.h"

#include <jansson.h>

struct marks_run {
    char *name;
    Mode__RunState state;
    json_t *plan;   /* NULL: never written */
    bool settled;   /* its plan.json names all that is known of it */
    bool dropped;   /* it is not to be kept */
    uint64_t bytes; /* of blobs that no other run that is kept needs; see optimizer */
};

struct marks {
    struct marks_run *run;
    size_t n;
    bool optimizer; /* moments of trained models that nothing is trained on from are not needed */
    struct mode_index tasks, blobs;
    struct marks_task {
        const char *key; /* borrowed from a plan */
        uint32_t run;    /* the only one that needs it, or MODE_INDEX_NONE: several do */
        bool parent;     /* other models are trained on from it */
        bool model;      /* a dense model or an expert */
    } * task;
    struct marks_blob {
        char digest[MODE_DIGEST_HEX];
        uint32_t run; /* as above */
        bool needed;  /* else it is such moments alone */
        uint64_t size;
    } * blob;
    size_t n_tasks, n_blobs;
    uint64_t optimizer_bytes; /* of such moments */
};

/* The runs of a workspace, in order of their names. */
enum mode_status marks_runs(struct marks *m, const char *workspace, struct mode_error *err);
/* Marks what the runs that are kept need. */
enum mode_status marks_take(struct marks *m, struct mode_store *store, struct mode_error *err);
void marks_clear(struct marks *m);
/* Callbacks of mode_store_gc; ctx is a struct marks. */
bool marks_needs_task(void *ctx, const char *key);
enum mode_gc_kind marks_keeps_blob(void *ctx, const char *digest);

#endif
