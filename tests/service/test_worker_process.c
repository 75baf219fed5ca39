/* The worker runtime, process by process: killed, rejected, several at a time, over TCP, started with bad options. */
#include "base/clock.h"
#include "worker_world.h"

#include <dirent.h>

/* Agent and compute process are killed repeatedly, after a few results or after a while, whichever comes first, so on a
 * fast machine too. In the end every task is committed exactly once, and complete. */
static void test_killed_workers_lose_nothing(void **state)
{
    struct fixture *f = *state;
    enum { TASKS = 24 };
    char keys[TASKS][MODE_DIGEST_HEX];
    bool done[TASKS] = {0};
    int left = TASKS, kills = 0, running = -1;
    uint64_t quota = 0; /* results until this worker is killed */
    double kill_at = 0, soon = 0, until = mode_clock_s() + 180;
    for (int i = 0; i < TASKS; i++) {
        char request[32];
        snprintf(request, sizeof request, "count %d", 100 + i);
        make_task(f, keys[i], request, "test", CODE);
    }
    while (left > 0 && mode_clock_s() < until) {
        if (f->worker <= 0) {
            start_worker(f, NULL, NULL);
            f->credit = 0;
            running = -1;
            struct mode_rng r = mode_rng_for(17, MODE_RNG_TEST, 0, (uint64_t)kills);
            kill_at = kills < 12 ? mode_clock_s() + 0.05 + 0.25 * mode_rng_uniform(&r) : until;
            quota = kills < 12 ? 1 + mode_rng_below(&r, 3) : TASKS + 1;
            soon = 0.02 * mode_rng_uniform(&r);
        }
        if (mode_clock_s() >= kill_at) {
            kill(f->worker, SIGKILL);
            waitpid(f->worker, NULL, 0);
            f->worker = 0;
            kills++;
            continue;
        }
        int got = step(f, 5);
        if (got == MODE__ENVELOPE__BODY_RESULT) {
            for (int i = 0; i < TASKS; i++)
                if (strcmp(keys[i], f->last->msg->result->key) == 0) {
                    assert_true(mode_store_commit_exists(f->store, keys[i]));
                    left -= !done[i];
                    done[i] = true;
                    acknowledge(f, keys[i], f->last->msg->result->fence, MODE__VERDICT__VERDICT_COMMITTED);
                    running = -1;
                    if (--quota == 0) kill_at = mode_clock_s() + soon;
                }
        }
        if (got == MODE__ENVELOPE__BODY_CREDIT && f->credit > 0 && running < 0) {
            for (int i = 0; i < TASKS && running < 0; i++)
                if (!done[i]) running = i;
            if (running >= 0) assign(f, keys[running], 1, SOON_MS);
        }
    }
    assert_int_equal(left, 0);
    assert_true(kills >= 3);
    for (int i = 0; i < TASKS; i++) {
        Mode__Commit *c;
        char *path;
        assert_int_equal(mode_store_commit_get(f->store, &c, keys[i], &f->err), MODE_OK);
        for (size_t k = 0; k < c->n_outputs; k++) {
            assert_int_equal(mode_store_blob_path(f->store, &path, c->outputs[k]->digest, c->outputs[k]->size, &f->err),
                             MODE_OK);
            free(path);
        }
        mode__commit__free_unpacked(c, NULL);
    }
}

static void test_the_folder_of_a_long_task_is_not_swept(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    uint64_t removed;
    struct stat sb;
    struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
    start_task(f, key, "slow", SOON_MS);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, SOON_MS));
    char *dir = mode_xasprintf("%s/tmp/job-%016llx-%ld", f->space, (unsigned long long)f->fence,
                               (long)child_of(f->worker));
    const char *inside[] = {"/out", "/in", "/in/captions", ""};
    char *last = mode_xasprintf("%s/in/captions", dir); /* it creates its folder while heartbeats continue */
    for (int i = 0; i < SOON_MS / 100 && stat(last, &sb) != 0; i++) wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, SOON_MS);
    free(last);
    for (int i = 0; i < 4; i++) {
        char *p = mode_xasprintf("%s%s", dir, inside[i]);
        assert_int_equal(utimensat(AT_FDCWD, p, old, 0), 0);
        free(p);
    }
    for (int i = 0; i < SOON_MS / 100; i++) { /* earlier ones may arrive first */
        assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, SOON_MS));
        assert_int_equal(stat(dir, &sb), 0);
        if (sb.st_mtim.tv_sec > 1000000000) break;
    }
    assert_true(sb.st_mtim.tv_sec > 1000000000); /* touched by the heartbeat */
    assert_int_equal(mode_store_sweep_tmp(f->store, 3600, &removed, NULL, NULL, &f->err), MODE_OK);
    assert_int_equal(removed, 0);
    free(dir);
}

