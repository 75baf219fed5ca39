/* The text side of the pipeline on the cuda backend, from captions to fine ids, against the CPU: a tiny BERT, the two
 * steps of clustering, assignment. On a machine without a GPU the kernels run on the host (emulator/). */
#include "base/file.h"
#include "cluster/nearest.h"
#include "cluster/two_step.h"
#include "models/bert.h"
#include "pipeline/assign.h"
#include "tiny_bert.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 300, D = 24, FINE = 12, COARSE = 3 };

static char dir[] = "/tmp/mode-text-XXXXXX";
static struct mode_backend *cuda, *cpu;
static struct mode_error err;

static void ok(enum mode_status st)
{
    if (st) fail_msg("%s", err.text);
}

static float *unit_rows(int64_t n, uint64_t stream)
{
    float *x = mode_xmalloc((size_t)(n * D) * sizeof *x);
    struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, stream, 0);
    for (int64_t i = 0; i < n; i++) {
        double s = 0;
        for (int j = 0; j < D; j++) {
            x[i * D + j] = (float)mode_rng_normal(&r);
            s += (double)x[i * D + j] * x[i * D + j];
        }
        for (int j = 0; j < D; j++) x[i * D + j] /= (float)sqrt(s);
    }
    return x;
}

struct ticks {
    size_t last;
    int n;
};

static enum mode_status on_tick(void *ctx, size_t done, size_t total)
{
    struct ticks *t = ctx;
    assert_true(done > t->last && done <= total);
    t->last = done;
    t->n++;
    return MODE_OK;
}

static void test_an_encoder_gives_the_processors_vectors(void **state)
{
    static const char *const texts[] = {"a", "b a c d a b c d", "", "picture of red square",
                                        "d d d d d d d d d d d d d d d d"};
    static const char *const poolings[] = {"pooler", "cls", "mean"};
    enum { TEXTS = sizeof texts / sizeof *texts };
    (void)state;
    for (int p = 0; p < 3; p++) {
        float x[2][TEXTS][TINY_WIDTH];
        for (int b = 0; b < 2; b++) {
            struct mode_text_encoder *enc;
            ok(mode_text_encoder_open(&enc, b ? cuda : cpu, dir, poolings[p], 0, &err));
            ok(mode_text_encoder_encode(enc, x[b][0], texts, TEXTS, NULL, NULL, &err));
            mode_text_encoder_close(&enc);
        }
        for (int i = 0; i < TEXTS; i++)
            for (int j = 0; j < TINY_WIDTH; j++)
                if (!(fabs((double)x[0][i][j] - x[1][i][j]) < 2e-6))
                    fail_msg("%s, text %d: %g and %g", poolings[p], i, x[0][i][j], x[1][i][j]);
    }
}

/* On a GPU with so little memory that the texts take several batches, two of them in flight. */
static void test_batches_follow_one_another(void **state)
{
    enum { TEXTS = 500, ROOM = 2 << 20, WORKSPACE = 32 << 20 };
    static const char *const some[] = {"a b c d a b c d a b c d a b", "d c b a d c b", "b", "a d a d a d a d a d a d"};
    static float x[2][TEXTS][TINY_WIDTH];
    const char *texts[TEXTS];
    char memory[32];
    size_t left, total;
    struct mode_backend *small;
    (void)state;
    for (int i = 0; i < TEXTS; i++) texts[i] = some[i * i % 4];
    mode_backend_room(cuda, &left, &total);
    snprintf(memory, sizeof memory, "%zu", total - left + ROOM + WORKSPACE);
    setenv("MODE_EMULATOR_MEMORY", memory, 1);
    ok(mode_backend_open(&small, "cuda", &err));
    unsetenv("MODE_EMULATOR_MEMORY");
    for (int b = 0; b < 2; b++) {
        struct mode_text_encoder *enc;
        struct ticks t = {0};
        ok(mode_text_encoder_open(&enc, b ? small : cpu, dir, "mean", 0, &err));
        ok(mode_text_encoder_encode(enc, x[b][0], texts, TEXTS, on_tick, &t, &err));
        assert_int_equal(t.last, TEXTS);
        assert_true(t.n > 2);
        mode_text_encoder_close(&enc);
    }
    mode_backend_close(&small);
    for (int i = 0; i < TEXTS; i++)
        for (int j = 0; j < TINY_WIDTH; j++)
            if (!(fabs((double)x[0][i][j] - x[1][i][j]) < 2e-6))
                fail_msg("text %d: %g and %g", i, x[0][i][j], x[1][i][j]);
}

