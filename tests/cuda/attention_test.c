/* attention-test [--small] [OUT] - our attention kernels, f32 and bf16, against "ref" and "ref-bf16": head widths of
 * all our models and others, sequences of 1 to 257 rows on both sides of every block and tile boundary, batches of
 * mixed odd lengths, causal or not, one query per sequence, keys in another tensor, sequences without a query, rows
 * that are not aligned to 16 bytes. Every case runs twice and must be bit-identical; outputs start as noise, and
 * columns outside a case must not change. Then the same with cuDNN where it can, whose plans take half a second each
 * (--small: not these). Runs on a GPU, and on the emulator of tests/cuda/emulator. Prints a table, and writes it to
 * OUT/attention_test.tsv. Exits with 1 when anything is off, with 77 when there is no GPU. */
#include "cuda/table.h"
#include "nn/cuda/cudnn_attention.h"

#include "base/clock.h"
#include "base/rng.h"
#include "base/str.h"
#include "tensor/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* q and kv in one tensor; the same with scores near -100 (packed batches begin with a sequence of 64 rows); one query
 * per sequence; queries and keys with lengths of their own; 0, 1 or 2 queries */
enum form { SELF, SELF_LOW, ONE_QUERY, TWO_SIDES, FEW_QUERIES };
/* Our kernels; cuDNN where it can; the backend's choice by rule, or by timing */
enum impl { OWN, CUDNN, CHOSEN, MEASURED };

static const struct attention_case {
    const char *name;
    int64_t sequences, longest; /* rows per sequence, at most (mixed) or each */
    int64_t heads, dh, margin;  /* margin: unused columns of a row */
    bool mixed, causal;
    enum form form;
} cases[] = {
    {"one row", 3, 1, 2, 64, 0, false, false, SELF},
    {"B/32 images", 3, 50, 2, 64, 0, false, false, SELF},
    {"B/16 images", 1, 197, 1, 64, 0, false, false, SELF},
    {"L/14 images", 1, 257, 1, 64, 8, false, false, SELF},
    {"H/14 images", 1, 77, 2, 80, 0, false, false, SELF},
    {"g/14 images", 2, 50, 1, 88, 0, false, false, SELF},
    {"bigG/14 images", 2, 50, 1, 104, 0, false, false, SELF},
    {"heads of 128", 1, 77, 1, 128, 0, false, false, SELF},
    {"heads of 256", 1, 33, 1, 256, 0, false, false, SELF},
    {"narrow heads", 5, 20, 3, 8, 0, true, false, SELF},
    {"texts of 77", 2, 77, 2, 64, 0, false, true, SELF},
    {"packed texts", 9, 40, 2, 64, 8, true, true, SELF},
    {"packed texts of one head", 17, 13, 1, 80, 0, true, true, SELF},
    {"long causal", 1, 257, 1, 64, 0, false, true, SELF},
    {"packed, not causal", 7, 77, 1, 64, 0, true, false, SELF},
    {"many short", 50, 4, 2, 16, 0, true, true, SELF},
    {"rows off 16 bytes", 3, 30, 3, 20, 3, true, false, SELF},
    {"rows off 16 bytes, causal", 3, 30, 3, 21, 1, true, true, SELF},
    {"one query", 5, 50, 2, 64, 0, true, false, ONE_QUERY},
    {"one query of 257", 2, 257, 2, 80, 8, false, false, ONE_QUERY},
    {"one query, wide head", 3, 20, 1, 256, 0, true, false, ONE_QUERY},
    {"one query, odd head", 3, 7, 2, 13, 3, true, false, ONE_QUERY},
    {"queries and keys of their own", 6, 70, 2, 64, 0, true, false, TWO_SIDES},
    {"queries and keys, long", 3, 150, 1, 32, 0, true, false, TWO_SIDES},
    {"as many queries as sequences", 6, 40, 2, 64, 0, true, false, FEW_QUERIES},
    {"rows of 2", 3, 2, 2, 24, 0, false, true, SELF},
    {"rows of 15", 2, 15, 3, 40, 0, false, true, SELF},
    {"rows of 16", 2, 16, 2, 64, 0, false, true, SELF},
    {"rows of 17", 2, 17, 2, 64, 0, false, true, SELF},
    {"rows of 49", 2, 49, 1, 72, 0, false, false, SELF},
    {"rows of 50, causal", 2, 50, 2, 64, 0, false, true, SELF},
    {"rows of 63", 2, 63, 1, 48, 8, false, true, SELF},
    {"rows of 64", 2, 64, 2, 64, 0, false, false, SELF},
    {"rows of 65", 2, 65, 1, 64, 0, false, true, SELF},
    {"rows of 96", 2, 96, 1, 96, 0, false, true, SELF},
    {"rows of 97", 2, 97, 1, 64, 0, false, true, SELF},
    {"rows of 97, not causal", 1, 97, 1, 112, 0, false, false, SELF},
    {"rows of 128", 1, 128, 1, 64, 0, false, true, SELF},
    {"rows of 129", 1, 129, 1, 64, 0, false, true, SELF},
    {"rows of 129, heads of 96", 1, 129, 1, 96, 0, false, true, SELF},
    {"packed, long", 5, 150, 2, 64, 0, true, true, SELF},
    {"packed, long, not causal", 4, 197, 1, 80, 0, true, false, SELF},
    {"long, heads of 136", 1, 100, 1, 136, 0, false, true, SELF},
    {"long, heads of 256", 1, 100, 1, 256, 0, false, false, SELF},
    {"long rows off 16 bytes", 1, 130, 1, 61, 1, false, true, SELF},
    {"low scores, rows of 64", 2, 64, 2, 64, 0, false, false, SELF_LOW},
    {"low scores, rows of 192", 1, 192, 1, 64, 8, false, false, SELF_LOW},
    {"low scores, rows of 192, causal", 1, 192, 1, 64, 0, false, true, SELF_LOW},
    {"low scores, rows of 128", 1, 128, 1, 64, 0, false, false, SELF_LOW},
    {"low scores, packed", 3, 100, 1, 64, 0, true, true, SELF_LOW},
    {"low scores, packed, at most 64", 3, 64, 1, 64, 0, true, true, SELF_LOW},
    /* the first one with one thing changed each */
    {"small", 49, 4, 2, 16, 0, false, true, SELF},
    {"small, packed", 49, 4, 2, 16, 0, true, true, SELF},
    {"small, wider rows", 49, 4, 2, 16, 8, false, true, SELF},
    {"small, one head", 49, 4, 1, 16, 48, false, true, SELF},
    {"small, narrow heads", 49, 4, 2, 8, 48, false, true, SELF},
};
enum { N_CASES = sizeof cases / sizeof *cases, OUTPUTS = 4 /* out, lse, dq, dkv */, MEMORIES = 40 };

