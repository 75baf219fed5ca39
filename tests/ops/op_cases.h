/* op_cases.h - one table of operations with shapes, for every backend.
 *
 * A case makes its inputs (op_run.h), runs one op, and names its results. The same case on two backends must give the same
 * numbers within a tolerance which is set from the length of its sums. Outputs start as noise: an op that forgets to
 * overwrite, or to add, is found. */
#ifndef MODE_TESTS_OPS_OP_CASES_H
#define MODE_TESTS_OPS_OP_CASES_H

#include "data/resize_taps.h"
#include "op_run.h"
#include "traps.h"

#include <stdio.h>

struct op_case {
    const char *name;
    void (*run)(struct op_run *r, const int64_t *s);
    int64_t s[6];     /* the shape, as the case reads it      */
    double tolerance; /* of |a - b| / |b| over a whole result */
};

/* By a power of two near 2 / sqrt(k), so that the argument of an activation is of its size. */
static inline void shrink(struct op_run *r, const struct mode_tensor *of, int64_t k)
{
    float by = exp2f(roundf(log2f(2 / sqrtf((float)k))));
    const struct mode_tensor w = op_seen(r, of);
    for (int64_t i = 0; i < mode_tensor_count(&w); i++)
        if (w.dtype == MODE_DTYPE_BF16)
            ((uint16_t *)w.data)[i] = mode_f32_to_bf16(by * (float)op_number(&w, i));
        else
            mode_f32(&w)[i] *= by;
    op_send(r);
}

static void case_linear(struct op_run *r, const int64_t *s) /* m, k, n, activation, add: 1 in place, 2 of its own */
{
    struct mode_tensor x = acts(r, s[0], s[1]), w = acts(r, s[2], s[1]), b = act_vec(r, s[2]);
    struct mode_tensor *y = keep(r, acts(r, s[0], s[2]));
    if (s[4]) {
        struct mode_tensor add = s[4] == 2 ? acts(r, s[0], s[2]) : *y;
        mode_linear_add(r->be, y, &x, &w, &b, &add);
    } else if (s[3] == MODE_ACT_NONE) {
        mode_linear(r->be, y, &x, &w, NULL);
    } else {
        shrink(r, &w, s[1]);
        mode_linear_act(r->be, y, keep(r, acts(r, s[0], s[2])), &x, &w, &b, (enum mode_act)s[3]);
    }
    op_fetch(r);
}

/* m, k, n, activation: of a product's z, to the byte what the product makes with it */
static void case_activate(struct op_run *r, const int64_t *s)
{
    struct mode_tensor x = acts(r, s[0], s[1]), w = acts(r, s[2], s[1]), b = act_vec(r, s[2]), z = acts(r, s[0], s[2]);
    struct mode_tensor *y = keep(r, acts(r, s[0], s[2]));
    struct mode_tensor want = acts(r, s[0], s[2]), want_z = acts(r, s[0], s[2]), alone = acts(r, s[0], s[2]);
    shrink(r, &w, s[1]);
    mode_linear_act(r->be, &want, &want_z, &x, &w, &b, (enum mode_act)s[3]);
    mode_linear_act(r->be, &alone, NULL, &x, &w, &b, (enum mode_act)s[3]);
    mode_linear(r->be, &z, &x, &w, &b);
    mode_activate(r->be, y, &z, (enum mode_act)s[3]);
    op_fetch(r);
    MODE_ASSERT(memcmp(op_host(r, y->data), op_host(r, want.data), mode_tensor_bytes(y)) == 0);
    MODE_ASSERT(memcmp(op_host(r, z.data), op_host(r, want_z.data), mode_tensor_bytes(y)) == 0);
    MODE_ASSERT(memcmp(op_host(r, alone.data), op_host(r, want.data), mode_tensor_bytes(y)) == 0);
}

static void case_linear_back(struct op_run *r, const int64_t *s) /* m, k, n, activation, only dw */
{
    struct mode_tensor x = acts(r, s[0], s[1]), w = acts(r, s[2], s[1]), dy = acts(r, s[0], s[2]);
    struct mode_tensor z = acts(r, s[0], s[1]);
    struct mode_tensor *dw = keep(r, mat(r, s[2], s[1])), *db = keep(r, vec(r, s[2]));
    if (s[4])
        mode_linear_back(r->be, NULL, dw, NULL, &dy, &x, &w);
    else
        mode_linear_back_act(r->be, keep(r, acts(r, s[0], s[1])), dw, db, &dy, &x, &w,
                             s[3] != MODE_ACT_NONE ? &z : NULL, (enum mode_act)s[3]);
    op_fetch(r);
}

static void case_project(struct op_run *r, const int64_t *s)
{
    struct mode_tensor x = acts(r, s[0], s[1]), w = acts(r, s[1], s[2]), dy = acts(r, s[0], s[2]);
    mode_project(r->be, keep(r, acts(r, s[0], s[2])), &x, &w);
    struct mode_tensor *dx = keep(r, acts(r, s[0], s[1])), *dw = keep(r, mat(r, s[1], s[2]));
    mode_project_back(r->be, dx, dw, &dy, &x, &w);
    op_fetch(r);
}

/* Its first row left out: rows of an odd width then begin at places of their own. */
static inline struct mode_tensor past_one(struct mode_tensor t, bool wanted)
{
    if (!wanted) return t;
    t.data = (char *)t.data + (size_t)t.dim[1] * mode_dtype_size(t.dtype);
    t.dim[0]--;
    return t;
}

static void case_layernorm(struct op_run *r, const int64_t *s) /* m, d, with add, one row on */
{
    const int64_t m = s[0] + (s[3] != 0), d = s[1];
    const bool on = s[3] != 0;
    struct mode_tensor x = past_one(acts(r, m, d), on), w = vec(r, d), b = vec(r, d), dy = past_one(acts(r, m, d), on);
    struct mode_tensor *y = keep(r, past_one(acts(r, m, d), on)), *stats = keep(r, mat(r, s[0], 2));
    mode_layernorm(r->be, y, stats, &x, &w, &b, 1e-5f);
    struct mode_tensor *dx = keep(r, past_one(acts(r, m, d), on)), *dw = keep(r, vec(r, d)), *db = keep(r, vec(r, d));
    mode_layernorm_back(r->be, dx, dw, db, &dy, &x, stats, &w, s[2] ? dx : NULL);
    op_fetch(r);
}

