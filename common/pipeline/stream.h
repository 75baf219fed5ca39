/* stream.h - pairs for training: from shards and their caption files to pixels and token ids.
 *
 * The rows of all caption files, in shard order, are the rows of the pool (pool.h). A batch is read anew
 * every time: pictures by pread at their place in the tar, decoded, randomly cropped; captions tokenised.
 * Nothing but the order of the epoch is kept (and compressed shards, unpacked), so memory does not grow with the
 * pictures, and a batch is a function of (seed, pool, step, batch) whatever the number of threads.
 *
 *     mode_stream_open(&stream, &options, &err);
 *     mode_batch_init(&batch, 256, size, context);
 *     for (step = start; step < end; step++) mode_stream_fill(stream, &batch, step, &err);
 *
 * A picture that does not decode here did decode when captions were extracted: the shard has changed or the
 * disk lies. That is an error with the shard, the sample's key and the byte, never a skipped sample.
 *
 * Dimensions: B pairs, S input side of the model, T context of the text tower.
 * Threads: one caller; a fill uses the pool of threads. */
#ifndef MODE_PIPELINE_STREAM_H
#define MODE_PIPELINE_STREAM_H

#include "base/error.h"
#include "data/image.h"
#include "pipeline/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_tokenizer;
struct mode_windows;

struct mode_stream_shard {
    const char *captions; /* captions.bin                                  */
    const char *tar;      /* the shard it was made from, or its pinned address */
    const char *assign;   /* assign.safetensors; not read for a dense pool */
};

struct mode_stream_options {
    size_t n_shards;
    const struct mode_stream_shard *shards; /* in the run's order; read during open only */
    const char *centres;                    /* centres.safetensors; not read for a dense pool or a selection's */
    int32_t expert;                         /* coarse id, or MODE_POOL_ALL       */
    const char *selection;                  /* selection.safetensors, with MODE_POOL_ALL: the pool of what it chooses,
                                             * as that of an expert's group; NULL: none */
    double out_ratio;                       /* share of the rows outside, [0, 1] */
    double scale_min, scale_max;            /* area range of the crop, (0, 1]    */
    uint64_t seed;
    uint32_t window_shards; /* order by windows of so many shards (shard_order.h); 0: one permutation of all */
    uint64_t samples;       /* by windows: the sample after the last that is ever filled; 0: there is none */
    struct mode_preprocess preprocess;
    int context;                            /* T */
    const struct mode_tokenizer *tokenizer; /* borrowed until close */
    /* Of compressed shards, which are unpacked when the stream is opened, what is over in_memory bytes (0: 2 GiB) goes
     * to a file without a name in the folder scratch (NULL: the current one). */
    const char *scratch;
    uint64_t in_memory;
    /* Batches are part `part` of `parts` equal ones of a step's pairs; parts 0: whole steps. */
    int part, parts;
    /* While shards of other machines are waited for, which happens when the stream is opened, as far as they all fit into
     * the folder of shards, and when a batch needs one that is not there: bytes fetched so far, bytes of all. Called in
     * any thread, one call at a time; false stops with MODE_E_STOPPED. May be NULL. */
    bool (*fetching)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

struct mode_batch {
    int64_t size;
    float *pixels;                /* [B, 3, S, S]; NULL with windows                                        */
    struct mode_windows *windows; /* where pictures go that a device resizes (windows.h), or NULL; borrowed */
    int32_t *ids;                 /* [sum of n_ids] texts one after another, special tokens, no padding     */
    int32_t *n_ids;               /* [B]                                                                    */
    double epoch;                 /* of the sample after the step's last one, in passes over the pool: 2.25 */
};
/* Room for size pairs of side x side pictures (0: none, for windows) and context ids. MODE_E_MEMORY. */
enum mode_status mode_batch_init(struct mode_batch *b, int64_t size, int side, int context, struct mode_error *err);
void mode_batch_clear(struct mode_batch *b);

struct mode_stream;

/* Errors: whatever reading the files says; MODE_E_FORMAT when an assignment is not of its caption file, or
 * not of these centres; MODE_E_VALUE when a shard's size has changed, or the expert is none of the centres',
 * or a selection chooses no row;
 * of shards of other machines those of mode_shard_hold. */
enum mode_status mode_stream_open(struct mode_stream **stream, const struct mode_stream_options *options,
                                  struct mode_error *err);
void mode_stream_close(struct mode_stream **stream);
/* NULL, or a sentence on the folder of shards, in which two windows find no room. Borrowed. */
const char *mode_stream_warning(const struct mode_stream *stream);
/* Borrowed; for its counts. */
const struct mode_pool *mode_stream_pool(const struct mode_stream *stream);
const struct mode_preprocess *mode_stream_preprocess(const struct mode_stream *stream);
/* Bytes of the part of a picture that its crop takes, on average over all rows. */
double mode_stream_window_bytes(const struct mode_stream *stream);
/* The b->size pairs of step (of the whole schedule), or this part of its b->size * parts. With b->windows the
 * pictures are sent there. b is undefined after a failure. */
enum mode_status mode_stream_fill(struct mode_stream *stream, struct mode_batch *b, uint64_t step,
                                  struct mode_error *err);

#endif
