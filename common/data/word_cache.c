#include "data/word_cache.h"

#include "base/str.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { N_SLOTS = 1 << 17, MAX_WORDS = 3 << 15, REACH = 8 }; /* at most three quarters full, about 12 MB */

struct mode_word_cache {
    atomic_size_t n;
    _Atomic(struct mode_word *) slots[N_SLOTS];
};

struct mode_word_cache *mode_word_cache_open(void)
{
    return mode_xcalloc(1, sizeof(struct mode_word_cache));
}

void mode_word_cache_close(struct mode_word_cache *c)
{
    if (!c) return;
    for (size_t i = 0; i < N_SLOTS; i++) free(atomic_load_explicit(&c->slots[i], memory_order_relaxed));
    free(c);
}

static size_t home(uint64_t hash)
{
    return (size_t)(hash >> 40) & (N_SLOTS - 1);
}

static int is(const struct mode_word *w, uint64_t hash, const char *text, size_t len)
{
    return w->hash == hash && w->len == len && memcmp(w->text, text, len) == 0;
}

const struct mode_word *mode_word_cache_find(const struct mode_word_cache *c, uint64_t hash, const char *text,
                                             size_t len)
{
    size_t at = home(hash);
    for (int i = 0; i < REACH; i++, at = (at + 1) & (N_SLOTS - 1)) {
        const struct mode_word *w = atomic_load_explicit(&c->slots[at], memory_order_acquire);
        if (!w) return NULL;
        if (is(w, hash, text, len)) return w;
    }
    return NULL;
}

void mode_word_cache_keep(struct mode_word_cache *c, uint64_t hash, const char *text, size_t len, const int32_t *ids,
                          size_t n_ids)
{
    if (n_ids > MODE_WORD_MAX_IDS || atomic_load_explicit(&c->n, memory_order_relaxed) >= MAX_WORDS) return;
    struct mode_word *w = mode_xcalloc(1, sizeof *w + n_ids * sizeof *ids);
    w->hash = hash;
    w->len = (uint8_t)len;
    w->n_ids = (uint8_t)n_ids;
    memcpy(w->text, text, len);
    memcpy(w->ids, ids, n_ids * sizeof *ids);
    size_t at = home(hash);
    for (int i = 0; i < REACH; i++, at = (at + 1) & (N_SLOTS - 1)) {
        struct mode_word *there = NULL;
        if (atomic_compare_exchange_strong_explicit(&c->slots[at], &there, w, memory_order_acq_rel,
                                                    memory_order_acquire)) {
            atomic_fetch_add_explicit(&c->n, 1, memory_order_relaxed);
            return;
        }
        if (is(there, hash, text, len)) break; /* another thread inserted it first */
    }
    free(w);
}
