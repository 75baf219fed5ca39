#include "run.h"

#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define CLOSE_WAIT_S 2

struct planner {
    struct mode_store *store;
    const struct plan_world *world;
    struct digests *digests;
    int fd;
    pthread_t thread;
    pthread_mutex_t mutex; /* over what follows */
    pthread_cond_t asked;
    struct planner_job *first, **last; /* that are waiting */
    bool stop;
};

static void job_free(struct planner_job *job)
{
    plan_close(&job->plan);
    peaks_clear(&job->results.peaks);
    free(job->results.why);
    free(job->text);
    free(job->folder);
    free(job->inputs);
    free(job);
}

static void write_results(struct planner *p, struct planner_job *job)
{
    const struct planner_results *x = &job->results;
    const char *workspace = mode_store_root(p->store);
    if (x->why) {
        job->st = materialise_experts(x->plan, workspace, &job->err);
        return;
    }
    job->st = materialise(x->plan, &x->peaks, workspace, &job->err);
    if (!job->st) board_complete(x->plan, workspace);
    const Mode__Blob *said = job->st ? x->plan->bad : NULL;
    struct mode_error err = {0};
    if (said && mode_store_blob_check(p->store, &job->bad, said->digest, said->size, &err))
        mode_log_failure("blob_not_checked", &err);
}

static void make_plan(struct planner *p, struct planner_job *job)
{
    struct mode_spec spec;
    job->st = mode_spec_parse(&spec, job->text, job->folder, "spec.yaml", &job->err);
    if (!job->st) job->st = plan_open(&job->plan, &spec, p->store, p->world, p->digests, job->inputs, &job->err);
    digests_begin(p->digests, NULL);
}

static void *work(void *self)
{
    struct planner *p = self;
    const uint64_t one = 1;
    digests_watch(p->digests);
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        struct planner_job *job = p->first;
        if (!job) {
            pthread_cond_wait(&p->asked, &p->mutex);
            continue;
        }
        if (!(p->first = job->next)) p->last = &p->first;
        bool wanted = !job->forgotten;
        pthread_mutex_unlock(&p->mutex);
        if (wanted && job->digest[0])
            job->st = mode_store_blob_check(p->store, &job->bad, job->digest, job->size, &job->err);
        else if (wanted && job->results.plan)
            write_results(p, job);
        else if (wanted)
            make_plan(p, job);
        pthread_mutex_lock(&p->mutex);
        job->made = true;
        if (job->forgotten)
            job_free(job);
        else if (write(p->fd, &one, sizeof one) < 0)
            continue; /* full: it is readable already */
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

enum mode_status planner_open(struct planner **out, struct mode_store *store, const struct plan_world *world,
                              struct mode_error *err)
{
    struct planner *p = mode_xcalloc(1, sizeof *p);
    *out = NULL;
    p->store = store;
    p->world = world;
    p->last = &p->first;
    if ((p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        free(p);
        return MODE_FAIL(err, MODE_E_IO, "eventfd: %s", strerror(errno));
    }
    digests_open(&p->digests, mode_store_root(store));
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->asked, NULL);
    int rc = pthread_create(&p->thread, NULL, work, p);
    if (rc) {
        digests_close(&p->digests);
        close(p->fd);
        free(p);
        return MODE_FAIL(err, MODE_E_IO, "the planning thread cannot be started: %s", strerror(rc));
    }
    *out = p;
    return MODE_OK;
}

bool planner_close(struct planner **pp)
{
    struct planner *p = *pp;
    struct timespec until;
    *pp = NULL;
    if (!p) return true;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_signal(&p->asked);
    pthread_mutex_unlock(&p->mutex);
    digests_stop(p->digests);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_WAIT_S;
    if (pthread_timedjoin_np(p->thread, NULL, &until) != 0) {
        pthread_detach(p->thread);
        return false;
    }
    for (struct planner_job *job = p->first, *next; job; job = next) {
        next = job->next;
        job_free(job);
    }
    digests_close(&p->digests);
    pthread_cond_destroy(&p->asked);
    pthread_mutex_destroy(&p->mutex);
    close(p->fd);
    free(p);
    return true;
}

int planner_fd(const struct planner *p)
{
    return p->fd;
}

void planner_heard(struct planner *p)
{
    uint64_t n;
    while (read(p->fd, &n, sizeof n) < 0 && errno == EINTR) continue;
}

static struct planner_job *ask(struct planner *p, struct planner_job *job)
{
    pthread_mutex_lock(&p->mutex);
    *p->last = job;
    p->last = &job->next;
    pthread_cond_signal(&p->asked);
    pthread_mutex_unlock(&p->mutex);
    return job;
}

struct planner_job *planner_ask(struct planner *p, const char *text, const char *folder, const char *inputs)
{
    struct planner_job *job = mode_xcalloc(1, sizeof *job);
    job->text = mode_xstrdup(text);
    job->folder = mode_xstrdup(folder);
    job->inputs = inputs ? mode_xstrdup(inputs) : NULL;
    return ask(p, job);
}

struct planner_job *planner_ask_results(struct planner *p, struct plan *plan, const struct peaks *peaks, char *why)
{
    struct planner_job *job = mode_xcalloc(1, sizeof *job);
    job->results = (struct planner_results){.plan = plan, .why = why};
    for (int i = 0; peaks && i < peaks->n; i++)
        peaks_note(&job->results.peaks, peaks->item[i].name, peaks->item[i].peak_rss_bytes);
    return ask(p, job);
}

struct planner_job *planner_ask_blob(struct planner *p, const char *digest, uint64_t size)
{
    struct planner_job *job = mode_xcalloc(1, sizeof *job);
    snprintf(job->digest, sizeof job->digest, "%s", digest);
    job->size = size;
    return ask(p, job);
}

bool planner_made(struct planner *p, struct planner_job *job)
{
    pthread_mutex_lock(&p->mutex);
    bool made = job->made;
    pthread_mutex_unlock(&p->mutex);
    return made;
}

bool planner_forget(struct planner *p, struct planner_job **jp)
{
    struct planner_job *job = *jp;
    *jp = NULL;
    if (!job) return false;
    pthread_mutex_lock(&p->mutex);
    const bool made = job->made, lent = !made && job->results.plan;
    job->forgotten = true;
    if (lent) job->plan = job->results.plan;
    pthread_mutex_unlock(&p->mutex);
    if (made) job_free(job);
    return lent;
}

void planner_reading(char *text, size_t size, struct planner *p)
{
    digests_reading(text, size, p->digests);
}
