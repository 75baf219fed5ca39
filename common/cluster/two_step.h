/* two_step.h - rows to m fine centres, fine centres to n coarse groups.
 *
 * A coarse group is a data expert; what routing knows of it is its set of fine centres. Both steps are
 * balanced, and the coarse groups are the balanced assignment itself (not a nearest-centre prediction made
 * afterwards), so no group is empty and sizes differ by at most one fine centre.
 *
 * A group whose fine centres all have nearer neighbours would still be an expert without pairs. Where that is so the
 * fine centres that rows of the sample lie nearest to are grouped, evenly, and the others go with the nearest of these;
 * and where such centres are fewer than groups, others move to the rows farthest from all.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.1. */
#ifndef MODE_CLUSTER_TWO_STEP_H
#define MODE_CLUSTER_TWO_STEP_H

#include "cluster/kmeans.h"

struct mode_two_step_params {
    struct mode_backend *be; /* for costs and means; NULL = the processor */
    int fine, coarse;        /* m >= n >= 1 */
    int fine_iterations, coarse_iterations;
    double tolerance;
    enum mode_metric metric;
    uint64_t seed;
    void (*progress)(void *ctx, int iteration, int iterations, double objective); /* fine step; may be NULL */
    bool (*stopping)(void *ctx);
    void *ctx;
};
#define MODE_TWO_STEP_PARAMS_DEFAULT                                                                                   \
    {                                                                                                                  \
        .fine = 1024, .coarse = 4, .fine_iterations = 50, .coarse_iterations = 100, .tolerance = 1e-4,                 \
        .metric = MODE_METRIC_EUCLIDEAN                                                                                \
    }

/* out: everything but encoder_id, filled; clear with mode_centres_clear, also after a failure. x [n, d] unit
 * rows. Every coarse group is nearest to a row by the rule of assignment. Errors: MODE_E_VALUE (too few rows, or too
 * few that differ, a row not finite or not unit; err names it), MODE_E_MEMORY, MODE_E_STOPPED. */
enum mode_status mode_two_step_train(struct mode_centres *out, const float *x, int64_t n, int d,
                                     const struct mode_two_step_params *params, struct mode_error *err);

#endif
