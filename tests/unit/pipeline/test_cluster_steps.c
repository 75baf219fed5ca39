/* Vectors on disk to centres, centres to assignments: whatever the shards, the same result. */
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

    /* assignments: of the whole and of the parts, end to end the same */
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
    p.step.fine = 101;
    assert_int_equal(mode_cluster_run(&r, out, both, 1, &p, &err), MODE_E_VALUE);
    assert_int_equal(mode_cluster_run(&r, out, both, 0, &p, &err), MODE_E_VALUE);
    assert_false(mode_file_exists(out));
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
    assert_true(mode_centres_know(&b, "its own", da)); /* assignments made before hold on */
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
        cmocka_unit_test(test_bad_vectors_are_named),
        cmocka_unit_test(test_groups_are_added_without_moving_what_is_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
