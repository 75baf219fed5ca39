/* Selection of fine centres by words: against a full sort, against the router's nearest, unions, the file. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "ensemble/router.h"
#include "ensemble/selection.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { M = 37, N = 3, D = 9, K = 50 };

static float fine[M * D], coarse[N * D], words[K * D];
static int32_t group[M];
static int64_t size[M];
static char id[] = "enc", certificate[] = "{}";

static void unit(float *v, uint64_t item)
{
    struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 1, item);
    double s = 0;
    for (int j = 0; j < D; j++) {
        v[j] = (float)mode_rng_normal(&r);
        s += (double)v[j] * v[j];
    }
    for (int j = 0; j < D; j++) v[j] /= (float)sqrt(s);
}

static struct mode_centres centres_of(enum mode_metric metric)
{
    for (int i = 0; i < M; i++) {
        unit(fine + i * D, (uint64_t)i);
        group[i] = i % N;
        size[i] = 1;
    }
    memcpy(fine + 20 * D, fine + 11 * D, D * sizeof *fine); /* a tie: the lower id comes first */
    memcpy(coarse, fine, sizeof coarse);
    for (int i = 0; i < K; i++) unit(words + i * D, 1000 + (uint64_t)i);
    memcpy(words + 7 * D, fine + 11 * D, D * sizeof *words);
    return (struct mode_centres){.m = M,
                                 .n = N,
                                 .d = D,
                                 .fine = fine,
                                 .coarse = coarse,
                                 .fine_to_coarse = group,
                                 .fine_size = size,
                                 .metric = metric,
                                 .encoder_id = id,
                                 .certificate = certificate};
}

struct far {
    double square;
    int32_t id;
};

static int by_distance(const void *a, const void *b)
{
    const struct far *x = a, *y = b;
    if (x->square != y->square) return x->square < y->square ? -1 : 1;
    return x->id - y->id;
}

static void test_words_choose_their_nearest_centres(void **state)
{
    (void)state;
    static const int all[] = {1, 2, 5, M, M + 4};
    for (int metric = 1; metric <= 2; metric++)
        for (size_t n = 0; n < sizeof all / sizeof *all; n++) {
            const struct mode_centres c = centres_of((enum mode_metric)metric);
            struct mode_selection s;
            struct mode_chosen chosen;
            struct mode_error err = {0};
            bool want[M] = {false};
            int n_want = 0;
            mode_selection_init(&s, &c, "digest");
            if (mode_selection_add(&s, &chosen, &c, words, K, all[n], &err)) fail_msg("%s", err.text);
            assert_int_equal(chosen.k, K);
            assert_int_equal(chosen.nearest, all[n] < M ? all[n] : M);
            for (int w = 0; w < K; w++) {
                struct far far[M];
                for (int i = 0; i < M; i++) {
                    far[i] = (struct far){0, i};
                    for (int j = 0; j < D; j++)
                        far[i].square += pow((double)words[w * D + j] - (double)fine[i * D + j], 2);
                }
                qsort(far, M, sizeof *far, by_distance);
                for (int i = 0; i < chosen.nearest; i++) {
                    assert_int_equal(chosen.fine_id[w * chosen.nearest + i], far[i].id);
                    assert_true(fabs(chosen.distance[w * chosen.nearest + i] - sqrt(far[i].square)) < 1e-6);
                    n_want += !want[far[i].id];
                    want[far[i].id] = true;
                }
            }
            for (int i = 0; i < M; i++) assert_int_equal(s.chosen[i], want[i]);
            assert_int_equal(s.n_chosen, n_want);
            mode_chosen_clear(&chosen);
            mode_selection_clear(&s);
        }
}

