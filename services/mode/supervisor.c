#include "supervisor.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/options.h"
#include "base/str.h"
#include "logs.h"
#include "msg/place.h"
#include "running.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGS    32
#define PAUSE_MIN_S 0.2
#define PAUSE_MAX_S 10.0
#define STEADY_S    30.0 /* after this uptime the next death counts as the first */
#define GRACE_S     20.0 /* between SIGTERM and SIGKILL */
#define LOGS_S      60.0 /* how often log sizes are checked */
#define LOG_BYTES                                                                                                      \
    ((uint64_t)32 << 20) /* of a log, and of the previous one; supervisor_last_line reads twice
                                              that */
#define DAMAGED_AFTER 4  /* quick deaths of Redis in a row before its data is put aside */

struct child {
    char *name, *log, *pid_file;
    char *argv[MAX_ARGS];
    pid_t pid; /* 0 = not running */
    double started_s, start_at_s, pause_s;
    int deaths; /* quick ones in a row */
    unsigned starts;
    int64_t incarnation; /* of the latest start: always increasing, also across supervisors */
};

struct supervisor {
    const struct supervisor_options *o;
    char *place; /* folder of sockets and pid files */
    struct child *child;
    size_t n;
    bool stopping;
    const struct child *hopeless; /* a child whose exit code says that restarting it is pointless */
    enum mode_status why;
};

static struct child *add_child(struct supervisor *s, char *name)
{
    s->child = mode_xrealloc(s->child, (s->n + 1) * sizeof *s->child);
    struct child *c = &s->child[s->n++];
    *c = (struct child){.name = name,
                        .log = mode_xasprintf("%s/logs/%s.log", s->o->workspace, name),
                        .pid_file = mode_xasprintf("%s/%s.pid", s->place, name)};
    return c;
}

static void add_arg(struct child *c, char *arg)
{
    int n = 0;
    while (c->argv[n]) n++;
    MODE_ASSERT(n < MAX_ARGS - 1);
    c->argv[n] = arg;
}

static const char *const kinds[] = {"captions", "embed", "cluster", "assign", "train", "evaluate", "ensemble", NULL};

const char *supervisor_kind(int i)
{
    return kinds[i];
}

/* Calls add (when given) for each worker of "captions=2,embed=1". */
static enum mode_status each_worker(const char *workers, void (*add)(struct supervisor *, const char *, int),
                                    struct supervisor *s, int *n, struct mode_error *err)
{
    char *text = mode_xstrdup(workers), *save = NULL;
    bool seen[sizeof kinds / sizeof *kinds] = {0};
    enum mode_status st = MODE_OK;
    *n = 0;
    for (char *part = strtok_r(text, ",", &save); part && !st; part = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(part, '=');
        int64_t count = 1;
        int k = 0;
        if (equals) {
            *equals = 0;
            if (mode_parse_int(equals + 1, "--workers", 0, 256, &count, err)) st = err->status = MODE_E_USAGE;
        }
        while (kinds[k] && strcmp(kinds[k], part) != 0) k++;
        if (!st && !kinds[k])
            st = MODE_FAIL(err, MODE_E_USAGE,
                           "--workers: \"%s\" is not a kind of worker; there are captions, embed, cluster, assign, "
                           "train, evaluate and ensemble",
                           part);
        if (!st && seen[k])
            st = MODE_FAIL(err, MODE_E_USAGE, "--workers: %s is given twice; expected one number for each kind", part);
        seen[k] = true;
        for (int i = 0; !st && i < count; i++, ++*n)
            if (add) add(s, kinds[k], i);
    }
    free(text);
    return st;
}

enum mode_status supervisor_count_workers(int *n, const char *workers, struct mode_error *err)
{
    return each_worker(workers, NULL, NULL, n, err);
}

static void add_worker(struct supervisor *s, const char *kind, int i)
{
    struct child *c = add_child(s, i ? mode_xasprintf("%s-%d", kind, i + 1) : mode_xstrdup(kind));
    add_arg(c, mode_xasprintf("%s/mode-%s", s->o->bin, kind));
    add_arg(c, mode_xasprintf("--workspace=%s", s->o->workspace)); /* identifies the workspace in ps */
    char host[128] = "localhost";
    gethostname(host, sizeof host - 1);
    add_arg(c, mode_xasprintf("--name=%s@%s", c->name, host)); /* the same after every restart */
    add_arg(c, mode_xasprintf("--gpu-locks=%s", s->place));
    if (strcmp(kind, "train") == 0) add_arg(c, mode_xasprintf("--gpus=%d", s->o->gpus));
}

