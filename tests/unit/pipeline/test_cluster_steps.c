/* Features on disk to centres, centres to assignments: the result does not depend on the sharding. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "pipeline/assign.h"
#include "pipeline/cluster.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 1500, D = 12 };
static char dir[] = "/tmp/mode-steps-XXXXXX";
static float *x;

static char *write_feat(const char *name, int first, int n, const char *encoder)
{
    char *path = mode_path_join(dir, name), key[] = "encoder_id", *id = mode_xstrdup(encoder);
    struct mode_tensor t = mode_tensor_2d(x + first * D, MODE_DTYPE_F32, n, D);
    struct mode_meta meta = {key, id};
    t.name = "feat";
    assert_int_equal(mode_safetensors_write(path, &t, 1, &meta, 1, NULL), MODE_OK);
    free(id);
    return path;
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    x = malloc(sizeof *x * N * D);
    for (int i = 0; i < N; i++) {
        struct mode_rng r = mode_rng_for(1, MODE_RNG_TEST, 0, (uint64_t)i);
        double s = 0;
        for (int j = 0; j < D; j++) {
            x[i * D + j] = (float)mode_rng_normal(&r);
            s += (double)x[i * D + j] * x[i * D + j];
        }
        for (int j = 0; j < D; j++) x[i * D + j] /= (float)sqrt(s);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(x);
    return mode_dir_remove(dir, NULL);
}

static void test_sharding_changes_nothing(void **state)
{
    (void)state;
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT, .sample_per_centre = 40};
    struct mode_cluster_result r;
    struct mode_error err;
    p.step.fine = 24;
    p.step.coarse = 3;
    p.step.seed = 11;
    const char *whole[] = {write_feat("whole", 0, N, "e")};
    const char *parts[] = {write_feat("p0", 0, 1, "e"), write_feat("p1", 1, 700, "e"), write_feat("p2", 701, 0, "e"),
                           write_feat("p3", 701, N - 701, "e")};
    char *a = mode_path_join(dir, "a"), *b = mode_path_join(dir, "b"), da[MODE_DIGEST_HEX], db[MODE_DIGEST_HEX];
    assert_int_equal(mode_cluster_run(&r, a, whole, 1, &p, &err), MODE_OK);
    assert_int_equal(r.rows, N);
    assert_int_equal(r.sample, 24 * 40);
    mode_cluster_result_clear(&r);
    assert_int_equal(mode_cluster_run(&r, b, parts, 4, &p, &err), MODE_OK);
    mode_cluster_result_clear(&r);
    assert_int_equal(mode_digest_file(a, da, NULL, &err) | mode_digest_file(b, db, NULL, &err), MODE_OK);
    assert_string_equal(da, db);
    p.step.seed = 12; /* another seed takes another sample */
    assert_int_equal(mode_cluster_run(&r, b, parts, 4, &p, &err), MODE_OK);
    mode_cluster_result_clear(&r);
    assert_int_equal(mode_digest_file(b, db, NULL, &err), MODE_OK);
    assert_string_not_equal(da, db);

    /* assignments of the parts, concatenated, are those of the whole */
    char *out = mode_path_join(dir, "assign");
    struct mode_assign_result assigned;
    int32_t *id = malloc(sizeof *id * N);
    float *distance = malloc(sizeof *distance * N);
    struct mode_safetensors f;
    const struct mode_tensor *t;
    int64_t at = 0;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(
            mode_assign_run(&assigned, NULL, out, i ? parts[i - 1] : whole[0], a, "e", MODE_ASSIGN_ANY, &err), MODE_OK);
        uint64_t rows = assigned.rows;
        assert_int_equal(mode_safetensors_open(&f, out, &err), MODE_OK);
        int64_t n[1] = {(int64_t)rows};
        assert_int_equal(mode_safetensors_need(&f, "fine_id", MODE_DTYPE_I32, 1, n, &t, &err), MODE_OK);
        if (i == 0)
            memcpy(id, t->data, rows * sizeof *id);
        else if (rows)
            assert_memory_equal(id + at, t->data, rows * sizeof *id);
        assert_int_equal(mode_safetensors_need(&f, "distance", MODE_DTYPE_F32, 1, n, &t, &err), MODE_OK);
        if (i == 0)
            memcpy(distance, t->data, rows * sizeof *distance);
        else if (rows)
            assert_memory_equal(distance + at, t->data, rows * sizeof *distance);
        assert_string_equal(mode_safetensors_meta(&f, "centres"), da);
        if (i) at += (int64_t)rows;
        mode_safetensors_close(&f);
    }
    assert_int_equal(at, N);
    assert_int_equal(mode_assign_run(&assigned, NULL, out, whole[0], a, "other", MODE_ASSIGN_ANY, &err), MODE_E_VALUE);
    free(id);
    free(distance);
    free(out);
    free(a);
    free(b);
    free((char *)whole[0]);
    for (int i = 0; i < 4; i++) free((char *)parts[i]);
}

