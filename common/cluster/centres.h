/* centres.h - centres.safetensors: fine centres, coarse groups, and the encoder they belong to.
 *
 * fine [m, d] f32, coarse [n, d] f32, fine_to_coarse [m] i32, fine_size [m] i64 (rows of the sample in each),
 * metadata: encoder_id, metric, seed, sample_size, certificate (JSON: per level largest, smallest,
 * objective), grown_from (only if groups were added: space-separated digests of the files it grew from, oldest first;
 * ids of those files are valid here). Vectors of an encoder other than encoder_id must never be compared with these
 * centres: that is an error.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.1; docs/FORMATS.md.
 * Threads: reentrant. */
#ifndef MODE_CLUSTER_CENTRES_H
#define MODE_CLUSTER_CENTRES_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum mode_metric { MODE_METRIC_EUCLIDEAN = 1, MODE_METRIC_COSINE = 2 };

struct mode_centres { /* owns its arrays, in host memory */
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

/* c is empty after a failure. MODE_E_NOINPUT, MODE_E_IO, MODE_E_FORMAT, MODE_E_MEMORY. */
enum mode_status mode_centres_load(struct mode_centres *c, const char *path, struct mode_error *err);
enum mode_status mode_centres_save(const struct mode_centres *c, const char *path, struct mode_error *err);
void mode_centres_clear(struct mode_centres *c);
/* Append the fine centres of `more` as one further coarse group; existing ids stay valid. c_digest: of the file c was
 * loaded from. MODE_E_VALUE: another encoder, metric or width; what names `more` in the error. */
enum mode_status mode_centres_grow(struct mode_centres *c, const char *c_digest, const struct mode_centres *more,
                                   const char *what, struct mode_error *err);
/* The number of coarse groups added by mode_centres_grow: they are the last ones. */
int mode_centres_added(const struct mode_centres *c);
/* Are ids that were assigned with the centres file of digest `made_with` (may be NULL: false) valid for c, whose own
 * file has c_digest? */
bool mode_centres_know(const struct mode_centres *c, const char *c_digest, const char *made_with);
/* MODE_E_VALUE unless encoder_id is the centres' own; what names the vectors in the error. */
enum mode_status mode_centres_check_encoder(const struct mode_centres *c, const char *encoder_id, const char *what,
                                            struct mode_error *err);

#endif