static void put(struct mode_tensor *t, int64_t i, float x)
{
    if (t->dtype == MODE_DTYPE_BF16)
        ((uint16_t *)t->data)[i] = mode_f32_to_bf16(x);
    else
        mode_f32(t)[i] = x;
}

static double get(const struct mode_tensor *t, int64_t i)
{
    return t->dtype == MODE_DTYPE_BF16 ? mode_bf16_to_f32(((const uint16_t *)t->data)[i]) : mode_f32(t)[i];
}

/* Host memory, shared lists and device memory; freed all at once. */
struct pool {
    struct mode_backend *be;
    struct mode_rng rng;
    void *here[MEMORIES], *there[MEMORIES];
    int n_here, n_there;
};

static void *take(struct pool *p, size_t bytes)
{
    MODE_ASSERT(p->n_here < MEMORIES);
    return p->here[p->n_here++] = mode_xcalloc(1, bytes + 1);
}

static int32_t *take_list(struct pool *p, size_t bytes)
{
    struct mode_error err;
    MODE_ASSERT(p->n_there < MEMORIES && !mode_backend_share(p->be, &p->there[p->n_there], bytes, &err));
    return p->there[p->n_there++];
}

static struct mode_tensor sent(struct pool *p, const struct mode_tensor *t)
{
    struct mode_tensor there = *t;
    struct mode_error err;
    MODE_ASSERT(p->n_there < MEMORIES && !mode_backend_alloc(p->be, &there.data, mode_tensor_bytes(t), &err));
    p->there[p->n_there++] = there.data;
    mode_backend_copy(p->be, there.data, t->data, mode_tensor_bytes(t));
    return there;
}

