/* The interface of work functions (msg/job.h), and running one without services (mode_job_run_local). */
#include "msg/job.h"

#include "base/log.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/envelope.h"
#include "msg/runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void mode_job_init(struct mode_job *job, struct mode_job_page *page)
{
    *job = (struct mode_job){.page = page, .kept = &job->kept_here, .backend = "cpu", .team.size = 1};
    MODE_ASSERT(pthread_mutex_init(&job->lock, NULL) == 0);
}

void mode_job_drop(struct mode_job_kept *kept)
{
    if (kept->drop) kept->drop(kept->what);
    *kept = (struct mode_job_kept){0};
}

void *mode_job_kept(const struct mode_job *job)
{
    return job->kept->what;
}

void mode_job_keep(struct mode_job *job, void *kept, void (*drop)(void *kept))
{
    mode_job_drop(job->kept);
    *job->kept = (struct mode_job_kept){kept, drop};
}

void mode_job_clear(struct mode_job *job)
{
    mode_job_drop(&job->kept_here);
    for (size_t i = 0; i < job->n_inputs; i++) {
        free(job->inputs[i].name);
        free(job->inputs[i].path);
    }
    for (size_t i = 0; i < job->n_outputs; i++) {
        free(job->outputs[i].name);
        free(job->outputs[i].path);
    }
    for (size_t i = 0; i < job->n_rejects; i++) free(job->rejects[i].reason);
    mode_index_clear(&job->input_at);
    free(job->inputs);
    free(job->outputs);
    free(job->rejects);
    free(job->in_dir);
    free(job->out_dir);
    free(job->run_dir);
    free(job->note);
    free(job->made_on);
    free(job->ckpt_latest);
    free(job->ckpt_mine);
    pthread_mutex_destroy(&job->lock);
    *job = (struct mode_job){0};
}

void mode_job_found_input(struct mode_job *job, const char *name)
{
    if ((job->n_inputs & (job->n_inputs - 1)) == 0)
        job->inputs = mode_xrealloc(job->inputs, (job->n_inputs ? 2 * job->n_inputs : 1) * sizeof *job->inputs);
    struct mode_job_input_file *in = &job->inputs[job->n_inputs];
    *in = (struct mode_job_input_file){mode_xstrdup(name), mode_path_join(job->in_dir, name)};
    mode_index_put(&job->input_at, in->name, (uint32_t)job->n_inputs++);
}

/* Parts between '/', none of them empty or starting with '.'. */
static bool input_name_valid(const char *name)
{
    if (strlen(name) > 512) return false;
    for (const char *p = name;;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n > 200 || p[0] == '.') return false;
        if (p[n] == '\0') return true;
        p += n + 1;
    }
}

enum mode_status mode_job_add_input(struct mode_job *job, const char *name, const char *path, struct mode_error *err)
{
    if (!input_name_valid(name)) return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a name for an input", name);
    char *at = mode_path_join(job->in_dir, name);
    char *slash = strrchr(at, '/');
    *slash = '\0';
    enum mode_status st = mode_dir_make(at, err);
    *slash = '/';
    if (!st && symlink(path, at) != 0)
        st = MODE_FAIL(err, MODE_E_CREATE, "%s: the input cannot be linked: %s", at, strerror(errno));
    free(at);
    if (!st) mode_job_found_input(job, name);
    return st;
}

const uint8_t *mode_job_request(const struct mode_job *job, size_t *size)
{
    *size = job->request_size;
    return job->request;
}

void *mode_job_unpack(struct mode_job *job, const ProtobufCMessageDescriptor *type, struct mode_error *err)
{
    const char *of;
    ProtobufCMessage *m = protobuf_c_message_unpack(type, NULL, job->request_size, job->request);
    if (!m) {
        MODE_FAIL(err, MODE_E_FORMAT, "the request of %zu bytes is not a valid %s", job->request_size,
                  type->short_name);
        return NULL;
    }
    uint32_t field = mode_unknown_field(m, &of);
    if (!field) return m;
    MODE_FAIL(
        err, MODE_E_VALUE,
        "the request has field %u of %s, which version %s does not know: it was made by a newer coordinator. HINT: "
        "update this worker",
        field, of, mode_version);
    protobuf_c_message_free_unpacked(m, NULL);
    job->is_newer = true;
    return NULL;
}

const char *mode_job_input(const struct mode_job *job, const char *name)
{
    uint32_t i = mode_index_get(&job->input_at, name);
    return i == MODE_INDEX_NONE ? NULL : job->inputs[i].path;
}

bool mode_job_input_at(const struct mode_job *job, size_t i, const char **name, const char **path)
{
    if (i >= job->n_inputs) return false;
    *name = job->inputs[i].name;
    *path = job->inputs[i].path;
    return true;
}

