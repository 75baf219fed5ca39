/* DESIGN: one loop, one thread, no blocking call. RESULT, FAIL and RELEASE are kept as reports and resent until they
 * are acknowledged, so a lost message, a reconnect or a restarted coordinator need no code of their own: after every
 * handshake HELLO lists the leases held, and the rest is retransmitted. Every message from the coordinator is checked
 * against the fence it refers to, and ignored if it does not match. */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/agent_inside.h"
#include "msg/health.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { TICK_MS = 200, MAX_PER_TURN = 256 };

static const double report_first_s = 1, last_words_s = 2, complain_s = 30, self_fence = 0.8, name_taken_s = 150;

/* ---- small things ---- */

static void fatal(struct agent *a, const struct mode_error *err)
{
    mode_log_failure("fatal", err);
    a->exit_code = mode_status_exit_code(err->status);
    a->done = true;
}

static struct work *slot_of(struct agent *a, const char *key, uint64_t fence)
{
    for (int i = 0; i < a->config->slots; i++)
        if (a->slots[i].busy && a->slots[i].job.fence == fence && strcmp(a->slots[i].job.key, key) == 0)
            return &a->slots[i];
    return NULL;
}

static struct report *report_of(struct agent *a, const char *key, uint64_t fence)
{
    for (size_t i = 0; i < a->n_reports; i++)
        if (a->reports[i].job.fence == fence && strcmp(a->reports[i].job.key, key) == 0) return &a->reports[i];
    return NULL;
}

/* Builds the device text of HELLO. */
static void describe(struct agent *a)
{
    char team[64] = "";
    if (a->config->machines) mode_machines_text(a->config->machines, team, sizeof team);
    snprintf(a->device, sizeof a->device, "%s%s%.*s", team, team[0] && a->config->device[0] ? ": " : "",
             (int)(sizeof a->device - sizeof team - 2), a->config->device);
}

static int n_busy(const struct agent *a)
{
    int n = 0;
    for (int i = 0; i < a->config->slots; i++) n += a->slots[i].busy;
    return n;
}

/* ---- tasks ---- */

/* The task of this slot has ended: creates a report for the coordinator and frees the slot. */
static struct report *owe(struct agent *a, struct work *w, enum report_kind kind, const struct mode_compute_end *end)
{
    MODE_ASSERT(a->n_reports < MAX_REPORTS); /* credit stops before */
    struct report *r = &a->reports[a->n_reports++];
    *r = (struct report){.kind = kind, .job = w->job, .delay = report_first_s};
    if (end) r->end = *end;
    mode_wire_text(r->end.text);
    if (w->proc.page) {
        r->done = atomic_load(&w->proc.page->done);
        r->total = atomic_load(&w->proc.page->total);
    }
    r->reason = w->why == WHY_CANCEL ? MODE__RELEASE_REASON__RELEASE_CANCELLED : MODE__RELEASE_REASON__RELEASE_STOPPING;
    w->busy = false;
    w->proc.deaths = 0;
    a->idle_since = mode_clock_s();
    return r;
}

static void forget_report(struct agent *a, struct report *r)
{
    free(r->log);
    *r = a->reports[--a->n_reports];
}

static void attach_log(struct report *r, const struct mode_slot *s)
{
    r->log = mode_xmalloc(MODE_LOG_RING);
    r->n_log = mode_slot_log_tail(s, r->log, MODE_LOG_RING);
}

static void tell_to_stop(struct work *w, enum why why, double kill_at)
{
    if (w->why == WHY_NONE) w->why = why;
    if (w->kill_at == 0 || kill_at < w->kill_at) w->kill_at = kill_at;
    if (w->proc.page) atomic_store(&w->proc.page->stop_fence, w->job.fence);
}

