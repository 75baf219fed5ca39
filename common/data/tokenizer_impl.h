/* tokenizer_impl.h - shared by the two kinds of tokenizer, inside data/ only. */
#ifndef MODE_DATA_TOKENIZER_IMPL_H
#define MODE_DATA_TOKENIZER_IMPL_H

#include "base/str.h"
#include "data/tokenizer.h"

struct mode__bpe;
struct mode__wordpiece;

struct mode_tokenizer {
    struct mode__bpe *bpe; /* exactly one of the two */
    struct mode__wordpiece *wordpiece;
    int32_t start, end; /* first and last id of every text */
    int32_t pad;
    int32_t vocab_size;
};

/* Output buffer of ids: when full, further ids cannot change the result. */
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

/* The merges file, decompressed: a header line, then one merge per line. */
enum mode_status mode__bpe_text(struct mode_str *text, const char *path, struct mode_error *err);
/* CLIP's vocabulary begins with the 256 bytes in this order, each represented by a printable character: itself if
 * printable, else U+0100, U+0101, ... */
struct mode__bpe_byte {
    char name[8];
    uint8_t byte;
};
void mode__bpe_byte_names(struct mode__bpe_byte to[256]);

#endif
