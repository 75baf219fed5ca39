#include "base/index.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

uint64_t mode_index_hash(const char *key)
{
    return XXH3_64bits(key, strlen(key));
}

static size_t find(const struct mode_index *x, const char *key)
{
    size_t i = (size_t)mode_index_hash(key) & (x->cap - 1);
    while (x->slot[i].key && strcmp(x->slot[i].key, key) != 0) i = (i + 1) & (x->cap - 1);
    return i;
}

void mode_index_put(struct mode_index *x, const char *key, uint32_t value)
{
    if (2 * (x->n + 1) > x->cap) {
        struct mode_index bigger = {.cap = x->cap ? 2 * x->cap : 64};
        bigger.slot = mode_xcalloc(bigger.cap, sizeof *bigger.slot);
        for (size_t i = 0; i < x->cap; i++)
            if (x->slot[i].key) bigger.slot[find(&bigger, x->slot[i].key)] = x->slot[i];
        bigger.n = x->n;
        free(x->slot);
        *x = bigger;
    }
    size_t i = find(x, key);
    if (!x->slot[i].key) x->n++;
    x->slot[i] = (struct mode_index_slot){key, value};
}

uint32_t mode_index_get(const struct mode_index *x, const char *key)
{
    if (!x->cap) return MODE_INDEX_NONE;
    size_t i = find(x, key);
    return x->slot[i].key ? x->slot[i].value : MODE_INDEX_NONE;
}

void mode_index_clear(struct mode_index *x)
{
    free(x->slot);
    *x = (struct mode_index){0};
}
