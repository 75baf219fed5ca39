/* Mixing scores, and paired comparison of two systems. */
#include "base/rng.h"
#include "ensemble/metrics.h"
#include "ensemble/mix.h"
#include "ensemble/outcome.h"
#include "pipeline/ensemble.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 57, C = 11, E = 3 };

static void fill(float *x, int n, uint64_t stream)
{
    struct mode_rng r = mode_rng_for(2, MODE_RNG_TEST, stream, 0);
    for (int i = 0; i < n; i++) x[i] = (float)(0.3 * mode_rng_normal(&r));
}

static void test_one_hot_weights_give_that_expert_bit_for_bit(void **state)
{
    (void)state;
    float x[E][N * C], out[N * C];
    const float *p[E] = {x[0], x[1], x[2]};
    for (int e = 0; e < E; e++) fill(x[e], N * C, (uint64_t)e);
    for (int e = 0; e < E; e++) {
        double w[E] = {0}, q[C * E];
        w[e] = 1;
        mode_mix(out, p, w, E, N, C);
        assert_memory_equal(out, x[e], sizeof out);
        for (int i = 0; i < C; i++) memcpy(q + i * E, w, sizeof w);
        mode_mix_columns(out, p, q, E, N, C);
        assert_memory_equal(out, x[e], sizeof out);
    }
    double w[E] = {0.5, 0.25, 0.25};
    mode_mix(out, p, w, E, N, C);
    for (int i = 0; i < N * C; i++)
        assert_true(fabs(out[i] - (0.5 * x[0][i] + 0.25 * x[1][i] + 0.25 * x[2][i])) < 1e-7);
}

static void test_uniform_weights_give_the_plain_average(void **state)
{
    (void)state;
    float x[E][N * C], out[N * C];
    const float *p[E] = {x[0], x[1], x[2]};
    const struct mode_router_params params = MODE_ROUTER_PARAMS_DEFAULT;
    const struct mode_near near = {.k = 1, .n = E};
    double w[E];
    for (int e = 0; e < E; e++) fill(x[e], N * C, (uint64_t)e);
    mode_router_weights(w, &near, MODE_ROUTER_UNIFORM, &params);
    mode_mix(out, p, w, E, N, C);
    for (int i = 0; i < N * C; i++)
        assert_true(fabs((double)out[i] - ((double)x[0][i] + (double)x[1][i] + (double)x[2][i]) / E) < 1e-7);
}

static void test_columns_have_weights_of_their_own(void **state)
{
    (void)state;
    float a[] = {1, 2, 3, 4}, b[] = {10, 20, 30, 40}, out[4];
    const float *p[] = {a, b};
    double w[] = {1, 0, 0.5, 0.5}; /* column 0: all a; column 1: half and half */
    mode_mix_columns(out, p, w, 2, 2, 2);
    assert_true(out[0] == 1 && out[1] == 11 && out[2] == 3 && out[3] == 22);
}