static void test_the_compute_process_dies_with_its_agent(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "stubborn", SOON_MS);
    pid_t compute = child_of(f->worker);
    assert_true(compute > 0);
    kill(f->worker, SIGKILL);
    waitpid(f->worker, NULL, 0);
    f->worker = 0;
    assert_true(soon_dead(compute));
}

static void test_a_killed_compute_process_is_a_crash(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    signal(SIGCHLD, SIG_IGN); /* as some parents leave it: then a child's exit status is lost */
    start_worker(f, NULL, NULL);
    signal(SIGCHLD, SIG_DFL);
    start_task(f, key, "slow", SOON_MS);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, SOON_MS));
    kill(child_of(f->worker), SIGKILL);
    const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    assert_int_equal(fail->signal, SIGKILL);
}

static int n_open(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static int n_pages(pid_t pid) /* shared with compute processes */
{
    char path[64], line[512];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%ld/maps", (long)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) n += strstr(line, "mode-job") != NULL;
    fclose(f);
    return n;
}

/* No child processes or file descriptors are left of a compute process: a worker may start thousands. */
static void test_a_crash_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], log[256];
    int open = 0;
    for (int i = 0; i < 4; i++) {
        long child;
        start_task(f, key, "family", SOON_MS);
        const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
        snprintf(log, sizeof log, "%.*s", (int)fail->log_tail.len, (const char *)fail->log_tail.data);
        assert_int_equal(sscanf(log, "child %ld", &child), 1);
        assert_true(child > 1 && soon_dead((pid_t)child));
        acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
        wait_credit(f, 1); /* the next one is up */
        assert_int_equal(n_pages(f->worker), 1);
        int now = n_open(f->worker);
        if (i == 0) open = now;
        for (int k = 0; k < SOON_MS / 10 && now > open; k++) { /* it may just have a file open */
            usleep(10000);
            now = n_open(f->worker);
        }
        assert_true(now <= open);
    }
}

static void test_healthcheck_tells_alive_from_dead(void **state)
{
    struct fixture *f = *state;
    char *alive = mode_xasprintf("/proc/%ld/exe worker healthcheck --health-file %s >/dev/null 2>&1", (long)getpid(),
                                 f->health);
    assert_int_not_equal(system(alive), 0);
    start_worker(f, NULL, NULL);
    wait_credit(f, 1);
    assert_int_equal(system(alive), 0);
    kill(f->worker, SIGKILL);
    waitpid(f->worker, NULL, 0);
    f->worker = 0;
    assert_int_not_equal(system(alive), 0);
    free(alive);
}

static void test_the_coordinator_can_refuse_a_worker(void **state)
{
    struct fixture *f = *state;
    static const struct {
        Mode__RejectCode code;
        int exit_code;
    } cases[] = {{MODE__REJECT_CODE__REJECT_STORE, 78},
                 {MODE__REJECT_CODE__REJECT_CODE, 78},
                 {MODE__REJECT_CODE__REJECT_VERSION, 78},
                 {MODE__REJECT_CODE__REJECT_PERMISSION, 77},
                 {MODE__REJECT_CODE__REJECT_LIMIT, 75}}; /* its supervisor may retry */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start_worker(f, NULL, NULL);
        wait_credit(f, 1);
        reject(f, cases[i].code);
        assert_int_equal(worker_exit(f), cases[i].exit_code);
    }
}

static void test_slots_work_side_by_side(void **state)
{
    struct fixture *f = *state;
    char keys[3][MODE_DIGEST_HEX];
    uint64_t fences[3];
    const char *requests[] = {"slow", "crash", "brief"};
    start_worker(f, "--slots", "3");
    wait_credit(f, 3);
    for (int i = 0; i < 3; i++) {
        make_task(f, keys[i], requests[i], "test", CODE);
        assign(f, keys[i], 1, SOON_MS);
        fences[i] = f->fence;
    }
    /* one crashes, the others do not notice */
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_FAIL, SOON_MS);
    assert_non_null(e);
    assert_int_equal(e->fail->fence, fences[1]);
    acknowledge(f, keys[1], fences[1], MODE__VERDICT__VERDICT_NOTED);
    e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS);
    assert_non_null(e);
    assert_int_equal(e->result->fence, fences[2]);
    acknowledge(f, keys[2], fences[2], MODE__VERDICT__VERDICT_COMMITTED);
    wait_credit(f, 2);
    do e = wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, SOON_MS);
    while (e && e->progress->n_tasks != 1);
    assert_non_null(e);
    assert_int_equal(e->progress->tasks[0]->fence, fences[0]);
    make_task(f, keys[1], "stubborn", "test", CODE);
    for (int i = 0; i < 3; i++) assign(f, keys[1], 1, SOON_MS); /* more than its credit: the rest is rejected */
    int accepted = 0, refused = 0;
    while (accepted + refused < 3) {
        e = wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, SOON_MS);
        assert_non_null(e);
        accepted += e->assign_ack->accepted;
        refused += !e->assign_ack->accepted;
    }
    assert_int_equal(accepted, 2);
}

