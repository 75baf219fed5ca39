/* Processes that do one task together (msg/job.h): the compute process starts the others, which are the same program
 * and run the same work function on the same inputs; when one of them ends before its time, how it ended is what went
 * wrong.
 *
 * DESIGN: the others have no socket to the agent and no page of its: they are told nothing and asked nothing. They are
 * in the compute process's group, which the agent kills as a whole, and the kernel ends them when it ends. What they
 * log goes where it logs. */
#include "base/clock.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/process.h"
#include "base/str.h"
#include "msg/place.h"
#include "msg/runtime.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 10, POLL_MS = 20 };

int mode_job_gpus(const struct mode_job *job)
{
    return job->gpus > 1 ? job->gpus : 1;
}

const struct mode_job_team *mode_job_team(const struct mode_job *job)
{
    return &job->team;
}

/* argv: <program> --beside <pid of process 0> <threads> <workspace> <backend> <key> <fence> <folder> <rank> <size>
 * <place> <checkpoint or ""> */
enum { N_ARGV = 13 };

static pid_t start_one(const struct mode_job *job, int rank, const char *backend)
{
    const struct mode_job_team *t = &job->team;
    char pid[24], threads[24], fence[24], at[24], of[24];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    snprintf(threads, sizeof threads, "%d", mode_parallel_threads());
    snprintf(fence, sizeof fence, "%" PRIu64, job->fence);
    snprintf(at, sizeof at, "%d", rank);
    snprintf(of, sizeof of, "%d", t->size);
    const char *argv[N_ARGV + 1] = {program_invocation_name,
                                    MODE_BESIDE_FLAG,
                                    pid,
                                    threads,
                                    mode_store_root(job->store),
                                    backend,
                                    job->key,
                                    fence,
                                    job->in_dir,
                                    at,
                                    of,
                                    t->place,
                                    job->ckpt_latest ? job->ckpt_latest : "",
                                    NULL};
    pid_t child = fork();
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
    _exit(127);
}

enum mode_status mode_job_team_start(struct mode_job *job, int size, const char *backend, struct mode_error *err)
{
    struct mode_job_team *t = &job->team;
    MODE_ASSERT(t->rank == 0 && t->size == 1 && size > 1);
    if (!job->store) return MODE_FAIL(err, MODE_E_VALUE, "a task without a store is done by one process");
    char *name = mode_xasprintf("team-%016" PRIx64 ".sock", job->fence);
    enum mode_status st = mode_place_make(mode_store_root(job->store), err);
    if (!st) st = mode_place_path(&t->place, mode_store_root(job->store), name, err);
    free(name);
    if (st) return st;
    mode_parallel_share(size);
    (void)mode_job_checkpoint_latest(job); /* looked for once, for all */
    t->size = size;
    t->pid = mode_xcalloc((size_t)size, sizeof *t->pid);
    for (int i = 1; !st && i < size; i++)
        if ((t->pid[i] = start_one(job, i, backend)) < 0) {
            st = MODE_FAIL(err, MODE_E_GENERIC, "process %d of %d cannot be started: %s", i, size, strerror(errno));
            t->pid[i] = 0;
        }
    return st;
}

/* What the exit code of a process says. A GPU that failed there shares its code with memory that is too small, which
 * process 0 would have found, too. */
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

/* Take note of those that have ended. The first that did badly is kept, those first that did not end because of others.
 */
static void look(struct mode_job_team *t)
{
    const int left_alone = mode_status_exit_code(MODE_E_PEER);
    for (int i = 1; t->pid && i < t->size; i++) {
        int status;
        if (t->pid[i] <= 0 || waitpid(t->pid[i], &status, WNOHANG) != t->pid[i]) continue;
        t->pid[i] = 0;
        if (is_exit(status, 0) || (t->fallen && (!is_exit(t->how, left_alone) || is_exit(status, left_alone))))
            continue;
        t->fallen = i;
        t->how = status;
    }
}

bool mode_job_team_broken(void *job)
{
    struct mode_job *j = job;
    look(&j->team);
    return j->team.fallen || mode_job_stopping(j);
}