static void case_attention(struct op_run *r, const int64_t *s) /* sequences, longest, heads, head width, causal */
{
    struct mode_tensor o = offsets_of(r, s[0], s[1]);
    int64_t rows = last_of(&o), d = s[2] * s[3];
    struct mode_tensor qkv = acts(r, rows, 3 * d), dout = acts(r, rows, d);
    struct mode_attention a = {d, s[2], 0, d, 2 * d, s[4] != 0, &o, &o, s[1]};
    struct mode_tensor *out = keep(r, acts(r, rows, d)), *lse = keep(r, mat(r, rows, s[2]));
    mode_attention(r->be, out, lse, &qkv, &qkv, &a);
    struct mode_tensor *dqkv = keep(r, acts(r, rows, 3 * d));
    mode_attention_back(r->be, dqkv, dqkv, &dout, out, lse, &qkv, &qkv, &a);
    op_fetch(r);
}

static void case_attention_one_query(struct op_run *r, const int64_t *s)
{
    struct mode_tensor ko = offsets_of(r, s[0], s[1]), qo = list_of(r, s[0] + 1, 2);
    mode_backend_sync(r->be);
    for (int64_t i = 0; i <= s[0]; i++) op_i32(r, &qo)[i] = (int32_t)i;
    op_sent(r);
    int64_t rows = last_of(&ko), d = s[2] * s[3];
    struct mode_tensor q = acts(r, s[0], d), kv = acts(r, rows, 2 * d), dout = acts(r, s[0], d);
    struct mode_attention a = {d, s[2], 0, 0, d, false, &qo, &ko, s[1]};
    struct mode_tensor *out = keep(r, acts(r, s[0], d)), *lse = keep(r, mat(r, s[0], s[2]));
    mode_attention(r->be, out, lse, &q, &kv, &a);
    struct mode_tensor *dq = keep(r, acts(r, s[0], d)), *dkv = keep(r, acts(r, rows, 2 * d));
    mode_attention_back(r->be, dq, dkv, &dout, out, lse, &q, &kv, &a);
    op_fetch(r);
}

static void case_embed(struct op_run *r, const int64_t *s) /* sequences, longest, d, vocabulary */
{
    struct mode_tensor o = offsets_of(r, s[0], s[1]), ids = list_of(r, last_of(&o), s[3]);
    struct mode_tensor table = mat(r, s[3], s[2]), pos = mat(r, s[1], s[2]), dx = acts(r, last_of(&o), s[2]);
    mode_embed(r->be, keep(r, acts(r, last_of(&o), s[2])), &table, &pos, &ids, &o);
    struct mode_tensor *dt = keep(r, mat(r, s[3], s[2])), *dp = keep(r, mat(r, s[1], s[2]));
    mode_embed_back(r->be, dt, dp, &dx, &ids, &o);
    op_fetch(r);
}

static void case_image(struct op_run *r, const int64_t *s) /* images, side, patch, d */
{
    int64_t p = s[1] / s[2] * (s[1] / s[2]);
    struct mode_tensor pixels = noise(r, 4, (int64_t[]){s[0], 3, s[1], s[1]}, 1), dx = acts(r, s[0] * (p + 1), s[3]);
    struct mode_tensor patch = acts(r, s[0] * p, s[3]), cls = vec(r, s[3]), pos = mat(r, p + 1, s[3]);
    mode_patches(r->be, keep(r, acts(r, s[0] * p, 3 * s[2] * s[2])), &pixels, s[2]);
    mode_image_tokens(r->be, keep(r, acts(r, s[0] * (p + 1), s[3])), &patch, &cls, &pos, NULL);
    struct mode_tensor *dpatch = keep(r, acts(r, s[0] * p, s[3])), *dcls = keep(r, vec(r, s[3]));
    mode_image_tokens_back(r->be, dpatch, dcls, keep(r, mat(r, p + 1, s[3])), &dx, NULL);
    op_fetch(r);
}

static void case_kept_patches(struct op_run *r, const int64_t *s) /* images, patches, kept, d */
{
    struct mode_tensor kept = list_of(r, s[0] * s[2], s[0] * s[1]);
    mode_backend_sync(r->be);
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t i = 0, from = 0; i < s[2]; i++, from++) { /* leave enough for those after it */
            from += (int64_t)mode_rng_below(&r->rng, (uint64_t)(s[1] - from - (s[2] - 1 - i)));
            op_i32(r, &kept)[b * s[2] + i] = (int32_t)(b * s[1] + from);
        }
    op_sent(r);
    struct mode_tensor all = acts(r, s[0] * s[1], s[3]), dx = acts(r, s[0] * (s[2] + 1), s[3]);
    struct mode_tensor cls = vec(r, s[3]), pos = mat(r, s[1] + 1, s[3]);
    struct mode_tensor *patch = keep(r, acts(r, s[0] * s[2], s[3]));
    mode_gather(r->be, patch, &all, &kept);
    mode_image_tokens(r->be, keep(r, acts(r, s[0] * (s[2] + 1), s[3])), patch, &cls, &pos, &kept);
    struct mode_tensor *dpatch = keep(r, acts(r, s[0] * s[2], s[3])), *dcls = keep(r, vec(r, s[3]));
    mode_image_tokens_back(r->be, dpatch, dcls, keep(r, mat(r, s[1] + 1, s[3])), &dx, &kept);
    op_fetch(r);
}

/* Of n inputs a random part, resized by a random factor; or all of them as they are; or the same backwards. Returns the
 * place after it. */