static void test_over_tcp_with_keys(void **state)
{
    a_task_is_done(*state);
}

static void test_over_tcp_an_unknown_key_ends_with_77(void **state)
{
    struct fixture *f = *state;
    char *other = mode_path_join(f->dir, "other"), *server = mode_path_join(f->keys, "server.pub"), *mine = f->keys;
    assert_int_equal(mode_keys_add(other, "w1", MODE_ROLE_WORKER, &f->err), MODE_OK);
    f->keys = other;
    start_worker(f, "--server-key", server);
    assert_int_equal(worker_exit(f), 77);
    start_worker(f, NULL, NULL); /* and with the other coordinator's public key */
    assert_int_equal(worker_exit(f), 77);
    f->keys = mine;
    free(server);
    free(other);
}

static void test_wrong_command_lines_end_with_2(void **state)
{
    (void)state;
    const char *lines[] = {"", "--coordinator ipc:///x", "--coordinator ipc:///x --workspace /tmp/x --slots 0",
                           "--coordinator ipc:///x --workspace /tmp/x --nonsense 1", "dance"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *line = mode_xasprintf("/proc/%ld/exe worker %s >/dev/null 2>&1", (long)getpid(), lines[i]);
        int rc = system(line);
        assert_int_equal(WEXITSTATUS(rc), 2);
        free(line);
    }
    char *line = mode_xasprintf("/proc/%ld/exe worker --help | grep -q MODE_COORDINATOR", (long)getpid());
    assert_int_equal(system(line), 0);
    free(line);
}

static void test_a_job_runs_without_any_service(void **state)
{
    struct fixture *f = *state;
    char *out = mode_path_join(f->dir, "local"), *in = mode_path_join(f->dir, "in.txt"), *text;
    struct mode_local_input inputs[] = {{"captions/0001", in}};
    struct mode_local_report report;
    assert_int_equal(mode_file_write_atomic(in, "hello", 5, &f->err), MODE_OK);
    assert_int_equal(mode_job_run_local(&report, test_work, "count L", 7, inputs, 1, out, &f->err), MODE_OK);
    assert_int_equal(report.rows_in, 10);
    assert_int_equal(report.rows_out, 7);
    assert_int_equal(report.rejected, 6);
    assert_string_equal(report.note, "{\"figure\":1}");
    free(report.note);
    char *z = mode_path_join(out, "z.txt");
    assert_int_equal(mode_file_read(z, 0, &text, NULL, &f->err), MODE_OK);
    assert_string_equal(text, "captions/0001=hello count L");
    free(text);
    unlink(z);
    assert_int_equal(mode_job_run_local(NULL, test_work, "bad", 3, NULL, 0, out, &f->err), MODE_E_FORMAT);
    assert_false(mode_file_exists(z));
    inputs[0].path = "/nowhere/at/all";
    assert_int_equal(mode_job_run_local(NULL, test_work, "count", 5, inputs, 1, out, &f->err), MODE_E_NOINPUT);
    inputs[0] = (struct mode_local_input){"../escape", in};
    assert_int_equal(mode_job_run_local(NULL, test_work, "count", 5, inputs, 1, out, &f->err), MODE_E_VALUE);
    free(z);
    free(in);
    free(out);
}

int main(int argc, char **argv)
{
    int code;
    if (worker_main(&code, argc, argv)) return code;
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        T(test_killed_workers_lose_nothing),
        T(test_the_folder_of_a_long_task_is_not_swept),
        T(test_the_compute_process_dies_with_its_agent),
        T(test_a_killed_compute_process_is_a_crash),
        T(test_a_crash_leaves_nothing_behind),
        T(test_healthcheck_tells_alive_from_dead),
        T(test_the_coordinator_can_refuse_a_worker),
        T(test_slots_work_side_by_side),
        cmocka_unit_test_setup_teardown(test_over_tcp_with_keys, set_up_tcp, tear_down),
        cmocka_unit_test_setup_teardown(test_over_tcp_an_unknown_key_ends_with_77, set_up_tcp, tear_down),
        T(test_wrong_command_lines_end_with_2),
        T(test_a_job_runs_without_any_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