static void add_redis(struct supervisor *s)
{
    struct child *c = add_child(s, mode_xstrdup("redis"));
    char *sock = mode_path_join(s->place, "redis.sock"), *dir = mode_path_join(s->o->workspace, "redis");
    const char *const args[] = {"redis-server",
                                "--port",
                                "0",
                                "--unixsocket",
                                sock,
                                "--unixsocketperm",
                                "700",
                                "--dir",
                                dir,
                                "--appendonly",
                                "yes",
                                "--appendfsync",
                                "everysec",
                                "--maxmemory",
                                "256mb",
                                "--maxmemory-policy",
                                "noeviction",
                                "--databases",
                                "1",
                                "--daemonize",
                                "no"};
    for (size_t i = 0; i < sizeof args / sizeof args[0]; i++) add_arg(c, mode_xstrdup(args[i]));
    add_arg(c, mode_xstrdup("--save"));
    add_arg(c, mode_xstrdup(""));
    free(sock);
    free(dir);
}

/* ---------------------------------------------------------------------------------------------- children */

static const int own_signals[] = {SIGTERM, SIGINT, SIGCHLD, SIGHUP};

static void start(struct supervisor *s, struct child *c)
{
    pid_t parent = getpid();
    sigset_t all, before;
    c->started_s = mode_clock_s();
    c->starts++;
    int64_t wall = mode_clock_wall_ms();
    c->incarnation = wall > c->incarnation ? wall : c->incarnation + 1;
    sigfillset(&all); /* a SIGTERM between fork and exec must end the child, not run our handler in it */
    sigprocmask(SIG_SETMASK, &all, &before);
    if ((c->pid = fork()) == 0)
        for (size_t i = 0; i < sizeof own_signals / sizeof *own_signals; i++) signal(own_signals[i], SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (c->pid < 0) {
        c->pid = 0;
        c->start_at_s = mode_clock_s() + PAUSE_MAX_S;
        mode_log_error("fork", "%s cannot be started: %s", c->name, strerror(errno));
        return;
    }
    if (c->pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) _exit(1);
        char *health = mode_xasprintf("%s/%s.health", s->place, c->name);
        setenv("MODE_HEALTH_FILE", health, 1);
        char *incarnation = mode_xasprintf("%lld", (long long)c->incarnation);
        setenv("MODE_INCARNATION", incarnation, 1);
        int log = open(c->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644),
            null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (log < 0 || null < 0) _exit(73);
        dup2(null, 0);
        dup2(log, 1);
        dup2(log, 2);
        execvp(c->argv[0], c->argv);
        dprintf(2, "cannot run %s: %s\n", c->argv[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    setpgid(c->pid, c->pid);
    char text[32];
    struct mode_error err = {0};
    int n = snprintf(text, sizeof text, "%ld\n", (long)c->pid);
    if (mode_file_write_atomic(c->pid_file, text, (size_t)n, &err)) mode_log_failure("pid_file", &err);
    mode_log_info("started", "name=%s pid=%ld", c->name, (long)c->pid);
}

/* Redis that dies at every start has damaged data, which is only an index: moves it aside, logs that, and lets it be
 * rebuilt. */
static void put_redis_aside(struct supervisor *s)
{
    char *dir = mode_path_join(s->o->workspace, "redis");
    char *aside = mode_xasprintf("%s/redis.damaged-%lld", s->o->workspace, (long long)mode_clock_wall_ms() / 1000);
    if (rename(dir, aside) == 0)
        mode_log_warn("redis_damaged", "Redis died %d times at its start; its data were moved to %s and are rebuilt",
                      DAMAGED_AFTER, aside);
    free(dir);
    free(aside);
}

/* The folder may have been removed, and Redis would never start again. */
static void make_redis_folder(struct supervisor *s)
{
    char *dir = mode_path_join(s->o->workspace, "redis");
    struct mode_error err = {0};
    if (mode_dir_make(dir, &err)) mode_log_failure("redis_folder", &err);
    free(dir);
}

static void died(struct supervisor *s, struct child *c, int status)
{
    double now = mode_clock_s();
    bool steady = now - c->started_s >= STEADY_S;
    pid_t pid = c->pid;
    c->pid = 0;
    unlink(c->pid_file);
    kill(-pid, SIGKILL); /* remaining processes of its group */
    if (s->stopping) return;
    c->deaths = steady ? 1 : c->deaths + 1;
    c->pause_s = c->deaths == 1 ? 0 : c->pause_s * 2;
    if (c->deaths > 1 && c->pause_s < PAUSE_MIN_S) c->pause_s = PAUSE_MIN_S;
    if (c->pause_s > PAUSE_MAX_S) c->pause_s = PAUSE_MAX_S;
    c->start_at_s = now + c->pause_s;
    if (WIFSIGNALED(status))
        mode_log_warn("died", "name=%s pid=%ld signal=%d again_in=%.1fs", c->name, (long)pid, WTERMSIG(status),
                      c->pause_s);
    else
        mode_log_warn("died", "name=%s pid=%ld exit=%d again_in=%.1fs (its log: %s)", c->name, (long)pid,
                      WEXITSTATUS(status), c->pause_s, c->log);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    if (c->starts == 1 &&
        (code == mode_status_exit_code(MODE_E_CONFIG) || code == mode_status_exit_code(MODE_E_DEVICE))) {
        s->hopeless = c;
        s->why = code == mode_status_exit_code(MODE_E_CONFIG) ? MODE_E_CONFIG : MODE_E_DEVICE;
    }
    if (strcmp(c->name, "redis") != 0) return;
    if (!WIFSIGNALED(status) && c->deaths == DAMAGED_AFTER) put_redis_aside(s);
    make_redis_folder(s);
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < s->n; i++)
            if (s->child[i].pid == pid) died(s, &s->child[i], status);
}

static bool is_kind(const struct child *c, int phase)
{
    bool redis = strcmp(c->name, "redis") == 0, coordinator = strcmp(c->name, "coordinator") == 0;
    return phase == 0 ? !redis && !coordinator : phase == 1 ? coordinator : redis;
}

/* Workers first, so that they can give back their tasks; Redis last, so that this is recorded. */
static void stop_all(struct supervisor *s)
{
    s->stopping = true;
    for (int phase = 0; phase < 3; phase++) {
        double until = mode_clock_s() + GRACE_S;
        bool alive = false;
        for (size_t i = 0; i < s->n; i++)
            if (s->child[i].pid && is_kind(&s->child[i], phase)) {
                kill(s->child[i].pid, SIGTERM);
                alive = true;
            }
        while (alive) {
            alive = false;
            reap(s);
            for (size_t i = 0; i < s->n; i++)
                if (s->child[i].pid && is_kind(&s->child[i], phase)) {
                    alive = true;
                    if (mode_clock_s() > until) {
                        mode_log_warn("killed", "name=%s did not stop in %.0f s", s->child[i].name, GRACE_S);
                        kill(-s->child[i].pid, SIGKILL);
                    }
                }
            if (alive) usleep(20000);
        }
    }
}

/* ---------------------------------------------------------------------------------------------- life */

/* The message of a log line, without timestamp, level and other prefixes. */
static const char *sentence_of(const char *line)
{
    const char *at = strstr(line, " status=E_"), *place = at ? strstr(at, " at=") : NULL;
    const char *end = place ? strchr(place + 1, ' ') : NULL;
    return end ? end + 1 : line;
}

void supervisor_last_line(char *out, size_t n, const char *workspace, const char *name)
{
    char *path = mode_xasprintf("%s/logs/%s.log", workspace, name), *text = NULL;
    struct mode_error ignored;
    size_t size;
    out[0] = 0;
    if (!mode_file_read(path, 64u << 20, &text, &size, &ignored) && size) {
        while (size && (text[size - 1] == '\n' || text[size - 1] == ' ')) text[--size] = 0;
        const char *line = strrchr(text, '\n');
        snprintf(out, n, "%s", sentence_of(line ? line + 1 : text));
    }
    free(text);
    free(path);
}

enum { LOOKS = 50, LOOK_MS = 20 };

static enum mode_status lock_pid_file(int *fd, const char *path, struct mode_error *err)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0) return MODE_FAIL(err, MODE_E_CREATE, "%s: %s", path, strerror(errno));
    enum mode_status st = mode_file_lock(*fd, LOCK_EX, path, err);
    for (int i = 0; i < LOOKS && st == MODE_E_TEMP; i++) { /* a process that checks for a supervisor also holds the
                                                              lock for a moment */
        usleep(1000 * LOOK_MS);
        st = mode_file_lock(*fd, LOCK_EX, path, err);
    }
    if (!st) return MODE_OK;
    close(*fd);
    *fd = -1;
    return st == MODE_E_TEMP ? MODE_FAIL(err, st, "%s is locked: it is already running", path) : st;
}

