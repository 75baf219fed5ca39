/* encode.h - image and text features of a CLIP, in bounded batches.
 *
 * Dimensions: N items, E joint embedding (mode_clip_embed_dim).
 * Threads: one caller per model; decoding uses the thread pool. */
#ifndef MODE_PIPELINE_ENCODE_H
#define MODE_PIPELINE_ENCODE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_clip;
struct mode_tokenizer;

struct mode_encode_hook {
    void *ctx;
    /* After every batch; false stops with MODE_E_STOPPED. May be NULL. unit: what is counted, for people. */
    bool (*more)(void *ctx, uint64_t done, uint64_t total, const char *unit);
    void (*notice)(void *ctx, const char *text); /* a sentence for the log; may be NULL */
    bool no_room; /* the device's memory is needed elsewhere: the host resizes pictures */
};

/* texts [n] (UTF-8) -> out [N, E] f32, host memory, unit rows unless raw. batch: texts at a time; hook may be NULL. */
enum mode_status mode_encode_texts(struct mode_clip *clip, const struct mode_tokenizer *tokenizer, float *out,
                                   char *const *texts, int64_t n, int64_t batch, bool raw,
                                   const struct mode_encode_hook *hook, struct mode_error *err);

struct mode_encode_picture {
    const uint8_t *data; /* file bytes */
    size_t size;
    const char *name; /* for errors */
};
/* pictures -> out [N, E] f32, through the model's evaluation transform. A device with enough memory resizes them
 * (windows.h) and computes while the next batch is decoded: one call with many pictures is faster than many calls. A
 * picture that does not decode is an error that names it. */
enum mode_status mode_encode_pictures(struct mode_clip *clip, float *out, const struct mode_encode_picture *pictures,
                                      int64_t n, int64_t batch, bool raw, const struct mode_encode_hook *hook,
                                      struct mode_error *err);
/* The same from files, which are mapped a few batches at a time. *failed (may be NULL): after a failure the index of
 * the file that could not be read, or n for another failure. */
enum mode_status mode_encode_picture_files(struct mode_clip *clip, float *out, char *const *paths, int64_t n,
                                           int64_t batch, bool raw, const struct mode_encode_hook *hook,
                                           int64_t *failed, struct mode_error *err);

#endif
