/* stream.h - the data loader: from shards and their caption files to batches of pixels and token ids.
 *
 * The rows of all caption files, in shard order, are the rows of the pool (pool.h). Every batch is read from the
 * shards: pictures by pread at their offset in the tar, decoded, randomly cropped; captions tokenised. Only the
 * order of the epoch is kept in memory (and compressed shards, decompressed), and a batch is a function of (seed,
 * pool, step, batch) for any number of threads.
 *
 *     mode_stream_open(&stream, &options, &err);
 *     mode_batch_init(&batch, 256, size, context);
 *     for (step = start; step < end; step++) mode_stream_fill(stream, &batch, step, &err);
 *
 * A picture that does not decode here did decode when captions were extracted: the shard has changed, or the disk
 * returns corrupt data. That is an error with the shard, the sample's key and the byte offset, never a skipped sample.
 *
 * Dimensions: B pairs, S image_size of the model, T context length of the text tower.
 * Source:  open_clip's training transform (random resized crop) and tokenizer.
 * Threads: one caller; a fill uses the thread pool. */
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
    const char *centres;                    /* centres.safetensors; not read for a dense or a selection's pool */
    int32_t expert;                         /* coarse id, or MODE_POOL_ALL       */
    const char *selection;                  /* selection.safetensors, with MODE_POOL_ALL: the pool is that of an expert
                                             * with these fine centres; NULL: none */
    double out_ratio;                       /* fraction of the rows outside, [0, 1] */
    double scale_min, scale_max;            /* area range of the crop, (0, 1]       */
    uint64_t seed;
    uint32_t window_shards; /* order by windows of this many shards (shard_order.h); 0: one permutation of all rows */
    uint64_t samples;       /* with windows: the sample after the last one to be filled, for prefetching; 0: no limit */
    struct mode_preprocess preprocess;
    int context;                            /* T */
    const struct mode_tokenizer *tokenizer; /* borrowed until close */
    /* Compressed shards are decompressed by open. What exceeds in_memory bytes (0: 2 GiB) goes to an unlinked file in
     * the folder scratch (NULL: the current one). */
    const char *scratch;
    uint64_t in_memory;
    /* Data parallelism: batches are part `part` of `parts` equal parts of a step's pairs; parts 0: whole steps. */
    int part, parts;
    /* Progress of remote shards: bytes fetched so far, bytes in total. Called while open waits for them, if they all
     * fit into the shard cache, and while a batch waits for one that is not cached. In any thread, one call at a time;
     * false stops with MODE_E_STOPPED. May be NULL. */
    bool (*fetching)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

struct mode_batch {
    int64_t size;
    float *pixels;                /* [B, 3, S, S] f32, normalised; NULL with windows                        */
    struct mode_windows *windows; /* for pictures that a device resizes (windows.h), or NULL; borrowed      */
    int32_t *ids;                 /* [sum of n_ids] texts concatenated, with special tokens, no padding     */
    int32_t *n_ids;               /* [B]                                                                    */
    double epoch;                 /* after this step, in passes over the pool: 2.25                         */
};
/* Allocates for size pairs of side x side pixels (0: none, for windows) and context ids. MODE_E_MEMORY. */
enum mode_status mode_batch_init(struct mode_batch *b, int64_t size, int side, int context, struct mode_error *err);
void mode_batch_clear(struct mode_batch *b);

struct mode_stream;

/* Errors: those of reading the files; MODE_E_FORMAT: an assignment does not belong to its caption file or to these
 * centres; MODE_E_VALUE: a shard's size has changed, the centres have no such expert, or a selection has no rows; for
 * remote shards those of mode_shard_hold. */
enum mode_status mode_stream_open(struct mode_stream **stream, const struct mode_stream_options *options,
                                  struct mode_error *err);
void mode_stream_close(struct mode_stream **stream);
/* NULL, or a warning that two windows do not fit the shard cache. Borrowed. */
const char *mode_stream_warning(const struct mode_stream *stream);
/* Borrowed; for its counts. */
const struct mode_pool *mode_stream_pool(const struct mode_stream *stream);
const struct mode_preprocess *mode_stream_preprocess(const struct mode_stream *stream);
/* Mean bytes of a picture's crop, as decoded, over all rows. */
double mode_stream_window_bytes(const struct mode_stream *stream);
/* The b->size pairs of step (of the whole schedule), or this part of its b->size * parts. With b->windows the
 * pictures are sent there. b is undefined after a failure. MODE_E_FORMAT, MODE_E_IO, MODE_E_STOPPED; for remote shards
 * those of mode_shard_hold. */
enum mode_status mode_stream_fill(struct mode_stream *stream, struct mode_batch *b, uint64_t step,
                                  struct mode_error *err);

#endif
