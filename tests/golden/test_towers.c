/* Small models of every kind against open_clip in double precision: features, loss, every gradient; and the
 * distributions of initial weights, against open_clip's (make_tower_goldens.py). */
#include "counted.h"

#include "nn/backend.h"

#include <stdio.h>

enum { MODELS = 17, DRAWN = 3, MOST = 128 };

static struct mode_safetensors golden;

static int setup(void **state)
{
    struct mode_error err;
    (void)state;
    if (!mode_safetensors_open(&golden, MODE_SOURCE_DIR "/tests/golden/towers.safetensors", &err)) return 0;
    fprintf(stderr, "%s\n", err.text);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    mode_safetensors_close(&golden);
    return 0;
}

static struct mode_clip *make(struct mode_backend *be, const char *config, uint64_t seed)
{
    struct mode_clip *clip;
    struct mode_error err;
    if (mode_clip_create(&clip, be, config, NULL, seed, &err)) fail_msg("%s", err.text);
    return clip;
}

/* The file's rows are sorted by name: the trained parameters, and the place of each. */
static size_t by_name(const struct mode_param **out, const struct mode_clip *clip)
{
    size_t n, kept = 0;
    const struct mode_param *p = mode_clip_params((struct mode_clip *)(uintptr_t)clip, &n);
    assert_true(n <= MOST);
    for (size_t i = 0; i < n; i++) {
        size_t at = kept;
        if (p[i].frozen) continue;
        for (; at > 0 && strcmp(out[at - 1]->name, p[i].name) > 0; at--) out[at] = out[at - 1];
        out[at] = &p[i];
        kept++;
    }
    return kept;
}

/* want: the norm, and the inner product with random numbers. */
static void check_gradient(const double want[2], const struct mode_param *p, const char *what)
{
    char *name = mode_xasprintf("sum.%s", p->name);
    struct mode_rng r = counted_numbers(name);
    const float *g = mode_f32(&p->grad);
    double norm = 0, sum = 0, limit = counted_limit(p) * want[0];
    for (int64_t i = 0; i < mode_tensor_count(&p->grad); i++) {
        norm += (double)g[i] * g[i];
        sum += (double)g[i] * counted_next(&r);
    }
    if (!(fabs(sqrt(norm) - want[0]) < limit) || !(fabs(sum - want[1]) < limit))
        fail_msg("%s: gradient of %s: norm %.9g for %.9g, sum %.9g for %.9g (limit %.3g)", what, p->name, sqrt(norm),
                 want[0], sum, want[1], limit);
    free(name);
}

/* Fixed position embeddings are not trained. */
static void check_fixed(struct mode_clip *clip, const char *what)
{
    size_t n;
    const struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++)
        for (int64_t j = 0; p[i].frozen && j < mode_tensor_count(&p[i].grad); j++)
            if (mode_f32(&p[i].grad)[j] != 0) fail_msg("%s: %s has a gradient", what, p[i].name);
}

static void test_every_kind_of_tower_is_open_clips(void **state)
{
    static const char *const backends[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int k = 0; k < MODELS; k++) {
        char *odd = mode_xasprintf("odd.%d", k), *kind = mode_xasprintf("kind.%d", k), *key = mode_xasprintf("%d.", k);
        const char *odd_cfg = mode_safetensors_meta(&golden, odd), *cfg = mode_safetensors_meta(&golden, kind);
        const struct mode_tensor *want = counted_need(&golden, key, "grads");
        for (int b = 0; b < 6; b++) {
            const bool whole = b / 3; /* padding and the full last block are computed */
            struct mode_backend *be;
            struct mode_error err;
            const struct mode_param *p[MOST];
            if (mode_backend_open(&be, backends[b % 3], &err)) fail_msg("%s", err.text);
            struct mode_clip *clip = make(be, odd_cfg ? odd_cfg : cfg, 1);
            char *what = mode_xasprintf("model %d, %s%s", k, backends[b % 3], whole ? ", dense" : "");
            mode_clip_set_savings(clip, whole, whole);
            counted_step(clip, &golden, key, what, odd_cfg != NULL);
            size_t n = by_name(p, clip);
            assert_int_equal(want->dim[0], n);
            for (size_t i = 0; i < n; i++) check_gradient((const double *)want->data + 2 * i, p[i], what);
            check_fixed(clip, what);
            free(what);
            mode_clip_close(&clip);
            mode_backend_close(&be);
        }
        free(odd);
        free(kind);
        free(key);
    }
    char *next = mode_xasprintf("%d.grads", MODELS);
    assert_null(mode_safetensors_find(&golden, next));
    free(next);
}

/* ---- new models --------------------------------------------------------------------------------------------- */

struct moments {
    double n, mean, deviation, kurtosis;
};

