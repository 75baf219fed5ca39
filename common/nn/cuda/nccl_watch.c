/* DESIGN: finding the cause. A process that ends breaks its connections, to the meeting and to NCCL, at about the same
 * time; its neighbours may see the second first, as an NCCL error. So after an NCCL error the watch waits a moment for
 * a process to end: then that is the cause. If none has ended, the error is this process's own, and it notifies the
 * others: one process reports what failed, the others which process.
 *
 * The number of calls shows which process is missing: all make the same calls in the same order, and none gets far
 * ahead of one that stalls. Each process announces its count when it has changed. There is no timeout, as in NCCL: a
 * process may be late for a reason (it writes a checkpoint). So a late process is only reported. */
#include "nn/cuda/nccl_watch.h"

#include "base/clock.h"
#include "base/str.h"
#include "dist/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* TICK_MS: period of polling NCCL. CAUSE_S: how long an NCCL error waits for the end of a process. CALL_S, ABORT_S:
 * after this a call, an abort, counts as hung. LATE_S: after this a process that is behind is reported. */
enum { TICK_MS = 1000, CAUSE_S = 5, CALL_S = 10, ABORT_S = 30, LATE_S = 60, WORDS = 400 };

struct message {
    int32_t kind, number;
};
enum { GOODBYE = 1, ENDED, BROKEN_OFF, CALLS }; /* number: the rank; for CALLS the count */

struct mode__watch {
    struct mode_meeting *meeting;
    pthread_t thread;
    int wake[2];
    struct heard { /* of another process */
        int32_t calls;
        double since; /* when its count last changed, or it was not behind */
        bool is_said;
    } heard[MODE_RANKS_MAX];
    int32_t told;  /* count announced last */
    bool in_order; /* set before the watch is woken */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t moved; /* is_inside or is_over has changed */
    ncclComm_t comm;      /* NULL: none yet, or destroyed */
    int32_t calls;
    bool is_inside, is_over;
    ncclResult_t failed; /* NCCL's first error here */
    double failed_at;
    struct message cause; /* valid with is_over */
    char words[WORDS];    /* NCCL's message, if the cause is this process */
};

static bool is_error(ncclResult_t result)
{
    return result != ncclSuccess && result != ncclInProgress;
}

static int connections(const struct mode_meeting *m)
{
    return m->rank == 0 ? m->size : 1;
}

