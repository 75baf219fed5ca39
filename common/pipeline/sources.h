/* sources.h - expands a list of sources to tar shards.
 *
 * A source is a folder (every *.tar below it), a file, a shell pattern ("shards/?/[0-9]*.tar"), a brace range
 * ("{00000..00041}.tar", inclusive at both ends, zeros kept; "{a,b}"), several of these joined by "::", or
 * "@list.txt" (one source per line). A path may be written as file:/PATH, file:///PATH or file://localhost/PATH, with
 * %XX for bytes that are not part of a pattern. A file may also be http://, https:// or s3:// (remote/address.h), with
 * brace ranges and no other patterns; an address with a query, which may be a secret, only in a list file. Other
 * schemes are MODE_E_CONFIG. Shards are in the order of the sources, within a source in natural name order ("2.tar"
 * before "10.tar"), the same on every machine. A shard named twice, a source that matches nothing, a folder that mixes
 * compressed and plain tars, and a named shard that does not exist are errors: nothing is skipped silently.
 *
 * Source:  WebDataset's and open_clip's --train-data.
 * Threads: reentrant. */
#ifndef MODE_PIPELINE_SOURCES_H
#define MODE_PIPELINE_SOURCES_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct mode_shard {
    char *path;              /* absolute; remote: the address, pinned to a version by mode_shards_look */
    char *name;              /* for people: relative to the source's fixed folder */
    uint64_t size, mtime_ns; /* remote: size 0 until mode_shards_look; mtime_ns 0: the address holds the version */
};

struct mode_shards {
    struct mode_shard *shard;
    size_t n;
};

/* folder: of relative paths. The caller clears out, also after a failure. MODE_E_CONFIG, MODE_E_NOINPUT, MODE_E_PERM,
 * MODE_E_IO. */
enum mode_status mode_sources_expand(struct mode_shards *out, char *const *sources, size_t n_sources,
                                     const char *folder, struct mode_error *err);
/* Queries size and version of remote shards, many at a time, and pins them. Errors: those of mode_remote_look, for the
 * first shard with one. Local shards are not touched. */
enum mode_status mode_shards_look(struct mode_shards *s, struct mode_error *err);
/* Total bytes of the remote shards. */
uint64_t mode_shards_remote_bytes(const struct mode_shards *s);
void mode_shards_clear(struct mode_shards *s);

#endif