/* Handles the compute process's message that the task has ended. */
static void task_ended(struct agent *a, struct work *w, const struct mode_compute_end *end, double now)
{
    if (!w->busy || end->fence != w->job.fence) return;
    if (end->status == MODE_OK) {
        mode_log_info("task_done",
                      "key=%.12s label=%s attempt=%u seconds=%.2f rows_in=%" PRIu64 " rows_out=%" PRIu64 "%s",
                      w->job.key, w->label, w->job.attempt, end->seconds, end->rows_in, end->rows_out,
                      end->already ? " already=1" : "");
        mode_agent_say_report(a, owe(a, w, REPORT_RESULT, end), now);
    } else if (w->why != WHY_NONE) { /* told to stop: its own status does not matter */
        mode_log_info("task_stopped", "key=%.12s label=%s", w->job.key, w->label);
        if (w->why == WHY_DROPPED) { /* the coordinator has given it up already */
            w->busy = false;
            a->idle_since = now;
        } else
            mode_agent_say_report(a, owe(a, w, REPORT_RELEASE, end), now);
    } else {
        mode_log_error("task_failed", "key=%.12s label=%s attempt=%u status=%s %s", w->job.key, w->label,
                       w->job.attempt, mode_status_name(end->status), end->text);
        struct report *r = owe(a, w, REPORT_FAIL, end);
        attach_log(r, &w->proc);
        mode_agent_say_report(a, r, now);
    }
}

/* Number of OOM kills in this container. */
static uint64_t oom_kills(void)
{
    char line[128];
    unsigned long long n = 0;
    FILE *f = fopen("/sys/fs/cgroup/memory.events", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "oom_kill %llu", &n) == 1) break;
    if (f) fclose(f);
    return n;
}

static void last_line(char *text, size_t size, const char *log, size_t n)
{
    while (n > 0 && log[n - 1] == '\n') n--;
    size_t from = n;
    while (from > 0 && log[from - 1] != '\n') from--;
    snprintf(text, size, "%.*s", (int)(n - from), log + from);
}

/* The compute process has died, or must be killed. */
static void process_died(struct agent *a, struct work *w, bool kill_it, uint64_t ooms_before, double now)
{
    struct mode_compute_end end = {.fence = w->job.fence, .status = MODE_E_GENERIC, .seconds = now - w->began};
    uint64_t done = w->proc.page ? atomic_load(&w->proc.page->done) : 0,
             total = w->proc.page ? atomic_load(&w->proc.page->total) : 0;
    int status = mode_slot_reap(&w->proc, kill_it), sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    double wait = 0.1 * (double)(1 << (w->proc.deaths < 6 ? w->proc.deaths : 6));
    int deaths = w->proc.deaths + 1;
    w->proc.restart_at = now + wait;
    if (!w->busy) {
        w->proc.deaths = deaths;
        mode_log_warn("compute_died", "signal=%d exit_code=%d while idle", sig, code);
        return;
    }
    Mode__Commit *c;
    if (mode_store_commit_get(a->store, &c, w->job.key, NULL) == MODE_OK) { /* it had already committed */
        end.status = MODE_OK;
        end.already = c->fence != w->job.fence;
        end.rows_in = c->rows_in;
        end.rows_out = c->rows_out;
        mode__commit__free_unpacked(c, NULL);
        mode_log_info("task_done", "key=%.12s label=%s committed before its process ended", w->job.key, w->label);
        mode_agent_say_report(a, owe(a, w, REPORT_RESULT, &end), now);
        return;
    }
    if (w->why == WHY_DROPPED) {
        w->busy = false;
        a->idle_since = now;
        return;
    }
    if (w->why == WHY_CANCEL || w->why == WHY_STOP) {
        mode_agent_say_report(a, owe(a, w, REPORT_RELEASE, &end), now);
        return;
    }
    if (w->why == WHY_STALL) {
        end.fail_class = MODE__FAIL_CLASS__FAIL_STALL;
        snprintf(end.text, sizeof end.text, "no progress at %" PRIu64 " of %" PRIu64 " for more than %" PRIu64 " ms",
                 done, total, w->stall_ms);
    } else if (sig == SIGBUS) { /* files are mapped: I/O errors arrive as SIGBUS */
        end.fail_class = MODE__FAIL_CLASS__FAIL_STORE;
        snprintf(end.text, sizeof end.text,
                 "a file was cut, or its disk failed, while it was read (signal %d, SIGBUS) at %" PRIu64 " of %" PRIu64,
                 sig, done, total);
    } else if (sig == SIGKILL && oom_kills() > ooms_before) {
        end.fail_class = MODE__FAIL_CLASS__FAIL_OOM;
        snprintf(end.text, sizeof end.text,
                 "the kernel killed the compute process: the container's memory limit was reached");
    } else if (code == mode_status_exit_code(MODE_E_DEVICE) || code == mode_status_exit_code(MODE_E_PEER)) {
        uint8_t log[MODE_LOG_RING]; /* it ended because its GPU or another process of its team failed */
        size_t n = mode_slot_log_tail(&w->proc, log, sizeof log);
        end.status = code == mode_status_exit_code(MODE_E_PEER) ? MODE_E_PEER : MODE_E_DEVICE;
        end.fail_class = mode_fail_class(end.status);
        last_line(end.text, sizeof end.text, (const char *)log, n); /* its last line of stderr */
        if (!end.text[0])
            snprintf(end.text, sizeof end.text, "the compute process ended with code %d (%s) and without a message",
                     code, end.status == MODE_E_PEER ? "another process of the task is gone" : "a GPU failed");
        /* its successor must use the GPU again, and not fall back to the CPU */
        if (strcmp(a->program.backend, "auto") == 0) a->program.backend = "cuda";
    } else if (code == 127) {
        end.fail_class = MODE__FAIL_CLASS__FAIL_CODE;
        snprintf(end.text, sizeof end.text, "the compute process could not be executed");
    } else {
        end.fail_class = MODE__FAIL_CLASS__FAIL_CRASH;
        if (sig)
            snprintf(end.text, sizeof end.text,
                     "the compute process was killed by signal %d (%s) at %" PRIu64 " of %" PRIu64, sig, strsignal(sig),
                     done, total);
        else
            snprintf(end.text, sizeof end.text, "the compute process exited with code %d in the middle of the task",
                     code);
    }
    mode_log_error("task_failed", "key=%.12s label=%s attempt=%u %s", w->job.key, w->label, w->job.attempt, end.text);
    struct report *r = owe(a, w, REPORT_FAIL, &end);
    w->proc.deaths = deaths;
    r->signal = sig;
    r->exit_code = code;
    r->done = done;
    r->total = total;
    attach_log(r, &w->proc);
    mode_agent_say_report(a, r, now);
}

