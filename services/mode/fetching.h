/* fetching.h - progress of fetching remote shards, for a verb at a terminal. */
#ifndef MODE_SERVICES_MODE_FETCHING_H
#define MODE_SERVICES_MODE_FETCHING_H

#include "remote/shards.h"

#include <stdbool.h>
#include <stdint.h>

/* On a terminal one line that is overwritten, elsewhere nothing. Returns false after a signal. */
bool fetching_show(const char *what, uint64_t done, uint64_t total);
/* A shard given by its address, or any other path; the caller releases it whatever the result. */
enum mode_status fetching_file(struct mode_shard_file *f, char *named, struct mode_error *err);

#endif