static inline int64_t draw_taps(struct op_run *r, uint8_t *bytes, int64_t at, int n, int side, int32_t *most,
                                int32_t *n_out, int32_t *place, bool bilinear)
{
    struct mode_taps t;
    struct mode_error err;
    const double in0 = mode_rng_uniform(&r->rng) * 0.5 * n, in1 = in0 + (0.1 + 0.4 * mode_rng_uniform(&r->rng)) * n;
    const int all = 1 + (int)mode_rng_below(&r->rng, 2 * (uint64_t)side), same = (int)mode_rng_below(&r->rng, 6);
    *n_out = all < side ? all : side;
    if (same == 0) *n_out = n < side ? n : side;
    *place = (int32_t)mode_rng_below(&r->rng, (uint64_t)(side - *n_out) + 1);
    *most = 1;
    int32_t *to = (int32_t *)(void *)(bytes + at);
    if (same == 0) {
        mode_pixels_same(to, *n_out);
    } else {
        const int from = all > side ? (int)mode_rng_below(&r->rng, (uint64_t)(all - side) + 1) : 0;
        MODE_ASSERT(mode_taps_make(&t, n, in0, in1, all, from, *n_out,
                                   bilinear ? MODE_FILTER_BILINEAR : MODE_FILTER_BICUBIC, &err) == MODE_OK);
        *most = t.n_max;
        mode_pixels_taps(to, *n_out, t.n_max, t.first, t.n, t.k, 0);
        mode_taps_clear(&t);
    }
    for (int64_t i = 0; same == 1 && i < (int64_t)(2 + *most) * *n_out; i += *n_out)
        for (int64_t a = i, b = i + *n_out - 1; a < b; a++, b--) {
            int32_t x = to[a];
            to[a] = to[b];
            to[b] = x;
        }
    return at + (int64_t)mode_pixels_taps_bytes(*n_out, *most);
}

/* pictures, side of the input, their longest, bilinear, patch */
static void case_pictures(struct op_run *r, const int64_t *s)
{
    const int64_t table = s[0] * (int64_t)sizeof(struct mode_pixels_window);
    const int64_t taps = (int64_t)mode_pixels_taps_bytes(s[1], 4 * s[2] + 16); /* at most, of a direction */
    struct mode_tensor bytes = mode_tensor_1d(NULL, MODE_DTYPE_U8, table + s[0] * (2 * taps + 3 * s[2] * s[2] + 4));
    struct mode_tensor levels = mat(r, 3, 256);
    bytes.data = op_memory(r, mode_tensor_bytes(&bytes));
    struct mode_pixels_window *w = op_host(r, bytes.data);
    uint8_t *base = op_host(r, bytes.data);
    int64_t at = table;
    for (int64_t i = 0; i < s[0]; i++) {
        w[i].width = 1 + (int32_t)mode_rng_below(&r->rng, (uint64_t)s[2]);
        w[i].height = 1 + (int32_t)mode_rng_below(&r->rng, (uint64_t)s[2]);
        w[i].down_first = i % 3 == 1;
        w[i].across = at = (at + 3) / 4 * 4;
        w[i].down = at = draw_taps(r, base, at, w[i].width, (int)s[1], &w[i].across_most, &w[i].n_x, &w[i].x, s[3]);
        w[i].rgb = at = draw_taps(r, base, at, w[i].height, (int)s[1], &w[i].down_most, &w[i].n_y, &w[i].y, s[3]);
        for (int64_t k = 0; k < (int64_t)w[i].width * w[i].height * 3; k++)
            base[at++] = (uint8_t)(mode_rng_below(&r->rng, 3) ? mode_rng_below(&r->rng, 256)
                                                              : 255 * mode_rng_below(&r->rng, 2));
    }
    op_sent(r);
    const struct mode_pictures pictures = {.windows = w,
                                           .bytes = bytes.data,
                                           .n_bytes = mode_tensor_bytes(&bytes),
                                           .levels = mode_f32(&levels),
                                           .border = 77};
    const int64_t p = s[4], g = s[1] / p, half = s[0] / 2; /* all, and once more those from the middle on */
    mode_picture_patches(r->be, keep(r, acts(r, s[0] * g * g, 3 * p * p)), &pictures, 0, s[1], p);
    mode_picture_patches(r->be, keep(r, acts(r, (s[0] - half) * g * g, 3 * p * p)), &pictures, half, s[1], p);
    op_fetch(r);
}

static void case_gather(struct op_run *r, const int64_t *s) /* rows, every how many, d */
{
    struct mode_tensor x = acts(r, s[0], s[2]), idx = list_of(r, s[0] / s[1], s[0]);
    mode_backend_sync(r->be);
    for (int64_t i = 0; i < idx.dim[0]; i++) op_i32(r, &idx)[i] = (int32_t)(s[0] - 1 - i * s[1]);
    op_sent(r);
    struct mode_tensor *y = keep(r, acts(r, idx.dim[0], s[2]));
    mode_gather(r->be, y, &x, &idx);
    mode_scatter_add(r->be, keep(r, acts(r, s[0], s[2])), y, &idx);
    op_fetch(r);
}

static void case_scale(struct op_run *r, const int64_t *s) /* m, d */
{
    struct mode_tensor x = acts(r, s[0], s[1]), g = vec(r, s[1]), dy = acts(r, s[0], s[1]);
    struct mode_tensor *y = keep(r, acts(r, s[0], s[1]));
    mode_scale(r->be, y, &x, &g, y);
    struct mode_tensor *dx = keep(r, acts(r, s[0], s[1])), *dg = keep(r, vec(r, s[1]));
    mode_scale_back(r->be, dx, dg, &dy, &x, &g);
    op_fetch(r);
}

static void case_mean_rows(struct op_run *r, const int64_t *s) /* sequences, longest, d, skip */
{
    struct mode_tensor o = offsets_of(r, s[0], s[1]);
    mode_backend_sync(r->be);
    for (int64_t i = 0; i <= s[0]; i++) op_i32(r, &o)[i] += (int32_t)(i * s[3]);
    op_sent(r);
    int64_t rows = last_of(&o);
    struct mode_tensor x = acts(r, rows, s[2]), dy = acts(r, s[0], s[2]);
    mode_mean_rows(r->be, keep(r, acts(r, s[0], s[2])), &x, &o, s[3]);
    mode_mean_rows_back(r->be, keep(r, acts(r, rows, s[2])), &dy, &o, s[3]);
    op_fetch(r);
}

