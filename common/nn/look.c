#include "nn/look.h"

#include "base/rng.h"
#include "nn/choice.h"
#include "nn/mirror.h"
#include "nn/ops.h"

#include <math.h>
#include <stdio.h>

enum { ROWS = 96, IN = 80, OUT = 64, TENSORS = 6 };

struct trial {
    struct mode_tensor x, w, g, b, y, z; /* y = x w^T by a library's GEMM, z = layernorm(y) by a kernel of ours */
    void *data[TENSORS];
};

static enum mode_status run(struct trial *t, struct mode_mirror *m, struct mode_error *err)
{
    struct mode_backend *be = m->be;
    const int64_t dim[TENSORS][2] = {{ROWS, IN}, {OUT, IN}, {1, OUT}, {1, OUT}, {ROWS, OUT}, {ROWS, OUT}};
    struct mode_tensor *at[TENSORS] = {&t->x, &t->w, &t->g, &t->b, &t->y, &t->z};
    for (uint64_t i = 0; i < TENSORS; i++) {
        const size_t n = (size_t)(dim[i][0] * dim[i][1]);
        enum mode_status st = mode_backend_alloc(be, &t->data[i], n * sizeof(float), err);
        if (st) return st;
        *at[i] = dim[i][0] > 1 ? mode_tensor_2d(t->data[i], MODE_DTYPE_F32, dim[i][0], dim[i][1])
                               : mode_tensor_1d(t->data[i], MODE_DTYPE_F32, dim[i][1]);
        struct mode_rng rng = mode_rng_for(1, MODE_RNG_KMEANS, i, 0);
        float *to = mode_mirror_write(m, t->data[i], n * sizeof *to);
        for (size_t k = 0; k < n; k++) to[k] = (float)mode_rng_normal(&rng);
        mode_mirror_send(m);
    }
    mode_linear(be, &t->y, &t->x, &t->w, NULL);
    mode_layernorm(be, &t->z, NULL, &t->y, &t->g, &t->b, 1e-5f);
    return MODE_OK;
}

/* b: the CPU's */
static double distance(struct mode_mirror *m, const struct mode_tensor *a, const struct mode_tensor *b)
{
    const float *here = mode_mirror_read(m, a->data, mode_tensor_bytes(a));
    double d = 0, s = 0;
    for (int64_t i = 0; i < mode_tensor_count(a); i++) {
        double x = here[i], y = mode_f32(b)[i];
        d += (x - y) * (x - y);
        s += y * y;
    }
    return sqrt(d / s); /* NaN stays NaN, and is over any limit */
}

static void close_trial(struct trial *t, struct mode_backend **be)
{
    for (int i = 0; i < TENSORS && *be; i++) mode_backend_free(*be, t->data[i]);
    mode_backend_close(be);
}

enum mode_status mode_gpu_trial(double *product, double *kernel, struct mode_error *err)
{
    struct mode_backend *gpu = NULL, *cpu = NULL;
    struct trial a = {0}, b = {0};
    enum mode_status st = mode_backend_open(&gpu, "cuda", err);
    *product = *kernel = NAN;
    if (!st) st = mode_backend_open(&cpu, "cpu", err);
    struct mode_mirror on_gpu = {.be = gpu}, on_cpu = {.be = cpu};
    if (!st) st = run(&a, &on_gpu, err);
    if (!st) st = run(&b, &on_cpu, err);
    if (!st) {
        *product = distance(&on_gpu, &a.y, &b.y);
        *kernel = distance(&on_gpu, &a.z, &b.z);
        if (!(*product < MODE_LOOK_LIMIT && *kernel < MODE_LOOK_LIMIT))
            st = MODE_FAIL(err, MODE_E_VALUE,
                           "a GEMM and a kernel differ from the processor's by %.1e and %.1e, expected below %.0e; do "
                           "not use this GPU before `make cuda-test` passes",
                           *product, *kernel, MODE_LOOK_LIMIT);
    }
    mode_mirror_clear(&on_gpu);
    close_trial(&a, &gpu);
    close_trial(&b, &cpu);
    return st;
}

enum mode_status mode_backend_look(char *text, size_t size, const char *name, struct mode_error *err)
{
    struct mode_backend *be;
    double product, kernel;
    enum mode_status st = mode_backend_choose(&be, NULL, name, NULL, err);
    if (st) return st;
    const bool is_device = mode_backend_is_device(be);
    mode_backend_describe(be, text, size);
    mode_backend_close(&be);
    if (is_device && (st = mode_gpu_trial(&product, &kernel, err)) == MODE_E_VALUE) {
        mode_error_prefix(err, st, "%s", text);
        st = err->status = MODE_E_DEVICE;
    }
    return st;
}
