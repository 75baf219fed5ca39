/* corpus_words.h - document frequencies of words per expert; for corpus.c only. */
#ifndef MODE_PIPELINE_CORPUS_WORDS_H
#define MODE_PIPELINE_CORPUS_WORDS_H

#include "pipeline/corpus.h"

enum { MODE_WORDS_MOST = 1 << 19 }; /* entries of the table at most: a few hundred MB with 64 experts */

struct mode_word_entry {
    char *text;
    uint64_t hash;
    int64_t *count; /* [n] captions of each expert that contain it */
    int64_t last;   /* the caption that was counted last: a word counts once per caption */
};

struct mode_word_table {
    int n;
    size_t cap, used;
    struct mode_word_entry *entry; /* [cap] hash table with open addressing */
    int64_t *total;                /* [n] captions of each expert */
    int64_t caption;               /* captions so far */
};

void mode_word_table_init(struct mode_word_table *t, int n);
void mode_word_table_add(struct mode_word_table *t, const char *caption, int expert);
/* The words of one expert with the highest scores, to out->word. */
void mode_word_table_top(const struct mode_word_table *t, int expert, struct mode_corpus_expert *out);
void mode_word_table_clear(struct mode_word_table *t);

#endif
