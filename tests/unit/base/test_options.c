/* Precedence, names and refusals of the option table. */
#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct opts {
    const char *model;
    int64_t batch;
    double lr;
    bool raw, bare;
};
static const struct mode_option table[] = {MODE_OPT_STR(struct opts, model, "model-dir", NULL, "DIR", "a folder"),
                                           MODE_OPT_INT(struct opts, batch, "batch", "256", "N", "pairs"),
                                           MODE_OPT_REAL(struct opts, lr, "lr", "5e-4", "X", "rate"),
                                           MODE_OPT_FLAG(struct opts, raw, "raw", "not normalised"),
                                           MODE_OPT_BARE(struct opts, bare, "bare", "no twin"),
                                           MODE_OPT_END};

static enum mode_status parse(struct opts *o, int *n, struct mode_error *err, int argc, const char **argv)
{
    static char *copy[16];
    for (int i = 0; i < argc; i++) copy[i] = (char *)(size_t)argv[i];
    enum mode_status st = mode_options_parse(o, table, "TESTOPT_", argc, copy, n, err);
    for (int i = 0; i < argc; i++) argv[i] = copy[i];
    return st;
}

static void test_fields_without_a_default_are_cleared(void **state)
{
    (void)state;
    struct opts o;
    int n;
    memset(&o, 0xff, sizeof o);
    const char *argv[] = {"verb"};
    assert_int_equal(parse(&o, &n, NULL, 1, argv), MODE_OK);
    assert_null(o.model);
    assert_int_equal(o.batch, 256);
    assert_true(o.lr == 5e-4);
    assert_false(o.raw);
    assert_int_equal(n, 0);
}

static void test_a_flag_beats_the_environment_and_that_the_default(void **state)
{
    (void)state;
    struct opts o;
    int n;
    setenv("TESTOPT_BATCH", "7", 1);
    setenv("TESTOPT_MODEL_DIR", "/e", 1);
    const char *argv[] = {"verb", "--batch=9", "pos", "--raw", "--lr", "1", "--", "--last"};
    assert_int_equal(parse(&o, &n, NULL, 8, argv), MODE_OK);
    assert_int_equal(o.batch, 9);
    assert_string_equal(o.model, "/e");
    assert_true(o.raw && o.lr == 1);
    assert_int_equal(n, 2);
    assert_string_equal(argv[1], "pos");
    assert_string_equal(argv[2], "--last");
    const char *off[] = {"verb", "--raw", "--no-raw"};
    assert_int_equal(parse(&o, &n, NULL, 3, off), MODE_OK);
    assert_int_equal(o.batch, 7);
    assert_false(o.raw);
    setenv("TESTOPT_BARE", "no flag's value", 1); /* another program's */
    const char *bare[] = {"verb", "--bare"};
    assert_int_equal(parse(&o, &n, NULL, 1, bare), MODE_OK);
    assert_false(o.bare);
    assert_int_equal(parse(&o, &n, NULL, 2, bare), MODE_OK);
    assert_true(o.bare);
    unsetenv("TESTOPT_BARE");
    unsetenv("TESTOPT_BATCH");
    unsetenv("TESTOPT_MODEL_DIR");
}

static void test_wrong_words_are_refused_by_name(void **state)
{
    (void)state;
    struct opts o;
    struct mode_error err = {0};
    int n;
    const char *unknown[] = {"verb", "--batsh", "3"}, *number[] = {"verb", "--batch", "3x"},
               *missing[] = {"verb", "--lr"}, *no_text[] = {"verb", "--no-model-dir"};
    assert_int_equal(parse(&o, &n, &err, 3, unknown), MODE_E_USAGE);
    assert_non_null(strstr(err.text, "--batsh; is --batch meant?"));
    const char *far[] = {"verb", "--nothing=1"};
    assert_int_equal(parse(&o, &n, &err, 2, far), MODE_E_USAGE);
    assert_string_equal(err.text, "unknown option --nothing=1; --help lists them");
    assert_int_equal(parse(&o, &n, &err, 3, number), MODE_E_USAGE);
    assert_non_null(strstr(err.text, "--batch"));
    assert_non_null(strstr(err.text, "3x"));
    assert_int_equal(parse(&o, &n, &err, 2, missing), MODE_E_USAGE);
    assert_int_equal(parse(&o, &n, &err, 2, no_text), MODE_E_USAGE);
    setenv("TESTOPT_LR", "fast", 1);
    const char *none[] = {"verb"};
    assert_int_equal(parse(&o, &n, &err, 1, none), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "TESTOPT_LR"));
    unsetenv("TESTOPT_LR");
}

