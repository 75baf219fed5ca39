/* worker.h - the main function of every worker: the agent that talks to the coordinator, and the compute processes.
 *
 *     int main(int argc, char **argv)
 *     {
 *         return mode_worker_main("embed", embed_work, mode_backend_look, argc, argv);
 *     }
 *
 * Two processes: the agent holds the connection, the leases and the heartbeat and never computes, so it
 * answers while a kernel hangs; the compute process (the same executable again, one per slot) runs the work
 * function on one job at a time and stays for the next. If it dies or stalls the agent reports that with the last lines
 * of its stderr and starts another. Any process may be killed at any time without losing finished work: outputs are
 * published before the commit record, and a task whose commit record exists is reported, not computed again.
 *
 * Threads: mode_worker_main takes over the whole process. */
#ifndef MODE_MSG_WORKER_H
#define MODE_MSG_WORKER_H

#include "msg/job.h"

#include <stddef.h>

/* Describes --backend `backend` on this machine for people, or fails with the reason why it cannot be used (nn/look.h).
 * Called in a process of its own before the worker requests tasks; when it fails, the worker exits with its error and
 * exit code. */
typedef enum mode_status mode_look_fn(char *text, size_t size, const char *backend, struct mode_error *err);

/* look: NULL for work that runs on the CPU only. Options and environment: `mode-<word> --help`. `mode-<word>
 * healthcheck` exits 0 when the agent that updates the health file is alive, 1 otherwise. Returns the exit code.
 * SIGTERM, SIGINT: request no more tasks, give back running ones within the grace period, exit 143 or 130; a second
 * signal exits at once. A DRAIN by the coordinator lets running tasks finish and exits 0. */
int mode_worker_main(const char *word, mode_work_fn *work, mode_look_fn *look, int argc, char **argv);
/* Checks that a worker would accept the environment when --workspace, --coordinator, --gpu-locks and --gpus are given;
 * for callers that start workers. MODE_E_USAGE (of mode_options_blame's kind) or MODE_E_CONFIG. */
enum mode_status mode_worker_check_environment(const char *word, int64_t gpus, struct mode_error *err);

/* Runs a work function in this process, without services or store; for tests of services. Inputs are plain files under
 * the names the service knows; outputs appear as out_dir/<name>, only on success. */
struct mode_local_input {
    const char *name, *path;
};
struct mode_local_report { /* may be NULL */
    uint64_t rows_in, rows_out, rejected;
    char *note; /* malloc'd JSON or NULL */
};
enum mode_status mode_job_run_local(struct mode_local_report *report, mode_work_fn *work, const void *request,
                                    size_t request_size, const struct mode_local_input *inputs, size_t n_inputs,
                                    const char *out_dir, struct mode_error *err);

#endif