static void clear(struct pool *p)
{
    for (int i = 0; i < p->n_here; i++) free(p->here[i]);
    for (int i = 0; i < p->n_there; i++) mode_backend_free(p->be, p->there[i]);
}

static struct mode_tensor noise(struct pool *p, enum mode_dtype dtype, int64_t rows, int64_t columns)
{
    struct mode_tensor t = mode_tensor_2d(NULL, dtype, rows, columns);
    t.data = take(p, mode_tensor_bytes(&t));
    for (int64_t i = 0; i < rows * columns; i++) put(&t, i, (float)mode_rng_normal(&p->rng));
    return t;
}

static struct mode_tensor copy(struct pool *p, const struct mode_tensor *t)
{
    struct mode_tensor c = *t;
    c.data = take(p, mode_tensor_bytes(t));
    memcpy(c.data, t->data, mode_tensor_bytes(t));
    return c;
}

static struct mode_tensor few(struct pool *p, int64_t n)
{
    struct mode_tensor t = mode_tensor_1d(NULL, MODE_DTYPE_I32, n + 1);
    int32_t *o = t.data = take_list(p, mode_tensor_bytes(&t));
    for (int64_t i = 0; i < n; i++) o[i + 1] = o[i] + (int32_t)(i % 3);
    mode_backend_written(p->be, o, mode_tensor_bytes(&t));
    return t;
}

/* first: rows of the first sequence, 0: like the others */
static struct mode_tensor offsets(struct pool *p, int64_t n, int64_t longest, bool mixed, int64_t first)
{
    struct mode_tensor t = mode_tensor_1d(NULL, MODE_DTYPE_I32, n + 1);
    int32_t *o = t.data = take_list(p, mode_tensor_bytes(&t));
    for (int64_t i = 0; i < n; i++)
        o[i + 1] = o[i] + (int32_t)(i == 0 && first       ? first
                                    : mixed && i != n / 2 ? 1 + (int64_t)mode_rng_below(&p->rng, (uint64_t)longest)
                                                          : longest);
    mode_backend_written(p->be, o, mode_tensor_bytes(&t));
    return t;
}

static int64_t last(const struct mode_tensor *o)
{
    return ((const int32_t *)o->data)[o->dim[0] - 1];
}

struct problem {
    struct mode_tensor qo, ko, q, kv, dout, start[OUTPUTS];
    struct mode_attention s;
};

static struct problem pose(struct pool *p, const struct attention_case *c, enum mode_dtype dtype)
{
    int64_t d = c->heads * c->dh;
    const bool low = c->form == SELF_LOW, self = low || c->form == SELF;
    struct problem a = {.ko = offsets(p, c->sequences, c->longest, c->mixed, low && c->mixed ? 64 : 0)};
    a.qo = self ? a.ko
           : c->form == FEW_QUERIES
               ? few(p, c->sequences)
               : offsets(p, c->sequences, c->form == ONE_QUERY ? 1 : c->longest, c->form == TWO_SIDES, 0);
    a.kv = noise(p, dtype, last(&a.ko), (self ? 3 : 2) * d + c->margin);
    for (int64_t i = 0; low && i < mode_tensor_count(&a.kv); i++) {
        const int64_t column = i % a.kv.dim[1];
        const double away = sqrt(100 / sqrt((double)c->dh));
        if (column < 2 * d) put(&a.kv, i, (float)(get(&a.kv, i) + (column < d ? away : -away)));
    }
    a.q = self ? a.kv : noise(p, dtype, last(&a.qo), d + c->margin);
    a.dout = noise(p, dtype, last(&a.qo), d);
    a.s = (struct mode_attention){.width = d,
                                  .heads = c->heads,
                                  .k_at = self ? d : 0,
                                  .v_at = self ? 2 * d : d,
                                  .causal = c->causal,
                                  .q_offsets = &a.qo,
                                  .kv_offsets = &a.ko};
    a.start[0] = noise(p, dtype, last(&a.qo), d);
    a.start[1] = noise(p, MODE_DTYPE_F32, last(&a.qo), c->heads);
    a.start[2] = noise(p, dtype, a.q.dim[0], a.q.dim[1]);
    a.start[3] = self ? a.start[2] : noise(p, dtype, a.kv.dim[0], a.kv.dim[1]);
    return a;
}