static void case_l2norm(struct op_run *r, const int64_t *s)
{
    struct mode_tensor x = acts(r, s[0], s[1]), dy = mat(r, s[0], s[1]);
    struct mode_tensor *y = keep(r, mat(r, s[0], s[1])), *norm = keep(r, vec(r, s[0]));
    mode_l2norm(r->be, y, norm, &x);
    mode_l2norm_back(r->be, keep(r, acts(r, s[0], s[1])), &dy, y, norm);
    op_fetch(r);
}

static inline struct mode_tensor vec_f64(struct op_run *r, int64_t n)
{
    struct mode_tensor t = mode_tensor_1d(op_memory(r, (size_t)n * sizeof(double)), MODE_DTYPE_F64, n);
    for (int64_t i = 0; i < n; i++) ((double *)op_host(r, t.data))[i] = mode_rng_normal(&r->rng);
    op_sent(r);
    return t;
}

/* pairs, d, 10 x log scale; rows here (0: all), the first of them, rows of logits at a time (0: all) */
static void case_contrastive(struct op_run *r, const int64_t *s)
{
    int64_t n = s[0], d = s[1], m = s[3] ? s[3] : n, t = s[5] ? s[5] : m, at = s[4];
    struct mode_tensor all = mat(r, n, d), b = mat(r, n, d), norm = vec(r, n), scale = noise(r, 0, NULL, 1);
    struct mode_tensor a = mode_tensor_2d(mode_f32(&all) + at * d, MODE_DTYPE_F32, m, d), work = mat(r, t, n);
    struct mode_tensor row = vec_f64(r, m), col = vec_f64(r, n);
    op_f32(r, &scale)[0] = (float)s[2] * 0.1f;
    op_send(r);
    mode_l2norm(r->be, &all, &norm, &all);
    mode_l2norm(r->be, &b, &norm, &b);
    mode_contrastive(r->be, &row, &col, &work, &a, &b, &scale);
    if (m < n) { /* the other rows, as if other processes had told them: of each column some logits */
        struct mode_tensor each = mode_tensor_2d(op_memory(r, 3 * (size_t)n * sizeof(double)), MODE_DTYPE_F64, 3, n);
        double *told = op_host(r, each.data);
        op_fetch(r);
        for (int64_t j = 0; j < n; j++) {
            told[j] = ((const double *)op_host(r, col.data))[j];
            told[n + j] = 0.5;
            told[2 * n + j] = 0.01 * (double)j;
        }
        op_send(r);
        mode_join_columns(r->be, &col, &each);
    }
    struct mode_tensor *da = keep(r, mat(r, m, d)), *db = keep(r, mat(r, n, d));
    double *loss = op_memory(r, sizeof *loss);
    mode_contrastive_back(r->be, loss, da, db, keep(r, noise(r, 0, NULL, 1)), &work, &a, &b, &scale, &row, &col, at);
    op_fetch(r);
    r->scalar = *(const double *)op_host(r, loss);
}

/* numbers, step (2: a gradient is no number, 6: infinite; 8: gradients are small and lie off a multiple of 16 bytes),
 * parameters of various lengths that make them up (0: one). One of them is frozen, every other one decays. Some moments
 * become subnormal. */
static void case_adamw(struct op_run *r, const int64_t *s)
{
    int64_t n = s[0], parts = s[2] ? s[2] : 1;
    struct mode_tensor room = vec(r, n + (s[1] == 8)), *w = keep(r, vec(r, n)), *m = keep(r, vec(r, n)),
                       *v = keep(r, vec(r, n));
    struct mode_tensor g = mode_tensor_1d(mode_f32(&room) + (s[1] == 8), MODE_DTYPE_F32, n);
    const float size = s[1] == 8 ? 1e-6f : 1;
    bool bf16 = mode_backend_activations(r->be) == MODE_DTYPE_BF16;
    struct mode_tensor copy = act_vec(r, n), *clamped = keep(r, vec(r, n));
    struct mode_param *p = mode_xcalloc((size_t)parts, sizeof *p);
    struct mode_adamw_step *now = op_shared(r, sizeof *now);
    for (int64_t i = 0; i < n; i++) {
        op_f32(r, &g)[i] *= size;
        op_f32(r, m)[i] *= size;
        op_f32(r, v)[i] *= op_f32(r, v)[i] * size * size;
        if (n > 100 && i % 100 == 50) {
            op_f32(r, &g)[i] = 0;
            op_f32(r, m)[i] = 1.25e-38f;
            op_f32(r, v)[i] = 1.19e-38f;
        }
    }
    if (s[1] == 2 || s[1] == 6) op_f32(r, &g)[n / 2] = s[1] == 2 ? NAN : INFINITY;
    for (int64_t k = 0, at = 0; k < parts; k++) {
        int64_t left = n - at, count = k == parts - 1 ? left : (n / parts + 7 * k) % left;
        p[k] = (struct mode_param){.value = mode_tensor_1d(mode_f32(w) + at, MODE_DTYPE_F32, count),
                                   .grad = mode_tensor_1d(mode_f32(&g) + at, MODE_DTYPE_F32, count),
                                   .m = mode_tensor_1d(mode_f32(m) + at, MODE_DTYPE_F32, count),
                                   .v = mode_tensor_1d(mode_f32(v) + at, MODE_DTYPE_F32, count),
                                   .operand = mode_tensor_1d((uint16_t *)copy.data + at, MODE_DTYPE_BF16, count),
                                   .decay = k % 2 == 0,
                                   .frozen = k == 2};
        if (!bf16) p[k].operand = p[k].value;
        at += count;
    }
    *now = (struct mode_adamw_step){.lr = 5e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2};
    now->fix1 = 1 - pow(0.9, (double)s[1]);
    now->fix2 = 1 - pow(0.98, (double)s[1]);
    now->clip_norm = s[1] == 1 ? 0 : 0.37 * size * sqrt((double)n); /* gradients' length: about size times that root */
    op_send(r);
    mode_grad_squares(r->be, &now->squares, p, (size_t)parts);
    mode_adamw(r->be, p, (size_t)parts, now);
    mode_backend_show(r->be, &now->squares, sizeof now->squares);
    mode_clamp(r->be, clamped, -0.5f, 0.75f);
    mode_zero(r->be, keep(r, vec(r, n)));
    if (bf16) { /* last: the other backends have none */
        keep(r, copy);
        mode_rounded(r->be, keep(r, act_vec(r, n)), m);
    }
    op_fetch(r);
    r->scalar = s[1] == 2 || s[1] == 6 ? 0 : now->squares;
    free(p);
}

