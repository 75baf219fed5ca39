/* tokenizer_impl.h - what the two kinds of tokenizer have in common, inside data/ only. */
#ifndef MODE_DATA_TOKENIZER_IMPL_H
#define MODE_DATA_TOKENIZER_IMPL_H

#include "data/tokenizer.h"

struct mode__bpe;
struct mode__wordpiece;

struct mode_tokenizer {
    struct mode__bpe *bpe; /* exactly one of the two */
    struct mode__wordpiece *wordpiece;
    int32_t start, end; /* first and last id of every text */
    int32_t vocab_size;
};

/* Where ids go: full means that further ids cannot change the result. */
struct mode__ids {
    int32_t *data;
    int n, max;
};

static inline bool mode__ids_full(const struct mode__ids *ids)
{
    return ids->n >= ids->max;
}

static inline void mode__ids_add(struct mode__ids *ids, int32_t id)
{
    if (ids->n < ids->max) ids->data[ids->n++] = id;
}

enum mode_status mode__bpe_open(struct mode_tokenizer *t, const char *path, enum mode_clip_clean clean,
                                struct mode_error *err);
void mode__bpe_encode(const struct mode__bpe *b, const char *text, size_t n_bytes, struct mode__ids *ids);
void mode__bpe_close(struct mode__bpe *b);

enum mode_status mode__wordpiece_open(struct mode_tokenizer *t, const char *dir, struct mode_error *err);
void mode__wordpiece_encode(const struct mode__wordpiece *w, const char *text, size_t n_bytes, struct mode__ids *ids);
void mode__wordpiece_close(struct mode__wordpiece *w);

#endif
