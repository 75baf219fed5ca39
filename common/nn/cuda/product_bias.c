#include "nn/cuda/product_bias.h"

#include "base/str.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/winners.h"

#include <stdlib.h>
#include <string.h>

enum { FEW_ROWS = 2048 /* below which there is nothing to gain that would be worth a race */ };
enum order { BY_RULE, ALWAYS_OWN, ALWAYS_FUSED };

/* Shapes that are alike, were met and are not ours by rule. */
struct way {
    struct mode__product_key like;
    bool fused;
    long runs, refused;
    float ms[2]; /* ours and cuBLASLt's, where they were measured; 0: it was not, or refused */
};

struct mode__bias_ways {
    enum order order;
    struct way *way;
    int n;
    long fused, refused;
};

struct mode__bias_ways *mode__bias_ways_open(void)
{
    const char *v = getenv("MODE_CUDA_BIASES");
    struct mode__bias_ways *w = mode_xcalloc(1, sizeof *w);
    if (v && strcmp(v, "own") == 0) w->order = ALWAYS_OWN;
    if (v && strcmp(v, "fused") == 0) w->order = ALWAYS_FUSED;
    return w;
}

void mode__bias_ways_forget(struct mode__bias_ways *w)
{
    if (!w) return;
    free(w->way);
    w->way = NULL;
    w->n = 0;
}

void mode__bias_ways_close(struct mode__bias_ways **w)
{
    mode__bias_ways_forget(*w);
    free(*w);
    *w = NULL;
}

long mode__bias_ways_fused(const struct mode__bias_ways *w, long *refused)
{
    *refused = w->refused;
    return w->fused;
}

void mode__bias_ways_note(const struct mode__bias_ways *w, FILE *out)
{
    for (int i = 0; i < w->n; i++) {
        const struct way *x = &w->way[i];
        const bool refused = x->refused || (x->ms[0] > 0 && x->ms[1] <= 0);
        fprintf(out, "gradients of weights and biases [%lld x %lld, %lld]: %s, %ld times", (long long)x->like.m,
                (long long)x->like.n, (long long)x->like.k,
                x->fused && !refused ? "cuBLASLt alone" : "cuBLASLt and a kernel", x->runs);
        if (x->ms[0] > 0 && x->ms[1] > 0)
            fprintf(out, ": alone %.3f ms, our way %.3f ms", (double)x->ms[1], (double)x->ms[0]);
        fprintf(out, "%s\n", refused ? ": cuBLASLt refuses it alone" : "");
    }
}

/* Scratch that both ways are sure to find: what ours needs. */
static float *scratch(struct mode_backend *be, const struct mode__product *x)
{
    return mode__backend_work(be, (size_t)mode__cuda_sum_work(x->k, x->m) * sizeof(float));
}

static void add_columns(struct mode_backend *be, float *db, const struct mode__product *x)
{
    mode__cuda_column_sums(mode__cuda_of(be)->stream, x->bf16, db, scratch(be, x), x->a, x->k, x->m);
}

static void add_sums(struct mode_backend *be, float *db, const struct mode__product *x)
{
    mode__cuda_add_chunks(mode__cuda_of(be)->stream, db, NULL, x->sums, 1, x->m);
}

struct job {
    struct mode_backend *be;
    const struct mode__product *x;
};

/* Behind a product that is timed: the rest of its way, into memory behind the product's. */
static void then(void *ctx, void *to)
{
    const struct job *job = ctx;
    float *db = (float *)to + job->x->m * job->x->n;
    (job->x->sums ? add_sums : add_columns)(job->be, db, job->x);
}

/* Both ways against the clock; what is faster is kept. */
static void race(struct mode_backend *be, struct way *w, const struct mode__product *plain,
                 const struct mode__product *with)
{
    struct mode__products *products = mode__cuda_of(be)->products;
    float own, alone;
    const bool ours = mode__cuda_product_time(be, &own, plain, then, &(struct job){be, plain}),
               theirs = mode__cuda_product_time(be, &alone, with, then, &(struct job){be, with});
    cublasLtMatmulAlgo_t none;
    memset(&none, 0, sizeof none);
    w->ms[0] = ours ? own : 0;
    w->ms[1] = theirs ? alone : 0;
    w->fused = ours && theirs && alone < own;
    if (!w->fused) mode__product_keep(products, &w->like, &none);
}

static bool is_none(const cublasLtMatmulAlgo_t *algo)
{
    static const cublasLtMatmulAlgo_t none;
    return memcmp(algo, &none, sizeof none) == 0;
}

/* The way of this pair; NULL: ours, by rule or because there is nothing to be asked. with: plain, with sums. */
static struct way *find(struct mode_backend *be, const struct mode__product *plain, const struct mode__product *with)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__bias_ways *w = c->bias_ways;
    const struct mode__product_key like = mode__product_like(with);
    for (int i = 0; i < w->n; i++)
        if (memcmp(&w->way[i].like, &like, sizeof like) == 0) return &w->way[i];
    const cublasLtMatmulAlgo_t *kept = w->order == BY_RULE ? mode__product_kept(c->products, &like) : NULL;
    const bool races = w->order == BY_RULE && !kept && mode__products_measuring(c->products) && plain->k >= FEW_ROWS;
    if (w->order == BY_RULE && !races && (!kept || is_none(kept))) return NULL;
    w->way = mode_xrealloc(w->way, (size_t)(w->n + 1) * sizeof *w->way);
    struct way *x = &w->way[w->n++];
    *x = (struct way){.like = like, .fused = true};
    if (races) race(be, x, plain, with);
    return x;
}

static bool run_alone(struct mode_backend *be, struct way *w, float *db, const struct mode__product *with)
{
    struct mode__bias_ways *all = mode__cuda_of(be)->bias_ways;
    if (!mode__cuda_product_by_lt(be, with)) {
        w->refused++;
        all->refused++;
        return false;
    }
    add_sums(be, db, with);
    all->fused++;
    return true;
}

void mode__cuda_product_bias(struct mode_backend *be, float *db, const struct mode__product *plain)
{
    struct way *w = NULL;
    struct mode__product with = *plain;
    MODE_ASSERT(plain->a_turned && !plain->c_bf16 && !plain->bias && !plain->sums);
    if (mode__cuda_of(be)->bias_ways->order != ALWAYS_OWN) {
        with.sums = scratch(be, plain);
        w = find(be, plain, &with);
    }
    if (w) w->runs++;
    if (w && w->fused && run_alone(be, w, db, &with)) return;
    mode__cuda_product(be, plain);
    add_columns(be, db, plain);
}
