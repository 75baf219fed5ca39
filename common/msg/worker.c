/* Options of a worker, its sub-commands, and the dispatch between agent and compute process. */
#include "msg/worker.h"

#include "base/backend_name.h"
#include "base/environment.h"
#include "base/log.h"
#include "base/options.h"
#include "base/process.h"
#include "base/str.h"
#include "base/system_calls.h"
#include "base/version.h"
#include "msg/address.h"
#include "msg/agent.h"
#include "msg/beside.h"
#include "msg/health.h"
#include "msg/join.h"
#include "msg/machines.h"
#include "msg/place.h"
#include "msg/runtime.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct options {
    const char *coordinator, *workspace, *key_dir, *key_name, *server_key, *name, *node, *health_file, *backend,
        *gpu_locks, *team, *team_keys;
    int64_t slots, threads, incarnation, device, gpus, machines;
    double grace, idle_exit;
    bool stay;
};

enum { TRAIN_ONLY = 4 }; /* options at the head of the table for tasks that use several processes */

static const struct mode_option table[] = {
    MODE_OPT_INT(struct options, gpus, "gpus", "1", "N",
                 "GPUs that train one model together, each with a process of its own, where the batch can be divided "
                 "among them; --device N is the first of them"),
    MODE_OPT_INT(struct options, machines, "machines", "1", "N",
                 "machines that train one model together: this one, which leads, and N - 1 that `join` it; tasks are "
                 "requested only while all are connected"),
    MODE_OPT_STR(struct options, team, "team", NULL, "tcp://HOST:PORT",
                 "address of the machine that leads; PORT + 1 is used, too"),
    MODE_OPT_STR(
        struct options, team_keys, "team-keys", NULL, "DIR",
        "keys of the team (`mode keys`): the whole folder on the machine that leads, a worker's keys elsewhere"),
    MODE_OPT_STR(struct options, coordinator, "coordinator", NULL, "ENDPOINT",
                 "ipc:///path or tcp://host:port of its worker port; default: the socket in the workspace"),
    MODE_OPT_STR(struct options, workspace, "workspace", NULL, "DIR",
                 "the artifact store, the same one the coordinator has"),
    MODE_OPT_STR(struct options, key_dir, "key-dir", NULL, "DIR", "folder with this worker's key pair; needed for TCP"),
    MODE_OPT_STR(struct options, key_name, "key-name", "worker", "NAME", "which pair in it: NAME.key, NAME.pub"),
    MODE_OPT_STR(struct options, server_key, "server-key", NULL, "FILE",
                 "the coordinator's public key; default: server.pub in the key folder"),
    MODE_OPT_STR(
        struct options, name, "name", NULL, "NAME",
        "name of this worker; default: service@node/pid, with the host name in between where --node differs from it"),
    MODE_OPT_INT(struct options, incarnation, "incarnation", "0", "N",
                 "for a worker that is restarted under the same --name: a higher number replaces the dead one at once; "
                 "otherwise the dead one keeps its tasks until their lease expires"),
    MODE_OPT_STR(struct options, node, "node", NULL, "NAME", "name of this machine; default: the host name"),
    MODE_OPT_INT(struct options, slots, "slots", "1", "N", "concurrent tasks, each in a process of its own (1 to 64)"),
    MODE_OPT_INT(struct options, threads, "threads", "0", "N", "threads of each; 0 = one per processor"),
    MODE_OPT_BACKEND(struct options, backend, device),
    MODE_OPT_STR(
        struct options, gpu_locks, "gpu-locks", NULL, "DIR",
        "folder on this machine through which the workers of a kind share its GPUs; --device N takes precedence"),
    MODE_OPT_REAL(struct options, grace, "grace", "20", "SECONDS", "time that running tasks get to stop after SIGTERM"),
    MODE_OPT_REAL(struct options, idle_exit, "idle-exit", "0", "SECONDS",
                  "exit after this long without a task; 0 = stay"),
    MODE_OPT_FLAG(struct options, stay, "stay",
                  "after `mode drain` do not exit but wait for SIGTERM, without work and without a connection: for "
                  "workers that would otherwise be restarted"),
    MODE_OPT_STR(struct options, health_file, "health-file", NULL, "FILE",
                 "updated for healthcheck; default: /tmp/mode-SERVICE-UID.health"),
    MODE_OPT_END};

static bool is_for_teams(const char *word)
{
    return strcmp(word, "train") == 0;
}

static const struct mode_option *options_of(const char *word)
{
    return table + (is_for_teams(word) ? 0 : TRAIN_ONLY);
}