/* To all connected processes; send errors are ignored: a process that has gone does not need it. */
static void tell(const struct mode__watch *w, int32_t kind, int number)
{
    const struct message x = {kind, (int32_t)number};
    for (int r = 0; r < connections(w->meeting); r++)
        if (w->meeting->fd[r] >= 0) (void)send(w->meeting->fd[r], &x, sizeof x, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- the end ---- */

struct last_call {
    ncclResult_t (*call)(ncclComm_t comm);
    ncclComm_t comm;
};

static void *make_last_call(void *ctx)
{
    const struct last_call *x = ctx;
    (void)x->call(x->comm);
    return NULL;
}

/* false: it has not returned in time, and its thread is abandoned. */
static bool returns(ncclResult_t (*call)(ncclComm_t comm), ncclComm_t comm)
{
    struct last_call *x = mode_xcalloc(1, sizeof *x);
    struct timespec until;
    pthread_t thread;
    bool yes = true;
    *x = (struct last_call){call, comm};
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ABORT_S;
    if (pthread_create(&thread, NULL, make_last_call, x))
        (void)call(comm);
    else
        yes = pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until) == 0;
    if (yes) free(x);
    return yes;
}

/* The caller, or the abort, hangs inside NCCL: only this thread can report it. */
static void end_process(struct mode__watch *w)
{
    struct mode_error err = {0};
    const enum mode_status st = mode__watch_why(w, &err);
    fprintf(stderr, "%s\n", err.text);
    _exit(mode_status_exit_code(st)); /* CUDA's own handlers at exit may wait for the GPU */
}

/* NCCL's last warning may belong to another call. */
static void note_words(struct mode__watch *w)
{
    const char *last = mode__nccl.ncclGetLastError(NULL);
    snprintf(w->words, sizeof w->words, "%s%s%.250s", mode__nccl.ncclGetErrorString(w->failed),
             last && last[0] ? "; its last warning: " : "", last ? last : "");
    for (char *c = w->words; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
}

static void break_off(struct mode__watch *w, struct message cause)
{
    const struct mode_meeting *m = w->meeting;
    struct timespec until;
    bool is_stuck = false;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += CALL_S;
    pthread_mutex_lock(&w->lock);
    w->cause = cause;
    if (cause.number == m->rank) note_words(w);
    w->is_over = true;
    pthread_cond_broadcast(&w->moved);
    if (m->rank == 0 || cause.number == m->rank) tell(w, cause.kind, cause.number);
    while (w->is_inside && !is_stuck)
        is_stuck = pthread_cond_clockwait(&w->moved, &w->lock, CLOCK_MONOTONIC, &until) != 0 && w->is_inside;
    ncclComm_t comm = w->comm;
    w->comm = NULL;
    pthread_mutex_unlock(&w->lock);
    if (is_stuck || (comm && !returns(mode__nccl.ncclCommAbort, comm))) end_process(w);
}

/* ---- the watch ---- */

/* Reads a message of process r; false: no more will come. */
static bool listen_to(struct mode__watch *w, int r)
{
    struct message x = {0, 0};
    const bool is_whole = recv(w->meeting->fd[r], &x, sizeof x, MSG_WAITALL) == (ssize_t)sizeof x;
    if (is_whole && x.kind == CALLS) {
        w->heard[r] = (struct heard){.calls = x.number, .since = mode_clock_s()};
        return true;
    }
    if (is_whole && x.kind == GOODBYE) return false;
    if (!is_whole) x = (struct message){ENDED, r};
    break_off(w, x);
    return false;
}

static void ask_nccl(struct mode__watch *w)
{
    ncclResult_t result = ncclSuccess;
    pthread_mutex_lock(&w->lock);
    if (w->comm && w->failed == ncclSuccess && mode__nccl.ncclCommGetAsyncError(w->comm, &result) == ncclSuccess &&
        is_error(result)) {
        w->failed = result;
        w->failed_at = mode_clock_s();
    }
    const bool is_own = w->failed != ncclSuccess && mode_clock_s() - w->failed_at > CAUSE_S;
    pthread_mutex_unlock(&w->lock);
    if (is_own) break_off(w, (struct message){BROKEN_OFF, w->meeting->rank});
}

/* Announces this process's count, and reports processes that keep it waiting. */
static void compare_calls(struct mode__watch *w)
{
    const struct mode_meeting *m = w->meeting;
    const double now = mode_clock_s();
    pthread_mutex_lock(&w->lock);
    const int32_t calls = w->calls;
    pthread_mutex_unlock(&w->lock);
    if (calls != w->told) tell(w, CALLS, w->told = calls);
    for (int r = 0; r < connections(m); r++) {
        struct heard *h = &w->heard[r];
        if (m->fd[r] < 0) continue;
        if (h->calls >= calls) *h = (struct heard){.calls = h->calls, .since = now};
        if (h->is_said || now - h->since < LATE_S) continue;
        fprintf(
            stderr,
            "process %d of %d has begun no exchange for %d s, and process %d is ahead of it and waits. HINT: it may be "
            "stopped, or its GPU or disk hang; once it is ended, --resume goes on from the last checkpoint\n",
            r, m->size, LATE_S, m->rank);
        h->is_said = true;
    }
}

/* Runs until woken, or until the group has failed. */
static void *watch(void *ctx)
{
    struct mode__watch *w = ctx;
    const struct mode_meeting *m = w->meeting;
    struct pollfd p[MODE_RANKS_MAX + 1];
    const int n = connections(m);
    for (int r = 0; r < n; r++) p[r] = (struct pollfd){.fd = m->fd[r], .events = POLLIN};
    p[n] = (struct pollfd){.fd = w->wake[0], .events = POLLIN};
    while (!w->is_over) { /* only this thread sets it */
        const int ready = poll(p, (nfds_t)n + 1, TICK_MS);
        if (ready > 0 && p[n].revents) break;
        for (int r = 0; r < n && ready > 0 && !w->is_over; r++)
            if (p[r].fd >= 0 && p[r].revents && !listen_to(w, r)) p[r].fd = -1;
        if (!w->is_over) compare_calls(w);
        if (!w->is_over) ask_nccl(w);
    }
    if (!w->is_over) tell(w, w->in_order ? GOODBYE : BROKEN_OFF, m->rank);
    return NULL;
}

/* ---- for the caller ---- */

enum mode_status mode__watch_open(struct mode__watch **w, struct mode_meeting *m, struct mode_error *err)
{
    struct mode__watch *x = mode_xcalloc(1, sizeof *x);
    sigset_t all, before;
    *w = NULL;
    x->meeting = m;
    for (int r = 0; r < m->size; r++) x->heard[r].since = mode_clock_s();
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->moved, NULL);
    int e = pipe2(x->wake, O_CLOEXEC) ? errno : 0;
    if (!e) {
        sigfillset(&all); /* signals go to the other threads */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        e = pthread_create(&x->thread, NULL, watch, x);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (e) close(x->wake[0]);
        if (e) close(x->wake[1]);
    }
    if (!e) {
        *w = x;
        return MODE_OK;
    }
    free(x);
    return MODE_FAIL(err, MODE_E_GENERIC, "no thread to watch the other processes: %s", strerror(e));
}

void mode__watch_take(struct mode__watch *w, ncclComm_t comm)
{
    pthread_mutex_lock(&w->lock);
    w->comm = comm;
    pthread_mutex_unlock(&w->lock);
}

bool mode__watch_enter(struct mode__watch *w)
{
    pthread_mutex_lock(&w->lock);
    const bool may = w->is_inside = !w->is_over;
    w->calls += may;
    pthread_mutex_unlock(&w->lock);
    return may;
}

void mode__watch_leave(struct mode__watch *w, ncclResult_t result)
{
    pthread_mutex_lock(&w->lock);
    w->is_inside = false;
    pthread_cond_broadcast(&w->moved);
    if (is_error(result)) {
        if (w->failed == ncclSuccess) w->failed_at = mode_clock_s();
        if (w->failed == ncclSuccess) w->failed = result;
        while (!w->is_over) pthread_cond_wait(&w->moved, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

enum mode_status mode__watch_why(struct mode__watch *w, struct mode_error *err)
{
    const struct mode_meeting *m = w->meeting;
    pthread_mutex_lock(&w->lock);
    const bool is_over = w->is_over;
    const struct message cause = w->cause;
    pthread_mutex_unlock(&w->lock);
    if (!is_over) return MODE_OK;
    if (cause.number == m->rank)
        return MODE_FAIL(
            err, MODE_E_DEVICE,
            "the exchange between GPUs failed in process %d of %d; NCCL says: %s. HINT: `nvidia-smi nvlink "
            "-e`, the kernel's log (\"Xid\") and NCCL_DEBUG=WARN say more; what is committed or in a "
            "checkpoint is safe",
            m->rank, m->size, w->words);
    return MODE_FAIL(err, MODE_E_PEER,
                     "process %d of %d has %s, so process %d cannot go on. HINT: its own message says why; --resume "
                     "goes on from the last checkpoint",
                     (int)cause.number, m->size, cause.kind == ENDED ? "ended" : "broken off", m->rank);
}

void mode__watch_close(struct mode__watch **w, bool in_order)
{
    struct mode__watch *x = *w;
    if (!x) return;
    x->in_order = in_order;
    while (write(x->wake[1], "", 1) < 0 && errno == EINTR) {
    }
    pthread_join(x->thread, NULL);
    close(x->wake[0]);
    close(x->wake[1]);
    if (x->comm) (void)returns(in_order ? mode__nccl.ncclCommDestroy : mode__nccl.ncclCommAbort, x->comm);
    pthread_cond_destroy(&x->moved);
    pthread_mutex_destroy(&x->lock);
    free(x);
    *w = NULL;
}
