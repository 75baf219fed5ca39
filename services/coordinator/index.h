/* index.h - a hash table from short texts to small numbers; keys are borrowed and must outlive it. */
#ifndef MODE_COORDINATOR_INDEX_H
#define MODE_COORDINATOR_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct index {
    struct index_slot {
        const char *key;
        uint32_t value;
    } * slot;
    size_t n, cap; /* cap: a power of two */
};

#define INDEX_NONE UINT32_MAX

void index_put(struct index *x, const char *key, uint32_t value);
uint32_t index_get(const struct index *x, const char *key); /* INDEX_NONE when absent */
void index_clear(struct index *x);
uint64_t index_hash(const char *key);

#endif
