#include "msg/beside.h"

#include "base/log.h"
#include "base/parallel.h"
#include "base/process.h"
#include "base/str.h"
#include "msg/runtime.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SECRET "MODE_BESIDE_SECRET" /* in the environment: arguments are readable by every user of the machine */

/* argv: <program> --beside <pid of the parent> <threads> <workspace> <backend> <key> <fence> <folder> <rank> <size>
 * <place> <checkpoint or ""> <GPU> */
enum { N_ARGV = 14, HEX = 2 * MODE_TEAM_SECRET };

/* This process's environment plus the secret, which is stored in `text`. */
static char **environment(char *text, const uint8_t *secret)
{
    size_t n = 0;
    while (environ[n]) n++;
    char **env = mode_xcalloc(n + 2, sizeof *env);
    memcpy(env, environ, n * sizeof *env);
    strcpy(text, SECRET "=");
    for (int i = 0; i < MODE_TEAM_SECRET; i++) sprintf(text + strlen(text), "%02x", secret[i]);
    env[n] = text;
    return env;
}

static bool read_secret(uint8_t *secret)
{
    const char *text = getenv(SECRET);
    bool ok = text && strlen(text) == HEX && strspn(text, "0123456789abcdef") == HEX;
    for (int i = 0; ok && i < MODE_TEAM_SECRET; i++) {
        unsigned byte;
        ok = sscanf(text + (size_t)2 * (size_t)i, "%2x", &byte) == 1;
        secret[i] = (uint8_t)byte;
    }
    return ok;
}

pid_t mode_beside_start(const struct mode_beside *b, int rank, int gpu)
{
    char pid[24], threads[24], fence[24], at[24], of[24], index[24], secret[sizeof SECRET + 1 + HEX];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    snprintf(threads, sizeof threads, "%d", b->threads);
    snprintf(fence, sizeof fence, "%" PRIu64, b->fence);
    snprintf(at, sizeof at, "%d", rank);
    snprintf(of, sizeof of, "%d", b->size);
    snprintf(index, sizeof index, "%d", gpu);
    const char *argv[N_ARGV + 1] = {program_invocation_name,
                                    MODE_BESIDE_FLAG,
                                    pid,
                                    threads,
                                    b->workspace,
                                    b->backend,
                                    b->key,
                                    fence,
                                    b->inputs,
                                    at,
                                    of,
                                    b->place,
                                    b->checkpoint ? b->checkpoint : "",
                                    index,
                                    NULL};
    char **env = environment(secret, b->secret);
    pid_t child = fork();
    if (child == 0) {
        if (b->apart) setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execve("/proc/self/exe", (char *const *)(uintptr_t)argv, env);
        _exit(127);
    }
    const int why = errno;
    free(env);
    errno = why;
    return child;
}

static enum mode_status run(const char *word, mode_work_fn *work, char **argv, struct mode_error *err)
{
    struct mode_store *store = NULL;
    Mode__TaskSpec *spec = NULL;
    struct mode_job_page page = {0};
    struct mode_job job;
    const char *folder = argv[8], *checkpoint = argv[12];
    enum mode_status st = mode_process_pick_gpu(atoll(argv[13]), err);
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
    job.out_dir = mode_path_join(folder, "none"); /* never created: process 0 writes */
    job.ckpt_latest = checkpoint[0] ? mode_xstrdup(checkpoint) : NULL;
    job.ckpt_looked = true;
    job.team = (struct mode_job_team){.rank = atoi(argv[9]), .size = atoi(argv[10]), .place = argv[11]};
    if (!read_secret(job.team.secret)) st = MODE_FAIL(err, MODE_E_CONFIG, SECRET " is for internal use");
    for (size_t i = 0; i < spec->n_inputs; i++) mode_job_found_input(&job, spec->inputs[i]->name);
    if (!st) st = work(&job, err);
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
    sigset_t none;
    if (argc != N_ARGV) {
        fprintf(stderr, "mode-%s: %s is for internal use\n", word, MODE_BESIDE_FLAG);
        return 2;
    }
    if (getppid() != (pid_t)atol(argv[2])) return 0;
    signal(SIGHUP, SIG_IGN); /* intended for the agent */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    mode_log_open(word);
    mode_parallel_set_threads(atoi(argv[3]));
    enum mode_status st = run(word, work, argv, &err);
    if (st && st != MODE_E_STOPPED) mode_log_failure("beside", &err);
    return st == MODE_E_STOPPED ? 0 : mode_status_exit_code(st);
}