static void on_assign(struct agent *a, const Mode__Assign *as, double now)
{
    struct mode_error err;
    if (slot_of(a, as->key, as->fence) || report_of(a, as->key, as->fence)) { /* said twice */
        mode_agent_say_assign_ack(a, as, NULL);
        return;
    }
    struct work *w = NULL;
    for (int i = 0; i < a->config->slots && !w; i++)
        if (!a->slots[i].busy && a->slots[i].proc.pid > 0) w = &a->slots[i];
    struct mode_machines *machines = a->config->machines;
    const bool all_here = !machines || mode_machines_ready(machines);
    if (a->stopping || !w || !all_here || a->n_reports + (size_t)a->config->slots > MAX_REPORTS) {
        mode_agent_say_assign_ack(a, as,
                                  a->stopping ? "stopping"
                                  : all_here  ? "no free slot"
                                              : "a machine of its team is missing");
        return;
    }
    w->job = (struct mode_compute_job){.fence = as->fence, .attempt = as->attempt};
    memcpy(w->job.key, as->key, sizeof w->job.key);
    snprintf(w->job.worker, sizeof w->job.worker, "%s", a->config->name);
    w->stall_ms = as->stall_ms;
    snprintf(w->label, sizeof w->label, "%s", as->label ? as->label : "");
    snprintf(w->job.run, sizeof w->job.run, "%s", as->run ? as->run : "");
    w->why = WHY_NONE;
    w->kill_at = 0;
    w->n_samples = 0;
    w->began = w->changed_at = now;
    w->changes = atomic_load(&w->proc.page->changes);
    atomic_store(&w->proc.page->done, 0);
    atomic_store(&w->proc.page->total, 0);
    atomic_store(&w->proc.page->trains, false);
    atomic_store(&w->proc.page->n_scores, 0);
    struct mode_compute_others others;
    if (machines) mode_machines_lend(machines, &others, as->key, as->fence);
    if (mode_slot_give(&w->proc, &w->job, machines ? &others : NULL, &err)) { /* it has just died */
        mode_agent_say_assign_ack(a, as, err.text);
        return;
    }
    w->busy = true;
    mode_agent_say_assign_ack(a, as, NULL);
    mode_log_info("task_start", "key=%.12s label=%s run=%s attempt=%u fence=%016" PRIx64, w->job.key, w->label,
                  w->job.run, w->job.attempt, w->job.fence);
}

/* ---- receiving ---- */

