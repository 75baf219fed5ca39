#include "nn/ref/ref.h"

#include <math.h>

/* Offsets of the query of row i and of the key and value of row j (rows counted over the packed batch). */
static int64_t query(const struct mode_tensor *q, const struct mode_attention *s, int64_t i, int64_t h)
{
    return i * q->dim[1] + s->q_at + h * (s->width / s->heads);
}

static int64_t key(const struct mode_tensor *kv, const struct mode_attention *s, int64_t j, int64_t h)
{
    return j * kv->dim[1] + s->k_at + h * (s->width / s->heads);
}

static int64_t value(const struct mode_tensor *kv, const struct mode_attention *s, int64_t j, int64_t h)
{
    return j * kv->dim[1] + s->v_at + h * (s->width / s->heads);
}

static double dot(const struct mode_tensor *a, int64_t i, const struct mode_tensor *b, int64_t j, int64_t n)
{
    double s = 0;
    for (int64_t c = 0; c < n; c++) s += mode__ref_get(a, i + c) * mode__ref_get(b, j + c);
    return s;
}

/* One past the last key that query row i attends to, in a sequence with keys up to k1. */
static int64_t keys_end(const struct mode_attention *s, int64_t i, int64_t k1)
{
    return s->causal ? i + 1 : k1;
}

void mode__ref_attention(struct mode_backend *be, struct mode_tensor *out, struct mode_tensor *lse,
                         const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s)
{
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    int64_t n_seq = s->q_offsets->dim[0] - 1, dh = s->width / s->heads;
    double scale = 1 / sqrt((double)dh), *o = mode__backend_work(be, (size_t)dh * sizeof *o);
    for (int64_t b = 0; b < n_seq; b++)
        for (int64_t h = 0; h < s->heads; h++)
            for (int64_t i = qo[b]; i < qo[b + 1]; i++) {
                int64_t end = keys_end(s, i, ko[b + 1]), qi = query(q, s, i, h);
                double max = -INFINITY, sum = 0;
                for (int64_t j = ko[b]; j < end; j++) max = fmax(max, scale * dot(q, qi, kv, key(kv, s, j, h), dh));
                for (int64_t j = ko[b]; j < end; j++) sum += exp(scale * dot(q, qi, kv, key(kv, s, j, h), dh) - max);
                if (lse) mode__ref_put(lse, i * s->heads + h, max + log(sum));
                for (int64_t c = 0; c < dh; c++) o[c] = 0;
                for (int64_t j = ko[b]; j < end; j++) {
                    double p = exp(scale * dot(q, qi, kv, key(kv, s, j, h), dh) - max) / sum;
                    for (int64_t c = 0; c < dh; c++) o[c] += p * mode__ref_get(kv, value(kv, s, j, h) + c);
                }
                for (int64_t c = 0; c < dh; c++) mode__ref_put(out, i * s->width + h * dh + c, o[c]);
            }
}

/* An attention weight, and the gradient of its score. */
struct weight {
    double p, ds;
};

static struct weight weight_of(const struct mode_tensor *dout, const struct mode_tensor *out,
                               const struct mode_tensor *lse, const struct mode_tensor *q, const struct mode_tensor *kv,
                               const struct mode_attention *s, int64_t i, int64_t j, int64_t h)
{
    int64_t dh = s->width / s->heads, o = i * s->width + h * dh;
    double scale = 1 / sqrt((double)dh);
    struct weight x;
    x.p = exp(scale * dot(q, query(q, s, i, h), kv, key(kv, s, j, h), dh) - mode__ref_get(lse, i * s->heads + h));
    x.ds = scale * x.p * (dot(dout, o, kv, value(kv, s, j, h), dh) - dot(dout, o, out, o, dh));
    return x;
}

void mode__ref_attention_back(struct mode_backend *be, struct mode_tensor *dq, struct mode_tensor *dkv,
                              const struct mode_tensor *dout, const struct mode_tensor *out,
                              const struct mode_tensor *lse, const struct mode_tensor *q, const struct mode_tensor *kv,
                              const struct mode_attention *s)
{
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    int64_t n_seq = s->q_offsets->dim[0] - 1, dh = s->width / s->heads;
    double *dk = mode__backend_work(be, 2 * (size_t)dh * sizeof *dk), *dv = dk + dh;
    for (int64_t b = 0; b < n_seq; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            for (int64_t j = ko[b]; j < ko[b + 1]; j++) {
                for (int64_t c = 0; c < dh; c++) dk[c] = dv[c] = 0;
                for (int64_t i = qo[b]; i < qo[b + 1]; i++) {
                    if (j >= keys_end(s, i, ko[b + 1])) continue;
                    struct weight x = weight_of(dout, out, lse, q, kv, s, i, j, h);
                    for (int64_t c = 0; c < dh; c++) {
                        dv[c] += x.p * mode__ref_get(dout, i * s->width + h * dh + c);
                        dk[c] += x.ds * mode__ref_get(q, query(q, s, i, h) + c);
                    }
                }
                for (int64_t c = 0; c < dh; c++) {
                    mode__ref_put(dkv, key(dkv, s, j, h) + c, dk[c]);
                    mode__ref_put(dkv, value(dkv, s, j, h) + c, dv[c]);
                }
            }
            for (int64_t i = qo[b]; i < qo[b + 1]; i++) {
                double *g = dk;
                for (int64_t c = 0; c < dh; c++) g[c] = 0;
                for (int64_t j = ko[b]; j < keys_end(s, i, ko[b + 1]); j++) {
                    struct weight x = weight_of(dout, out, lse, q, kv, s, i, j, h);
                    for (int64_t c = 0; c < dh; c++) g[c] += x.ds * mode__ref_get(kv, key(kv, s, j, h) + c);
                }
                for (int64_t c = 0; c < dh; c++) mode__ref_put(dq, query(dq, s, i, h) + c, g[c]);
            }
        }
}
