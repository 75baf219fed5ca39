/* The Redis Functions against a real, private redis-server: what they refuse and what they record. Skipped, with a
 * message, where it is not installed. */
#include "redis.h"

#include "base/file.h"
#include "base/str.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/mode-redis-XXXXXX", *url;
static pid_t server;

/* maxmemory in bytes, as text; "0" = any. */
static void start_server_with(const char *maxmemory)
{
    if ((server = fork()) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (chdir(folder) != 0 || !freopen("/dev/null", "w", stdout)) _exit(1);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", "s", "--save", "", "--appendonly", "yes",
               "--maxmemory", maxmemory, (char *)NULL);
        _exit(127);
    }
}

static void start_server(void)
{
    start_server_with("0");
}

static void stop_server(void)
{
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    if (system("redis-server --version >/dev/null 2>&1") != 0) {
        print_message("SKIPPED: redis-server is not installed; the Redis Functions were NOT tested\n");
        exit(77);
    }
    if (!mkdtemp(folder)) return 1;
    url = mode_xasprintf("unix://%s/s", folder);
    start_server();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    struct mode_error err = {0};
    stop_server();
    free(url);
    return mode_dir_remove(folder, &err) != MODE_OK;
}

static struct redis *connected(bool *fresh)
{
    struct redis *r;
    struct mode_error err = {0};
    assert_int_equal(redis_open(&r, url, "0123456789abcdef", &err), MODE_OK);
    for (int i = 0; redis_connect(r, fresh, &err) && i < 6000; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    if (!redis_is_up(r)) fail_msg("%s", err.text);
    return r;
}

static bool move(struct redis *r, uint64_t epoch, struct core_task *t, enum core_state state, uint64_t fence, bool sync,
                 bool *stale)
{
    struct mode_error err = {0};
    bool ok;
    size_t n_refused;
    t->fence = fence;
    redis_move(r, epoch,
               &(struct redis_move){.task = t, .state = state, .session = "", .until_unix_ms = 5, .sync = sync});
    if (redis_flush(r, &ok, &n_refused, stale, &err)) fail_msg("%s", err.text);
    assert_int_equal(n_refused, !ok);
    return ok;
}

/* The queue that holds this task. */
static void expect_in(const char *key, bool ready, bool leased, bool waits, bool given_up)
{
    static const char *const ask[] = {"ZSCORE mode:0123456789ab:ready:embed", "ZSCORE mode:0123456789ab:inflight",
                                      "ZSCORE mode:0123456789ab:wait", "SISMEMBER mode:0123456789ab:quarantined"};
    const bool want[] = {ready, leased, waits, given_up};
    for (int i = 0; i < 4; i++) {
        char *line = mode_xasprintf("redis-cli -s %s/s --raw %s %s | grep -q '[1-9]'", folder, ask[i], key);
        if ((system(line) == 0) != want[i]) fail_msg("%s: %s", key, ask[i]);
        free(line);
    }
}

static void test_transitions_are_checked(void **state)
{
    (void)state;
    bool fresh, found, stale;
    struct mode_error err = {0};
    struct redis_memory m;
    struct redis *r = connected(&fresh);
    struct core_task t = {.key = "k1", .service = "embed", .attempt = 1, .order = 7};
    t.failures[CORE_FAIL_CRASH] = 2;
    assert_true(fresh);
    assert_int_equal(redis_lead(r, 5, &err), MODE_OK);
    assert_false(move(r, 5, &t, CORE_RETRY_WAIT, 10, false, &stale)); /* it was never handed out */
    assert_false(stale);
    assert_true(move(r, 5, &t, CORE_READY, 0, false, &stale));
    expect_in("k1", true, false, false, false);
    assert_true(move(r, 5, &t, CORE_LEASED, 10, false, &stale));
    expect_in("k1", false, true, false, false);
    assert_false(move(r, 5, &t, CORE_RETRY_WAIT, 9, false, &stale)); /* an older fence */
    expect_in("k1", false, true, false, false);
    assert_true(move(r, 5, &t, CORE_RETRY_WAIT, 10, false, &stale));
    expect_in("k1", false, false, true, false);
    assert_true(move(r, 5, &t, CORE_QUARANTINED, 10, false, &stale));
    expect_in("k1", false, false, false, true);
    assert_true(move(r, 5, &t, CORE_READY, 10, false, &stale)); /* requested again */
    expect_in("k1", true, false, false, false);
    assert_true(move(r, 5, &t, CORE_LEASED, 10, false, &stale));
    assert_true(move(r, 5, &t, CORE_RETRY_WAIT, 10, false, &stale));
    assert_int_equal(redis_recall(r, &m, &found, "k1", &err), MODE_OK);
    assert_true(found && m.state == CORE_RETRY_WAIT && m.fence == 10 && m.attempt == 1 &&
                m.failures[CORE_FAIL_CRASH] == 2);
    assert_true(move(r, 5, &t, CORE_COMMITTED, 10, false, &stale));
    assert_int_equal(redis_recall(r, &m, &found, "k1", &err), MODE_OK);
    assert_false(found); /* the store records that it is done; nothing is kept here */
    expect_in("k1", false, false, false, false);
    assert_true(move(r, 5, &t, CORE_LEASED, 11, true, &stale)); /* taken over as it is */
    redis_close(&r);
}

static void test_replaced_coordinator_changes_nothing(void **state)
{
    (void)state;
    bool fresh, found, stale;
    struct mode_error err = {0};
    struct redis_memory m;
    struct redis *old = connected(&fresh), *young = connected(&fresh);
    struct core_task t = {.key = "k2", .service = "embed"};
    assert_int_equal(redis_lead(old, 20, &err), MODE_OK);
    assert_true(move(old, 20, &t, CORE_READY, 0, false, &stale));
    assert_int_equal(redis_lead(young, 21, &err), MODE_OK);
    assert_false(move(old, 20, &t, CORE_LEASED, 1, false, &stale));
    assert_true(stale);
    assert_false(move(old, 20, &t, CORE_LEASED, 1, true, &stale)); /* not by force either */
    assert_int_equal(redis_recall(young, &m, &found, "k2", &err), MODE_OK);
    assert_int_equal(m.state, CORE_READY);
    assert_int_equal(redis_lead(old, 20, &err), MODE_E_TEMP);
    redis_close(&old);
    redis_close(&young);
}

static bool is_mine(void *ctx, const char *key)
{
    ++*(int *)ctx;
    return strcmp(key, "mine") == 0;
}

static void test_tasks_of_nobody_are_forgotten(void **state)
{
    (void)state;
    enum { OTHERS = 3000 }; /* more than one scan returns */
    bool fresh, found, stale;
    int n_asked = 0;
    uint64_t n;
    struct mode_error err = {0};
    struct redis_memory m;
    struct redis *r = connected(&fresh);
    char key[32],
        *count = mode_xasprintf("[ \"$(redis-cli -s %s/s --raw ZCARD mode:0123456789ab:ready:assign)\" = 1 ]", folder);
    struct core_task t = {.key = key, .service = "assign"};
    assert_int_equal(redis_lead(r, 25, &err), MODE_OK);
    for (int i = 0; i < OTHERS; i++) {
        snprintf(key, sizeof key, "other%d", i);
        assert_true(move(r, 25, &t, CORE_READY, 0, false, &stale));
    }
    snprintf(key, sizeof key, "mine");
    assert_true(move(r, 25, &t, CORE_READY, 0, false, &stale));
    if (redis_forget(r, 25, is_mine, &n_asked, &n, &err)) fail_msg("%s", err.text);
    assert_true(n >= OTHERS && n_asked > OTHERS);
    assert_int_equal(redis_recall(r, &m, &found, "mine", &err), MODE_OK);
    assert_true(found);
    assert_int_equal(redis_recall(r, &m, &found, "other7", &err), MODE_OK);
    assert_false(found);
    assert_int_equal(system(count), 0); /* nor is it in a queue */
    if (redis_forget(r, 25, is_mine, &n_asked, &n, &err)) fail_msg("%s", err.text);
    assert_int_equal(n, 0);
    free(count);
    redis_close(&r);
}

static void test_lost_connection_is_never_used_again(void **state)
{
    (void)state;
    bool fresh, stale;
    size_t n_refused;
    struct mode_error err = {0};
    struct redis *r = connected(&fresh);
    struct core_task t = {.key = "k3", .service = "embed"};
    assert_int_equal(redis_lead(r, 30, &err), MODE_OK);
    stop_server();
    redis_move(r, 30, &(struct redis_move){.task = &t, .state = CORE_READY, .session = ""});
    assert_int_equal(redis_flush(r, NULL, &n_refused, &stale, &err), MODE_E_PEER);
    assert_false(redis_is_up(r));
    assert_int_equal(redis_flush(r, NULL, &n_refused, &stale, &err), MODE_E_PEER);
    start_server();
    for (int i = 0; redis_connect(r, &fresh, &err) && i < 6000; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_true(redis_is_up(r));
    assert_true(fresh); /* another run_id: it may have lost data */
    redis_close(&r);
}

/* Without the functions every call fails: it counts as down, and gets them at the next connect. */
static void test_who_refuses_everything_is_left(void **state)
{
    (void)state;
    bool fresh, stale;
    size_t n_refused;
    struct mode_error err = {0};
    struct redis *r = connected(&fresh);
    struct core_task t = {.key = "k9", .service = "embed"};
    char *flush = mode_xasprintf("redis-cli -s %s/s FUNCTION FLUSH >/dev/null", folder);
    assert_int_equal(redis_lead(r, 35, &err), MODE_OK);
    assert_int_equal(system(flush), 0);
    redis_move(r, 35, &(struct redis_move){.task = &t, .state = CORE_READY, .session = ""});
    assert_int_equal(redis_flush(r, NULL, &n_refused, &stale, &err), MODE_E_PEER);
    assert_non_null(strstr(err.text, "Redis refuses transitions"));
    assert_false(redis_is_up(r));
    assert_int_equal(redis_connect(r, &fresh, &err), MODE_OK);
    assert_false(fresh); /* the same server */
    assert_true(move(r, 35, &t, CORE_READY, 0, false, &stale));
    free(flush);
    redis_close(&r);
}

/* A full Redis keeps working on what it has: a task that ends frees memory, a known task may start, a new one is not
 * recorded. Without our functions it is unusable until it has memory. */
static void test_full_is_no_dead_end(void **state)
{
    (void)state;
    bool fresh, found, stale;
    struct mode_error err = {0};
    struct redis_memory m;
    struct redis *r = connected(&fresh);
    struct core_task t = {.key = "k4", .service = "embed"}, u = {.key = "k5", .service = "embed"};
    assert_int_equal(redis_lead(r, 40, &err), MODE_OK);
    assert_true(move(r, 40, &t, CORE_READY, 0, false, &stale));
    redis_close(&r);
    kill(server, SIGTERM); /* it saves its data */
    waitpid(server, NULL, 0);
    start_server_with("1");
    r = connected(&fresh);
    assert_int_equal(redis_remembers(r, &found, &err), MODE_OK);
    assert_true(found);
    assert_int_equal(redis_lead(r, 41, &err), MODE_OK);
    assert_int_equal(redis_left_out(r), 0);
    assert_true(move(r, 41, &u, CORE_READY, 0, false, &stale)); /* as far as the coordinator is concerned */
    assert_int_equal(redis_left_out(r), 1);
    assert_int_equal(redis_recall(r, &m, &found, "k5", &err), MODE_OK);
    assert_false(found);
    u.attempt = t.attempt = 1;
    assert_true(move(r, 41, &u, CORE_LEASED, 10, false, &stale));
    assert_int_equal(redis_recall(r, &m, &found, "k5", &err), MODE_OK);
    assert_true(found && m.state == CORE_LEASED);
    assert_true(move(r, 41, &t, CORE_LEASED, 11, false, &stale));
    assert_true(move(r, 41, &t, CORE_RETRY_WAIT, 11, false, &stale));
    assert_true(move(r, 41, &t, CORE_COMMITTED, 11, false, &stale));
    assert_int_equal(redis_recall(r, &m, &found, "k4", &err), MODE_OK);
    assert_false(found);
    assert_int_equal(redis_register(r, "runs", "a", "b", &err), MODE_OK);
    assert_int_equal(redis_left_out(r), 2);
    redis_close(&r);
    stop_server();
    char *data = mode_path_join(folder, "appendonlydir");
    assert_int_equal(mode_dir_remove(data, &err), MODE_OK);
    free(data);
    start_server_with("1"); /* and empty */
    assert_int_equal(redis_open(&r, url, "0123456789abcdef", &err), MODE_OK);
    enum mode_status st = MODE_OK;
    for (int i = 0; i < 6000 && !strstr(err.text, "HINT: give it more memory"); i++) {
        st = redis_connect(r, &fresh, &err);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_int_equal(st, MODE_E_PEER);
    assert_non_null(strstr(err.text, "HINT: give it more memory"));
    redis_close(&r);
    stop_server();
    start_server();
}

static void test_wrong_urls_are_refused(void **state)
{
    (void)state;
    struct redis *r;
    struct mode_error err = {0};
    assert_int_equal(redis_open(&r, "http://x", "id", &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "\"http://x\"")); /* what was given */
    assert_int_equal(redis_open(&r, "redis://:secret@host:port", "id", &err), MODE_E_CONFIG);
    assert_null(strstr(err.text, "secret"));
    assert_non_null(strstr(err.text, "@host:port"));
    assert_int_equal(redis_open(&r, "redis://:1", "id", &err), MODE_E_CONFIG);
    assert_int_equal(redis_open(&r, "redis://host:99999", "id", &err), MODE_E_CONFIG);
    assert_int_equal(redis_open(&r, "unix://relative", "id", &err), MODE_E_CONFIG);
    assert_int_equal(redis_open(&r, "redis://:secret@host:6380/2", "id", &err), MODE_OK);
    redis_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transitions_are_checked),
        cmocka_unit_test(test_replaced_coordinator_changes_nothing),
        cmocka_unit_test(test_tasks_of_nobody_are_forgotten),
        cmocka_unit_test(test_lost_connection_is_never_used_again),
        cmocka_unit_test(test_who_refuses_everything_is_left),
        cmocka_unit_test(test_full_is_no_dead_end),
        cmocka_unit_test(test_wrong_urls_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