static bool wait_for_all(struct mode_job_team *t, double seconds)
{
    const double until = mode_clock_s() + seconds;
    for (;;) {
        bool any = false;
        look(t);
        for (int i = 1; i < t->size; i++) any |= t->pid[i] > 0;
        if (!any) return true;
        if (mode_clock_s() > until) return false;
        usleep(POLL_MS * 1000);
    }
}

static enum mode_status why(const struct mode_job_team *t, struct mode_error *err)
{
    if (WIFSIGNALED(t->how))
        return MODE_FAIL(err, MODE_E_GENERIC,
                         "process %d of the %d that do this task together was killed by signal %d (%s)", t->fallen,
                         t->size, WTERMSIG(t->how), strsignal(WTERMSIG(t->how)));
    return MODE_FAIL(err, status_of(WEXITSTATUS(t->how)),
                     "process %d of the %d that do this task together ended with code %d; what it said is in the log",
                     t->fallen, t->size, WEXITSTATUS(t->how));
}

enum mode_status mode_job_team_end(struct mode_job *job, enum mode_status st, struct mode_error *err)
{
    struct mode_job_team *t = &job->team;
    if (t->rank > 0 || t->size == 1) return st;
    bool is_over = wait_for_all(t, !st || st == MODE_E_PEER || st == MODE_E_STOPPED ? PATIENCE_S : 0);
    if (t->fallen && (st == MODE_E_PEER || (st == MODE_E_STOPPED && !mode_job_stopping(job)))) st = why(t, err);
    for (int i = 1; i < t->size; i++)
        if (t->pid[i] > 0) kill(t->pid[i], SIGKILL);
    if (!is_over && !st) mode_log_warn("team_left", "a process of %d did not end by itself", t->size);
    (void)wait_for_all(t, PATIENCE_S);
    unlink(t->place);
    free(t->place);
    free(t->pid);
    *t = (struct mode_job_team){.size = 1};
    mode_parallel_share(1);
    return st;
}

/* ---- one of the others ---- */

static enum mode_status run(const char *word, mode_work_fn *work, char **argv, struct mode_error *err)
{
    struct mode_store *store = NULL;
    Mode__TaskSpec *spec = NULL;
    struct mode_job_page page = {0};
    struct mode_job job;
    const char *folder = argv[8], *checkpoint = argv[12];
    const int64_t rank = atoll(argv[9]);
    enum mode_status st = mode_process_pick_gpu(rank, err);
    if (!st) st = mode_store_open(&store, argv[4], err);
    if (!st) st = mode_store_task_get(store, &spec, argv[6], err);
    if (st) goto out;
    mode_job_init(&job, &page);
    job.backend = argv[5];
    job.store = store;
    job.key = argv[6];
    job.fence = strtoull(argv[7], NULL, 10);
    job.request = spec->request.data;
    job.request_size = spec->request.len;
    job.in_dir = mode_xstrdup(folder);
    job.out_dir = mode_path_join(folder, "none"); /* which nobody makes: process 0 writes */
    job.ckpt_latest = checkpoint[0] ? mode_xstrdup(checkpoint) : NULL;
    job.ckpt_looked = true;
    job.team = (struct mode_job_team){.rank = (int)rank, .size = atoi(argv[10]), .place = argv[11]};
    for (size_t i = 0; i < spec->n_inputs; i++) mode_job_found_input(&job, spec->inputs[i]->name);
    st = work(&job, err);
    if (st) mode_error_prefix(err, st, "%s, process %d of %d", word, job.team.rank, job.team.size);
    mode_job_clear(&job);
out:
    mode__task_spec__free_unpacked(spec, NULL);
    mode_store_close(&store);
    return st;
}

int mode_beside_main(const char *word, mode_work_fn *work, int argc, char **argv)
{
    struct mode_error err = {0};
    if (argc != N_ARGV) {
        fprintf(stderr, "mode-%s: %s is for internal use\n", word, MODE_BESIDE_FLAG);
        return 2;
    }
    if (getppid() != (pid_t)atol(argv[2])) return 0;
    mode_log_open(word);
    mode_parallel_set_threads(atoi(argv[3]));
    enum mode_status st = run(word, work, argv, &err);
    if (st && st != MODE_E_STOPPED) mode_log_failure("beside", &err);
    return st == MODE_E_STOPPED ? 0 : mode_status_exit_code(st);
}
