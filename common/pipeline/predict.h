/* predict.h - inference with the ensemble on a user's pictures.
 *
 * The words determine the experts' weights (ensemble/router.h), as in a run's report: class names with their templates
 * are one task; every query is its own task. Experts with weight 0 are not loaded. A score is the weighted sum of the
 * experts' cosines, without logit scale (ensemble/mix.h).
 *
 *     st = mode_predict(&p, &spec, &err);           // p.score [n_pictures, p.columns]
 *     mode_prediction_clear(&p);
 * Such a sum is one inner product of concatenated vectors: the experts' features of a picture, which do not depend on
 * words, and their features of a class or query, each times the expert's weight. So pictures are encoded once, for any
 * vector index, and later words bring their own weights. All picture vectors have the norm sqrt(n), so maximum inner
 * product and maximum cosine give the same order.
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
    const char *merges;  /* CLIP's BPE merges file */
    /* Classes and templates, or texts (kind retrieval), which are queries; its pictures are not used. NULL: no words,
     * in mode_predict_vectors only. */
    const struct mode_evalset *words;
    char *const *picture; /* [n_pictures] paths */
    int64_t n_pictures;
    int64_t *failed; /* may be NULL; after a failure the picture that could not be read, or n_pictures */
    enum mode_router router;
    struct mode_router_params params;
    int top_experts;                     /* keep this many largest weights and renormalise; 0: all. An approximation */
    int64_t batch;                       /* pictures or texts at a time */
    const struct mode_encode_hook *hook; /* may be NULL */
};

struct mode_prediction {
    int n;           /* experts */
    int64_t columns; /* classes or queries */
    double *weight;  /* classes: [n]; queries: [columns, n] */
    float *score;    /* [n_pictures, columns] */
};

/* MODE_E_NOINPUT, MODE_E_FORMAT: a file, which the error names; MODE_E_VALUE: the encoder is not that of the centres;
 * MODE_E_MEMORY. Clear also after a failure. */
enum mode_status mode_predict(struct mode_prediction *p, const struct mode_predict_spec *spec, struct mode_error *err);
void mode_prediction_clear(struct mode_prediction *p);

struct mode_ensemble_vectors {
    int n;           /* experts */
    int64_t columns; /* classes or queries */
    int64_t width;   /* n * E: expert-0's features, then expert-1's, ... */
    double *weight;  /* as in mode_prediction; NULL without words */
    float *pictures; /* [n_pictures, width], each expert's E features of norm 1; NULL without pictures */
    float *words;    /* [columns, width], each expert's E features of norm weight; NULL without words */
};

/* As mode_predict, for pictures, words or both; MODE_E_SHAPE: experts differ in E. Clear also after a failure. */
enum mode_status mode_predict_vectors(struct mode_ensemble_vectors *v, const struct mode_predict_spec *spec,
                                      struct mode_error *err);
void mode_ensemble_vectors_clear(struct mode_ensemble_vectors *v);

#endif
