#include "data/token_map.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static struct mode_token_slot *slot_of(const struct mode_token_map *m, uint64_t hash, const char *key, size_t len)
{
    for (size_t i = hash & (m->n_slots - 1);; i = (i + 1) & (m->n_slots - 1)) {
        struct mode_token_slot *s = &m->slots[i];
        if (s->len == 0 || (s->hash == hash && s->len == len && memcmp(m->keys.data + s->offset, key, len) == 0))
            return s;
    }
}

static void grow(struct mode_token_map *m)
{
    struct mode_token_slot *old = m->slots;
    size_t n_old = m->n_slots;
    m->n_slots = n_old ? 2 * n_old : 1024;
    m->slots = mode_xcalloc(m->n_slots, sizeof *m->slots);
    for (size_t i = 0; i < n_old; i++)
        if (old[i].len) *slot_of(m, old[i].hash, m->keys.data + old[i].offset, old[i].len) = old[i];
    free(old);
}

bool mode_token_map_add(struct mode_token_map *m, const char *key, size_t len, int32_t id)
{
    if (len == 0 || len > UINT32_MAX - m->keys.len) return false;
    if (2 * m->n >= m->n_slots) grow(m);
    uint64_t hash = XXH3_64bits(key, len);
    struct mode_token_slot *s = slot_of(m, hash, key, len);
    if (s->len) return false;
    *s = (struct mode_token_slot){hash, (uint32_t)m->keys.len, (uint32_t)len, id};
    mode_str_add(&m->keys, key, len);
    m->n++;
    return true;
}

void mode_token_map_set(struct mode_token_map *m, const char *key, size_t len, int32_t id)
{
    if (len > 0 && !mode_token_map_add(m, key, len, id)) slot_of(m, XXH3_64bits(key, len), key, len)->id = id;
}

int32_t mode_token_map_find(const struct mode_token_map *m, const char *key, size_t len)
{
    if (len == 0 || m->n == 0) return -1;
    const struct mode_token_slot *s = slot_of(m, XXH3_64bits(key, len), key, len);
    return s->len ? s->id : -1;
}

void mode_token_map_clear(struct mode_token_map *m)
{
    free(m->slots);
    mode_str_clear(&m->keys);
    *m = (struct mode_token_map){0};
}