static void test_the_first_choice_is_the_router_s(void **state)
{
    (void)state;
    const struct mode_centres c = centres_of(MODE_METRIC_EUCLIDEAN);
    struct mode_near near;
    struct mode_error err = {0};
    if (mode_near_open(&near, &c, words, K, &err)) fail_msg("%s", err.text);
    assert_int_equal(near.fine_id[7], 11);
    for (int nearest = 1; nearest <= 3; nearest++) {
        struct mode_selection s;
        struct mode_chosen chosen;
        mode_selection_init(&s, &c, "digest");
        if (mode_selection_add(&s, &chosen, &c, words, K, nearest, &err)) fail_msg("%s", err.text);
        for (int w = 0; w < K; w++) {
            assert_int_equal(chosen.fine_id[w * nearest], near.fine_id[w]);
            assert_true(chosen.distance[w * nearest] == near.distance[w]);
        }
        if (nearest > 1) assert_int_equal(chosen.fine_id[7 * nearest + 1], 20);
        mode_chosen_clear(&chosen);
        mode_selection_clear(&s);
    }
    mode_near_close(&near);
}

/* Adding tasks one at a time, in any order, gives the same file as adding their words together. */
static void test_tasks_add_up_to_the_same_bytes(void **state)
{
    (void)state;
    char dir[] = "/tmp/mode-selection-XXXXXX", *a, *b;
    struct mode_centres c = centres_of(MODE_METRIC_EUCLIDEAN);
    struct mode_selection one, two, back;
    struct mode_error err = {0};
    char grown[] = "older";
    size_t n_a, n_b;
    assert_non_null(mkdtemp(dir));
    char *path_a = mode_path_join(dir, "a"), *path_b = mode_path_join(dir, "b");
    c.grown_from = grown;
    mode_selection_init(&one, &c, "digest");
    mode_selection_init(&two, &c, "digest");
    assert_int_equal(mode_selection_add(&one, NULL, &c, words, 9, 2, &err), MODE_OK);
    assert_int_equal(mode_selection_add(&two, NULL, &c, words + 4 * D, 5, 2, &err), MODE_OK);
    assert_int_equal(mode_selection_add(&two, NULL, &c, words, 4, 2, &err), MODE_OK);
    assert_int_equal(mode_selection_save(&one, path_a, &err), MODE_OK);
    assert_int_equal(mode_selection_save(&two, path_b, &err), MODE_OK);
    assert_int_equal(mode_file_read(path_a, 0, &a, &n_a, &err), MODE_OK);
    assert_int_equal(mode_file_read(path_b, 0, &b, &n_b, &err), MODE_OK);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    if (mode_selection_load(&back, path_a, &err)) fail_msg("%s", err.text);
    assert_int_equal(back.n_chosen, one.n_chosen);
    assert_memory_equal(back.chosen, one.chosen, M * sizeof *one.chosen);
    assert_string_equal(back.centres, "digest");
    assert_string_equal(back.encoder_id, "enc");
    assert_string_equal(back.grown_from, "older");
    mode_selection_clear(&back);
    one.chosen[5] = 2;
    assert_int_equal(mode_selection_save(&one, path_a, &err), MODE_OK);
    assert_int_equal(mode_selection_load(&back, path_a, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "chosen of fine centre 5 is 2, expected 0 or 1"));
    mode_selection_clear(&back);
    mode_selection_clear(&one);
    mode_selection_clear(&two);
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    free(path_a);
    free(path_b);
    free(a);
    free(b);
}

static void test_words_that_are_none(void **state)
{
    (void)state;
    const struct mode_centres c = centres_of(MODE_METRIC_EUCLIDEAN);
    struct mode_selection s;
    struct mode_chosen chosen;
    struct mode_error err = {0};
    mode_selection_init(&s, &c, "digest");
    assert_int_equal(mode_selection_add(&s, &chosen, &c, words, 0, 1, &err), MODE_E_VALUE);
    words[3 * D] = NAN;
    assert_int_equal(mode_selection_add(&s, &chosen, &c, words, K, 1, &err), MODE_E_VALUE);
    assert_int_equal(s.n_chosen, 0);
    mode_chosen_clear(&chosen);
    mode_selection_clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_choose_their_nearest_centres),
        cmocka_unit_test(test_the_first_choice_is_the_router_s),
        cmocka_unit_test(test_tasks_add_up_to_the_same_bytes),
        cmocka_unit_test(test_words_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