enum mode_status supervisor_find(pid_t *pid, const char *workspace, struct mode_error *err)
{
    char *path = NULL, text[32] = {0};
    int fd;
    *pid = 0;
    enum mode_status st = mode_place_path(&path, workspace, "supervisor.pid", err);
    if (st) return st;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        st = mode_file_lock(fd, LOCK_SH, path, err);
        if (st == MODE_E_TEMP) {
            ssize_t n = read(fd, text, sizeof text - 1);
            *pid = n > 0 ? (pid_t)atol(text) : -1;
            st = *pid > 0 ? MODE_OK
                          : MODE_FAIL(err, MODE_E_TEMP, "%s is locked but names no process yet; try again", path);
        }
        close(fd);
    }
    free(path);
    return st;
}

/* Whether the process is ours: its pid may have been reused. */
static bool is_ours(pid_t pid, const char *workspace)
{
    char path[64], *want = mode_xasprintf("MODE_SUPERVISED=%s", workspace), text[65536];
    bool ours = false;
    snprintf(path, sizeof path, "/proc/%ld/environ", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    for (char *at = text; n > 0 && at < text + n; at += strlen(at) + 1)
        if (strcmp(at, want) == 0) ours = true;
    free(want);
    return ours;
}

static enum mode_status sweep(int *n_killed, const char *workspace, struct mode_error *err)
{
    char *place = NULL;
    *n_killed = 0;
    enum mode_status st = mode_place_path(&place, workspace, "", err);
    if (st) return st;
    DIR *d = opendir(place);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        size_t n = strlen(e->d_name);
        if (strstr(e->d_name, ".sock") || strstr(e->d_name, ".health")) { /* their owners are gone */
            char *sock = mode_path_join(place, e->d_name);
            unlink(sock);
            free(sock);
        }
        if (n < 5 || strcmp(e->d_name + n - 4, ".pid") != 0 || strcmp(e->d_name, "supervisor.pid") == 0) continue;
        char *path = mode_path_join(place, e->d_name), *text = NULL;
        size_t size;
        struct mode_error ignored;
        if (!mode_file_read(path, 64, &text, &size, &ignored)) {
            pid_t pid = (pid_t)atol(text);
            if (pid > 1 && is_ours(pid, workspace)) {
                kill(-pid, SIGTERM);
                for (int i = 0; i < 250 && kill(pid, 0) == 0; i++) usleep(20000);
                kill(-pid, SIGKILL);
                ++*n_killed;
            }
            unlink(path);
        }
        free(text);
        free(path);
    }
    if (d) closedir(d);
    free(place);
    return MODE_OK;
}