/* With as many centres as rows in the sample, the centres are these rows: the file shows which were drawn. */
static void test_the_sample_is_the_rows_that_draw_least(void **state)
{
    (void)state;
    enum { WANT = 37 };
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT, .sample_per_centre = 1};
    struct mode_cluster_result r;
    struct mode_centres c;
    struct mode_error err;
    char *feat = write_feat("sampled", 0, N, "e"), *out = mode_path_join(dir, "sampled-centres");
    p.step.fine = WANT;
    p.step.coarse = 1;
    for (uint64_t seed = 0; seed < 3; seed++) {
        p.step.seed = seed;
        assert_int_equal(mode_cluster_run(&r, out, (const char *const *)&feat, 1, &p, &err), MODE_OK);
        mode_cluster_result_clear(&r);
        assert_int_equal(mode_centres_load(&c, out, &err), MODE_OK);
        uint64_t draw[N];
        for (int i = 0; i < N; i++) {
            struct mode_rng g = mode_rng_for(seed, MODE_RNG_SAMPLE, 0, (uint64_t)i);
            draw[i] = mode_rng_u64(&g);
        }
        for (int i = 0; i < N; i++) {
            int less = 0, times = 0;
            for (int j = 0; j < N; j++) less += draw[j] < draw[i];
            for (int k = 0; k < WANT; k++) times += memcmp(c.fine + k * D, x + i * D, sizeof *x * D) == 0;
            assert_int_equal(times, less < WANT);
        }
        mode_centres_clear(&c);
    }
    free(feat);
    free(out);
}

static void test_bad_vectors_are_named(void **state)
{
    (void)state;
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT};
    struct mode_cluster_result r;
    struct mode_error err;
    p.step.fine = 4;
    p.step.coarse = 2;
    char *good = write_feat("good", 0, 100, "e"), *out = mode_path_join(dir, "out");
    float keep = x[133 * D];
    x[133 * D] = INFINITY;
    char *bad = write_feat("bad", 100, 100, "e");
    x[133 * D] = keep;
    char *foreign = write_feat("foreign", 0, 100, "f");
    const char *both[] = {good, bad}, *mixed[] = {good, foreign};
    assert_int_equal(mode_cluster_run(&r, out, both, 2, &p, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "bad: row 33"));
    assert_int_equal(mode_cluster_run(&r, out, mixed, 2, &p, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "encoder \"f\""));
    assert_int_equal(mode_cluster_run(&r, out, both, 0, &p, &err), MODE_E_VALUE);
    assert_false(mode_file_exists(out));
    p.step.fine = 101; /* of 100 rows: each is a centre */
    assert_int_equal(mode_cluster_run(&r, out, both, 1, &p, &err), MODE_OK);
    assert_int_equal(r.fine, 100);
    assert_non_null(strstr(r.certificate, "\"centres_asked\": 101"));
    mode_cluster_result_clear(&r);
    p.step.fine = 4;
    assert_int_equal(mode_cluster_run(&r, out, both, 1, &p, &err), MODE_OK);
    mode_cluster_result_clear(&r);
    char *assigned = mode_path_join(dir, "assigned");
    struct mode_assign_result result;
    assert_int_equal(mode_assign_run(&result, NULL, assigned, bad, out, "e", MODE_ASSIGN_ANY, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "row 33"));
    assert_int_equal(mode_assign_run(&result, NULL, assigned, foreign, out, NULL, MODE_ASSIGN_ANY, &err), MODE_E_VALUE);
    free(assigned);
    free(good);
    free(bad);
    free(foreign);
    free(out);
}

/* Rows 0 .. n-1 of the corpus, row k times(k) times, shuffled. */
static char *write_repeated(const char *name, int different, int (*times)(int k), int *rows)
{
    static uint32_t order[1 << 16];
    uint32_t n = 0;
    for (int k = 0; k < different; k++)
        for (int i = 0; i < times(k); i++) order[n++] = (uint32_t)k;
    struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 7, (uint64_t)different);
    mode_rng_shuffle_u32(&r, order, n);
    float *y = malloc(sizeof *y * n * D);
    for (uint32_t i = 0; i < n; i++) memcpy(y + (size_t)i * D, x + (size_t)order[i] * D, sizeof *y * D);
    char *path = mode_path_join(dir, name), key[] = "encoder_id", id[] = "e";
    struct mode_tensor t = mode_tensor_2d(y, MODE_DTYPE_F32, n, D);
    struct mode_meta meta = {key, id};
    t.name = "feat";
    assert_int_equal(mode_safetensors_write(path, &t, 1, &meta, 1, NULL), MODE_OK);
    free(y);
    *rows = (int)n;
    return path;
}

