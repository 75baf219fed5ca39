/* The compute process: runs tasks one by one, from key to commit record. It uses the store and the work function, and
 * knows nothing about the coordinator. Killed at any instant it leaves complete blobs, a complete commit record or
 * none, and leftovers in tmp/. */
#include "base/clock.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/process.h"
#include "base/str.h"
#include "msg/code_version.h"
#include "msg/envelope.h"
#include "msg/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOLD_POLL_MS = 50 };

Mode__FailClass mode_fail_class(enum mode_status st)
{
    switch (st) {
    case MODE_E_VALUE:
    case MODE_E_SHAPE:
    case MODE_E_FORMAT:
    case MODE_E_CONFIG:
    case MODE_E_USAGE: return MODE__FAIL_CLASS__FAIL_INPUT;
    case MODE_E_NOINPUT:
    case MODE_E_PERM: return MODE__FAIL_CLASS__FAIL_ABSENT; /* perhaps the data is not mounted on this machine only */
    case MODE_E_MEMORY: return MODE__FAIL_CLASS__FAIL_OOM;
    case MODE_E_DEVICE: return MODE__FAIL_CLASS__FAIL_DEVICE;
    case MODE_E_IO:
    case MODE_E_CREATE:
    case MODE_E_PEER:
    case MODE_E_TEMP: return MODE__FAIL_CLASS__FAIL_STORE;
    default: return MODE__FAIL_CLASS__FAIL_OTHER;
    }
}

/* Detected by the system's error text, which is part of the error of any failed write. */
static bool is_full(const struct mode_error *err)
{
    return strstr(err->text, strerror(ENOSPC)) || strstr(err->text, strerror(EDQUOT));
}

char *mode_job_folder(const struct mode_store *store, uint64_t fence, pid_t pid)
{
    return mode_xasprintf("%s/job-%016" PRIx64 "-%ld", mode_store_tmp(store), fence, (long)pid);
}

uint64_t mode_job_folder_fence(const char *name)
{
    uint64_t fence = 0;
    return sscanf(name, "job-%16" SCNx64 "-", &fence) == 1 ? fence : 0;
}

static void tick(void *ctx)
{
    struct mode_job_page *page = ctx;
    atomic_fetch_add(&page->changes, 1);
}

/* Resets the peak RSS of this process. */
static void reset_peak_rss(void)
{
    malloc_trim(0); /* so that an earlier large task does not count for a small one */
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return; /* then the peak is that of the whole process: an upper bound */
    ssize_t n = write(fd, "5", 1);
    (void)n;
    close(fd);
}

static enum mode_status fetch_inputs(struct mode_compute_end *end, struct mode_job *job, const Mode__TaskSpec *spec,
                                     struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (size_t i = 0; !st && i < spec->n_inputs; i++) {
        const Mode__Input *in = spec->inputs[i];
        char *path;
        st = mode_store_blob_path(job->store, &path, in->digest, in->size, err);
        if (st == MODE_E_FORMAT) /* wrong bytes: read again before reporting damage */
            st = mode_store_blob_path(job->store, &path, in->digest, in->size, err);
        if (st) {
            mode_error_prefix(err, st, "input %s", in->name);
            snprintf(end->digest, sizeof end->digest, "%s", in->digest);
        } else
            st = mode_job_add_input(job, in->name, path, err);
        free(path);
        tick(job->page);
        if (!st && mode_job_stopping(job)) st = MODE_FAIL(err, MODE_E_STOPPED, "stopped while its inputs were read");
    }
    return st;
}

static bool may_be_lost(const struct mode_job_page *page)
{
    const double until = atomic_load(&page->publish_until);
    return until > 0 && mode_clock_s() > until;
}

/* Waits while it is uncertain whether the lease still holds. */
static enum mode_status wait_for_lease(struct mode_job *job, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    while (may_be_lost(job->page)) {
        if (mode_job_stopping(job)) {
            st = MODE_FAIL(err, MODE_E_STOPPED, "stopped while it waited for the coordinator to publish");
            break;
        }
        atomic_store(&job->page->holding, true);
        usleep(HOLD_POLL_MS * 1000);
    }
    atomic_store(&job->page->holding, false);
    return st;
}

