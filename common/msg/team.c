/* A task's team, from the side of its compute process (msg/job.h): it starts the processes of its own machine, and asks
 * the agent to have those of other machines started. When one of them ends early, its exit status is the failure that
 * is reported. */
#include "base/clock.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/str.h"
#include "msg/beside.h"
#include "msg/place.h"
#include "msg/runtime.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 10, POLL_MS = 20, ELSEWHERE = -1 };

static int gpus_here(const struct mode_job *job)
{
    return job->gpus > 1 ? job->gpus : 1;
}

int mode_job_gpus(const struct mode_job *job)
{
    int n = gpus_here(job);
    for (int i = 0; job->others && i < job->others->n; i++) n += job->others->gpus[i];
    return n;
}

const struct mode_job_team *mode_job_team(const struct mode_job *job)
{
    return &job->team;
}

/* Ranks of the i-th other machine: *first up to *first + result - 1. */
static int share_of(int *first, const struct mode_job *job, int i)
{
    *first = gpus_here(job);
    for (int k = 0; k < i; k++) *first += job->others->gpus[k];
    const int left = job->team.size - *first;
    return left < 0 ? 0 : left < job->others->gpus[i] ? left : job->others->gpus[i];
}

/* Index of the other machine that runs process `rank`; -1: this machine. */
static int machine_of(const struct mode_job *job, int rank)
{
    for (int i = 0, first; job->others && i < job->others->n; i++) {
        const int n = share_of(&first, job, i);
        if (rank >= first && rank < first + n) return i;
    }
    return -1;
}

/* Tells the agent what each of the other machines is to start. */
static enum mode_status call_others(struct mode_job *job, const struct mode_beside *b, struct mode_error *err)
{
    struct mode_from_compute word = {.kind = MODE_FROM_COMPUTE_CALL};
    struct mode_compute_call *c = &word.call;
    c->fence = job->fence;
    c->size = b->size;
    memcpy(c->secret, b->secret, sizeof c->secret);
    if (snprintf(c->backend, sizeof c->backend, "%s", b->backend) >= (int)sizeof c->backend ||
        snprintf(c->inputs, sizeof c->inputs, "%s", b->inputs) >= (int)sizeof c->inputs ||
        snprintf(c->checkpoint, sizeof c->checkpoint, "%s", b->checkpoint ? b->checkpoint : "") >=
            (int)sizeof c->checkpoint)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: the path is too long to be sent to other machines", b->inputs);
    for (int i = 0; i < job->others->n; i++) {
        c->n[i] = share_of(&c->first[i], job, i);
        for (int k = 0; k < c->n[i]; k++) job->team.pid[c->first[i] + k] = ELSEWHERE;
    }
    if (send(job->agent, &word, sizeof word, MSG_NOSIGNAL) != (ssize_t)sizeof word)
        return MODE_FAIL(err, MODE_E_GENERIC, "the agent cannot be told to start a team: %s", strerror(errno));
    return MODE_OK;
}

enum mode_status mode_job_team_start(struct mode_job *job, int size, const char *backend, struct mode_error *err)
{
    struct mode_job_team *t = &job->team;
    MODE_ASSERT(t->rank == 0 && t->size == 1 && size > 1);
    if (!job->store) return MODE_FAIL(err, MODE_E_VALUE, "a task without a store is done by one process");
    const int here = size < gpus_here(job) ? size : gpus_here(job);
    enum mode_status st = MODE_OK;
    if (size > here)
        t->place = mode_xstrdup(job->others->place);
    else {
        char *name = mode_xasprintf("team-%016" PRIx64 ".sock", job->fence);
        st = mode_place_make(mode_store_root(job->store), err);
        if (!st) st = mode_place_path(&t->place, mode_store_root(job->store), name, err);
        free(name);
    }
    if (st) return st;
    MODE_ASSERT(getrandom(t->secret, sizeof t->secret, 0) == (ssize_t)sizeof t->secret);
    mode_parallel_share(here);
    t->size = size;
    t->pid = mode_xcalloc((size_t)size, sizeof *t->pid);
    const struct mode_beside b = {.workspace = mode_store_root(job->store),
                                  .backend = backend,
                                  .key = job->key,
                                  .fence = job->fence,
                                  .inputs = job->in_dir,
                                  .checkpoint = mode_job_checkpoint_latest(job), /* looked up once, for all ranks */
                                  .size = size,
                                  .place = t->place,
                                  .secret = t->secret,
                                  .threads = mode_parallel_threads()};
    for (int i = 1; !st && i < here; i++)
        if ((t->pid[i] = mode_beside_start(&b, i, i)) < 0) {
            st = MODE_FAIL(err, MODE_E_GENERIC, "process %d of %d cannot be started: %s", i, size, strerror(errno));
            t->pid[i] = 0;
        }
    return st || size == here ? st : call_others(job, &b, err);
}

/* The status for an exit code. A failed GPU shares its code with too little memory, but the latter would have occurred
 * in process 0, too. */
static enum mode_status status_of(int exit_code)
{
    if (exit_code == mode_status_exit_code(MODE_E_DEVICE)) return MODE_E_DEVICE;
    for (int st = MODE_E_VALUE; st <= MODE_E_GENERIC; st++)
        if (mode_status_exit_code((enum mode_status)st) == exit_code) return (enum mode_status)st;
    return MODE_E_GENERIC;
}

