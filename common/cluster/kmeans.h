/* kmeans.h - balanced k-means: every centre gets floor(n/k) or ceil(n/k) rows.
 *
 * Used twice by MoDE: captions -> fine centres, fine centres -> coarse groups. Each iteration assigns the rows
 * under that constraint (balanced.h), then moves each centre to the mean of its rows (cosine: normalised). No
 * cluster can become empty, so there is no re-seeding.
 *
 *     struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
 *     p.k = 1024;
 *     st = mode_kmeans_train(centres, ids, &stats, x, n, d, &p, &err);
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.1.
 * Threads: uses the pool; bit-identical for the same seed and kind of backend, for any number of threads. */
#ifndef MODE_CLUSTER_KMEANS_H
#define MODE_CLUSTER_KMEANS_H

#include "cluster/balanced.h"

struct mode_kmeans_params {
    struct mode_backend *be; /* for costs and means; NULL = "cpu"                        */
    int k;                   /* centres, 1 <= k <= n                                     */
    int iterations;          /* upper bound, >= 1                                        */
    double tolerance;        /* stop when the objective's relative decrease is <= this   */
    enum mode_metric metric; /* cosine requires unit rows                                */
    uint64_t seed;           /* of the random rows that are the initial centres          */
    uint64_t stream;         /* random stream of the step: 0 fine, 1 coarse              */
    void (*progress)(void *ctx, int iteration, int iterations, double objective); /* may be NULL */
    bool (*stopping)(void *ctx); /* may be NULL; true ends with MODE_E_STOPPED            */
    void *ctx;
};
#define MODE_KMEANS_PARAMS_DEFAULT                                                                                     \
    {                                                                                                                  \
        .iterations = 25, .tolerance = 1e-4, .metric = MODE_METRIC_EUCLIDEAN                                           \
    }

struct mode_kmeans_stats {
    int iterations;            /* that were run */
    double objective;          /* mean cost of a row to its centre in the last iteration */
    double first_objective;    /* the same in the first one */
    double bound;              /* lower bound on the mean cost of any balanced assignment to that iteration's centres */
    double epsilon;            /* objective <= bound + (1 + k / n) * epsilon (+ rounding of f32 costs) */
    int64_t largest, smallest; /* cluster sizes */
    int64_t bids, refreshed;   /* of all iterations, see balanced.h */
};

/* centres [k, d] f32, id [n] in [0, k): the balanced assignment whose means the centres are. x [n, d] f32 must be
 * finite (mode_rows_check). Host memory. stats may be NULL. Errors: MODE_E_VALUE (k > n), MODE_E_MEMORY,
 * MODE_E_STOPPED. */
enum mode_status mode_kmeans_train(float *centres, int32_t *id, struct mode_kmeans_stats *stats, const float *x,
                                   int64_t n, int d, const struct mode_kmeans_params *params, struct mode_error *err);

/* The update step of k-means: every centre becomes the mean of its rows (unit: normalised), summed in the order of the
 * rows. centres [k, d]; id [n] in [0, k); first [k + 1] and members [n] are scratch, best in backend memory: host
 * memory is copied to the device and back. */
void mode_kmeans_move(struct mode_backend *be, float *centres, const int32_t *id, const float *x, int64_t n, int d,
                      int k, int32_t *first, int32_t *members, bool unit);

#endif
