/* The whole task graph of a run over real sockets and a real store, with processes killed on the way. Skipped, with a
 * message, where redis-server is not installed. */
#include "coordinator_world.h"
#include "free_port.h"

static void test_run_is_done_once_and_found_again(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("one", "paper", "1e-3"), *other = spec_text("one", "uniform", "1e-3");
    assert_true(submit(f, text));
    work(f, &s, "one", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.total, ALL);
    assert_int_equal(s.done, ALL);
    expect_executed(f, ALL);
    expect_file(f, "report/result.csv");
    expect_file(f, "report/report.html");
    expect_file(f, "experts/dense/open_clip_model.safetensors");
    expect_file(f, "experts/expert-1/open_clip_config.json");
    expect_file(f, "experts/index.json");

    assert_true(submit(f, text)); /* again: nothing is recomputed */
    work(f, &s, "one", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.cached, ALL);
    expect_executed(f, ALL);

    assert_true(submit(f, other)); /* another router: only the ensemble depends on it */
    work(f, &s, "one", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.cached, ALL - 1);
    expect_executed(f, ALL + 1);
    free(text);
    free(other);
    tear_down(f);
}

static uint64_t peak_of(const struct fake *f, const char *name)
{
    char *path = mode_path_join(f->root, "report/summary.json");
    json_t *o = json_load_file(path, 0, NULL), *x;
    uint64_t bytes = 0;
    size_t i;
    json_array_foreach(json_object_get(o, "processes"), i,
                       x) if (strcmp(json_string_value(json_object_get(x, "name")), name) == 0)
        bytes = (uint64_t)json_integer_value(json_object_get(x, "peak_rss_bytes"));
    json_decref(o);
    free(path);
    return bytes;
}

