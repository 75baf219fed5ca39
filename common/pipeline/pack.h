/* pack.h - a list or folder of pictures and captions to webdataset shards; pictures in class folders, COCO's captions
 * or such a list to an evaluation task.
 *
 * A list, plain or CSV: see pairs.h; paths are relative to the list's folder. A folder: every .jpg .jpeg .png .webp
 * below it in name order; the caption is the .txt beside it, or its .json as it is. Pictures are copied byte for byte
 * under the extension their content has.
 *
 * Threads: pure, but for the files. */
#ifndef MODE_PIPELINE_PACK_H
#define MODE_PIPELINE_PACK_H

#include "pipeline/pairs.h"

enum { MODE_PACK_MAX_PER_SHARD = 1000000 };

struct mode_pack_counts {
    /* Pairs of the list, or pictures found: packed + the five below. Of a list for a task its pictures, and the lines
     * that cannot be used. */
    uint64_t pairs;
    uint64_t packed, no_file, not_an_image, cut_image, no_caption, bad_text;
    uint64_t shards;
};

struct mode_pack_options {
    uint32_t per_shard;
    bool skip_bad;
    struct mode_pairs_options list;
};

/* out: a folder, made if missing; it must hold no tar yet. All tars appear in it at the end, or none does: until then
 * they are in its hidden folder .pack, which the next call removes where a kill left it. skip_bad false: the first bad
 * pair is MODE_E_FORMAT (or what reading its file gave) naming it. bad_text: not UTF-8, or a record of other columns
 * than the list's. cut_image: a picture file that ends before its end mark; a broken one that goes on to it is for
 * `captions` to find, nothing is decoded here. */
enum mode_status mode_pack(struct mode_pack_counts *n, const char *pairs, const char *out,
                           const struct mode_pack_options *o, struct mode_error *err);

struct mode_pack_task {
    /* A folder with one folder per class, below which its pictures are: a classification task. Classes are in the byte
     * order of the folders' names, or in the order of the numbers where all names are numbers. Or COCO's captions, JSON
     * with `images` (id, file_name) and `annotations` (image_id, caption): a retrieval task. So is a list (pairs.h), a
     * file that is not called .json and does not begin with "{": pictures in the order of their first lines, all
     * captions of a path in the order of the lines. */
    const char *source;
    const char *class_names; /* classification: a file, one a line in the order of the folders; NULL: the folders' names
                                with blanks for "_" */
    const char *templates;   /* classification: a file, one a line, with {c}; NULL: MODE_PACK_TEMPLATE */
    const char *pictures;    /* retrieval: the folder of the pictures; NULL: that of the file */
    struct mode_pairs_options list;
};
#define MODE_PACK_TEMPLATE "a photo of a {c}."

/* out: the task's folder, made if missing, with no task in it; evalset.h says what will be there. It all appears at the
 * end, test/ last, or nothing does. Same inputs, same bytes. One picture is in memory at a time, and the words. */
enum mode_status mode_pack_task(struct mode_pack_counts *n, const struct mode_pack_task *task, const char *out,
                                uint32_t per_shard, bool skip_bad, struct mode_error *err);

#endif
