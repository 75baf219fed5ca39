/* pack.h - a list or folder of pictures and captions to WebDataset shards; class folders, COCO's captions or such a
 * list to an evaluation task in CLIP_benchmark's format.
 *
 * A list, plain or CSV: see pairs.h; paths are relative to the list's folder. A folder: every .jpg .jpeg .png .webp
 * below it in name order; the caption is the .txt beside it, or its .json, copied. Pictures are copied byte for byte;
 * the extension follows from their content.
 *
 * Threads: one caller per output folder. */
#ifndef MODE_PIPELINE_PACK_H
#define MODE_PIPELINE_PACK_H

#include "pipeline/pairs.h"

enum { MODE_PACK_MAX_PER_SHARD = 1000000 };

struct mode_pack_counts {
    /* Pairs of the list, or pictures found: the sum of packed and the five after it. With a list for a task: its
     * pictures, and the unusable lines. */
    uint64_t pairs;
    uint64_t packed, no_file, not_an_image, cut_image, no_caption, bad_text;
    uint64_t shards;
};

struct mode_pack_options {
    uint32_t per_shard;
    bool skip_bad;
    struct mode_pairs_options list;
};

/* out: a folder, created if missing; it must not hold a tar. All tars appear in it at the end, or none: until then they
 * are in its hidden folder .pack, which the next call removes if a killed process left it. skip_bad false: the first
 * bad pair is MODE_E_FORMAT (or the error of reading its file) naming it. bad_text: not UTF-8, or a CSV record with
 * another number of columns. cut_image: a truncated file, without its end marker; nothing is decoded here, so
 * `captions` finds other damage. */
enum mode_status mode_pack(struct mode_pack_counts *n, const char *pairs, const char *out,
                           const struct mode_pack_options *o, struct mode_error *err);

struct mode_pack_task {
    /* Classification: a folder with one folder per class, with pictures at any depth. Classes are in byte order of the
     * folder names, or in numerical order if all names are numbers. Retrieval: COCO's captions, JSON with `images` (id,
     * file_name) and `annotations` (image_id, caption); or a list (pairs.h), a file that is not called .json and does
     * not begin with "{": pictures in the order of their first lines, all captions of a path in line order. */
    const char *source;
    const char *class_names; /* classification: a file, one per line in the order of the folders; NULL: the folder names
                                with blanks for "_" */
    const char *templates;   /* classification: a file, one per line, with {c}; NULL: MODE_PACK_TEMPLATE */
    const char *pictures;    /* retrieval: the folder of the pictures; NULL: that of source */
    struct mode_pairs_options list;
};
#define MODE_PACK_TEMPLATE "a photo of a {c}."

/* out: the task's folder, created if missing; it must not hold a task. data/evalset.h documents its files. They appear
 * at the end, test/ last, or none does. Same inputs, same bytes. Memory: one picture at a time, and the words. Errors
 * as above. */
enum mode_status mode_pack_task(struct mode_pack_counts *n, const struct mode_pack_task *task, const char *out,
                                uint32_t per_shard, bool skip_bad, struct mode_error *err);

#endif