static bool same_outputs(const Mode__Commit *a, const Mode__Commit *b)
{
    if (a->n_outputs != b->n_outputs) return false;
    for (size_t i = 0; i < a->n_outputs; i++)
        if (strcmp(a->outputs[i]->name, b->outputs[i]->name) != 0 ||
            strcmp(a->outputs[i]->digest, b->outputs[i]->digest) != 0)
            return false;
    return true;
}

/* Publishes the outputs, then the commit record that names them. */
static enum mode_status publish(struct mode_compute_end *end, struct mode_job *job, const Mode__TaskSpec *spec,
                                const struct mode_compute_job *task, double began, struct mode_error *err)
{
    mode_job_sort_outputs(job);
    Mode__Commit c = MODE__COMMIT__INIT, *winner = NULL;
    size_t n = job->n_outputs, k = job->n_rejects;
    Mode__Blob *blobs = mode_xcalloc(n, sizeof *blobs), **blob_at = mode_xcalloc(n, sizeof *blob_at);
    char(*digests)[MODE_DIGEST_HEX] = mode_xcalloc(n, sizeof *digests);
    Mode__Count *counts = mode_xcalloc(k, sizeof *counts), **count_at = mode_xcalloc(k, sizeof *count_at);
    bool created = false;
    enum mode_status st = MODE_OK;
    for (size_t i = 0; !st && i < n; i++) {
        if (!mode_file_exists(job->outputs[i].path)) continue;
        Mode__Blob *b = &blobs[c.n_outputs];
        mode__blob__init(b);
        b->name = job->outputs[i].name;
        b->digest = digests[c.n_outputs];
        st = mode_store_put_blob(job->store, b->digest, &b->size, job->outputs[i].path, err);
        blob_at[c.n_outputs++] = b;
    }
    for (size_t i = 0; i < k; i++) {
        mode__count__init(&counts[i]);
        counts[i].reason = job->rejects[i].reason;
        counts[i].n = job->rejects[i].n;
        count_at[i] = &counts[i];
    }
    if (!st) st = wait_for_lease(job, err);
    if (st) goto out;
    c.key = (char *)(uintptr_t)task->key;
    c.service = spec->service;
    c.outputs = blob_at;
    c.rows_in = job->rows_in;
    c.rows_out = job->rows_out;
    c.rejects = count_at;
    c.n_rejects = k;
    c.fence = task->fence;
    c.attempt = task->attempt;
    c.worker = (char *)(uintptr_t)task->worker;
    c.note = job->note;
    c.backend = job->made_on;
    c.seconds = end->seconds = mode_clock_s() - began;
    c.peak_rss_bytes = end->peak_rss_bytes = mode_process_peak_rss(getpid());
    if ((st = mode_store_commit_create(job->store, &created, &winner, &c, err))) goto out;
    if (!created && !same_outputs(winner, &c))
        mode_log_warn("nondeterministic",
                      "key=%s service=%s two attempts made different bytes from the same inputs; the first one stays",
                      task->key, spec->service);
    end->already = !created;
    end->rows_in = winner->rows_in;
    end->rows_out = winner->rows_out;
out:
    if (winner) mode__commit__free_unpacked(winner, NULL);
    free(counts);
    free(count_at);
    free(digests);
    free(blob_at);
    free(blobs);
    return st;
}

static enum mode_status fail_class_is(struct mode_compute_end *end, enum mode_status st, Mode__FailClass fail_class)
{
    if (st) end->fail_class = fail_class;
    return st;
}

/* Reads from the store: damaged or missing files are not the fault of the task's request. */
static enum mode_status from_store(struct mode_compute_end *end, enum mode_status st)
{
    return fail_class_is(end, st,
                         st == MODE_E_FORMAT || st == MODE_E_NOINPUT ? MODE__FAIL_CLASS__FAIL_INTEGRITY
                                                                     : MODE__FAIL_CLASS__FAIL_STORE);
}

