/* The shard cache: a cached copy is used and stays while it is held, the others are evicted for new ones, and waiting
 * for space that others hold ends. No server: tests/service/remote.sh downloads. */
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "remote/shards.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { SHARDS = 4, BYTES = 4096 };

static char folder[] = "/tmp/mode-shards-XXXXXX", *address[SHARDS + 1], *copy[SHARDS + 1];
static struct mode_error err;

static void put(int i, size_t bytes)
{
    static const char text[BYTES] = "a shard";
    struct timespec used[2] = {{.tv_sec = 1000000 + i}, {.tv_sec = 1000000 + i}}; /* least recently used first */
    assert_int_equal(mode_file_write_atomic(copy[i], text, bytes, &err), MODE_OK);
    assert_int_equal(utimensat(AT_FDCWD, copy[i], used, 0), 0);
}

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(mode_dir_remove(folder, NULL), MODE_OK);
    assert_int_equal(mode_dir_make(folder, NULL), MODE_OK);
    char *limit = mode_xasprintf("%d", SHARDS * BYTES);
    setenv("MODE_SHARD_CACHE_BYTES", limit, 1);
    free(limit);
    for (int i = 0; i < SHARDS; i++) put(i, BYTES);
    mode_shard_set_patience(0.3);
    return 0;
}

static int make_names(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return 1;
    setenv("MODE_SHARD_CACHE", folder, 1);
    for (int i = 0; i <= SHARDS; i++) {
        char name[MODE_DIGEST_HEX];
        address[i] = mode_xasprintf("http://127.0.0.1:1/%d.tar#bytes=%d,etag=v", i, BYTES); /* nothing listens there */
        mode_digest_bytes(address[i], strlen(address[i]), name);
        copy[i] = mode_path_join(folder, name);
    }
    return 0;
}

static int remove_all(void **state)
{
    (void)state;
    for (int i = 0; i <= SHARDS; i++) {
        free(address[i]);
        free(copy[i]);
    }
    return mode_dir_remove(folder, NULL);
}

static int n_here(void)
{
    int n = 0;
    for (int i = 0; i <= SHARDS; i++) n += mode_file_exists(copy[i]);
    return n;
}

/* Stops a wait, or a download, after that many polls. */
static bool goes_on(void *ctx, uint64_t done, uint64_t total)
{
    int *left = ctx;
    (void)done;
    (void)total;
    return (*left)-- > 0;
}

static void test_what_is_here_is_held(void **state)
{
    (void)state;
    struct mode_shard_file f, again;
    struct stat sb;
    assert_int_equal(mode_shard_hold(&f, address[0], NULL, &err), MODE_OK);
    assert_int_equal(mode_shard_hold(&again, address[0], NULL, &err), MODE_OK); /* held twice */
    assert_string_equal(f.path, copy[0]);
    assert_true(stat(copy[0], &sb) == 0 && time(NULL) - sb.st_mtim.tv_sec < 1000); /* it is the newest now */
    int fd = open(copy[0], O_RDWR | O_CLOEXEC);
    assert_int_not_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    mode_shard_release(&f);
    assert_int_not_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    mode_shard_release(&again);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
    assert_int_equal(mode_shard_hold(&f, "/a/file.tar", NULL, &err), MODE_OK); /* a local file: itself */
    assert_string_equal(f.path, "/a/file.tar");
    assert_int_equal(f.hold, -1);
    mode_shard_release(&f);
}

/* A copy of another length than the shard is ignored. */
static void test_a_copy_that_is_cut_is_none(void **state)
{
    (void)state;
    struct mode_shard_file f;
    int looks = 1;
    const struct mode_remote_watch watch = {goes_on, &looks};
    put(1, BYTES - 1);
    assert_int_equal(mode_shard_hold(&f, address[1], &watch, &err), MODE_E_STOPPED); /* it is downloaded again */
    assert_false(mode_file_exists(copy[1]));
    assert_int_equal(f.hold, -1);
    assert_null(f.path);
}