static void begin(struct pool *p, const struct problem *a, struct mode_tensor out[OUTPUTS])
{
    for (int i = 0; i < OUTPUTS; i++) out[i] = copy(p, &a->start[i]);
    if (a->q.data == a->kv.data) out[3] = out[2];
}

/* longest 0: our own kernels; else the backend's choice, which may be cuDNN */
static void run_ours(struct pool *p, const struct attention_case *k, struct problem *a, struct mode_tensor out[OUTPUTS],
                     int64_t longest)
{
    struct mode_tensor q = sent(p, &a->q), kv = a->q.data == a->kv.data ? q : sent(p, &a->kv), dout = sent(p, &a->dout),
                       there[OUTPUTS];
    struct mode__cuda_attention c = {.q = q.data,
                                     .kv = kv.data,
                                     .lq = a->q.dim[1],
                                     .lk = a->kv.dim[1],
                                     .q_at = a->s.q_at,
                                     .k_at = a->s.k_at,
                                     .v_at = a->s.v_at,
                                     .heads = a->s.heads,
                                     .dh = a->s.width / a->s.heads,
                                     .rows_q = a->q.dim[0],
                                     .rows_k = a->kv.dim[0],
                                     .n_seq = a->qo.dim[0] - 1,
                                     .q_offsets = mode__cuda_shared(p->be, a->qo.data),
                                     .kv_offsets = mode__cuda_shared(p->be, a->ko.data),
                                     .longest = k->longest,
                                     .one_query = k->form == ONE_QUERY || (k->form == SELF && k->longest == 1),
                                     .causal = a->s.causal,
                                     .bf16 = a->q.dtype == MODE_DTYPE_BF16};
    begin(p, a, out);
    for (int i = 0; i < OUTPUTS; i++) there[i] = i == 3 && out[3].data == out[2].data ? there[2] : sent(p, &out[i]);
    mode__attention_by_best(p->be, there[0].data, mode_f32(&there[1]), &c, longest);
    mode__attention_back_by_best(p->be, there[2].data, there[3].data, dout.data, there[0].data, mode_f32(&there[1]), &c,
                                 longest);
    for (int i = 0; i < OUTPUTS; i++) mode_backend_copy(p->be, out[i].data, there[i].data, mode_tensor_bytes(&out[i]));
}

static void run_reference(struct pool *p, struct mode_backend *ref, struct problem *a, struct mode_tensor out[OUTPUTS])
{
    begin(p, a, out);
    mode_attention(ref, &out[0], &out[1], &a->q, &a->kv, &a->s);
    mode_attention_back(ref, &out[2], &out[3], &a->dout, &out[0], &out[1], &a->q, &a->kv, &a->s);
}

/* The same values in f32: the forward pass on them has no bf16 rounding. */
static struct mode_tensor widened(struct pool *p, const struct mode_tensor *t)
{
    struct mode_tensor w = mode_tensor_2d(NULL, MODE_DTYPE_F32, t->dim[0], t->dim[1]);
    w.data = take(p, mode_tensor_bytes(&w));
    for (int64_t i = 0; i < mode_tensor_count(t); i++) put(&w, i, (float)get(t, i));
    return w;
}

/* Tolerance of one element of out; size: what it would be if all values were positive. In bf16 4e-3, unless its two
 * roundings exceed that: half an ulp of the result, and 2^-8 of each probability before it is multiplied by a value
 * (half an ulp relative to the number, at most). */
static double allowed_of(double x, double size, bool half)
{
    int e;
    frexp(x, &e);
    return half ? fmax(4e-3, ldexp(1, e - 9) + ldexp(size, -8) + 1e-5) : 5e-6;
}