static void help(const char *word)
{
    char *usage = mode_xasprintf("mode-%s [healthcheck%s] [options]", word, is_for_teams(word) ? " | join" : "");
    char *prose = mode_xasprintf(
        "A worker for \"%s\" tasks: requests work from the coordinator, does it, and publishes the results in the "
        "workspace. Start as many as you like, anywhere that sees the workspace. SIGTERM and SIGINT stop it: running "
        "tasks are given back and lose only the time since their last checkpoint. `healthcheck` exits 0 while the "
        "worker of this machine that writes the same health file is alive.%s",
        word,
        is_for_teams(word) ? " `join` requests no work: it lends the GPUs of this machine to a worker with --machines "
                             "on another machine, at --team, and stays for its tasks."
                           : "");
    mode_options_help(options_of(word), "MODE_", usage, prose);
    free(prose);
    free(usage);
}

/* Also checked without a visible GPU: the option may be shared with machines that have one. */
static enum mode_status check_gpu_locks(const char *dir, struct mode_error *err)
{
    struct stat s;
    if (stat(dir, &s) != 0)
        return MODE_FAIL(err, errno == EACCES ? MODE_E_PERM : MODE_E_CREATE,
                         "--gpu-locks %s: %s; expected a folder that is there and is the same one for all workers of "
                         "this machine",
                         dir, strerror(errno));
    if (!S_ISDIR(s.st_mode)) return MODE_FAIL(err, MODE_E_CREATE, "--gpu-locks %s: is not a folder", dir);
    if (access(dir, W_OK | X_OK) != 0)
        return MODE_FAIL(err, MODE_E_PERM, "--gpu-locks %s: no files can be made in it: %s", dir, strerror(errno));
    return MODE_OK;
}

static enum mode_status check_team(const struct options *o, bool joins, struct mode_error *err)
{
    const char *what = joins ? "join" : "--machines";
    if (o->machines < 1 || o->machines > MODE_MOST_MACHINES)
        return MODE_FAIL(err, MODE_E_USAGE, "--machines: %lld is out of range, expected 1 to %d",
                         (long long)o->machines, MODE_MOST_MACHINES);
    if (!joins && o->machines == 1) return MODE_OK;
    if (!o->team)
        return MODE_FAIL(err, MODE_E_USAGE, "%s: where do the machines meet? Give --team tcp://HOST:PORT (MODE_TEAM)",
                         what);
    if (!o->team_keys)
        return MODE_FAIL(err, MODE_E_USAGE,
                         "%s: with which keys? Give --team-keys DIR (MODE_TEAM_KEYS); `mode keys` "
                         "makes them",
                         what);
    if (o->slots != 1)
        return MODE_FAIL(err, MODE_E_USAGE, "--slots %lld: machines that train together do one task at a time",
                         (long long)o->slots);
    if (strcmp(o->backend, "auto") != 0 && strncmp(o->backend, "cuda", 4) != 0)
        return MODE_FAIL(err, MODE_E_USAGE, "%s: --backend %s does not run on a GPU", what, o->backend);
    if (mode_team_check(o->team, !joins, err)) return mode_option_wrong(err, "team");
    return MODE_OK;
}

static enum mode_status check(const struct options *o, bool joins, struct mode_error *err)
{
    enum mode_status st = check_team(o, joins, err);
    if (st) return st;
    if (o->coordinator && *o->coordinator && mode_endpoint_check(o->coordinator, false, err))
        return mode_option_wrong(err, "coordinator");
    if (!o->workspace)
        return MODE_FAIL(err, MODE_E_USAGE, "where is the workspace? Give --workspace DIR (MODE_WORKSPACE)");
    if (o->slots < 1 || o->slots > MODE_WIRE_MAX_SLOTS)
        return MODE_FAIL(err, MODE_E_USAGE, "--slots: %lld is out of range, expected 1 to %d", (long long)o->slots,
                         MODE_WIRE_MAX_SLOTS);
    if (o->threads < 0 || o->threads > 1024)
        return MODE_FAIL(err, MODE_E_USAGE, "--threads: %lld is out of range, expected 0 to 1024",
                         (long long)o->threads);
    if (o->gpus < 1 || o->gpus > MODE_MOST_GPUS)
        return MODE_FAIL(err, MODE_E_USAGE, "--gpus: %lld is out of range, expected 1 to %d", (long long)o->gpus,
                         MODE_MOST_GPUS);
    if (o->gpus > 1 && (strcmp(o->backend, "auto") != 0 && strncmp(o->backend, "cuda", 4) != 0))
        return MODE_FAIL(err, MODE_E_USAGE, "--gpus %lld: --backend %s does not run on a GPU", (long long)o->gpus,
                         o->backend);
    if (o->incarnation < 0)
        return MODE_FAIL(err, MODE_E_USAGE, "--incarnation: %lld is out of range, expected 0 or more",
                         (long long)o->incarnation);
    if (!(o->grace >= 0 && o->grace <= 86400))
        return MODE_FAIL(err, MODE_E_USAGE, "--grace: %g is out of range, expected 0 to 86400 seconds", o->grace);
    if (!(o->idle_exit >= 0))
        return MODE_FAIL(err, MODE_E_USAGE, "--idle-exit: %g is out of range, expected 0 or more seconds",
                         o->idle_exit);
    if (o->gpu_locks && (st = check_gpu_locks(o->gpu_locks, err))) return st;
    return mode_check_backend_option(o->backend, err);
}