static void test_clustering_is_balanced_and_as_good(void **state)
{
    (void)state;
    float *x = unit_rows(N, 1);
    for (int metric = MODE_METRIC_EUCLIDEAN; metric <= MODE_METRIC_COSINE; metric++) {
        struct mode_two_step_params p = MODE_TWO_STEP_PARAMS_DEFAULT;
        struct mode_centres c[2];
        double objective[2];
        p.fine = FINE;
        p.coarse = COARSE;
        p.metric = (enum mode_metric)metric;
        p.fine_iterations = 6;
        for (int b = 0; b < 2; b++) {
            p.be = b ? cuda : cpu;
            ok(mode_two_step_train(&c[b], x, N, D, &p, &err));
            for (int k = 0; k < FINE; k++) assert_int_equal(c[b].fine_size[k], N / FINE);
            const char *at = strstr(c[b].certificate, "\"objective\": ");
            objective[b] = strtod(at + strlen("\"objective\": "), NULL);
        }
        assert_true(fabs(objective[0] - objective[1]) <= 2e-3 * fabs(objective[0])); /* the auction's tolerance */
        mode_centres_clear(&c[0]);
        mode_centres_clear(&c[1]);
    }
    free(x);
}

static void write_feat(const char *path, const float *x)
{
    struct mode_tensor t = mode_tensor_2d((void *)(uintptr_t)x, MODE_DTYPE_F32, N, D);
    char key[] = "encoder_id", id[] = "e";
    struct mode_meta meta[] = {{key, id}};
    t.name = "feat";
    ok(mode_safetensors_write(path, &t, 1, meta, 1, &err));
}

static void test_assignments_are_the_same_file(void **state)
{
    float *x = unit_rows(N, 2), *fine = unit_rows(FINE, 3), *coarse = unit_rows(COARSE, 4);
    int32_t group[FINE];
    int64_t size[FINE] = {0};
    char id[] = "e", certificate[] = "{}", digest[2][MODE_DIGEST_HEX], out[256], feat[256], centres[256];
    (void)state;
    snprintf(feat, sizeof feat, "%s/feat", dir);
    snprintf(centres, sizeof centres, "%s/centres", dir);
    memcpy(fine + (FINE - 1) * D, fine, D * sizeof *fine); /* equal centres: the lower id has the rows */
    for (int i = 0; i < FINE; i++) group[i] = i % COARSE;
    for (int j = 0; j < D; j++) x[5 * D + j] = fine[2 * D + j];
    write_feat(feat, x);
    for (int metric = MODE_METRIC_EUCLIDEAN; metric <= MODE_METRIC_COSINE; metric++)
        for (int only = MODE_ASSIGN_ANY; only < 1; only++) {
            struct mode_centres c = {.m = FINE,
                                     .n = COARSE,
                                     .d = D,
                                     .fine = fine,
                                     .coarse = coarse,
                                     .fine_to_coarse = group,
                                     .fine_size = size,
                                     .metric = (enum mode_metric)metric,
                                     .encoder_id = id,
                                     .certificate = certificate};
            ok(mode_centres_save(&c, centres, &err));
            for (int b = 0; b < 2; b++) {
                struct mode_assign_result r;
                snprintf(out, sizeof out, "%s/assign-%d", dir, b);
                ok(mode_assign_run(&r, b ? cuda : cpu, out, feat, centres, "e", only, &err));
                assert_int_equal(r.rows, N);
                ok(mode_digest_file(out, digest[b], NULL, &err));
            }
            assert_string_equal(digest[0], digest[1]);
        }
    free(x);
    free(fine);
    free(coarse);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(dir) || mode_backend_open(&cpu, "cpu", &err)) return -1;
    enum mode_status st = mode_backend_open(&cuda, "cuda", &err);
    if (st) {
        fprintf(stderr, "%s\n", err.text);
        exit(st == MODE_E_DEVICE ? 77 : 1);
    }
    char *pooling = mode_path_join(dir, "1_Pooling");
    if (mode_dir_make(pooling, &err)) return -1;
    free(pooling);
    tiny_write(dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mode_backend_close(&cuda);
    mode_backend_close(&cpu);
    return mode_dir_remove(dir, NULL) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_encoder_gives_the_processors_vectors),
        cmocka_unit_test(test_batches_follow_one_another),
        cmocka_unit_test(test_clustering_is_balanced_and_as_good),
        cmocka_unit_test(test_assignments_are_the_same_file),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
