/* Prefetching of shards: which copies are pinned, which are released, and which shards are read by pictures. The copies
 * are in the shard cache already; tests/service/remote.sh tests downloads. */
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "pipeline/shard_ahead.h"
#include "remote/shards.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { SHARDS = 9, BYTES = 4000, ON_DISK = 4096, WINDOW = 3, SEED = 5, N_WINDOWS = SHARDS - WINDOW + 1 };

static char folder[] = "/tmp/mode-ahead-XXXXXX", *address[SHARDS], *copy[SHARDS];
static struct mode_shard_order order;
static uint32_t turn[2][SHARDS];

static int setup(void **state)
{
    (void)state;
    static const char text[BYTES] = "a shard";
    uint32_t end[SHARDS];
    bool has_turn[SHARDS];
    if (!mkdtemp(folder)) return 1;
    setenv("MODE_SHARD_CACHE", folder, 1);
    unsetenv("MODE_SHARD_CACHE_BYTES");
    for (int i = 0; i < SHARDS; i++) {
        char name[MODE_DIGEST_HEX];
        address[i] = mode_xasprintf("http://127.0.0.1:1/%d.tar#bytes=%d,etag=v", i, BYTES);
        mode_digest_bytes(address[i], strlen(address[i]), name);
        copy[i] = mode_path_join(folder, name);
        if (mode_file_write_atomic(copy[i], text, BYTES, NULL)) return 1;
        end[i] = (uint32_t)(i + 1) * 10;
        has_turn[i] = true;
    }
    if (mode_shard_order_init(&order, SHARDS, end, has_turn, WINDOW, 0, SEED, NULL)) return 1;
    for (uint64_t epoch = 0; epoch < 2; epoch++) mode_shard_order_turns(&order, epoch, turn[epoch]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mode_shard_order_clear(&order);
    for (int i = 0; i < SHARDS; i++) {
        free(address[i]);
        free(copy[i]);
    }
    return mode_dir_remove(folder, NULL);
}

static int shard_at(uint64_t t)
{
    return (int)order.shard[turn[t / SHARDS][t % SHARDS]];
}

static bool is_held(int shard)
{
    const int fd = open(copy[shard], O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    const bool yes = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    return yes;
}

/* Waits until exactly the turns from .. to - 1 are pinned: prefetching is asynchronous. */
static void check_held(uint64_t from, uint64_t to)
{
    for (int tries = 0;; tries++) {
        bool want[SHARDS] = {0}, right = true;
        for (uint64_t t = from; t < to; t++) want[shard_at(t)] = true;
        for (int i = 0; i < SHARDS; i++) right = right && is_held(i) == want[i];
        if (right) return;
        assert_true(tries < 6000);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

static struct mode_shard_ahead *open_ahead(uint64_t room)
{
    struct mode_shard_ahead *a;
    assert_int_equal(mode_shard_ahead_open(&a, &order, (const char *const *)address, SHARDS, room, NULL), MODE_OK);
    return a;
}

static void need(struct mode_shard_ahead *a, uint64_t from, uint64_t to, uint64_t end)
{
    assert_int_equal(mode_shard_ahead_need(a, from, to, end, NULL, NULL), MODE_OK);
}

static void test_two_windows_are_held_and_nothing_behind_or_after_the_end(void **state)
{
    (void)state;
    const uint64_t last = SHARDS + WINDOW; /* the training ends in the second epoch's first window */
    struct mode_shard_ahead *a = open_ahead(2 * WINDOW * ON_DISK);
    for (uint64_t epoch = 0; epoch < 2; epoch++)
        for (uint64_t w = 0; w < (epoch ? 1 : N_WINDOWS); w++) {
            const uint64_t from = epoch * SHARDS + w, to = from + WINDOW;
            need(a, from, to, last);
            char byte;
            for (uint64_t t = from; t < to; t++) {
                assert_true(mode_shard_ahead_file(a, (size_t)shard_at(t)) >= 0);
                assert_int_equal(pread(mode_shard_ahead_file(a, (size_t)shard_at(t)), &byte, 1, 0), 1);
            }
            check_held(from, to + WINDOW < last ? to + WINDOW : last);
        }
    mode_shard_ahead_close(&a);
    check_held(0, 0);
}

static void test_no_more_is_held_than_there_is_room_for(void **state)
{
    (void)state;
    struct mode_shard_ahead *a = open_ahead((WINDOW + 1) * ON_DISK);
    need(a, 2, 2 + WINDOW, UINT64_MAX);
    check_held(2, 2 + WINDOW + 1);
    need(a, 3, 3 + WINDOW + 2, UINT64_MAX); /* a batch that spans three windows: one shard does not fit */
    check_held(3, 3 + WINDOW + 1);
    for (uint64_t t = 3; t < 3 + WINDOW + 1; t++) assert_true(mode_shard_ahead_file(a, (size_t)shard_at(t)) >= 0);
    assert_int_equal(mode_shard_ahead_file(a, (size_t)shard_at(3 + WINDOW + 1)), -1);
    need(a, 0, WINDOW, UINT64_MAX); /* from the start again */
    check_held(0, WINDOW + 1);
    mode_shard_ahead_close(&a);
}

static bool goes_on(void *ctx, uint64_t done, uint64_t total)
{
    int *left = ctx;
    (void)done;
    (void)total;
    return (*left)-- > 0;
}

/* Other processes pin the whole cache and keep it: after a timeout the shard is read by pictures, later ones do not
 * wait again, and what is cached stays. */
static void test_a_folder_that_others_hold_is_done_without(void **state)
{
    (void)state;
    int theirs[SHARDS];
    char *limit = mode_xasprintf("%d", (SHARDS - WINDOW) * ON_DISK + ON_DISK / 2), *kept[WINDOW];
    setenv("MODE_SHARD_CACHE_BYTES", limit, 1);
    mode_shard_set_patience(0.5);
    for (int t = 0; t < SHARDS; t++) {
        const int shard = shard_at((uint64_t)t);
        theirs[t] = -1;
        if (t < WINDOW) {
            kept[t] = mode_xasprintf("%s-%d", folder, t);
            assert_int_equal(rename(copy[shard], kept[t]), 0);
        } else {
            theirs[t] = open(copy[shard], O_RDONLY | O_CLOEXEC);
            assert_int_equal(flock(theirs[t], LOCK_SH), 0);
        }
    }
    struct mode_shard_ahead *a = open_ahead(SHARDS * ON_DISK);
    const double began = mode_clock_s();
    for (uint64_t from = 0; from + WINDOW <= SHARDS; from++) {
        need(a, from, from + WINDOW, UINT64_MAX);
        for (uint64_t t = from; t < from + WINDOW; t++)
            if (t < WINDOW) assert_int_equal(mode_shard_ahead_file(a, (size_t)shard_at(t)), -1);
        assert_true(mode_clock_s() - began >= 0.5); /* the first time */
    }
    mode_shard_set_patience(1000);
    int looks = 100;
    const struct mode_remote_watch watch = {goes_on, &looks};
    assert_int_equal(mode_shard_ahead_need(a, 0, WINDOW, UINT64_MAX, &watch, NULL), MODE_OK); /* from the start */
    for (uint64_t t = 0; t < WINDOW; t++) assert_int_equal(mode_shard_ahead_file(a, (size_t)shard_at(t)), -1);
    mode_shard_ahead_close(&a);
    for (int t = 0; t < SHARDS; t++) {
        if (theirs[t] >= 0) close(theirs[t]);
        if (t >= WINDOW) continue;
        assert_int_equal(rename(kept[t], copy[shard_at((uint64_t)t)]), 0);
        free(kept[t]);
    }
    unsetenv("MODE_SHARD_CACHE_BYTES");
    free(limit);
}

static bool never(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    *(uint64_t *)ctx = total;
    return false;
}

static void test_a_stop_is_heard_while_a_shard_is_waited_for(void **state)
{
    (void)state;
    struct mode_error err;
    uint64_t total = 0;
    const struct mode_remote_watch watch = {never, &total};
    unlink(copy[shard_at(1)]); /* its server does not answer */
    struct mode_shard_ahead *a = open_ahead(SHARDS * ON_DISK);
    assert_int_equal(mode_shard_ahead_need(a, 0, WINDOW, UINT64_MAX, &watch, &err), MODE_E_STOPPED);
    assert_true(total >= BYTES && total <= WINDOW * BYTES);
    mode_shard_ahead_close(&a);
}

static void test_a_folder_without_room_for_two_windows_is_told(void **state)
{
    (void)state;
    uint64_t bytes[] = {(uint64_t)1e9, (uint64_t)4e9, 0, (uint64_t)2e9, (uint64_t)3e9};
    char *text = mode_shard_ahead_warning(bytes, 5, 1, (uint64_t)7e9);
    assert_non_null(strstr(text, "two windows of 1 shard may have 7.1 GB, and the shard cache holds at most 7.0 GB"));
    assert_non_null(strstr(text, "train.window_shards"));
    free(text);
    assert_null(mode_shard_ahead_warning(bytes, 5, 1, (uint64_t)7.2e9));
    assert_null(mode_shard_ahead_warning(bytes, 5, 1000, (uint64_t)10.2e9));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_windows_are_held_and_nothing_behind_or_after_the_end),
        cmocka_unit_test(test_no_more_is_held_than_there_is_room_for),
        cmocka_unit_test(test_a_folder_that_others_hold_is_done_without),
        cmocka_unit_test(test_a_folder_without_room_for_two_windows_is_told),
        cmocka_unit_test(test_a_stop_is_heard_while_a_shard_is_waited_for),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