/* Selects GPUs for this process and its compute processes. gpu [n]: indices; gpu[0] is -1 without a GPU. */
static enum mode_status pick_gpus(int64_t *gpu, int n, const char *word, const struct options *o, const char *backend,
                                  struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (int i = 0; i < n; i++) gpu[i] = o->device + i;
    if (o->device == 0 && o->gpu_locks && strncmp(backend, "cpu", 3) != 0)
        st = mode_process_claim_gpus(gpu, n, o->gpu_locks, word, err);
    if (st || gpu[0] < 0) return st;
    return n == 1 ? mode_process_pick_gpu(gpu[0], err) : mode_process_pick_gpus(gpu, n, err);
}

static int run(const char *word, const char *argv0, bool looks, bool joins, const struct options *o,
               const char *health_file, struct mode_error *err)
{
    char host[128] = "localhost", device[MODE_DEVICE_TEXT] = "";
    sigset_t set;
    struct mode_store *store = NULL;
    struct mode_net *net = NULL;
    struct mode_machines *machines = NULL;
    char *here = NULL;
    gethostname(host, sizeof host - 1);
    const char *node = o->node ? o->node : host;
    const char *backend = o->device > 0 && strcmp(o->backend, "auto") == 0 ? "cuda" : o->backend;
    char *name = o->name ? mode_xstrdup(o->name)
                 : strcmp(node, host) == 0
                     ? mode_xasprintf("%s@%s/%ld", word, node, (long)getpid())
                     : mode_xasprintf("%s@%s/%s/%ld", word, node, host, (long)getpid()); /* tells containers on one
                                                                                            machine apart */
    name[strnlen(name, MODE_WORKER_NAME - 1)] = '\0';
    signal(SIGCHLD, SIG_DFL);   /* child exit statuses are needed */
    for (int i = 0; i < 4; i++) /* batch systems send user signals as a warning; the lease covers what follows */
        signal((int[]){SIGPIPE, SIGUSR1, SIGUSR2, SIGHUP}[i], SIG_IGN);
    setenv("OPENBLAS_NUM_THREADS", "1", 0); /* threads are managed here; inherited by the compute process */
    const int n_gpus = o->gpus > 1 ? (int)o->gpus : 1;
    int64_t gpu[MODE_MOST_GPUS];
    enum mode_status st = pick_gpus(gpu, n_gpus, word, o, backend, err);
    const bool none = n_gpus > 1 && gpu[0] < 0;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (o->machines > 1 && !joins) { /* the leader rereads the allow list */
        sigaddset(&set, SIGHUP);
        signal(SIGHUP, SIG_DFL); /* an ignored signal does not reach the signalfd */
    }
    sigprocmask(SIG_BLOCK, &set, NULL); /* before any thread exists */
    int code, signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (!st && signal_fd < 0) st = MODE_FAIL(err, MODE_E_GENERIC, "no descriptor for signals: %s", strerror(errno));
    if (!st && looks) st = mode_worker_look(device, argv0, backend, none ? 1 : n_gpus, signal_fd, err);
    if (!st) st = mode_store_open(&store, o->workspace, err);
    if (!st && !joins && !(o->coordinator && *o->coordinator))
        st = mode_place_endpoint(&here, o->workspace, "worker.sock", err);
    if (!st) st = mode_net_open(&net, err);
    if (!st && joins && none) st = MODE_FAIL(err, MODE_E_DEVICE, "join: no GPU is visible on this machine");
    const struct mode_machines_config team = {.endpoint = o->team,
                                              .key_dir = o->team_keys,
                                              .word = word,
                                              .store_id = st ? NULL : mode_store_id(store),
                                              .workspace = st ? NULL : mode_store_root(store),
                                              .n = (int)o->machines,
                                              .gpus = none ? 1 : n_gpus};
    if (!st && !joins && o->machines > 1) st = mode_machines_open(&machines, net, &team, err);
    if (st) {
        mode_log_failure("fatal", err);
        code = mode_status_exit_code(st);
    } else if (joins) {
        const struct mode_join_config config = {.word = word,
                                                .name = o->name ? name : node,
                                                .leader = {.endpoint = o->team,
                                                           .wire = MODE_WIRE_WORKER,
                                                           .key_dir = o->team_keys,
                                                           .key_name = o->key_name,
                                                           .server = "the leader"},
                                                .device = device,
                                                .gpus = n_gpus,
                                                .threads = (int)o->threads,
                                                .grace_s = o->grace,
                                                .health_file = health_file,
                                                .signal_fd = signal_fd};
        code = mode_join_run(&config, store, net);
    } else {
        struct mode_agent_config config = {.word = word,
                                           .argv0 = argv0,
                                           .workspace = o->workspace,
                                           .name = name,
                                           .node = node,
                                           .coordinator = {.endpoint = here ? here : o->coordinator,
                                                           .wire = MODE_WIRE_WORKER,
                                                           .key_dir = o->key_dir,
                                                           .key_name = o->key_name,
                                                           .server_pub = o->server_key},
                                           .incarnation = (uint64_t)o->incarnation,
                                           .slots = (int)o->slots,
                                           .threads = (int)o->threads,
                                           .backend = backend,
                                           .device = device,
                                           .gpus = none ? 1 : n_gpus,
                                           .machines = machines,
                                           .grace_s = o->grace,
                                           .idle_exit_s = o->idle_exit,
                                           .stay = o->stay,
                                           .health_file = health_file,
                                           .signal_fd = signal_fd};
        if ((o->gpu_locks || n_gpus > 1) && gpu[0] >= 0)
            mode_log_info("gpu", "CUDA_VISIBLE_DEVICES=%s gpus=%d", getenv("CUDA_VISIBLE_DEVICES"), n_gpus);
        if (none) mode_log_warn("fewer_gpus", "--gpus %d: no GPU is visible on this machine", n_gpus);
        code = mode_agent_run(&config, store, net);
    }
    mode_machines_close(&machines);
    mode_net_close(&net);
    mode_store_close(&store);
    if (signal_fd >= 0) close(signal_fd);
    free(here);
    free(name);
    return code;
}

