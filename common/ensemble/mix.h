/* mix.h - the ensemble's scores: the weighted sum of the experts' cosines.
 *
 * score = sum_c w_c cosine_c, summed in f64, without logit scale. A one-hot w gives that expert's cosines,
 * bit-identical; w = 1/n gives the plain average (`all_unit`).
 *
 * Dimensions: n experts; cosine[c] is [rows, cols] f32 row-major.
 * Source:  MoDE (arXiv:2404.16030) section 3.3.
 * Threads: reentrant. */
#ifndef MODE_ENSEMBLE_MIX_H
#define MODE_ENSEMBLE_MIX_H

#include <stdint.h>

/* out [rows, cols]; weight [n]: one set of weights for the task. */
void mode_mix(float *out, const float *const *cosine, const double *weight, int n, int64_t rows, int64_t cols);
/* weight [cols, n]: one set per column (text query). */
void mode_mix_columns(float *out, const float *const *cosine, const double *weight, int n, int64_t rows, int64_t cols);

#endif
