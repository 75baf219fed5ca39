/* gc.h - frees what nobody needs of a store that nobody else has open.
 *
 *     struct mode_gc gc = {.needs_task = is_wanted, .keeps_blob = kind_of, .ctx = &marks, .dry = true};
 *     st = mode_store_open_alone(&store, "/data/mode", &err);
 *     st = mode_store_gc(store, &gc, &err);                   // gc.sum says what it is, or was
 *
 * Commit records go first and are gone on disk before anything that they name: whatever dies whenever, a record that is
 * there has its files, and what is left is freed the next time. Whoever calls decides what is needed (runs), this is
 * about files.
 *
 * Threads: one caller. */
#ifndef MODE_STORE_GC_H
#define MODE_STORE_GC_H

#include "store/artifacts.h"

enum mode_gc_kind {
    MODE_GC_COMMITS,
    MODE_GC_TASKS,
    MODE_GC_CHECKPOINTS, /* of tasks that are committed, or that nobody needs */
    MODE_GC_BLOBS,
    MODE_GC_OPTIMIZER, /* blobs, too: the caller tells them apart */
    MODE_GC_LEFTOVERS, /* all of tmp/: nobody is there to go on with it */
    MODE_GC_KINDS,
    MODE_GC_KEPT = MODE_GC_KINDS
};
const char *mode_gc_kind_name(enum mode_gc_kind k); /* "commits" */

struct mode_gc_sum {
    uint64_t files, bytes; /* bytes of files that have no other name elsewhere (experts/ may have the same file) */
};

struct mode_gc {
    bool (*needs_task)(void *ctx, const char *key);
    enum mode_gc_kind (*keeps_blob)(void *ctx, const char *digest); /* MODE_GC_KEPT, or what it counts as */
    void *ctx;
    bool dry; /* only count */
    struct mode_gc_sum sum[MODE_GC_KINDS];
};

/* After a failure gc->sum says what was freed before it; what is left may be freed by another call. */
enum mode_status mode_store_gc(struct mode_store *s, struct mode_gc *gc, struct mode_error *err);
/* Files and bytes of a path and all below it. */
void mode_gc_measure(struct mode_gc_sum *sum, const char *path);

#endif