static int forty(int k)
{
    (void)k;
    return 40;
}

static int zipf(int k)
{
    return 3000 / (k + 1) > 0 ? 3000 / (k + 1) : 1;
}

static int one_for_all(int k)
{
    return k == 0 ? 5000 : 1;
}

/* Frequent captions: every expert has pairs, equal captions share an expert, and no two centres are equal. */
static void check_repeated(const char *path, int rows, int fine, int coarse, int want_fine, int least_share)
{
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT};
    struct mode_cluster_result r;
    struct mode_assign_result assigned;
    struct mode_centres c;
    struct mode_error err;
    uint64_t pairs[64] = {0};
    char *out = mode_path_join(dir, "repeated"), *ids = mode_path_join(dir, "repeated-ids");
    p.step.fine = fine;
    p.step.coarse = coarse;
    if (mode_cluster_run(&r, out, &path, 1, &p, &err)) fail_msg("%s", err.text);
    assert_int_equal(r.fine, want_fine);
    assert_int_equal(r.drawn, rows);
    assert_true(r.sample <= r.drawn);
    assert_non_null(strstr(r.certificate, "\"most_copies\": "));
    assert_int_equal(mode_centres_load(&c, out, &err), MODE_OK);
    assert_int_equal(c.m, want_fine);
    assert_int_equal(c.sample_size, r.sample);
    for (int i = 0; i < c.m; i++)
        for (int j = 0; j < i; j++) assert_memory_not_equal(c.fine + i * D, c.fine + j * D, sizeof *c.fine * D);
    assert_int_equal(mode_assign_run(&assigned, NULL, ids, path, out, "e", MODE_ASSIGN_ANY, &err), MODE_OK);
    assert_int_equal(mode_assign_count(pairs, ids, c.fine_to_coarse, c.m, &err), MODE_OK);
    for (int k = 0; k < coarse; k++)
        if (pairs[k] < (uint64_t)least_share) fail_msg("expert %d has %llu pairs", k, (unsigned long long)pairs[k]);
    mode_centres_clear(&c);
    mode_cluster_result_clear(&r);
    free(out);
    free(ids);
}

static void test_common_captions_leave_no_expert_without_pairs(void **state)
{
    (void)state;
    int rows;
    char *path = write_repeated("ten", 10, forty, &rows);
    check_repeated(path, rows, 64, 8, 10, 40);
    check_repeated(path, rows, 64, 10, 10, 40);
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT};
    struct mode_cluster_result r;
    struct mode_error err;
    p.step.fine = 64;
    p.step.coarse = 16;
    assert_int_equal(mode_cluster_run(&r, "/nowhere", (const char *const *)&path, 1, &p, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "the 400 captions of the sample are 10 different ones, too few for 16 coarse"));
    free(path);
    path = write_repeated("zipf", 1400, zipf, &rows);
    check_repeated(path, rows, 256, 16, 256, 100);
    free(path);
    path = write_repeated("one", 300, one_for_all, &rows);
    check_repeated(path, rows, 64, 16, 64, 4);
    free(path);
}

/* A second source may have fewer captions than the first has centres: it gets as many as it has captions. */
static void test_a_small_source_is_added(void **state)
{
    (void)state;
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT};
    struct mode_cluster_result r;
    struct mode_centres c;
    struct mode_error err;
    char *old = write_feat("base", 0, 600, "e"), *few = write_feat("few", 600, 5, "e");
    char *first = mode_path_join(dir, "base-centres"), *grown = mode_path_join(dir, "few-centres");
    p.step.fine = 12;
    p.step.coarse = 3;
    assert_int_equal(mode_cluster_run(&r, first, (const char *const *)&old, 1, &p, &err), MODE_OK);
    assert_null(strstr(r.certificate, "\"sample\"")); /* all rows were used: no key */
    mode_cluster_result_clear(&r);
    p.step.fine = 256;
    p.step.coarse = 1;
    p.grow = first;
    if (mode_cluster_run(&r, grown, (const char *const *)&few, 1, &p, &err)) fail_msg("%s", err.text);
    assert_int_equal(r.fine, 5);
    mode_cluster_result_clear(&r);
    assert_int_equal(mode_centres_load(&c, grown, &err), MODE_OK);
    assert_true(c.m == 17 && c.n == 4);
    mode_centres_clear(&c);
    free(old);
    free(few);
    free(first);
    free(grown);
}

