/* The folder of shards: what is here is used and stays while somebody holds it, what is not makes room, and for room that
 * others hold nobody waits for ever. No server: tests/service/remote.sh fetches. */
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
    struct timespec used[2] = {{.tv_sec = 1000000 + i}, {.tv_sec = 1000000 + i}}; /* the first one longest unused */
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
        address[i] = mode_xasprintf("http://127.0.0.1:1/%d.tar#bytes=%d,etag=v", i, BYTES); /* nobody listens */
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

/* Stops what waits, or is fetched, after so many looks. */
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
    assert_int_equal(mode_shard_hold(&again, address[0], NULL, &err), MODE_OK); /* by several */
    assert_string_equal(f.path, copy[0]);
    assert_true(stat(copy[0], &sb) == 0 && time(NULL) - sb.st_mtim.tv_sec < 1000); /* it is the newest now */
    int fd = open(copy[0], O_RDWR | O_CLOEXEC);
    assert_int_not_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    mode_shard_release(&f);
    assert_int_not_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    mode_shard_release(&again);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
    assert_int_equal(mode_shard_hold(&f, "/a/file.tar", NULL, &err), MODE_OK); /* of this machine: itself */
    assert_string_equal(f.path, "/a/file.tar");
    assert_int_equal(f.hold, -1);
    mode_shard_release(&f);
}

/* A copy that is not as long as the shard is none, whoever made it so. */
static void test_a_copy_that_is_cut_is_none(void **state)
{
    (void)state;
    struct mode_shard_file f;
    int looks = 1;
    const struct mode_remote_watch watch = {goes_on, &looks};
    put(1, BYTES - 1);
    assert_int_equal(mode_shard_hold(&f, address[1], &watch, &err), MODE_E_STOPPED); /* it is fetched anew */
    assert_false(mode_file_exists(copy[1]));
    assert_int_equal(f.hold, -1);
    assert_null(f.path);
}

/* The one that was not used for longest goes, no more than needed, and none that somebody has. */
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
    assert_non_null(strstr(err.text, "4096 bytes find no room in"));
    assert_non_null(strstr(err.text, "beside 4 that are in use"));
    assert_non_null(strstr(err.text, "http://127.0.0.1:1/4.tar: ")); /* no mark, no lock, no temporary is named */
    assert_int_equal(n_here(), SHARDS);
    mode_shard_set_patience(1000); /* whoever is to stop hears it meanwhile */
    int looks = 2;
    const struct mode_remote_watch watch = {goes_on, &looks};
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], &watch, &err), MODE_E_STOPPED);
    assert_non_null(strstr(err.text, "stopped while it waited for room"));
    for (int i = 0; i < SHARDS; i++) mode_shard_release(&theirs[i]);
}

/* The first who waits gets what is let go of meanwhile. */
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

/* What would not fit into an empty folder is said at once, and costs nobody his copy. */
static void test_what_is_larger_than_all_is_said_at_once(void **state)
{
    (void)state;
    struct mode_shard_file f;
    mode_shard_set_patience(1000);
    setenv("MODE_SHARD_CACHE_BYTES", "4095", 1);
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], NULL, &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "4096 bytes, and the folder of shards"));
    assert_int_equal(n_here(), SHARDS);
    setenv("MODE_SHARD_CACHE_BYTES", "many", 1);
    assert_int_equal(mode_shard_hold(&f, address[SHARDS], NULL, &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "MODE_SHARD_CACHE_BYTES: \"many\" is no size"));
}

/* Nobody's part is taken for a copy, and none is left of what failed for good. */
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