enum mode_status supervisor_sweep(int *n_killed, const char *workspace, struct mode_error *err)
{
    char *path = NULL;
    int lock = -1;
    *n_killed = 0;
    enum mode_status st = mode_place_path(&path, workspace, "supervisor.pid", err);
    if (st) return st;
    if (access(path, F_OK) == 0)
        st = lock_pid_file(&lock, path, err); /* processes of a new supervisor are not
                                                                          leftovers */
    if (!st) st = sweep(n_killed, workspace, err);
    if (lock >= 0) close(lock);
    free(path);
    return st;
}

static enum mode_status prepare(struct supervisor *s, struct mode_error *err)
{
    const struct supervisor_options *o = s->o;
    char *logs = mode_path_join(o->workspace, "logs"), *redis = mode_path_join(o->workspace, "redis"), *endpoint = NULL;
    int n;
    enum mode_status st = mode_dir_make(logs, err);
    if (!st && !o->redis_url) st = mode_dir_make(redis, err);
    if (!st) st = mode_place_path(&s->place, o->workspace, "", err);
    if (!st) st = mode_place_endpoint(&endpoint, o->workspace, "worker.sock", err);
    free(logs);
    free(redis);
    if (st) goto out;
    s->place[strlen(s->place) - (s->place[strlen(s->place) - 1] == '/')] = 0;
    setenv("MODE_WORKSPACE", o->workspace, 1);
    setenv("MODE_COORDINATOR", endpoint, 1);
    setenv("MODE_SUPERVISED", o->workspace, 1);
    setenv("MODE_SUPERVISED_WORKERS", o->workers, 1); /* for the coordinator, to report missing workers */
    unsetenv("MODE_WORKER_ENDPOINT");                 /* private sockets, whatever the caller's environment says */
    unsetenv("MODE_ADMIN_ENDPOINT");
    unsetenv("MODE_KEY_DIR");
    unsetenv("MODE_ALLOW_LIST");
    unsetenv("MODE_REDIS"); /* REDIS_URL passes on the choice */
    if (o->redis_url)
        setenv("REDIS_URL", o->redis_url, 1);
    else
        unsetenv("REDIS_URL");
    if (!o->redis_url) add_redis(s);
    struct child *c = add_child(s, mode_xstrdup("coordinator"));
    add_arg(c, mode_xasprintf("%s/mode-coordinator", o->bin));
    add_arg(c, mode_xasprintf("--workspace=%s", o->workspace));
    add_arg(c, mode_xasprintf("--http=%s", o->http));
    st = each_worker(o->workers, add_worker, s, &n, err);
out:
    free(endpoint);
    return st;
}

