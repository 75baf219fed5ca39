/* products-bench - GEMMs of the cpu backends against a BLAS, alternating.
 *
 *     cmake --build build --target products-bench
 *     MODE_THREADS=1 build/bin/products-bench 9 libopenblas.so.0 cpu-avx2 cpu-avx512
 *     MODE_THREADS=1 MKL_THREADING_LAYER=SEQUENTIAL LD_LIBRARY_PATH=... build/bin/products-bench 9 libmkl_rt.so.3 cpu
 *
 * Arguments: rounds, the library (loaded at run time for its cblas_sgemm; its own environment variables must give it as
 * many threads as ours), backends. Shapes are those of ViT-B-32 at 64 pictures and of its text tower at 32 captions of
 * 23 tokens: forward, weight gradient and input gradient. Prints the library's GFLOP/s, and for each backend the ratio
 * of the two wall times of a round: medians; over 1 means ours is faster. */
#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"
#include "nn/backend.h"
#include "nn/ops.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 99, SIDES = 8, WAYS = 3, ROW_MAJOR = 101, PLAIN = 111, TURNED = 112 };

typedef void sgemm_fn(int order, int turn_a, int turn_b, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);

static const int64_t shapes[][3] = {{3200, 2304, 768}, {3200, 768, 768}, {3200, 3072, 768},
                                    {3200, 768, 3072}, {736, 2048, 512}, {736, 512, 2048}}; /* rows, outputs, inputs */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static struct mode_tensor noise(int64_t rows, int64_t cols, uint64_t seed)
{
    struct mode_tensor t = mode_tensor_2d(mode_xcalloc((size_t)(rows * cols), sizeof(float)), MODE_DTYPE_F32, rows,
                                          cols);
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_TEST, 0, 0);
    for (int64_t i = 0; i < rows * cols; i++) mode_f32(&t)[i] = (float)mode_rng_uniform(&r) - 0.5f;
    return t;
}

struct product {
    int m, n, k;
    struct mode_tensor x, w, y, dw, dx;
};

static void ours(struct mode_backend *be, struct product *p, double t[WAYS])
{
    double at[WAYS + 1] = {now()};
    mode_linear(be, &p->y, &p->x, &p->w, NULL);
    at[1] = now();
    mode_linear_back(be, NULL, &p->dw, NULL, &p->y, &p->x, &p->w);
    at[2] = now();
    mode_project(be, &p->dx, &p->y, &p->w);
    at[3] = now();
    for (int i = 0; i < WAYS; i++) t[i] = at[i + 1] - at[i];
}

static void theirs(sgemm_fn *sgemm, struct product *p, double t[WAYS])
{
    const float *x = mode_f32(&p->x), *w = mode_f32(&p->w), *y = mode_f32(&p->y);
    double at[WAYS + 1] = {now()};
    sgemm(ROW_MAJOR, PLAIN, TURNED, p->m, p->n, p->k, 1, x, p->k, w, p->k, 0, mode_f32(&p->y), p->n);
    at[1] = now();
    sgemm(ROW_MAJOR, TURNED, PLAIN, p->n, p->k, p->m, 1, y, p->n, x, p->k, 1, mode_f32(&p->dw), p->k);
    at[2] = now();
    sgemm(ROW_MAJOR, PLAIN, PLAIN, p->m, p->k, p->n, 1, y, p->n, w, p->k, 0, mode_f32(&p->dx), p->k);
    at[3] = now();
    for (int i = 0; i < WAYS; i++) t[i] = at[i + 1] - at[i];
}

int main(int argc, char **argv)
{
    struct mode_backend *be[SIDES];
    struct mode_error err;
    int n = argc - 3, rounds = argc > 3 ? atoi(argv[1]) : 0;
    if (rounds < 1 || rounds > ROUNDS || n > SIDES)
        return fprintf(stderr, "usage: products-bench ROUNDS LIBRARY BACKEND...: up to %d rounds, %d backends\n",
                       ROUNDS, SIDES),
               64;
    void *lib = dlopen(argv[2], RTLD_NOW | RTLD_GLOBAL), *symbol = lib ? dlsym(lib, "cblas_sgemm") : NULL;
    if (!symbol) return fprintf(stderr, "products-bench: %s: no cblas_sgemm: %s\n", argv[2], dlerror()), 69;
    sgemm_fn *sgemm;
    memcpy(&sgemm, &symbol, sizeof sgemm);
    for (int v = 0; v < n; v++)
        if (mode_backend_open(&be[v], argv[3 + v], &err)) return fprintf(stderr, "products-bench: %s\n", err.text), 69;
    printf("%d thread(s), %d alternating rounds; %s in GFLOP/s, then the ratios of", mode_parallel_threads(), rounds,
           argv[2]);
    for (int v = 0; v < n; v++) printf(" %s", mode_backend_name(be[v]));
    printf("\n\n| rows x outputs x inputs | forward | weight gradient | input gradient |\n|---|---|---|---|\n");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int64_t *d = shapes[s];
        struct product p = {(int)d[0],
                            (int)d[1],
                            (int)d[2],
                            noise(d[0], d[2], 1),
                            noise(d[1], d[2], 2),
                            noise(d[0], d[1], 3),
                            noise(d[1], d[2], 4),
                            noise(d[0], d[2], 5)};
        static double ratio[SIDES][WAYS][ROUNDS], speed[WAYS][ROUNDS];
        for (int r = -1; r < rounds; r++) { /* the first is not counted */
            double t[WAYS], u[WAYS];
            theirs(sgemm, &p, t);
            for (int i = 0; i < WAYS && r >= 0; i++) speed[i][r] = 2e-9 * p.m * p.n * p.k / t[i];
            for (int v = 0; v < n; v++) {
                ours(be[v], &p, u);
                for (int i = 0; i < WAYS && r >= 0; i++) ratio[v][i][r] = t[i] / u[i];
            }
        }
        printf("| %d x %d x %d ", p.m, p.n, p.k);
        for (int i = 0; i < WAYS; i++) {
            printf("| %.0f:", median(speed[i], rounds));
            for (int v = 0; v < n; v++) printf(" **%.2f**", median(ratio[v][i], rounds));
            printf(" ");
        }
        printf("|\n");
        fflush(stdout);
        struct mode_tensor *all[] = {&p.x, &p.w, &p.y, &p.dw, &p.dx};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->data);
    }
    for (int v = 0; v < n; v++) mode_backend_close(&be[v]);
    return 0;
}