static void on_welcome(struct agent *a, const Mode__Envelope *e, double now)
{
    const Mode__Welcome *wl = e->welcome;
    bool again = a->welcome;
    a->taken_since = 0;
    a->heartbeat_s = wl->heartbeat_ms < 100 ? 0.1 : wl->heartbeat_ms > 60000 ? 60 : 1e-3 * wl->heartbeat_ms;
    a->lease_s = wl->lease_ms < 1000 ? 1 : 1e-3 * wl->lease_ms;
    a->welcome = true;
    a->acked = a->hello_sent;
    a->beat_at = now;
    a->credit_sent = -1;
    for (size_t i = 0; i < wl->n_dropped; i++) {
        struct work *w = slot_of(a, wl->dropped[i]->key, wl->dropped[i]->fence);
        if (w) {
            mode_log_warn("lease_lost", "key=%.12s label=%s", w->job.key, w->label);
            tell_to_stop(w, WHY_DROPPED, now + a->config->grace_s);
        }
    }
    for (size_t i = 0; i < a->n_reports; i++) a->reports[i].next_at = now;
    if (!again)
        mode_log_info("welcome", "coordinator=%s epoch=%" PRIu64 " heartbeat_ms=%u lease_ms=%u",
                      a->config->coordinator.endpoint, a->epoch, wl->heartbeat_ms, wl->lease_ms);
}

static void on_reject(struct agent *a, const Mode__Reject *r, double now)
{
    struct mode_error err;
    switch (r->code) {
    case MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION:
        if (now - a->hello_sent > 0.5 * HELLO_AGAIN_S || a->welcome) { /* not about a HELLO in flight */
            a->welcome = false;
            a->hello_at = now;
        }
        return;
    case MODE__REJECT_CODE__REJECT_STARTING:
    case MODE__REJECT_CODE__REJECT_INTERNAL:
        mode_log_warn("rejected", "%s", r->text);
        a->welcome = false;
        a->hello_at = now +
                      (r->has_retry_after_ms && r->retry_after_ms < 60000 ? 1e-3 * r->retry_after_ms : HELLO_AGAIN_S);
        return;
    case MODE__REJECT_CODE__REJECT_NAME_TAKEN: /* perhaps by ourselves, before a crash: that session will expire */
        if (a->taken_since == 0) a->taken_since = now;
        if (now - a->taken_since > name_taken_s) break;
        mode_log_warn("rejected", "name=%s %s", a->config->name, r->text);
        a->hello_at = now + HELLO_AGAIN_S;
        return;
    case MODE__REJECT_CODE__REJECT_LIMIT: /* staying would occupy a connection that the coordinator has no room for */
    case MODE__REJECT_CODE__REJECT_VERSION:
    case MODE__REJECT_CODE__REJECT_STORE:
    case MODE__REJECT_CODE__REJECT_CODE:
    case MODE__REJECT_CODE__REJECT_PERMISSION: break;
    default: mode_log_warn("rejected", "%s", r->text); return;
    }
    MODE_FAIL(&err,
              r->code == MODE__REJECT_CODE__REJECT_PERMISSION ? MODE_E_PERM
              : r->code == MODE__REJECT_CODE__REJECT_LIMIT    ? MODE_E_TEMP
                                                              : MODE_E_CONFIG,
              "the coordinator rejected this worker: %s", r->text);
    fatal(a, &err);
}

