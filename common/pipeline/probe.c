#include "pipeline/probe.h"

#include "base/memory.h"
#include "base/rng.h"
#include "base/str.h"
#include "ensemble/metrics.h"
#include "models/clip.h"
#include "nn/backend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The search for C is over 10^(k / 8), |k| <= MOST_K, as in CLIP's appendix A.3 (10^-6 to 10^6, 8 per decade). */
enum { MOST_K = 48, FIRST_STEP = 16, PIECE_BATCHES = 16, SCORED = 4096 };

struct probe {
    const struct mode_probe_spec *s;
    const struct mode_evalset *train, *test;
    struct mode_probe *p;
    int32_t *class_of; /* [n_classes] index of a class among those with training pictures, or -1 */
    int64_t *order;    /* [n_train] pictures: the training split, then the validation split, each in the tars' order */
    int32_t *label;    /* [n_train] index of the class of each, in that order */
    float *x, *x_test; /* [n_train, width], [n_test, width] features */
};

/* ---- classes ---- */

enum mode_status mode_probe_check_kind(const struct mode_evalset *e, struct mode_error *err)
{
    if (e->kind == MODE_TASK_CLASSIFICATION) return MODE_OK;
    return MODE_FAIL(err, MODE_E_FORMAT, "task %s is of the kind %s; a linear probe needs a classification task",
                     e->name, mode_task_kind_name(e->kind));
}

static enum mode_status check_tasks(const struct mode_evalset *train, const struct mode_evalset *test,
                                    struct mode_error *err)
{
    enum mode_status st = mode_probe_check_kind(train, err);
    if (!st) st = mode_probe_check_kind(test, err);
    if (st) return st;
    if (train->n_classes != test->n_classes)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "the training pictures of %s have %d classes, task %s has %d; expected the same", train->name,
                         train->n_classes, test->name, test->n_classes);
    for (int i = 0; i < test->n_classes; i++)
        if (strcmp(train->classes[i], test->classes[i]) != 0)
            return MODE_FAIL(
                err, MODE_E_VALUE,
                "class %d of the training pictures of %s is \"%s\", of task %s \"%s\"; expected the same names "
                "in the same order",
                i, train->name, train->classes[i], test->name, test->classes[i]);
    return MODE_OK;
}

/* Drop classes without any picture: their bias would have no finite optimum, and they are never the target. */
static enum mode_status number_classes(struct probe *b, struct mode_error *err)
{
    const int n = b->train->n_classes;
    int64_t *asked = mode_xcalloc((size_t)n, sizeof *asked);
    enum mode_status st = MODE_OK;
    b->class_of = mode_xmalloc((size_t)n * sizeof *b->class_of);
    for (int i = 0; i < n; i++) b->class_of[i] = -1;
    for (int i = 0; i < b->train->n_images; i++) b->class_of[b->train->label[i]] = 0;
    for (int i = 0; i < b->test->n_images; i++) asked[b->test->label[i]]++;
    for (int i = 0; i < n; i++) {
        if (b->class_of[i] == 0) b->class_of[i] = (int32_t)b->p->c++;
        if (!st && b->class_of[i] < 0 && asked[i])
            st = MODE_FAIL(err, MODE_E_VALUE,
                           "task %s: class %d, \"%s\", has test pictures (%lld) and no training picture, so it could "
                           "never be predicted",
                           b->test->name, i, b->test->classes[i], (long long)asked[i]);
    }
    free(asked);
    if (!st && b->p->c < 2)
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "task %s: all training pictures are of one class; at least two classes are needed",
                       b->train->name);
    return st;
}

/* ---- the validation split ---- */

/* Its size for a class of n pictures; at least one stays in the training split. */
static uint64_t held_back_of(double share, uint64_t n)
{
    const uint64_t some = (uint64_t)(share * (double)n + 0.5);
    if (n < 2) return 0;
    return some < 1 ? 1 : some > n - 1 ? n - 1 : some;
}

/* Each class has its own random stream, so its split does not depend on other classes. */
static void draw_held_back(bool *held, const struct probe *b)
{
    const int64_t n = b->p->n_train, c = b->p->c;
    uint32_t *first = mode_xcalloc((size_t)c + 1, sizeof *first), *at = mode_xcalloc((size_t)c, sizeof *at),
             *picture = mode_xmalloc((size_t)n * sizeof *picture);
    for (int64_t i = 0; i < n; i++) first[b->class_of[b->train->label[i]] + 1]++;
    for (int64_t k = 0; k < c; k++) at[k] = first[k + 1] += first[k];
    for (int64_t i = n - 1; i >= 0; i--) picture[--at[b->class_of[b->train->label[i]]]] = (uint32_t)i;
    for (int64_t k = 0; k < c; k++) {
        const uint64_t of = first[k + 1] - first[k], some = held_back_of(b->s->held_back, of);
        struct mode_rng r = mode_rng_for(b->s->seed, MODE_RNG_PROBE, 0, (uint64_t)k);
        mode_rng_shuffle_u32(&r, picture + first[k], of);
        for (uint64_t i = 0; i < some; i++) held[picture[first[k] + i]] = true;
    }
    free(first);
    free(at);
    free(picture);
}