static void found_done(struct mode_compute_end *end, Mode__Commit *have)
{
    end->already = true;
    end->rows_in = have->rows_in;
    end->rows_out = have->rows_out;
    mode__commit__free_unpacked(have, NULL);
}

static bool is_done(struct mode_compute_end *end, struct mode_store *store, const char *key)
{
    Mode__Commit *have;
    struct mode_error ignored;
    if (mode_store_commit_get(store, &have, key, &ignored) != MODE_OK) return false;
    found_done(end, have);
    return true;
}

static enum mode_status run(struct mode_compute_end *end, struct mode_store *store, const char *word,
                            mode_work_fn *work, const struct mode_compute_job *task, struct mode_job *job, char **dir,
                            struct mode_error *err)
{
    Mode__Commit *have;
    Mode__TaskSpec *spec = NULL;
    char code[128];
    uint32_t field;
    const char *of;
    double began = mode_clock_s();
    enum mode_status st = mode_store_commit_get(store, &have, task->key, err);
    if (st == MODE_OK) { /* an earlier attempt committed but could not report it */
        found_done(end, have);
        end->seconds = mode_clock_s() - began;
        return MODE_OK;
    }
    if (st != MODE_E_NOINPUT) return from_store(end, st);
    if ((st = mode_store_task_get(store, &spec, task->key, err))) return from_store(end, st);
    if (strcmp(spec->service, word) != 0) {
        st = MODE_FAIL(err, MODE_E_VALUE, "task %s is for service %s, this is %s", task->key, spec->service, word);
        fail_class_is(end, st, MODE__FAIL_CLASS__FAIL_CODE);
        goto out;
    }
    mode_code_version(code, sizeof code, word);
    field = mode_unknown_field(&spec->base, &of);
    if (strcmp(spec->code_version, code) != 0) /* its outputs would be stored under another version's key */
        st = MODE_FAIL(err, MODE_E_VALUE, "task %s needs code version %s, this is %s. HINT: update this worker",
                       task->key, spec->code_version, code);
    else if (field)
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "task %s has field %u of %s, which this worker does not know. HINT: update this worker",
                       task->key, field, of);
    if (st) {
        fail_class_is(end, st, MODE__FAIL_CLASS__FAIL_CODE);
        goto out;
    }
    job->store = store;
    job->key = task->key;
    job->fence = task->fence;
    if (task->run[0] && task->run[0] != '.' && !strchr(task->run, '/')) /* it came over the wire */
        job->run_dir = mode_xasprintf("%s/runs/%s", mode_store_root(store), task->run);
    job->request = spec->request.data;
    job->request_size = spec->request.len;
    *dir = mode_job_folder(store, task->fence, getpid());
    job->in_dir = mode_path_join(*dir, "in");
    job->out_dir = mode_path_join(*dir, "out");
    if ((st = mode_dir_make(job->in_dir, err)) || (st = mode_dir_make(job->out_dir, err))) {
        fail_class_is(end, st, MODE__FAIL_CLASS__FAIL_STORE);
        goto out;
    }
    if ((st = fetch_inputs(end, job, spec, err))) {
        from_store(end, st);
        goto out;
    }
    if ((st = work(job, err))) {
        /* An attempt that was frozen while publishing has resumed meanwhile: its commit stands, and all checkpoints of
         * the task were removed, including ours. */
        if (st != MODE_E_STOPPED && is_done(end, store, task->key)) {
            mode_log_info("already_done", "key=%s by another attempt; here: %s", task->key, err->text);
            st = MODE_OK;
            goto out;
        }
        bool no_store = st == MODE_E_PERM && access(job->out_dir, W_OK) != 0; /* the output folder became read-only:
                                                                                 not the input's fault */
        fail_class_is(end, st,
                      no_store        ? MODE__FAIL_CLASS__FAIL_STORE
                      : job->is_newer ? MODE__FAIL_CLASS__FAIL_CODE
                                      : mode_fail_class(st));
        goto out;
    }
    st = publish(end, job, spec, task, began, err);
    fail_class_is(end, st, MODE__FAIL_CLASS__FAIL_STORE);
