/* Ranges of numeric options: an error names the option, its range and the given value. */
#include "ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct options {
    int64_t batch, threads;
    double lr, beta, scale;
};

static const struct mode_option table[] = {MODE_OPT_INT(struct options, batch, "batch-size", "4", "N", ""),
                                           MODE_OPT_INT(struct options, threads, "threads", NULL, "N", ""),
                                           MODE_OPT_REAL(struct options, lr, "lr", "1", "X", ""),
                                           MODE_OPT_REAL(struct options, beta, "beta", "0.5", "X", ""),
                                           MODE_OPT_REAL(struct options, scale, "scale", "1", "X", ""),
                                           MODE_OPT_END};
static const struct option_range ranges[] = {RANGE_FROM("batch-size", 1),   RANGE_THREADS,
                                             RANGE_ABOVE("lr", 0),          RANGE_BELOW("beta", 0, 1),
                                             RANGE_ABOVE_TO("scale", 0, 1), RANGE_END};

/* The error of a command line with one option; "" when it is valid. */
static enum mode_status check(char *option, struct mode_error *err)
{
    struct options o;
    char program[] = "x", *argv[] = {program, option};
    int n;
    *err = (struct mode_error){0};
    enum mode_status st = mode_options_parse(&o, table, "TEST_", option ? 2 : 1, argv, &n, err);
    if (!st) st = ranges_check(&o, table, ranges, err);
    return mode_options_blame(st, err, "TEST_", option ? 2 : 1, argv);
}

static void test_each_kind_of_range(void **state)
{
    static const struct {
        const char *option, *sentence; /* "": in range */
    } cases[] = {
        {"--batch-size=1", ""},
        {"--batch-size=9223372036854775807", ""},
        {"--batch-size=0", "--batch-size: 0 is out of range, expected 1 or more"},
        {"--batch-size=-7", "--batch-size: -7 is out of range, expected 1 or more"},
        {"--threads=0", ""},
        {"--threads=1024", ""},
        {"--threads=1025", "--threads: 1025 is out of range, expected 0 to 1024"},
        {"--threads=-1", "--threads: -1 is out of range, expected 0 to 1024"},
        {"--lr=1e-9", ""},
        {"--lr=0", "--lr: 0 is out of range, expected more than 0"},
        {"--beta=0", ""},
        {"--beta=1", "--beta: 1 is out of range, expected 0 or more and less than 1"},
        {"--scale=1", ""},
        {"--scale=0", "--scale: 0 is out of range, expected more than 0 and at most 1"},
        {"--scale=1.5", "--scale: 1.5 is out of range, expected more than 0 and at most 1"},
    };
    struct mode_error err;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char option[64];
        strcpy(option, cases[i].option);
        assert_int_equal(check(option, &err), *cases[i].sentence ? MODE_E_USAGE : MODE_OK);
        assert_string_equal(err.text, cases[i].sentence);
    }
    assert_int_equal(check(NULL, &err), MODE_OK); /* defaults */
}

static void test_the_environment_is_named(void **state)
{
    struct mode_error err;
    char good[] = "--batch-size=3";
    (void)state;
    setenv("TEST_BATCH_SIZE", "0", 1);
    assert_int_equal(check(NULL, &err), MODE_E_CONFIG);
    assert_string_equal(err.text, "TEST_BATCH_SIZE: 0 is out of range, expected 1 or more");
    assert_int_equal(check(good, &err), MODE_OK);
    unsetenv("TEST_BATCH_SIZE");
}

static void test_what_must_be_given(void **state)
{
    struct mode_error err;
    int64_t n = -1;
    (void)state;
    assert_int_equal(option_needed("x", "--model DIR", &err), MODE_OK);
    assert_int_equal(option_needed(NULL, "--model DIR", &err), MODE_E_USAGE);
    assert_non_null(strstr(err.text, "--model DIR is needed"));
    char *argv[] = {"verb", "first", "second"};
    assert_int_equal(arguments_check(2, 2, argv, NULL, &err), MODE_OK);
    assert_int_equal(arguments_check(2, 1, argv, NULL, &err), MODE_E_USAGE);
    assert_string_equal(err.text, "unexpected argument \"second\"; --help lists all options");
    assert_int_equal(arguments_check(2, 0, argv, "texts come from stdin", &err), MODE_E_USAGE);
    assert_string_equal(err.text, "unexpected argument \"first\"; texts come from stdin");
    assert_int_equal(option_count(&n, "12", "--steps", 1, 20, &err), MODE_OK);
    assert_true(n == 12);
    static const char *const bad[] = {"0", "21", "x", "", "1.5"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(option_count(&n, bad[i], "--steps", 1, 20, &err), MODE_E_USAGE);
        assert_int_equal(err.status, MODE_E_USAGE);
        assert_non_null(strstr(err.text, "--steps: "));
        assert_non_null(strstr(err.text, bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_range),
        cmocka_unit_test(test_the_environment_is_named),
        cmocka_unit_test(test_what_must_be_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
