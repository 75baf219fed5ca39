#include "nn/ref/ref.h"

#include <math.h>

/* Row pointers of one head: query row i, key and value row j (both counted over the whole packed batch). */
static const float *query(const struct mode_tensor *q, const struct mode_attention *s, int64_t i, int64_t h)
{
    return mode_f32(q) + i * q->dim[1] + s->q_at + h * (s->width / s->heads);
}

static const float *key(const struct mode_tensor *kv, const struct mode_attention *s, int64_t j, int64_t h)
{
    return mode_f32(kv) + j * kv->dim[1] + s->k_at + h * (s->width / s->heads);
}

static const float *value(const struct mode_tensor *kv, const struct mode_attention *s, int64_t j, int64_t h)
{
    return mode_f32(kv) + j * kv->dim[1] + s->v_at + h * (s->width / s->heads);
}

static double dot(const float *a, const float *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)a[i] * b[i];
    return s;
}

/* One past the last key that query row i (of a sequence with rows from q0, keys k0..k1) may see. */
static int64_t keys_end(const struct mode_attention *s, int64_t i, int64_t k1)
{
    return s->causal ? i + 1 : k1;
}

void mode__ref_attention(struct mode_backend *be, struct mode_tensor *out, struct mode_tensor *lse,
                         const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s)
{
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    int64_t n_seq = s->q_offsets->dim[0] - 1, dh = s->width / s->heads;
    double scale = 1 / sqrt((double)dh);
    (void)be;
    for (int64_t b = 0; b < n_seq; b++)
        for (int64_t h = 0; h < s->heads; h++)
            for (int64_t i = qo[b]; i < qo[b + 1]; i++) {
                int64_t end = keys_end(s, i, ko[b + 1]);
                const float *qi = query(q, s, i, h);
                float *oi = mode_f32(out) + i * s->width + h * dh;
                double max = -INFINITY, sum = 0;
                for (int64_t j = ko[b]; j < end; j++) max = fmax(max, scale * dot(qi, key(kv, s, j, h), dh));
                for (int64_t j = ko[b]; j < end; j++) sum += exp(scale * dot(qi, key(kv, s, j, h), dh) - max);
                if (lse) mode_f32(lse)[i * s->heads + h] = (float)(max + log(sum));
                for (int64_t c = 0; c < dh; c++) {
                    double o = 0;
                    for (int64_t j = ko[b]; j < end; j++)
                        o += exp(scale * dot(qi, key(kv, s, j, h), dh) - max) / sum * value(kv, s, j, h)[c];
                    oi[c] = (float)o;
                }
            }
}

void mode__ref_attention_back(struct mode_backend *be, struct mode_tensor *dq, struct mode_tensor *dkv,
                              const struct mode_tensor *dout, const struct mode_tensor *out,
                              const struct mode_tensor *lse, const struct mode_tensor *q, const struct mode_tensor *kv,
                              const struct mode_attention *s)
{
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    int64_t n_seq = s->q_offsets->dim[0] - 1, dh = s->width / s->heads;
    double scale = 1 / sqrt((double)dh);
    (void)be;
    for (int64_t b = 0; b < n_seq; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            for (int64_t j = ko[b]; j < ko[b + 1]; j++)
                for (int64_t c = 0; c < dh; c++) {
                    double dk = 0, dv = 0;
                    for (int64_t i = qo[b]; i < qo[b + 1]; i++) {
                        const float *go = mode_f32(dout) + i * s->width + h * dh;
                        const float *oi = mode_f32(out) + i * s->width + h * dh;
                        if (j >= keys_end(s, i, ko[b + 1])) continue;
                        double p = exp(scale * dot(query(q, s, i, h), key(kv, s, j, h), dh) -
                                       mode_f32(lse)[i * s->heads + h]);
                        dv += p * go[c];
                        dk += scale * p * (dot(go, value(kv, s, j, h), dh) - dot(go, oi, dh)) * query(q, s, i, h)[c];
                    }
                    mode_f32(dkv)[j * kv->dim[1] + s->k_at + h * dh + c] = (float)dk;
                    mode_f32(dkv)[j * kv->dim[1] + s->v_at + h * dh + c] = (float)dv;
                }
            for (int64_t i = qo[b]; i < qo[b + 1]; i++)
                for (int64_t c = 0; c < dh; c++) {
                    const float *go = mode_f32(dout) + i * s->width + h * dh;
                    const float *oi = mode_f32(out) + i * s->width + h * dh;
                    double g = 0;
                    for (int64_t j = ko[b]; j < keys_end(s, i, ko[b + 1]); j++) {
                        double p = exp(scale * dot(query(q, s, i, h), key(kv, s, j, h), dh) -
                                       mode_f32(lse)[i * s->heads + h]);
                        g += scale * p * (dot(go, value(kv, s, j, h), dh) - dot(go, oi, dh)) * key(kv, s, j, h)[c];
                    }
                    mode_f32(dq)[i * q->dim[1] + s->q_at + h * dh + c] = (float)g;
                }
        }
}
