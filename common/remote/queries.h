/* queries.h - what is after "?" of an address, kept where nobody else reads it.
 *
 * A presigned address is a key: whoever has it may read. It is part of no task, plan or sentence, and so are keys of
 * tasks the same when an address is signed anew. It lies in <cache>/queries/<digest of the address>, for its owner
 * alone (0600), where the workers of a run find it: those of other machines by the same MODE_CACHE. */
#ifndef MODE_REMOTE_QUERIES_H
#define MODE_REMOTE_QUERIES_H

#include "base/error.h"

/* Of an address without query; NULL: it has none. The newest counts. */
enum mode_status mode_remote_query_put(const char *address, const char *query, struct mode_error *err);
/* *query: NULL where there is none; the caller frees. */
enum mode_status mode_remote_query_get(char **query, const char *address, struct mode_error *err);

#endif
