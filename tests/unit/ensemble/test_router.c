/* Routers: the table of the specification, and invariants of every router. */
#include "base/rng.h"
#include "ensemble/router.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct mode_router_params defaults = MODE_ROUTER_PARAMS_DEFAULT;

/* counts[c] words of expert c, all at distance d. */
static struct mode_near near_of(const int *counts, int n, float d)
{
    int k = 0;
    for (int c = 0; c < n; c++) k += counts[c];
    struct mode_near near = {.k = k, .n = n};
    near.fine_id = calloc((size_t)k, sizeof(int32_t));
    near.expert = calloc((size_t)k, sizeof(int32_t));
    near.coarse_id = calloc((size_t)k, sizeof(int32_t));
    near.distance = calloc((size_t)k, sizeof(float));
    near.coarse_distance = calloc((size_t)k, sizeof(float));
    for (int c = 0, i = 0; c < n; c++) {
        for (int j = 0; j < counts[c]; j++, i++) {
            near.expert[i] = near.coarse_id[i] = c;
            near.distance[i] = near.coarse_distance[i] = d;
        }
    }
    return near;
}

static void test_reference_gives_the_published_formula(void **state)
{
    (void)state;
    static const struct {
        int counts[4];
        float d;
        double w[4]; /* to 3 decimals; 0: not given */
    } rows[] = {
        {{2, 0, 0, 0}, 0.3f, {.335, .222, .222, .222}},
        {{2, 0, 0, 0}, 0.5f, {.280, .240, .240, .240}},
        {{2, 0, 0, 0}, 0.7f, {.261, .246, 0, 0}},
        {{2, 0, 0, 0}, 0.9f, {.254, .249, 0, 0}},
        {{6, 2, 1, 1}, 0.3f, {.275, .246, .239, .239}},
        {{6, 2, 1, 1}, 0.5f, {.259, .249, .246, .246}},
        {{6, 2, 1, 1}, 0.7f, {.253, .250, .249, .249}},
        {{6, 2, 1, 1}, 0.9f, {.251, .250, 0, 0}},
        {{30, 4, 2, 1}, 0.3f, {.419, .203, .192, .187}},
        {{30, 4, 2, 1}, 0.5f, {.307, .235, .230, .228}},
        {{30, 4, 2, 1}, 0.7f, {.270, .245, .243, .242}},
        {{30, 4, 2, 1}, 0.9f, {.257, .248, 0, 0}},
        {{60, 20, 15, 6}, 0.3f, {.545, .179, .155, .121}},
        {{60, 20, 15, 6}, 0.5f, {.349, .231, .220, .200}},
        {{60, 20, 15, 6}, 0.7f, {.284, .244, .240, .232}},
        {{60, 20, 15, 6}, 0.9f, {.262, .248, 0, 0}},
        {{140, 30, 20, 10}, 0.3f, {.902, .042, .032, .024}},
        {{140, 30, 20, 10}, 0.5f, {.532, .172, .155, .140}},
        {{140, 30, 20, 10}, 0.7f, {.344, .227, .219, .211}},
        {{140, 30, 20, 10}, 0.9f, {.283, .243, 0, 0}},
        {{200, 100, 60, 37}, 0.3f, {.362, .243, .207, .189}},
        {{200, 100, 60, 37}, 0.5f, {.260, .250, .246, .244}},
        {{200, 100, 60, 37}, 0.7f, {.251, .250, .250, .249}},
        {{200, 100, 60, 37}, 0.9f, {.250, .250, .250, .250}},
        {{500, 250, 150, 100}, 0.3f, {.362, .242, .206, .190}},
        {{500, 250, 150, 100}, 0.5f, {.256, .250, .248, .247}},
        {{500, 250, 150, 100}, 0.7f, {.250, .250, .250, .250}},
        {{500, 250, 150, 100}, 0.9f, {.250, .250, .250, .250}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct mode_near near = near_of(rows[r].counts, 4, rows[r].d);
        double w[4];
        mode_router_weights(w, &near, MODE_ROUTER_REFERENCE, &defaults);
        for (int c = 0; c < 4; c++)
            if (rows[r].w[c] > 0 && fabs(w[c] - rows[r].w[c]) > 0.00051)
                fail_msg("row %zu expert %d: %.5f, expected %.3f", r, c, w[c], rows[r].w[c]);
        mode_near_close(&near);
    }
}

static void test_paper_gives_the_papers_formula(void **state)
{
    (void)state;
    /* 4 words (small task), by hand: A = exp(0.5 - 2) exp(-0.36 / 0.2) each; 3 of them with expert 0 */
    struct mode_near near = near_of((const int[]){3, 1}, 2, 0.6f);
    double w[2], a = exp(-1.5) * exp(-0.36 / 0.2), e0 = exp(3 * a), e1 = exp(a);
    mode_router_weights(w, &near, MODE_ROUTER_PAPER, &defaults);
    assert_true(fabs(w[0] - e0 / (e0 + e1)) < 1e-6);
    mode_near_close(&near);
    near = near_of((const int[]){250, 50}, 2, 0.6f); /* large task: lambda / ln 300 */
    a = exp(-0.36 / (0.2 / log(300)));
    mode_router_weights(w, &near, MODE_ROUTER_PAPER, &defaults);
    assert_true(fabs(w[0] - 1 / (1 + exp(-200 * a))) < 1e-5);
    double q[300 * 2];
    mode_router_query_weights(q, &near, MODE_ROUTER_PAPER, &defaults); /* a single query: plain lambda, no factor */
    a = exp(-0.36 / 0.2);
    assert_true(fabs(q[0] - exp(a) / (exp(a) + 1)) < 1e-6);
    assert_true(fabs(q[2 * 299 + 1] - exp(a) / (exp(a) + 1)) < 1e-6);
    mode_near_close(&near);
    near = near_of((const int[]){101, 99}, 2, 0.6f); /* 200 words are not a large task */
    mode_router_weights(w, &near, MODE_ROUTER_PAPER, &defaults);
    assert_true(fabs(w[0] - 1 / (1 + exp(-2 * a))) < 1e-5);
    for (int i = 0; i < 200; i++) near.coarse_id[i] = i < 99 ? 0 : 1, near.coarse_distance[i] = 0.4f;
    mode_router_weights(w, &near, MODE_ROUTER_COARSE_CENTRE, &defaults); /* the coarse centres', not the fine ones' */
    assert_true(fabs(w[1] - 1 / (1 + exp(-2 * exp(-0.16 / 0.2)))) < 1e-5);
    mode_near_close(&near);
}

static void shuffle(struct mode_near *near, uint64_t seed)
{
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_TEST, 0, 0);
    for (int i = near->k - 1; i > 0; i--) {
        int j = (int)mode_rng_below(&r, (uint64_t)i + 1);
#define SWAP(type, v)                                                                                                  \
    do {                                                                                                               \
        type t = near->v[i];                                                                                           \
        near->v[i] = near->v[j];                                                                                       \
        near->v[j] = t;                                                                                                \
    } while (0)
        SWAP(int32_t, expert);
        SWAP(int32_t, coarse_id);
        SWAP(float, distance);
        SWAP(float, coarse_distance);
    }
}

