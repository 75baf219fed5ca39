/* The cache of digests: unchanged inputs are found, and nothing that may have changed. */
#include "digests.h"

#include "base/file.h"
#include "base/log.h"
#include "base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { LONG_AGO = 1000000000 };

static char folder[] = "/tmp/mode-digests-XXXXXX";
static struct digests *d;
static char *task;

/* With that modification time. */
static void put_file(const char *name, const char *text, time_t when)
{
    struct mode_error err = {0};
    char *path = mode_path_join(folder, name), *dir = mode_path_folder(path);
    if (mode_dir_make(dir, &err) || mode_file_write_atomic(path, text, strlen(text), &err)) fail_msg("%s", err.text);
    const struct timespec t[] = {{.tv_sec = when}, {.tv_sec = when}};
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    free(path);
    free(dir);
}

static int set_up(void **state)
{
    (void)state;
    mode_log_set_level(MODE_LOG_ERROR);
    if (!mkdtemp(folder)) return 1;
    digests_open(&d, folder);
    task = mode_path_join(folder, "task");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    struct mode_error err = {0};
    digests_close(&d);
    free(task);
    return mode_dir_remove(folder, &err) != MODE_OK;
}

/* The cached value; "" = none. */
static const char *found(const char *what, const char *path)
{
    static char value[DIGESTS_VALUE];
    struct digests_look look;
    if (!digests_find(value, &look, d, what, path)) value[0] = '\0';
    return value;
}

static void keep(const char *what, const char *path, const char *value)
{
    char ignored[DIGESTS_VALUE];
    struct digests_look look;
    digests_find(ignored, &look, d, what, path);
    digests_keep(d, &look, value);
}

static void make_task(void)
{
    put_file("task/test/nshards.txt", "1\n", LONG_AGO);
    put_file("task/test/0.tar", "pictures", LONG_AGO);
}

static void test_what_was_digested_is_found(void **state)
{
    (void)state;
    make_task();
    assert_string_equal(found("task", task), "");
    keep("task", task, "abc");
    assert_string_equal(found("task", task), "abc");
    assert_string_equal(found("words", task), ""); /* is something else */
    digests_close(&d);
    digests_open(&d, folder); /* and after a restart */
    assert_string_equal(found("task", task), "abc");
    keep("task", task, "def");
    assert_string_equal(found("task", task), "def");
}

/* Time, size, name, one file more or less. */
static void test_a_changed_file_is_digested_again(void **state)
{
    (void)state;
    make_task();
    keep("task", task, "abc");
    put_file("task/test/0.tar", "pictures", LONG_AGO + 1);
    assert_string_equal(found("task", task), "");
    put_file("task/test/0.tar", "picture", LONG_AGO);
    assert_string_equal(found("task", task), "");
    make_task();
    assert_string_equal(found("task", task), "abc"); /* as it was */
    put_file("task/classnames.txt", "", LONG_AGO);
    assert_string_equal(found("task", task), "");
    char *names = mode_path_join(task, "classnames.txt");
    assert_int_equal(unlink(names), 0);
    free(names);
    assert_string_equal(found("task", task), "abc");
}

/* It could change once more within the same clock tick, or has changed while it was read. */
static void test_what_just_changed_is_not_remembered(void **state)
{
    (void)state;
    char value[DIGESTS_VALUE];
    struct digests_look look;
    make_task();
    put_file("task/test/0.tar", "pictures!", time(NULL) + 60); /* recent, however slow the machine is */
    keep("task", task, "new");
    assert_string_equal(found("task", task), "");
    make_task();
    put_file("task/test/0.tar", "pictures!", LONG_AGO + 2);
    assert_false(digests_find(value, &look, d, "task", task));
    put_file("task/test/0.tar", "pictures?", LONG_AGO + 3);
    digests_keep(d, &look, "of the first");
    assert_string_equal(found("task", task), "");
    put_file("task/test/0.tar", "pictures!", LONG_AGO + 2);
    assert_string_equal(found("task", task), "");
}