static void test_what_is_wrong_is_blamed_on_who_said_it(void **state)
{
    (void)state;
    static const struct {
        const char *option, *text;
        enum mode_status st, blamed;
        const char *says;
    } cases[] = {
        {"--raw", "--model-dir: \"x\" is unknown", MODE_E_USAGE, MODE_E_CONFIG, "TESTOPT_MODEL_DIR: \"x\" is unknown"},
        {"--model-dir=x", "--model-dir: \"x\" is unknown", MODE_E_USAGE, MODE_E_USAGE, "--model-dir: \"x\" is unknown"},
        {"--model-dirs", "--model-dir \"x\"", MODE_E_USAGE, MODE_E_CONFIG, "TESTOPT_MODEL_DIR \"x\""},
        {"--raw", "--batch: 3 is odd", MODE_E_USAGE, MODE_E_USAGE, "--batch: 3 is odd"}, /* not given: its default */
        {"--raw", "--model-dir: gone", MODE_E_NOINPUT, MODE_E_NOINPUT, "--model-dir: gone"},
        {"--raw", "-- is missing", MODE_E_USAGE, MODE_E_USAGE, "-- is missing"},
    };
    setenv("TESTOPT_MODEL_DIR", "x", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct opts o;
        struct mode_error err = {0};
        int n;
        const char *argv[] = {"verb", cases[i].option, "pos", "other"};
        if (i != 2) assert_int_equal(parse(&o, &n, &err, 4, argv), MODE_OK); /* which moves them */
        MODE_FAIL(&err, cases[i].st, "%s", cases[i].text);
        assert_int_equal(mode_options_blame(cases[i].st, &err, "TESTOPT_", 4, (char **)(size_t)argv), cases[i].blamed);
        assert_string_equal(err.text, cases[i].says);
        assert_int_equal(err.status, cases[i].blamed);
    }
    unsetenv("TESTOPT_MODEL_DIR");
    struct mode_error err = {.status = MODE_E_FORMAT, .text = "\"x\" is no URL"};
    assert_int_equal(mode_option_wrong(&err, "redis"), MODE_E_USAGE);
    assert_int_equal(err.status, MODE_E_USAGE);
    assert_string_equal(err.text, "--redis: \"x\" is no URL");
}

/* What mode_options_help prints. Free it. */
static char *help_of(const struct mode_option *of, const char *columns, const char *usage, const char *prose)
{
    char *text = calloc(1, 4096);
    FILE *f = tmpfile();
    assert_non_null(text);
    assert_non_null(f);
    setenv("COLUMNS", columns, 1);
    fflush(stdout);
    const int before = dup(STDOUT_FILENO);
    dup2(fileno(f), STDOUT_FILENO);
    mode_options_help(of, "TESTOPT_", usage, prose);
    fflush(stdout);
    dup2(before, STDOUT_FILENO);
    close(before);
    unsetenv("COLUMNS");
    rewind(f);
    assert_true(fread(text, 1, 4095, f) > 0);
    fclose(f);
    return text;
}

static void test_help_is_as_wide_as_it_is_told(void **state)
{
    (void)state;
    static const struct mode_option of[] = {
        MODE_OPT_INT(struct opts, batch, "batch", "256", "N", "pairs in a step of which there are many"),
        MODE_OPT_STR(struct opts, model, "a-folder-with-a-long-name", NULL, "DIR", "one"),
        MODE_OPT_BARE(struct opts, bare, "bare", "first line\nsecond line"), MODE_OPT_END};
    static const struct mode_option none[] = {MODE_OPT_END};
    char *text = help_of(
        of, "60", "verb [options]",
        "Words that fill a line and more, at sixty columns to a line.\n"
        "A line of its own \xe2\x80\x93 \xe2\x80\x93 \xe2\x80\x93 \xe2\x80\x93 that fills sixty columns so.\n\n"
        "  a   table's row, which is longer than sixty columns and stays\nlast");
    assert_string_equal(
        text, "usage: verb [options]\n\n"
              "Words that fill a line and more, at sixty columns to a line.\n"
              "A line of its own \xe2\x80\x93 \xe2\x80\x93 \xe2\x80\x93 \xe2\x80\x93 that fills sixty columns so.\n\n"
              "  a   table's row, which is longer than sixty columns and stays\nlast\n\n"
              "options (environment variable in brackets):\n"
              "  --batch N                  pairs in a step of which there\n"
              "                             are many (default 256)\n"
              "                             [TESTOPT_BATCH]\n"
              "  --a-folder-with-a-long-name DIR\n"
              "                             one\n"
              "                             [TESTOPT_A_FOLDER_WITH_A_LONG_NAME]\n"
              "  --bare                     first line\n"
              "                             second line\n");
    free(text);
    text = help_of(none, "60", "verb", "Words that fill a line, at sixty columns to a line, and more.");
    assert_string_equal(text, "usage: verb\n\nWords that fill a line, at sixty columns to a line, and\nmore.\n");
    free(text);
    text = help_of(none, "1000", "verb", "Words that fill a line, at sixty columns to a line, and more.");
    assert_string_equal(text, "usage: verb\n\nWords that fill a line, at sixty columns to a line, and more.\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_without_a_default_are_cleared),
        cmocka_unit_test(test_a_flag_beats_the_environment_and_that_the_default),
        cmocka_unit_test(test_wrong_words_are_refused_by_name),
        cmocka_unit_test(test_what_is_wrong_is_blamed_on_who_said_it),
        cmocka_unit_test(test_help_is_as_wide_as_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
