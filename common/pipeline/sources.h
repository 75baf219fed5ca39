/* sources.h - which tar shards a list of sources means.
 *
 * A source is a folder (every *.tar below it), a file, a shell pattern ("shards/?/[0-9]*.tar"), a brace range
 * ("{00000..00041}.tar", inclusive at both ends, zeros kept; "{a,b}"), several of these joined by "::", or
 * "@list.txt" (one source a line). A path may be written as file:/PATH, file:///PATH or file://localhost/PATH, with %XX
 * for bytes that are no part of a pattern. A file may also be http://, https:// or s3:// (remote/address.h), with brace
 * ranges and no other patterns; one with a query, which may be a key, in a list alone. Other addresses are
 * MODE_E_CONFIG. The list is in the order of the sources;
 * within a source by number-aware name order ("2.tar" before "10.tar"), the same on every machine. A shard named twice,
 * a source that matches nothing, a folder with compressed tars among plain ones and a named shard that does not exist are
 * errors: nothing is left out silently.
 *
 * Source: WebDataset / open_clip habits for --train-data.
 * Threads: pure, but for files and servers. */
#ifndef MODE_PIPELINE_SOURCES_H
#define MODE_PIPELINE_SOURCES_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct mode_shard {
    char *path;              /* absolute; of another machine: its address, pinned once it was looked at */
    char *name;              /* relative to its source's fixed folder: how people call it */
    uint64_t size, mtime_ns; /* of another machine: 0 until it was looked at; 0: its address says the version */
};

struct mode_shards {
    struct mode_shard *shard;
    size_t n;
};

enum mode_status mode_sources_expand(struct mode_shards *out, char *const *sources, size_t n_sources,
                                     const char *folder, struct mode_error *err);
/* Asks the servers which versions of the shards they have, many at a time, and pins them. Errors: those of
 * mode_remote_look, of the first shard that has one; nothing is asked of local shards. */
enum mode_status mode_shards_look(struct mode_shards *s, struct mode_error *err);
/* Bytes of those shards that are on other machines. */
uint64_t mode_shards_remote_bytes(const struct mode_shards *s);
void mode_shards_clear(struct mode_shards *s);

#endif
