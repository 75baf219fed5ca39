/* mode-coordinator - owns the runs of a workspace: hands their tasks to workers and reports their progress.
 *
 * In:    SUBMIT, STATUS, CONTROL from the mode command; HELLO, CREDIT, PROGRESS, RESULT ... from workers.
 * Out:   ASSIGN, CANCEL, RESULT_ACK ...; HTTP: /livez /readyz /metrics /info /status.
 * State: runs/, epochs/ in the workspace; an index in Redis that may be lost. A restart repeats no finished work,
 *        and running work continues: workers report the leases they hold.
 * Exit:  0 after SIGTERM or SIGINT; 75 when another coordinator took over; 78 for a wrong configuration.
 *        SIGHUP reads the allow list again. */
#include "server.h"

#include "base/environment.h"
#include "base/log.h"
#include "base/options.h"
#include "base/str.h"
#include "msg/address.h"
#include "msg/place.h"
#include "msg/redis_url.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mode_option table[] = {
    MODE_OPT_STR(struct server_options, workspace, "workspace", ".", "DIR", "the artifact store's folder"),
    MODE_OPT_STR(struct server_options, worker_endpoint, "worker-endpoint", NULL, "URL",
                 "where workers connect; default: a socket in the workspace"),
    MODE_OPT_STR(struct server_options, admin_endpoint, "admin-endpoint", NULL, "URL",
                 "where the mode command connects; default: a socket in the workspace"),
    MODE_OPT_STR(struct server_options, redis_url, "redis", NULL, "URL",
                 "redis://host:port or unix:///path; default: REDIS_URL, else a socket in the workspace"),
    MODE_OPT_STR(struct server_options, key_dir, "key-dir", NULL, "DIR", "CURVE keys; needed for tcp endpoints"),
    MODE_OPT_STR(struct server_options, allow_list, "allow-list", NULL, "FILE",
                 "public keys that are accepted; default: allow in the key folder"),
    MODE_OPT_STR(struct server_options, http, "http", NULL, "HOST:PORT",
                 "serve health, metrics and status there; off by default"),
    MODE_OPT_INT(struct server_options, heartbeat_ms, "heartbeat-ms", "3000", "MS", "how often workers report"),
    MODE_OPT_INT(struct server_options, lease_ms, "lease-ms", "30000", "MS",
                 "silence of a worker after which its tasks go to others"),
    MODE_OPT_INT(struct server_options, keep_checkpoints_s, "keep-checkpoints-s", "86400", "S",
                 "how long to keep checkpoints that no run needs any more (cancelled, or replaced by another spec)"),
    MODE_OPT_INT(
        struct server_options, min_free_mib, "min-free-mib", "-1", "MIB",
        "with less free space than this in the workspace no task is handed out; -1: 1 GiB, or 2 % of a small disk"),
    MODE_OPT_END};

/* If HTTP is enabled it is used: unlike the admin port between machines it needs no key. */
static enum mode_status ask_http(const char *address, struct mode_error *err)
{
    char url[64];
    long code = 0;
    CURL *curl = curl_easy_init();
    if (!curl) return MODE_FAIL(err, MODE_E_MEMORY, "libcurl cannot be initialised");
    snprintf(url, sizeof url, "http://127.0.0.1%.8s/readyz", strrchr(address, ':'));
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 3000L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    CURLcode rc = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_cleanup(curl);
    if (rc != CURLE_OK) return MODE_FAIL(err, MODE_E_PEER, "%s: %s", url, curl_easy_strerror(rc));
    if (code != 200) return MODE_FAIL(err, MODE_E_PEER, "the coordinator is not ready (%s answers %ld)", url, code);
    return MODE_OK;
}

