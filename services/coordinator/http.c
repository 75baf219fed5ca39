/* http.c - health, metrics and status over HTTP. Read-only; on the address given by --http. */
#include "server.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/address.h"
#include "msg/status_json.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct page {
    unsigned status;
    const char *type;
    struct mode_str body;
};

static void metric(struct mode_str *out, const char *name, const char *type, const char *help)
{
    mode_str_printf(out, "# HELP mode_%s %s\n# TYPE mode_%s %s\n", name, help, name, type);
}

enum train_value { TRAIN_STEP, TRAIN_LOSS, TRAIN_LR, TRAIN_SCALE, TRAIN_PACE };

static double train_value(const struct core_task *t, enum train_value v)
{
    switch (v) {
    case TRAIN_LOSS: return t->train.loss;
    case TRAIN_LR: return t->train.lr;
    case TRAIN_SCALE: return t->train.logit_scale;
    case TRAIN_PACE: return t->train.samples_per_s;
    default: return (double)t->done;
    }
}

static const char *model_of(const struct core_task *t)
{
    static const char stage[] = "train/";
    return t->label + (strncmp(t->label, stage, sizeof stage - 1) == 0 ? sizeof stage - 1 : 0);
}

/* Names of runs and models need no escaping. */
void http_train_metrics(struct mode_str *out, const struct core *c)
{
    static const struct {
        enum train_value value;
        const char *name, *help;
    } list[] = {{TRAIN_STEP, "train_step", "Steps done of a running training, counted from where it began."},
                {TRAIN_LOSS, "train_loss", "Loss of the latest step of a running training."},
                {TRAIN_LR, "train_learning_rate", "Learning rate of that step."},
                {TRAIN_SCALE, "train_logit_scale", "Logit scale (not its logarithm) after that step."},
                {TRAIN_PACE, "train_samples_per_second", "Pairs per second in that step."}};
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        metric(out, list[k].name, "gauge", list[k].help);
        for (uint32_t i = 0; i < c->n_active; i++) {
            const struct core_task *t = &c->task[c->active[i]];
            if (!t->train.known) continue;
            mode_str_printf(out, "mode_%s{run=\"%s\",model=\"%s\"} %.9g\n", list[k].name, t->run, model_of(t),
                            train_value(t, list[k].value));
        }
    }
}

/* A task's name is a folder's name and needs escaping. */
static void add_label(struct mode_str *out, const char *name, const char *value)
{
    mode_str_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n')
            mode_str_add_cstr(out, "\\n");
        else if (*value == '"' || *value == '\\')
            mode_str_printf(out, "\\%c", *value);
        else
            mode_str_add_char(out, *value);
    }
    mode_str_add_char(out, '"');
}

void http_score_metrics(struct mode_str *out, const struct core *c)
{
    static const struct {
        const char *name, *help;
    } list[] = {{"validation", "Latest result of a model in training, on a task that it is evaluated on meanwhile."},
                {"validation_step", "Step of the whole schedule at which that result was taken."}};
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        metric(out, list[k].name, "gauge", list[k].help);
        for (uint32_t i = 0; i < c->n_active; i++) {
            const struct core_task *t = &c->task[c->active[i]];
            for (size_t n = 0; n < t->n_scores; n++) {
                const struct core_score *s = &t->score[n];
                mode_str_printf(out, "mode_%s{run=\"%s\",model=\"%s\",", list[k].name, t->run, model_of(t));
                add_label(out, "task", s->task);
                mode_str_add_char(out, ',');
                add_label(out, "metric", s->metric);
                mode_str_printf(out, "} %.9g\n", k ? (double)s->step : s->value);
            }
        }
    }
}

void http_failure_metrics(struct mode_str *out, const struct core *c)
{
    metric(out, "task_failures_total", "counter", "Attempts at tasks that failed, by queue and cause.");
    for (size_t p = 0; p < c->n_pools; p++)
        for (int f = CORE_FAIL_NONE + 1; f < CORE_FAIL_COUNT; f++)
            mode_str_printf(out, "mode_task_failures_total{queue=\"%s\",cause=\"%s\"} %llu\n", c->pool[p].service,
                            core_fail_name((enum core_fail)f), (unsigned long long)c->pool[p].failed[f]);
}