/* The largest error of an element of out, as a share of its tolerance. */
static double furthest(struct pool *p, struct mode_backend *ref, const struct problem *a, const struct mode_tensor *out)
{
    struct mode_tensor q = widened(p, &a->q), kv = a->q.data == a->kv.data ? q : widened(p, &a->kv),
                       truth = widened(p, out), sizes = widened(p, out);
    double worst = 0;
    mode_attention(ref, &truth, NULL, &q, &kv, &a->s);
    for (int64_t i = 0; i < mode_tensor_count(&kv); i++) {
        const int64_t column = i % kv.dim[1] - a->s.v_at;
        if (column >= 0 && column < a->s.width) mode_f32(&kv)[i] = fabsf(mode_f32(&kv)[i]);
    }
    mode_attention(ref, &sizes, NULL, &q, &kv, &a->s);
    for (int64_t i = 0; i < mode_tensor_count(out); i++) {
        const double x = get(&truth, i),
                     off = fabs(get(out, i) - x) / allowed_of(x, get(&sizes, i), out->dtype == MODE_DTYPE_BF16);
        if (!(off <= worst)) worst = off;
    }
    return worst;
}

static double distance(const struct mode_tensor *a, const struct mode_tensor *b)
{
    double off = 0, all = 0;
    for (int64_t i = 0; i < mode_tensor_count(b); i++) {
        double x = get(a, i), y = get(b, i);
        if (!isfinite(x)) return INFINITY;
        off += (x - y) * (x - y);
        all += y * y;
    }
    return sqrt(off / all);
}

/* ref: rounds as cuda does; exact: does not round */
static int check(const struct attention_case *c, int number, struct mode_backend *cuda, struct mode_backend *ref,
                 struct mode_backend *exact, enum impl impl)
{
    enum mode_dtype dtype = mode_backend_activations(ref);
    bool half = dtype == MODE_DTYPE_BF16;
    struct pool p = {.be = cuda, .rng = mode_rng_for(7, MODE_RNG_TEST, 1, (uint64_t)number)};
    struct problem a = pose(&p, c, dtype);
    struct mode_tensor ours[OUTPUTS], again[OUTPUTS], truth[OUTPUTS];
    a.s.q_offsets = &a.qo;
    a.s.kv_offsets = &a.ko;
    run_ours(&p, c, &a, ours, impl == OWN ? 0 : c->longest);
    run_ours(&p, c, &a, again, impl == OWN ? 0 : c->longest);
    run_reference(&p, ref, &a, truth);
    bool same = true;
    static const char *const names[] = {"bf16", "bf16, cuDNN", "bf16, as chosen", "bf16, measured"};
    const char *name = half ? names[impl] : "f32";
    double off[OUTPUTS];
    for (int i = 0; i < OUTPUTS; i++) {
        same &= memcmp(ours[i].data, again[i].data, mode_tensor_bytes(&ours[i])) == 0;
        off[i] = distance(&ours[i], &truth[i]);
    }
    /* bf16: one rounding of the probabilities (2^-9) and one of the result; f32: sums of a few hundred terms */
    double forward = half ? 4e-3 : 2e-6, back = half ? 8e-3 : 4e-6, worst = fmax(off[2], off[3]),
           single = furthest(&p, exact, &a, &ours[0]);
    bool good = (same || impl == MEASURED) && off[0] <= forward && off[1] <= 2e-6 && worst <= back && single <= 1;
    table_row("%s\t%s\t%.1e\t%.0f %%\t%.1e\t%.1e\t%s\t%s\n", c->name, name, off[0], 100 * single, off[1], worst,
              same ? "same bytes" : "BYTES DIFFER", good ? "ok" : "OFF");
    clear(&p);
    return !good;
}

/* One head in bf16; sequences of equal length. */
static struct mode__cuda_attention attention_of_rows(const struct mode_backend *be, const void *qkv, const void *list,
                                                     int64_t sequences, int64_t rows, int64_t dh)
{
    return (struct mode__cuda_attention){.q = qkv,
                                         .kv = qkv,
                                         .lq = 3 * dh,
                                         .lk = 3 * dh,
                                         .k_at = dh,
                                         .v_at = 2 * dh,
                                         .heads = 1,
                                         .dh = dh,
                                         .rows_q = rows * sequences,
                                         .rows_k = rows * sequences,
                                         .n_seq = sequences,
                                         .q_offsets = mode__cuda_shared(be, list),
                                         .kv_offsets = mode__cuda_shared(be, list),
                                         .longest = rows,
                                         .bf16 = true};
}

