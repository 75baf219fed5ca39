/* encode.h - pictures and texts through a CLIP's towers, in bounded batches.
 *
 * Dimensions: N items, E joint embedding (mode_clip_embed_dim).
 * Threads: one caller per model; decoding uses the pool of threads. */
#ifndef MODE_PIPELINE_ENCODE_H
#define MODE_PIPELINE_ENCODE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_clip;
struct mode_tokenizer;

/* Told after every batch; returning false stops with MODE_E_STOPPED. */
struct mode_encode_hook {
    void *ctx;
    bool (*more)(void *ctx, uint64_t done, uint64_t total, const char *unit);
    void (*notice)(void *ctx, const char *text); /* a sentence for the log; may be NULL, as more */
    bool no_room;                                /* a device's memory is another's: the host resizes pictures */
};

/* texts (UTF-8) -> out [N, E] f32, unit rows unless raw. batch texts at a time; hook may be NULL. */
enum mode_status mode_encode_texts(struct mode_clip *clip, const struct mode_tokenizer *tokenizer, float *out,
                                   char *const *texts, int64_t n, int64_t batch, bool raw,
                                   const struct mode_encode_hook *hook, struct mode_error *err);

struct mode_encode_picture {
    const uint8_t *data; /* file bytes */
    size_t size;
    const char *name; /* for errors */
};
/* pictures -> out [N, E] f32, through the model's evaluation transform. A device that has room resizes them (windows.h)
 * and computes while the next batch is decoded: many pictures a call are faster than many calls. A picture that does
 * not decode is an error that names it. */
enum mode_status mode_encode_pictures(struct mode_clip *clip, float *out, const struct mode_encode_picture *pictures,
                                      int64_t n, int64_t batch, bool raw, const struct mode_encode_hook *hook,
                                      struct mode_error *err);
/* The same of files, a few batches of which are mapped at a time. *failed (may be NULL): the index of the file that could
 * not be read, n where it is another failure. */
enum mode_status mode_encode_picture_files(struct mode_clip *clip, float *out, char *const *paths, int64_t n,
                                           int64_t batch, bool raw, const struct mode_encode_hook *hook,
                                           int64_t *failed, struct mode_error *err);

#endif
