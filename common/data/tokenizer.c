#include "data/tokenizer_impl.h"

#include "base/str.h"

#include <stdlib.h>

enum mode_status mode_tokenizer_open_clip(struct mode_tokenizer **t, const char *path, enum mode_clip_clean clean,
                                          struct mode_error *err)
{
    struct mode_tokenizer *self = mode_xcalloc(1, sizeof *self);
    enum mode_status st = mode__bpe_open(self, path, clean, err);
    *t = self;
    if (st) mode_tokenizer_close(t);
    return st;
}

enum mode_status mode_tokenizer_open_bert(struct mode_tokenizer **t, const char *dir, struct mode_error *err)
{
    struct mode_tokenizer *self = mode_xcalloc(1, sizeof *self);
    enum mode_status st = mode__wordpiece_open(self, dir, err);
    *t = self;
    if (st) mode_tokenizer_close(t);
    return st;
}

void mode_tokenizer_close(struct mode_tokenizer **t)
{
    if (!*t) return;
    mode__bpe_close((*t)->bpe);
    mode__wordpiece_close((*t)->wordpiece);
    free(*t);
    *t = NULL;
}

int mode_tokenizer_encode(const struct mode_tokenizer *t, const char *text, size_t n_bytes, int32_t *ids, int max_ids)
{
    struct mode__ids out = {.data = ids, .max = max_ids};
    MODE_ASSERT(max_ids >= 1);
    mode__ids_add(&out, t->start);
    if (t->bpe)
        mode__bpe_encode(t->bpe, text, n_bytes, &out);
    else
        mode__wordpiece_encode(t->wordpiece, text, n_bytes, &out);
    if (mode__ids_full(&out))
        ids[max_ids - 1] = t->end;
    else
        mode__ids_add(&out, t->end);
    return out.n;
}

int32_t mode_tokenizer_vocab_size(const struct mode_tokenizer *t)
{
    return t->vocab_size;
}

int32_t mode_tokenizer_pad_id(const struct mode_tokenizer *t)
{
    return t->pad;
}
