/* lbfgs.h - L-BFGS: minimises a smooth function of many variables from its value and gradient.
 *
 *     struct mode_lbfgs o = MODE_LBFGS_DEFAULT;
 *     st = mode_lbfgs_minimise(&o, x, n, value_of, &problem, &result, &err);
 *
 * The direction is that of the two-loop recursion; the line search looks for a point that fulfils the strong Wolfe
 * conditions. Close to the minimum the decrease of a step is below the rounding error of the values. There the slope
 * alone decides (Hager and Zhang's approximate Wolfe conditions), so the gradient's norm can fall to its own rounding
 * error. If a line search fails, the history is dropped and steepest descent is tried before giving up.
 *
 * All values are f64.
 *
 * Source:  Nocedal and Wright, "Numerical Optimization", 2nd edition, algorithms 7.4, 3.5 and 3.6; Hager and Zhang,
 *          "A new conjugate gradient method with guaranteed descent and an efficient line search" (2005).
 * Threads: uses the pool for long vectors; reductions have a fixed order, so results are bit-identical for any number
 *          of threads. */
#ifndef MODE_OPTIM_LBFGS_H
#define MODE_OPTIM_LBFGS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* The function's value at x [n]; its gradient overwrites g [n]. *noise is 0 on entry: set it to a bound on the value's
 * rounding error. */
typedef double mode_lbfgs_value_fn(void *ctx, const double *x, double *g, double *noise);
/* The preconditioner, in place: v [n] becomes H0 v, H0 being symmetric positive definite, about the inverse Hessian. */
typedef void mode_lbfgs_metric_fn(void *ctx, double *v);

struct mode_lbfgs {
    int history;                  /* pairs (s, y) that are stored, >= 1 */
    int max_iterations;           /* >= 0 */
    double enough;                /* converged when the gradient's L2 norm is at most this */
    double first_step;            /* scale of H0 before the first pair is stored */
    mode_lbfgs_metric_fn *metric; /* NULL: H0 is the identity */
};
#define MODE_LBFGS_DEFAULT                                                                                             \
    {                                                                                                                  \
        .history = 10, .max_iterations = 1000, .enough = 1e-6, .first_step = 1                                         \
    }

struct mode_lbfgs_result {
    double value, gradient; /* at the end; gradient: its L2 norm */
    int iterations, evaluations;
    enum { MODE_LBFGS_CONVERGED, MODE_LBFGS_MOST_ITERATIONS, MODE_LBFGS_NO_PROGRESS } end;
};

/* x [n]: the starting point, replaced by the last iterate. result->end says how the search ended. MODE_E_MEMORY;
 * MODE_E_VALUE: value or gradient at the starting point is not finite. */
enum mode_status mode_lbfgs_minimise(const struct mode_lbfgs *o, double *x, int64_t n, mode_lbfgs_value_fn *value,
                                     void *ctx, struct mode_lbfgs_result *result, struct mode_error *err);
/* Bytes that it allocates. */
size_t mode_lbfgs_bytes(const struct mode_lbfgs *o, int64_t n);

#endif
