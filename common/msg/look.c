/* Probes a worker's device before it takes tasks, in a process of its own, because a driver may hang, a broken GPU
 * kills the process that uses it, and the agent must not hold GPU memory. */
#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "base/str.h"
#include "msg/runtime.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 120, BURIAL_S = 2 }; /* driver initialisation takes a few seconds per GPU */

/* In the child between fork and exec. */
static void become(int out, const char *argv0, const char *backend, const char *index)
{
    char *argv[] = {(char *)(uintptr_t)argv0, (char *)(uintptr_t)MODE_LOOK_FLAG, (char *)(uintptr_t)backend,
                    (char *)(uintptr_t)index, NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(out, STDOUT_FILENO) < 0) _exit(127);
    execv("/proc/self/exe", argv);
    _exit(127);
}

/* Kills it and waits for its end, but not if it hangs in the driver. */
static void bury(pid_t pid)
{
    const double until = mode_clock_s() + BURIAL_S;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, WNOHANG) == 0 && mode_clock_s() < until) usleep(10000);
}

/* Reads its output to the end. False: timeout, or a signal came first (*told). */
static bool hear(char text[MODE_DEVICE_TEXT], bool *told, int out, int signal_fd)
{
    const double until = mode_clock_s() + PATIENCE_S;
    struct pollfd p[2] = {{.fd = out, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
    size_t n = 0;
    char more[256];
    for (;;) {
        const double left = until - mode_clock_s();
        if (left <= 0) return false;
        if (poll(p, 2, (int)(left * 1000) + 1) < 0 && errno != EINTR) return false;
        if ((*told = p[1].revents != 0)) return false;
        if (!p[0].revents) continue;
        ssize_t got = read(out, more, sizeof more);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        const size_t room = MODE_DEVICE_TEXT - 1 - n, keep = (size_t)got < room ? (size_t)got : room;
        memcpy(text + n, more, keep);
        n += keep;
    }
    text[n] = '\0';
    return true;
}

static enum mode_status fail(struct mode_error *err, int status, const char *text)
{
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    if (WIFSIGNALED(status))
        return MODE_FAIL(err, MODE_E_DEVICE, "the process that checked the GPU was killed by signal %d (%s)",
                         WTERMSIG(status), strsignal(WTERMSIG(status)));
    return MODE_FAIL(err, MODE_E_DEVICE, "%s",
                     text[0]       ? text
                     : code == 127 ? "this program cannot be executed"
                                   : "the GPU cannot be used; what the process that checked it said is in the log");
}

static enum mode_status look_at(char text[MODE_DEVICE_TEXT], bool *told, const char *argv0, const char *backend, int i,
                                int signal_fd, struct mode_error *err)
{
    char index[16];
    int out[2], status = 0;
    snprintf(index, sizeof index, "%d", i);
    if (pipe(out) != 0) return MODE_FAIL(err, MODE_E_GENERIC, "a pipe cannot be made: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        close(out[0]);
        become(out[1], argv0, backend, index);
    }
    close(out[1]);
    if (pid < 0) {
        close(out[0]);
        return MODE_FAIL(err, MODE_E_GENERIC, "a process to check the GPU cannot be started: %s", strerror(errno));
    }
    bool heard = hear(text, told, out[0], signal_fd);
    close(out[0]);
    if (!heard) {
        bury(pid);
        text[0] = '\0';
        return *told ? MODE_OK
                     : MODE_FAIL(err, MODE_E_DEVICE, "backend %s: GPU %d did not answer within %d s", backend, i,
                                 PATIENCE_S);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    return status ? fail(err, status, text) : MODE_OK;
}

enum mode_status mode_worker_look(char text[MODE_DEVICE_TEXT], const char *argv0, const char *backend, int n,
                                  int signal_fd, struct mode_error *err)
{
    char one[MODE_DEVICE_TEXT] = "";
    bool told = false;
    for (int i = 0; i < n && !told; i++) {
        enum mode_status st = look_at(one, &told, argv0, backend, i, signal_fd, err);
        if (st) return n > 1 ? mode_error_prefix(err, st, "GPU %d of %d", i, n) : st;
        if (i == 0) snprintf(text, MODE_DEVICE_TEXT, "%s", one);
    }
    if (n > 1 && text[0]) snprintf(text, MODE_DEVICE_TEXT, "%d x %.*s", n, MODE_DEVICE_TEXT - 16, one);
    return MODE_OK;
}

/* argv: <program> --look <backend> <index> */
int mode_look_main(const char *word, mode_look_fn *look, int argc, char **argv)
{
    struct mode_error err = {0};
    char text[MODE_DEVICE_TEXT] = "";
    sigset_t none;
    if (argc != 4) {
        fprintf(stderr, "mode-%s: %s is for internal use\n", word, MODE_LOOK_FLAG);
        return 2;
    }
    signal(SIGHUP, SIG_IGN); /* it means the agent */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    mode_log_open(word);
    enum mode_status st = mode_process_pick_gpu(atoi(argv[3]), &err);
    if (!st) st = look(text, sizeof text, argv[2], &err);
    printf("%s", st ? err.text : text);
    return mode_status_exit_code(st);
}
