/* centres.h - centres.safetensors: fine centres, coarse groups, and what they are good for.
 *
 * fine [m, d] f32, coarse [n, d] f32, fine_to_coarse [m] i32, fine_size [m] i64 (rows of the sample in each),
 * metadata: encoder_id, metric, seed, sample_size, certificate (JSON: per level largest, smallest,
 * objective), grown_from (only when groups were added: the digests of the files it grew from, oldest first, with a
 * space between; ids of those files mean the same here). Vectors of another encoder than encoder_id must never be
 * compared with these centres: that is an error.
 *
 * Source: MoDE (arXiv:2404.16030) section 3.1. */
#ifndef MODE_CLUSTER_CENTRES_H
#define MODE_CLUSTER_CENTRES_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum mode_metric { MODE_METRIC_EUCLIDEAN = 1, MODE_METRIC_COSINE = 2 };

struct mode_centres {
    int m, n, d;
    float *fine;             /* [m, d]  */
    float *coarse;           /* [n, d]  */
    int32_t *fine_to_coarse; /* [m], values in [0, n), every value occurs */
    int64_t *fine_size;      /* [m] rows of the sample                    */
    enum mode_metric metric;
    uint64_t seed, sample_size;
    char *encoder_id;
    char *certificate; /* JSON */
    char *grown_from;  /* digests, or NULL */
};

enum mode_status mode_centres_load(struct mode_centres *c, const char *path, struct mode_error *err);
enum mode_status mode_centres_save(const struct mode_centres *c, const char *path, struct mode_error *err);
void mode_centres_clear(struct mode_centres *c);
/* Append the fine centres of `more` as one further coarse group; what c has keeps its ids. c_digest: of the file c
 * was loaded from. MODE_E_VALUE: another encoder, metric or width; what names `more` in the sentence. */
enum mode_status mode_centres_grow(struct mode_centres *c, const char *c_digest, const struct mode_centres *more,
                                   const char *what, struct mode_error *err);
/* How many of the coarse groups, the last ones, were added by mode_centres_grow. */
int mode_centres_added(const struct mode_centres *c);
/* Whether ids made with the centres file `made_with` (may be NULL) are ids of c, whose own file has `c_digest`. */
bool mode_centres_know(const struct mode_centres *c, const char *c_digest, const char *made_with);
/* MODE_E_VALUE with a sentence unless encoder_id is the centres' own; what names the vectors. */
enum mode_status mode_centres_check_encoder(const struct mode_centres *c, const char *encoder_id, const char *what,
                                            struct mode_error *err);

#endif