void mode_agent_hear(struct agent *a, const Mode__Envelope *e, double now)
{
    if (e->has_epoch && e->epoch < a->epoch) { /* from a replaced coordinator */
        a->ignored++;
        return;
    }
    if (e->session && e->session[0] && strcmp(e->session, a->session) != 0) {
        a->ignored++;
        return;
    }
    if (e->has_epoch) a->epoch = e->epoch;
    a->heard = now;
    switch (e->body_case) {
    case MODE__ENVELOPE__BODY_WELCOME: on_welcome(a, e, now); break;
    case MODE__ENVELOPE__BODY_REJECT: on_reject(a, e->reject, now); break;
    case MODE__ENVELOPE__BODY_ASSIGN: on_assign(a, e->assign, now); break;
    case MODE__ENVELOPE__BODY_PING:
        for (size_t i = 0; i < SENDS; i++)
            if (e->reply_to && a->sends[i].id == e->reply_to && a->sends[i].at > a->acked) a->acked = a->sends[i].at;
        break;
    case MODE__ENVELOPE__BODY_RESULT_ACK: {
        struct report *r = report_of(a, e->result_ack->key, e->result_ack->fence);
        if (!r) break;
        if (e->result_ack->verdict == MODE__VERDICT__VERDICT_MISSING) {
            if (r->delay < REPORT_MOST_S) break; /* a shared filesystem may show the record late: send it again */
            mode_log_error("result_missing", "key=%.12s the coordinator does not see the commit record in its store",
                           r->job.key);
        }
        forget_report(a, r);
        break;
    }
    case MODE__ENVELOPE__BODY_CANCEL: {
        struct work *w = slot_of(a, e->cancel->key, e->cancel->fence);
        if (w) tell_to_stop(w, WHY_CANCEL, now + 1e-3 * e->cancel->grace_ms);
        break;
    }
    case MODE__ENVELOPE__BODY_DRAIN:
        if (!a->stopping) mode_log_info("drain", "%s", e->drain->reason ? e->drain->reason : "");
        a->stopping = a->draining = a->drained = true;
        if (a->stop_at == 0 && e->drain->grace_ms > 0) a->stop_at = now + 1e-3 * e->drain->grace_ms;
        break;
    default: a->ignored++;
    }
}

static void receive(struct agent *a, double now)
{
    for (int i = 0; i < MAX_PER_TURN && !a->done; i++) {
        struct mode_packet p;
        struct mode_envelope *in;
        struct mode_error err;
        if (mode_socket_recv(a->socket, &p, &err)) {
            fatal(a, &err);
            return;
        }
        if (!p.data) return;
        if (mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &err)) {
            if (err.status == MODE_E_CONFIG) { /* another protocol: retrying is pointless */
                fatal(a, &err);
                mode_packet_clear(&p);
                return;
            }
            mode_log_failure("bad_message", &err);
            a->ignored++;
        } else {
            mode_agent_hear(a, in->msg, now);
            mode_envelope_free(&in);
        }
        mode_packet_clear(&p);
    }
}

static void watch_link(struct agent *a, double now)
{
    struct mode_error err;
    for (int i = 0; i < MAX_PER_TURN; i++) switch (mode_socket_link(a->socket, &err)) {
        case MODE_LINK_SAME: return;
        case MODE_LINK_UP:
            a->linked = true;
            a->welcome = false;
            a->hello_at = now;
            break;
        case MODE_LINK_DOWN:
            if (a->linked) mode_log_warn("link_down", "coordinator=%s reconnecting", a->config->coordinator.endpoint);
            a->linked = a->welcome = false;
            a->complain_at = now + complain_s;
            break;
        case MODE_LINK_REFUSED: fatal(a, &err); return;
        }
}

/* ---- time ---- */

static void check_slots(struct agent *a, uint64_t ooms, double now)
{
    struct mode_error err;
    /* before the first WELCOME there is no lease to lose */
    const double until = a->lease_s > 0 ? a->acked + self_fence * a->lease_s : 0;
    for (int i = 0; i < a->config->slots; i++) {
        struct work *w = &a->slots[i];
        if (w->proc.pid <= 0) {
            if (!a->stopping && now >= w->proc.restart_at && mode_slot_start(&w->proc, &a->program, &err)) {
                mode_log_failure("compute_start", &err);
                w->proc.restart_at = now + 1;
            }
            continue;
        }
        atomic_store(&w->proc.page->publish_until, until);
        if (!w->busy) continue;
        uint64_t changes = atomic_load(&w->proc.page->changes);
        if (changes != w->changes || atomic_load(&w->proc.page->holding)) {
            w->changes = changes;
            w->changed_at = now;
        }
        if (w->stall_ms > 0 && w->why == WHY_NONE && now - w->changed_at > 1e-3 * (double)w->stall_ms) {
            w->why = WHY_STALL;
            w->kill_at = now;
        }
        if (w->kill_at > 0 && now >= w->kill_at) process_died(a, w, true, ooms, now);
    }
}