static void test_weights_sum_to_one_whatever_the_distances(void **state)
{
    (void)state;
    static const int tasks[][5] = {
        {1, 0, 0, 0, 0}, {2, 1, 0, 0, 0}, {9, 9, 9, 9, 9}, {0, 0, 400, 1, 0}, {900, 50, 300, 1, 7}};
    static const float far[] = {0, 1e-6f, 0.5f, 1.4f, 2, 100};
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        for (size_t f = 0; f < sizeof far / sizeof *far; f++) {
            struct mode_near near = near_of(tasks[t], 5, far[f]);
            struct mode_rng r = mode_rng_for(t, MODE_RNG_TEST, f, 1);
            for (int i = 0; i < near.k; i++) near.distance[i] *= (float)(0.5 + mode_rng_uniform(&r));
            double *q = malloc(sizeof *q * (size_t)near.k * 5);
            for (int router = 0; router < MODE_ROUTER_COUNT; router++) {
                double w[5], again[5], sum = 0;
                mode_router_weights(w, &near, (enum mode_router)router, &defaults);
                for (int c = 0; c < 5; c++) {
                    assert_true(w[c] >= 0 && w[c] <= 1);
                    sum += w[c];
                }
                assert_true(fabs(sum - 1) < 1e-12);
                double h = mode_weights_entropy(w, 5);
                assert_true(h >= 0 && h <= log(5) + 1e-12);
                shuffle(&near, 17);
                mode_router_weights(again, &near, (enum mode_router)router, &defaults);
                assert_memory_equal(w, again, sizeof w);
                mode_router_query_weights(q, &near, (enum mode_router)router, &defaults);
                for (int i = 0; i < near.k; i++) {
                    sum = 0;
                    for (int c = 0; c < 5; c++) sum += q[i * 5 + c];
                    assert_true(fabs(sum - 1) < 1e-12);
                }
            }
            free(q);
            mode_near_close(&near);
        }
    }
}

