#include "base/str.h"
#include "msg/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOCK_FD = 3, PAGE_FD = 4 };

/* In the child between fork and exec: async-signal-safe calls only. */
static void become(int sock, int page_fd, int err_fd, char *const argv[], pid_t agent)
{
    setpgid(0, 0); /* so that the whole group can be killed, and the terminal's Ctrl-C reaches only the agent */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != agent) _exit(0);
    /* first move them away from their target descriptors; these copies are closed by exec */
    sock = fcntl(sock, F_DUPFD_CLOEXEC, 10);
    page_fd = fcntl(page_fd, F_DUPFD_CLOEXEC, 10);
    err_fd = fcntl(err_fd, F_DUPFD_CLOEXEC, 10);
    if (sock < 0 || page_fd < 0 || err_fd < 0 || dup2(sock, SOCK_FD) < 0 || dup2(page_fd, PAGE_FD) < 0 ||
        dup2(err_fd, STDERR_FILENO) < 0)
        _exit(127);
    execv("/proc/self/exe", argv);
    _exit(127);
}

enum mode_status mode_slot_start(struct mode_slot *s, const struct mode_slot_program *program, struct mode_error *err)
{
    int pair[2] = {-1, -1}, pipe_fd[2] = {-1, -1}, page_fd = -1;
    char sock_text[16], page_text[16], pid_text[16], threads_text[16], gpus_text[16];
    enum mode_status st = MODE_OK;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0 || pipe2(pipe_fd, O_CLOEXEC) != 0 ||
        (page_fd = memfd_create("mode-job", MFD_CLOEXEC)) < 0 || ftruncate(page_fd, sizeof *s->page) != 0) {
        st = MODE_FAIL(err, MODE_E_GENERIC, "no descriptors for a compute process: %s", strerror(errno));
        goto out;
    }
    struct mode_job_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    if (page == MAP_FAILED) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no page to share with a compute process: %s", strerror(errno));
        goto out;
    }
    snprintf(sock_text, sizeof sock_text, "%d", SOCK_FD);
    snprintf(page_text, sizeof page_text, "%d", PAGE_FD);
    snprintf(pid_text, sizeof pid_text, "%ld", (long)getpid());
    snprintf(threads_text, sizeof threads_text, "%d", program->threads);
    snprintf(gpus_text, sizeof gpus_text, "%d", program->gpus);
    char *argv[] = {(char *)(uintptr_t)program->argv0,
                    (char *)(uintptr_t)MODE_COMPUTE_FLAG,
                    sock_text,
                    page_text,
                    pid_text,
                    threads_text,
                    (char *)(uintptr_t)program->workspace,
                    (char *)(uintptr_t)program->backend,
                    gpus_text,
                    NULL};
    pid_t agent = getpid(), pid = fork();
    if (pid == 0) become(pair[1], page_fd, pipe_fd[1], argv, agent);
    if (pid < 0) {
        st = MODE_FAIL(err, MODE_E_GENERIC, "a compute process cannot be started: %s", strerror(errno));
        munmap(page, sizeof *page);
        goto out;
    }
    setpgid(pid, pid); /* done on both sides, to avoid a race */
    fcntl(pipe_fd[0], F_SETFL, O_NONBLOCK);
    s->pid = pid;
    s->sock = pair[0];
    s->err_fd = pipe_fd[0];
    s->page = page;
    s->log_len = s->log_at = 0;
    pair[0] = pipe_fd[0] = -1;
out:
    for (int i = 0; i < 2; i++) {
        if (pair[i] >= 0) close(pair[i]);
        if (pipe_fd[i] >= 0) close(pipe_fd[i]);
    }
    if (page_fd >= 0) close(page_fd);
    return st;
}

static bool tell(const struct mode_slot *s, const struct mode_to_compute *word, size_t size)
{
    return send(s->sock, word, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

enum mode_status mode_slot_give(struct mode_slot *s, const struct mode_compute_job *job,
                                const struct mode_compute_others *others, struct mode_error *err)
{
    struct mode_to_compute word = {.kind = MODE_TO_COMPUTE_JOB, .job = *job};
    if (others) word.others = *others;
    atomic_store(&s->page->stop_fence, 0);
    s->log_len = s->log_at = 0;
    if (!tell(s, &word, sizeof word))
        return MODE_FAIL(err, MODE_E_TEMP, "the compute process does not accept the task: %s", strerror(errno));
    return MODE_OK;
}

bool mode_slot_tell(struct mode_slot *s, const struct mode_compute_news *news)
{
    const struct mode_to_compute word = {.kind = MODE_TO_COMPUTE_NEWS, .news = *news};
    return tell(s, &word, offsetof(struct mode_to_compute, news) + sizeof word.news);
}

int mode_slot_read(struct mode_slot *s, struct mode_from_compute *word)
{
    for (;;) {
        ssize_t n = recv(s->sock, word, sizeof *word, MSG_DONTWAIT);
        if (n == (ssize_t)sizeof *word) return 1;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        return -1;
    }
}

void mode_slot_read_log(struct mode_slot *s)
{
    char buf[4096];
    for (int i = 0; i < 64; i++) { /* bounded: a compute process that never stops writing must not block the agent */
        ssize_t n = read(s->err_fd, buf, sizeof buf);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        for (ssize_t at = 0, w; at < n; at += w)
            if ((w = write(STDERR_FILENO, buf + at, (size_t)(n - at))) <= 0)
                break; /* a failed write to stderr cannot be reported */
        for (ssize_t k = 0; k < n; k++) {
            s->log[s->log_at] = buf[k];
            s->log_at = (s->log_at + 1) % MODE_LOG_RING;
            if (s->log_len < MODE_LOG_RING) s->log_len++;
        }
    }
}

size_t mode_slot_log_tail(const struct mode_slot *s, uint8_t *out, size_t cap)
{
    size_t n = s->log_len < cap ? s->log_len : cap;
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)s->log[(s->log_at + MODE_LOG_RING - n + i) % MODE_LOG_RING];
    return n;
}

uint64_t mode_slot_rss(const struct mode_slot *s)
{
    char path[64];
    unsigned long long total, resident = 0;
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)s->pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%llu %llu", &total, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* waitpid for at most `rounds` hundredths of a second */
static bool collected(pid_t pid, int *status, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR)) return true;
        usleep(10000);
    }
    return false;
}

int mode_slot_reap(struct mode_slot *s, bool kill_first)
{
    int status = 0;
    if (s->pid <= 0) return 0;
    /* its socket is closed, so it is exiting: wait a moment for its true exit status */
    if (kill_first || !collected(s->pid, &status, 100)) {
        kill(-s->pid, SIGKILL);
        kill(s->pid, SIGKILL); /* its process group may not exist yet */
        /* stuck in a driver or a dead filesystem it is abandoned: the agent must go on */
        if (!collected(s->pid, &status, 200)) status = SIGKILL;
    }
    kill(-s->pid, SIGKILL); /* what it started and left behind */
    mode_slot_read_log(s);
    close(s->sock);
    close(s->err_fd);
    munmap(s->page, sizeof *s->page);
    s->pid = 0;
    s->sock = s->err_fd = -1;
    s->page = NULL;
    return status;
}

void mode_slot_close(struct mode_slot *s)
{
    mode_slot_reap(s, true);
}