/* The tensor itself or, where the ops of clustering are to be tried with it, a copy in the host's own memory. */
static inline struct mode_tensor outside(struct op_run *r, struct mode_tensor t, int64_t wanted)
{
    if (!wanted) return t;
    MODE_ASSERT(r->n_outside < MAX_OUTSIDE);
    void *p = r->outside[r->n_outside++] = mode_xmalloc(mode_tensor_bytes(&t) + 1);
    t.data = memcpy(p, op_host(r, t.data), mode_tensor_bytes(&t));
    return t;
}

static inline void back_inside(const struct op_run *r, struct mode_tensor *to, const struct mode_tensor *from)
{
    if (to->data != from->data) memcpy(op_host(r, to->data), from->data, mode_tensor_bytes(to));
}

/* Centres that are equal, rows that lie on a centre or half-way between two: decided by a bit or by the lower id. */
static void hard_rows(struct op_run *r, struct mode_tensor *x, struct mode_tensor *c)
{
    int64_t n = x->dim[0], k = c->dim[0], d = c->dim[1];
    float *p = op_f32(r, x), *q = op_f32(r, c);
    if (k > 2) memcpy(q + (k - 1) * d, q + k / 2 * d, (size_t)d * sizeof *q);
    for (int64_t i = 0; i < n; i += 3) {
        const float *a = q + i % k * d, *b = q + (i / 3) % k * d;
        for (int64_t j = 0; j < d; j++) p[i * d + j] = 0.5f * (a[j] + b[j]);
    }
}

/* Not by the backend's own op: the same bytes everywhere, so that results can be. */
static void unit_rows(struct op_run *r, struct mode_tensor *x)
{
    int64_t d = x->dim[1];
    for (int64_t i = 0; i < x->dim[0]; i++) {
        float *p = op_f32(r, x) + i * d;
        double sum = 0;
        for (int64_t j = 0; j < d; j++) sum += (double)p[j] * (double)p[j];
        for (int64_t j = 0; j < d; j++) p[j] = (float)((double)p[j] / sqrt(sum));
    }
}

static void case_nearest(struct op_run *r, const int64_t *s) /* n, k, d, cosine, rows at a time, in the host's memory */
{
    struct mode_tensor x = mat(r, s[0], s[2]), c = mat(r, s[1], s[2]), work = mat(r, s[4], s[1]);
    struct mode_tensor id = index_of(r, s[0], s[1]), *ids = keep(r, vec(r, s[0])), *distance = keep(r, vec(r, s[0]));
    hard_rows(r, &x, &c);
    if (s[3]) unit_rows(r, &c);
    op_send(r);
    struct mode_tensor hx = outside(r, x, s[5]), hc = outside(r, c, s[5]), hid = outside(r, id, s[5]),
                       hd = outside(r, *distance, s[5]);
    mode_nearest_rows(r->be, &hid, s[5] > 1 ? NULL : &hd, &work, &hx, NULL, &hc, s[3]);
    op_fetch(r);
    for (int64_t i = 0; i < s[0]; i++) op_f32(r, ids)[i] = (float)op_i32(r, &hid)[i];
    if (s[5] <= 1) back_inside(r, distance, &hd);
}

/* Rows made ready where that is of use, and two sets of centres for them: n, k, d, cosine, in the host's memory. */
static void case_nearest_again(struct op_run *r, const int64_t *s)
{
    const int64_t n = s[0], k = s[1], d = s[2], bytes = (int64_t)mode_nearest_ready_bytes(r->be, n, d);
    struct mode_tensor x = mat(r, n, d), id = index_of(r, n, k), ready = mode_tensor_1d(NULL, MODE_DTYPE_U8, bytes);
    if (s[3]) unit_rows(r, &x);
    op_send(r);
    struct mode_tensor hx = outside(r, x, s[4]);
    if (bytes > 0) ready.data = op_memory(r, (size_t)bytes);
    if (bytes > 0) mode_nearest_ready(r->be, &ready, &hx);
    op_fetch(r);
    for (int64_t some = k; some > 0; some -= k / 2 + 1) {
        struct mode_tensor c = mat(r, some, d), work = mat(r, 100, some), *ids = keep(r, vec(r, n));
        if (s[3]) unit_rows(r, &c);
        op_send(r);
        mode_nearest_rows(r->be, &id, keep(r, vec(r, n)), &work, &hx, bytes > 0 ? &ready : NULL, &c, s[3]);
        op_fetch(r);
        for (int64_t i = 0; i < n; i++) op_f32(r, ids)[i] = (float)op_i32(r, &id)[i];
    }
}

/* Centres in crowds which products in few digits cannot tell apart. */
static void case_crowds(struct op_run *r, const int64_t *s) /* n, k, d, cosine, centres in a crowd */
{
    struct mode_tensor x = mat(r, s[0], s[2]), c = mat(r, s[1], s[2]), work = mat(r, 50, s[1]);
    struct mode_tensor id = index_of(r, s[0], s[1]), *ids = keep(r, vec(r, s[0]));
    for (int64_t i = 0; i < s[1]; i++) /* a crowd's centres lie apart from each other: in several tiles of a GPU */
        for (int64_t j = 0; j < s[2]; j++) {
            float *to = op_f32(r, &c) + i * s[2] + j;
            const int64_t crowds = s[1] / s[4];
            if (i >= crowds) *to = op_f32(r, &c)[i % crowds * s[2] + j] + ldexpf(*to, -16);
        }
    op_send(r);
    mode_nearest_rows(r->be, &id, keep(r, vec(r, s[0])), &work, &x, NULL, &c, s[3]);
    op_fetch(r);
    for (int64_t i = 0; i < s[0]; i++) op_f32(r, ids)[i] = (float)op_i32(r, &id)[i];
}

