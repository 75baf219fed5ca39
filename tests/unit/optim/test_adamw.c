/* AdamW against the formula in double precision, step by step; schedules against hand-computed values. */
#include "base/rng.h"
#include "nn/backend.h"
#include "optim/adamw.h"
#include "optim/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { N = 1003, STEPS = 25 };

static void test_updates_follow_the_formula(void **state)
{
    const char *names[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int b = 0; b < 6; b++) { /* every backend without and with clipping */
        const struct mode_adamw opt = {
            .lr = 2e-2, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2, .clip_norm = b < 3 ? 0 : 600};
        static float value[2][N], grad[2][N], m[2][N], v[2][N];
        static double w[2][N], dm[2][N], dv[2][N];
        struct mode_backend *be;
        struct mode_error err;
        struct mode_param p[2];
        struct mode_adamw_step *now;
        struct mode_rng r = mode_rng_for(1, MODE_RNG_TEST, 4, 0);
        assert_int_equal(mode_backend_open(&be, names[b % 3], &err), MODE_OK);
        assert_int_equal(mode_adamw_begin(&now, be, &err), MODE_OK);
        for (int k = 0; k < 2; k++) {
            p[k] = (struct mode_param){.value = mode_tensor_1d(value[k], MODE_DTYPE_F32, N),
                                       .grad = mode_tensor_1d(grad[k], MODE_DTYPE_F32, N),
                                       .m = mode_tensor_1d(m[k], MODE_DTYPE_F32, N),
                                       .v = mode_tensor_1d(v[k], MODE_DTYPE_F32, N),
                                       .decay = k == 1};
            for (int i = 0; i < N; i++) {
                w[k][i] = value[k][i] = (float)mode_rng_normal(&r);
                dm[k][i] = dv[k][i] = m[k][i] = v[k][i] = 0;
            }
        }
        for (int step = 1; step <= STEPS; step++) {
            double sum = 0;
            for (int k = 0; k < 2; k++)
                for (int i = 0; i < N; i++) {
                    grad[k][i] = i % 7 == 0 ? 0 : (float)(mode_rng_normal(&r) * pow(10, i % 5 - 3 + step % 2));
                    sum += (double)grad[k][i] * grad[k][i];
                }
            double factor = opt.clip_norm > 0 && sqrt(sum) > opt.clip_norm ? opt.clip_norm / (sqrt(sum) + 1e-6) : 1;
            assert_true(b < 3 || (factor < 1) == (step % 2 == 1)); /* every other step is clipped */
            for (int k = 0; k < 2; k++)
                for (int i = 0; i < N; i++) {
                    double g = grad[k][i] * factor;
                    dm[k][i] = 0.9 * dm[k][i] + 0.1 * g;
                    dv[k][i] = 0.98 * dv[k][i] + 0.02 * g * g;
                    if (k == 1) w[k][i] -= 2e-2 * 0.2 * w[k][i];
                    double m_hat = dm[k][i] / (1 - pow(0.9, step)), v_hat = dv[k][i] / (1 - pow(0.98, step));
                    w[k][i] -= 2e-2 * m_hat / (sqrt(v_hat) + 1e-6);
                }
            mode_adamw_tell(now, &opt, step);
            mode_adamw_update(be, p, 2, now);
            mode_backend_sync(be);
            double norm = mode_adamw_norm(now);
            assert_true(b < 3 ? norm == 0 : fabs(norm - sqrt(sum)) < 1e-5 * sqrt(sum));
        }
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < N; i++)
                if (!(fabs(value[k][i] - w[k][i]) < 2e-5)) /* 25 steps of up to 2e-2, each rounded to f32 */
                    fail_msg("%s: weight %d is %.9g, want %.9g", names[b % 3], i, value[k][i], w[k][i]);
        mode_backend_free(be, now);
        mode_backend_close(&be);
    }
}

/* PyTorch's factor, X / (norm + 1e-6), with gradients small enough for the 1e-6 to matter. */
static void test_short_gradients_are_clipped_as_in_pytorch(void **state)
{
    static const char *const names[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int b = 0; b < 3; b++) {
        const struct mode_adamw opt = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .clip_norm = 2e-6};
        float value[2] = {1, 1}, grad[2] = {3e-6f, -4e-6f}, m[2] = {0}, v[2] = {0};
        struct mode_param p = {.value = mode_tensor_1d(value, MODE_DTYPE_F32, 2),
                               .grad = mode_tensor_1d(grad, MODE_DTYPE_F32, 2),
                               .m = mode_tensor_1d(m, MODE_DTYPE_F32, 2),
                               .v = mode_tensor_1d(v, MODE_DTYPE_F32, 2)};
        struct mode_backend *be;
        struct mode_error err;
        struct mode_adamw_step *now;
        assert_int_equal(mode_backend_open(&be, names[b], &err), MODE_OK);
        assert_int_equal(mode_adamw_begin(&now, be, &err), MODE_OK);
        mode_adamw_tell(now, &opt, 1);
        mode_adamw_update(be, &p, 1, now);
        mode_backend_sync(be);
        for (int i = 0; i < 2; i++) { /* 2e-6 / (5e-6 + 1e-6) */
            const double want = 0.1 * (i ? -4e-6 : 3e-6) / 3;
            assert_true(fabs((double)m[i] - want) < 1e-5 * fabs(want));
        }
        mode_backend_free(be, now);
        mode_backend_close(&be);
    }
}