static void test_experts_which_tie_share_alike(void **state)
{
    (void)state;
    struct mode_near near = near_of((const int[]){7, 7, 7, 7}, 4, 0.37f);
    for (int router = 0; router < MODE_ROUTER_COUNT; router++) {
        double w[4];
        mode_router_weights(w, &near, (enum mode_router)router, &defaults);
        for (int c = 0; c < 4; c++) assert_true(w[c] == 0.25);
    }
    mode_near_close(&near);
}

static void test_share_does_not_depend_on_a_common_distance(void **state)
{
    (void)state;
    double a[4], b[4];
    struct mode_near near = near_of((const int[]){30, 4, 2, 1}, 4, 0.3f),
                     far = near_of((const int[]){30, 4, 2, 1}, 4, 0.9f);
    mode_router_weights(a, &near, MODE_ROUTER_SHARE, &defaults);
    mode_router_weights(b, &far, MODE_ROUTER_SHARE, &defaults);
    for (int c = 0; c < 4; c++) assert_true(fabs(a[c] - b[c]) < 1e-6);
    assert_true(a[0] > 0.8);
    double sum = 0; /* softmax of the shares / tau */
    for (int c = 0; c < 4; c++) sum += exp((const int[]){30, 4, 2, 1}[c] / 37.0 / 0.25);
    for (int c = 0; c < 4; c++) assert_true(fabs(a[c] - exp((const int[]){30, 4, 2, 1}[c] / 37.0 / 0.25) / sum) < 1e-6);
    mode_near_close(&near);
    mode_near_close(&far);
    near = near_of((const int[]){2, 1, 0, 0}, 4, 0.5f); /* small task: experts without a word get no weight */
    mode_router_weights(a, &near, MODE_ROUTER_SHARE, &defaults);
    assert_true(a[2] == 0 && a[3] == 0 && a[0] > a[1]);
    double q[3 * 4]; /* per query no expert is left out */
    mode_router_query_weights(q, &near, MODE_ROUTER_SHARE, &defaults);
    assert_true(fabs(q[0] - exp(4) / (exp(4) + 3)) < 1e-6 && fabs(q[3] - 1 / (exp(4) + 3)) < 1e-6);
    mode_near_close(&near);
}

static void test_words_find_their_centres_and_experts(void **state)
{
    (void)state;
    float fine[] = {1, 0, 0, 1, -1, 0, 0, -1}, coarse[] = {.5f, .5f, -.5f, -.5f},
          words[] = {0.8f, 0.6f, -0.6f, 0.8f, 0, -1};
    int32_t map[] = {1, 0, 1, 0};
    struct mode_centres c = {
        .m = 4, .n = 2, .d = 2, .fine = fine, .coarse = coarse, .fine_to_coarse = map, .metric = MODE_METRIC_EUCLIDEAN};
    struct mode_near near;
    struct mode_error err;
    assert_int_equal(mode_near_open(&near, &c, words, 3, &err), MODE_OK);
    assert_int_equal(near.fine_id[0], 0);
    assert_int_equal(near.expert[0], 1);
    assert_int_equal(near.fine_id[1], 1);
    assert_int_equal(near.expert[1], 0);
    assert_int_equal(near.fine_id[2], 3);
    assert_true(fabs(near.distance[0] - sqrt(0.4)) < 1e-6);
    assert_int_equal(near.coarse_id[0], 0);
    assert_true(fabs(near.coarse_distance[0] - sqrt(0.1)) < 1e-6);
    assert_int_equal(near.coarse_id[2], 1);
    mode_near_close(&near);
    words[2] = NAN;
    assert_int_equal(mode_near_open(&near, &c, words, 3, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "row 1"));
    mode_near_close(&near);
    assert_int_equal(mode_near_open(&near, &c, words, 0, &err), MODE_E_VALUE);
    mode_near_close(&near);
}

