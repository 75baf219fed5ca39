/* kmeans.h - balanced k-means: every centre gets floor(n/k) or ceil(n/k) rows.
 *
 * Used twice by MoDE: captions -> fine centres, fine centres -> coarse groups. Each iteration gives every row
 * to a centre under that constraint (balanced.h), then moves each centre to the mean of its rows (cosine: the
 * mean made unit again). No centre can be empty, so nothing is ever re-seeded.
 *
 *     struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
 *     p.k = 1024;
 *     st = mode_kmeans_train(centres, ids, &stats, x, n, d, &p, &err);
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.1.
 * Threads: uses the pool; same seed and kind of backend, same bytes for any thread count. */
#ifndef MODE_CLUSTER_KMEANS_H
#define MODE_CLUSTER_KMEANS_H

#include "cluster/balanced.h"

struct mode_kmeans_params {
    struct mode_backend *be; /* for costs and means; NULL = the processor                */
    int k;                   /* centres wanted, 1 <= k <= n                              */
    int iterations;          /* upper bound on rounds, >= 1                              */
    double tolerance;        /* stop when the objective falls by less than this share    */
    enum mode_metric metric; /* cosine wants unit rows                                   */
    uint64_t seed;           /* picks the rows the centres start from                    */
    uint64_t stream;         /* keeps the two steps' draws apart: 0 fine, 1 coarse       */
    void (*progress)(void *ctx, int iteration, int iterations, double objective); /* may be NULL */
    bool (*stopping)(void *ctx); /* may be NULL; true ends with MODE_E_STOPPED            */
    void *ctx;
};
#define MODE_KMEANS_PARAMS_DEFAULT                                                                                     \
    {                                                                                                                  \
        .iterations = 25, .tolerance = 1e-4, .metric = MODE_METRIC_EUCLIDEAN                                           \
    }

struct mode_kmeans_stats {
    int iterations;         /* rounds run */
    double objective;       /* mean cost of a row to its centre in the last round */
    double first_objective; /* the same in the first round */
    double bound;           /* no balanced assignment to the last round's centres has a smaller mean cost */
    double epsilon;         /* objective <= bound + (1 + k / n) * epsilon, but for the rounding of costs */
    int64_t largest, smallest;
    int64_t bids, refreshed; /* of all rounds, see balanced.h */
};

/* centres [k, d], id [n] in [0, k): the balanced assignment the final centres are means of.
 * Errors: MODE_E_VALUE (k > n), MODE_E_MEMORY, MODE_E_STOPPED. x [n, d] must be finite (mode_rows_check). */
enum mode_status mode_kmeans_train(float *centres, int32_t *id, struct mode_kmeans_stats *stats, const float *x,
                                   int64_t n, int d, const struct mode_kmeans_params *params, struct mode_error *err);

/* The second half of an iteration: every centre to the mean of its rows (unit: the mean's direction), added up in the
 * order of the rows. centres [k, d]; id [n] in [0, k); first [k + 1] and members [n] are scratch, best in the backend's
 * memory: what lies on the host is copied there and back. */
void mode_kmeans_move(struct mode_backend *be, float *centres, const int32_t *id, const float *x, int64_t n, int d,
                      int k, int32_t *first, int32_t *members, bool unit);

#endif