/* Shapes already decided by rule are still timed once measuring is on, and the result is kept; rows not aligned to 16
 * bytes never go to cuDNN; training uses the rule's choice, whatever inference has seen. Returns 1 if not so. */
static int ways_of_a_shape(void)
{
    enum { SEQUENCES = 3, ROWS = 32, DH = 64, COLUMNS = 3 * DH, LONGEST = MODE__ATTENTION_SHORT + 4 };
    struct mode_backend *be;
    struct mode_error err;
    void *qkv = NULL, *out = NULL, *lse = NULL, *list = NULL;
    char *text = NULL;
    size_t size;
    if (mode_backend_open(&be, "cuda", &err) || mode_backend_alloc(be, &qkv, SEQUENCES * ROWS * COLUMNS * 2, &err) ||
        mode_backend_alloc(be, &out, SEQUENCES * ROWS * DH * 2, &err) ||
        mode_backend_alloc(be, &lse, SEQUENCES * ROWS * sizeof(float), &err) ||
        mode_backend_share(be, &list, (SEQUENCES + 1) * sizeof(int32_t), &err)) {
        fprintf(stderr, "attention-test: %s\n", err.text);
        return 1;
    }
    struct mode__attention_ways *ways = mode__cuda_of(be)->attention;
    for (int32_t i = 0; i <= SEQUENCES; i++) ((int32_t *)list)[i] = ROWS * i;
    mode_backend_written(be, list, (SEQUENCES + 1) * sizeof(int32_t));
    const struct mode__cuda_attention c = attention_of_rows(be, qkv, list, SEQUENCES, ROWS, DH),
                                      off = attention_of_rows(be, (char *)qkv + 8, list, SEQUENCES - 1, ROWS, DH);
    for (int training = 0; training < 2; training++) /* packed: LONGEST exceeds their rows */
        mode__attention_by_best(be, out, training ? lse : NULL, &c, LONGEST);
    for (int times = 0; times < 3; times++) {
        mode__attention_ways_measure(ways, times == 1);
        mode__attention_by_best(be, out, NULL, &c, ROWS);
    }
    mode__attention_by_best(be, out, NULL, &off, ROWS);
    mode_backend_sync(be);
    FILE *f = open_memstream(&text, &size);
    mode__attention_ways_note(ways, f);
    fclose(f);
    const bool good = strstr(text, "cuDNN: ") /* not loaded */ ||
                      ((strstr(text, "cuDNN, 1 times: ") || strstr(text, " 1 times: cuDNN takes it on GPUs of this")) &&
                       strstr(text, " 1 times: packed sequences in inference") &&
                       strstr(text, " 1 times: sequences so short") && strstr(text, " ms, own kernels ") &&
                       strstr(text, "only our own kernels take: 1 times"));
    if (!good) fprintf(stderr, "attention-test: other ways than the rule and the clock say:\n%s", text);
    void *const all[] = {qkv, out, lse, list};
    for (int i = 0; i < 4; i++) mode_backend_free(be, all[i]);
    free(text);
    mode_backend_close(&be);
    return !good;
}

/* Training shapes that come after many of inference, as when a training evaluates between steps: the number of
 * inference shapes is limited, training still gets its own entries. Returns 1 if not so. */