static void case_traps(struct op_run *r, const int64_t *s) /* traps, k, d, cosine; a row and its k centres each */
{
    struct mode_tensor x = mat(r, 1, s[2]), c = mat(r, s[1], s[2]), work = mat(r, 1, s[1]), id = index_of(r, 1, s[1]),
                       one = vec(r, 1), *ids = keep(r, vec(r, s[0])), *distance = keep(r, vec(r, s[0]));
    for (int64_t i = 0; i < s[0]; i++) {
        trap(op_f32(r, &x), op_f32(r, &c), s[1], s[2], (int)(i % (s[3] ? 3 : 2)), s[3], &r->rng);
        op_send(r);
        mode_nearest_rows(r->be, &id, &one, &work, &x, NULL, &c, s[3]);
        op_fetch(r);
        op_f32(r, ids)[i] = (float)op_i32(r, &id)[0];
        op_f32(r, distance)[i] = op_f32(r, &one)[0];
    }
}

/* Centres that differ by the order of their columns alone: as far away as each other but for the last bits of a sum in
 * double, so that the id says in which order it was made. */
static void case_order(struct op_run *r, const int64_t *s) /* rows with centres of their own, k, d, cosine */
{
    struct mode_tensor x = mat(r, 1, s[2]), c = mat(r, s[1], s[2]), work = mat(r, 1, s[1]), id = index_of(r, 1, s[1]),
                       *ids = keep(r, vec(r, s[0]));
    for (int64_t i = 0; i < s[2]; i++) op_f32(r, &x)[i] = s[3] ? 17.0f / 3 : 0;
    for (int64_t i = 0; i < s[0]; i++) {
        for (int64_t j = 0; j < s[2]; j++) op_f32(r, &c)[j] = (float)mode_rng_normal(&r->rng);
        for (int64_t k = 1; k < s[1]; k++) {
            float *to = op_f32(r, &c) + k * s[2];
            memcpy(to, to - s[2], (size_t)s[2] * sizeof *to);
            for (int64_t j = s[2] - 1; j > 0; j--) {
                int64_t at = (int64_t)mode_rng_below(&r->rng, (uint64_t)j + 1);
                float t = to[j];
                to[j] = to[at];
                to[at] = t;
            }
        }
        op_send(r);
        mode_nearest_rows(r->be, &id, NULL, &work, &x, NULL, &c, s[3]);
        op_fetch(r);
        op_f32(r, ids)[i] = (float)op_i32(r, &id)[0];
    }
}

static void case_costs(struct op_run *r, const int64_t *s) /* n, k, d, cosine, in the host's memory */
{
    struct mode_tensor x = mat(r, s[0], s[2]), c = mat(r, s[1], s[2]);
    struct mode_tensor *cost = keep(r, mat(r, s[0], s[1]));
    if (s[3]) unit_rows(r, &c);
    if (s[3]) unit_rows(r, &x);
    op_send(r);
    struct mode_tensor hx = outside(r, x, s[4]), hc = outside(r, c, s[4]), to = outside(r, *cost, s[4]);
    mode_costs(r->be, &to, &hx, &hc, s[3]);
    op_fetch(r);
    back_inside(r, cost, &to);
}

static void case_group_rows(struct op_run *r, const int64_t *s) /* n, groups, in the host's memory */
{
    struct mode_tensor id = index_of(r, s[0], s[1]), first = index_of(r, s[1] + 1, 1), members = index_of(r, s[0], 1);
    struct mode_tensor *f = keep(r, vec(r, s[1] + 1)), *m = keep(r, vec(r, s[0]));
    struct mode_tensor hid = outside(r, id, s[2]), hf = outside(r, first, s[2]), hm = outside(r, members, s[2]);
    mode_group_rows(r->be, &hf, &hm, &hid);
    op_fetch(r);
    for (int64_t i = 0; i <= s[1]; i++) op_f32(r, f)[i] = (float)op_i32(r, &hf)[i];
    for (int64_t i = 0; i < s[0]; i++) op_f32(r, m)[i] = (float)op_i32(r, &hm)[i];
}

/* n, groups, d, unit, in the host's memory, cancelling */
static void case_group_means(struct op_run *r, const int64_t *s)
{
    struct mode_tensor x = mat(r, s[0], s[2]), first = index_of(r, s[1] + 1, s[0] + 1),
                       members = index_of(r, s[0], s[0]);
    struct mode_tensor *means = keep(r, mat(r, s[1], s[2]));
    int32_t *at = op_i32(r, &first), *row = op_i32(r, &members);
    at[0] = 0;
    at[s[1]] = (int32_t)s[0];
    for (int64_t i = 1; i < s[1]; i++) /* some groups are empty */
        for (int64_t j = i; j > 1 && at[j] < at[j - 1]; j--) {
            int32_t t = at[j];
            at[j] = at[j - 1];
            at[j - 1] = t;
        }
    if (at[1] == 2) /* a group without a direction */
        for (int64_t j = 0; j < s[2]; j++) op_f32(r, &x)[row[1] * s[2] + j] = -op_f32(r, &x)[row[0] * s[2] + j];
    for (int64_t i = 0; s[5] && i < s[0]; i++) row[i] = (int32_t)(i * 7 % s[0]); /* each once */
    for (int64_t i = 0; s[5] && i < s[0]; i++) /* large numbers, taken back later: in between small ones lose digits */
        for (int64_t j = 0; i % 7 == 0 && i + 333 < s[0] && j < s[2]; j++) {
            float *to = op_f32(r, &x) + row[i] * s[2] + j;
            *to = ldexpf(*to, 40);
            op_f32(r, &x)[row[i + 333] * s[2] + j] = -*to;
        }
    op_send(r);
    struct mode_tensor hx = outside(r, x, s[4]), hf = outside(r, first, s[4]), hm = outside(r, members, s[4]),
                       to = outside(r, *means, s[4]);
    mode_group_means(r->be, &to, &hx, &hf, &hm, s[3]);
    op_fetch(r);
    back_inside(r, means, &to);
}

