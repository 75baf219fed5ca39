/* Available memory: of the machine, and within cgroup limits (v1 and v2); sizes as text. */
#include "base/memory.h"

#include "base/file.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>

#include <cmocka.h>
#include <unistd.h>

static char root[] = "/tmp/mode-memory-XXXXXX";

static void put(const char *path, const char *text)
{
    struct mode_error err;
    char *full = mode_xasprintf("%s/%s", root, path), *dir = mode_xstrdup(full);
    *strrchr(dir, '/') = '\0';
    if (mode_dir_make(dir, &err) || mode_file_write_atomic(full, text, strlen(text), &err)) fail_msg("%s", err.text);
    free(full);
    free(dir);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(root) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return mode_dir_remove(root, NULL);
}

static void test_the_least_of_all_limits_counts(void **state)
{
    (void)state;
    assert_true(mode_memory_left(root) == SIZE_MAX); /* nothing is known */
    put("proc/meminfo", "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:   5000 kB\n");
    assert_true(mode_memory_left(root) == 5000 << 10);
    put("proc/self/cgroup", "0::/\n"); /* version 2, in a container */
    assert_true(mode_memory_left(root) == 5000 << 10);
    put("sys/fs/cgroup/memory.max", "max\n");
    put("sys/fs/cgroup/memory.current", "77\n");
    assert_true(mode_memory_left(root) == 5000 << 10);
    put("sys/fs/cgroup/memory.max", "1000000\n");
    put("sys/fs/cgroup/memory.current", "300000\n");
    assert_true(mode_memory_left(root) == 700000);
    put("sys/fs/cgroup/memory.stat", "anon 1\ninactive_anon 5\ninactive_file 100000\n");
    assert_true(mode_memory_left(root) == 800000);
    put("proc/self/cgroup", "0::/a/b\n"); /* a group within a group has the tighter limit, then the looser one */
    put("sys/fs/cgroup/a/b/memory.max", "max\n");
    put("sys/fs/cgroup/a/b/memory.current", "1\n");
    put("sys/fs/cgroup/a/memory.max", "500\n");
    put("sys/fs/cgroup/a/memory.current", "100\n");
    assert_true(mode_memory_left(root) == 400);
    put("sys/fs/cgroup/a/memory.max", "50\n"); /* over its limit */
    assert_true(mode_memory_left(root) == 0);
    put("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/box\n0::/\n"); /* version 1 */
    assert_true(mode_memory_left(root) == 800000);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n");
    put("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "90000\n");
    put("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "80000\n");
    put("sys/fs/cgroup/memory/box/memory.stat", "inactive_file 3\ntotal_inactive_file 15000\n");
    assert_true(mode_memory_left(root) == 25000);
}

static void test_this_machine_has_memory_and_we_hold_some(void **state)
{
    (void)state;
    assert_true(mode_memory_left("") > 1 << 20);
    assert_true(mode_memory_held() > 100000 && mode_memory_held() < SIZE_MAX / 2);
}

/* Current memory, not the peak: freed memory is not counted. */
static void test_what_is_given_back_is_not_held(void **state)
{
    enum { BYTES = 64 << 20 };
    (void)state;
    size_t before = mode_memory_held();
    void *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    memset(p, 1, BYTES);
    assert_true(mode_memory_held() > before + BYTES / 2);
    munmap(p, BYTES);
    assert_true(mode_memory_held() < before + BYTES / 2);
}

static void test_sizes_are_read_strictly(void **state)
{
    static const char *const bad[] = {
        "", "0", "-1", "8gb", "g", "1.5.g", "1e3", "0x10", ".5g", "99999999999999999999", "20000000t", " 8", "8 g"};
    struct mode_error err;
    size_t n;
    (void)state;
    assert_int_equal(mode_parse_size("123456", "--memory", &n, &err), MODE_OK);
    assert_true(n == 123456);
    assert_int_equal(mode_parse_size("8G", "--memory", &n, &err), MODE_OK);
    assert_true(n == (size_t)8 << 30);
    assert_int_equal(mode_parse_size("3k", "--memory", &n, &err), MODE_OK);
    assert_true(n == 3072);
    assert_int_equal(mode_parse_size("1.5T", "--memory", &n, &err), MODE_OK);
    assert_true(n == (size_t)3 << 39);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(mode_parse_size(bad[i], "--memory", &n, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "--memory"));
    }
}

static void test_sizes_are_said_in_the_unit_that_fits(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } as[] = {{0, "0 bytes"},         {1, "1 byte"},
              {999, "999 bytes"},     {1000, "1.0 kB"},
              {999949, "999.9 kB"},   {999950, "1.0 MB"},
              {30000000, "30.0 MB"},  {999999999, "1.0 GB"},
              {4294967296, "4.3 GB"}, {UINT64_MAX, "18446.7 PB"}};
    char text[MODE_SIZE_TEXT];
    for (size_t i = 0; i < sizeof as / sizeof *as; i++)
        assert_string_equal(mode_size_text(text, as[i].bytes), as[i].text);
}

static void test_pages_are_shared_with_nobody(void **state)
{
    static const size_t sizes[] = {1, 100, MODE_PAGE, MODE_PAGE + 1, 0, 1};
    enum { N = sizeof sizes / sizeof *sizes };
    uint8_t *at[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        at[i] = mode_memory_pages(sizes[i]);
        assert_non_null(at[i]);
        assert_int_equal((uintptr_t)at[i] % MODE_PAGE, 0);
        memset(at[i], i,
               sizes[i] / MODE_PAGE * MODE_PAGE + (sizes[i] % MODE_PAGE ? MODE_PAGE : 0)); /* all of the last */
    }
    for (int i = 0; i < N; i++) {
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(at[i][k], i);
        free(at[i]);
    }
    assert_null(mode_memory_pages(SIZE_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_least_of_all_limits_counts),
        cmocka_unit_test(test_this_machine_has_memory_and_we_hold_some),
        cmocka_unit_test(test_what_is_given_back_is_not_held),
        cmocka_unit_test(test_sizes_are_read_strictly),
        cmocka_unit_test(test_sizes_are_said_in_the_unit_that_fits),
        cmocka_unit_test(test_pages_are_shared_with_nobody),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
