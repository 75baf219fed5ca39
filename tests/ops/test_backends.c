/* Every backend against the reference, every op, over shapes chosen to be awkward; and the same bytes whether one
 * thread works or three. */
#include "op_cases.h"
#include "oracle.h"

#include "base/file.h"
#include "base/parallel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    assert_int_equal(mode_backend_open(&be, name, &err), MODE_OK);
    return be;
}

/* Relative distance of two results; prints the worst element when it is over the budget. */
static bool agrees(const struct op_case *c, int which, const struct op_run *ours, const struct op_run *truth)
{
    const struct mode_tensor *a = &ours->out[which], *b = &truth->out[which];
    int64_t at;
    double rel = op_distance(a, b, &at);
    double budget = op_tolerance(c, ours, which);
    if (rel <= budget) return true;
    printf("%s {%lld, %lld, %lld, %lld, %lld}: result %d is off by %.3g (budget %.3g); "
           "worst at %lld: %.9g, want %.9g\n",
           c->name, (long long)c->s[0], (long long)c->s[1], (long long)c->s[2], (long long)c->s[3], (long long)c->s[4],
           which, rel, budget, (long long)at, op_number(a, at), op_number(b, at));
    return false;
}

static void compare_with_ref(const char *name)
{
    bool bf16 = strcmp(name, "ref-bf16") == 0; /* the same numbers go in, stored otherwise */
    struct mode_backend *ref = open_backend("ref"), *be = open_backend(name);
    int bad = 0;
    for (int i = 0; i < N_OP_CASES; i++) {
        struct op_run a = op_case_run_of(&op_cases[i], i, be, bf16), b = op_case_run_of(&op_cases[i], i, ref, bf16);
        assert_true(a.n_out >= b.n_out);
        for (int j = 0; j < b.n_out; j++) bad += !agrees(&op_cases[i], j, &a, &b);
        if (!(fabs(a.scalar - b.scalar) <= 1e-6 * fabs(b.scalar))) {
            printf("%s: scalar %.9g, want %.9g\n", op_cases[i].name, a.scalar, b.scalar);
            bad++;
        }
        op_run_clear(&a);
        op_run_clear(&b);
    }
    assert_int_equal(bad, 0);
    mode_backend_close(&be);
    mode_backend_close(&ref);
}

static void test_cpu_agrees_with_ref(void **state)
{
    (void)state;
    compare_with_ref("cpu");
}

static void test_ref_bf16_agrees_with_ref(void **state)
{
    (void)state;
    compare_with_ref("ref-bf16");
}

static void is_rounded(const struct mode_tensor *copy, const struct mode_tensor *x)
{
    assert_int_equal(copy->dtype, MODE_DTYPE_BF16);
    for (int64_t j = 0; j < mode_tensor_count(x); j++)
        assert_int_equal(((const uint16_t *)copy->data)[j], mode_f32_to_bf16(mode_f32(x)[j]));
}

/* Nothing else than w rounded, ties to even; so is what mode_rounded makes, of m. */
static void test_adamw_rounds_its_copy(void **state)
{
    struct mode_backend *be = open_backend("ref-bf16");
    (void)state;
    for (int i = 0; i < N_OP_CASES; i++) {
        if (op_cases[i].run != case_adamw) continue;
        struct op_run r = op_case_run(&op_cases[i], i, be);
        if (op_cases[i].s[2] == 0) is_rounded(&r.out[r.n_out - 2], &r.out[0]); /* with parts, one is frozen */
        is_rounded(&r.out[r.n_out - 1], &r.out[1]);
        op_run_clear(&r);
    }
    mode_backend_close(&be);
}

/* What models of full size are compared with is the reference, to the byte; products of whole blocks, of parts of them
 * and of none are among the cases. */