static void check_stop(struct agent *a, double now)
{
    if (a->config->idle_exit_s > 0 && !a->stopping && n_busy(a) == 0 && now - a->idle_since > a->config->idle_exit_s) {
        mode_log_info("idle_exit", "idle_s=%.0f", now - a->idle_since);
        a->stopping = a->draining = true;
    }
    if (!a->stopping) return;
    if (a->stop_at > 0 && now >= a->stop_at) /* the grace period of a drain is over */
        for (int i = 0; i < a->config->slots; i++)
            if (a->slots[i].busy) tell_to_stop(&a->slots[i], WHY_STOP, now + a->config->grace_s);
    if (n_busy(a) > 0) return;
    if (a->silent_at == 0) a->silent_at = now + last_words_s;
    if (a->n_reports > 0 && a->welcome && now < a->silent_at) return;
    if (a->welcome) {
        Mode__Envelope e;
        Mode__Bye b = MODE__BYE__INIT;
        mode_envelope_init(&e, &a->counter, MODE__ENVELOPE__BODY_BYE);
        e.bye = &b;
        mode_agent_send(a, &e);
    }
    a->exit_code = a->stop_signal ? 128 + a->stop_signal : 0;
    a->done = true;
}

static void on_timers(struct agent *a, uint64_t ooms, double now)
{
    check_slots(a, ooms, now);
    if (a->linked && !a->welcome && now >= a->hello_at) mode_agent_say_hello(a, now);
    if (a->welcome && now >= a->beat_at) {
        mode_agent_say_progress(a, now);
        mode_agent_say_credit(a, true);
        a->beat_at = now + a->heartbeat_s;
        if (now - a->heard > 3 * a->heartbeat_s && now >= a->hello_at)
            mode_agent_say_hello(a, now); /* is it still the same coordinator? */
    } else
        mode_agent_say_credit(a, false);
    for (size_t i = 0; a->welcome && i < a->n_reports; i++)
        if (now >= a->reports[i].next_at) mode_agent_say_report(a, &a->reports[i], now);
    if (!a->welcome && now >= a->complain_at) {
        mode_log_warn("waiting", "coordinator=%s %s", a->config->coordinator.endpoint,
                      a->linked ? "connected, it has not accepted this worker yet" : "not reachable yet; trying again");
        a->complain_at = now + complain_s;
    }
    if (a->config->health_file && now >= a->health_at) {
        mode_health_write(a->config->health_file, a->welcome, n_busy(a));
        a->health_at = now + MODE_HEALTH_S;
    }
    check_stop(a, now);
}

