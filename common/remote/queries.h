/* queries.h - stores the queries (after "?") of addresses privately.
 *
 * A presigned URL is a credential: whoever has it may read. The query is not part of any task, plan or message, so task
 * keys do not change when an address is signed anew. It is stored in <cache>/queries/<digest of the address>, readable
 * by its owner alone (0600), where the workers of a run find it; on other machines through the same MODE_CACHE. */
#ifndef MODE_REMOTE_QUERIES_H
#define MODE_REMOTE_QUERIES_H

#include "base/error.h"

/* Stores the query of an address; NULL: none. Replaces an earlier one. */
enum mode_status mode_remote_query_put(const char *address, const char *query, struct mode_error *err);
/* *query: NULL if there is none; the caller frees. */
enum mode_status mode_remote_query_get(char **query, const char *address, struct mode_error *err);

#endif