out:
    mode__task_spec__free_unpacked(spec, NULL);
    return st;
}

void mode_compute_run(struct mode_compute_end *end, struct mode_store *store, const char *word, mode_work_fn *work,
                      const struct mode_compute_with *with, const struct mode_compute_job *task,
                      struct mode_job_page *page, struct mode_job_kept *kept)
{
    struct mode_error err = {0}, ignored;
    struct mode_job job;
    char *dir = NULL;
    double began = mode_clock_s();
    *end = (struct mode_compute_end){.fence = task->fence};
    mode_job_init(&job, page);
    if (kept) job.kept = kept;
    job.backend = with->backend;
    job.gpus = with->gpus;
    job.agent = with->agent;
    job.others = with->others;
    atomic_store(&page->done, 0);
    atomic_store(&page->total, 0);
    page->unit[0] = '\0';
    atomic_store(&page->n_scores, 0);
    mode_store_on_tick(store, tick, page);
    reset_peak_rss();
    end->status = run(end, store, word, work, task, &job, &dir, &err);
    if (end->status) {
        end->seconds = mode_clock_s() - began;
        end->peak_rss_bytes = mode_process_peak_rss(getpid());
        snprintf(end->text, sizeof end->text, "%s", err.text[0] ? err.text : mode_status_name(end->status));
        if (end->fail_class == MODE__FAIL_CLASS__FAIL_STORE && is_full(&err))
            end->fail_class = MODE__FAIL_CLASS__FAIL_FULL;
    } else if (mode_store_checkpoint_remove(store, task->key, &ignored) != MODE_OK)
        mode_log_failure("checkpoint_left",
                         &ignored); /* an earlier attempt may still be writing there; only costs disk space */
    mode_job_clear(&job);
    if (dir && mode_dir_remove(dir, &ignored) != MODE_OK)
        mode_log_failure("temp_left", &ignored); /* the sweep gets it */
    free(dir);
}

/* argv: <program> --compute <socket> <page> <pid of the agent> <threads> <workspace> <backend> <GPUs of a task> */
int mode_compute_main(const char *word, mode_work_fn *work, int argc, char **argv)
{
    struct mode_error err = {0};
    struct mode_store *store;
    struct mode_to_compute told;
    struct mode_from_compute end = {.kind = MODE_FROM_COMPUTE_END};
    struct mode_job_kept kept = {0};
    sigset_t none;
    if (argc != 9) {
        fprintf(stderr, "mode-%s: %s is for internal use\n", word, MODE_COMPUTE_FLAG);
        return 2;
    }
    int sock = atoi(argv[2]), page_fd = atoi(argv[3]), threads = atoi(argv[5]);
    if (getppid() != (pid_t)atoi(argv[4])) return 0; /* the agent is gone (slot.c): nobody waits for results */
    signal(SIGHUP, SIG_IGN);                         /* it means the agent */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_IGN);
    fcntl(sock, F_SETFD, FD_CLOEXEC);
    mode_log_open(word);
    struct mode_job_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    MODE_ASSERT(page != MAP_FAILED);
    close(page_fd);
    const int gpus = atoi(argv[8]);
    if (threads > 0) mode_parallel_set_threads(threads);
    mode_parallel_count_in(&page->changes);
    enum mode_status st = mode_store_open(&store, argv[6], &err);
    if (st) {
        mode_log_failure("fatal", &err);
        return 1; /* not 70, which means that a GPU failed */
    }
    for (;;) {
        ssize_t n = recv(sock, &told, sizeof told, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;                              /* the agent closed its end */
        if (told.kind != MODE_TO_COMPUTE_JOB) continue; /* late news about an ended task */
        const struct mode_compute_with with = {argv[7], gpus, sock, &told.others};
        mode_compute_run(&end.end, store, word, work, &with, &told.job, page, &kept);
        if (send(sock, &end, sizeof end, MSG_NOSIGNAL) != (ssize_t)sizeof end) break;
    }
    mode_job_drop(&kept);
    mode_store_close(&store);
    mode_parallel_count_in(NULL);
    munmap(page, sizeof *page);
    close(sock);
    return 0;
}
