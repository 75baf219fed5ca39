/* overlap.h - which training images are duplicates of evaluation images.
 *
 * A descriptor of every evaluation image (data/image_hash.h, 0.8 KB) is held in memory; shards are streamed past them.
 * So memory grows with the evaluation sets, not with the training set.
 *
 *     mode_overlap_open(&o, &options, dirs, n_dirs, &err);      // reads and describes the tasks' images
 *     for each shard: mode_overlap_shard(o, path, &err);        // found is called in tar order
 *     mode_overlap_task(o, t), mode_overlap_training(o)         // counts
 *     mode_overlap_close(&o);
 *
 * exact: the files are byte-identical, whether or not they decode (128-bit XXH3 of their bytes). near: the hashes differ in
 * at most `distance` bits and the thumbnails correlate by at least `correlation`. An image whose contrast is below
 * MODE_OVERLAP_FLAT has no structure to compare and is matched exactly or not at all. Results do not depend on the
 * number of threads.
 *
 * Source:  the data overlap analysis of CLIP (arXiv:2103.00020, section 5), with a published hash in the place of its
 * trained detector.
 * Threads: one caller; uses the pool of base/parallel.h. */
#ifndef MODE_PIPELINE_OVERLAP_H
#define MODE_PIPELINE_OVERLAP_H

#include "data/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* docs/decisions/0046-data-overlap.md */
#define MODE_DEFAULT_OVERLAP_DISTANCE    "10"
#define MODE_DEFAULT_OVERLAP_CORRELATION "0.9"
enum { MODE_OVERLAP_FLAT = 4 };

enum mode_overlap_kind { MODE_OVERLAP_EXACT, MODE_OVERLAP_NEAR };

struct mode_overlap_match {
    int task, image;       /* position in dirs; in the task */
    const char *image_key; /* of the image's sample */
    enum mode_overlap_kind kind;
    int distance;       /* 0 of exact ones */
    double correlation; /* 1 of exact ones */
};

/* A training image with all its matches, by task and image. Valid during the call. */
struct mode_overlap_found {
    const char *key; /* of its sample, UTF-8 */
    uint64_t offset; /* of the image's bytes in the tar, as captions.bin counts them */
    size_t n;
    const struct mode_overlap_match *match;
};

struct mode_overlap_options {
    int distance;       /* bits, 0 to 64 */
    double correlation; /* -1 to 1 */
    struct mode_image_limits limits;
    enum mode_status (*found)(void *ctx, const struct mode_overlap_found *f, struct mode_error *err);
    /* The rest may be NULL. going: after each block of images; false stops with MODE_E_STOPPED. unreadable: of an image
     * that does not decode: the task's name or the shard's path, the sample's key, why. */
    bool (*going)(void *ctx, uint64_t done, uint64_t total);
    bool (*fetching)(void *ctx, uint64_t done, uint64_t total); /* a shard of another machine, with bytes */
    void (*unreadable)(void *ctx, const char *where, const char *key, const char *why);
    void *ctx;
};

struct mode_overlap_task {
    char *name;
    int first; /* image of all tasks' images */
    int64_t n_images;
    int64_t unreadable; /* matched exactly or not at all */
    int64_t exact;      /* images with an exact duplicate */
    int64_t near;       /* images with near-duplicates alone */
    int64_t training;   /* training images that are a duplicate of some image of the task */
};

struct mode_overlap_training {
    int64_t shards, images;
    int64_t unreadable;
    int64_t no_image;  /* samples without one */
    int64_t truncated; /* images that a tar ends in */
    int64_t cut;       /* shards that end too early; what came after is in no number */
};

struct mode_overlap;

/* Errors: those of mode_evalset_open; MODE_E_STOPPED, MODE_E_MEMORY; MODE_E_VALUE: too many images. */
enum mode_status mode_overlap_open(struct mode_overlap **overlap, const struct mode_overlap_options *options,
                                   char *const *dirs, int n_dirs, struct mode_error *err);
void mode_overlap_close(struct mode_overlap **overlap);
/* path: a file or a pinned address. Errors: those of mode_shard_hold, mode_tar_data_open and mode_samples_list, of found;
 * MODE_E_STOPPED, MODE_E_MEMORY. *bad: failed because its contents are not a tar; nothing was counted, and the next shard
 * may be read. */
enum mode_status mode_overlap_shard(struct mode_overlap *overlap, const char *path, bool *bad, struct mode_error *err);

const struct mode_overlap_task *mode_overlap_task(const struct mode_overlap *overlap, int task);
const struct mode_overlap_training *mode_overlap_training(const struct mode_overlap *overlap);

#endif
