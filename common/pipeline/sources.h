/* sources.h - which tar shards a list of sources means.
 *
 * A source is a folder (every *.tar below it), a file, a shell pattern ("shards/?/[0-9]*.tar"), a brace range
 * ("{00000..00041}.tar", inclusive at both ends, zeros kept; "{a,b}"), several of these joined by "::", or
 * "@list.txt" (one source a line). A path may be written as file:/PATH, file:///PATH or file://localhost/PATH, with %XX
 * for bytes that are no part of a pattern; other addresses are MODE_E_CONFIG. The list is in the order of the sources;
 * within a source by number-aware name order ("2.tar" before "10.tar"), the same on every machine. A shard named twice,
 * a source that matches nothing and a named shard that does not exist are errors: nothing is left out silently.
 *
 * Source: WebDataset / open_clip habits for --train-data.
 * Threads: pure. */
#ifndef MODE_PIPELINE_SOURCES_H
#define MODE_PIPELINE_SOURCES_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct mode_shard {
    char *path; /* absolute */
    char *name; /* relative to its source's fixed folder: how people call it */
    uint64_t size, mtime_ns;
};

struct mode_shards {
    struct mode_shard *shard;
    size_t n;
};

enum mode_status mode_sources_expand(struct mode_shards *out, char *const *sources, size_t n_sources,
                                     const char *folder, struct mode_error *err);
void mode_shards_clear(struct mode_shards *s);

#endif
