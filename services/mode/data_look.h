/* data_look.h - a quick look at training data, for `mode init`: where captions are, and about how many pairs there are.
 *
 * Only the first shard is read, and no picture is decoded; of remote shards only the first is downloaded, into the
 * shard cache, where a run finds it.
 *
 * Threads: reentrant. */
#ifndef MODE_SERVICES_MODE_DATA_LOOK_H
#define MODE_SERVICES_MODE_DATA_LOOK_H

#include "base/error.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DATA_LOOK_KEYS = 3, DATA_LOOK_OTHERS = 4, DATA_LOOK_BYTES = 100 };

struct data_look {
    char *first; /* path of the first shard */
    size_t n_shards;
    uint64_t samples, kept; /* of the first shard: all, those with a picture and a caption */
    bool counted;           /* there is one shard; otherwise the rest is estimated from it */
    uint64_t pairs;         /* of all shards */
    uint64_t captions;      /* distinct ones */
    size_t n_keys, n_others;
    char key[DATA_LOOK_KEYS][DATA_LOOK_BYTES];     /* captions.text_keys, in order of preference */
    char other[DATA_LOOK_OTHERS][DATA_LOOK_BYTES]; /* other fields that may be captions, most words first */
};

/* source: as in data.train, relative to the current folder. Clear look also after a failure. Errors: those of
 * mode_sources_expand and of reading the shard; MODE_E_FORMAT: it has no captions. */
enum mode_status data_look(struct data_look *look, const char *source, struct mode_error *err);
void data_look_clear(struct data_look *look);

#endif