static const struct op_case op_cases[] = {
    /* one of everything; primes; one more than the tile (6 x 16), the row block (96), the K block (384) */
    {"linear", case_linear, {1, 1, 1, MODE_ACT_NONE, 0}, 3e-7},
    {"linear", case_linear, {7, 13, 17, MODE_ACT_NONE, 0}, 6e-7},
    {"linear", case_linear, {97, 385, 129, MODE_ACT_NONE, 1}, 1.1e-6},
    {"linear", case_linear, {1537, 37, 33, MODE_ACT_NONE, 0}, 6e-7},
    {"linear", case_linear, {1600, 801, 48, MODE_ACT_NONE, 1}, 1.5e-6},
    {"linear gelu", case_linear, {13, 31, 19, MODE_ACT_GELU, 0}, 1e-6},
    {"linear gelu tanh", case_linear, {96, 64, 16, MODE_ACT_GELU_TANH, 0}, 1e-6},
    {"linear quick gelu", case_linear, {101, 160, 67, MODE_ACT_QUICK_GELU, 0}, 1e-6},
    {"linear tanh", case_linear, {5, 97, 23, MODE_ACT_TANH, 0}, 1e-6},
    {"activate gelu", case_activate, {37, 65, 45, MODE_ACT_GELU}, 1e-6},
    {"activate gelu tanh", case_activate, {1, 3, 7, MODE_ACT_GELU_TANH}, 1e-6},
    {"activate quick gelu", case_activate, {200, 48, 128, MODE_ACT_QUICK_GELU}, 1e-6},
    {"activate tanh", case_activate, {3, 401, 72, MODE_ACT_TANH}, 1.2e-6},
    {"linear back", case_linear_back, {1, 1, 1, 0, 0}, 1e-6},
    {"linear back", case_linear_back, {193, 17, 7, 0, 0}, 1e-6},
    {"linear back", case_linear_back, {1999, 29, 401, 0, 0}, 2e-6},
    {"linear back", case_linear_back, {211, 521, 11, 0, 1}, 2e-6},
    {"linear back act", case_linear_back, {97, 61, 31, 1, 0}, 1e-6},
    {"linear back act", case_linear_back, {385, 33, 5, 2, 0}, 1e-6},
    {"project", case_project, {1, 3, 1}, 6e-7},
    {"project", case_project, {259, 47, 31}, 1e-6},
    {"layernorm", case_layernorm, {1, 5, 0}, 2e-6},
    {"layernorm", case_layernorm, {67, 13, 1}, 1e-6},
    {"layernorm", case_layernorm, {2100, 160, 0}, 1e-6},
    {"attention", case_attention, {1, 1, 1, 1, 0}, 2e-6},
    {"attention", case_attention, {5, 7, 3, 5, 0}, 2e-6},
    {"attention", case_attention, {3, 37, 5, 32, 0}, 2e-6},
    {"attention causal", case_attention, {6, 19, 2, 17, 1}, 2e-6},
    {"attention causal", case_attention, {2, 77, 1, 64, 1}, 2e-6},
    {"attention of one query", case_attention_one_query, {4, 23, 3, 8, 0}, 2e-6},
    {"embed", case_embed, {1, 1, 1, 2}, 1e-7},
    {"embed", case_embed, {9, 5, 37, 4}, 1e-6},
    {"image", case_image, {1, 2, 2, 1}, 1e-6},
    {"image", case_image, {5, 12, 4, 33}, 1e-6},
    {"kept patches", case_kept_patches, {1, 1, 1, 1}, 1e-6},
    {"kept patches", case_kept_patches, {5, 9, 4, 33}, 1e-6},
    {"pictures", case_pictures, {1, 1, 1, 0, 1}, 0},
    {"pictures", case_pictures, {7, 13, 61, 0, 13}, 0},
    {"pictures", case_pictures, {4, 32, 230, 0, 8}, 0},
    {"pictures bilinear", case_pictures, {5, 24, 90, 1, 3}, 0},
    {"gather", case_gather, {131, 2, 7}, 1e-7},
    {"scale", case_scale, {1, 1}, 1e-6},
    {"scale", case_scale, {131, 75}, 1e-6},
    {"mean_rows", case_mean_rows, {1, 1, 1, 0}, 1e-6},
    {"mean_rows", case_mean_rows, {5, 40, 37, 1}, 1e-6},
    {"l2norm", case_l2norm, {1, 1}, 1e-6},
    {"l2norm", case_l2norm, {71, 161}, 1e-6},
    {"contrastive", case_contrastive, {1, 3, 0}, 1e-6},
    {"contrastive", case_contrastive, {13, 5, 46}, 3e-6},
    {"contrastive", case_contrastive, {103, 40, 27}, 2e-6},
    {"contrastive in pieces", case_contrastive, {103, 40, 27, 0, 0, 10}, 2e-6},
    {"contrastive, some rows", case_contrastive, {37, 21, 30, 12, 25, 0}, 2e-6},
    {"contrastive, some rows in pieces", case_contrastive, {61, 16, 46, 23, 7, 5}, 3e-6},
    {"adamw", case_adamw, {1, 1}, 1e-6},
    {"adamw", case_adamw, {65537, 300}, 1e-6},
    {"adamw", case_adamw, {20011, 7, 5}, 1e-6},
    {"adamw", case_adamw, {1003, 2, 2}, 1e-6},
    /* labels, distances and means: the same bits everywhere */
    {"nearest", case_nearest, {1, 1, 1, 0, 1, 0}, 0},
    {"nearest", case_nearest, {300, 37, 16, 0, 128, 0}, 0},
    {"nearest", case_nearest, {97, 131, 101, 0, 13, 1}, 0},
    {"nearest cosine", case_nearest, {257, 33, 64, 1, 64, 1}, 0},
    {"nearest, ids alone", case_nearest, {200, 1025, 48, 0, 200, 2}, 0},
    {"nearest, traps", case_traps, {40, 2, 3, 0}, 0},
    {"nearest, traps", case_traps, {60, 40, 64, 0}, 0},
    {"nearest, traps", case_traps, {30, 7, 1003, 0}, 0},
    {"nearest, cosine traps", case_traps, {60, 36, 77, 1}, 0},
    {"nearest, cosine traps", case_traps, {60, 3, 768, 1}, 0},
    {"nearest, by the order of sums", case_order, {20, 5, 7, 0}, 0},
    {"nearest, by the order of sums", case_order, {20, 40, 32, 1}, 0},
    {"nearest, by the order of sums", case_order, {40, 17, 100, 0}, 0},
    {"nearest, by the order of sums", case_order, {20, 16, 771, 1}, 0},
    {"costs", case_costs, {1, 1, 1, 0, 0}, 1e-6},
    {"costs", case_costs, {3, 50, 45, 0, 0}, 1e-6},
    {"costs cosine", case_costs, {2, 7, 64, 1, 0}, 1e-6},
    {"costs", case_costs, {131, 67, 33, 0, 1}, 1e-6},
    {"costs", case_costs, {400, 300, 384, 0, 0}, 1e-6},
    {"costs cosine", case_costs, {77, 129, 65, 1, 1}, 1e-6},
    {"group rows", case_group_rows, {1, 1, 0}, 0},
    {"group rows", case_group_rows, {1024, 7, 1}, 0},
    {"group rows", case_group_rows, {3000, 5000, 0}, 0},
    {"group means", case_group_means, {1, 1, 1, 0, 0}, 0},
    {"group means", case_group_means, {1000, 37, 17, 0, 1}, 0},
    {"group directions", case_group_means, {501, 300, 70, 1, 0}, 0},
    {"group means, large groups", case_group_means, {2000, 3, 36, 0, 1, 0}, 0},
    {"group means, large groups", case_group_means, {3001, 1, 40, 0, 0, 1}, 0},
    {"group directions, large groups", case_group_means, {2560, 1, 33, 1, 0, 1}, 0},
    {"layernorm", case_layernorm, {5, 7, 1, 1}, 2e-6},
    {"layernorm", case_layernorm, {11, 100, 1}, 1e-6},
    {"linear back act", case_linear_back, {33, 48, 24, 3, 0}, 1e-6},
    {"linear back act", case_linear_back, {7, 33, 5, 4, 0}, 1e-6},
    {"nearest", case_nearest, {258, 20, 2048, 0, 64, 0}, 0},
    {"nearest again", case_nearest_again, {600, 300, 70, 0, 0}, 0},
    {"nearest cosine again", case_nearest_again, {257, 513, 131, 1, 1}, 0},
    {"nearest in crowds", case_crowds, {300, 700, 33, 0, 10}, 0},
    {"nearest cosine in crowds", case_crowds, {270, 530, 20, 1, 53}, 0},
    {"group rows", case_group_rows, {40000, 100, 1}, 0},
    {"group rows", case_group_rows, {3000, 9000, 0}, 0},
    {"contrastive in pieces", case_contrastive, {13, 5, 27, 0, 0, 12}, 2e-6},
    {"adamw", case_adamw, {1003, 6, 2}, 1e-6},
    {"adamw", case_adamw, {2003, 8, 3}, 1e-6},
    {"linear add", case_linear, {33, 40, 27, MODE_ACT_NONE, 2}, 1e-6},
};
enum { N_OP_CASES = sizeof op_cases / sizeof *op_cases };