static enum mode_status put_in_order(struct probe *b, struct mode_error *err)
{
    const int64_t n = b->p->n_train;
    bool *held = mode_xcalloc((size_t)n, sizeof *held);
    int64_t at = 0;
    b->order = mode_xmalloc((size_t)n * sizeof *b->order);
    b->label = mode_xmalloc((size_t)n * sizeof *b->label);
    if (b->s->strength == 0) draw_held_back(held, b);
    for (int last = 0; last < 2; last++)
        for (int64_t i = 0; i < n; i++)
            if (held[i] == last) {
                b->order[at] = i;
                b->label[at++] = b->class_of[b->train->label[i]];
                b->p->n_held_back += last;
            }
    free(held);
    if (b->s->strength == 0 && !b->p->n_held_back)
        return MODE_FAIL(
            err, MODE_E_VALUE,
            "task %s: no class has two training pictures, so none can be held out to choose C. HINT: give C",
            b->train->name);
    return MODE_OK;
}

/* ---- features ---- */

/* Pictures are encoded in pieces; the caller gets the progress over all of them. */
struct piece_hook {
    const struct mode_encode_hook *to;
    int64_t before, total;
};

static bool more(void *ctx, uint64_t done, uint64_t total, const char *unit)
{
    const struct piece_hook *h = ctx;
    (void)total;
    return !h->to->more || h->to->more(h->to->ctx, (uint64_t)h->before + done, (uint64_t)h->total, unit);
}

static void notice(void *ctx, const char *text)
{
    const struct piece_hook *h = ctx;
    if (h->to->notice) h->to->notice(h->to->ctx, text);
}

/* Encode set into the columns at .. at + e - 1 of x [n, width]. order [n]: the picture of each row; NULL: the set's. */
static enum mode_status encode(float *x, int64_t width, int64_t at, struct mode_clip *clip,
                               const struct mode_evalset *set, const int64_t *order, const struct probe *b,
                               struct mode_error *err)
{
    const int64_t e = mode_clip_embed_dim(clip), n = set->n_images, most = b->s->batch * PIECE_BATCHES,
                  piece = n < most ? n : most;
    struct mode_encode_picture *pictures = mode_xcalloc((size_t)piece, sizeof *pictures);
    struct piece_hook ctx = {b->s->hook, 0, n};
    struct mode_encode_hook hook = {.ctx = &ctx, .more = more, .notice = notice};
    float *rows = malloc((size_t)(piece * e) * sizeof *rows);
    enum mode_status st = MODE_OK;
    if (b->s->hook) hook.no_room = b->s->hook->no_room;
    if (!rows) st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for the features of %lld pictures", (long long)piece);
    for (; !st && ctx.before < n; ctx.before += piece) {
        const int64_t some = n - ctx.before < piece ? n - ctx.before : piece;
        for (int64_t i = 0; i < some; i++) {
            const int64_t k = order ? order[ctx.before + i] : ctx.before + i;
            pictures[i] = (struct mode_encode_picture){set->image[k], set->image_size[k], set->image_key[k]};
        }
        st = mode_encode_pictures(clip, rows, pictures, some, b->s->batch, false, b->s->hook ? &hook : NULL, err);
        for (int64_t i = 0; !st && i < some; i++) {
            for (int64_t j = 0; !st && j < e; j++)
                if (!isfinite(rows[i * e + j]))
                    st = MODE_FAIL(err, MODE_E_VALUE,
                                   "picture %s: number %lld of its features is %f, expected a finite one",
                                   pictures[i].name, (long long)j, (double)rows[i * e + j]);
            memcpy(x + (ctx.before + i) * width + at, rows + i * e, (size_t)e * sizeof *rows);
        }
    }
    free(pictures);
    free(rows);
    return st ? mode_error_prefix(err, st, "task %s", set->name) : MODE_OK;
}