static void test_groups_are_added_without_moving_what_is_there(void **state)
{
    (void)state;
    enum { OLD = 600, NEW = N - OLD };
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT};
    struct mode_cluster_result r;
    struct mode_assign_result assigned;
    struct mode_error err;
    struct mode_centres a, b;
    struct mode_safetensors f;
    const struct mode_tensor *t;
    char *old = write_feat("old", 0, OLD, "e"), *new = write_feat("new", OLD, NEW, "e"), da[MODE_DIGEST_HEX];
    char *foreign = write_feat("foreign", OLD, NEW, "f"), *out = mode_path_join(dir, "out");
    char *first = mode_path_join(dir, "first"), *grown = mode_path_join(dir, "grown");
    p.step.fine = 12;
    p.step.coarse = 3;
    assert_int_equal(mode_cluster_run(&r, first, (const char *const *)&old, 1, &p, &err), MODE_OK);
    mode_cluster_result_clear(&r);
    p.step.fine = 5;
    p.step.coarse = 1;
    p.grow = first;
    assert_int_equal(mode_cluster_run(&r, grown, (const char *const *)&new, 1, &p, &err), MODE_OK);
    mode_cluster_result_clear(&r);
    assert_int_equal(mode_centres_load(&a, first, &err) | mode_centres_load(&b, grown, &err), MODE_OK);
    assert_int_equal(b.m, 17);
    assert_int_equal(b.n, 4);
    assert_memory_equal(a.fine, b.fine, sizeof *a.fine * 12 * D);
    assert_memory_equal(a.coarse, b.coarse, sizeof *a.coarse * 3 * D);
    assert_memory_equal(a.fine_to_coarse, b.fine_to_coarse, sizeof(int32_t) * 12);
    for (int i = 12; i < 17; i++) assert_int_equal(b.fine_to_coarse[i], 3);
    assert_int_equal(mode_centres_added(&a), 0);
    assert_int_equal(mode_centres_added(&b), 1);
    assert_int_equal(mode_digest_file(first, da, NULL, &err), MODE_OK);
    assert_true(mode_centres_know(&b, "its own", da)); /* earlier assignments stay valid */
    assert_false(mode_centres_know(&b, "its own", "of another run"));

    /* the new rows: all in the new group, at the nearest of its centres */
    assert_int_equal(mode_assign_run(&assigned, NULL, out, new, grown, "e", 3, &err), MODE_OK);
    assert_int_equal(assigned.rows, NEW);
    assert_int_equal(mode_safetensors_open(&f, out, &err), MODE_OK);
    assert_int_equal(mode_safetensors_need(&f, "fine_id", MODE_DTYPE_I32, 1, (int64_t[]){NEW}, &t, &err), MODE_OK);
    uint64_t elsewhere = 0;
    for (int i = 0; i < NEW; i++) {
        double best[2] = {1e30, 1e30};
        int at[2] = {-1, -1};
        for (int c = 0; c < b.m; c++) {
            double s = 0;
            for (int j = 0; j < D; j++) {
                double u = (double)x[(OLD + i) * D + j] - (double)b.fine[c * D + j];
                s += u * u;
            }
            for (int k = 0; k < 2; k++)
                if ((k == 0 || c >= 12) && s < best[k]) best[k] = s, at[k] = c;
        }
        assert_int_equal(((const int32_t *)t->data)[i], at[1]);
        elsewhere += at[0] < 12;
    }
    assert_true(elsewhere > 0 && elsewhere < NEW);
    assert_int_equal(assigned.nearer_elsewhere, elsewhere);
    mode_safetensors_close(&f);

    assert_int_equal(mode_assign_run(&assigned, NULL, out, new, grown, "e", 4, &err), MODE_E_VALUE);
    assert_int_equal(mode_cluster_run(&r, out, (const char *const *)&foreign, 1, &p, &err), MODE_E_VALUE);
    mode_cluster_result_clear(&r);
    mode_centres_clear(&a);
    mode_centres_clear(&b);
    free(old);
    free(new);
    free(foreign);
    free(out);
    free(first);
    free(grown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharding_changes_nothing),
        cmocka_unit_test(test_the_sample_is_the_rows_that_draw_least),
        cmocka_unit_test(test_bad_vectors_are_named),
        cmocka_unit_test(test_common_captions_leave_no_expert_without_pairs),
        cmocka_unit_test(test_a_small_source_is_added),
        cmocka_unit_test(test_groups_are_added_without_moving_what_is_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
