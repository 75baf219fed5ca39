/* mode up, mode down - start and stop Redis, the coordinator and the workers of a workspace on this machine. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/options.h"
#include "base/process.h"
#include "base/str.h"
#include "client.h"
#include "msg/address.h"
#include "msg/place.h"
#include "msg/redis_url.h"
#include "msg/worker.h"
#include "ranges.h"
#include "running.h"
#include "supervisor.h"
#include "verb.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ONE_OF_EACH "captions=1,embed=1,cluster=1,assign=1,train=1,evaluate=1,ensemble=1"

struct up_options {
    const char *workspace, *workers, *redis, *http, *gpus; /* gpus as text, so that "not given" differs from 0 */
    int64_t timeout_s;
    bool supervise;
};

static const struct mode_option up_table[] = {
    MODE_OPT_STR(struct up_options, workspace, "workspace", ".", "DIR", "the workspace; created if missing"),
    MODE_OPT_STR(struct up_options, workers, "workers", NULL, "LIST",
                 "number of workers of each kind (train=2,embed=1); kinds that are not named are not started. Default: "
                 "one of each"),
    MODE_OPT_STR(struct up_options, redis, "redis", NULL, "URL", "use this Redis (also REDIS_URL) and start none"),
    MODE_OPT_STR(struct up_options, http, "http", NULL, "HOST:PORT",
                 "the coordinator's status, metrics and health, e.g. 127.0.0.1:8080"),
    MODE_OPT_STR(struct up_options, gpus, "gpus", NULL, "N",
                 "GPUs on which a train worker trains one model (mode-train --gpus); default: 1"),
    MODE_OPT_INT(struct up_options, timeout_s, "timeout-s", "30", "S", "how long to wait until all are ready"),
    MODE_OPT_FLAG(struct up_options, supervise, "supervise", "be the supervisor and stay in the foreground"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("timeout-s", 0, 86400), RANGE_END}; /* of both */

struct down_options {
    const char *workspace;
    int64_t timeout_s;
};

static const struct mode_option down_table[] = {
    MODE_OPT_STR(struct down_options, workspace, "workspace", ".", "DIR", "the workspace"),
    MODE_OPT_INT(struct down_options, timeout_s, "timeout-s", "90", "S",
                 "how long processes may take to stop before they are killed"),
    MODE_OPT_END};

/* Folder of this executable: the others are beside it. */
static enum mode_status own_folder(char out[PATH_MAX], struct mode_error *err)
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (n <= 0) return MODE_FAIL(err, MODE_E_IO, "/proc/self/exe: %s", strerror(errno));
    out[n] = 0;
    *strrchr(out, '/') = 0;
    return MODE_OK;
}

static bool in_path(const char *program)
{
    char *path = mode_xstrdup(getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin"), *save = NULL;
    bool found = false;
    for (char *dir = strtok_r(path, ":", &save); dir && !found; dir = strtok_r(NULL, ":", &save)) {
        char *file = mode_path_join(dir, program);
        found = access(file, X_OK) == 0;
        free(file);
    }
    free(path);
    return found;
}

static enum mode_status look_first(const struct up_options *o, const char *bin, int *n_workers, struct mode_error *err)
{
    enum mode_status st = supervisor_count_workers(n_workers, o->workers, err);
    if (st) return st;
    if (!o->redis && !in_path("redis-server"))
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "redis-server is not installed. HINT: apt-get install redis-server, or name a running one by "
                         "--redis redis://host:port");
    char *coordinator = mode_path_join(bin, "mode-coordinator");
    if (access(coordinator, X_OK) != 0)
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s is missing; the executables belong into one folder", coordinator);
    free(coordinator);
    char *text = mode_xstrdup(o->workers), *save = NULL;
    for (char *part = strtok_r(text, ",", &save); part && !st; part = strtok_r(NULL, ",", &save)) {
        part[strcspn(part, "=")] = 0;
        char *program = mode_xasprintf("%s/mode-%s", bin, part);
        if (access(program, X_OK) != 0) st = MODE_FAIL(err, MODE_E_CONFIG, "%s is missing", program);
        free(program);
    }
    free(text);
    return st;
}