static void on_signal(struct agent *a, double now)
{
    struct signalfd_siginfo info;
    while (read(a->config->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        int sig = (int)info.ssi_signo;
        if (sig == SIGHUP) {
            mode_machines_read_keys(a->config->machines);
            continue;
        }
        if (a->stop_signal) { /* second signal: exit at once */
            a->exit_code = 128 + sig;
            a->done = true;
            return;
        }
        a->stop_signal = sig;
        a->stopping = true;
        mode_log_info("stopping", "signal=%d running=%d grace_s=%.0f", sig, n_busy(a), a->config->grace_s);
        for (int i = 0; i < a->config->slots; i++)
            if (a->slots[i].busy) tell_to_stop(&a->slots[i], WHY_STOP, now + a->config->grace_s);
    }
}

/* Passes events about a task's machines on to its compute process. */
static void watch_machines(struct agent *a, double now)
{
    struct mode_machines *m = a->config->machines;
    struct work *w = &a->slots[0]; /* the only slot */
    const struct mode_compute_news *news;
    if (!w->busy) mode_machines_end(m);
    mode_machines_turn(m, now);
    while (w->busy && (news = mode_machines_news(m)) && mode_slot_tell(&w->proc, news)) mode_machines_told(m);
    if (w->busy && w->why == WHY_NONE && mode_machines_leaving(m)) tell_to_stop(w, WHY_STOP, now + a->config->grace_s);
    describe(a);
    if (a->welcome && !a->stopping && strcmp(a->device, a->said) != 0) mode_agent_say_hello(a, now);
}

static void turn(struct agent *a)
{
    enum { FIXED = 4 };
    zmq_pollitem_t items[FIXED + 2 * MODE_WIRE_MAX_SLOTS];
    int n = 0;
    uint64_t ooms = oom_kills();
    items[n++] = (zmq_pollitem_t){mode_socket_handle(a->socket), 0, ZMQ_POLLIN, 0};
    items[n++] = (zmq_pollitem_t){mode_socket_monitor(a->socket), 0, ZMQ_POLLIN, 0};
    items[n++] = (zmq_pollitem_t){NULL, a->config->signal_fd, ZMQ_POLLIN, 0};
    if (a->config->machines) items[n++] = (zmq_pollitem_t){mode_machines_handle(a->config->machines), 0, ZMQ_POLLIN, 0};
    for (int i = 0; i < a->config->slots; i++)
        if (a->slots[i].proc.pid > 0) {
            items[n++] = (zmq_pollitem_t){NULL, a->slots[i].proc.sock, ZMQ_POLLIN, 0};
            items[n++] = (zmq_pollitem_t){NULL, a->slots[i].proc.err_fd, ZMQ_POLLIN, 0};
        }
    if (zmq_poll(items, n, TICK_MS) < 0 && zmq_errno() != EINTR) {
        struct mode_error err;
        MODE_FAIL(&err, MODE_E_IO, "waiting for messages failed: %s", zmq_strerror(zmq_errno()));
        fatal(a, &err);
        return;
    }
    double now = mode_clock_s();
    on_signal(a, now);
    watch_link(a, now);
    if (!a->done) receive(a, now);
    for (int i = 0; i < a->config->slots && !a->done; i++) {
        struct work *w = &a->slots[i];
        struct mode_from_compute word;
        if (w->proc.pid <= 0) continue;
        mode_slot_read_log(&w->proc);
        int got = mode_slot_read(&w->proc, &word);
        if (got < 0)
            process_died(a, w, false, ooms, now);
        else if (got > 0 && word.kind == MODE_FROM_COMPUTE_END)
            task_ended(a, w, &word.end, now);
        else if (got > 0 && a->config->machines)
            mode_machines_begin(a->config->machines, &word.call);
    }
    if (!a->done && a->config->machines) watch_machines(a, now);
    if (!a->done) on_timers(a, ooms, now);
}

/* Without a connection and without compute processes. */
static void stay(struct agent *a)
{
    struct pollfd signals = {.fd = a->config->signal_fd, .events = POLLIN};
    struct signalfd_siginfo info;
    mode_log_info("drained", "it stays, without work, until it is stopped");
    a->welcome = false;
    while (read(signals.fd, &info, sizeof info) != (ssize_t)sizeof info) {
        if (a->config->health_file) mode_health_write(a->config->health_file, false, 0);
        poll(&signals, 1, (int)(1000 * MODE_HEALTH_S));
    }
    a->exit_code = 128 + (int)info.ssi_signo;
}

int mode_agent_run(const struct mode_agent_config *config, struct mode_store *store, struct mode_net *net)
{
    struct mode_error err = {0};
    uint8_t raw[16];
    struct agent *a = mode_xcalloc(1, sizeof *a);
    a->config = config;
    a->store = store;
    a->credit_sent = -1;
    a->program = (struct mode_slot_program){config->argv0, mode_store_root(store), config->backend, config->threads,
                                            config->gpus};
    a->slots = mode_xcalloc((size_t)config->slots, sizeof *a->slots);
    MODE_ASSERT(getrandom(raw, sizeof raw, 0) == (ssize_t)sizeof raw);
    for (int i = 0; i < 16; i++) snprintf(a->session + 2 * i, 3, "%02x", raw[i]);
    a->idle_since = mode_clock_s();
    a->complain_at = a->idle_since + 5;
    describe(a);
    enum mode_status st = mode_socket_connect(&a->socket, net, &config->coordinator, &err);
    if (st)
        fatal(a, &err);
    else
        mode_log_info(
            "ready",
            "name=%s coordinator=%s workspace=%s slots=%d threads=%d backend=%s device=\"%s\" version=%s session=%.8s",
            config->name, config->coordinator.endpoint, mode_store_root(store), config->slots, config->threads,
            config->backend, a->device, mode_version, a->session);
    while (!a->done) turn(a);
    for (int i = 0; i < config->slots; i++) mode_slot_close(&a->slots[i].proc);
    while (a->n_reports > 0) forget_report(a, &a->reports[0]);
    mode_socket_close(&a->socket);
    if (config->stay && a->drained && a->exit_code == 0) stay(a);
    if (config->health_file) unlink(config->health_file);
    int code = a->exit_code;
    mode_log_info("exit", "code=%d", code);
    free(a->slots);
    free(a);
    return code;
}
