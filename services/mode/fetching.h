/* fetching.h - how far shards of other machines are on their way, for a verb at a terminal. */
#ifndef MODE_SERVICES_MODE_FETCHING_H
#define MODE_SERVICES_MODE_FETCHING_H

#include "remote/shards.h"

#include <stdbool.h>
#include <stdint.h>

/* On a terminal one line that is written over, elsewhere nothing. Returns false once a signal came. */
bool fetching_show(const char *what, uint64_t done, uint64_t total);
/* One shard that a person named by its address, or any other path; the caller releases it whatever the result. */
enum mode_status fetching_file(struct mode_shard_file *f, char *named, struct mode_error *err);

#endif
