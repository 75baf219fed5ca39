/* Balanced k-means, the two steps, nearest centres and the centres file. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "cluster/nearest.h"
#include "cluster/two_step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 1003, D = 16 };

/* Unit rows around `topics` directions. */
static float *rows(int n, int topics, uint64_t stream)
{
    float *x = malloc(sizeof *x * (size_t)n * D);
    for (int i = 0; i < n; i++) {
        struct mode_rng t = mode_rng_for(9, MODE_RNG_TEST, stream, (uint64_t)(i % topics)),
                        r = mode_rng_for(9, MODE_RNG_TEST, stream + 1, (uint64_t)i);
        double s = 0;
        for (int j = 0; j < D; j++) {
            x[i * D + j] = (float)(mode_rng_normal(&t) + 0.3 * mode_rng_normal(&r));
            s += (double)x[i * D + j] * x[i * D + j];
        }
        for (int j = 0; j < D; j++) x[i * D + j] /= (float)sqrt(s);
    }
    return x;
}

static double objectives[100];
static int n_objectives;
static void record(void *ctx, int it, int all, double objective)
{
    (void)ctx;
    (void)all;
    objectives[it - 1] = objective;
    n_objectives = it;
}

static void test_objective_never_worsens_and_sizes_are_even(void **state)
{
    (void)state;
    float *x = rows(N, 7, 1), centres[20 * D];
    int32_t id[N];
    for (int metric = 1; metric <= 2; metric++) {
        struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
        struct mode_kmeans_stats s;
        p.k = 20;
        p.metric = (enum mode_metric)metric;
        p.tolerance = 0;
        p.iterations = 30;
        p.progress = record;
        assert_int_equal(mode_kmeans_train(centres, id, &s, x, N, D, &p, NULL), MODE_OK);
        assert_true(n_objectives > 2);
        for (int i = 1; i < n_objectives; i++) assert_true(objectives[i] <= objectives[i - 1] * (1 + 1e-3));
        assert_true(objectives[n_objectives - 1] < 0.9 * objectives[0]);
        assert_int_equal(s.smallest, N / 20);
        assert_int_equal(s.largest, N / 20 + 1);
        for (int k = 0; k < 20; k++) { /* centres are the means of their rows */
            double mean[D] = {0}, len = 0;
            int n = 0;
            for (int i = 0; i < N; i++)
                if (id[i] == k) {
                    n++;
                    for (int j = 0; j < D; j++) mean[j] += x[i * D + j];
                }
            for (int j = 0; j < D; j++) len += mean[j] * mean[j];
            double scale = metric == MODE_METRIC_COSINE ? 1 / sqrt(len) : 1.0 / n;
            for (int j = 0; j < D; j++) assert_true(fabs(mean[j] * scale - centres[k * D + j]) < 1e-6);
        }
    }
    free(x);
}

/* The seed chooses the rows of the initial centres: the same seed gives the same bytes, another one others. */
static void test_the_seed_decides(void **state)
{
    (void)state;
    float *x = rows(N, 7, 1), centres[3][20 * D];
    int32_t id[N];
    for (int t = 0; t < 3; t++) {
        struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
        p.k = 20;
        p.iterations = 2;
        p.seed = t < 2 ? 5 : 6;
        assert_int_equal(mode_kmeans_train(centres[t], id, NULL, x, N, D, &p, NULL), MODE_OK);
    }
    assert_memory_equal(centres[0], centres[1], sizeof centres[0]);
    assert_memory_not_equal(centres[0], centres[2], sizeof centres[0]);
    free(x);
}

/* Three captions, ten times each: three centres start at one copy of each, so the first round is perfect. */
static void test_equal_rows_start_one_centre(void **state)
{
    (void)state;
    float x[30 * D] = {0}, centres[3 * D];
    int32_t id[30];
    for (int i = 0; i < 30; i++) x[i * D + i % 3] = 1;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
        struct mode_kmeans_stats s;
        p.k = 3;
        p.seed = seed;
        assert_int_equal(mode_kmeans_train(centres, id, &s, x, 30, D, &p, NULL), MODE_OK);
        assert_true(s.first_objective < 1e-9);
    }
}

/* The last round is the first that gains less than the tolerance. */
static void test_it_stops_when_nothing_is_gained(void **state)
{
    (void)state;
    float *x = rows(N, 7, 1), centres[20 * D];
    int32_t id[N];
    struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
    struct mode_kmeans_stats s;
    p.k = 20;
    p.iterations = 100;
    p.tolerance = 1e-3;
    p.progress = record;
    assert_int_equal(mode_kmeans_train(centres, id, &s, x, N, D, &p, NULL), MODE_OK);
    assert_int_equal(s.iterations, n_objectives);
    assert_in_range(s.iterations, 3, 99);
    for (int i = 1; i < s.iterations; i++) {
        bool gained = objectives[i - 1] - objectives[i] > p.tolerance * objectives[i];
        assert_int_equal(gained, i < s.iterations - 1);
    }
    free(x);
}