/* Allocate the features, after a check of the whole peak memory except for the models. */
static enum mode_status make_room(struct probe *b, struct mode_error *err)
{
    const struct mode_probe *p = b->p;
    const size_t left = b->s->memory ? b->s->memory : mode_memory_left("");
    const double rows = 4.0 * (double)p->width * (double)(p->n_train + p->n_test),
                 rest = 4.0 * (double)p->c * (double)(p->n_test + SCORED) +
                        8.0 * (double)p->c * (double)(p->width + 1) + (double)mode_logistic_bytes(p->width, p->c);
    char needed[MODE_SIZE_TEXT], of_rows[MODE_SIZE_TEXT], there[MODE_SIZE_TEXT];
    if (rows + rest <= (double)left) {
        b->x = malloc((size_t)(p->n_train * p->width) * sizeof *b->x);
        b->x_test = malloc((size_t)(p->n_test * p->width) * sizeof *b->x_test);
    }
    if (b->x && b->x_test) return MODE_OK;
    return MODE_FAIL(err, MODE_E_MEMORY,
                     "task %s: a probe with %lld training and %lld test pictures of %lld features each and %lld "
                     "classes takes %s, of which features %s; %s are free. HINT: fewer models at once, or more memory",
                     b->test->name, (long long)p->n_train, (long long)p->n_test, (long long)p->width, (long long)p->c,
                     mode_size_text(needed, (uint64_t)(rows + rest)), mode_size_text(of_rows, (uint64_t)rows),
                     mode_size_text(there, left));
}

static enum mode_status by_model(struct probe *b, int i, struct mode_error *err)
{
    struct mode_probe *p = b->p;
    struct mode_clip *clip = NULL;
    enum mode_status st = mode_clip_load(&clip, b->s->be, b->s->models[i], err);
    if (st) return st;
    const int64_t e = mode_clip_embed_dim(clip);
    if (mode_clip_note(clip)[0] && b->s->hook && b->s->hook->notice)
        b->s->hook->notice(b->s->hook->ctx, mode_clip_note(clip));
    if (i == 0) {
        p->width = e * b->s->n_models;
        st = make_room(b, err);
    } else if (e * b->s->n_models != p->width)
        st = MODE_FAIL(err, MODE_E_SHAPE, "%s has vectors of %lld numbers, those before it of %lld", b->s->models[i],
                       (long long)e, (long long)(p->width / b->s->n_models));
    if (!st) st = encode(b->x, p->width, i * e, clip, b->train, b->order, b, err);
    if (!st) st = encode(b->x_test, p->width, i * e, clip, b->test, NULL, b, err);
    mode_clip_close(&clip);
    return st;
}

/* ---- the regressions ---- */

/* Top-1 accuracy. */
static enum mode_status accuracy_of(double *accuracy, struct mode_logistic *m, const float *x, const int32_t *label,
                                    int64_t n, struct mode_error *err)
{
    float *scores = malloc((size_t)(SCORED * m->c) * sizeof *scores);
    int64_t right = 0;
    if (!scores)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for %d scores of %lld classes", SCORED, (long long)m->c);
    for (int64_t at = 0; at < n; at += SCORED) {
        const int64_t some = n - at < SCORED ? n - at : SCORED;
        mode_logistic_scores(m, scores, x + at * m->d, some);
        for (int64_t i = 0; i < some; i++) right += mode_score_rank(scores + i * m->c, m->c, 1, label[at + i]) == 0;
    }
    free(scores);
    *accuracy = (double)right / (double)n;
    return MODE_OK;
}

/* The search for C. */
struct sweep {
    struct probe *b;
    struct mode_logistic m; /* on the training split */
    int best;               /* k with the best accuracy so far */
    double *weights;        /* [c * (width + 1)] its weights */
};

/* Fit with C = 10^(k / 8), warm-started from the weights in w->m. */
static enum mode_status try_one(struct sweep *w, int k, struct mode_error *err)
{
    struct mode_probe *p = w->b->p;
    struct mode_probe_try *t = &p->tries[p->n_tries];
    struct mode_logistic_options o = MODE_LOGISTIC_DEFAULT;
    const int64_t from = p->n_train - p->n_held_back;
    o.strength = t->strength = pow(10, k / 8.0);
    enum mode_status st = mode_logistic_fit(&w->m, &o, &t->fit, err);
    if (!st) st = accuracy_of(&t->accuracy, &w->m, w->b->x + from * p->width, w->b->label + from, p->n_held_back, err);
    if (st) return st;
    const bool better = p->n_tries == 0 || t->accuracy > p->at.accuracy ||
                        (t->accuracy == p->at.accuracy && k < w->best);
    p->n_tries++;
    if (better) {
        w->best = k;
        p->at = *t;
        memcpy(w->weights, w->m.w, (size_t)(p->c * (p->width + 1)) * sizeof *w->weights);
    }
    if (w->b->s->tried) w->b->s->tried(w->b->s->ctx, p);
    return MODE_OK;
}