/* The supervisor as a background process; its log is logs/supervisor.log. */
static enum mode_status launch(pid_t *pid, const struct up_options *o, const char *workspace, const char *bin,
                               struct mode_error *err)
{
    char *logs = mode_path_join(workspace, "logs"), *log = mode_path_join(logs, "supervisor.log");
    char *exe = mode_path_join(bin, "mode");
    char *argv[16] = {exe, "up", "--supervise", "--workspace", (char *)workspace, "--workers", (char *)o->workers};
    int n = 7;
    enum mode_status st = mode_dir_make(logs, err);
    if (st) goto out;
    if (o->redis) {
        argv[n++] = "--redis";
        argv[n++] = (char *)o->redis;
    }
    if (o->http) {
        argv[n++] = "--http";
        argv[n++] = (char *)o->http;
    }
    if (o->gpus) {
        argv[n++] = "--gpus";
        argv[n++] = (char *)o->gpus;
    }
    *pid = fork();
    if (*pid < 0) {
        st = MODE_FAIL(err, MODE_E_TEMP, "fork: %s", strerror(errno));
    } else if (*pid == 0) {
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644), null = open("/dev/null", O_RDONLY);
        setsid();
        if (out < 0 || null < 0 || chdir("/") != 0) _exit(73);
        dup2(null, 0);
        dup2(out, 1);
        dup2(out, 2);
        execv(exe, argv);
        _exit(127);
    }
out:
    free(logs);
    free(log);
    free(exe);
    return st;
}

