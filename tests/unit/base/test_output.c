/* Outputs: whether they can be written is known beforehand, and a failure leaves nothing. */
#include "base/file.h"
#include "base/output.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-output-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    return chdir("/") == 0 && mode_dir_remove(dir, NULL) == MODE_OK ? 0 : 1;
}

static void put(const char *path, const char *text)
{
    assert_int_equal(mode_file_write_atomic(path, text, strlen(text), NULL), MODE_OK);
}

static bool holds(const char *path, const char *text)
{
    char *data;
    if (mode_file_read(path, 0, &data, NULL, NULL)) return false;
    bool same = strcmp(data, text) == 0;
    free(data);
    return same;
}

static void refused(enum mode_status want, const char *path, const char *words)
{
    struct mode_error err = {0};
    assert_int_equal(mode_output_file(path, &err), want);
    assert_non_null(strstr(err.text, words));
}

static void test_where_a_file_can_be(void **state)
{
    (void)state;
    put("there", "x");
    assert_int_equal(mkdir("folder", 0755), 0);
    assert_int_equal(symlink("there", "link"), 0);
    assert_int_equal(symlink("missing", "lost"), 0);
    assert_int_equal(mkfifo("pipe", 0600), 0);
    static const char *const good[] = {"new", "there", "folder/new", "link", "./new"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_int_equal(mode_output_file(good[i], NULL), MODE_OK);
    assert_int_not_equal(access("new", F_OK), 0); /* checking creates nothing */
    refused(MODE_E_CREATE, "nowhere/new", "nowhere/new: cannot be created: there is no folder nowhere");
    refused(MODE_E_CREATE, "there/new", "there/new: cannot be created");
    refused(MODE_E_CREATE, "folder", "folder: is a folder; expected a file");
    refused(MODE_E_CREATE, "folder/", "is a folder");
    refused(MODE_E_CREATE, "new/", "is a folder");
    refused(MODE_E_CREATE, "pipe", "a device or a pipe");
    refused(MODE_E_CREATE, "lost", "leads nowhere");
    refused(MODE_E_CREATE, "", "empty");
}

/* Root may write everywhere: a separate process checks as another user. */
static void test_where_we_may_not_write(void **state)
{
    (void)state;
    assert_int_equal(mkdir("closed", 0755), 0);
    assert_int_equal(chmod("closed", 0555), 0);
    assert_int_equal(chmod(".", 0755), 0);
    put("closed-file", "x");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct mode_output_folder f;
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(9);
        if (mode_output_file("closed/new", NULL) != MODE_E_PERM) _exit(1);
        if (mode_output_folder_make(&f, "closed", NULL) != MODE_E_PERM) _exit(2);
        if (mode_output_folder_make(&f, "closed/a/b", NULL) != MODE_E_PERM) _exit(3);
        _exit(0);
    }
    int status = -1;
    assert_true(waitpid(child, &status, 0) == child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_a_folder_made_for_nothing_goes(void **state)
{
    struct mode_output_folder f;
    struct mode_error err;
    (void)state;
    assert_int_equal(mkdir("was", 0755), 0);
    static const char *const paths[] = {"was/a/b/c", "was/a//b/", "a/b", "./x/y"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_int_equal(mode_output_folder_make(&f, paths[i], NULL), MODE_OK);
        assert_int_equal(access(paths[i], W_OK), 0);
        mode_output_folder_close(&f, true);
        assert_int_not_equal(access(paths[i], F_OK), 0);
    }
    assert_int_not_equal(access("was/a", F_OK), 0);
    assert_int_not_equal(access("a", F_OK), 0);
    assert_int_equal(access("was", F_OK), 0);
    /* existing and non-empty folders stay */
    assert_int_equal(mode_output_folder_make(&f, "was", NULL), MODE_OK);
    mode_output_folder_close(&f, true);
    assert_int_equal(access("was", F_OK), 0);
    assert_int_equal(mode_output_folder_make(&f, "was/full/empty", NULL), MODE_OK);
    put("was/full/file", "x");
    mode_output_folder_close(&f, true);
    assert_int_equal(access("was/full/file", F_OK), 0);
    assert_int_not_equal(access("was/full/empty", F_OK), 0);
    assert_int_equal(mode_output_folder_make(&f, "kept/on", NULL), MODE_OK);
    mode_output_folder_close(&f, false);
    assert_int_equal(access("kept/on", F_OK), 0);
    /* a file in the way */
    assert_int_equal(mode_output_folder_make(&f, "was/full/file", &err), MODE_E_CREATE);
    assert_int_equal(mode_output_folder_make(&f, "was/full/file/x", &err), MODE_E_CREATE);
    assert_null(f.path);
    assert_int_equal(mode_output_folder_make(&f, "", &err), MODE_E_CREATE);
    mode_output_folder_close(&(struct mode_output_folder){0}, true);
}

static void test_files_come_all_or_none(void **state)
{
    struct mode_output_set set;
    struct mode_error err = {0};
    static const char *const paths[] = {"one", "two"};
    (void)state;
    put("one", "old");
    assert_int_equal(mode_output_set_open(&set, paths, 2, NULL), MODE_OK);
    put(set.aside[0], "new");
    assert_true(holds("one", "old"));
    /* the second fails: the first is as it was, nothing is left, and the message has no temporary name in it */
    enum mode_status st = MODE_FAIL(&err, MODE_E_IO, "%s: no room", set.aside[1]);
    assert_int_equal(mode_output_set_close(&set, st, &err), MODE_E_IO);
    assert_string_equal(err.text, "two: no room");
    assert_true(holds("one", "old"));
    assert_int_not_equal(access("two", F_OK), 0);
    assert_int_equal(system("test -z \"$(ls | grep -F .new-)\""), 0);

    assert_int_equal(symlink("one", "one-link"), 0);
    assert_int_equal(mode_output_set_open(&set, (const char *const[]){"one-link", "two"}, 2, NULL), MODE_OK);
    put(set.aside[0], "new");
    put(set.aside[1], "too");
    assert_int_equal(mode_output_set_close(&set, MODE_OK, NULL), MODE_OK);
    assert_true(holds("one", "new") && holds("two", "too"));
    struct stat at;
    assert_true(lstat("one-link", &at) == 0 && S_ISLNK(at.st_mode)); /* its target was replaced */

    assert_int_equal(mkdir("taken", 0755), 0);
    assert_int_equal(mode_output_set_open(&set, (const char *const[]){"one", "taken"}, 2, &err), MODE_E_CREATE);
    assert_true(set.n == 0 && strstr(err.text, "taken: is a folder"));
}

static void test_an_output_is_no_input(void **state)
{
    (void)state;
    assert_int_equal(mkdir("apart", 0755) | mkdir("apart/data", 0755) | mkdir("apart/out", 0755), 0);
    put("apart/in", "x");
    put("apart/data/part", "x");
    put("apart/out/old", "x");
    assert_int_equal(symlink("in", "apart/to-in") | link("apart/in", "apart/hard") | symlink("data", "apart/to-data"),
                     0);
    assert_int_equal(symlink("../data/part", "apart/out/to-part"), 0);
    const char *const inputs[] = {"apart/in", NULL, "apart/data", "apart/missing"};
    static const struct {
        const char *out, *says; /* NULL: fine */
    } cases[] = {
        {"apart/in", "apart/in: is an input"},
        {"apart/../apart/./in", "is an input of this command (apart/in)"},
        {"apart/to-in", "(apart/in)"},
        {"apart/hard", "(apart/in)"},
        {"apart/data", "(apart/data)"},
        {"apart/to-data/", "(apart/data)"},
        {"apart/data/part", "apart/data/part: is a file of the input folder apart/data"},
        {"apart/to-data/part", "of the input folder apart/data"},
        {"apart/out/to-part", "of the input folder apart/data"},
        {"apart/missing", NULL},
        {"apart/data/new", NULL}, /* replaces nothing */
        {"apart/out/old", NULL},
        {"apart/out", NULL},
        {"apart", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mode_error err = {0};
        assert_int_equal(mode_output_apart(cases[i].out, inputs, 4, &err), cases[i].says ? MODE_E_CREATE : MODE_OK);
        if (cases[i].says) assert_non_null(strstr(err.text, cases[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_a_file_can_be),
        cmocka_unit_test(test_where_we_may_not_write),
        cmocka_unit_test(test_a_folder_made_for_nothing_goes),
        cmocka_unit_test(test_files_come_all_or_none),
        cmocka_unit_test(test_an_output_is_no_input),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
