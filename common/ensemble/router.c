#include "ensemble/router.h"

#include "base/options.h"
#include "base/str.h"
#include "cluster/cost.h"
#include "cluster/nearest.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
#define X(name, text) text,
    MODE_ROUTER_MAP(X)
#undef X
};

const char *mode_router_name(enum mode_router router)
{
    return router < MODE_ROUTER_COUNT ? names[router] : "?";
}

enum mode_status mode_router_parse(enum mode_router *router, const char *name, struct mode_error *err)
{
    for (int i = 0; i < MODE_ROUTER_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *router = (enum mode_router)i;
            return MODE_OK;
        }
    }
    return MODE_FAIL(err, MODE_E_VALUE,
                     "router \"%.40s\" is not known; expected paper, reference, uniform, coarse-centre or share", name);
}

enum mode_status mode_router_params_parse(struct mode_router_params *params, const char *text, struct mode_error *err)
{
    static const struct {
        const char *name;
        size_t offset;
        double least, most;
    } known[] = {
#define X(name, value, least, most, help) {#name, offsetof(struct mode_router_params, name), least, most},
        MODE_ROUTER_PARAMS(X)
#undef X
    };
    static const char all[] =
#define X(name, value, least, most, help) " " #name
        MODE_ROUTER_PARAMS(X);
#undef X
    enum { N_KNOWN = sizeof known / sizeof *known };
    *params = (struct mode_router_params)MODE_ROUTER_PARAMS_DEFAULT;
    char *copy = mode_xstrdup(text ? text : ""), *save = NULL;
    enum mode_status st = MODE_OK;
    for (char *w = strtok_r(copy, ", ", &save); w && !st; w = strtok_r(NULL, ", ", &save)) {
        char *value = strchr(w, '=');
        size_t i = 0, n = value ? (size_t)(value - w) : strlen(w);
        while (i < N_KNOWN && !(strlen(known[i].name) == n && strncmp(known[i].name, w, n) == 0)) i++;
        double x;
        if (i == N_KNOWN || !value)
            st = MODE_FAIL(err, MODE_E_VALUE,
                           "\"%.40s\" is not a constant of a router; expected NAME=NUMBER, NAME one of%s", w, all);
        else if (!(st = mode_parse_real(value + 1, known[i].name, &x, err)) &&
                 !(x >= known[i].least && x <= known[i].most))
            st = MODE_FAIL(err, MODE_E_VALUE, "%s is %.40s, it must be between %g and %g", known[i].name, value + 1,
                           known[i].least, known[i].most);
        if (!st) *(double *)(void *)((char *)params + known[i].offset) = x;
    }
    free(copy);
    return st;
}

enum mode_status mode_near_open(struct mode_near *near, const struct mode_centres *c, const float *words, int k,
                                struct mode_error *err)
{
    enum mode_status st;
    *near = (struct mode_near){.k = k, .n = c->n};
    if (k < 1) return MODE_FAIL(err, MODE_E_VALUE, "router: a task without words cannot be routed");
    if ((st = mode_rows_check(words, k, c->d, 1, NULL, "task words", err))) return st;
    size_t count = (size_t)k;
    near->fine_id = malloc(count * sizeof *near->fine_id);
    near->expert = malloc(count * sizeof *near->expert);
    near->coarse_id = malloc(count * sizeof *near->coarse_id);
    near->distance = malloc(count * sizeof *near->distance);
    near->coarse_distance = malloc(count * sizeof *near->coarse_distance);
    if (!near->fine_id || !near->expert || !near->coarse_id || !near->distance || !near->coarse_distance)
        return MODE_FAIL(err, MODE_E_MEMORY, "router: no memory for %d words", k);
    /* also for cosine centres: for unit rows L2 gives the same order */
    if ((st = mode_nearest(NULL, near->fine_id, near->distance, MODE_METRIC_EUCLIDEAN, words, k, c->fine, c->m, c->d,
                           err)) ||
        (st = mode_nearest(NULL, near->coarse_id, near->coarse_distance, MODE_METRIC_EUCLIDEAN, words, k, c->coarse,
                           c->n, c->d, err)))
        return st;
    for (int i = 0; i < k; i++) near->expert[i] = c->fine_to_coarse[near->fine_id[i]];
    return MODE_OK;
}

void mode_near_close(struct mode_near *near)
{
    free(near->fine_id);
    free(near->expert);
    free(near->coarse_id);
    free(near->distance);
    free(near->coarse_distance);
    *near = (struct mode_near){0};
}