enum mode_status mode_worker_check_environment(const char *word, int64_t gpus, struct mode_error *err)
{
    struct options o = {.gpus = 1, .machines = 1}; /* defaults for services without these options */
    int n_args;
    enum mode_status st = mode_options_parse(&o, options_of(word), "MODE_", 0, NULL, &n_args, err);
    o.workspace = ".";
    o.coordinator = o.gpu_locks = NULL;
    o.gpus = gpus;
    return st ? st : check(&o, false, err);
}

int mode_worker_main(const char *word, mode_work_fn *work, mode_look_fn *look, int argc, char **argv)
{
    struct options o = {.gpus = 1, .machines = 1}; /* defaults for services without these options */
    struct mode_error err = {0};
    int n_args = 0;
    if (argc > 1 && strcmp(argv[1], MODE_COMPUTE_FLAG) == 0) return mode_compute_main(word, work, argc, argv);
    if (argc > 1 && strcmp(argv[1], MODE_BESIDE_FLAG) == 0) return mode_beside_main(word, work, argc, argv);
    if (look && argc > 1 && strcmp(argv[1], MODE_LOOK_FLAG) == 0) return mode_look_main(word, look, argc, argv);
    mode_log_open(word);
    if (mode_options_wants_help(argc, argv)) {
        help(word);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("mode-%s %s\n", word, mode_version);
        return 0;
    }
    enum mode_status st = mode_options_parse(&o, options_of(word), "MODE_", argc, argv, &n_args, &err);
    const bool health = !st && n_args == 1 && strcmp(argv[1], "healthcheck") == 0,
               joins = !st && n_args == 1 && strcmp(argv[1], "join") == 0 && is_for_teams(word);
    if (!st && n_args > 0 && !health && !joins)
        st = MODE_FAIL(&err, MODE_E_USAGE, "\"%s\" is not a sub-command; --help explains", argv[1]);
    if (!st) st = mode_environment_check(&err);
    if (!st && !health && !mode_system_calls_can_lock())
        mode_log_warn("no_lock", "this system allows no seccomp filter: pictures are decoded in processes that are not "
                                 "locked, and .pt files are not read");
    if (!st && !health) st = mode_options_blame(check(&o, joins, &err), &err, "MODE_", argc, argv);
    if (st) {
        fprintf(stderr, "mode-%s: %s\n", word, err.text);
        return mode_status_exit_code(st);
    }
    char *health_file = o.health_file ? mode_xstrdup(o.health_file)
                                      : mode_xasprintf("/tmp/mode-%s-%ld.health", word, (long)getuid());
    int code = health ? mode_health_check(health_file) : run(word, argv[0], look != NULL, joins, &o, health_file, &err);
    free(health_file);
    return code;
}