static void count_workers(struct mode_str *out, const struct core *c, const char *service)
{
    unsigned busy = 0, idle = 0;
    for (uint32_t w = 0; w < c->n_workers; w++) {
        if (!c->worker[w].session[0] || strcmp(c->worker[w].service, service) != 0) continue;
        if (c->worker[w].held)
            busy++;
        else
            idle++;
    }
    mode_str_printf(out, "mode_workers{role=\"%s\",state=\"busy\"} %u\nmode_workers{role=\"%s\",state=\"idle\"} %u\n",
                    service, busy, service, idle);
}

/* Whether this is the first worker of a kind that has never had a task. */
static bool is_new_kind(const struct core *c, uint32_t worker)
{
    const char *service = c->worker[worker].service;
    if (!c->worker[worker].session[0]) return false;
    for (size_t p = 0; p < c->n_pools; p++)
        if (strcmp(c->pool[p].service, service) == 0) return false;
    for (uint32_t w = 0; w < worker; w++)
        if (c->worker[w].session[0] && strcmp(c->worker[w].service, service) == 0) return false;
    return true;
}

static void metrics(const struct server *s, struct page *page)
{
    static const char *const states[] = {"pending", "leased", "retry", "done", "dead", "cancelled"};
    struct mode_str *out = &page->body;
    page->type = "text/plain; version=0.0.4; charset=utf-8";
    metric(out, "build_info", "gauge", "Version of this build.");
    mode_str_printf(out, "mode_build_info{version=\"%s\"} 1\n", mode_version);
    metric(out, "redis_up", "gauge", "1 if Redis answers, else 0.");
    mode_str_printf(out, "mode_redis_up %d\n", redis_is_up(s->redis));
    metric(out, "epoch", "gauge", "Epoch of this coordinator.");
    mode_str_printf(out, "mode_epoch %llu\n", (unsigned long long)s->epoch);
    metric(out, "tasks", "gauge", "Tasks known to this coordinator by queue and state.");
    uint64_t(*n)[6] = mode_xcalloc(s->core.n_pools + 1, sizeof *n);
    for (uint32_t t = 0; t < s->core.n_tasks; t++) {
        size_t p = 0;
        while (s->core.pool[p].service != s->core.task[t].service) p++;
        n[p][s->core.task[t].state]++;
    }
    for (size_t p = 0; p < s->core.n_pools; p++)
        for (int i = 0; i < 6; i++)
            mode_str_printf(out, "mode_tasks{queue=\"%s\",state=\"%s\"} %llu\n", s->core.pool[p].service, states[i],
                            (unsigned long long)n[p][i]);
    free(n);
    metric(out, "workers", "gauge", "Connected workers by role and state.");
    for (size_t p = 0; p < s->core.n_pools; p++) count_workers(out, &s->core, s->core.pool[p].service);
    for (uint32_t w = 0; w < s->core.n_workers; w++)
        if (is_new_kind(&s->core, w)) count_workers(out, &s->core, s->core.worker[w].service);
    metric(out, "waiting_seconds", "gauge",
           "How long tasks of a queue wait for workers that are missing or held back.");
    for (size_t p = 0; p < s->core.n_pools; p++)
        mode_str_printf(out, "mode_waiting_seconds{queue=\"%s\"} %.3f\n", s->core.pool[p].service,
                        server_waits_since_s(s, s->core.pool[p].service));
    http_failure_metrics(out, &s->core);
    http_train_metrics(out, &s->core);
    http_score_metrics(out, &s->core);
    metric(out, "handouts_total", "counter", "Tasks handed to workers.");
    mode_str_printf(out, "mode_handouts_total %llu\n", (unsigned long long)s->n_handouts);
    metric(out, "zmq_messages_total", "counter", "Messages received.");
    mode_str_printf(out, "mode_zmq_messages_total{socket=\"worker\",dir=\"in\"} %llu\n",
                    (unsigned long long)s->n_messages[0]);
    mode_str_printf(out, "mode_zmq_messages_total{socket=\"admin\",dir=\"in\"} %llu\n",
                    (unsigned long long)s->n_messages[1]);
    metric(out, "bad_messages_total", "counter", "Messages that could not be read or understood.");
    mode_str_printf(out, "mode_bad_messages_total %llu\n", (unsigned long long)s->n_bad_messages);
    metric(out, "redis_refused_total", "counter", "Transitions that Redis did not accept.");
    mode_str_printf(out, "mode_redis_refused_total %llu\n", (unsigned long long)s->n_refused);
    metric(out, "disk_free_bytes", "gauge", "Free space of the workspace.");
    mode_str_printf(out, "mode_disk_free_bytes %llu\n", (unsigned long long)mode_store_free_bytes(s->store, NULL));
    metric(out, "disk_floor_bytes", "gauge", "With less free space than this no task is handed out.");
    mode_str_printf(out, "mode_disk_floor_bytes %llu\n", (unsigned long long)s->floor_bytes);
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) == 0) {
        mode_str_printf(out, "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.3f\n",
                        (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                            (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6);
    }
    mode_str_printf(out, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %llu\n",
                    (unsigned long long)mode_memory_held());
}

static void health(struct page *page, bool good, const char *why)
{
    page->status = good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    page->type = "text/plain; charset=utf-8";
    mode_str_printf(&page->body, "%s%s\n", good ? "ok" : "not ready: ", good ? "" : why);
}

static void status_page(const struct server *s, struct page *page)
{
    struct status_memory *memory;
    char *json = mode_status_json(status_build(&memory, s, NULL, true, SERVER_NOTES));
    page->type = "application/json";
    mode_str_add_cstr(&page->body, json);
    mode_str_add_char(&page->body, '\n');
    free(json);
    status_free(&memory);
}

static void route(const struct server *s, const char *url, struct page *page)
{
    if (strcmp(url, "/livez") == 0 || strcmp(url, "/ping") == 0) {
        health(page, true, ""); /* answering proves liveness: the main loop itself answers */
    } else if (strcmp(url, "/readyz") == 0 || strcmp(url, "/health") == 0 || strcmp(url, "/healthz") == 0 ||
               strcmp(url, "/startupz") == 0) {
        char why[400] = "starting";
        bool paused = server_paused(s, why, sizeof why);
        health(page, s->core.dispatch && !paused, s->redis_problem[0] ? s->redis_problem : why);
    } else if (strcmp(url, "/metrics") == 0) {
        metrics(s, page);
    } else if (strcmp(url, "/status") == 0 || strcmp(url, "/status.json") == 0) {
        status_page(s, page);
    } else if (strcmp(url, "/info") == 0) {
        page->type = "application/json";
        mode_str_printf(&page->body,
                        "{\"service\": \"coordinator\", \"version\": \"%s\", \"epoch\": %llu, \"store_id\": \"%s\", "
                        "\"heartbeat_ms\": %u, \"lease_ms\": %u}\n",
                        mode_version, (unsigned long long)s->epoch, mode_store_id(s->store), s->core.opt.heartbeat_ms,
                        s->core.opt.lease_ms);
    } else {
        page->status = MHD_HTTP_NOT_FOUND;
        page->type = "text/plain; charset=utf-8";
        mode_str_add_cstr(&page->body, "not found; there are /livez /readyz /metrics /info /status\n");
    }
}

static enum MHD_Result answer(void *self, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
    (void)version;
    (void)data;
    (void)state;
    struct page page = {.status = MHD_HTTP_OK, .type = "text/plain; charset=utf-8"};
    if (*size) { /* request bodies are not expected */
        *size = 0;
        return MHD_NO;
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        page.status = MHD_HTTP_METHOD_NOT_ALLOWED;
        mode_str_add_cstr(&page.body, "only GET\n");
    } else {
        route(self, url, &page);
    }
    struct MHD_Response *r = MHD_create_response_from_buffer(page.body.len, page.body.data, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        mode_str_clear(&page.body);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", page.type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    enum MHD_Result sent = MHD_queue_response(c, page.status, r);
    MHD_destroy_response(r);
    return sent;
}

enum mode_status http_open(struct server *s, const char *address, struct mode_error *err)
{
    if (!address || !*address) return MODE_OK;
    struct sockaddr_in at;
    enum mode_status st = mode_http_address(&at, address, err);
    if (st) return st;
    s->http = MHD_start_daemon(MHD_USE_EPOLL, ntohs(at.sin_port), NULL, NULL, answer, s, MHD_OPTION_SOCK_ADDR,
                               (struct sockaddr *)&at, MHD_OPTION_CONNECTION_LIMIT, 64u, MHD_OPTION_CONNECTION_TIMEOUT,
                               10u, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32768, MHD_OPTION_END);
    if (!s->http)
        return MODE_FAIL(err, MODE_E_CONFIG, "HTTP cannot listen on %s: the port is taken or not allowed (--http)",
                         address);
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->http, MHD_DAEMON_INFO_EPOLL_FD);
    s->http_fd = info ? info->epoll_fd : -1;
    return MODE_OK;
}

void http_run(struct server *s)
{
    if (s->http) MHD_run(s->http);
}

void http_close(struct server *s)
{
    if (s->http) MHD_stop_daemon(s->http);
    s->http = NULL;
    s->http_fd = -1;
}
