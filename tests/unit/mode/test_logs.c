/* Log rotation while writers keep their file descriptors open. */
#include "logs.h"

#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/mode-logs-XXXXXX";

static void expect(const char *name, const char *want)
{
    char *path = mode_path_join(folder, name), *text = NULL;
    assert_int_equal(mode_file_read(path, 1 << 20, &text, NULL, NULL), MODE_OK);
    assert_string_equal(text, want);
    free(text);
    free(path);
}

static void test_a_large_log_begins_anew_and_no_line_is_lost(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    char *path = mode_path_join(folder, "embed.log"), *small = mode_path_join(folder, "redis.log");
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    assert_true(log >= 0);
    assert_int_equal(mode_file_write_atomic(small, "few\n", 4, NULL), MODE_OK);
    assert_int_equal(write(log, "one\ntwo\n", 8), 8);
    logs_rotate(folder, 8); /* not over the limit */
    expect("embed.log", "one\ntwo\n");
    assert_int_equal(write(log, "three\n", 6), 6);
    logs_rotate(folder, 8);
    expect("embed.log", "");
    expect("embed.log.1", "one\ntwo\nthree\n");
    assert_int_equal(write(log, "four\n", 5), 5); /* at the new start of the file, not after a hole */
    expect("embed.log", "four\n");
    assert_int_equal(write(log, "five\nsix\n", 9), 9);
    logs_rotate(folder, 8);
    expect("embed.log.1", "four\nfive\nsix\n"); /* one old generation */
    expect("redis.log", "few\n");
    close(log);
    free(path);
    free(small);
    assert_int_equal(mode_dir_remove(folder, NULL), MODE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_large_log_begins_anew_and_no_line_is_lost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
