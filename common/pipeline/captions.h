/* captions.h - caption extraction: one shard in, captions.bin out.
 *
 * Reads the tar, groups members into samples, draws one caption of each at random (or takes all: then a picture with
 * three captions is three samples of captions.bin), and decodes every picture once, so that unusable samples are found
 * and counted here and not during training. Every sample has exactly one fate. Same shard, options and seed: same
 * bytes, for any number of threads.
 *
 * An empty tar and a tar without pictures are not errors: they give no rows. A truncated tar keeps its complete
 * samples; the incomplete one is `truncated`. A file that is not a tar, or with damaged headers, is an error or, with
 * skip_bad, a shard without samples that states the reason (docs/decisions/0045).
 *
 * Source:  the caption step of MoDE (candidate captions, one drawn at random), made deterministic; docs/FORMATS.md.
 * Threads: uses the pool of base/parallel.h. */
#ifndef MODE_PIPELINE_CAPTIONS_H
#define MODE_PIPELINE_CAPTIONS_H

#include "data/caption_text.h"
#include "data/captions.h"
#include "data/image.h"

struct mode_captions_options {
    const char *shard_path;  /* or its pinned address (remote/shards.h) */
    const char *shard_name;  /* for people; NULL: the path's last component       */
    uint64_t shard_size;     /* bytes when planned, or 0: not checked             */
    uint64_t shard_mtime_ns; /* modification time when planned, or 0: not checked */
    struct mode_text_keys keys;
    struct mode_text_key blur; /* where the boxes of faces to blur are (face_boxes.h); ext "": no blurring */
    struct mode_image_limits limits;
    uint64_t seed;
    uint32_t shard_index; /* index of the shard in the run: the draw depends on it */
    bool all;             /* every candidate caption becomes a pair, instead of a drawn one */
    bool strict;          /* duplicate members of a sample and non-contiguous samples are errors */
    bool skip_bad;        /* contents that are not a tar give a shard without samples: `bad` of data/captions.h */
    /* May be NULL. progress: after each block of samples; false stops with MODE_E_STOPPED. reject: once per
     * sample that is not kept, in tar order, with a sentence for people. */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
    void (*reject)(void *ctx, uint32_t sample, enum mode_fate fate, const char *why);
    /* While a remote shard is fetched, in bytes; may be NULL. False stops with MODE_E_STOPPED. */
    bool (*fetching)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

/* Write the captions of a shard to out_path and load them into c (the caller clears it).
 * Errors: MODE_E_NOINPUT no such file, MODE_E_FORMAT not a tar, a damaged one or one over a limit (never with
 * skip_bad), MODE_E_VALUE changed since planned, or refused by `strict`, MODE_E_STOPPED, MODE_E_MEMORY, MODE_E_IO; for
 * a remote shard also those of mode_shard_hold. */
enum mode_status mode_captions_extract(struct mode_captions *c, const char *out_path,
                                       const struct mode_captions_options *o, struct mode_error *err);

/* What is wrong with a shard's contents: the error without the path it begins with and without its hint. The caller
 * frees. */
char *mode_captions_bad_reason(const struct mode_error *bad, const char *path);
/* The error of a bad shard with a hint at the option that skips it; the caller frees. */
char *mode_captions_bad_hint(const char *why, const char *option);
/* Bad shards of one source that were skipped. All of them, or of several more than a tenth, are no accident but
 * a source that is wrong: MODE_E_VALUE, with the last of them, and why. key: of the source, in sentences. */
enum mode_status mode_captions_check_bad(uint64_t n_bad, uint64_t n_shards, const char *key, const char *shard,
                                         const char *why, struct mode_error *err);

#endif
