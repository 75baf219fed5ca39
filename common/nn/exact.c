/* The arithmetic that decides nearest centres and makes means, in double and in one order: compiled once, without
 * contraction to fused multiply-adds, for every backend of the host; nn/cuda/nearest.cu does the same steps. */
#include "nn/backend_impl.h"

#include <math.h>
#include <string.h>

double mode__exact_cost(const float *x, const float *y, int64_t d, bool cosine)
{
    double s = 0;
    if (cosine) {
        for (int64_t j = 0; j < d; j++) s += (double)x[j] * y[j];
        return 1 - s;
    }
    for (int64_t j = 0; j < d; j++) {
        double t = (double)x[j] - y[j];
        s += t * t;
    }
    return s;
}

float mode__exact_distance(double cost, bool cosine)
{
    if (!(cost > 0)) return 0; /* rounding can take 1 - x.c below zero */
    return (float)(cosine ? cost : sqrt(cost));
}

void mode__exact_mean(float *mean, double *sum, const float *x, const int32_t *members, int64_t n, int64_t d, bool unit)
{
    double scale = 1.0 / (double)n;
    if (n == 0) return;
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) sum[j] += x[members[i] * d + j];
    if (unit) {
        double s = 0;
        for (int64_t j = 0; j < d; j++) s += sum[j] * sum[j];
        if (!(s > 1e-24)) return; /* rows that cancel have no direction */
        scale = 1 / sqrt(s);
    }
    for (int64_t j = 0; j < d; j++) mean[j] = (float)(sum[j] * scale);
}
