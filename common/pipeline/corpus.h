/* corpus.h - statistics of the training data by cluster, for the report.
 *
 * Reads captions.bin and assign.safetensors of every shard once: counts per fine centre and expert, the ledger of
 * fates, each expert's most distinctive words, the caption nearest to every fine centre, and a few random pictures per
 * expert.
 *
 * Threads: a finished struct is read-only. */
#ifndef MODE_PIPELINE_CORPUS_H
#define MODE_PIPELINE_CORPUS_H

#include "cluster/centres.h"
#include "data/captions.h"

enum { MODE_CORPUS_WORDS = 14, MODE_CORPUS_PICTURES = 18, MODE_CORPUS_PICTURE_SIDE = 120 };

struct mode_corpus_word {
    char *text;
    double score;  /* log odds ratio against the other experts, divided by its standard error */
    int64_t count; /* captions of this expert that contain it */
};

struct mode_corpus_picture {
    char *caption;
    int width, height; /* pixels, at most MODE_CORPUS_PICTURE_SIDE */
    unsigned char *jpeg;
    size_t jpeg_size;
};

struct mode_corpus_expert {
    int64_t rows;
    int n_fine;
    int n_words;
    struct mode_corpus_word word[MODE_CORPUS_WORDS];
    int n_pictures;
    struct mode_corpus_picture picture[MODE_CORPUS_PICTURES];
};

struct mode_corpus { /* owns its members */
    int n, m;
    int64_t samples, rows;             /* of all shards: samples in, pairs kept */
    int64_t n_shards, cut_shards;      /* cut: with a truncated tar; samples after the cut are not counted */
    int64_t bad_shards;                /* skipped: their contents are not a tar */
    int64_t fate[MODE_FATE_COUNT];     /* sums to samples */
    int64_t *fine_rows;                /* [m], sums to rows */
    char **fine_caption;               /* [m] caption nearest to the centre; NULL: no row */
    struct mode_corpus_expert *expert; /* [n], rows sum to rows */
    int64_t pictures_unreadable;       /* drawn, but shard or picture could not be read */
};

/* One shard's files; tar may be NULL (no pictures), or a pinned address. */
struct mode_corpus_shard {
    const char *captions, *assign, *tar;
};

/* seed: of the drawn pictures. centres_digest: of the centres file; assignments made with others are MODE_E_VALUE.
 * Errors also: rows of captions and assignment disagree, a fine id out of range; MODE_E_PEER: pictures cannot be
 * fetched at present. Close also after a failure. */
enum mode_status mode_corpus_open(struct mode_corpus *c, const struct mode_corpus_shard *shard, int n_shards,
                                  const struct mode_centres *centres, const char *centres_digest, uint64_t seed,
                                  struct mode_error *err);
void mode_corpus_close(struct mode_corpus *c);

/* Calls fn for each word of a caption: runs of at least two letters, digits and bytes above 0x7f, in lower case
 * (ASCII). */
void mode_corpus_words(const char *caption, void (*fn)(void *ctx, const char *word, size_t len), void *ctx);
/* A picture file as a small JPEG, owned by out; MODE_E_FORMAT if it does not decode. */
enum mode_status mode_corpus_thumbnail(struct mode_corpus_picture *out, const unsigned char *data, size_t size,
                                       struct mode_error *err);

#endif
