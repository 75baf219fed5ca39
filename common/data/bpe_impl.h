/* bpe_impl.h - CLIP's tokenizer in two files: bpe.c reads the merges and encodes one word, bpe_text.c splits a text
 * into words. */
#ifndef MODE_DATA_BPE_IMPL_H
#define MODE_DATA_BPE_IMPL_H

#include "base/str.h"
#include "data/tokenizer_impl.h"
#include "data/word_cache.h"

enum {
    MODE_BPE_N_BYTES = 256,
    MODE_BPE_N_MERGES = 48894,
    MODE_BPE_FIRST_MERGE = 2 * MODE_BPE_N_BYTES,
    MODE_BPE_N_PAIR_SLOTS = 1 << 17
};

struct mode__bpe {
    enum mode_clip_clean clean;
    int32_t start, end;
    struct mode_word_cache *cache;
    int32_t of_byte[MODE_BPE_N_BYTES];
    struct mode__bpe_pair {
        uint64_t key; /* left << 32 | right */
        int32_t rank;
    } pairs[MODE_BPE_N_PAIR_SLOTS];
};

/* Scratch memory of one call, grown to the longest word. */
struct mode__bpe_scratch {
    size_t cap, n_heap;
    int32_t *symbol, *next, *previous; /* -1 = none */
    struct mode__bpe_candidate {
        int32_t rank, at;    /* heap order */
        int32_t left, right; /* the symbols it was made for: stale when they have changed */
    } * heap;                /* at most 3 per symbol: one at first, two per merge */
    struct mode_str bytes;
};

/* Encodes one word of n bytes, without cleaning. */
void mode__bpe_word(const struct mode__bpe *b, struct mode__bpe_scratch *s, const char *word, size_t n,
                    struct mode__ids *ids);
void mode__bpe_scratch_clear(struct mode__bpe_scratch *s);

#endif