static void clear(struct supervisor *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->child[i].name);
        free(s->child[i].log);
        free(s->child[i].pid_file);
        for (int a = 0; s->child[i].argv[a]; a++) free(s->child[i].argv[a]);
    }
    free(s->child);
    free(s->place);
}

/* Handlers, not a signal mask: threads made by libraries would not have the mask. */
static volatile sig_atomic_t wake_fd = -1, stop_asked;

static void on_signal(int sig)
{
    uint64_t one = 1;
    int saved = errno;
    if (sig != SIGCHLD) stop_asked = 1;
    if (write(wake_fd, &one, sizeof one) < 0) errno = saved; /* full: it wakes up anyway */
    errno = saved;
}

enum mode_status supervisor_run(const struct supervisor_options *o, struct mode_error *err)
{
    struct supervisor s = {.o = o};
    char *pid_path = NULL;
    int lock = -1, wakes = -1, n_killed;
    double logs_at_s = 0;
    enum mode_status st = mode_place_make(o->workspace, err);
    if (!st) st = mode_place_path(&pid_path, o->workspace, "supervisor.pid", err);
    if (!st) st = lock_pid_file(&lock, pid_path, err);
    if (!st) st = sweep(&n_killed, o->workspace, err); /* leftovers of a killed supervisor */
    if (!st) st = prepare(&s, err);
    if (st) goto out;
    if ((st = running_say(lock, getpid(), o, pid_path, err))) goto out;
    if ((wakes = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        st = MODE_FAIL(err, MODE_E_IO, "eventfd: %s", strerror(errno));
        goto out;
    }
    wake_fd = wakes;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGCHLD, &action, NULL);
    signal(SIGHUP, SIG_IGN);
    char *logs = mode_path_join(o->workspace, "logs");
    while (!stop_asked && !s.hopeless) {
        double now = mode_clock_s(), next = now + LOGS_S;
        if (now >= logs_at_s) {
            logs_at_s = now + LOGS_S;
            logs_rotate(logs, LOG_BYTES);
        }
        for (size_t i = 0; i < s.n; i++) {
            struct child *c = &s.child[i];
            if (!c->pid && now >= c->start_at_s) start(&s, c);
            if (!c->pid && c->start_at_s < next) next = c->start_at_s;
        }
        struct pollfd p = {.fd = wakes, .events = POLLIN};
        poll(&p, 1, next > now ? (int)((next - now) * 1000) + 1 : 0);
        uint64_t n_wakes;
        if (read(wakes, &n_wakes, sizeof n_wakes) < 0 && errno != EAGAIN && errno != EINTR) stop_asked = 1;
        reap(&s);
    }
    free(logs);
    mode_log_info("stopping", "children=%zu", s.n);
    stop_all(&s);
    mode_log_info("stopped", "workspace=%s", o->workspace);
    if (s.hopeless && !stop_asked) {
        char line[400];
        supervisor_last_line(line, sizeof line, o->workspace, s.hopeless->name);
        st = MODE_FAIL(err, s.why, "%s cannot be started like this: %s", s.hopeless->name, line);
    }
out:
    wake_fd = -1;
    if (wakes >= 0) close(wakes);
    clear(&s);
    if (lock >= 0) {
        unlink(pid_path);
        close(lock);
    }
    free(pid_path);
    return st;
}
