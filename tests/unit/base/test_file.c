/* The status of each file error: a file that cannot be read, a place that cannot be written. */
#include "base/file.h"

#include "base/str.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[] = "/tmp/mode-file-XXXXXX";
static struct mode_error err;

static char *in_root(const char *name)
{
    return mode_path_join(root, name);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return mode_dir_remove(root, NULL);
}

static void test_a_fault_has_one_status(void **state)
{
    (void)state;
    static const struct {
        int e;
        enum mode_status in, out;
    } cases[] = {{ENOENT, MODE_E_NOINPUT, MODE_E_CREATE},
                 {ENOTDIR, MODE_E_NOINPUT, MODE_E_CREATE},
                 {ELOOP, MODE_E_NOINPUT, MODE_E_CREATE},
                 {EISDIR, MODE_E_NOINPUT, MODE_E_CREATE},
                 {ENOTEMPTY, MODE_E_NOINPUT, MODE_E_CREATE},
                 {EACCES, MODE_E_PERM, MODE_E_PERM},
                 {EPERM, MODE_E_PERM, MODE_E_PERM},
                 {EROFS, MODE_E_PERM, MODE_E_PERM},
                 {ENOSPC, MODE_E_IO, MODE_E_IO},
                 {EIO, MODE_E_IO, MODE_E_IO},
                 {EDQUOT, MODE_E_IO, MODE_E_IO}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mode_input_fail(&err, cases[i].e, "a", "be opened"), cases[i].in);
        assert_int_equal(err.status, cases[i].in);
        assert_int_equal(mode_output_fail(&err, cases[i].e, "a", "be created"), cases[i].out);
        assert_int_equal(err.status, cases[i].out);
    }
    mode_output_fail(&err, ENOENT, "/no-such/a", "be created");
    assert_string_equal(err.text, "/no-such/a: cannot be created: there is no folder /no-such");
}

static void test_inputs_of_the_wrong_kind(void **state)
{
    (void)state;
    struct mode_mapping map;
    char *data, hex[MODE_DIGEST_HEX], *pipe = in_root("pipe"), *file = in_root("file");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(mode_file_write_atomic(file, "x", 1, &err), MODE_OK);
    assert_int_equal(mode_file_read(root, 0, &data, NULL, &err), MODE_E_NOINPUT);
    assert_int_equal(mode_file_map(root, &map, &err), MODE_E_NOINPUT);
    assert_int_equal(mode_digest_file(root, hex, NULL, &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "is a folder, a file is needed"));
    assert_int_equal(mode_file_read("/proc/self/status", 20, &data, NULL, &err), MODE_E_VALUE); /* its st_size is 0 */
    assert_non_null(strstr(err.text, "more than 20 bytes"));
    alarm(60);
    assert_int_equal(mode_file_map(pipe, &map, &err), MODE_E_NOINPUT); /* and does not wait for a writer */
    alarm(0);
    assert_int_equal(mode_input_folder(file, &err), MODE_E_NOINPUT);
    assert_int_equal(mode_input_folder(root, &err), MODE_OK);
    unlink(pipe);
    unlink(file);
    free(pipe), free(file);
}

static void test_a_folder_that_cannot_be_made(void **state)
{
    (void)state;
    char *file = in_root("file"), *below = in_root("file/d/e");
    assert_int_equal(mode_file_write_atomic(file, "x", 1, &err), MODE_OK);
    assert_int_equal(mode_dir_make(file, &err), MODE_E_CREATE);
    assert_int_equal(mode_dir_make(below, &err), MODE_E_CREATE);
    assert_int_equal(mode_dir_make("", &err), MODE_E_CREATE);
    unlink(file);
    free(file), free(below);
}

static void test_the_folder_of_a_path(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"a", "."},   {"a/b", "a"}, {"a/b//", "a"}, {"/a", "/"},
                                           {"/a/", "/"}, {"/", "/"},   {"", "."},      {"./a", "."}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = mode_path_folder(cases[i][0]);
        assert_string_equal(dir, cases[i][1]);
        free(dir);
    }
}

static void test_no_temporary_is_named(void **state)
{
    (void)state;
    MODE_FAIL(&err, MODE_E_IO, "out.new-1234/x: writing failed");
    mode_error_rename(&err, "out.new-1234", "out");
    assert_string_equal(err.text, "out/x: writing failed");
    mode_error_rename(&err, "other", "thing");
    assert_string_equal(err.text, "out/x: writing failed");
    mode_error_rename(NULL, "other", "thing");
    char *long_name = mode_xasprintf("%0*d", (int)sizeof err.text, 0);
    mode_error_rename(&err, "out", long_name);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    free(long_name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_fault_has_one_status), cmocka_unit_test(test_inputs_of_the_wrong_kind),
        cmocka_unit_test(test_a_folder_that_cannot_be_made), cmocka_unit_test(test_the_folder_of_a_path),
        cmocka_unit_test(test_no_temporary_is_named)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
