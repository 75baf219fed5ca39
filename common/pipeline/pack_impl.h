/* pack_impl.h - what pack.c and pack_task.c share: pictures, each with a text, into tars. For these two alone. */
#ifndef MODE_PIPELINE_PACK_IMPL_H
#define MODE_PIPELINE_PACK_IMPL_H

#include "data/tar.h"
#include "pipeline/pack.h"

#define MODE__PACK_PARTIAL ".pack" /* in the folder of the outputs, until all of them are there */

struct mode__packer {
    struct mode_pack_counts *n;
    char *out; /* where tars are made */
    uint32_t per_shard;
    bool skip_bad, of_task;      /* of_task: 0.tar with s0000000, as CLIP_benchmark has it */
    struct mode_tar_writer *tar; /* NULL between shards */
};

typedef enum mode_status mode__pack_picture_fn(struct mode__packer *p, const char *path, const void *ctx,
                                               struct mode_error *err);

/* A pair that cannot be packed, as err says: counted, or the end. */
enum mode_status mode__pack_bad(struct mode__packer *p, uint64_t *count, enum mode_status st, struct mode_error *err);
/* The picture's file, with that text in a member beside it. */
enum mode_status mode__pack_one(struct mode__packer *p, const char *picture, const char *text, size_t text_size,
                                const char *text_ext, struct mode_error *err);
/* A pair of a list that has a fault, which err tells: counted, or the end. */
enum mode_status mode__pack_bad_pair(struct mode__packer *p, const struct mode_pair *pair, struct mode_error *err);
/* The same as mode__pack_one of the picture of a pair, whose path starts at folder; an error says where in the list. */
enum mode_status mode__pack_listed(struct mode__packer *p, const struct mode_pairs *l, const struct mode_pair *pair,
                                   const char *folder, const char *text, size_t text_size, const char *text_ext,
                                   struct mode_error *err);
bool mode__pack_is_picture_name(const char *name);
/* Every picture below dir, in the order of the names. depth: 0. */
enum mode_status mode__pack_folder(struct mode__packer *p, const char *dir, int depth, mode__pack_picture_fn *picture,
                                   const void *ctx, struct mode_error *err);
/* The last tar is closed. st: how it went so far; source: for the sentence when there was no picture. */
enum mode_status mode__pack_finish(struct mode__packer *p, enum mode_status st, const char *source,
                                   struct mode_error *err);

#endif
