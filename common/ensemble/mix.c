#include "ensemble/mix.h"

void mode_mix(float *out, const float *const *cosine, const double *weight, int n, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows * cols; i++) {
        double s = 0;
        for (int c = 0; c < n; c++) s += weight[c] * cosine[c][i];
        out[i] = (float)s;
    }
}

void mode_mix_columns(float *out, const float *const *cosine, const double *weight, int n, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t q = 0; q < cols; q++) {
            const double *w = weight + q * n;
            double s = 0;
            for (int c = 0; c < n; c++) s += w[c] * cosine[c][r * cols + q];
            out[r * cols + q] = (float)s;
        }
    }
}