static void test_outcomes_follow_the_definitions(void **state)
{
    (void)state;
    /* 4 images, 3 classes; classes 0 0 0 1 (class 2 does not occur); row 2 ties between 0 and 1: the lower
     * wins */
    float s[] = {.9f, .1f, .2f, .1f, .9f, .2f, .5f, .5f, .2f, .1f, .9f, .2f};
    int32_t target[] = {0, 0, 0, 1};
    struct mode_outcome o;
    double error;
    mode_outcome_make(&o, MODE_MEASURE_ACC1, s, target, 4, 3);
    assert_true(fabs(mode_outcome_mean(&o, &error) - 0.75) < 1e-12);
    assert_true(fabs(error - sqrt(0.75 * 0.25 / 3)) < 1e-12);
    mode_outcome_clear(&o);
    mode_outcome_make(&o, MODE_MEASURE_MEAN_PER_CLASS, s, target, 4, 3);
    assert_true(fabs(mode_outcome_mean(&o, NULL) - (2.0 / 3 + 1) / 2) < 1e-12);
    mode_outcome_clear(&o);
    assert_true(fabs(mode_measure_chance(MODE_MEASURE_ACC1, target, 4, 3) - 0.75) < 1e-12);
    assert_true(fabs(mode_measure_chance(MODE_MEASURE_MEAN_PER_CLASS, target, 4, 3) - 1.0 / 3) < 1e-12);

    /* 2 images, 3 texts belonging to images 0, 1, 1 */
    float r[] = {.9f, .8f, .1f, .2f, .3f, .6f};
    int32_t image[] = {0, 1, 1};
    mode_outcome_make(&o, MODE_MEASURE_IMAGE_RECALL_1, r, image, 2, 3); /* texts find images 0, 0, 1 */
    assert_true(o.n == 3 && o.value[0] > 0 && o.value[1] <= 0 && o.value[2] > 0);
    mode_outcome_clear(&o);
    mode_outcome_make(&o, MODE_MEASURE_TEXT_RECALL_1, r, image, 2, 3); /* images find texts 0, 2 */
    assert_true(o.n == 2 && o.value[0] > 0 && o.value[1] > 0);
    mode_outcome_clear(&o);
}