/* |a - b| / |b| over a whole result, |a - b| where b is 0; infinite when a number is not finite. worst: where a single
 * one is furthest off. */
static inline double op_distance(const struct mode_tensor *a, const struct mode_tensor *b, int64_t *worst)
{
    double diff = 0, size = 0, most = -1;
    *worst = 0;
    for (int64_t i = 0; i < mode_tensor_count(b); i++) {
        double x = op_number(a, i), y = op_number(b, i);
        if (!isfinite(x)) {
            *worst = i;
            return INFINITY;
        }
        if (fabs(x - y) > most) most = fabs(x - y), *worst = i;
        diff += (x - y) * (x - y);
        size += y * y;
    }
    return size > 0 ? sqrt(diff / size) : sqrt(diff);
}

/* How many products result i is a sum of, where it is that and nothing else; 0: it is not. */
static inline int64_t op_products(const struct op_case *c, int i)
{
    const int64_t *s = c->s;
    if (c->run == case_linear) return i == 1 || s[3] == MODE_ACT_NONE ? s[1] : 0;
    if (c->run == case_linear_back) return i == 0 ? s[0] : i == 2 && s[3] == MODE_ACT_NONE ? s[2] : 0;
    if (c->run == case_project) return s[i == 0 ? 1 : i == 1 ? 2 : 0];
    return 0;
}

/* Of result i: a product's sums in f32 grow less exact by the root of their length, and no case asks for less. What is
 * stored in bf16 is rounded once more; what is stored in f32 there keeps to the case's own. */
static inline double op_tolerance(const struct op_case *c, const struct op_run *r, int i)
{
    const int64_t k = op_products(c, i);
    if (r->out[i].dtype == MODE_DTYPE_BF16) return c->tolerance < 4e-3 ? 4e-3 : c->tolerance;
    return k > 0 ? fmin(c->tolerance, 3e-7 * sqrt(k > 64 ? (double)k / 64 : 1)) : c->tolerance;
}

static inline struct op_run op_case_run_with(const struct op_case *c, int number, struct mode_backend *be, bool rounded,
                                             enum op_special special)
{
    struct op_run r = {
        .be = be, .rng = mode_rng_for(7, MODE_RNG_TEST, 0, (uint64_t)number), .rounded = rounded, .special = special};
    c->run(&r, c->s);
    for (int i = 0; i < r.n_out; i++) r.out[i] = op_seen(&r, &r.out[i]); /* for who compares */
    return r;
}

/* number: which inputs are drawn; rounded: those that are activations rounded to bf16 */
static inline struct op_run op_case_run_of(const struct op_case *c, int number, struct mode_backend *be, bool rounded)
{
    return op_case_run_with(c, number, be, rounded, OP_PLAIN);
}

static inline struct op_run op_case_run(const struct op_case *c, int number, struct mode_backend *be)
{
    return op_case_run_of(c, number, be, false);
}

#endif
