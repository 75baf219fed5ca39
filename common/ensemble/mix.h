/* mix.h - the weighted sum of the experts' cosines.
 *
 * score = sum_c w_c cosine_c, without any logit scale. A one-hot w gives that expert's own numbers, bit for
 * bit; w = 1/n gives the plain average (`all_unit`).
 *
 * Dimensions: n experts; cosine[c] is [rows, cols] f32 row-major.
 * Source:  MoDE (arXiv:2404.16030) section 3.3.
 * Threads: pure. */
#ifndef MODE_ENSEMBLE_MIX_H
#define MODE_ENSEMBLE_MIX_H

#include <stdint.h>

/* out [rows, cols]; weight [n]: one task, one set of weights. */
void mode_mix(float *out, const float *const *cosine, const double *weight, int n, int64_t rows, int64_t cols);
/* weight [cols, n]: every column (text query) has weights of its own. */
void mode_mix_columns(float *out, const float *const *cosine, const double *weight, int n, int64_t rows, int64_t cols);

#endif
