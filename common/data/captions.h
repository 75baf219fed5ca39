/* captions.h - captions.bin: the result of caption extraction for one shard.
 *
 * The sample index (where each sample's image lies in the tar), the chosen caption of every sample, and one counted
 * fate for every sample that was rejected. All later steps (embedding, assignment, training) refer to "row i of shard
 * s": row i is the i-th kept sample in tar order, with its one caption. The caption chosen here is the one trained on.
 *
 * Little-endian; layout in docs/FORMATS.md. Readers check magic, version, sizes and a checksum.
 * Threads: a loaded struct is read-only. */
#ifndef MODE_DATA_CAPTIONS_H
#define MODE_DATA_CAPTIONS_H

#include "base/error.h"
#include "base/file.h"
#include "data/image.h"

#include <stddef.h>
#include <stdint.h>

/* Every sample of a shard has exactly one of these. The numbers are fixed: they are stored in files. */
#define MODE_FATE_MAP(X)                                                                                               \
    X(KEPT, 0, "kept")                                                                                                 \
    X(NO_IMAGE, 1, "no_image")           /* no member with an image extension                        */                \
    X(NO_CAPTION, 2, "no_caption")       /* no text member or field                                   */               \
    X(EMPTY_CAPTION, 3, "empty_caption") /* None, empty, white space only, a lone double quote        */               \
    X(BAD_JSON, 4, "bad_json")                                                                                         \
    X(BAD_IMAGE, 5, "bad_image")       /* magic says image, decoding says no                        */                 \
    X(NOT_AN_IMAGE, 6, "not_an_image") /* e.g. an HTML page saved as .jpg                           */                 \
    X(IMAGE_TOO_LARGE, 7, "image_too_large")                                                                           \
    X(DUPLICATE_KEY, 8, "duplicate_key") /* key seen earlier in this shard                            */               \
    X(TRUNCATED, 9, "truncated")         /* the tar ends inside this sample                           */               \
    X(BAD_TEXT, 10, "bad_text")          /* caption is not UTF-8                                      */

enum mode_fate {
#define X(name, code, text) MODE_FATE_##name = code,
    MODE_FATE_MAP(X)
#undef X
        MODE_FATE_COUNT
};
const char *mode_fate_name(enum mode_fate fate); /* "bad_image" */

/* One sample of the shard, kept or not. */
struct mode_sample {
    uint64_t image_offset;  /* byte position of the image member's data in the tar; 0 when there is none */
    uint64_t image_size;    /* bytes                                              */
    uint32_t width, height; /* pixels; 0 when unknown                            */
    uint32_t caption_index; /* which of the sample's candidate captions was chosen */
    uint32_t caption_count; /* how many there were                               */
    uint8_t fate;           /* enum mode_fate                                    */
    uint32_t n_boxes;       /* parts of the picture to blur before it is used, usually none */
    const struct mode_box *boxes;
    const char *key;     /* member key, NUL-terminated UTF-8                  */
    const char *caption; /* NUL-terminated UTF-8; "" unless kept              */
};

struct mode_captions {
    struct mode_mapping map; /* the file; keys and captions point into it */
    char *shard_name;        /* for people */
    uint64_t shard_size;     /* bytes of the file */
    /* bytes of the uncompressed tar, more than shard_size when it is compressed; image offsets refer to it (data/tar.h:
     * mode_tar_data) */
    uint64_t data_size;
    uint32_t n_samples; /* all samples of the shard, in tar order */
    /* [n_samples] when saving; NULL in a loaded one: mode_captions_sample reads the file, so that training can keep
     * hundreds of millions of pairs open */
    struct mode_sample *samples;
    uint32_t n_rows;        /* kept samples */
    uint32_t *rows;         /* [n_rows] indices of samples, ascending */
    struct mode_box *boxes; /* of all samples, concatenated */
    uint32_t *box_at;       /* [n_samples] index of the first of each; NULL: no boxes */
    uint32_t n_boxes;
    uint32_t n_blurred;                                /* rows with boxes */
    uint64_t fate_count[MODE_FATE_COUNT];              /* sums to n_samples */
    uint64_t warn_duplicate_ext, warn_ignored_members; /* counted oddities */
    uint64_t cut_at; /* for a truncated tar: byte position of the incomplete member; 0 = complete */
    const char *bad; /* why the shard could not be read as a tar, so that it has no samples; NULL: it could */
};

enum mode_status mode_captions_load(struct mode_captions *c, const char *path, struct mode_error *err);
void mode_captions_clear(struct mode_captions *c);
/* Write c (map and fate_count unused) to path; deterministic. */
enum mode_status mode_captions_save(const struct mode_captions *c, const char *path, struct mode_error *err);

/* Sample i; and the sample of row i. Texts and boxes are borrowed from c. */
struct mode_sample mode_captions_sample(const struct mode_captions *c, uint32_t i);
static inline struct mode_sample mode_captions_row(const struct mode_captions *c, uint32_t i)
{
    return mode_captions_sample(c, c->rows[i]);
}

#endif