static void test_a_file_stands_for_those_beside_it(void **state)
{
    (void)state;
    char *index = mode_path_join(folder, "model/w.index.json");
    put_file("model/w.index.json", "{}", LONG_AGO);
    put_file("model/w-1.safetensors", "1", LONG_AGO);
    keep("init", index, "abc");
    assert_string_equal(found("init", index), "abc");
    put_file("model/w-1.safetensors", "2", LONG_AGO + 1);
    assert_string_equal(found("init", index), "");
    free(index);
}

static void test_what_is_not_there_is_not_remembered(void **state)
{
    (void)state;
    char *none = mode_path_join(folder, "none");
    keep("task", none, "abc");
    assert_string_equal(found("task", none), "");
    free(none);
}

/* Every byte of an entry inverted; the entry truncated; something else in its place; no entries at all. */
static void test_a_damaged_entry_is_none(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *dir = mode_path_join(folder, "digests"), *path = NULL, *text;
    size_t size;
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    make_task();
    keep("task", task, "abc");
    DIR *all = opendir(dir);
    for (const struct dirent *e; (e = readdir(all));)
        if (e->d_name[0] != '.') path = mode_path_join(dir, e->d_name);
    closedir(all);
    assert_non_null(path);
    assert_int_equal(mode_file_read(path, 0, &text, &size, &err), MODE_OK);
    for (size_t i = 0; i < size; i++) {
        text[i] ^= 1;
        assert_int_equal(mode_file_write_atomic(path, text, size, &err), MODE_OK);
        assert_string_equal(found("task", task), "");
        text[i] ^= 1;
    }
    for (size_t n = 0; n < size; n += 7) {
        assert_int_equal(mode_file_write_atomic(path, text, n, &err), MODE_OK);
        assert_string_equal(found("task", task), "");
    }
    assert_int_equal(mode_file_write_atomic(path, text, size, &err), MODE_OK);
    assert_string_equal(found("task", task), "abc");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mode_dir_make(path, &err), MODE_OK); /* a folder */
    assert_string_equal(found("task", task), "");
    keep("task", task, "abc");
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    assert_string_equal(found("task", task), "");
    keep("task", task, "abc");
    assert_string_equal(found("task", task), "abc");
    free(path);
    free(text);
    free(dir);
}

static void test_reading_is_told_and_stopped(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char said[200], hex[MODE_DIGEST_HEX], *tar = mode_path_join(folder, "big/test/0.tar"),
                                          *big = mode_path_join(folder, "big");
    put_file("big/test/0.tar", "small", LONG_AGO);
    digests_watch(d);
    digests_reading(said, sizeof said, d);
    assert_string_equal(said, "");
    digests_begin(d, "the evaluation tasks");
    digests_expect(d, "task", big);
    assert_int_equal(truncate(tar, 100000000), 0); /* now larger than expected */
    assert_int_equal(mode_digest_file(tar, hex, NULL, &err), MODE_OK);
    digests_reading(said, sizeof said, d);
    assert_string_equal(said, "is reading the evaluation tasks: 5 bytes of 5 bytes");
    digests_begin(d, "the evaluation tasks");
    digests_expect(d, "task", big);
    digests_reading(said, sizeof said, d);
    assert_string_equal(said, "is reading the evaluation tasks: 0 bytes of 100.0 MB");
    assert_int_equal(mode_digest_file(tar, hex, NULL, &err), MODE_OK);
    digests_reading(said, sizeof said, d);
    assert_string_equal(said, "is reading the evaluation tasks: 100.0 MB of 100.0 MB");
    digests_begin(d, NULL);
    digests_reading(said, sizeof said, d);
    assert_string_equal(said, "");
    digests_stop(d);
    assert_int_equal(mode_digest_file(tar, hex, NULL, &err), MODE_E_STOPPED);
    digests_watch(NULL);
    assert_int_equal(mode_digest_file(tar, hex, NULL, &err), MODE_OK);
    free(tar);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_digested_is_found),
        cmocka_unit_test(test_a_changed_file_is_digested_again),
        cmocka_unit_test(test_what_just_changed_is_not_remembered),
        cmocka_unit_test(test_a_file_stands_for_those_beside_it),
        cmocka_unit_test(test_what_is_not_there_is_not_remembered),
        cmocka_unit_test(test_a_damaged_entry_is_none),
        cmocka_unit_test(test_reading_is_told_and_stopped),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