static enum mode_status try_all(struct sweep *w, struct mode_error *err)
{
    const size_t bytes = (size_t)(w->m.c * (w->m.d + 1)) * sizeof *w->weights;
    enum mode_status st = MODE_OK;
    for (int k = -MOST_K; !st && k <= MOST_K; k += FIRST_STEP) st = try_one(w, k, err);
    for (int step = FIRST_STEP / 2; !st && step >= 1; step /= 2) {
        const int about = w->best;
        for (int side = -1; !st && side <= 1; side += 2) {
            const int k = about + side * step;
            if (k < -MOST_K || k > MOST_K) continue;
            memcpy(w->m.w, w->weights, bytes);
            st = try_one(w, k, err);
        }
    }
    return st;
}

/* Choose C on the validation split. weights: those of the best C, to warm-start the final fit. */
static enum mode_status choose(struct probe *b, struct mode_backend *be, double *weights, struct mode_error *err)
{
    const struct mode_probe *p = b->p;
    struct sweep w = {.b = b, .weights = weights};
    enum mode_status st = mode_logistic_open(&w.m, be, b->x, b->label, p->n_train - p->n_held_back, p->width, p->c,
                                             err);
    if (!st) st = try_all(&w, err);
    mode_logistic_close(&w.m);
    return st;
}

static enum mode_status fit_all(struct probe *b, struct mode_backend *be, const double *weights, struct mode_error *err)
{
    struct mode_probe *p = b->p;
    struct mode_logistic m;
    struct mode_logistic_options o = MODE_LOGISTIC_DEFAULT;
    o.strength = p->at.strength;
    enum mode_status st = mode_logistic_open(&m, be, b->x, b->label, p->n_train, p->width, p->c, err);
    if (!st) {
        memcpy(m.w, weights, (size_t)(p->c * (p->width + 1)) * sizeof *weights);
        st = mode_logistic_fit(&m, &o, &p->at.fit, err);
    }
    if (!st && !(p->scores = malloc((size_t)(p->n_test * p->c) * sizeof *p->scores)))
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for the scores of %lld pictures and %lld classes",
                       (long long)p->n_test, (long long)p->c);
    if (!st) mode_logistic_scores(&m, p->scores, b->x_test, p->n_test);
    mode_logistic_close(&m);
    return st;
}

static enum mode_status regress(struct probe *b, struct mode_error *err)
{
    struct mode_probe *p = b->p;
    struct mode_backend *be = NULL;
    double *mean = mode_xmalloc((size_t)p->width * sizeof *mean),
           *weights = calloc((size_t)(p->c * (p->width + 1)), sizeof *weights);
    enum mode_status st = weights
                              ? mode_backend_open(&be, "cpu", err)
                              : MODE_FAIL(err, MODE_E_MEMORY, "no memory for weights of %lld classes", (long long)p->c);
    /* over the validation split too: centring does not change the optimum, as the bias is not penalised */
    mode_rows_mean(mean, b->x, p->n_train, p->width);
    mode_rows_less(b->x, p->n_train, p->width, mean);
    mode_rows_less(b->x_test, p->n_test, p->width, mean);
    p->at = (struct mode_probe_try){.strength = b->s->strength, .accuracy = NAN};
    if (!st && b->s->strength == 0) st = choose(b, be, weights, err);
    if (!st) st = fit_all(b, be, weights, err);
    mode_backend_close(&be);
    free(mean);
    free(weights);
    return st ? mode_error_prefix(err, st, "task %s", b->test->name) : MODE_OK;
}

enum mode_status mode_probe(struct mode_probe *p, const struct mode_probe_spec *s, const struct mode_evalset *train,
                            const struct mode_evalset *test, struct mode_error *err)
{
    struct probe b = {.s = s, .train = train, .test = test, .p = p};
    *p = (struct mode_probe){.n_train = train->n_images, .n_test = test->n_images};
    enum mode_status st = check_tasks(train, test, err);
    if (!st) st = number_classes(&b, err);
    if (!st) st = put_in_order(&b, err);
    for (int i = 0; !st && i < s->n_models; i++) st = by_model(&b, i, err);
    if (!st) st = regress(&b, err);
    if (!st) {
        p->target = mode_xmalloc((size_t)p->n_test * sizeof *p->target);
        for (int64_t i = 0; i < p->n_test; i++) p->target[i] = b.class_of[test->label[i]];
    }
    free(b.class_of);
    free(b.order);
    free(b.label);
    free(b.x);
    free(b.x_test);
    return st;
}

void mode_probe_clear(struct mode_probe *p)
{
    free(p->scores);
    free(p->target);
    *p = (struct mode_probe){0};
}

struct mode_result mode_probe_result(const struct mode_probe *p, const struct mode_evalset *test,
                                     const char *model_name)
{
    return (struct mode_result){.task_name = test->name,
                                .model_name = model_name,
                                .kind = MODE_TASK_CLASSIFICATION,
                                .n = p->n_test,
                                .c = p->c,
                                .cosine = p->scores,
                                .truth = p->target};
}
