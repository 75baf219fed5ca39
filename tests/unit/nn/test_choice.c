/* Which backend a name and a precision select, on a machine or in a build without a GPU. */
#include "nn/choice.h"

#include "base/backend_name.h"
#include "base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

static struct mode_error err;

static enum mode_status choose(char name[32], char why[MODE_BACKEND_WHY], const char *asked, const char *precision)
{
    struct mode_backend *be;
    enum mode_status st = mode_backend_choose(&be, why, asked, precision, &err);
    strcpy(name, st ? "" : mode_backend_name(be));
    mode_backend_close(&be);
    return st;
}

static void test_auto_takes_the_processor_and_says_why(void **state)
{
    char name[32], why[MODE_BACKEND_WHY];
    (void)state;
    assert_int_equal(choose(name, why, "auto", "f32"), MODE_OK);
    assert_memory_equal(name, "cpu", 3);
    assert_non_null(strstr(why, "cuda"));
    assert_int_equal(choose(name, why, "auto", NULL), MODE_OK);
    assert_int_equal(choose(name, why, "cpu", "f32"), MODE_OK);
    assert_string_equal(why, "");
}

static void test_a_lower_precision_is_never_computed_otherwise(void **state)
{
    char name[32], why[MODE_BACKEND_WHY];
    (void)state;
    assert_int_equal(choose(name, why, "auto", "tf32"), MODE_E_DEVICE);
    assert_int_equal(choose(name, why, "cpu", "tf32"), MODE_E_DEVICE);
    assert_int_equal(choose(name, why, "ref", "bf16"), MODE_E_DEVICE);
    assert_int_equal(choose(name, why, "cuda", "tf32"), MODE_E_DEVICE);
    assert_int_equal(choose(name, why, "cuda-tf32", "f32"), MODE_E_DEVICE);
    assert_non_null(strstr(err.text, "f32"));
    assert_int_equal(choose(name, why, "auto", "fp4"), MODE_E_VALUE);
    assert_int_equal(choose(name, why, "nonsense", "f32"), MODE_E_VALUE);
}

/* An experimental backend, by name only: tasks cannot request it, and a worker that uses it takes no tasks. */
static void test_no_task_is_computed_in_fp8(void **state)
{
    static const char *const precisions[] = {"f32", "tf32", "bf16"};
    char name[32], why[MODE_BACKEND_WHY];
    (void)state;
    assert_int_equal(choose(name, why, "auto", "fp8"), MODE_E_VALUE);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(choose(name, why, "ref-fp8", precisions[i]), MODE_E_DEVICE);
        assert_int_equal(choose(name, why, "cuda-fp8", precisions[i]), MODE_E_DEVICE);
    }
    assert_int_equal(choose(name, why, "ref-fp8", NULL), MODE_OK);
    assert_string_equal(name, "ref-fp8");
}

/* Each backend of the list opens under its own name, or does not exist here; its GEMM precision is that of the list. */
static void test_every_name_of_the_list_is_known(void **state)
{
    static const struct {
        const char *name, *precision;
    } all[] = {
#define X(name, precision, ops, whom) {name, precision},
        MODE_BACKENDS(X)
#undef X
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char name[32], why[MODE_BACKEND_WHY];
        const enum mode_status st = choose(name, why, all[i].name, NULL);
        const bool here = strncmp(all[i].name, "ref", 3) == 0 || strcmp(all[i].name, "cpu-plain") == 0;
        assert_int_equal(mode_check_backend_option(all[i].name, &err), MODE_OK);
        assert_true(st == MODE_OK || (st == MODE_E_DEVICE && !here));
        if (!st && strcmp(all[i].name, "cpu") != 0) assert_string_equal(name, all[i].name);
        if (strcmp(all[i].precision, "fp8") == 0) continue;
        if (!st) assert_int_equal(choose(name, why, all[i].name, all[i].precision), MODE_OK);
    }
    assert_int_equal(mode_check_backend_option("cuda-f64", &err), MODE_E_USAGE);
    assert_non_null(strstr(err.text, "expected auto (a GPU if one can be used) | cpu | cpu-amx | cuda | "));
    assert_null(strstr(err.text, "cpu-plain"));
}

