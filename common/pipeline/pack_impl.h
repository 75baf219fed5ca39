/* pack_impl.h - shared by pack.c and pack_task.c: writes pictures, each with a text, into tars. For these two only. */
#ifndef MODE_PIPELINE_PACK_IMPL_H
#define MODE_PIPELINE_PACK_IMPL_H

#include "data/tar.h"
#include "pipeline/pack.h"

#define MODE__PACK_PARTIAL ".pack" /* temporary folder of the outputs, in their final folder */

struct mode__packer {
    struct mode_pack_counts *n;
    char *out; /* folder of the tars */
    uint32_t per_shard;
    bool skip_bad, of_task;      /* of_task: named 0.tar and s0000000, as in CLIP_benchmark */
    struct mode_tar_writer *tar; /* NULL between shards */
};

typedef enum mode_status mode__pack_picture_fn(struct mode__packer *p, const char *path, const void *ctx,
                                               struct mode_error *err);

/* A pair that cannot be packed (st, err): with skip_bad counted and MODE_OK, otherwise st. */
enum mode_status mode__pack_bad(struct mode__packer *p, uint64_t *count, enum mode_status st, struct mode_error *err);
/* Add a sample: the picture's file, and a member <key>.<text_ext> with the text. */
enum mode_status mode__pack_one(struct mode__packer *p, const char *picture, const char *text, size_t text_size,
                                const char *text_ext, struct mode_error *err);
/* mode__pack_bad of a list's pair with a fault. */
enum mode_status mode__pack_bad_pair(struct mode__packer *p, const struct mode_pair *pair, struct mode_error *err);
/* mode__pack_one of a pair's picture, whose path is relative to folder; errors name the line of the list. */
enum mode_status mode__pack_listed(struct mode__packer *p, const struct mode_pairs *l, const struct mode_pair *pair,
                                   const char *folder, const char *text, size_t text_size, const char *text_ext,
                                   struct mode_error *err);
/* Where relative paths of a list start: its folder; for a pipe the current folder. The caller frees. */
char *mode__pack_list_folder(const char *list);
bool mode__pack_is_picture_name(const char *name);
/* Calls `picture` for every picture below dir, in name order. depth: 0 (it is recursive). */
enum mode_status mode__pack_folder(struct mode__packer *p, const char *dir, int depth, mode__pack_picture_fn *picture,
                                   const void *ctx, struct mode_error *err);
/* Close the last tar. st: status so far, returned if it is an error; source: names the input if it had no picture. */
enum mode_status mode__pack_finish(struct mode__packer *p, enum mode_status st, const char *source,
                                   struct mode_error *err);

#endif