static enum mode_status wait_ready(pid_t supervisor, const char *workspace, int n_workers, int64_t timeout_s,
                                   struct mode_error *err)
{
    struct client_options at = {.workspace = workspace, .key_name = "admin"};
    struct client *c = NULL;
    double until = mode_clock_s() + (double)timeout_s;
    char line[400] = "";
    size_t n_seen = 0;
    enum mode_status st = client_open(&c, &at, err);
    while (!st) {
        struct mode_envelope *answer = NULL;
        struct mode_error ignored = {0};
        int status;
        bool ready = false;
        if (waitpid(supervisor, &status, WNOHANG) == supervisor) {
            supervisor_last_line(line, sizeof line, workspace, "supervisor");
            int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
            st = code == mode_status_exit_code(MODE_E_CONFIG)   ? MODE_E_CONFIG
                 : code == mode_status_exit_code(MODE_E_DEVICE) ? MODE_E_DEVICE
                                                                : MODE_E_PEER;
            client_close(&c);
            return MODE_FAIL(err, st, "nothing runs: %s", strncmp(line, "mode up: ", 9) == 0 ? line + 9 : line);
        }
        bool redis = true;
        if (!client_status(&answer, c, "", true, 1, 1000, &ignored)) {
            const Mode__StatusReply *r = answer->msg->status_reply;
            n_seen = r->n_workers;
            redis = r->ready;
            ready = redis && n_seen >= (size_t)n_workers;
            if (!redis && r->n_notes) snprintf(line, sizeof line, "%s", r->notes[0]->text);
        }
        mode_envelope_free(&answer);
        if (ready) break;
        if (mode_clock_s() > until) {
            if (redis) supervisor_last_line(line, sizeof line, workspace, n_seen ? "supervisor" : "coordinator");
            st = MODE_FAIL(
                err, MODE_E_PEER,
                "after %lld s %zu of %d worker%s %s connected%s; the logs are in %s/logs, the last line is: %s",
                (long long)timeout_s, n_seen, n_workers, MODE_PLURAL(n_workers), n_seen == 1 ? "is" : "are",
                redis ? "" : " but Redis is not", workspace, line);
        }
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    client_close(&c);
    return st;
}

/* Already running: checks that the options match and that it is ready. Nothing is changed. */
static enum mode_status find_again(pid_t pid, const struct up_options *o, int gpus, const char *workspace,
                                   struct mode_error *err)
{
    struct running r;
    int n_workers = 0;
    enum mode_status st = running_read(&r, workspace, err);
    if (st) return st;
    st = running_is_asked(&r, workspace, o->workers, o->redis, o->http, gpus, err);
    if (!st) st = supervisor_count_workers(&n_workers, r.workers, err);
    if (!st && (st = wait_ready(pid, workspace, n_workers, o->timeout_s, err)))
        st = mode_error_prefix(err, st, "it is already running, but");
    if (!st)
        printf("it is already running, with the options it was started with: supervisor %ld, --workers %s%s%s, --gpus "
               "%d, workspace %s\n",
               (long)pid, r.workers, r.http[0] ? ", --http " : "", r.http, r.gpus, workspace);
    running_clear(&r);
    return st;
}

static enum mode_status start(const struct up_options *o, const char *workspace, const char *bin,
                              struct mode_error *err)
{
    double begun = mode_clock_s();
    int n_workers;
    pid_t pid;
    enum mode_status st = look_first(o, bin, &n_workers, err);
    if (!st) st = launch(&pid, o, workspace, bin, err);
    if (st) return st;
    if ((st = wait_ready(pid, workspace, n_workers, o->timeout_s, err))) {
        if (waitpid(pid, NULL, WNOHANG) == 0) { /* leaves nothing half-started */
            kill(pid, SIGTERM);
            waitpid(pid, NULL, 0);
        }
        return st;
    }
    printf("up in %.1f s: coordinator and %d worker%s, workspace %s\n", mode_clock_s() - begun, n_workers,
           MODE_PLURAL(n_workers), workspace);
    return MODE_OK;
}

/* Checks options passed on to children, and their environment, before any child is started. */
static enum mode_status check(int64_t *gpus, const struct up_options *o, struct mode_error *err)
{
    struct mode_redis_url redis = {0};
    int n_workers;
    enum mode_status st = ranges_check(o, up_table, ranges, err);
    *gpus = 0; /* not given */
    if (!st && o->gpus) st = option_count(gpus, o->gpus, "--gpus", 1, MODE_MOST_GPUS, err);
    if (st) return st;
    if (o->http && *o->http && mode_http_address(NULL, o->http, err)) return mode_option_wrong(err, "http");
    if (o->redis && mode_redis_url_parse(&redis, o->redis, err))
        return o->redis == getenv("REDIS_URL") ? mode_error_prefix(err, MODE_E_CONFIG, "REDIS_URL")
                                               : mode_option_wrong(err, "redis");
    mode_redis_url_clear(&redis);
    if (o->workers) st = supervisor_count_workers(&n_workers, o->workers, err);
    return st ? st : mode_worker_check_environment("train", *gpus ? *gpus : 1, err);
}

static enum mode_status up(int argc, char **argv, struct mode_error *err)
{
    struct up_options o = {0};
    int64_t gpus;
    int n_args, n_workers;
    char workspace[PATH_MAX], bin[PATH_MAX];
    pid_t pid;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            up_table, "MODE_", "mode up [options]",
            "Starts a private Redis, the coordinator and workers for a workspace, in the background. Processes that "
            "die are restarted. Logs: <workspace>/logs. `mode down` stops everything. If it is already running, "
            "nothing is changed: it prints the options in use, and fails if the ones given here differ.\n"
            "Exit: 0 all are ready, 69 not ready in time, 70 a GPU cannot be used, 75 already running with other "
            "options, 78 something is missing.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, up_table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = arguments_check(n_args, 0, argv, NULL, err))) return st;
    const char *redis_url = getenv("REDIS_URL");
    if (!o.redis && redis_url && *redis_url) o.redis = redis_url;
    if ((st = check(&gpus, &o, err))) return st;
    if ((st = mode_dir_make(o.workspace, err))) return st;
    if (!realpath(o.workspace, workspace)) return MODE_FAIL(err, MODE_E_IO, "%s: %s", o.workspace, strerror(errno));
    if ((st = own_folder(bin, err))) return st;
    if ((st = mode_place_make(workspace, err))) return st;
    if (!o.supervise && (st = supervisor_find(&pid, workspace, err))) return st;
    if (!o.supervise && pid) return find_again(pid, &o, (int)gpus, workspace, err);
    if (!o.workers) o.workers = ONE_OF_EACH;
    if (!o.supervise) return start(&o, workspace, bin, err);
    struct supervisor_options s = {.workspace = workspace,
                                   .bin = bin,
                                   .redis_url = o.redis,
                                   .http = o.http ? o.http : "",
                                   .workers = o.workers,
                                   .gpus = gpus ? (int)gpus : 1};
    if ((st = look_first(&o, bin, &n_workers, err))) return st;
    mode_log_open("supervisor");
    return supervisor_run(&s, err);
}

static enum mode_status down(int argc, char **argv, struct mode_error *err)
{
    struct down_options o = {0};
    int n_args, n_killed = 0;
    char workspace[PATH_MAX];
    pid_t pid, first;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(down_table, "MODE_", "mode down [options]",
                          "Stops what `mode up` started. Finished work stays; running tasks resume from their last "
                          "checkpoint after the next `mode up`.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, down_table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = arguments_check(n_args, 0, argv, NULL, err)) || (st = ranges_check(&o, down_table, ranges, err)))
        return st;
    if (!realpath(o.workspace, workspace))
        return mode_error_prefix(err, mode_input_fail(err, errno, o.workspace, "be opened"), "the workspace");
    if ((st = supervisor_find(&first, workspace, err))) return st;
    if (first && kill(first, SIGTERM) != 0 && errno != ESRCH)
        return MODE_FAIL(err, MODE_E_PERM, "the supervisor %ld cannot be stopped: %s", (long)first, strerror(errno));
    double until = mode_clock_s() + (double)o.timeout_s;
    for (pid = first; pid && !st; st = supervisor_find(&pid, workspace, err)) {
        if (mode_clock_s() > until) {
            kill(pid, SIGKILL);
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    if (!st) st = supervisor_sweep(&n_killed, workspace, err);
    if (!st) printf(first || n_killed ? "down: workspace %s\n" : "nothing runs in %s\n", workspace);
    return st;
}

const struct mode_verb mode_verb_up = {"up", "start Redis, coordinator and workers here", up};
const struct mode_verb mode_verb_down = {"down", "stop them", down};
