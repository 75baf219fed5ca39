/* lbfgs.h - the minimum of a smooth function of many numbers, from its value and gradient: L-BFGS.
 *
 *     struct mode_lbfgs o = MODE_LBFGS_DEFAULT;
 *     st = mode_lbfgs_minimise(&o, x, n, value_of, &problem, &result, &err);
 *
 * A step goes along the direction of the two-loop recursion to a point of the strong Wolfe conditions. Close to the
 * minimum a value's own rounding hides what a step gains; there the slope alone decides (Hager and Zhang's approximate
 * Wolfe conditions), so the gradient can be made as small as it is exact. A direction that leads nowhere costs what is
 * remembered, and the steepest descent is tried before the search gives up.
 *
 * Source:  Nocedal and Wright, "Numerical Optimization", 2nd edition, algorithms 7.4, 3.5 and 3.6; Hager and Zhang,
 * "A new conjugate gradient method with guaranteed descent and an efficient line search" (2005), for the end of it.
 * Threads: sums over long vectors use the pool, in pieces whose number does not depend on it: the same bytes always. */
#ifndef MODE_OPTIM_LBFGS_H
#define MODE_OPTIM_LBFGS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* The function at x [n]; its gradient overwrites g [n]. *noise, 0 before: what rounding may have done to the value. */
typedef double mode_lbfgs_value_fn(void *ctx, const double *x, double *g, double *noise);
/* v [n] becomes a rough inverse of the second derivatives times v, symmetric and positive: the metric to begin with. */
typedef void mode_lbfgs_metric_fn(void *ctx, double *v);

struct mode_lbfgs {
    int history;                  /* steps that are remembered */
    int max_iterations;           /* steps at most */
    double enough;                /* the length of a gradient that is small enough */
    double first_step;            /* the first step is the gradient, through the metric, times this */
    mode_lbfgs_metric_fn *metric; /* NULL: the identity */
};
#define MODE_LBFGS_DEFAULT                                                                                             \
    {                                                                                                                  \
        .history = 10, .max_iterations = 1000, .enough = 1e-6, .first_step = 1                                         \
    }

struct mode_lbfgs_result {
    double value, gradient; /* at the end; gradient: its length */
    int iterations, evaluations;
    enum { MODE_LBFGS_CONVERGED, MODE_LBFGS_MOST_ITERATIONS, MODE_LBFGS_NO_PROGRESS } end;
};

/* x [n]: where to begin, and the best point that was found. MODE_E_MEMORY; MODE_E_VALUE: the function has no finite
 * value where it begins. */
enum mode_status mode_lbfgs_minimise(const struct mode_lbfgs *o, double *x, int64_t n, mode_lbfgs_value_fn *value,
                                     void *ctx, struct mode_lbfgs_result *result, struct mode_error *err);
/* Bytes that it takes beside x. */
size_t mode_lbfgs_bytes(const struct mode_lbfgs *o, int64_t n);

#endif