static void softmax(double *w, int n)
{
    double top = w[0], sum = 0;
    for (int i = 1; i < n; i++) top = w[i] > top ? w[i] : top;
    for (int i = 0; i < n; i++) sum += w[i] = exp(w[i] - top);
    for (int i = 0; i < n; i++) w[i] /= sum;
}

struct term {
    int32_t expert;
    double value;
};

static int by_expert_and_value(const void *a, const void *b)
{
    const struct term *x = a, *y = b;
    if (x->expert != y->expert) return x->expert < y->expert ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

/* Sums per expert, added in sorted order: sums must be bit-identical for any order of the words. */
static void add_terms(double *sum, int n, struct term *t, int k)
{
    qsort(t, (size_t)k, sizeof *t, by_expert_and_value);
    for (int i = 0; i < n; i++) sum[i] = 0;
    for (int i = 0; i < k; i++) sum[t[i].expert] += t[i].value;
}

/* Weights of the task whose words are first .. first+k-1. single: the task is one retrieval query. t [k]: scratch. */
static void route(double *w, const struct mode_near *near, int first, int k, bool single, enum mode_router router,
                  const struct mode_router_params *p, struct term *t)
{
    int n = near->n;
    bool small = k < p->few;
    double lambda = p->lambda, factor = 1, few = exp(0.5 - sqrt((double)k)), least = INFINITY, all = 0;
    switch (router) {
    case MODE_ROUTER_PAPER:
    case MODE_ROUTER_COARSE_CENTRE:
        if (!single && small) factor = few;
        if (!single && k > p->many) lambda /= log((double)k);
        for (int i = 0; i < k; i++) {
            bool coarse = router == MODE_ROUTER_COARSE_CENTRE;
            double d = coarse ? near->coarse_distance[first + i] : near->distance[first + i];
            t[i] = (struct term){coarse ? near->coarse_id[first + i] : near->expert[first + i],
                                 factor * exp(-d * d / lambda)};
        }
        add_terms(w, n, t, k);
        softmax(w, n);
        return;
    case MODE_ROUTER_REFERENCE: {
        double a = small ? few : 0, b = p->slope * log10(fmax(p->base, k - p->many));
        for (int i = 0; i < k; i++)
            t[i] = (struct term){near->expert[first + i], exp((a - near->distance[first + i]) * b)};
        add_terms(w, n, t, k);
        for (int i = 0; i < n; i++) w[i] /= p->divisor;
        softmax(w, n);
        return;
    }
    case MODE_ROUTER_SHARE:
        for (int i = 0; i < k; i++) least = fmin(least, near->distance[first + i]);
        for (int i = 0; i < k; i++)
            t[i] = (struct term){near->expert[first + i], exp(-(near->distance[first + i] - least) / p->scale)};
        add_terms(w, n, t, k);
        for (int i = 0; i < n; i++) all += w[i]; /* >= 1: the nearest word counts 1 */
        for (int i = 0; i < n; i++) w[i] = small && !single && w[i] <= 0 ? -INFINITY : w[i] / all / p->tau;
        softmax(w, n);
        return;
    case MODE_ROUTER_UNIFORM:
    case MODE_ROUTER_COUNT: break;
    }
    for (int i = 0; i < n; i++) w[i] = 1.0 / n;
}

void mode_router_weights(double *weight, const struct mode_near *near, enum mode_router router,
                         const struct mode_router_params *p)
{
    struct term *t = mode_xmalloc((size_t)near->k * sizeof *t);
    route(weight, near, 0, near->k, false, router, p, t);
    free(t);
}

void mode_router_query_weights(double *weight, const struct mode_near *near, enum mode_router router,
                               const struct mode_router_params *p)
{
    struct term t;
    for (int i = 0; i < near->k; i++) route(weight + (int64_t)i * near->n, near, i, 1, true, router, p, &t);
}

double mode_weights_entropy(const double *weight, int n)
{
    double h = 0;
    for (int i = 0; i < n; i++)
        if (weight[i] > 0) h -= weight[i] * log(weight[i]);
    return h;
}

void mode_weights_keep_top(double *weight, int n, int top)
{
    bool *kept = mode_xcalloc((size_t)n + 1, sizeof *kept);
    double sum = 0;
    for (int k = 0; k < top && k < n; k++) {
        int best = -1;
        for (int c = 0; c < n; c++)
            if (!kept[c] && (best < 0 || weight[c] > weight[best])) best = c;
        kept[best] = true;
        sum += weight[best];
    }
    for (int c = 0; c < n; c++) weight[c] = kept[c] ? weight[c] / sum : 0;
    free(kept);
}