static void test_separated_topics_are_found(void **state)
{
    (void)state;
    float *x = rows(400, 4, 40), centres[4 * D];
    int32_t id[400];
    struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
    p.k = 4;
    p.seed = 3;
    assert_int_equal(mode_kmeans_train(centres, id, NULL, x, 400, D, &p, NULL), MODE_OK);
    for (int i = 4; i < 400; i++) assert_int_equal(id[i], id[i % 4]);
    free(x);
}

static void test_train_refuses_what_it_cannot_do(void **state)
{
    (void)state;
    float *x = rows(50, 3, 7);
    struct mode_centres c;
    struct mode_error err;
    struct mode_two_step_params p = MODE_TWO_STEP_PARAMS_DEFAULT;
    p.fine = 51;
    assert_int_equal(mode_two_step_train(&c, x, 50, D, &p, &err), MODE_E_VALUE);
    mode_centres_clear(&c);
    p.fine = 3;
    p.coarse = 4;
    assert_int_equal(mode_two_step_train(&c, x, 50, D, &p, &err), MODE_E_VALUE);
    mode_centres_clear(&c);
    p.coarse = 2;
    x[17 * D + 3] = NAN;
    assert_int_equal(mode_two_step_train(&c, x, 50, D, &p, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "row 17"));
    mode_centres_clear(&c);
    for (int j = 0; j < D; j++) x[17 * D + j] = 0.5f;
    x[31 * D] += 5;
    assert_int_equal(mode_two_step_train(&c, x, 50, D, &p, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "row 17")); /* the first of two */
    mode_centres_clear(&c);
    free(x);
}

/* The regression of the reference implementation: 10 fine centres in 3 groups must be 4, 3, 3; none empty. */
static void test_coarse_groups_are_even_and_complete(void **state)
{
    (void)state;
    float *x = rows(N, 5, 60);
    static const int shapes[][2] = {{10, 3}, {64, 4}, {7, 7}, {33, 1}, {100, 8}};
    for (int t = 0; t < 5; t++) {
        struct mode_centres c;
        struct mode_two_step_params p = MODE_TWO_STEP_PARAMS_DEFAULT;
        p.fine = shapes[t][0];
        p.coarse = shapes[t][1];
        p.metric = t % 2 ? MODE_METRIC_COSINE : MODE_METRIC_EUCLIDEAN;
        assert_int_equal(mode_two_step_train(&c, x, N, D, &p, NULL), MODE_OK);
        int size[8] = {0};
        int64_t sum = 0;
        for (int i = 0; i < c.m; i++) {
            assert_in_range(c.fine_to_coarse[i], 0, c.n - 1);
            size[c.fine_to_coarse[i]]++;
            assert_in_range(c.fine_size[i], N / c.m, N / c.m + 1);
            sum += c.fine_size[i];
        }
        assert_int_equal(sum, N);
        for (int i = 0; i < c.n; i++) assert_in_range(size[i], c.m / c.n, c.m / c.n + (c.m % c.n != 0));
        assert_non_null(strstr(c.certificate, "\"objective\""));
        mode_centres_clear(&c);
    }
    free(x);
}

static double apart(const float *a, const float *b)
{
    double s = 0;
    for (int j = 0; j < D; j++) s += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
    return s;
}

/* live [c->m]: is the centre the nearest of any row? One that is not belongs to the group of the nearest one that is.
 * Returns how many are not, and belong to another group than 0. */
static int check_the_dead(const struct mode_centres *c, const bool *live, int t)
{
    int found = 0;
    for (int i = 0; i < c->m; i++) {
        int near = -1;
        if (live[i]) continue;
        for (int k = 0; k < c->m; k++)
            if (live[k] &&
                (near < 0 || apart(c->fine + i * D, c->fine + k * D) < apart(c->fine + i * D, c->fine + near * D)))
                near = k;
        double of_group = INFINITY;
        for (int k = 0; k < c->m; k++)
            if (live[k] && c->fine_to_coarse[k] == c->fine_to_coarse[i])
                of_group = fmin(of_group, apart(c->fine + i * D, c->fine + k * D));
        if (!(of_group < apart(c->fine + i * D, c->fine + near * D) + 1e-5)) /* within f32 rounding of a tie */
            fail_msg("case %d: fine centre %d is of group %d, the nearest with rows of %d", t, i, c->fine_to_coarse[i],
                     c->fine_to_coarse[near]);
        found += c->fine_to_coarse[near] != 0;
    }
    return found;
}

