/* word_cache.h - a cache of tokenized words.
 *
 * Captions repeat a few tens of thousands of words, and looking one up is far cheaper than tokenizing it again. Lookup
 * is lock-free, insertion one atomic store, and entries are never evicted or moved: a pointer stays valid until close.
 * A full cache accepts nothing new. Its contents never change a result.
 *
 * Threads: all functions but close may be called from many threads. */
#ifndef MODE_DATA_WORD_CACHE_H
#define MODE_DATA_WORD_CACHE_H

#include <stdint.h>
#include <string.h>

enum { MODE_WORD_MAX_BYTES = 48, MODE_WORD_MAX_IDS = 24 };

struct mode_word {
    uint64_t hash;
    uint8_t len, n_ids;
    char text[MODE_WORD_MAX_BYTES]; /* zero beyond len */
    int32_t ids[];
};

struct mode_word_cache;

/* text: MODE_WORD_MAX_BYTES long, zero beyond the word. */
static inline uint64_t mode_word_hash(const char *text, size_t len)
{
    uint64_t h = len, part;
    for (size_t i = 0; i < len; i += sizeof part) {
        memcpy(&part, text + i, sizeof part);
        h = (h ^ part) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

struct mode_word_cache *mode_word_cache_open(void);
void mode_word_cache_close(struct mode_word_cache *c);
/* NULL when it is not there. */
const struct mode_word *mode_word_cache_find(const struct mode_word_cache *c, uint64_t hash, const char *text,
                                             size_t len);
/* n_ids above MODE_WORD_MAX_IDS: not cached. */
void mode_word_cache_keep(struct mode_word_cache *c, uint64_t hash, const char *text, size_t len, const int32_t *ids,
                          size_t n_ids);

#endif