static void test_a_device_is_one_of_those_that_are_seen(void **state)
{
    (void)state;
    unsetenv("CUDA_VISIBLE_DEVICES");
    assert_int_equal(mode_process_pick_gpu(0, &err), MODE_OK);
    assert_null(getenv("CUDA_VISIBLE_DEVICES"));
    assert_int_equal(mode_process_pick_gpu(3, &err), MODE_OK);
    assert_string_equal(getenv("CUDA_VISIBLE_DEVICES"), "3");
    setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,5,7", 1); /* as set by a batch system */
    assert_int_equal(mode_process_pick_gpu(1, &err), MODE_OK);
    assert_string_equal(getenv("CUDA_VISIBLE_DEVICES"), "5");
    setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,5", 1);
    assert_int_equal(mode_process_pick_gpu(2, &err), MODE_E_CONFIG);
    assert_int_equal(mode_process_pick_gpu(-1, &err), MODE_E_CONFIG);
}

static int64_t claim(const char *dir, const char *kind)
{
    int64_t index;
    assert_int_equal(mode_process_claim_gpus(&index, 1, dir, kind, &err), MODE_OK);
    return index;
}

static void test_workers_of_a_kind_share_the_gpus_out(void **state)
{
    char dir[] = "/tmp/gpus.XXXXXX", command[64];
    int64_t index;
    int status;
    (void)state;
    assert_non_null(mkdtemp(dir));
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    assert_int_equal(claim(dir, "train"), -1);
    setenv("CUDA_VISIBLE_DEVICES", "0,1,2", 1);
    assert_int_equal(claim(dir, "train"), 0);
    pid_t pid = fork();
    if (pid == 0) _exit(claim(dir, "train") == 1 ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(claim(dir, "train"), 1); /* that process has exited */
    assert_int_equal(claim(dir, "embed"), 0); /* another kind */
    assert_int_equal(claim(dir, "train"), 2);
    assert_int_equal(claim(dir, "train"), 0); /* all are claimed: a second round */
    assert_int_equal(mode_process_claim_gpus(&index, 1, "/nonexistent", "train", &err), MODE_E_IO);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* A worker that claims several gets different ones, also if they are claimed for the second time. */
static void test_a_worker_may_take_several_gpus(void **state)
{
    char dir[] = "/tmp/gpus.XXXXXX", command[64];
    int64_t a[2], b[2], c[3];
    (void)state;
    assert_non_null(mkdtemp(dir));
    setenv("CUDA_VISIBLE_DEVICES", "4,5,6", 1);
    assert_int_equal(mode_process_claim_gpus(a, 2, dir, "train", &err), MODE_OK);
    assert_true(a[0] == 0 && a[1] == 1);
    assert_int_equal(mode_process_claim_gpus(b, 2, dir, "train", &err), MODE_OK);
    assert_true(b[0] == 2 && b[1] == 0);
    assert_int_equal(mode_process_claim_gpus(c, 3, dir, "train", &err), MODE_OK);
    assert_true(c[0] == 1 && c[1] == 2 && c[2] == 0);
    assert_int_equal(mode_process_claim_gpus(&(int64_t[4]){0}[0], 4, dir, "train", &err), MODE_E_CONFIG);
    assert_int_equal(mode_process_pick_gpus(b, 2, &err), MODE_OK);
    assert_string_equal(getenv("CUDA_VISIBLE_DEVICES"), "6,4");
    assert_int_equal(mode_process_pick_gpu(1, &err), MODE_OK);
    assert_string_equal(getenv("CUDA_VISIBLE_DEVICES"), "4");
    assert_int_equal(mode_process_pick_gpus(b, 2, &err), MODE_E_CONFIG);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_worker_may_take_several_gpus),
        cmocka_unit_test(test_auto_takes_the_processor_and_says_why),
        cmocka_unit_test(test_a_lower_precision_is_never_computed_otherwise),
        cmocka_unit_test(test_no_task_is_computed_in_fp8),
        cmocka_unit_test(test_workers_of_a_kind_share_the_gpus_out),
        cmocka_unit_test(test_every_name_of_the_list_is_known),
        cmocka_unit_test(test_a_device_is_one_of_those_that_are_seen),
    };
    setenv("CUDA_VISIBLE_DEVICES", "", 1); /* also on a machine with a GPU */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
