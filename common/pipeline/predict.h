/* predict.h - the ensemble on pictures of one's own.
 *
 * The words decide how the experts are weighted (ensemble/router.h), as they do in a run's report: class names with
 * their templates are one task; queries are a task each. Experts whose weight is 0 are not opened. A score is the
 * weighted sum of the experts' cosines, without any logit scale (ensemble/mix.h).
 *
 *     st = mode_predict(&p, &spec, &err);           // p.score [n_pictures, p.columns]
 *     mode_prediction_clear(&p);
 *
 * Such a sum is one inner product of longer vectors: all experts' features of a picture side by side, which know of no
 * words, and all their features of a class or query, each times its weight. So pictures are encoded once, for any index
 * of vectors, and every word that comes later decides for itself how the experts are weighted. A row of pictures has the
 * length sqrt(n), all the same: the largest products are the nearest by angle, too.
 *
 *     st = mode_predict_vectors(&v, &spec, &err);   // v.pictures [n_pictures, v.width], v.words [v.columns, v.width]
 *     mode_ensemble_vectors_clear(&v);
 *
 * Dimensions: n experts, C columns: classes or queries, E joint embedding of every expert.
 * Source:  MoDE (arXiv:2404.16030) section 3.3.
 * Threads: one caller per backend. */
#ifndef MODE_PIPELINE_PREDICT_H
#define MODE_PIPELINE_PREDICT_H

#include "base/error.h"
#include "data/evalset.h"
#include "ensemble/router.h"
#include "pipeline/encode.h"

#include <stdint.h>

struct mode_backend;

struct mode_predict_spec {
    struct mode_backend *be;
    const char *experts; /* a run's experts/: centres.safetensors, expert-0, expert-1, ... */
    const char *encoder; /* folder of the encoder that the centres were made with */
    const char *merges;  /* CLIP's merges file */
    const struct mode_evalset
        *words;           /* classes and templates, or texts (kind retrieval): queries; pictures are not its. NULL, for
                             vectors alone: none */
    char *const *picture; /* [n_pictures] paths */
    int64_t n_pictures;
    int64_t *failed; /* may be NULL; of a failure the picture that could not be read, n_pictures where it is another */
    enum mode_router router;
    struct mode_router_params params;
    int top_experts; /* only so many, those of the greatest weights, which then sum to 1; 0: all. An approximation */
    int64_t batch;   /* pictures or texts at a time */
    const struct mode_encode_hook *hook; /* may be NULL */
};

struct mode_prediction {
    int n;           /* experts */
    int64_t columns; /* classes or queries */
    double *weight;  /* classes: [n]; queries: [columns, n] */
    float *score;    /* [n_pictures, columns] */
};

/* MODE_E_NOINPUT, MODE_E_FORMAT: a file, named; MODE_E_VALUE: another encoder than the centres'; MODE_E_MEMORY. Clear
 * also after a failure. */
enum mode_status mode_predict(struct mode_prediction *p, const struct mode_predict_spec *spec, struct mode_error *err);
void mode_prediction_clear(struct mode_prediction *p);

struct mode_ensemble_vectors {
    int n;           /* experts */
    int64_t columns; /* classes or queries */
    int64_t width;   /* n * E: expert-0's numbers, then expert-1's, ... */
    double *weight;  /* as of a prediction; NULL without words */
    float *pictures; /* [n_pictures, width], each expert's E numbers of length 1; NULL without pictures */
    float *words;    /* [columns, width], each expert's of the length of its weight; NULL without words */
};

/* As mode_predict, of pictures, words or both; MODE_E_SHAPE: an expert has another E than the first. Clear also after a failure. */
enum mode_status mode_predict_vectors(struct mode_ensemble_vectors *v, const struct mode_predict_spec *spec,
                                      struct mode_error *err);
void mode_ensemble_vectors_clear(struct mode_ensemble_vectors *v);

#endif