/* Rows of few tight topics and a number of centres that does not divide evenly among them: balance then puts centres
 * between topics, which are the nearest of no row. Every group must still have a centre that is the nearest of a
 * row. */
static void test_every_group_has_rows_that_are_nearest_to_it(void **state)
{
    (void)state;
    static const int shapes[][4] = {/* topics, rows, m, n */ {2, 30, 3, 3},
                                    {3, 60, 4, 4},
                                    {2, 60, 6, 5},
                                    {3, 90, 8, 8},
                                    {5, 200, 12, 6},
                                    {4, 120, 9, 3},
                                    {2, 50, 25, 5},
                                    {1, 20, 20, 20}};
    int grouped_anew = 0, moved = 0, dead = 0;
    for (int t = 0; t < (int)(sizeof shapes / sizeof *shapes) * 8; t++) {
        const int topics = shapes[t % 8][0], n = shapes[t % 8][1];
        struct mode_centres c;
        struct mode_two_step_params p = MODE_TWO_STEP_PARAMS_DEFAULT;
        struct mode_error err;
        float *x = malloc(sizeof *x * (size_t)n * D);
        int32_t *id = malloc(sizeof *id * (size_t)n);
        for (int i = 0; i < n; i++) {
            struct mode_rng r = mode_rng_for(9, MODE_RNG_TEST, 300 + (uint64_t)t, (uint64_t)i);
            double s = 0;
            for (int j = 0; j < D; j++) {
                x[i * D + j] = (float)((j == i % topics) + 1e-3 * mode_rng_normal(&r));
                s += (double)x[i * D + j] * x[i * D + j];
            }
            for (int j = 0; j < D; j++) x[i * D + j] /= (float)sqrt(s);
        }
        p.fine = shapes[t % 8][2];
        p.coarse = shapes[t % 8][3];
        p.seed = (uint64_t)t;
        p.metric = t / 8 % 2 ? MODE_METRIC_COSINE : MODE_METRIC_EUCLIDEAN;
        if (mode_two_step_train(&c, x, n, D, &p, &err)) fail_msg("%s", err.text);
        assert_int_equal(mode_nearest(NULL, id, NULL, p.metric, x, n, c.fine, c.m, D, &err), MODE_OK);
        int64_t rows_of[20] = {0};
        bool live[25] = {false};
        for (int i = 0; i < n; i++) rows_of[c.fine_to_coarse[id[i]]]++, live[id[i]] = true;
        for (int k = 0; k < c.n; k++)
            if (!rows_of[k]) fail_msg("case %d: no row is nearest to group %d", t, k);
        char level[64];
        snprintf(level, sizeof level, "\"coarse\": {\"rows\": %d,", c.m);
        if (!strstr(c.certificate, level)) grouped_anew++, dead += check_the_dead(&c, live, t);
        bool on_row = false; /* a moved centre is bit-identical to a row */
        for (int k = 0; k < c.m && c.m < n; k++)
            for (int i = 0; i < n; i++) on_row |= memcmp(c.fine + k * D, x + i * D, sizeof *x * D) == 0;
        moved += on_row;
        mode_centres_clear(&c);
        free(x);
        free(id);
    }
    assert_true(grouped_anew > 0 && moved > 0 && dead > 0); /* or nothing was tested */
}

static void test_too_few_different_rows_are_refused(void **state)
{
    (void)state;
    struct mode_centres c;
    struct mode_error err;
    struct mode_two_step_params p = MODE_TWO_STEP_PARAMS_DEFAULT;
    float x[12 * D] = {0};
    p.fine = 6;
    p.coarse = 3;
    for (int i = 0; i < 12; i++) x[i * D + i % 2] = 1; /* two different ones */
    for (int metric = 1; metric <= 2; metric++) {
        p.metric = (enum mode_metric)metric;
        assert_int_equal(mode_two_step_train(&c, x, 12, D, &p, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "too few of the 12 rows differ"));
        mode_centres_clear(&c);
    }
}