static void test_only_the_greatest_weights_stay(void **state)
{
    (void)state;
    double w[] = {0.1, 0.3, 0.3, 0.2, 0.1};
    mode_weights_keep_top(w, 5, 9);
    assert_true(fabs(w[0] - 0.1) < 1e-15 && fabs(w[4] - 0.1) < 1e-15);
    mode_weights_keep_top(w, 5, 3);
    assert_true(w[0] == 0 && w[4] == 0 && fabs(w[1] - 0.375) < 1e-15 && fabs(w[3] - 0.25) < 1e-15);
    mode_weights_keep_top(w, 5, 1);
    assert_true(w[1] == 1 && w[2] == 0 && w[3] == 0);
    assert_int_equal(mode_router_top(MODE_ROUTER_UNIFORM, 2), 0); /* uniform: never restricted to the top experts */
    assert_int_equal(mode_router_top(MODE_ROUTER_PAPER, 2), 2);
}

static void test_constants_are_parameters(void **state)
{
    (void)state;
    struct mode_router_params p;
    struct mode_error err;
    assert_int_equal(mode_router_params_parse(&p, NULL, &err), MODE_OK);
    assert_memory_equal(&p, &defaults, sizeof p);
    assert_int_equal(mode_router_params_parse(&p, " ,", &err), MODE_OK);
    assert_memory_equal(&p, &defaults, sizeof p);
    assert_int_equal(mode_router_params_parse(&p, "lambda=0.1, tau=5e-1 few=0", &err), MODE_OK);
    assert_true(p.lambda == 0.1 && p.tau == 0.5 && p.few == 0 && p.many == defaults.many && p.slope == defaults.slope);
    static const char *const wrong[][2] = {{"lamda=1", "\"lamda=1\" is not a constant"},
                                           {"lambda", "lambda slope base divisor scale tau"},
                                           {"=1", "NAME=NUMBER"},
                                           {"lambda=", "lambda"},
                                           {"lambda=x", "lambda"},
                                           {"tau=0.1 lambda=0", "lambda is 0, it must be between"},
                                           {"tau=nan", "tau"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (mode_router_params_parse(&p, wrong[i][0], &err) != MODE_E_VALUE) fail_msg("%s was taken", wrong[i][0]);
        if (!strstr(err.text, wrong[i][1])) fail_msg("%s: %s", wrong[i][0], err.text);
    }
    /* the parameters have an effect: a larger lambda makes the paper's weights less uniform */
    const int counts[] = {3, 1};
    struct mode_near near = near_of(counts, 2, 0.7f);
    double w[2], wide[2];
    assert_int_equal(mode_router_params_parse(&p, "lambda=2 few=0", &err), MODE_OK);
    mode_router_weights(w, &near, MODE_ROUTER_PAPER, &defaults);
    mode_router_weights(wide, &near, MODE_ROUTER_PAPER, &p);
    const double d2 = (double)0.7f * (double)0.7f;
    assert_true(wide[0] > w[0] && fabs(log(wide[0] / wide[1]) - 2 * exp(-d2 / 2)) < 1e-12);
    mode_near_close(&near);
}

static void test_names_are_read_back(void **state)
{
    (void)state;
    enum mode_router r;
    for (int i = 0; i < MODE_ROUTER_COUNT; i++) {
        assert_int_equal(mode_router_parse(&r, mode_router_name((enum mode_router)i), NULL), MODE_OK);
        assert_int_equal(r, i);
    }
    struct mode_error err;
    assert_int_equal(mode_router_parse(&r, "best", &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "coarse-centre"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gives_the_published_formula),
        cmocka_unit_test(test_paper_gives_the_papers_formula),
        cmocka_unit_test(test_weights_sum_to_one_whatever_the_distances),
        cmocka_unit_test(test_experts_which_tie_share_alike),
        cmocka_unit_test(test_share_does_not_depend_on_a_common_distance),
        cmocka_unit_test(test_words_find_their_centres_and_experts),
        cmocka_unit_test(test_only_the_greatest_weights_stay),
        cmocka_unit_test(test_constants_are_parameters),
        cmocka_unit_test(test_names_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
