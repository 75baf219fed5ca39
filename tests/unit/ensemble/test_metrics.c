/* Metrics: hand-checked values, ties, and a slow second implementation that sorts. */
#include "base/rng.h"
#include "ensemble/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-12)

static void test_hand_checked_classification(void **state)
{
    (void)state;
    const float scores[] = {0.9f, 0.1f, 0.0f, /* 0 right */ 0.2f, 0.3f, 0.1f, /* 1 right */
                            0.5f, 0.4f, 0.3f, /* 1 wrong */ 0.1f, 0.2f, 0.8f, /* 0 wrong */
                            0.7f, 0.1f, 0.1f /* 0 right */};
    const int32_t target[] = {0, 1, 1, 0, 0}; /* class 2 does not occur */
    struct mode_classification_metrics m;
    assert_int_equal(mode_classification_measure(&m, scores, target, 5, 3, NULL), MODE_OK);
    assert_near(m.acc1, 3.0 / 5);
    assert_near(m.mean_per_class_recall, (2.0 / 3 + 1.0 / 2) / 2); /* class 2 is left out, not NaN */
    assert_true(isnan(m.acc5) && isnan(m.mean_top1_top5) && isnan(m.roc_auc));
}

static void test_equal_scores_go_to_the_lower_index(void **state)
{
    (void)state;
    const float flat[12] = {0};
    const int32_t first[] = {0, 0}, fifth[] = {4, 5};
    struct mode_classification_metrics m;
    assert_int_equal(mode_classification_measure(&m, flat, first, 2, 6, NULL), MODE_OK);
    assert_near(m.acc1, 1.0);
    assert_int_equal(mode_classification_measure(&m, flat, fifth, 2, 6, NULL), MODE_OK);
    assert_near(m.acc1, 0.0);
    assert_near(m.acc5, 0.5);
    assert_near(m.mean_top1_top5, 0.25);
}

static void test_hand_checked_roc_auc(void **state)
{
    (void)state;
    /* margins: + 0.5, - 0.1, + 0.1, - -0.2  ->  of 4 pairs: 2 + (1 win, 1 tie half) = 3.5 */
    const float scores[] = {0.0f, 0.5f, 0.0f, 0.1f, 0.0f, 0.1f, 0.2f, 0.0f};
    const int32_t target[] = {1, 0, 1, 0}, all_one[] = {1, 1, 1, 1};
    struct mode_classification_metrics m;
    assert_int_equal(mode_classification_measure(&m, scores, target, 4, 2, NULL), MODE_OK);
    assert_near(m.roc_auc, 3.5 / 4);
    assert_int_equal(mode_classification_measure(&m, scores, all_one, 4, 2, NULL), MODE_OK);
    assert_true(isnan(m.roc_auc));
}

static void test_hand_checked_average_precision(void **state)
{
    (void)state;
    /* class 0 ranks images 1+ 0- 3+ 2-: (1/1 + 2/3) / 2; class 1 ranks 0+ and then the rest; class 2 has none */
    const float scores[] = {0.5f, 0.9f, 0.1f, 0.9f, 0.2f, 0.7f, 0.1f, 0.1f, 0.9f, 0.4f, 0.3f, 0.3f};
    const int32_t target[] = {0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0};
    double map, precision[4];
    assert_int_equal(mode_mean_average_precision(&map, scores, target, 4, 3, NULL), MODE_OK);
    assert_near(map, ((1 + 2.0 / 3) / 2 + 1 + 0) / 3);
    mode_class_precisions(precision, scores, target, 4, 3, 0);
    assert_true(precision[0] <= 0 && precision[2] <= 0);
    assert_near(precision[1], 1);
    assert_near(precision[3], 2.0 / 3);
    const float flat[4] = {0}; /* equal scores: the lower index first */
    const int32_t last[] = {0, 0, 0, 1}, all[] = {1, 1, 1, 1}, two[] = {0, 0, 0, 2};
    struct mode_error err;
    assert_int_equal(mode_mean_average_precision(&map, flat, last, 4, 1, NULL), MODE_OK);
    assert_near(map, 0.25);
    assert_int_equal(mode_mean_average_precision(&map, flat, all, 4, 1, NULL), MODE_OK);
    assert_near(map, 1);
    assert_int_equal(mode_mean_average_precision(&map, flat, two, 4, 1, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "row 3, column 0 is 2"));
    const float bad[4] = {0, NAN, 0, 0};
    assert_int_equal(mode_mean_average_precision(&map, bad, all, 4, 1, &err), MODE_E_VALUE);
}

static uint32_t drawn; /* the generator of tests/golden/average_precision.py */

static uint32_t draw(void)
{
    drawn = (drawn * 1103515245u + 12345u) & 0x7fffffffu;
    return drawn >> 8;
}

static void test_average_precision_is_that_of_the_definition(void **state)
{
    (void)state;
    enum { ROWS = 200, CLASSES = 6 };
    static float scores[ROWS * CLASSES];
    static int32_t target[ROWS * CLASSES];
    double map;
    drawn = 1;
    for (int i = 0; i < ROWS * CLASSES; i++) {
        const int k = i % CLASSES;
        scores[i] = (float)((int32_t)draw() - (1 << 22));
        target[i] = draw() % (uint32_t)(k + 2) == 0 && k < CLASSES - 1;
    }
    assert_int_equal(mode_mean_average_precision(&map, scores, target, ROWS, CLASSES, NULL), MODE_OK);
    assert_near(map, 0.275676741916315); /* tests/golden/average_precision.py */
}