/* Every stage's time and every process's memory are in the report, and stay there when the run is submitted again. */
static void test_report_says_what_the_run_took(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("cost", "paper", "1e-3"), *path = mode_path_join(f->root, "report/summary.json");
    assert_true(submit(f, text));
    work(f, &s, "cost", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    json_t *o = json_load_file(path, 0, NULL), *stages = json_object_get(o, "stages"), *x;
    uint64_t tasks = 0;
    size_t i;
    json_array_foreach(stages, i, x)
    {
        tasks += (uint64_t)json_integer_value(json_object_get(x, "tasks"));
        assert_true(json_real_value(json_object_get(x, "seconds")) > 0);
        assert_int_equal(json_integer_value(json_object_get(x, "peak_rss_bytes")), 5 << 20);
    }
    assert_int_equal(tasks, ALL); /* the ensemble task included */
    json_decref(o);
    uint64_t redis = peak_of(f, "redis");
    assert_true(peak_of(f, "coordinator") > 1 << 20);
    assert_true(redis > 1 << 20);
    for (int k = 0; k < SERVICES; k++) {
        char *name = mode_xasprintf("agent of %s", services[k]);
        assert_int_equal(peak_of(f, name), (uint64_t)(k + 1) << 20);
        free(name);
    }
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    assert_true(submit(f, text));
    work(f, &s, "cost", UINT32_MAX);
    assert_int_equal(s.cached, ALL);
    assert_int_equal(peak_of(f, "agent of train"), 5 << 20);
    assert_true(peak_of(f, "redis") >= redis);
    free(path);
    free(text);
    tear_down(f);
}

static void test_killed_coordinator_goes_on(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("two", "paper", "1e-3");
    assert_true(submit(f, text));
    for (unsigned k = 4; k < ALL; k += 7) {
        work(f, &s, "two", k);
        stop(&f->coordinator, SIGKILL, &status);
        start_coordinator(f);
    }
    work(f, &s, "two", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.done, ALL);
    expect_executed(f, ALL); /* a finished task is not repeated */
    free(text);
    tear_down(f);
}

static void test_redis_killed_and_wiped_costs_nothing(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("three", "paper", "1e-3"), *data = mode_path_join(f->root, "redis");
    assert_true(submit(f, text));
    work(f, &s, "three", 5);
    stop(&f->redis, SIGKILL, &status);
    assert_int_equal(mode_dir_remove(data, &err), MODE_OK);
    for (int i = 0; i < 300; i++) { /* nothing is handed out meanwhile, all processes live */
        workers_turn(f);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    start_redis(f);
    work(f, &s, "three", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    expect_executed(f, ALL);
    uint64_t epoch;
    assert_int_equal(mode_store_epoch_last(f->store, &epoch, &err), MODE_OK);
    assert_true(epoch >= 2); /* Redis might have lost fences: they must not repeat */
    free(text);
    free(data);
    tear_down(f);
}

static void test_bad_input_ends_the_run_with_its_reason(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("four", "paper", "1e-3");
    f->poison = "captions/0001";
    assert_true(submit(f, text));
    work(f, &s, "four", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_FAILED);
    assert_int_equal(s.quarantined, 1);
    assert_non_null(strstr(s.message, "captions/0001"));
    assert_non_null(strstr(s.message, "torn at byte 512"));
    assert_true(has_note(f, "captions/0001: the worker's last lines are in "));
    assert_true(has_note(f, "the last one: last words ?"));
    char *failed = mode_path_join(f->root, "runs/four/failed");
    DIR *d = opendir(failed);
    assert_non_null(d);
    unsigned n_logs = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n_logs += strstr(e->d_name, ".log") != NULL;
    assert_int_equal(n_logs, 1);
    closedir(d);
    free(failed);
    f->poison = NULL; /* repaired: the same run continues from there */
    unsigned before = f->executed;
    assert_true(submit(f, text));
    work(f, &s, "four", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    expect_executed(f, ALL);
    assert_true(before > 0);
    free(text);
    tear_down(f);
}

/* One worker does not see the data, is always idle and fails every task it gets; the other runs a long task. No task is
 * given up because of that. */
static void test_a_blind_machine_condemns_nothing(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("blind", "paper", "1e-3");
    f->blind = f->busy = true;
    work_until_in(f, WORKERS);
    assert_true(submit(f, text));
    for (int i = 0; i < 1000 && f->n_blind < SHARDS - 1; i++) work_a_while(f, 100);
    work_a_while(f, 500);
    assert_int_equal(f->n_blind, SHARDS - 1);
    look(f, &s, "blind");
    assert_int_equal(s.quarantined, 0);
    assert_true(has_note(f, "failed (absent, attempt 1 on there), next try in 1 s on another machine: /data"));
    f->busy = false;
    work(f, &s, "blind", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    expect_executed(f, ALL);
    assert_int_equal(f->n_blind, SHARDS - 1);
    free(text);
    tear_down(f);
}

/* Redis is full before the first task and stays so: at first it does not even load our functions. */
static void test_a_full_redis_stops_nothing(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("full", "paper", "1e-3"), *data = mode_path_join(f->root, "redis");
    stop(&f->coordinator, SIGKILL, &status);
    stop(&f->redis, SIGKILL, &status);
    assert_int_equal(mode_dir_remove(data, &err), MODE_OK);
    f->maxmemory = "1";
    start_redis(f);
    start_coordinator(f);
    assert_true(submit(f, text));
    assert_true(soon_noted(f, "HINT: give it more memory")); /* it keeps running and says what is missing */
    work_a_while(f, 500);
    assert_int_equal(f->executed, 0);
    stop(&f->redis, SIGTERM, &status);
    f->maxmemory = NULL;
    start_redis(f); /* has room, and gets the functions */
    work(f, &s, "full", 2);
    stop(&f->redis, SIGTERM, &status);
    f->maxmemory = "1";
    start_redis(f);
    work(f, &s, "full", 5);
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    work(f, &s, "full", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_true(soon_noted(f, "Redis is full: new tasks are not written to it"));
    free(data);
    free(text);
    tear_down(f);
}

/* The coordinator and Redis died together: a worker that holds a task may be reconnecting with it, so for a while no
 * task is handed out to others. */
static void test_nothing_is_handed_out_before_holders_can_be_back(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("lost", "paper", "1e-3"), *data = mode_path_join(f->root, "redis");
    assert_true(submit(f, text));
    work(f, &s, "lost", 2);
    stop(&f->coordinator, SIGKILL, &status);
    stop(&f->redis, SIGKILL, &status);
    assert_int_equal(mode_dir_remove(data, &err), MODE_OK);
    const unsigned executed = f->executed;
    const double began = mode_clock_s();
    start_redis(f);
    start_coordinator(f);
    work(f, &s, "lost", executed + 1);
    assert_true(mode_clock_s() - began >= 3); /* as long as a reconnect over ipc may take */
    free(text);
    free(data);
    tear_down(f);
}

/* Another coordinator has taken over: this one learns it from Redis, hands out nothing more, and exits. */
static void test_a_coordinator_that_was_replaced_goes(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status = 0;
    char *text = spec_text("two", "paper", "1e-3"), *sock;
    assert_int_equal(mode_place_path(&sock, f->root, "redis.sock", &err), MODE_OK);
    char *lead = mode_xasprintf("redis-cli -s %s SET mode:%.12s:epoch 99 >/dev/null", sock, mode_store_id(f->store));
    assert_true(submit(f, text));
    work(f, &s, "two", 2);
    assert_int_equal(system(lead), 0);
    pid_t gone = 0;
    for (int ms = 0; ms < 30000 && !gone; ms++) {
        workers_turn(f);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        gone = waitpid(f->coordinator, &status, WNOHANG);
    }
    assert_int_equal(gone, f->coordinator);
    f->coordinator = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == MODE_E_TEMP);
    assert_true(f->executed < ALL);
    free(text);
    free(sock);
    free(lead);
    tear_down(f);
}

/* Checkpoints of tasks that are done, or that no run needs, are removed at a start; those of tasks of an unfinished run
 * stay. */
static void test_checkpoints_are_swept_at_the_start(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("six", "paper", "1e-3"), *tasks = mode_path_join(f->root, "tasks"), *dir,
         stray[MODE_DIGEST_HEX], done[MODE_DIGEST_HEX] = "", wanted[MODE_DIGEST_HEX] = "";
    assert_true(submit(f, text));
    work(f, &s, "six", 1);
    stop(&f->coordinator, SIGKILL, &status);
    DIR *d = opendir(tasks); /* what was planned so far */
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (mode_key_valid(e->d_name))
            snprintf(mode_store_commit_exists(f->store, e->d_name) ? done : wanted, MODE_DIGEST_HEX, "%.64s",
                     e->d_name);
    closedir(d);
    assert_true(done[0] && wanted[0]);
    mode_digest_bytes("stray", 5, stray);
    const char *const keys[] = {done, wanted, stray};
    for (int k = 0; k < 3; k++) {
        assert_int_equal(mode_store_checkpoint_dir(f->store, &dir, keys[k], 1, &err), MODE_OK);
        free(dir);
    }
    start_coordinator(f);
    for (int k = 2; k >= 0; k--) {
        dir = mode_xasprintf("%s/ckpt/%s", f->root, keys[k]);
        for (int ms = 0; ms < 30000 && k != 1 && mode_file_exists(dir); ms++)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        assert_int_equal(mode_file_exists(dir), k == 1);
        free(dir);
    }
    free(tasks);
    free(text);
    tear_down(f);
}

/* A task that was given up before a restart is still given up after it: the run ends, and nothing waits for it. */
static void test_given_up_is_remembered_over_a_restart(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s = {0};
    int status;
    char *text = spec_text("five", "paper", "1e-3");
    f->poison = "words/t0";
    assert_true(submit(f, text));
    for (unsigned k = 1; !s.quarantined; k++) {
        work(f, &s, "five", k);
        look(f, &s, "five");
    }
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_RUNNING);
    stop(&f->coordinator, SIGKILL, &status);
    f->poison = NULL; /* another try would succeed */
    start_coordinator(f);
    work(f, &s, "five", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_FAILED);
    assert_int_equal(s.quarantined, 1);
    assert_non_null(strstr(s.message, "words/t0"));
    free(text);
    tear_down(f);
}

/* Another captions worker sends HELLO; returns the body case of the reply. */
static int knock(struct fake *f, struct mode_socket **out, const char *endpoint)
{
    struct mode_error err = {0};
    struct mode_endpoint at = {.endpoint = endpoint, .wire = MODE_WIRE_WORKER};
    struct mode_socket *ours = f->socket[0];
    char session[33];
    int answer = 0;
    assert_int_equal(mode_socket_connect(out, f->net, &at, &err), MODE_OK);
    memcpy(session, f->session[0], sizeof session);
    f->socket[0] = *out;
    snprintf(f->session[0], sizeof f->session[0], "%032x", ++f->n_sessions);
    for (int ms = 0; ms < 30000 && !answer; ms++) {
        struct mode_packet p = {0};
        struct mode_envelope *in;
        if (ms % 100 == 0) say_hello(f, 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (mode_socket_recv(*out, &p, &err) || !p.data) continue;
        assert_int_equal(mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &err), MODE_OK);
        answer = (int)in->msg->body_case;
        mode_envelope_free(&in);
        mode_packet_clear(&p);
    }
    f->socket[0] = ours;
    memcpy(f->session[0], session, sizeof session);
    return answer;
}

/* Before it runs out of file descriptors the coordinator rejects workers and says why. Connected ones do their work,
 * admin requests are answered, and when some have left others may connect. */
static void test_workers_are_turned_away_before_the_files_run_out(void **state)
{
    (void)state;
    enum { CROWD = 90 };
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    struct mode_socket *crowd[CROWD];
    char *text = spec_text("eight", "paper", "1e-3"), *endpoint;
    int status, n = 0;
    stop(&f->coordinator, SIGTERM, &status);
    f->most_files = 128;
    start_coordinator(f);
    work_until_in(f, SERVICES); /* our own connect first */
    assert_int_equal(mode_place_endpoint(&endpoint, f->root, "worker.sock", &err), MODE_OK);
    int answer = MODE__ENVELOPE__BODY_WELCOME;
    for (; n < CROWD && answer == MODE__ENVELOPE__BODY_WELCOME; n++) {
        answer = knock(f, &crowd[n], endpoint);
        work_a_while(f, 20);
    }
    assert_int_equal(answer, MODE__ENVELOPE__BODY_REJECT);
    assert_in_range(n, 20, CROWD - 1);
    assert_true(has_note(f, "of the 128 files that the coordinator may have open"));
    assert_true(submit(f, text));
    work(f, &s, "eight", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    expect_executed(f, ALL);
    while (n > 0) mode_socket_close(&crowd[--n]);
    for (answer = 0; n < 300 && answer != MODE__ENVELOPE__BODY_WELCOME; n++) { /* once it has noticed that they left */
        work_a_while(f, 100);
        answer = knock(f, &crowd[0], endpoint);
        mode_socket_close(&crowd[0]);
    }
    assert_int_equal(answer, MODE__ENVELOPE__BODY_WELCOME);
    free(text);
    free(endpoint);
    tear_down(f);
}

/* A client of another protocol version gets a reply instead of waiting in vain. */
static void ask_in_another_protocol(struct fake *f)
{
    struct mode_error err = {0};
    struct mode_socket *s;
    struct mode_envelope *in = NULL;
    char *endpoint;
    assert_int_equal(mode_place_endpoint(&endpoint, f->root, "admin.sock", &err), MODE_OK);
    struct mode_endpoint at = {.endpoint = endpoint, .wire = MODE_WIRE_ADMIN};
    assert_int_equal(mode_socket_connect(&s, f->net, &at, &err), MODE_OK);
    for (int ms = 0; ms < 30000 && !in; ms++) {
        struct mode_packet p = {0};
        Mode__Envelope e;
        Mode__Status q = MODE__STATUS__INIT;
        mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_STATUS);
        e.status = &q;
        e.major = MODE_WIRE_MAJOR + 1;
        if (ms % 100 == 0) mode_socket_send(s, NULL, 0, &e, &err);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (mode_socket_recv(s, &p, &err) || !p.data) continue;
        assert_int_equal(mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_ADMIN, &err), MODE_OK);
        mode_packet_clear(&p);
    }
    assert_non_null(in);
    assert_int_equal(in->msg->body_case, MODE__ENVELOPE__BODY_REJECT);
    assert_int_equal(in->msg->reject->code, MODE__REJECT_CODE__REJECT_VERSION);
    mode_envelope_free(&in);
    mode_socket_close(&s);
    free(endpoint);
}

/* What decides is a worker's protocol version and the versions of its outputs, not its package version. */
static void test_a_worker_is_judged_by_its_numbers(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct mode_error err = {0};
    struct mode_socket *other;
    char *endpoint, ours[64];
    assert_int_equal(mode_place_endpoint(&endpoint, f->root, "worker.sock", &err), MODE_OK);
    assert_int_equal(knock(f, &other, endpoint), MODE__ENVELOPE__BODY_WELCOME);
    mode_socket_close(&other);
    f->claims = "captions-99";
    assert_int_equal(knock(f, &other, endpoint), MODE__ENVELOPE__BODY_REJECT);
    mode_socket_close(&other);
    mode_code_version(ours, sizeof ours, "captions");
    char *sentence = mode_xasprintf(
        "your version 9.9.9 makes outputs captions-99; the tasks here need %s, of version %s", ours, mode_version);
    assert_true(has_note(f, sentence));
    f->claims = NULL;
    f->word = "made\"up\n"; /* it would become a label in /metrics */
    assert_int_equal(knock(f, &other, endpoint), MODE__ENVELOPE__BODY_REJECT);
    mode_socket_close(&other);
    assert_true(has_note(f, "there are no tasks for \"made\"up"));
    f->word = NULL;
    f->protocol = MODE_WIRE_MAJOR + 1;
    assert_int_equal(knock(f, &other, endpoint), MODE__ENVELOPE__BODY_REJECT);
    mode_socket_close(&other);
    assert_true(has_note(f, "protocol version 2.0, this build speaks 1.0"));
    f->protocol = 0;
    f->of = "0123456789abcdef0123456789abcdef"; /* it would commit where nobody looks */
    assert_int_equal(knock(f, &other, endpoint), MODE__ENVELOPE__BODY_REJECT);
    mode_socket_close(&other);
    f->of = NULL;
    ask_in_another_protocol(f);
    free(sentence);
    free(endpoint);
    tear_down(f);
}

/* The cause of that stage's wait in STATUS; text "" = it does not wait for workers. */
static void wait_of(struct fake *f, const char *run, const char *stage, char cause[32], uint64_t *tasks, char *needs,
                    char text[1000])
{
    Mode__Envelope e;
    Mode__Status q = MODE__STATUS__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_STATUS);
    q.run = (char *)run;
    e.status = &q;
    struct mode_envelope *answer = ask(f, &e);
    const Mode__Run *r = answer->msg->status_reply->runs[0];
    cause[0] = text[0] = needs[0] = 0;
    for (size_t i = 0; i < r->n_stages; i++) {
        const Mode__Wait *w = r->stages[i]->wait;
        if (!w || strcmp(r->stages[i]->name, stage) != 0) continue;
        snprintf(cause, 32, "%s", w->cause);
        snprintf(text, 1000, "%s", w->text);
        snprintf(needs, 64, "%s", w->needs ? w->needs : "");
        *tasks = w->tasks;
    }
    mode_envelope_free(&answer);
}

/* Works until the stage waits (or, cause "", does not). */
static void work_until(struct fake *f, const char *run, const char *stage, const char *want, uint64_t *tasks,
                       char *needs, char text[1000])
{
    double until = mode_clock_s() + LONG_S;
    char cause[32];
    do {
        if (mode_clock_s() > until) fail_msg("%s: the cause of its wait is \"%s\", not \"%s\"", stage, cause, want);
        work_a_while(f, 50);
        wait_of(f, run, stage, cause, tasks, needs, text);
    } while (strcmp(cause, want) != 0);
}

/* Nothing waits silently: STATUS says for which workers, why and what helps, until the stage continues. */
static void test_says_for_whom_tasks_wait(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("seven", "paper", "1e-3"), *gpu = mode_xasprintf("%sprecision: bf16\n", text);
    char said[1000], needs[64];
    uint64_t tasks;
    f->absent = "train";
    assert_true(submit(f, gpu));
    work_until(f, "seven", "train-seed", "no_worker", &tasks, needs, said);
    assert_int_equal(tasks, 1);
    assert_string_equal(needs, "a GPU (precision bf16)");
    assert_non_null(strstr(said, "train-seed: 1 task waits for a train worker with a GPU (precision bf16), and none is "
                                 "connected"));
    assert_non_null(strstr(said, "precision: f32"));
    f->absent = NULL;
    f->no_gpu = "train";
    work_until(f, "seven", "train-seed", "held_back", &tasks, needs, said);
    assert_non_null(strstr(said, "cordoned"));
    assert_non_null(strstr(said, "there is no GPU here"));
    for (int i = 0; i < SERVICES; i++) /* a worker that can, on another machine */
        if (strcmp(services[i], "train") == 0) {
            snprintf(f->session[i], sizeof f->session[i], "%032x", ++f->n_sessions);
            f->welcomed[i] = false;
        }
    f->no_gpu = NULL;
    work_until(f, "seven", "train-seed", "", &tasks, needs, said);
    work(f, &s, "seven", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);

    f->absent = "ensemble"; /* an ordinary service: how to start a worker is said */
    char *other = spec_text("seven", "uniform", "1e-3"), *other_gpu = mode_xasprintf("%sprecision: bf16\n", other);
    int status;
    stop(&f->coordinator, SIGKILL, &status); /* forgets the ensemble worker that was connected */
    start_coordinator(f);
    assert_true(submit(f, other_gpu));
    work_until(f, "seven", "ensemble", "no_worker", &tasks, needs, said);
    assert_string_equal(needs, "");
    assert_non_null(strstr(said, "ensemble: 1 task waits for an ensemble worker, and none is connected. HINT: "
                                 "`mode-ensemble --workspace"));
    free(text);
    free(gpu);
    free(other);
    free(other_gpu);
    tear_down(f);
}

/* The body of that HTTP page; the caller frees. */
static char *http_get(int port, const char *page)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct mode_str text = {0};
    char *ask = mode_xasprintf("GET %s HTTP/1.0\r\n\r\n", page), part[4096];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(write(fd, ask, strlen(ask)), (ssize_t)strlen(ask));
    for (ssize_t n; (n = read(fd, part, sizeof part)) > 0;) mode_str_add(&text, part, (size_t)n);
    close(fd);
    free(ask);
    return text.data;
}

/* Workers that never had a task are counted, too: monitoring may watch their number. */
static void test_metrics_show_every_kind_of_worker(void **state)
{
    (void)state;
    struct fake *f = set_up();
    int status;
    f->http_port = free_port();
    f->blind = true;
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    work_until_in(f, WORKERS);
    char *page = http_get(f->http_port, "/metrics");
    for (int i = 0; i < SERVICES; i++) {
        char *line = mode_xasprintf("\nmode_workers{role=\"%s\",state=\"idle\"} %d\n", services[i], i ? 1 : 2);
        const char *at = strstr(page, line);
        if (!at) fail_msg("no %s in %s", line, page);
        assert_null(strstr(at + 1, line)); /* once */
        free(line);
    }
    assert_non_null(strstr(page, "\nprocess_resident_memory_bytes "));
    free(page);
    tear_down(f);
}

static unsigned count_aside(const struct fake *f)
{
    char *dir = mode_path_join(f->root, "commits");
    DIR *d = opendir(dir);
    unsigned n = 0;
    for (struct dirent *e; (e = readdir(d));) n += strstr(e->d_name, ".damaged-") != NULL;
    closedir(d);
    free(dir);
    return n;
}

/* A blob is corrupted in mid-run: its task runs again, its consumers wait, and nothing else is recomputed. */
static void test_a_damaged_blob_is_made_again(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("flip", "paper", "1e-3"), *other = spec_text("flip", "uniform", "1e-3");
    f->flip = "captions/0001";
    f->lose = "assign/0002"; /* read by the experts and the ensemble */
    assert_true(submit(f, text));
    for (int ms = 0; ms < 30000 && f->flip; ms++) work_a_while(f, 1); /* until it is intact there is no seed */
    f->flip = "train/seed";                                           /* read by dense, experts and evaluations */
    work(f, &s, "flip", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.done, ALL);
    assert_true(f->n_bad >= 3);
    expect_executed(f, ALL + 3);
    assert_int_equal(count_aside(f), 3);
    assert_true(has_note(f, "captions/0001 is damaged or missing: it is recomputed; its commit record was moved to "));

    f->flip = "ensemble"; /* only the end of the run reads this one */
    assert_true(submit(f, other));
    work(f, &s, "flip", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    expect_executed(f, ALL + 5);

    assert_true(submit(f, text)); /* recomputed outputs are found as done */
    work(f, &s, "flip", UINT32_MAX);
    assert_int_equal(s.cached, ALL);
    expect_executed(f, ALL + 5);
    free(text);
    free(other);
    tear_down(f);
}

/* Checking a blob of many GB, or one on a file server that hangs: other requests are answered meanwhile, tasks that
 * need it are not retried, and it uses up none of their attempts. */
static void test_the_loop_does_not_wait_for_a_blob(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("hang", "paper", "1e-3");
    f->hang = "captions/0001";
    assert_true(submit(f, text));
    for (int ms = 0; ms < 30000 && f->n_bad < 2; ms++) work_a_while(f, 1); /* read by its embedding and by the seed */
    assert_int_equal(f->n_bad, 2);
    const double until = mode_clock_s() + 7; /* the next try would be after five seconds */
    while (mode_clock_s() < until) {
        look(f, &s, "hang"); /* waits 30 s for a reply; reading the pipe blocks forever */
        work_a_while(f, 200);
    }
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_RUNNING);
    assert_int_equal(f->n_bad, 2);
    int fd = open(f->hung,
                  O_WRONLY | O_NONBLOCK | O_CLOEXEC); /* unblocks the reader, which fails: a pipe is not a file */
    assert_true(fd >= 0);
    assert_int_equal(unlink(f->hung), 0); /* the next read finds it missing */
    close(fd);
    work(f, &s, "hang", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    expect_executed(f, ALL + 1);
    assert_true(has_note(f, "captions/0001 is damaged or missing: it is recomputed"));
    free(text);
    tear_down(f);
}

static void test_a_nearly_full_disk_pauses(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("full", "paper", "1e-3"), *disk = mode_path_join(f->root, "disk");
    write_file(f->root, "disk", "1000");
    f->http_port = free_port();
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    assert_true(submit(f, text));
    assert_true(soon_noted(f, "the workspace's disk has 1.0 kB free, at least 104.9 MB are needed"));
    work_a_while(f, 500);
    assert_int_equal(f->executed, 0);
    char *page = http_get(f->http_port, "/readyz");
    assert_non_null(strstr(page, "503"));
    assert_non_null(strstr(page, "not ready: the workspace's disk has 1.0 kB free"));
    free(page);
    page = http_get(f->http_port, "/metrics");
    assert_non_null(strstr(page, "\nmode_disk_free_bytes "));
    assert_non_null(strstr(page, "\nmode_disk_floor_bytes 104857600\n"));
    free(page);
    page = http_get(f->http_port, "/status");
    assert_non_null(strstr(page, "\"paused\": \"the workspace's disk has 1.0 kB free"));
    free(page);
    write_file(f->root, "disk", "110000000"); /* over the floor, but not by enough to resume */
    work_a_while(f, 1500);
    assert_int_equal(f->executed, 0);
    assert_int_equal(unlink(disk), 0);
    work(f, &s, "full", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_true(has_note(f, "the workspace has room again"));
    page = http_get(f->http_port, "/readyz");
    assert_non_null(strstr(page, "200"));
    free(page);
    free(text);
    free(disk);
    tear_down(f);
}

/* Evaluations are given up when all models are trained: the experts are published, and the reason is said. */
static void test_trained_models_are_handed_over_all_the_same(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("nine", "paper", "1e-3");
    f->poison = "evaluate/dense/t0";
    assert_true(submit(f, text));
    work(f, &s, "nine", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_FAILED);
    assert_non_null(strstr(s.message, "evaluate/dense/t0"));
    assert_non_null(strstr(s.message, "All models are trained; they are in experts/"));
    expect_file(f, "experts/expert-1/open_clip_model.safetensors");
    free(text);
    tear_down(f);
}

/* Redis's entries of a run whose folder was removed meanwhile are dropped. */
static void test_a_run_that_was_removed_leaves_nothing_in_redis(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("ten", "paper", "1e-3"), *dir = mode_path_join(f->root, "runs/ten"), *sock, *any;
    assert_int_equal(mode_place_path(&sock, f->root, "redis.sock", &err), MODE_OK);
    any = mode_xasprintf("redis-cli -s %s KEYS 'mode:*:task:*' | grep -q task", sock);
    assert_true(submit(f, text));
    work(f, &s, "ten", 4);
    stop(&f->coordinator, SIGKILL, &status);
    assert_int_equal(system(any), 0);
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    start_coordinator(f);
    assert_false(has_note(f, "ten"));
    bool gone = false; /* it checks a few of them at a time */
    for (int i = 0; i < 300 && !gone; i++) {
        work_a_while(f, 100);
        gone = system(any) != 0;
    }
    assert_true(gone);
    free(text);
    free(dir);
    free(sock);
    free(any);
    tear_down(f);
}

static void test_wrong_spec_is_refused_in_a_sentence(void **state)
{
    (void)state;
    struct fake *f = set_up();
    assert_false(submit(f, "name: x\ntrian: {lr: 3}\n"));
    tear_down(f);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--coordinator") == 0) return be_coordinator(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_is_done_once_and_found_again),
        cmocka_unit_test(test_report_says_what_the_run_took),
        cmocka_unit_test(test_killed_coordinator_goes_on),
        cmocka_unit_test(test_redis_killed_and_wiped_costs_nothing),
        cmocka_unit_test(test_bad_input_ends_the_run_with_its_reason),
        cmocka_unit_test(test_a_blind_machine_condemns_nothing),
        cmocka_unit_test(test_a_full_redis_stops_nothing),
        cmocka_unit_test(test_checkpoints_are_swept_at_the_start),
        cmocka_unit_test(test_given_up_is_remembered_over_a_restart),
        cmocka_unit_test(test_workers_are_turned_away_before_the_files_run_out),
        cmocka_unit_test(test_says_for_whom_tasks_wait),
        cmocka_unit_test(test_metrics_show_every_kind_of_worker),
        cmocka_unit_test(test_a_damaged_blob_is_made_again),
        cmocka_unit_test(test_the_loop_does_not_wait_for_a_blob),
        cmocka_unit_test(test_a_nearly_full_disk_pauses),
        cmocka_unit_test(test_trained_models_are_handed_over_all_the_same),
        cmocka_unit_test(test_a_run_that_was_removed_leaves_nothing_in_redis),
        cmocka_unit_test(test_nothing_is_handed_out_before_holders_can_be_back),
        cmocka_unit_test(test_a_coordinator_that_was_replaced_goes),
        cmocka_unit_test(test_a_worker_is_judged_by_its_numbers),
        cmocka_unit_test(test_wrong_spec_is_refused_in_a_sentence),
    };
    cmocka_set_test_filter(argc == 2 ? argv[1] : NULL); /* "*damaged*": those alone */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