static void test_centres_file_gives_back_what_was_saved(void **state)
{
    (void)state;
    float *x = rows(N, 5, 80);
    struct mode_centres c, back;
    struct mode_error err;
    struct mode_two_step_params p = MODE_TWO_STEP_PARAMS_DEFAULT;
    p.fine = 21;
    p.coarse = 4;
    p.seed = UINT64_C(18446744073709551615);
    assert_int_equal(mode_two_step_train(&c, x, N, D, &p, NULL), MODE_OK);
    c.encoder_id = mode_xstrdup("encoder-1");
    char dir[] = "/tmp/mode-centres-XXXXXX", a[MODE_DIGEST_HEX], b[MODE_DIGEST_HEX];
    assert_non_null(mkdtemp(dir));
    char *path = mode_path_join(dir, "centres.safetensors");
    assert_int_equal(mode_centres_save(&c, path, &err), MODE_OK);
    assert_int_equal(mode_digest_file(path, a, NULL, &err), MODE_OK);
    assert_int_equal(mode_centres_load(&back, path, &err), MODE_OK);
    assert_memory_equal(c.fine, back.fine, sizeof(float) * 21 * D);
    assert_memory_equal(c.coarse, back.coarse, sizeof(float) * 4 * D);
    assert_memory_equal(c.fine_to_coarse, back.fine_to_coarse, sizeof(int32_t) * 21);
    assert_memory_equal(c.fine_size, back.fine_size, sizeof(int64_t) * 21);
    assert_true(back.seed == c.seed && back.sample_size == N && back.metric == c.metric);
    assert_string_equal(back.certificate, c.certificate);
    assert_int_equal(mode_centres_check_encoder(&back, "encoder-1", "words", &err), MODE_OK);
    assert_int_equal(mode_centres_check_encoder(&back, "encoder-2", "words", &err), MODE_E_VALUE);
    assert_int_equal(mode_centres_check_encoder(&back, NULL, "words", &err), MODE_E_VALUE);
    /* a second fit gives the same file */
    struct mode_centres again;
    assert_int_equal(mode_two_step_train(&again, x, N, D, &p, NULL), MODE_OK);
    again.encoder_id = mode_xstrdup("encoder-1");
    assert_int_equal(mode_centres_save(&again, path, &err), MODE_OK);
    assert_int_equal(mode_digest_file(path, b, NULL, &err), MODE_OK);
    assert_string_equal(a, b);
    /* a file whose groups leave one out is refused */
    for (int i = 0; i < 21; i++) again.fine_to_coarse[i] %= 3;
    assert_int_equal(mode_centres_save(&again, path, &err), MODE_OK);
    mode_centres_clear(&back);
    assert_int_equal(mode_centres_load(&back, path, &err), MODE_E_FORMAT);
    mode_centres_clear(&c);
    mode_centres_clear(&again);
    mode_dir_remove(dir, NULL);
    free(path);
    free(x);
}

static void test_nearest_equals_a_plain_loop(void **state)
{
    (void)state;
    enum { K = 37 };
    float *x = rows(N, 11, 90), *c = rows(K, 11, 91), distance[N], alone;
    int32_t id[N], one;
    memcpy(c + 30 * D, c + 4 * D, D * sizeof *c); /* a tie for rows nearest to both */
    for (int metric = 1; metric <= 2; metric++) {
        assert_int_equal(mode_nearest(NULL, id, distance, (enum mode_metric)metric, x, N, c, K, D, NULL), MODE_OK);
        for (int i = 0; i < N; i++) {
            double best = INFINITY;
            int want = -1;
            for (int k = 0; k < K; k++) {
                double v = 0, dot = 0;
                for (int j = 0; j < D; j++) {
                    v += ((double)x[i * D + j] - c[k * D + j]) * ((double)x[i * D + j] - c[k * D + j]);
                    dot += (double)x[i * D + j] * c[k * D + j];
                }
                if (metric == MODE_METRIC_COSINE) v = 1 - dot;
                if (v < best) {
                    best = v;
                    want = k;
                }
            }
            assert_int_equal(id[i], want);
            assert_int_not_equal(id[i], 30);
            assert_true(fabs(distance[i] - (metric == MODE_METRIC_COSINE ? best : sqrt(best))) < 1e-6);
        }
        for (int i = 0; i < N; i += 101) { /* one row alone: bit-identical to the whole batch */
            assert_int_equal(mode_nearest(NULL, &one, &alone, (enum mode_metric)metric, x + i * D, 1, c, K, D, NULL),
                             MODE_OK);
            assert_int_equal(one, id[i]);
            assert_true(alone == distance[i]);
        }
    }
    free(x);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objective_never_worsens_and_sizes_are_even),
        cmocka_unit_test(test_the_seed_decides),
        cmocka_unit_test(test_equal_rows_start_one_centre),
        cmocka_unit_test(test_it_stops_when_nothing_is_gained),
        cmocka_unit_test(test_separated_topics_are_found),
        cmocka_unit_test(test_train_refuses_what_it_cannot_do),
        cmocka_unit_test(test_coarse_groups_are_even_and_complete),
        cmocka_unit_test(test_every_group_has_rows_that_are_nearest_to_it),
        cmocka_unit_test(test_too_few_different_rows_are_refused),
        cmocka_unit_test(test_centres_file_gives_back_what_was_saved),
        cmocka_unit_test(test_nearest_equals_a_plain_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