/* The least recently used are evicted, no more than needed, and none that is held. */
static void test_room_is_made_of_what_nobody_has(void **state)
{
    (void)state;
    struct mode_shard_file theirs, f;
    int looks = 3;
    const struct mode_remote_watch watch = {goes_on, &looks};
    assert_int_equal(mode_shard_hold(&theirs, address[0], NULL, &err), MODE_OK);
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], &watch, &err), MODE_E_STOPPED);
    assert_true(mode_file_exists(copy[0]));
    assert_false(mode_file_exists(copy[1]));
    assert_int_equal(n_here(), SHARDS - 1);
    mode_shard_release(&theirs);
}

static void test_room_that_others_hold_is_waited_for_a_while(void **state)
{
    (void)state;
    struct mode_shard_file theirs[SHARDS], f;
    for (int i = 0; i < SHARDS; i++) assert_int_equal(mode_shard_hold(&theirs[i], address[i], NULL, &err), MODE_OK);
    const double began = mode_clock_s();
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], NULL, &err), MODE_E_TEMP);
    assert_true(mode_clock_s() - began >= 0.3);
    assert_non_null(strstr(err.text, "4096 bytes do not fit into"));
    assert_non_null(strstr(err.text, "beside 4 shards that are in use"));
    assert_non_null(strstr(err.text, "http://127.0.0.1:1/4.tar: ")); /* no mark, no lock, no temporary is named */
    assert_int_equal(n_here(), SHARDS);
    mode_shard_set_patience(1000); /* a stop is noticed meanwhile */
    int looks = 2;
    const struct mode_remote_watch watch = {goes_on, &looks};
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], &watch, &err), MODE_E_STOPPED);
    assert_non_null(strstr(err.text, "stopped while it waited for room"));
    for (int i = 0; i < SHARDS; i++) mode_shard_release(&theirs[i]);
}

/* The first waiter gets the space that is released meanwhile. */
static void *lets_go(void *theirs)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    mode_shard_release(theirs);
    return NULL;
}

static bool until_there_is_room(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return mode_file_exists(ctx);
}

static void test_room_that_comes_free_is_taken(void **state)
{
    (void)state;
    struct mode_shard_file theirs[SHARDS], f;
    pthread_t thread;
    const struct mode_remote_watch watch = {until_there_is_room, copy[2]};
    for (int i = 0; i < SHARDS; i++) assert_int_equal(mode_shard_hold(&theirs[i], address[i], NULL, &err), MODE_OK);
    mode_shard_set_patience(1000);
    assert_int_equal(pthread_create(&thread, NULL, lets_go, &theirs[2]), 0);
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], &watch, &err), MODE_E_STOPPED);
    assert_false(mode_file_exists(copy[2]));
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (int i = 0; i < SHARDS; i++) mode_shard_release(&theirs[i]);
}

/* A shard that would not fit into an empty cache is an error at once, and evicts nothing. */
static void test_what_is_larger_than_all_is_said_at_once(void **state)
{
    (void)state;
    struct mode_shard_file f;
    mode_shard_set_patience(1000);
    setenv("MODE_SHARD_CACHE_BYTES", "4095", 1);
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], NULL, &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "4096 bytes, and the shard cache"));
    assert_int_equal(n_here(), SHARDS);
    setenv("MODE_SHARD_CACHE_BYTES", "many", 1);
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], NULL, &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "MODE_SHARD_CACHE_BYTES: \"many\" is not a size"));
}

/* A partial file is never taken for a copy, and none is left after a final failure. */
static void test_no_part_stays_of_what_cannot_be_kept(void **state)
{
    (void)state;
    struct mode_shard_file f;
    setenv("MODE_SHARD_CACHE_BYTES", "4095", 1);
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], NULL, &err), MODE_E_CONFIG);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) assert_null(strstr(e->d_name, ".part"));
    closedir(d);
}

#define T(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_what_is_here_is_held),
        T(test_a_copy_that_is_cut_is_none),
        T(test_room_is_made_of_what_nobody_has),
        T(test_room_that_others_hold_is_waited_for_a_while),
        T(test_room_that_comes_free_is_taken),
        T(test_what_is_larger_than_all_is_said_at_once),
        T(test_no_part_stays_of_what_cannot_be_kept),
    };
    return cmocka_run_group_tests(tests, make_names, remove_all);
}
