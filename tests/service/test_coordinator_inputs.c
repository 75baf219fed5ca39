/* What a run reads before it starts, over real sockets and a real store: inputs of many GB that are digested while
 * everything else continues, and data that are added or change meanwhile. Skipped, with a message, where redis-server
 * is not installed. */
#include "coordinator_world.h"

static void age(const struct fake *f, const char *name, time_t when)
{
    char *path = mode_path_join(f->inputs, name);
    const struct timespec t[] = {{.tv_sec = when}, {.tv_sec = when}};
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    free(path);
}

/* Submits it, until the reply says how much of it has been read. */
static void ask_until_it_reads(struct fake *f, const char *text)
{
    const double until = mode_clock_s() + LONG_S;
    char key[33] = "";
    f->reading[0] = '\0';
    while (!strstr(f->reading, "the coordinator is reading the evaluation tasks: ") ||
           !strstr(f->reading, " of 4.3 GB")) {
        struct mode_envelope *answer = ask_submit(f, text, key);
        assert_true(is_reading(f, answer)); /* it lists the inputs before it reads them */
        mode_envelope_free(&answer);
        assert_true(mode_clock_s() < until);
    }
}

/* A task of many GB is submitted: the coordinator reports its progress, answers other requests meanwhile, does its
 * work, and can be stopped. Finished digests are reused, by the next spec and after a restart. */
static void test_large_tasks_are_read_beside_all_else(void **state)
{
    (void)state;
    enum { GB = 4, LONG_AGO = 1000000000 };
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("first", "paper", "1e-3"), *big = spec_text("big", "paper", "1e-3"),
         *other = spec_text("big", "uniform", "1e-3"), *tar = mode_path_join(f->inputs, "tasks/t1/test/0.tar"),
         *unread = mode_path_join(f->inputs, "unread");
    assert_true(submit(f, text)); /* it runs */
    work(f, &s, "first", 2);
    write_file(f->inputs, "unread", "");
    write_file(f->inputs, "tasks/t1/test/0.tar", "");
    assert_int_equal(truncate(tar, (off_t)GB << 30), 0);
    age(f, "tasks/t1/test/0.tar", LONG_AGO);
    age(f, "tasks/t1/test/nshards.txt", LONG_AGO);

    ask_until_it_reads(f, big);
    look(f, &s, "first");
    ask_until_it_reads(f, big); /* still reading: STATUS was answered meanwhile */
    unsigned before = f->executed;
    work(f, &s, "first", before + 3); /* the earlier run continues */
    stop(&f->coordinator, SIGTERM, &status);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    start_coordinator(f);
    ask_until_it_reads(f, big); /* from the start: it was stopped before it had read everything */
    assert_int_equal(unlink(unread), 0);
    assert_true(submit(f, big));
    work(f, &s, "big", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    write_file(f->inputs, "unread", ""); /* reading would never end */
    assert_true(submit(f, other));
    work(f, &s, "big", f->executed);
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    work(f, &s, "big", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    free(text);
    free(big);
    free(other);
    free(unread);
    free(tar);
    tear_down(f);
}

/* The machine was rebooted and its data are not mounted yet: the run waits, says so, and continues. */
static void test_a_run_waits_for_its_data_after_a_restart(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char key[MODE_DIGEST_HEX], *trained, *text = spec_text("away", "paper", "1e-3"),
                                         *shards = mode_path_join(f->inputs, "shards"),
                                         *away = mode_path_join(f->inputs, "elsewhere");
    assert_true(submit(f, text));
    work(f, &s, "away", 4);
    stop(&f->coordinator, SIGKILL, &status);
    assert_int_equal(rename(shards, away), 0);
    mode_digest_bytes("its training", 12, key); /* its needs are unknown until it is planned */
    assert_int_equal(mode_store_checkpoint_dir(f->store, &trained, key, 1, &err), MODE_OK);
    start_coordinator(f);
    assert_true(soon_noted(f, "run away waits and tries again every 10 s: "));
    look(f, &s, "away");
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_RUNNING);
    assert_non_null(strstr(s.message, "shards/0.tar"));
    assert_true(mode_file_exists(trained));
    free(trained);
    assert_int_equal(rename(away, shards), 0);
    work(f, &s, "away", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.done, ALL);
    expect_executed(f, ALL);
    free(text);
    free(shards);
    free(away);
    tear_down(f);
}

/* A shard that is added to a folder in mid-run is not part of the run, restart or not; a new submission has it. */
static void test_shards_that_come_later_are_no_part_of_a_run(void **state)
{
    (void)state;
    enum { MORE = 3 }; /* tasks of a shard: captions, embed, assign */
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("later", "paper", "1e-3");
    assert_true(submit(f, text));
    work(f, &s, "later", 4);
    stop(&f->coordinator, SIGKILL, &status);
    write_file(f->inputs, "shards/7.tar", "7");
    start_coordinator(f);
    work(f, &s, "later", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.total, ALL);
    expect_executed(f, ALL);
    assert_true(submit(f, text));
    work(f, &s, "later", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.total, ALL + MORE);
    assert_int_equal(s.cached, 2 * SHARDS + TASKS); /* captions, embed and words of the first inputs */
    free(text);
    tear_down(f);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--coordinator") == 0) return be_coordinator(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_tasks_are_read_beside_all_else),
        cmocka_unit_test(test_a_run_waits_for_its_data_after_a_restart),
        cmocka_unit_test(test_shards_that_come_later_are_no_part_of_a_run),
    };
    cmocka_set_test_filter(argc == 2 ? argv[1] : NULL); /* "*large*": that one alone */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
