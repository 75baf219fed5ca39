/* two_step.h - two-step clustering: rows to m fine centres, fine centres to n coarse groups.
 *
 * A coarse group is a data expert; routing knows it by its fine centres. Both steps are balanced, and the coarse groups
 * are the balanced assignment itself (not a nearest-centre prediction made afterwards), so no group is empty and sizes
 * differ by at most one fine centre.
 *
 * Pairs are assigned to the nearest fine centre, without balancing. A group in which no fine centre is nearest to any
 * row of the sample would be an expert without pairs. Then only the fine centres that are nearest to some row are
 * grouped, balanced, and every other joins the group of its nearest one; if these are fewer than the groups, others are
 * first moved to the rows farthest from all centres.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.1.
 * Threads: as kmeans.h. */
#ifndef MODE_CLUSTER_TWO_STEP_H
#define MODE_CLUSTER_TWO_STEP_H

#include "cluster/kmeans.h"

struct mode_two_step_params {
    struct mode_backend *be; /* for costs and means; NULL = "cpu" */
    int fine, coarse;        /* m >= n >= 1 */
    int fine_iterations, coarse_iterations;
    double tolerance; /* this and the following: as in kmeans.h */
    enum mode_metric metric;
    uint64_t seed;
    void (*progress)(void *ctx, int iteration, int iterations, double objective); /* of the fine step; may be NULL */
    bool (*stopping)(void *ctx);                                                  /* may be NULL */
    void *ctx;
};
#define MODE_TWO_STEP_PARAMS_DEFAULT                                                                                   \
    {                                                                                                                  \
        .fine = 1024, .coarse = 4, .fine_iterations = 50, .coarse_iterations = 100, .tolerance = 1e-4,                 \
        .metric = MODE_METRIC_EUCLIDEAN                                                                                \
    }

/* out: all fields but encoder_id; clear with mode_centres_clear, also after a failure. x [n, d] f32 unit rows, host
 * memory. Every coarse group has a fine centre that is nearest to some row. Errors: MODE_E_VALUE (too few rows, too few
 * distinct ones, a row not finite or not unit; err names it), MODE_E_MEMORY, MODE_E_STOPPED. */
enum mode_status mode_two_step_train(struct mode_centres *out, const float *x, int64_t n, int d,
                                     const struct mode_two_step_params *params, struct mode_error *err);

#endif
