#include "base/clock.h"
#include "base/str.h"
#include "remote/ask.h"
#include "remote/aws_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { MOST_SECONDS = 60, MOST_SAID = 1 << 18, SLICE_MS = 50, END_MS = 2 };

/* Splits a command into words like a shell: spaces, quotes, backslashes, nothing else. NULL: unterminated quote. The
 * words point into *text; the caller frees both. */
static char **cut(char **text, const char *command)
{
    char *to = *text = mode_xmalloc(strlen(command) + 1), **word = mode_xcalloc(strlen(command) / 2 + 2, sizeof *word);
    size_t n = 0;
    char quote = '\0';
    bool inside = false;
    for (const char *c = command; *c; c++) {
        const bool blank = !quote && strchr(" \t\r\n", *c) != NULL;
        if (blank) {
            if (inside) *to++ = '\0';
            inside = false;
            continue;
        }
        if (!inside) word[n++] = to;
        inside = true;
        if (quote ? *c == quote : *c == '\'' || *c == '"')
            quote = quote ? '\0' : *c;
        else if (*c == '\\' && c[1] && (!quote || (quote == '"' && (c[1] == '"' || c[1] == '\\'))))
            *to++ = *++c;
        else
            *to++ = *c;
    }
    *to = '\0';
    if (!quote && n) return word;
    free(word);
    return NULL;
}

struct child {
    pid_t pid;
    int out[2], said[2]; /* pipes of its stdout and stderr: read end, write end */
};

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Returns errno of a failure, or 0. A process group of its own, so that its children are killed with it. */
static int start(struct child *c, char **word)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, usual;
    c->out[0] = c->out[1] = c->said[0] = c->said[1] = -1;
    if (pipe2(c->out, O_CLOEXEC) != 0 || pipe2(c->said, O_CLOEXEC) != 0) return errno;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGINT);
    sigaddset(&usual, SIGTERM);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, c->out[1], 1);
    posix_spawn_file_actions_adddup2(&files, c->said[1], 2);
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&how, 0);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &usual);
    const int failed = posix_spawnp(&c->pid, word[0], &files, &how, word, environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    close_fd(&c->out[1]);
    close_fd(&c->said[1]);
    return failed;
}

/* False: too much output. Closes fd at the end of file. */
static bool take(int *fd, struct mode_str *to)
{
    char piece[4096];
    const ssize_t n = read(*fd, piece, sizeof piece);
    if (n > 0 && to->len + (size_t)n <= MOST_SAID) {
        mode_str_add(to, piece, (size_t)n);
        explicit_bzero(piece, sizeof piece);
        return true;
    }
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    close_fd(fd);
    return n <= 0;
}

static bool has_ended(const struct child *c, int *status)
{
    const pid_t pid = waitpid(c->pid, status, WNOHANG);
    return pid == c->pid || (pid < 0 && errno != EINTR);
}

/* Reads until both outputs end, then waits for the process, which may outlive them. */
static enum mode_status listen_to(struct child *c, struct mode_str *out, struct mode_str *said, int *status,
                                  const char *shown, const struct mode_remote_watch *w, struct mode_error *err)
{
    const double until = mode_clock_s() + MOST_SECONDS;
    for (bool open = true; open || !has_ended(c, status); open = c->out[0] >= 0 || c->said[0] >= 0) {
        struct pollfd p[2] = {{.fd = c->out[0], .events = POLLIN}, {.fd = c->said[0], .events = POLLIN}};
        enum mode_status st = MODE_OK;
        if (!mode_remote_going(w, 0, 0))
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while it ran", shown);
        else if (mode_clock_s() > until)
            st = MODE_FAIL(err, MODE_E_PEER, "%s: did not end within %d s", shown, MOST_SECONDS);
        else {
            poll(p, 2, open ? SLICE_MS : END_MS);
            if ((p[0].revents && !take(&c->out[0], out)) || (p[1].revents && !take(&c->said[0], said)))
                st = MODE_FAIL(err, MODE_E_FORMAT, "%s: writes more than %d bytes", shown, MOST_SAID);
        }
        if (!st) continue;
        kill(-c->pid, SIGKILL);
        while (waitpid(c->pid, status, 0) < 0 && errno == EINTR) continue;
        return st;
    }
    return MODE_OK;
}

/* The last line of its stderr gives the reason. */
static enum mode_status failed(const char *shown, int status, const struct mode_str *said, struct mode_error *err)
{
    size_t n = said->len, from;
    while (n && strchr(" \t\r\n", said->data[n - 1])) n--;
    for (from = n; from && said->data[from - 1] != '\n';) from--;
    char *why = n ? mode__said(said->data + from, n - from) : mode_xstrdup("");
    enum mode_status st = MODE_FAIL(
        err, MODE_E_PERM, "%s: %s %d%s%s", shown, WIFSIGNALED(status) ? "was ended by signal" : "exit",
        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), *why ? "; it says " : "", why);
    free(why);
    return st;
}

static enum mode_status keys_of(struct mode__aws_keys *k, const struct mode_str *out, const char *shown,
                                struct mode_error *err)
{
    json_t *o = out->data ? json_loadb(out->data, out->len, 0, NULL) : NULL, *version = json_object_get(o, "Version");
    const bool right = json_integer_value(version) == 1, given = version != NULL, object = json_is_object(o);
    json_decref(o);
    if (object && !right)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: its output %s; expected \"Version\": 1", shown,
                         given ? "is of another version" : "has no Version");
    return mode__aws_keys_of_json(k, out->data ? out->data : "", out->len, "SessionToken", shown, err);
}

enum mode_status mode__aws_of_process(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                      const struct mode_remote_watch *w, struct mode_error *err)
{
    struct mode_str out = {0}, said = {0};
    struct child c;
    char *text, **word = cut(&text, s->command);
    int why, status = 0;
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    enum mode_status st = MODE_OK;
    if (!word) {
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: is not a command, or a quote in it is not closed", s->shown);
        goto out;
    }
    why = start(&c, word);
    if (why)
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: %.200s cannot be started: %s", s->shown, word[0], strerror(why));
    else {
        st = listen_to(&c, &out, &said, &status, s->shown, w, err);
        if (!st) st = status ? failed(s->shown, status, &said, err) : keys_of(k, &out, s->shown, err);
    }
    for (int i = 0; i < 2; i++) {
        close_fd(&c.out[i]);
        close_fd(&c.said[i]);
    }
out:
    if (out.data) explicit_bzero(out.data, out.cap);
    mode_str_clear(&out);
    mode_str_clear(&said);
    free(word);
    free(text);
    return st;
}