static int many_shapes_of_inference(void)
{
    enum { MANY = 200, ROWS = 2, DH = 16, COLUMNS = 3 * DH };
    struct mode_backend *be;
    struct mode_error err;
    void *qkv = NULL, *out = NULL, *lse = NULL, *list = NULL;
    char *text = NULL;
    size_t size;
    int lines = 0;
    if (mode_backend_open(&be, "cuda", &err) || mode_backend_alloc(be, &qkv, MANY * ROWS * COLUMNS * 2, &err) ||
        mode_backend_alloc(be, &out, MANY * ROWS * DH * 2, &err) ||
        mode_backend_alloc(be, &lse, MANY * ROWS * sizeof(float), &err) ||
        mode_backend_share(be, &list, (MANY + 1) * sizeof(int32_t), &err)) {
        fprintf(stderr, "attention-test: %s\n", err.text);
        return 1;
    }
    for (int32_t i = 0; i <= MANY; i++) ((int32_t *)list)[i] = ROWS * i;
    mode_backend_written(be, list, (MANY + 1) * sizeof(int32_t));
    for (int64_t n = 1; n <= MANY + 1; n++) {
        const int64_t sequences = n <= MANY ? n : MANY;
        const struct mode__cuda_attention c = attention_of_rows(be, qkv, list, sequences, ROWS, DH);
        mode__attention_by_best(be, out, n > MANY ? lse : NULL, &c, ROWS);
    }
    mode_backend_sync(be);
    FILE *f = open_memstream(&text, &size);
    mode__attention_ways_note(mode__cuda_of(be)->attention, f);
    fclose(f);
    for (const char *at = text; (at = strstr(at, "attention [")); at++) lines++;
    const bool full = strstr(text, "128 shapes had been met before: 72 times") != NULL;
    if (lines != 129 || !full) fprintf(stderr, "attention-test: %d shapes are known:\n%s", lines, text);
    free(text);
    mode_backend_free(be, qkv);
    mode_backend_free(be, out);
    mode_backend_free(be, lse);
    mode_backend_free(be, list);
    mode_backend_close(&be);
    return lines != 129 || !full;
}

int main(int argc, char **argv)
{
    struct mode_backend *cuda, *chooses, *ref, *ref_bf16;
    struct mode_error err;
    const bool small = argc > 1 && strcmp(argv[1], "--small") == 0;
    int bad = 0, n = 0;
    setenv("MODE_CUDA_ATTENTION", "cudnn", 1);
    enum mode_status st = mode_backend_open(&cuda, "cuda", &err);
    unsetenv("MODE_CUDA_ATTENTION");
    if (!st) st = mode_backend_open(&chooses, "cuda", &err);
    if (st) {
        fprintf(stderr, "attention-test: %s\n", err.text);
        return st == MODE_E_DEVICE ? 77 : 1;
    }
    if (mode_backend_open(&ref, "ref", &err) || mode_backend_open(&ref_bf16, "ref-bf16", &err)) {
        fprintf(stderr, "attention-test: %s\n", err.text);
        return 1;
    }
    if (!table_open(argc > 1 + small ? argv[1 + small] : NULL, "attention_test.tsv")) return 1;
    double t0 = mode_clock_s();
    table_row("case\tway\tout\tits worst number\tstatistic\tgradients\ttwice\tverdict\n");
    for (int i = 0; i < N_CASES; i++, n++) bad += check(&cases[i], i, cuda, ref_bf16, ref, OWN);
    for (int i = 0; i < N_CASES; i++) { /* scores of -100 have an error of 1e-5 in f32: its tolerance is for others */
        if (cases[i].form == SELF_LOW) continue;
        bad += check(&cases[i], i, cuda, ref, ref, OWN);
        n++;
    }
    for (int i = 1; i < N_CASES && !small; i += 3, n++) bad += check(&cases[i], i, chooses, ref_bf16, ref, CHOSEN);
    for (int i = 0; i < N_CASES && !small; i++, n++) bad += check(&cases[i], i, cuda, ref_bf16, ref, CUDNN);
    mode__attention_ways_measure(mode__cuda_of(chooses)->attention, true);
    for (int i = 1; i < N_CASES && !small; i += 5, n++) bad += check(&cases[i], i, chooses, ref_bf16, ref, MEASURED);
    mode__attention_ways_note(mode__cuda_of(cuda)->attention, stdout);
    mode__attention_ways_note(mode__cuda_of(chooses)->attention, stdout);
    bad += many_shapes_of_inference() + ways_of_a_shape();
    n += 2;
    table_row("%d of %d cases are off; %.1f s\n", bad, n, mode_clock_s() - t0);
    table_close();
    mode_backend_close(&cuda);
    mode_backend_close(&chooses);
    mode_backend_close(&ref);
    mode_backend_close(&ref_bf16);
    return bad > 0;
}