static void test_a_task_is_judged_by_its_customary_metric(void **state)
{
    (void)state;
    static const char *const per_class[] = {"wds_fgvc_aircraft",
                                            "wds_vtab-pets",
                                            "wds_vtab-caltech101",
                                            "wds_vtab-flowers",
                                            "wds_fgvc_aircraft_test",
                                            "wds_vtab-pets_test",
                                            "fgvc_aircraft",
                                            "vtab/pets",
                                            "wds/vtab/caltech101",
                                            "vtab_flowers",
                                            "vtab-flowers",
                                            "pets",
                                            "caltech101",
                                            "flowers",
                                            "FGVCAircraft",
                                            "OxfordPets",
                                            "Caltech-101",
                                            "Flowers102",
                                            "oxford_flowers102"};
    static const char *const others[] = {"wds_imagenet1k",
                                         "wds_cars",
                                         "wds_vtab-cifar100",
                                         "petshop",
                                         "test",
                                         "wds",
                                         "",
                                         "caltech256",
                                         "wds_vtab-eurosat_test",
                                         "flowers/wds_mnist",
                                         "a-name-that-is-longer-than-any-of-those-we-know-and-ends-in-vtab-pets"};
    static const char *const top5[] = {"Kinetics700", "wds_kinetics-700_test", "kinetics700_frames", "K700"},
                             *const area[] = {"HatefulMemes", "hateful_memes", "wds_hateful-memes_test"};
    enum mode_measure m[MODE_MEASURES_MOST];
    for (size_t i = 0; i < sizeof top5 / sizeof *top5; i++) {
        if (mode_measures_of(m, MODE_TASK_CLASSIFICATION, top5[i], 700) != 1 || m[0] != MODE_MEASURE_TOP1_TOP5)
            fail_msg("%s", top5[i]);
        mode_measures_of(m, MODE_TASK_CLASSIFICATION, top5[i], 4); /* not defined */
        assert_int_equal(m[0], MODE_MEASURE_ACC1);
    }
    for (size_t i = 0; i < sizeof area / sizeof *area; i++) {
        if (mode_measures_of(m, MODE_TASK_CLASSIFICATION, area[i], 2) != 1 || m[0] != MODE_MEASURE_ROC_AUC)
            fail_msg("%s", area[i]);
        mode_measures_of(m, MODE_TASK_CLASSIFICATION, area[i], 3);
        assert_int_equal(m[0], MODE_MEASURE_ACC1);
    }
    assert_string_equal(mode_measure_name(MODE_MEASURE_TOP1_TOP5), "mean_top1_top5");
    assert_string_equal(mode_measure_name(MODE_MEASURE_ROC_AUC), "roc_auc");
    for (size_t i = 0; i < sizeof per_class / sizeof *per_class; i++)
        if (mode_measures_of(m, MODE_TASK_CLASSIFICATION, per_class[i], 100) != 1 ||
            m[0] != MODE_MEASURE_MEAN_PER_CLASS)
            fail_msg("%s", per_class[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (mode_measures_of(m, MODE_TASK_CLASSIFICATION, others[i], 100) != 1 || m[0] != MODE_MEASURE_ACC1)
            fail_msg("%s", others[i]);
    assert_int_equal(mode_measures_of(m, MODE_TASK_MULTILABEL, "wds_voc2007_multilabel", 20), 1);
    assert_string_equal(mode_measure_name(m[0]), "mean_average_precision");
    assert_int_equal(mode_measures_of(m, MODE_TASK_RETRIEVAL, "wds_flickr8k", 5000), 2);
    assert_string_equal(mode_measure_name(m[0]), "text_retrieval_recall@1");
    assert_string_equal(mode_measure_name(m[1]), "image_retrieval_recall@1");
}

static void test_precisions_are_outcomes_too(void **state)
{
    (void)state;
    /* 4 images, 3 classes; the same as in test_metrics.c: precisions 1, 2/3 of class 0, 1 of class 1, class 2 has none
     */
    const float s[] = {0.5f, 0.9f, 0.1f, 0.9f, 0.2f, 0.7f, 0.1f, 0.1f, 0.9f, 0.4f, 0.3f, 0.3f},
                t[] = {0.9f, 0.9f, 0.1f, 0.5f, 0.2f, 0.7f, 0.1f, 0.1f, 0.9f, 0.4f, 0.3f, 0.3f};
    const int32_t target[] = {0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0};
    struct mode_outcome a, b;
    double error;
    mode_outcome_make(&a, MODE_MEASURE_MEAN_AVERAGE_PRECISION, s, target, 4, 3);
    mode_outcome_make(&b, MODE_MEASURE_MEAN_AVERAGE_PRECISION, t, target, 4, 3); /* class 0: 0- 1+ 3+ 2-: 1/2, 2/3 */
    assert_int_equal(a.n, 3);
    assert_true(fabs(mode_outcome_mean(&a, &error) - (5.0 / 6 + 1) / 3) < 1e-12);
    assert_true(error > 0);
    assert_true(fabs(mode_outcome_difference(&a, &b, &error) - (0.5 + 0) / 2 / 3) < 1e-12);
    mode_outcome_clear(&a);
    mode_outcome_clear(&b);
    /* chance: for 3 images, 2 of them positive, (1 + 1)/2, (1 + 2/3)/2 and (1/2 + 2/3)/2 are equally likely */
    const int32_t two[] = {1, 0, 1};
    assert_true(fabs(mode_measure_chance(MODE_MEASURE_MEAN_AVERAGE_PRECISION, two, 3, 1) -
                     (1 + 5.0 / 6 + 7.0 / 12) / 3) < 1e-12);
    assert_true(fabs(mode_measure_chance(MODE_MEASURE_MEAN_AVERAGE_PRECISION, two, 1, 3) - 2.0 / 3) < 1e-12);
}

static void test_top1_and_top5_are_halves(void **state)
{
    (void)state;
    /* rows: the first, the second, the last of six; classes 0, 0, 5 */
    const float s[] = {.9f, .1f, .2f, .3f, .4f, .5f, .8f, .9f, .1f, .2f, .3f, .4f, .9f, .8f, .7f, .6f, .5f, .4f};
    const int32_t target[] = {0, 0, 5};
    struct mode_outcome o;
    double error;
    mode_outcome_make(&o, MODE_MEASURE_TOP1_TOP5, s, target, 3, 6);
    assert_true(o.n == 3 && o.value[0] == 1 && o.value[1] == 0.5 && o.value[2] == 0);
    assert_true(fabs(mode_outcome_mean(&o, &error) - 0.5) < 1e-12 && fabs(error - sqrt(0.25 / 3)) < 1e-12);
    mode_outcome_clear(&o);
    struct mode_classification_metrics m;
    float x[N * C];
    int32_t t[N];
    fill(x, N * C, 9);
    for (int i = 0; i < N; i++) t[i] = i * i % C;
    assert_int_equal(mode_classification_measure(&m, x, t, N, C, NULL), MODE_OK);
    mode_outcome_make(&o, MODE_MEASURE_TOP1_TOP5, x, t, N, C);
    assert_true(fabs(mode_outcome_mean(&o, NULL) - m.mean_top1_top5) < 1e-12);
    mode_outcome_clear(&o);
    /* chance of top 1 and top 5 among the six classes that occur */
    const int32_t seen[] = {0, 0, 0, 1, 2, 3, 4, 5};
    assert_true(fabs(mode_measure_chance(MODE_MEASURE_TOP1_TOP5, seen, 8, 6) - (3 + 7) / 16.0) < 1e-12);
}

/* DeLong's variance from its definition: covariances of the two systems' placements, pair by pair. */
static void delong(double *area, double *variance, const float *s, const float *t, const int32_t *target, int n)
{
    double v[2][64] = {{0}}, w[2][64] = {{0}}, sum = 0;
    int count[2] = {0};
    for (int i = 0; i < n; i++) count[target[i]]++;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            if (target[i] != 1 || target[j] != 0) continue;
            for (int k = 0; k < 2; k++) {
                const float *x = k ? t : s;
                if (!x) continue;
                double a = (double)x[2 * i + 1] - (double)x[2 * i], b = (double)x[2 * j + 1] - (double)x[2 * j],
                       win = a > b   ? 1
                             : a < b ? 0
                                     : 0.5;
                v[k][i] += win / count[0];
                w[k][j] += win / count[1];
                sum += (k ? -win : win) / count[0] / count[1];
            }
        }
    *area = sum;
    *variance = 0;
    for (int c = 0; c < 2; c++) {
        double spread = 0;
        for (int i = 0; i < n; i++) {
            double d = (c ? v[0][i] - v[1][i] : w[0][i] - w[1][i]) - sum;
            if (target[i] == c) spread += d * d;
        }
        *variance += spread / (count[c] - 1) / count[c];
    }
}

static void test_areas_have_delongs_errors(void **state)
{
    (void)state;
    float s[2 * N], t[2 * N];
    int32_t target[N];
    double area, var, error;
    fill(s, 2 * N, 20);
    fill(t, 2 * N, 21);
    for (int i = 0; i < N; i++) {
        target[i] = i % 3 == 0;
        s[2 * i] = (float)(round((double)s[2 * i] * 8) / 8); /* ties */
        s[2 * i + 1] = (float)(round((double)s[2 * i + 1] * 8) / 8) + 0.25f * (float)target[i];
        t[2 * i + 1] += 0.5f * s[2 * i + 1];
    }
    struct mode_classification_metrics m;
    struct mode_outcome a, b;
    mode_outcome_make(&a, MODE_MEASURE_ROC_AUC, s, target, N, 2);
    mode_outcome_make(&b, MODE_MEASURE_ROC_AUC, t, target, N, 2);
    for (int i = 0; i < N; i++) assert_true(a.value[i] >= 0 && a.value[i] <= 1);
    delong(&area, &var, s, NULL, target, N);
    assert_true(fabs(mode_outcome_mean(&a, &error) - area) < 1e-12 && fabs(error - sqrt(var)) < 1e-12);
    assert_int_equal(mode_classification_measure(&m, s, target, N, 2, NULL), MODE_OK);
    assert_true(fabs(m.roc_auc - area) < 1e-12);
    delong(&area, &var, s, t, target, N);
    assert_true(fabs(mode_outcome_difference(&a, &b, &error) - area) < 1e-12 && fabs(error - sqrt(var)) < 1e-12);
    assert_true(fabs(mode_measure_chance(MODE_MEASURE_ROC_AUC, target, N, 2) - 0.5) < 1e-15);
    mode_outcome_clear(&a);
    mode_outcome_clear(&b);
    /* only one class: no pairs to rank, so 0.5 */
    for (int i = 0; i < N; i++) target[i] = 1;
    mode_outcome_make(&a, MODE_MEASURE_ROC_AUC, s, target, N, 2);
    assert_true(fabs(mode_outcome_mean(&a, &error) - 0.5) < 1e-12 && error <= 0);
    mode_outcome_clear(&a);
}

static struct mode_outcome made(int n, int hits_from, int hits_to)
{
    struct mode_outcome o = {.n = n, .value = calloc((size_t)n, sizeof(double)), .n_strata = 1};
    for (int i = hits_from; i < hits_to; i++) o.value[i] = 1;
    return o;
}

static void test_verdict_needs_two_standard_errors(void **state)
{
    (void)state;
    struct mode_outcome good = made(1000, 0, 600), weak = made(1000, 0, 500), shifted = made(1000, 390, 1000);
    const struct mode_outcome *g[] = {&good, &good}, *w[] = {&weak, &weak}, *s[] = {&shifted, &shifted};
    struct mode_comparison c = mode_compare("it", g, w, 2);
    assert_true(fabs(c.difference - 10) < 1e-9 && c.wins == 2 && c.losses == 0);
    double error; /* of a mean of two rows that are independent, in points */
    mode_outcome_difference(&good, &weak, &error);
    assert_true(fabs(c.error - 100 * error / sqrt(2)) < 1e-9);
    assert_int_equal(mode_comparison_verdict(&c), 1);
    char *text = mode_comparison_sentence(&c);
    assert_non_null(strstr(text, "beats it"));
    assert_non_null(strstr(text, "of 2 rows)"));
    free(text);
    c = mode_compare("it", w, g, 2);
    assert_int_equal(mode_comparison_verdict(&c), -1);
    text = mode_comparison_sentence(&c);
    assert_non_null(strstr(text, "is worse than it"));
    free(text);
    /* one point more, but on other samples: may be chance */
    c = mode_compare("it", s, g, 2);
    assert_true(fabs(c.difference - 1) < 1e-9 && c.error > 0.5);
    assert_int_equal(mode_comparison_verdict(&c), 0);
    text = mode_comparison_sentence(&c);
    assert_non_null(strstr(text, "not distinguishable"));
    free(text);
    /* equal: a difference of 0 with an error of 0 is not significant */
    c = mode_compare("it", g, g, 2);
    assert_int_equal(mode_comparison_verdict(&c), 0);
    assert_int_equal(c.ties, 2);
    /* correct on a superset of the samples: significant */
    struct mode_outcome more = made(1000, 0, 610);
    const struct mode_outcome *m[] = {&more, &more};
    c = mode_compare("it", m, g, 2);
    assert_int_equal(mode_comparison_verdict(&c), 1);
    mode_outcome_clear(&good);
    mode_outcome_clear(&weak);
    mode_outcome_clear(&shifted);
    mode_outcome_clear(&more);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_hot_weights_give_that_expert_bit_for_bit),
        cmocka_unit_test(test_uniform_weights_give_the_plain_average),
        cmocka_unit_test(test_columns_have_weights_of_their_own),
        cmocka_unit_test(test_outcomes_follow_the_definitions),
        cmocka_unit_test(test_a_task_is_judged_by_its_customary_metric),
        cmocka_unit_test(test_precisions_are_outcomes_too),
        cmocka_unit_test(test_top1_and_top5_are_halves),
        cmocka_unit_test(test_areas_have_delongs_errors),
        cmocka_unit_test(test_verdict_needs_two_standard_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
