/* router.h - ensemble weights: one weight per expert from a task's metadata (its words).
 *
 * The words (class names, or retrieval captions) are embedded with the centres' encoder. Every word is matched with
 * its nearest fine centre, which belongs to an expert; each router turns these matches into weights by its own
 * formula. There is one weight vector per task, or one per word if every word is its own task (retrieval queries).
 *
 *     st = mode_near_open(&near, &centres, words, k, &err);
 *     mode_router_weights(weight, &near, MODE_ROUTER_REFERENCE, &params);       // [n], sums to 1
 *
 * With d the L2 distance of a word to its nearest fine centre and k words:
 *   paper          softmax of  sum exp(-d^2 / lambda), lambda / ln k above 200 words, and the sum multiplied by
 *                  exp(0.5 - sqrt k) below 10 words
 *   reference      softmax of  (sum exp((a - d) b)) / 8, a = exp(0.5 - sqrt k) below 10 words, else 0,
 *                  b = 5 log10(max(10, k - 200))
 *   uniform        1 / n
 *   coarse-centre  like paper, with coarse instead of fine centres
 *   share          softmax of  share / tau, share = the expert's fraction of  sum exp(-(d - min d) / scale):
 *                  independent of the overall distance of the words and of their number; in a small task (< 10
 *                  words) experts without a match have weight 0
 *
 * Otherwise an expert without a match has sum 0 and takes part in the softmax. Weights are bit-identical for any order
 * of the words.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.3 and appendix; `reference` is the released code's formula.
 * Threads: reentrant; an open struct is read-only. */
#ifndef MODE_ENSEMBLE_ROUTER_H
#define MODE_ENSEMBLE_ROUTER_H

#include "base/error.h"
#include "cluster/centres.h"

#include <stdbool.h>
#include <stdint.h>

#define MODE_ROUTER_MAP(X)                                                                                             \
    X(PAPER, "paper")                                                                                                  \
    X(REFERENCE, "reference")                                                                                          \
    X(UNIFORM, "uniform")                                                                                              \
    X(COARSE_CENTRE, "coarse-centre")                                                                                  \
    X(SHARE, "share")

enum mode_router {
#define X(name, text) MODE_ROUTER_##name,
    MODE_ROUTER_MAP(X)
#undef X
        MODE_ROUTER_COUNT
};
const char *mode_router_name(enum mode_router router);
/* MODE_E_VALUE: unknown name; the error lists the names. */
enum mode_status mode_router_parse(enum mode_router *router, const char *name, struct mode_error *err);

/* The constants of the formulas above: name, default, minimum, maximum, help text. */
#define MODE_ROUTER_PARAMS(X)                                                                                          \
    X(few, 10, 0, 1e9, "fewer words than this are a small task")                                                       \
    X(many, 200, 0, 1e9, "more words than this are a large one")                                                       \
    X(lambda, 0.2, 1e-6, 1e6, "paper, coarse-centre: squared distances are divided by this")                           \
    X(slope, 5, 1e-6, 1e6, "reference: factor of the logarithm")                                                       \
    X(base, 10, 1, 1e9, "reference: least argument of the logarithm")                                                  \
    X(divisor, 8, 1e-6, 1e6, "reference: sums are divided by this")                                                    \
    X(scale, 0.2, 1e-6, 1e6, "share: distances beyond the least are divided by this")                                  \
    X(tau, 0.25, 1e-6, 1e6, "share: temperature")

struct mode_router_params {
#define X(name, value, least, most, help) double name;
    MODE_ROUTER_PARAMS(X)
#undef X
};
#define MODE_ROUTER_PARAM_DEFAULT(name, value, least, most, help) .name = value,
#define MODE_ROUTER_PARAMS_DEFAULT                                                                                     \
    {                                                                                                                  \
        MODE_ROUTER_PARAMS(MODE_ROUTER_PARAM_DEFAULT)                                                                  \
    }
/* "lambda=0.1 tau=0.5": sets those constants, all others have their defaults; "" or NULL: the defaults. Separated by
 * blanks or commas. MODE_E_VALUE: an unknown constant, or a value out of range. */
enum mode_status mode_router_params_parse(struct mode_router_params *params, const char *text, struct mode_error *err);

/* Every word's nearest centres; arrays are owned, in host memory. */
struct mode_near {
    int k, n;                  /* words, experts                      */
    int32_t *fine_id, *expert; /* [k] nearest fine centre, its expert */
    float *distance;           /* [k] L2 to it                        */
    int32_t *coarse_id;        /* [k] nearest coarse centre           */
    float *coarse_distance;    /* [k] L2 to it                        */
};
/* words [k, centres->d] f32 unit rows, of the centres' encoder (the caller checks that). Errors: MODE_E_VALUE (k < 1, a
 * row not finite or not unit), MODE_E_MEMORY. Close also after a failure. */
enum mode_status mode_near_open(struct mode_near *near, const struct mode_centres *centres, const float *words, int k,
                                struct mode_error *err);
void mode_near_close(struct mode_near *near);

/* weight [n], sums to 1, never NaN: the task's, from all words. */
void mode_router_weights(double *weight, const struct mode_near *near, enum mode_router router,
                         const struct mode_router_params *params);
/* weight [k, n], every row sums to 1: each word is its own task (text-to-image retrieval). The corrections for small
 * and large tasks do not apply here, except in `reference`, which has one formula for any number of words. */
void mode_router_query_weights(double *weight, const struct mode_near *near, enum mode_router router,
                               const struct mode_router_params *params);
/* weight [n]: keep the `top` >= 1 largest (ties to the lower index), set the others to 0 and renormalise to sum 1. */
void mode_weights_keep_top(double *weight, int n, int top);
/* How many of a router's weights to keep, given the option `top`; 0: all. uniform always averages all experts. */
static inline int mode_router_top(enum mode_router router, int top)
{
    return router == MODE_ROUTER_UNIFORM ? 0 : top;
}
/* In nats: 0 for a one-hot weight, ln n for uniform ones. */
double mode_weights_entropy(const double *weight, int n);

#endif