static void test_the_oracle_is_the_reference(void **state)
{
    static const char *const names[] = {"ref", "ref-bf16"};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct mode_backend *ref = open_backend(names[k]), *be = oracle_open(names[k]);
        for (int i = 0; i < N_OP_CASES; i++) {
            struct op_run a = op_case_run(&op_cases[i], i, be), b = op_case_run(&op_cases[i], i, ref);
            for (int j = 0; j < b.n_out; j++)
                if (memcmp(a.out[j].data, b.out[j].data, mode_tensor_bytes(&b.out[j])) != 0)
                    fail_msg("%s, %s: result %d has other bytes", names[k], op_cases[i].name, j);
            assert_memory_equal(&a.scalar, &b.scalar, sizeof a.scalar);
            op_run_clear(&a);
            op_run_clear(&b);
        }
        mode_backend_close(&ref);
        mode_backend_close(&be);
    }
}

/* One per instruction set; skipped where this processor, or its system, lacks it. */
static void compare_where_it_runs(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    if (mode_backend_open(&be, name, &err)) {
        assert_int_equal(err.status, MODE_E_DEVICE);
        skip();
    }
    mode_backend_close(&be);
    compare_with_ref(name);
}

static void test_plain_c_agrees_with_ref(void **state)
{
    (void)state;
    compare_with_ref("cpu-plain");
}

static void test_avx2_agrees_with_ref(void **state)
{
    (void)state;
    compare_where_it_runs("cpu-avx2");
}

static void test_avx512_agrees_with_ref(void **state)
{
    (void)state;
    compare_where_it_runs("cpu-avx512");
}

static void test_amx_agrees_with_ref(void **state)
{
    (void)state;
    compare_where_it_runs("cpu-amx");
}

/* Digest of every result of every case, in a process of its own with so many threads. */
static void digests_with_threads(int threads, char out[N_OP_CASES][MODE_DIGEST_HEX])
{
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        mode_parallel_set_threads(threads);
        struct mode_backend *be;
        struct mode_error err;
        if (mode_backend_open(&be, "cpu", &err)) _exit(1);
        for (int i = 0; i < N_OP_CASES; i++) {
            struct op_run r = op_case_run(&op_cases[i], i, be);
            struct mode_str all = {0};
            for (int j = 0; j < r.n_out; j++) mode_str_add(&all, r.out[j].data, mode_tensor_bytes(&r.out[j]));
            mode_str_add(&all, &r.scalar, sizeof r.scalar);
            char hex[MODE_DIGEST_HEX];
            mode_digest_bytes(all.data, all.len, hex);
            if (write(fd[1], hex, sizeof hex) != (ssize_t)sizeof hex) _exit(1);
            mode_str_clear(&all);
            op_run_clear(&r);
        }
        _exit(0);
    }
    close(fd[1]);
    for (int i = 0; i < N_OP_CASES; i++) assert_int_equal(read(fd[0], out[i], MODE_DIGEST_HEX), MODE_DIGEST_HEX);
    close(fd[0]);
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void test_bytes_do_not_depend_on_threads(void **state)
{
    static char one[N_OP_CASES][MODE_DIGEST_HEX], three[N_OP_CASES][MODE_DIGEST_HEX];
    (void)state;
    digests_with_threads(1, one);
    digests_with_threads(3, three);
    for (int i = 0; i < N_OP_CASES; i++) assert_string_equal(one[i], three[i]);
}

static void test_an_unknown_backend_is_refused_by_name(void **state)
{
    struct mode_backend *be;
    struct mode_error err;
    (void)state;
    assert_int_equal(mode_backend_open(&be, "gpu", &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "\"gpu\""));
    assert_null(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_do_not_depend_on_threads), /* first: it forks before the pool starts */
        cmocka_unit_test(test_cpu_agrees_with_ref),
        cmocka_unit_test(test_plain_c_agrees_with_ref),
        cmocka_unit_test(test_avx2_agrees_with_ref),
        cmocka_unit_test(test_avx512_agrees_with_ref),
        cmocka_unit_test(test_amx_agrees_with_ref),
        cmocka_unit_test(test_ref_bf16_agrees_with_ref),
        cmocka_unit_test(test_adamw_rounds_its_copy),
        cmocka_unit_test(test_the_oracle_is_the_reference),
        cmocka_unit_test(test_an_unknown_backend_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
