/* corpus_words.h - counts of words per expert, for corpus.c alone. */
#ifndef MODE_PIPELINE_CORPUS_WORDS_H
#define MODE_PIPELINE_CORPUS_WORDS_H

#include "pipeline/corpus.h"

enum { MODE_WORDS_MOST = 1 << 19 }; /* different words that are counted at a time: a few hundred MB with 64 experts */

struct mode_word_entry {
    char *text;
    uint64_t hash;
    int64_t *count; /* [n] captions of each expert that hold it */
    int64_t last;   /* number of the caption that was counted last */
};

struct mode_word_table {
    int n;
    size_t cap, used;
    struct mode_word_entry *entry; /* [cap] open addressing */
    int64_t *total;                /* [n] */
    int64_t caption;               /* counted so far */
};

void mode_word_table_init(struct mode_word_table *t, int n);
void mode_word_table_add(struct mode_word_table *t, const char *caption, int expert);
/* The best words of one expert into out->word. */
void mode_word_table_top(const struct mode_word_table *t, int expert, struct mode_corpus_expert *out);
void mode_word_table_clear(struct mode_word_table *t);

#endif
