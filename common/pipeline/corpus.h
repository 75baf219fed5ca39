/* corpus.h - what the training data looks like through the clusters: for the report.
 *
 * Reads captions.bin and assign.safetensors of every shard once: counts per fine centre and expert, the
 * ledger of fates, words that set each expert's captions apart, the caption nearest to every fine centre, and
 * a few pictures per expert drawn by seed.
 *
 * Threads: a finished struct is read-only. */
#ifndef MODE_PIPELINE_CORPUS_H
#define MODE_PIPELINE_CORPUS_H

#include "cluster/centres.h"
#include "data/captions.h"

enum { MODE_CORPUS_WORDS = 14, MODE_CORPUS_PICTURES = 18, MODE_CORPUS_PICTURE_SIDE = 120 };

struct mode_corpus_word {
    char *text;
    double score;  /* log odds against the other experts, in standard errors */
    int64_t count; /* captions of this expert that hold it */
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

struct mode_corpus {
    int n, m;
    int64_t samples, rows;             /* of all shards: samples in, pairs kept */
    int64_t n_shards, cut_shards;      /* cut: whose tars end too early; what came after is in no number */
    int64_t fate[MODE_FATE_COUNT];     /* sums to samples */
    int64_t *fine_rows;                /* [m], sums to rows */
    char **fine_caption;               /* [m] caption nearest to the centre; NULL: no row */
    struct mode_corpus_expert *expert; /* [n], rows sum to rows */
    int64_t pictures_unreadable;       /* drawn, but the shard or the picture could not be read */
};

/* One shard's files; tar may be NULL (no pictures), or a pinned address. */
struct mode_corpus_shard {
    const char *captions, *assign, *tar;
};

/* centres_digest: of the centres file; assignments made with others are MODE_E_VALUE. Errors also: rows of
 * captions and assignment disagree, a fine id out of range; MODE_E_PEER: pictures cannot be fetched at present. Clear
 * also after a failure. */
enum mode_status mode_corpus_open(struct mode_corpus *c, const struct mode_corpus_shard *shard, int n_shards,
                                  const struct mode_centres *centres, const char *centres_digest, uint64_t seed,
                                  struct mode_error *err);
void mode_corpus_close(struct mode_corpus *c);

/* Words of a caption, lower case (ASCII), letters and digits and bytes above 0x7f; at least two bytes. Calls
 * fn for each. */
void mode_corpus_words(const char *caption, void (*fn)(void *ctx, const char *word, size_t len), void *ctx);
/* A picture file as a small JPEG; MODE_E_FORMAT when it does not decode. */
enum mode_status mode_corpus_thumbnail(struct mode_corpus_picture *out, const unsigned char *data, size_t size,
                                       struct mode_error *err);

#endif