/* Statistics of parameter `at`, by name, over so many models. */
static struct moments moments_of(struct mode_clip *const *clip, int draws, size_t at)
{
    const struct mode_param *p[MOST];
    struct moments m = {0};
    double sum[2] = {0}, least = INFINITY, most = -INFINITY;
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < draws; k++) {
            by_name(p, clip[k]);
            const float *x = mode_f32(&p[at]->value);
            const int64_t n = mode_tensor_count(&p[at]->value);
            for (int64_t i = 0; i < n; i++) {
                double d = (double)x[i] - m.mean;
                if (pass == 0) sum[0] += x[i];
                if (pass == 0) least = fmin(least, x[i]);
                if (pass == 0) most = fmax(most, x[i]);
                if (pass == 1) m.deviation += d * d;
                if (pass == 1) sum[1] += d * d * d * d;
            }
            if (pass == 0) m.n += (double)n;
            if (pass == 0 && k == draws - 1) m.mean = least < most ? sum[0] / m.n : least;
        }
    const double variance = m.deviation / m.n;
    m.deviation = sqrt(variance);
    m.kurtosis = least < most ? sum[1] / m.n / (variance * variance) : 0;
    return m;
}

/* Both are samples of n numbers: five standard errors. */
static void check_moments(const double want[3], const struct moments *m, const char *what, const char *name)
{
    const double root = sqrt(2 / m->n), far = 5 * root;
    const bool same = want[1] > 0 ? fabs(m->mean - want[0]) < far * want[1] &&
                                        fabs(m->deviation / want[1] - 1) < far * sqrt((want[2] - 1) / 4) &&
                                        fabs(m->kurtosis - want[2]) < far * sqrt(24)
                                  : m->deviation == 0 && fabs(m->mean - want[0]) < 1e-7;
    if (!same)
        fail_msg("%s: %s is drawn with mean %.6g, deviation %.6g, kurtosis %.3g; open_clip: %.6g, %.6g, %.3g", what,
                 name, m->mean, m->deviation, m->kurtosis, want[0], want[1], want[2]);
}

static double cosine(const float *a, const float *b, int64_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

/* No two tensors or seeds share their numbers, nor do consecutive rows. */
static void check_alike(const struct mode_clip *clip, const struct mode_clip *other, const double *want)
{
    const struct mode_param *p[MOST], *q[MOST];
    const size_t n = by_name(p, clip);
    by_name(q, other);
    for (size_t i = 0; i < n; i++) {
        const struct mode_tensor *x = &p[i]->value;
        const int64_t count = mode_tensor_count(x), cols = x->n_dims > 1 ? count / x->dim[0] : 1;
        if (want[3 * i + 1] == 0) continue;
        assert_true(fabs(cosine(mode_f32(x), mode_f32(&q[i]->value), count)) < 5 / sqrt((double)count));
        if (x->n_dims > 1)
            assert_true(fabs(cosine(mode_f32(x), mode_f32(x) + cols, count - cols)) < 5 / sqrt((double)(count - cols)));
        for (size_t j = 0; j < i; j++) {
            const int64_t least = count < mode_tensor_count(&p[j]->value) ? count : mode_tensor_count(&p[j]->value);
            if (want[3 * j + 1] == 0) continue;
            const double c = cosine(mode_f32(x), mode_f32(&p[j]->value), least);
            if (!(fabs(c) < 5 / sqrt((double)least))) fail_msg("%s is drawn as %s is: %.3g", p[i]->name, p[j]->name, c);
        }
    }
}

static void test_new_models_are_drawn_as_open_clips(void **state)
{
    const int draws = atoi(mode_safetensors_meta(&golden, "draws"));
    struct mode_clip **clip = mode_xcalloc((size_t)draws, sizeof(struct mode_clip *));
    struct mode_backend *be;
    struct mode_error err;
    (void)state;
    assert_true(draws >= 100);
    if (mode_backend_open(&be, "ref", &err)) fail_msg("%s", err.text);
    for (int k = 0; k < DRAWN; k++) {
        char *key = mode_xasprintf("drawn.%d", k);
        const struct mode_tensor *want = counted_need(&golden, "", key);
        const struct mode_param *p[MOST];
        for (int i = 0; i < draws; i++) clip[i] = make(be, mode_safetensors_meta(&golden, key), (uint64_t)i + 1);
        assert_int_equal(want->dim[0], by_name(p, clip[0]));
        for (size_t i = 0; i < (size_t)want->dim[0]; i++) {
            const struct moments m = moments_of(clip, draws, i);
            check_moments((const double *)want->data + 3 * i, &m, key, p[i]->name);
        }
        check_alike(clip[0], clip[1], want->data);
        for (int i = 0; i < draws; i++) mode_clip_close(&clip[i]);
        free(key);
    }
    mode_backend_close(&be);
    free(clip);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_tower_is_open_clips),
        cmocka_unit_test(test_new_models_are_drawn_as_open_clips),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