const char *mode_job_output(struct mode_job *job, const char *name)
{
    const char *path = NULL;
    MODE_ASSERT(name[0] && name[0] != '.' && !strchr(name, '/'));
    pthread_mutex_lock(&job->lock);
    for (size_t i = 0; i < job->n_outputs && !path; i++)
        if (strcmp(job->outputs[i].name, name) == 0) path = job->outputs[i].path;
    if (!path) {
        job->outputs = mode_xrealloc(job->outputs, (job->n_outputs + 1) * sizeof *job->outputs);
        char *at = mode_path_join(job->out_dir, name);
        job->outputs[job->n_outputs++] = (struct mode_job_output_file){mode_xstrdup(name), at};
        path = at;
    }
    pthread_mutex_unlock(&job->lock);
    return path;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mode_job_output_file *)a)->name, ((const struct mode_job_output_file *)b)->name);
}

void mode_job_sort_outputs(struct mode_job *job)
{
    if (job->n_outputs) qsort(job->outputs, job->n_outputs, sizeof *job->outputs, by_name);
}

/* ---- checkpoints ---- */

const char *mode_job_checkpoint_latest(struct mode_job *job)
{
    uint32_t damaged = 0;
    pthread_mutex_lock(&job->lock);
    if (!job->ckpt_looked && job->store) {
        struct mode_error err;
        if (mode_store_checkpoint_hold(job->store, &job->ckpt_latest, job->key, job->fence, &damaged, &err) !=
            MODE_OK) {
            mode_log_failure("checkpoint_not_held", &err); /* optional */
            if (mode_store_checkpoint_latest(job->store, &job->ckpt_latest, job->key, &damaged, &err) != MODE_OK)
                mode_log_failure("checkpoint_unreadable", &err); /* starting from scratch is correct, only slower */
        }
        if (damaged) mode_log_warn("checkpoint_damaged", "key=%s damaged=%u an older one is used", job->key, damaged);
    }
    job->ckpt_looked = true;
    pthread_mutex_unlock(&job->lock);
    return job->ckpt_latest;
}

const char *mode_job_checkpoint_mine(struct mode_job *job)
{
    pthread_mutex_lock(&job->lock);
    if (!job->ckpt_mine) {
        struct mode_error err;
        if (!job->store) {
            job->ckpt_mine = mode_xasprintf("%s/../ckpt", job->out_dir);
            if (mode_dir_make(job->ckpt_mine, &err) != MODE_OK) mode_log_failure("checkpoint_folder", &err);
        } else if (mode_store_checkpoint_dir(job->store, &job->ckpt_mine, job->key, job->fence, &err) != MODE_OK) {
            mode_log_failure("checkpoint_folder", &err); /* writing below it will fail with an error of its own */
            job->ckpt_mine = mode_xasprintf("%s/ckpt/%s/%016llx", mode_store_root(job->store), job->key,
                                            (unsigned long long)job->fence);
        }
    }
    pthread_mutex_unlock(&job->lock);
    return job->ckpt_mine;
}

enum mode_status mode_job_checkpoint_done(struct mode_job *job, const char *name, struct mode_error *err)
{
    return job->store ? mode_store_checkpoint_done(job->store, job->key, job->fence, name, err) : MODE_OK;
}

/* ---- progress and counts ---- */

void mode_job_progress(struct mode_job *job, uint64_t done, uint64_t total, const char *unit)
{
    struct mode_job_page *p = job->page;
    if (!unit) unit = "";
    pthread_mutex_lock(&job->lock);
    bool other_unit = strncmp(p->unit, unit, sizeof p->unit - 1) != 0;
    bool changed = atomic_load(&p->done) != done || atomic_load(&p->total) != total || other_unit;
    if (changed) {
        if (other_unit) snprintf(p->unit, sizeof p->unit, "%s", unit); /* (clears it first); set before the numbers */
        atomic_store(&p->done, done);
        atomic_store(&p->total, total);
        atomic_fetch_add(&p->changes, 1);
    }
    pthread_mutex_unlock(&job->lock);
}

void mode_job_goes_on(struct mode_job *job)
{
    atomic_fetch_add(&job->page->changes, 1);
}

void mode_job_train_step(struct mode_job *job, const struct mode_job_train_step *s)
{
    struct mode_job_page *p = job->page;
    atomic_store(&p->loss, s->loss);
    atomic_store(&p->lr, s->lr);
    atomic_store(&p->logit_scale, s->logit_scale);
    atomic_store(&p->samples_per_s, s->samples_per_s);
    atomic_store(&p->trains, true);
}

void mode_job_score(struct mode_job *job, const struct mode_job_score *s)
{
    struct mode_job_page *p = job->page;
    struct mode_job_page_score x = {0};
    const unsigned n = atomic_load(&p->n_scores);
    unsigned i = 0;
    snprintf(x.task, sizeof x.task, "%s", s->task);
    snprintf(x.metric, sizeof x.metric, "%s", s->metric);
    while (i < n && (strcmp(p->score[i].task, x.task) != 0 || strcmp(p->score[i].metric, x.metric) != 0)) i++;
    if (i == MODE_SCORES) return;
    if (i == n) {
        memcpy(p->score[i].task, x.task, sizeof x.task);
        memcpy(p->score[i].metric, x.metric, sizeof x.metric);
    }
    atomic_store(&p->score[i].value, s->value);
    atomic_store(&p->score[i].step, s->step);
    if (i == n) atomic_store(&p->n_scores, n + 1);
}