static void test_hand_checked_retrieval(void **state)
{
    (void)state;
    /* 2 images, 3 texts: texts 0 and 2 belong to image 0 */
    const float scores[] = {0.1f, 0.9f, 0.8f, 0.3f, 0.2f, 0.1f};
    const int32_t image_of_text[] = {0, 1, 0};
    struct mode_retrieval_metrics m;
    assert_int_equal(mode_retrieval_measure(&m, scores, image_of_text, 2, 3, NULL), MODE_OK);
    assert_near(m.image_recall[MODE_RECALL_1], 1.0 / 3); /* only text 2 finds its image first */
    assert_near(m.image_recall[MODE_RECALL_5], 1.0);
    assert_near(m.text_recall[MODE_RECALL_1], 0.0); /* image 0 prefers text 1, image 1 prefers text 0 */
    assert_near(m.text_recall[MODE_RECALL_5], 1.0);
}

static void test_bad_input_is_refused(void **state)
{
    (void)state;
    float scores[] = {0.1f, NAN, 0.2f, 0.3f};
    const int32_t target[] = {0, 1}, outside[] = {0, 2};
    struct mode_classification_metrics m;
    struct mode_retrieval_metrics r;
    struct mode_error err = {0};
    assert_int_equal(mode_classification_measure(&m, scores, target, 2, 2, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "row 0, column 1"));
    assert_int_equal(mode_retrieval_measure(&r, scores, target, 2, 2, &err), MODE_E_VALUE);
    scores[1] = 0;
    assert_int_equal(mode_classification_measure(&m, scores, outside, 2, 2, &err), MODE_E_VALUE);
    assert_int_equal(mode_classification_measure(&m, scores, target, 0, 2, &err), MODE_E_VALUE);
}

/* ---- the slow implementation: sorts candidates by (score descending, index ascending) and scans the list ---- */

static void slow_sorted(const float *v, int n, int stride, int *order)
{
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = 1; i < n; i++) /* insertion sort, stable */
        for (int j = i; j > 0 && v[order[j] * stride] > v[order[j - 1] * stride]; j--) {
            int t = order[j];
            order[j] = order[j - 1];
            order[j - 1] = t;
        }
}

static void test_agrees_with_sorting(void **state)
{
    (void)state;
    enum { MAX = 24 };
    for (uint64_t trial = 0; trial < 300; trial++) {
        struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 0, trial);
        int n = 1 + (int)mode_rng_below(&r, MAX), c = 1 + (int)mode_rng_below(&r, MAX), order[MAX];
        float scores[MAX * MAX];
        int32_t target[MAX], image_of_text[MAX];
        for (int i = 0; i < n * c; i++) scores[i] = (float)mode_rng_below(&r, 9) / 8.0f; /* many ties */
        for (int i = 0; i < n; i++) target[i] = (int32_t)mode_rng_below(&r, (uint64_t)c);
        for (int i = 0; i < c; i++) image_of_text[i] = (int32_t)mode_rng_below(&r, (uint64_t)n);

        double top1 = 0, top5 = 0, sum = 0, hit[MAX] = {0}, all[MAX] = {0};
        for (int i = 0; i < n; i++) {
            slow_sorted(scores + i * c, c, 1, order);
            all[target[i]]++;
            hit[target[i]] += order[0] == target[i];
            top1 += order[0] == target[i];
            for (int k = 0; k < 5 && k < c; k++) top5 += order[k] == target[i];
        }
        int present = 0;
        for (int k = 0; k < c; k++)
            if (all[k] > 0) {
                sum += hit[k] / all[k];
                present++;
            }
        struct mode_classification_metrics m;
        assert_int_equal(mode_classification_measure(&m, scores, target, n, c, NULL), MODE_OK);
        assert_near(m.acc1, top1 / n);
        if (c >= 5) assert_near(m.acc5, top5 / n);
        assert_near(m.mean_per_class_recall, sum / present);
        if (c == 2 && !isnan(m.roc_auc)) {
            double win = 0, pairs = 0;
            for (int i = 0; i < n; i++)
                for (int j = 0; j < n; j++)
                    if (target[i] == 1 && target[j] == 0) {
                        float a = scores[2 * i + 1] - scores[2 * i], b = scores[2 * j + 1] - scores[2 * j];
                        win += a > b ? 1 : a == b ? 0.5 : 0;
                        pairs++;
                    }
            assert_near(m.roc_auc, win / pairs);
        }

        struct mode_retrieval_metrics q;
        assert_int_equal(mode_retrieval_measure(&q, scores, image_of_text, n, c, NULL), MODE_OK);
        for (int k = 0; k < MODE_RECALL_COUNT; k++) {
            double image = 0, text = 0;
            for (int t = 0; t < c; t++) {
                int found = 0;
                slow_sorted(scores + t, n, c, order);
                for (int i = 0; i < n && i < mode_recall_k[k]; i++) found |= order[i] == image_of_text[t];
                image += found;
            }
            for (int i = 0; i < n; i++) {
                int found = 0;
                slow_sorted(scores + i * c, c, 1, order);
                for (int t = 0; t < c && t < mode_recall_k[k]; t++) found |= image_of_text[order[t]] == i;
                text += found;
            }
            assert_near(q.image_recall[k], image / c);
            assert_near(q.text_recall[k], text / n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hand_checked_classification),
        cmocka_unit_test(test_equal_scores_go_to_the_lower_index),
        cmocka_unit_test(test_hand_checked_roc_auc),
        cmocka_unit_test(test_hand_checked_average_precision),
        cmocka_unit_test(test_average_precision_is_that_of_the_definition),
        cmocka_unit_test(test_hand_checked_retrieval),
        cmocka_unit_test(test_bad_input_is_refused),
        cmocka_unit_test(test_agrees_with_sorting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