static enum mode_status healthcheck(const struct server_options *o, struct mode_error *err)
{
    struct mode_net *net = NULL;
    struct mode_envelope *answer = NULL;
    char *endpoint = NULL;
    Mode__Envelope e;
    Mode__Status q = MODE__STATUS__INIT;
    uint64_t id = 0;
    enum mode_status st = MODE_OK;
    if (o->http && *o->http) return ask_http(o->http, err);
    mode_envelope_init(&e, &id, MODE__ENVELOPE__BODY_STATUS);
    q.run = "";
    e.status = &q;
    if (o->admin_endpoint && *o->admin_endpoint)
        endpoint = mode_xstrdup(o->admin_endpoint);
    else
        st = mode_place_endpoint(&endpoint, o->workspace, "admin.sock", err);
    struct mode_endpoint at = {.endpoint = endpoint, .wire = MODE_WIRE_ADMIN};
    if (!st) st = mode_net_open(&net, err);
    if (!st) st = mode_ask(&answer, net, &at, &e, 3000, err);
    if (!st && (answer->msg->body_case != MODE__ENVELOPE__BODY_STATUS_REPLY || !answer->msg->status_reply->ready))
        st = MODE_FAIL(err, MODE_E_PEER, "the coordinator is not ready: Redis does not answer");
    if (!st && answer->msg->status_reply->paused)
        st = MODE_FAIL(err, MODE_E_PEER, "the coordinator is not ready: %s", answer->msg->status_reply->paused);
    mode_envelope_free(&answer);
    mode_net_close(&net);
    free(endpoint);
    return st;
}

static bool is_given(const char *text)
{
    return text && *text;
}

static enum mode_status check(const struct server_options *o, struct mode_error *err)
{
    struct mode_redis_url redis = {0};
    if (is_given(o->redis_url) && mode_redis_url_parse(&redis, o->redis_url, err))
        return o->redis_url == getenv("REDIS_URL") ? mode_error_prefix(err, MODE_E_CONFIG, "REDIS_URL")
                                                   : mode_option_wrong(err, "redis");
    mode_redis_url_clear(&redis);
    if (is_given(o->http) && mode_http_address(NULL, o->http, err)) return mode_option_wrong(err, "http");
    if (is_given(o->worker_endpoint) && mode_endpoint_check(o->worker_endpoint, true, err))
        return mode_option_wrong(err, "worker-endpoint");
    if (is_given(o->admin_endpoint) && mode_endpoint_check(o->admin_endpoint, true, err))
        return mode_option_wrong(err, "admin-endpoint");
    if (o->heartbeat_ms < 50)
        return MODE_FAIL(err, MODE_E_USAGE, "--heartbeat-ms: %lld is out of range, expected 50 or more",
                         (long long)o->heartbeat_ms);
    if (o->lease_ms < 4 * o->heartbeat_ms || o->lease_ms > 3600000)
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--lease-ms is %lld, expected at least four times --heartbeat-ms (%lld) and at most 3600000",
                         (long long)o->lease_ms, (long long)o->heartbeat_ms);
    if (o->min_free_mib < -1 || o->min_free_mib > INT32_MAX)
        return MODE_FAIL(err, MODE_E_USAGE, "--min-free-mib is %lld, expected -1 to %d", (long long)o->min_free_mib,
                         INT32_MAX);
    if (o->keep_checkpoints_s < 0)
        return MODE_FAIL(err, MODE_E_USAGE, "--keep-checkpoints-s is %lld, expected 0 or more",
                         (long long)o->keep_checkpoints_s);
    return MODE_OK;
}

int main(int argc, char **argv)
{
    struct server_options o = {0};
    struct mode_error err = {0};
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode-coordinator [healthcheck] [options]",
                          "Owns the runs of a workspace: hands their tasks to workers and reports their progress. "
                          "`healthcheck` exits 0 when the coordinator of this workspace is ready, else 69.");
        return 0;
    }
    mode_log_open("coordinator");
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, &err);
    bool ask = !st && n_args == 1 && strcmp(argv[1], "healthcheck") == 0;
    if (!st && n_args && !ask) st = MODE_FAIL(&err, MODE_E_USAGE, "unknown argument \"%s\"; see --help", argv[1]);
    if (!o.redis_url) o.redis_url = getenv("REDIS_URL");
    if (!st) st = mode_environment_check(&err);
    if (!st) st = mode_options_blame(check(&o, &err), &err, "MODE_", argc, argv);
    if (st || ask) {
        if (!st) st = healthcheck(&o, &err);
        if (st) fprintf(stderr, "mode-coordinator: %s\n", err.text);
        return mode_status_exit_code(st);
    }
    struct server *s = mode_xcalloc(1, sizeof *s);
    st = server_open(s, &o, &err);
    if (!st) st = server_run(s, &err);
    if (st) mode_log_failure("fatal", &err);
    server_close(s);
    free(s);
    return mode_status_exit_code(st);
}