static void test_a_row_without_gradient_still_decays_and_forgets(void **state)
{
    float w = 1, g = 1, m = 0, v = 0;
    struct mode_backend *be;
    struct mode_error err;
    struct mode_param p = {.value = mode_tensor_1d(&w, MODE_DTYPE_F32, 1),
                           .grad = mode_tensor_1d(&g, MODE_DTYPE_F32, 1),
                           .m = mode_tensor_1d(&m, MODE_DTYPE_F32, 1),
                           .v = mode_tensor_1d(&v, MODE_DTYPE_F32, 1),
                           .decay = true};
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now;
    (void)state;
    assert_int_equal(mode_backend_open(&be, "cpu", &err), MODE_OK);
    assert_int_equal(mode_adamw_begin(&now, be, &err), MODE_OK);
    mode_adamw_tell(now, &opt, 1);
    mode_adamw_update(be, &p, 1, now);
    assert_true(fabsf(m - 0.1f) < 1e-7f && fabsf(v - 0.02f) < 1e-7f);
    g = 0;
    float w1 = w;
    mode_adamw_tell(now, &opt, 2);
    mode_adamw_update(be, &p, 1, now);
    assert_true(fabsf(m - 0.09f) < 1e-7f && fabsf(v - 0.0196f) < 1e-7f);
    assert_true(w < w1);
#if defined(__SSE__)
    float tiny = 3e-45f, half = 0.5f;
    m = v = tiny; /* would stay subnormal without flushing to zero */
    mode_adamw_tell(now, &opt, 3);
    mode_adamw_update(be, &p, 1, now);
    assert_true(m == 0 && v == 0);
    assert_true(tiny * half != 0); /* the caller's floating-point mode is restored */
#endif
    mode_backend_free(be, now);
    mode_backend_close(&be);
}

static double cosine(double lr, double step, uint64_t warmup, uint64_t total)
{
    const struct mode_schedule s = {.lr = lr, .warmup = warmup, .total = total};
    return mode_schedule_lr(&s, step);
}

static void test_schedule_warms_up_and_falls_to_zero(void **state)
{
    (void)state;
    assert_true(fabs(cosine(8, 0, 4, 12) - 2) < 1e-12);
    assert_true(fabs(cosine(8, 3, 4, 12) - 8) < 1e-12);
    assert_true(fabs(cosine(8, 4, 4, 12) - 8) < 1e-12);
    assert_true(fabs(cosine(8, 8, 4, 12) - 4) < 1e-12);
    assert_true(fabs(cosine(8, 6, 4, 12) - 4 * (1 + sqrt(0.5))) < 1e-12);
    assert_true(cosine(8, 11, 4, 12) > 0);
    assert_true(cosine(8, 12, 4, 12) == 0);
    assert_true(fabs(cosine(8, 0, 0, 2) - 8) < 1e-12);
    assert_true(cosine(8, 9, 0, 9) == 0);
}

/* 32 epochs of 400 million pairs, batch 32768; the experts fork after 27 */
static void test_the_papers_schedule_forks_at_a_seventeenth(void **state)
{
    (void)state;
    const uint64_t total = 390624, fork = 329589;
    assert_true(fabs(cosine(5e-4, (double)fork, 2000, total) - 2.98e-5) < 0.005e-5);
    assert_true(fabs(cosine(4e-4, (double)fork, 2000, total) - 2.39e-5) < 0.005e-5); /* ViT-L/14 */
}

/* Between steps, as experts with fewer steps use it, and beyond the end. tests/golden/test_schedules.c has whole steps. */
static void test_a_cooldown_is_the_end_of_a_constant_rate(void **state)
{
    (void)state;
    struct mode_schedule s = {
        .kind = MODE_SCHEDULE_CONSTANT_COOLDOWN, .lr = 8, .warmup = 4, .total = 20, .cooldown = 8, .power = 1};
    assert_true(mode_schedule_lr(&s, 1) == 4);
    assert_true(mode_schedule_lr(&s, 11.75) == 8);
    assert_true(mode_schedule_lr(&s, 12) == 8);
    assert_true(fabs(mode_schedule_lr(&s, 12.5) - 7.5) < 1e-12);
    assert_true(mode_schedule_lr(&s, 20) == 0 && mode_schedule_lr(&s, 21.5) == 0);
    s.power = 2;
    s.end = 4;
    assert_true(fabs(mode_schedule_lr(&s, 14.5) - (4 + 4 * 0.6875 * 0.6875)) < 1e-12);
    assert_true(mode_schedule_lr(&s, 20) == 4 && mode_schedule_lr(&s, 1e9) == 4);
    s.kind = MODE_SCHEDULE_CONSTANT; /* whatever the other fields are */
    assert_true(mode_schedule_lr(&s, 1) == 4 && mode_schedule_lr(&s, 19.5) == 8 && mode_schedule_lr(&s, 1e9) == 8);
}

static void test_schedules_have_names(void **state)
{
    (void)state;
    enum mode_schedule_kind kind = MODE_SCHEDULE_CONSTANT;
    assert_false(mode_schedule_named(&kind, "const-cooldown"));
    assert_int_equal(kind, MODE_SCHEDULE_CONSTANT);
    for (enum mode_schedule_kind k = MODE_SCHEDULE_COSINE; k <= MODE_SCHEDULE_CONSTANT_COOLDOWN; k++) {
        assert_true(mode_schedule_named(&kind, mode_schedule_name(k)));
        assert_int_equal(kind, k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_updates_follow_the_formula),
        cmocka_unit_test(test_short_gradients_are_clipped_as_in_pytorch),
        cmocka_unit_test(test_a_row_without_gradient_still_decays_and_forgets),
        cmocka_unit_test(test_schedule_warms_up_and_falls_to_zero),
        cmocka_unit_test(test_the_papers_schedule_forks_at_a_seventeenth),
        cmocka_unit_test(test_a_cooldown_is_the_end_of_a_constant_rate),
        cmocka_unit_test(test_schedules_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
