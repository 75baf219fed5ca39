/* gc.h - garbage collection of a store that no other process has open.
 *
 *     struct mode_gc gc = {.needs_task = is_wanted, .keeps_blob = kind_of, .ctx = &marks, .dry = true};
 *     st = mode_store_open_alone(&store, "/data/mode", &err);
 *     st = mode_store_gc(store, &gc, &err);                   // gc.sum says what would be, or was, freed
 *
 * Commit records are removed durably before the files that they name: after any crash an existing record still has its
 * files, and the rest is freed by the next collection. The caller decides what is needed (by runs); this module handles
 * files.
 *
 * Threads: one caller. */
#ifndef MODE_STORE_GC_H
#define MODE_STORE_GC_H

#include "store/artifacts.h"

enum mode_gc_kind {
    MODE_GC_COMMITS,
    MODE_GC_TASKS,
    MODE_GC_CHECKPOINTS, /* of tasks that are committed or not needed */
    MODE_GC_BLOBS,
    MODE_GC_OPTIMIZER, /* blobs, distinguished by the caller */
    MODE_GC_LEFTOVERS, /* all of tmp/: no process can be using it */
    MODE_GC_KINDS,
    MODE_GC_KEPT = MODE_GC_KINDS
};
const char *mode_gc_kind_name(enum mode_gc_kind k); /* "commits" */

struct mode_gc_sum {
    uint64_t files, bytes; /* bytes of files without further hard links (experts/ may link the same file) */
};

struct mode_gc {
    bool (*needs_task)(void *ctx, const char *key);
    enum mode_gc_kind (*keeps_blob)(void *ctx, const char *digest); /* MODE_GC_KEPT, or what it counts as */
    void *ctx;
    bool dry; /* only count */
    struct mode_gc_sum sum[MODE_GC_KINDS];
};

/* After a failure gc->sum says what was freed so far; another call may free the rest. */
enum mode_status mode_store_gc(struct mode_store *s, struct mode_gc *gc, struct mode_error *err);
/* Adds up files and bytes of a path and everything below it. */
void mode_gc_measure(struct mode_gc_sum *sum, const char *path);

#endif