const char *mode_job_run_dir(const struct mode_job *job)
{
    return job->run_dir;
}

const char *mode_job_key(const struct mode_job *job)
{
    return job->key;
}

uint64_t mode_job_fence(const struct mode_job *job)
{
    return job->fence;
}

bool mode_job_stopping(const struct mode_job *job)
{
    return job->fence != 0 && atomic_load(&job->page->stop_fence) == job->fence;
}

void mode_job_count_rows(struct mode_job *job, uint64_t rows_in, uint64_t rows_out)
{
    pthread_mutex_lock(&job->lock);
    job->rows_in = rows_in;
    job->rows_out = rows_out;
    pthread_mutex_unlock(&job->lock);
}

void mode_job_count_reject(struct mode_job *job, const char *reason, uint64_t n)
{
    if (n == 0) return;
    pthread_mutex_lock(&job->lock);
    size_t i = 0;
    while (i < job->n_rejects && strcmp(job->rejects[i].reason, reason) != 0) i++;
    if (i == job->n_rejects) {
        job->rejects = mode_xrealloc(job->rejects, (job->n_rejects + 1) * sizeof *job->rejects);
        job->rejects[job->n_rejects++] = (struct mode_job_reject){mode_xstrdup(reason), 0};
    }
    job->rejects[i].n += n;
    pthread_mutex_unlock(&job->lock);
}

const char *mode_job_backend(const struct mode_job *job)
{
    return job->backend;
}

void mode_job_made_on(struct mode_job *job, const char *backend)
{
    pthread_mutex_lock(&job->lock);
    free(job->made_on);
    job->made_on = mode_xstrdup(backend);
    pthread_mutex_unlock(&job->lock);
}

void mode_job_note(struct mode_job *job, const char *json)
{
    pthread_mutex_lock(&job->lock);
    free(job->note);
    job->note = mode_xstrdup(json);
    pthread_mutex_unlock(&job->lock);
}

/* ---- without services ---- */

static enum mode_status link_local_inputs(struct mode_job *job, const struct mode_local_input *inputs, size_t n,
                                          struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (size_t i = 0; !st && i < n; i++) {
        char *real = realpath(inputs[i].path, NULL);
        if (!real)
            st = MODE_FAIL(err, MODE_E_NOINPUT, "%s: input %s cannot be opened: %s", inputs[i].path, inputs[i].name,
                           strerror(errno));
        else
            st = mode_job_add_input(job, inputs[i].name, real, err);
        free(real);
    }
    return st;
}

static enum mode_status move_outputs(const struct mode_job *job, const char *out_dir, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (size_t i = 0; !st && i < job->n_outputs; i++) {
        if (!mode_file_exists(job->outputs[i].path)) continue;
        char *to = mode_path_join(out_dir, job->outputs[i].name);
        st = mode_file_sync(job->outputs[i].path, err);
        if (!st && rename(job->outputs[i].path, to) != 0)
            st = MODE_FAIL(err, MODE_E_CREATE, "%s: cannot be created: %s", to, strerror(errno));
        free(to);
    }
    return st;
}

enum mode_status mode_job_run_local(struct mode_local_report *report, mode_work_fn *work, const void *request,
                                    size_t request_size, const struct mode_local_input *inputs, size_t n_inputs,
                                    const char *out_dir, struct mode_error *err)
{
    struct mode_job_page page = {0};
    struct mode_job job;
    enum mode_status st = mode_dir_make(out_dir, err);
    if (report) *report = (struct mode_local_report){0};
    if (st) return st;
    char *dir = mode_xasprintf("%s/.job-XXXXXX", out_dir);
    if (!mkdtemp(dir)) {
        st = MODE_FAIL(err, MODE_E_CREATE, "%s: cannot be created: %s", dir, strerror(errno));
        free(dir);
        return st;
    }
    char *real = realpath(dir, NULL);
    mode_job_init(&job, &page);
    job.request = request;
    job.request_size = request_size;
    job.in_dir = mode_path_join(real ? real : dir, "in");
    job.out_dir = mode_path_join(real ? real : dir, "out");
    if (!(st = mode_dir_make(job.in_dir, err)) && !(st = mode_dir_make(job.out_dir, err)))
        st = link_local_inputs(&job, inputs, n_inputs, err);
    if (!st) st = work(&job, err);
    if (!st) st = move_outputs(&job, out_dir, err);
    if (!st && report) {
        report->rows_in = job.rows_in;
        report->rows_out = job.rows_out;
        for (size_t i = 0; i < job.n_rejects; i++) report->rejected += job.rejects[i].n;
        report->note = job.note;
        job.note = NULL;
    }
    mode_job_clear(&job);
    enum mode_status gone = mode_dir_remove(dir, st ? NULL : err);
    free(real);
    free(dir);
    return st ? st : gone;
}
