/* marks.h - which tasks and files of a workspace its runs need: what `mode gc` must not free.
 *
 * What a run needs is in its runs/<name>/plan.json: the keys of its tasks, as far as they are known, and the outputs
 * that their commit records name. That suffices: an input of a task is an output of another task of the same run. */
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
    bool settled;   /* its plan.json is up to date */
    bool dropped;   /* not to be kept */
    uint64_t bytes; /* of blobs that no other kept run needs; see optimizer */
};

struct marks {
    struct marks_run *run;
    size_t n;
    bool optimizer; /* optimizer moments of models that no training continues from are not needed */
    struct mode_index tasks, blobs;
    struct marks_task {
        const char *key; /* borrowed from a plan */
        uint32_t run;    /* the only run that needs it; MODE_INDEX_NONE: several do */
        bool parent;     /* other trainings continue from it */
        bool model;      /* a dense model or an expert */
    } * task;
    struct marks_blob {
        char digest[MODE_DIGEST_HEX];
        uint32_t run; /* as above */
        bool needed;  /* false: needed only for such moments */
        uint64_t size;
    } * blob;
    size_t n_tasks, n_blobs;
    uint64_t optimizer_bytes; /* of such moments */
};

/* The runs of a workspace, in order of their names. */
enum mode_status marks_runs(struct marks *m, const char *workspace, struct mode_error *err);
/* Marks what the kept runs need. */
enum mode_status marks_take(struct marks *m, struct mode_store *store, struct mode_error *err);
void marks_clear(struct marks *m);
/* Callbacks of mode_store_gc; ctx is a struct marks. */
bool marks_needs_task(void *ctx, const char *key);
enum mode_gc_kind marks_keeps_blob(void *ctx, const char *digest);

#endif
