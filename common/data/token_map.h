/* token_map.h - a hash map from byte strings to ids; written once, then read by any number of threads. */
#ifndef MODE_DATA_TOKEN_MAP_H
#define MODE_DATA_TOKEN_MAP_H

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_token_map {
    struct mode_token_slot {
        uint64_t hash;
        uint32_t offset, len; /* of the key in keys; len 0 = empty slot */
        int32_t id;
    } * slots;
    size_t n_slots, n; /* n_slots is a power of two */
    struct mode_str keys;
};

/* False when the key exists (nothing changes) or is empty. */
bool mode_token_map_add(struct mode_token_map *m, const char *key, size_t len, int32_t id);
/* The same, but an existing key gets the new id. An empty key is ignored. */
void mode_token_map_set(struct mode_token_map *m, const char *key, size_t len, int32_t id);
/* The id, or -1. */
int32_t mode_token_map_find(const struct mode_token_map *m, const char *key, size_t len);
void mode_token_map_clear(struct mode_token_map *m);

#endif