static bool is_exit(int status, int code)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

/* Keeps the first failure, but prefers one that was not caused by other processes' failures. */
static bool is_kept(const struct mode_job_team *t)
{
    return t->fallen && (t->gone || !is_exit(t->how, mode_status_exit_code(MODE_E_PEER)));
}

static void has_ended(struct mode_job_team *t, int rank, int status)
{
    t->pid[rank] = 0;
    if (is_exit(status, 0) || is_kept(t) || (t->fallen && is_exit(status, mode_status_exit_code(MODE_E_PEER)))) return;
    t->fallen = rank;
    t->how = status;
}

/* A machine was lost, and its processes with it. */
static void is_gone(struct mode_job *job, int machine)
{
    struct mode_job_team *t = &job->team;
    int first, n = share_of(&first, job, machine);
    bool any = false;
    for (int i = first; i < first + n; i++) {
        any |= t->pid[i] == ELSEWHERE;
        t->pid[i] = 0;
    }
    if (!any || is_kept(t)) return;
    t->fallen = first;
    t->gone = true;
}

static void hear(struct mode_job *job)
{
    struct mode_to_compute word;
    while (recv(job->agent, &word, sizeof word, MSG_DONTWAIT) > 0) { /* messages arrive complete */
        const struct mode_compute_news *news = &word.news;
        if (word.kind != MODE_TO_COMPUTE_NEWS || news->fence != job->fence) continue; /* about an earlier task */
        const int machine = machine_of(job, news->rank);
        if (machine < 0) continue;
        if (news->gone)
            is_gone(job, machine);
        else if (job->team.pid[news->rank] == ELSEWHERE)
            has_ended(&job->team, news->rank, news->how);
    }
}

/* Records which processes have ended. */
static void look(struct mode_job *job)
{
    struct mode_job_team *t = &job->team;
    for (int i = 1; t->pid && i < t->size; i++) {
        int status;
        if (t->pid[i] > 0 && waitpid(t->pid[i], &status, WNOHANG) == t->pid[i]) has_ended(t, i, status);
    }
    if (t->pid && job->others && job->others->n) hear(job);
}

bool mode_job_team_broken(void *job)
{
    struct mode_job *j = job;
    look(j);
    return j->team.fallen || mode_job_stopping(j);
}

/* elsewhere: also wait for processes of other machines. */
static bool wait_for_all(struct mode_job *job, bool elsewhere, double seconds)
{
    const struct mode_job_team *t = &job->team;
    const double until = mode_clock_s() + seconds;
    for (;;) {
        bool any = false;
        look(job);
        for (int i = 1; i < t->size; i++) any |= t->pid[i] > 0 || (elsewhere && t->pid[i] == ELSEWHERE);
        if (!any) return true;
        if (mode_clock_s() > until) return false;
        usleep(POLL_MS * 1000);
    }
}

static enum mode_status why(const struct mode_job *job, struct mode_error *err)
{
    const struct mode_job_team *t = &job->team;
    const int machine = machine_of(job, t->fallen);
    char where[MODE_MACHINE_NAME + 8] = "";
    if (machine >= 0) snprintf(where, sizeof where, " (on %s)", job->others->name[machine]);
    if (t->gone)
        return MODE_FAIL(err, MODE_E_PEER,
                         "machine %s, which has process %d of the %d that do this task together, is gone",
                         job->others->name[machine], t->fallen, t->size);
    if (WIFSIGNALED(t->how))
        return MODE_FAIL(err, MODE_E_GENERIC,
                         "process %d of the %d that do this task together%s was killed by signal %d (%s)", t->fallen,
                         t->size, where, WTERMSIG(t->how), strsignal(WTERMSIG(t->how)));
    return MODE_FAIL(err, status_of(WEXITSTATUS(t->how)),
                     "process %d of the %d that do this task together%s ended with code %d; what it said is in the log",
                     t->fallen, t->size, where, WEXITSTATUS(t->how));
}

enum mode_status mode_job_team_end(struct mode_job *job, enum mode_status st, struct mode_error *err)
{
    struct mode_job_team *t = &job->team;
    if (t->rank > 0 || t->size == 1) return st;
    bool is_over = wait_for_all(job, true, !st || st == MODE_E_PEER || st == MODE_E_STOPPED ? PATIENCE_S : 0);
    if (t->fallen && (st == MODE_E_PEER || (st == MODE_E_STOPPED && !mode_job_stopping(job)))) st = why(job, err);
    for (int i = 1; i < t->size; i++) /* those of other machines are ended by the agent at the end of the task */
        if (t->pid[i] > 0) kill(t->pid[i], SIGKILL);
    if (!is_over && !st) mode_log_warn("team_left", "a process of %d did not end by itself", t->size);
    (void)wait_for_all(job, false, PATIENCE_S);
    if (strchr(t->place, '/')) unlink(t->place);
    free(t->place);
    free(t->pid);
    *t = (struct mode_job_team){.size = 1};
    mode_parallel_share(1);
    return st;
}
