/* The probe of a worker's GPU: its result is received, and the worker notices however its process ends. */
#include "msg/runtime.h"

#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* In the probe process. */
static enum mode_status look(char *text, size_t size, const char *backend, struct mode_error *err)
{
    const char *gpus = getenv("CUDA_VISIBLE_DEVICES");
    if (strcmp(backend, "crash") == 0) raise(SIGKILL);
    if (strcmp(backend, "mute") == 0) _exit(70);
    if (strcmp(backend, "hang") == 0) pause();
    if (strcmp(backend, "second") == 0 && gpus && strcmp(gpus, "B") == 0)
        return MODE_FAIL(err, MODE_E_DEVICE, "it has fallen off the bus");
    if (strcmp(backend, "long") == 0)
        for (size_t i = 0; i + 1 < size; i++) text[i] = 'x';
    else
        snprintf(text, size, "GPU %s", gpus ? gpus : "?");
    return MODE_OK;
}

static int signals;

static enum mode_status ask(char text[MODE_DEVICE_TEXT], const char *backend, int n, struct mode_error *err)
{
    memset(text, 'z', MODE_DEVICE_TEXT);
    text[0] = '\0';
    return mode_worker_look(text, "test", backend, n, signals, err);
}

static void test_says(void **state)
{
    (void)state;
    char text[MODE_DEVICE_TEXT];
    struct mode_error err = {0};
    setenv("CUDA_VISIBLE_DEVICES", "A,B,C", 1);
    assert_int_equal(ask(text, "any", 1, &err), MODE_OK);
    assert_string_equal(text, "GPU A,B,C");
    assert_int_equal(ask(text, "any", 3, &err), MODE_OK);
    assert_memory_equal(text, "3 x GPU", 7);
    assert_int_equal(ask(text, "long", 2, &err), MODE_OK);
    assert_true(strlen(text) < MODE_DEVICE_TEXT);
}

static void test_fails(void **state)
{
    (void)state;
    char text[MODE_DEVICE_TEXT];
    struct mode_error err = {0};
    setenv("CUDA_VISIBLE_DEVICES", "A,B,C", 1);
    assert_int_equal(ask(text, "second", 2, &err), MODE_E_DEVICE);
    assert_string_equal(err.text, "GPU 1 of 2: it has fallen off the bus");
    assert_int_equal(ask(text, "crash", 1, &err), MODE_E_DEVICE);
    assert_non_null(strstr(err.text, "signal 9"));
    assert_int_equal(ask(text, "mute", 1, &err), MODE_E_DEVICE);
    assert_non_null(strstr(err.text, "in the log"));
}

static void *knock(void *ctx)
{
    (void)ctx;
    usleep(300000);
    kill(getpid(), SIGTERM);
    return NULL;
}

/* A worker that gets a signal does not wait for a hung driver, and the signal stays pending. */
static void test_signal(void **state)
{
    (void)state;
    char text[MODE_DEVICE_TEXT];
    struct mode_error err = {0};
    struct signalfd_siginfo info;
    pthread_t t;
    pthread_create(&t, NULL, knock, NULL);
    assert_int_equal(ask(text, "hang", 1, &err), MODE_OK);
    assert_string_equal(text, "");
    pthread_join(t, NULL);
    assert_int_equal(read(signals, &info, sizeof info), sizeof info);
    assert_int_equal(info.ssi_signo, SIGTERM);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_says), cmocka_unit_test(test_fails),
                                       cmocka_unit_test(test_signal)};
    sigset_t set;
    if (argc > 1 && strcmp(argv[1], MODE_LOOK_FLAG) == 0) return mode_look_main("test", look, argc, argv);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
