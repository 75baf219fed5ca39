/* index.h - a hash table from short texts to small numbers; keys are borrowed and must outlive it. */
#ifndef MODE_BASE_INDEX_H
#define MODE_BASE_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct mode_index {
    struct mode_index_slot {
        const char *key;
        uint32_t value;
    } * slot;
    size_t n, cap; /* cap: a power of two */
};

#define MODE_INDEX_NONE UINT32_MAX

void mode_index_put(struct mode_index *x, const char *key, uint32_t value);
uint32_t mode_index_get(const struct mode_index *x, const char *key); /* MODE_INDEX_NONE when absent */
void mode_index_clear(struct mode_index *x);
uint64_t mode_index_hash(const char *key);

#endif
