/* GEMMs in fp8, the reference of "cuda-fp8" (decision 0022): operands are quantised one by one, then multiplied as all
 * others are. */
#include "nn/ref/ref.h"

#include "base/str.h"

#include <stdlib.h>

static const struct format {
    int mantissa_bits, min_exponent; /* mantissa bits; exponent of the smallest normal number */
    double max;
} E4M3 = {3, -6, 448}, E5M2 = {2, -14, 57344};

/* To the nearest value of the format, ties to even, saturating. */
static double rounded(double x, const struct format *f)
{
    int e;
    if (x == 0) return x;
    frexp(x, &e); /* |x| = 2^(e - 1) or more */
    double step = ldexp(1, (e - 1 > f->min_exponent ? e - 1 : f->min_exponent) - f->mantissa_bits),
           y = rint(x / step) * step;
    return fabs(y) > f->max ? copysign(f->max, x) : y;
}

/* A dequantised copy of t in f32, owned by the caller: scaled by the power of two that takes the largest magnitude to
 * the top of the format's range, rounded, and scaled back. */
static struct mode_tensor quantised(const struct mode_tensor *t, const struct format *f)
{
    int64_t n = mode_tensor_count(t);
    struct mode_tensor c = *t;
    float most = 0;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf((float)mode__ref_get(t, i)));
    double scale = ldexp(1, mode__fp8_exponent(most, (float)f->max));
    c.dtype = MODE_DTYPE_F32;
    c.data = mode_xmalloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        double x = mode__ref_get(t, i);
        mode_f32(&c)[i] = isfinite(x) ? (float)(rounded(x * scale, f) / scale) : NAN;
    }
    return c;
}

static bool in_fp8(struct mode_backend *be, int64_t m, int64_t n, int64_t k)
{
    if (!be->narrow.on || m == 0) return false;
    bool fits = mode__fp8_fits(m, n, k);
    (*(fits ? &be->narrow.made : &be->narrow.left))++;
    return fits;
}

void mode__ref_fp8_linear(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z,
                          const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                          const struct mode_tensor *add, enum mode_act act)
{
    if (!in_fp8(be, x->dim[0], w->dim[0], x->dim[1])) {
        mode__ref_linear(be, y, z, x, w, b, add, act);
        return;
    }
    struct mode_tensor x8 = quantised(x, &E4M3), w8 = quantised(w, &E4M3);
    mode__ref_linear(be, y, z, &x8, &w8, b, add, act);
    free(x8.data);
    free(w8.data);
}

void mode__ref_fp8_linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                               struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                               const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act)
{
    if (!dx || !in_fp8(be, x->dim[0], w->dim[0], x->dim[1])) {
        mode__ref_linear_back(be, dx, dw, db, dy, x, w, z, act);
        return;
    }
    struct mode_tensor dy8 = quantised(dy, &E5M2), w8 = quantised(w, &E4M3), unused = *w;
    unused.dtype = MODE_DTYPE_F32;
    unused.data = mode_xcalloc((size_t)mode_tensor_count(w), sizeof(float));
    mode__ref_linear_back(be, NULL, dw, db, dy, x, w, NULL, MODE_ACT_NONE); /* dw is not quantised */
    mode__ref_linear_back(be, dx, &unused, NULL, &dy8, x, &w8, z, act);
    free(dy8.data);
    free(w8.data);
    free(unused.data);
}
