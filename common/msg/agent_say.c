/* Messages from the agent to the coordinator: one function per message. */
#include "base/log.h"
#include "base/process.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/agent_inside.h"
#include "msg/code_version.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool mode_agent_send(struct agent *a, Mode__Envelope *e)
{
    struct mode_error err;
    e->session = a->session;
    enum mode_status st = mode_socket_send(a->socket, NULL, 0, e, &err);
    if (st && st != MODE_E_TEMP) mode_log_failure("send_failed", &err);
    return st == MODE_OK;
}

void mode_agent_say_hello(struct agent *a, double now)
{
    const struct mode_agent_config *c = a->config;
    Mode__Envelope e;
    Mode__Hello h = MODE__HELLO__INIT;
    Mode__Lease leases[MODE_WIRE_MAX_SLOTS + MAX_REPORTS], *held[MODE_WIRE_MAX_SLOTS + MAX_REPORTS];
    char cpus[32], memory[32], code[128];
    Mode__Label labels[3] = {MODE__LABEL__INIT, MODE__LABEL__INIT, MODE__LABEL__INIT},
                *label_at[3] = {&labels[0], &labels[1], &labels[2]};
    mode_envelope_init(&e, &a->counter, MODE__ENVELOPE__BODY_HELLO);
    snprintf(cpus, sizeof cpus, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    snprintf(memory, sizeof memory, "%lld", (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) >> 20);
    labels[0].name = "cpus";
    labels[0].value = cpus;
    labels[1].name = "memory_mib";
    labels[1].value = memory;
    labels[2].name = "device";
    labels[2].value = a->device;
    for (int i = 0; i < c->slots; i++)
        if (a->slots[i].busy) {
            mode__lease__init(&leases[h.n_held]);
            leases[h.n_held].key = a->slots[i].job.key;
            leases[h.n_held].fence = a->slots[i].job.fence;
            held[h.n_held] = &leases[h.n_held];
            h.n_held++;
        }
    for (size_t i = 0; i < a->n_reports; i++) {
        mode__lease__init(&leases[h.n_held]);
        leases[h.n_held].key = a->reports[i].job.key;
        leases[h.n_held].fence = a->reports[i].job.fence;
        held[h.n_held] = &leases[h.n_held];
        h.n_held++;
    }
    h.session = a->session;
    h.service = (char *)(uintptr_t)c->word;
    mode_code_version(code, sizeof code, c->word);
    h.code_version = code;
    h.build = (char *)(uintptr_t)mode_version;
    h.name = (char *)(uintptr_t)c->name;
    h.node = (char *)(uintptr_t)c->node;
    h.slots = (uint32_t)c->slots;
    h.store_id = (char *)(uintptr_t)mode_store_id(a->store);
    h.labels = label_at;
    h.n_labels = a->device[0] ? 3 : 2;
    h.held = held;
    h.has_incarnation = c->incarnation != 0;
    h.incarnation = c->incarnation;
    e.hello = &h;
    mode_agent_send(a, &e);
    snprintf(a->said, sizeof a->said, "%s", a->device);
    a->hello_sent = now;
    a->hello_at = now + HELLO_AGAIN_S;
}

void mode_agent_say_credit(struct agent *a, bool again)
{
    Mode__Envelope e;
    Mode__Credit c = MODE__CREDIT__INIT;
    int n = 0;
    for (int i = 0; i < a->config->slots; i++) n += !a->slots[i].busy && a->slots[i].proc.pid > 0;
    if (a->stopping || a->n_reports + (size_t)a->config->slots > MAX_REPORTS) n = 0;
    if (a->config->machines && !mode_machines_ready(a->config->machines)) n = 0;
    if (!a->welcome || (n == a->credit_sent && !again)) return;
    mode_envelope_init(&e, &a->counter, MODE__ENVELOPE__BODY_CREDIT);
    c.n = (uint32_t)n;
    e.credit = &c;
    if (mode_agent_send(a, &e)) a->credit_sent = n;
}

static double rate_of(struct work *w, double now, uint64_t done)
{
    if (w->n_samples > 0 && w->samples[w->n_samples - 1].done > done)
        w->n_samples = 0; /* the next phase restarts
                                                                                           its count */
    if (w->n_samples == SAMPLES) memmove(w->samples, w->samples + 1, --w->n_samples * sizeof *w->samples);
    w->samples[w->n_samples++] = (struct sample){now, done};
    double dt = now - w->samples[0].at;
    return dt > 0 ? (double)(done - w->samples[0].done) / dt : 0;
}

/* Keeps the mtime of the task's folder in tmp/ (made by compute.c) recent, or the sweep of leftovers would remove
 * it. */
static void touch_folder(const struct agent *a, const struct work *w)
{
    char *dir = mode_job_folder(a->store, w->job.fence, w->proc.pid);
    utimensat(AT_FDCWD, dir, NULL, 0); /* fails while the folder does not exist (yet) */
    free(dir);
}

/* The latest step of a training, if it can be sent: a message with a non-finite number would be rejected. */
static bool train_step(Mode__TrainStep *s, struct mode_job_page *page)
{
    mode__train_step__init(s);
    if (!atomic_load(&page->trains)) return false;
    s->loss = atomic_load(&page->loss);
    s->lr = atomic_load(&page->lr);
    s->logit_scale = atomic_load(&page->logit_scale);
    s->samples_per_s = atomic_load(&page->samples_per_s);
    return isfinite(s->loss) && isfinite(s->lr) && isfinite(s->logit_scale) && isfinite(s->samples_per_s);
}

enum { MOST_SCORES = 128 }; /* per message, which is limited to 64 KiB */

/* A score in protobuf form. */
struct said {
    Mode__Score score[MODE_SCORES], *at[MODE_SCORES];
    char task[MODE_SCORES][MODE_SCORE_TASK], metric[MODE_SCORES][MODE_SCORE_METRIC];
};

/* At most `most` scores; NULL: none. The caller frees. */
static struct said *add_scores(Mode__TaskProgress *t, struct mode_job_page *page, size_t most)
{
    const size_t n = atomic_load(&page->n_scores);
    struct said *said = n && most ? mode_xcalloc(1, sizeof *said) : NULL;
    for (size_t i = 0; said && i < n && i < MODE_SCORES && t->n_scores < most; i++) {
        Mode__Score *s = &said->score[i];
        mode__score__init(s);
        s->value = atomic_load(&page->score[i].value);
        s->step = atomic_load(&page->score[i].step);
        snprintf(said->task[i], sizeof said->task[i], "%.*s", MODE_SCORE_TASK - 1, page->score[i].task);
        snprintf(said->metric[i], sizeof said->metric[i], "%.*s", MODE_SCORE_METRIC - 1, page->score[i].metric);
        mode_wire_text(said->task[i]);
        mode_wire_text(said->metric[i]);
        s->task = said->task[i];
        s->metric = said->metric[i];
        if (isfinite(s->value)) said->at[t->n_scores++] = s;
    }
    if (said) t->scores = said->at;
    return said;
}

void mode_agent_say_progress(struct agent *a, double now)
{
    Mode__Envelope e;
    Mode__Progress p = MODE__PROGRESS__INIT;
    Mode__TaskProgress items[MODE_WIRE_MAX_SLOTS], *at[MODE_WIRE_MAX_SLOTS];
    Mode__TrainStep steps[MODE_WIRE_MAX_SLOTS];
    struct said *said[MODE_WIRE_MAX_SLOTS];
    size_t left = MOST_SCORES;
    char units[MODE_WIRE_MAX_SLOTS][sizeof a->slots->proc.page->unit];
    mode_envelope_init(&e, &a->counter, MODE__ENVELOPE__BODY_PROGRESS);
    for (int i = 0; i < a->config->slots; i++) {
        struct work *w = &a->slots[i];
        if (!w->busy) continue;
        Mode__TaskProgress *t = &items[p.n_tasks];
        char *unit = units[p.n_tasks];
        touch_folder(a, w);
        mode__task_progress__init(t);
        t->key = w->job.key;
        t->fence = w->job.fence;
        t->done = atomic_load(&w->proc.page->done);
        t->total = atomic_load(&w->proc.page->total);
        memcpy(unit, w->proc.page->unit, sizeof units[0]); /* read after the numbers: their unit or a later one */
        unit[sizeof units[0] - 1] = '\0';
        mode_wire_text(unit);
        t->unit = unit;
        t->has_rate = t->has_seconds = t->has_rss_bytes = 1;
        t->rate = rate_of(w, now, t->done);
        t->seconds = now - w->began;
        t->rss_bytes = mode_slot_rss(&w->proc);
        t->has_changes = 1;
        t->changes = atomic_load(&w->proc.page->changes);
        if (train_step(&steps[p.n_tasks], w->proc.page)) t->train = &steps[p.n_tasks];
        said[p.n_tasks] = add_scores(t, w->proc.page, left);
        left -= t->n_scores;
        at[p.n_tasks++] = t;
    }
    p.tasks = at;
    p.has_agent_peak_rss_bytes = 1;
    p.agent_peak_rss_bytes = mode_process_peak_rss(getpid());
    e.progress = &p;
    if (mode_agent_send(a, &e)) a->sends[a->n_sends++ % SENDS] = (struct sent){e.id, now};
    for (size_t i = 0; i < p.n_tasks; i++) free(said[i]);
}

void mode_agent_say_report(struct agent *a, struct report *r, double now)
{
    Mode__Envelope e;
    Mode__Result result = MODE__RESULT__INIT;
    Mode__Fail f = MODE__FAIL__INIT;
    Mode__Release release = MODE__RELEASE__INIT;
    mode_envelope_init(&e, &a->counter,
                       r->kind == REPORT_RESULT ? MODE__ENVELOPE__BODY_RESULT
                       : r->kind == REPORT_FAIL ? MODE__ENVELOPE__BODY_FAIL
                                                : MODE__ENVELOPE__BODY_RELEASE);
    switch (r->kind) {
    case REPORT_RESULT:
        result.key = r->job.key;
        result.fence = r->job.fence;
        result.already = r->end.already;
        result.rows_in = r->end.rows_in;
        result.rows_out = r->end.rows_out;
        result.seconds = r->end.seconds;
        result.has_peak_rss_bytes = 1;
        result.peak_rss_bytes = r->end.peak_rss_bytes;
        e.result = &result;
        break;
    case REPORT_FAIL:
        f.key = r->job.key;
        f.fence = r->job.fence;
        f.class_ = r->end.fail_class;
        f.has_status = f.has_seconds = f.has_done = f.has_total = 1;
        f.status = r->end.status;
        f.has_signal = r->signal != 0;
        f.signal = (uint32_t)r->signal;
        f.has_exit_code = r->exit_code != 0;
        f.exit_code = (uint32_t)r->exit_code;
        f.text = r->end.text;
        if (f.class_ == MODE__FAIL_CLASS__FAIL_INTEGRITY && r->end.digest[0]) f.digest = r->end.digest;
        f.has_log_tail = r->n_log > 0;
        f.log_tail = (ProtobufCBinaryData){r->n_log, r->log};
        f.done = r->done;
        f.total = r->total;
        f.seconds = r->end.seconds;
        e.fail = &f;
        break;
    case REPORT_RELEASE:
        release.key = r->job.key;
        release.fence = r->job.fence;
        release.reason = r->reason;
        e.release = &release;
        break;
    }
    mode_agent_send(a, &e);
    r->next_at = now + r->delay;
    r->delay = r->delay * 2 < REPORT_MOST_S ? r->delay * 2 : REPORT_MOST_S;
}

void mode_agent_say_assign_ack(struct agent *a, const Mode__Assign *as, const char *refused)
{
    Mode__Envelope e;
    Mode__AssignAck k = MODE__ASSIGN_ACK__INIT;
    mode_envelope_init(&e, &a->counter, MODE__ENVELOPE__BODY_ASSIGN_ACK);
    k.key = as->key;
    k.fence = as->fence;
    k.accepted = refused == NULL;
    k.reason = (char *)(uintptr_t)refused;
    e.assign_ack = &k;
    mode_agent_send(a, &e);
}
