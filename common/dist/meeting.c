#include "dist/meeting.h"

#include "base/clock.h"
#include "base/path.h"
#include "base/str.h"
#include "dist/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { SLICE_MS = 50 /* of polling */, HELLO_S = 5 /* timeout of a hello */, TURN_S = 5 /* of the folder's lock */ };

static const char MAGIC[8] = "MODEmeet";

struct hello {
    char magic[8];
    uint8_t secret[MODE_MEETING_SECRET]; /* zeros: none */
    int32_t rank, size;
};

struct answer {
    int32_t status;
    char text[252];
};

static enum mode_status gone(const struct mode_meeting *m, int rank, struct mode_error *err)
{
    return MODE_FAIL(err, MODE_E_PEER,
                     "process %d of %d has ended, so process %d cannot go on. HINT: its own message says why; --resume "
                     "goes on from the last checkpoint",
                     rank, m->size, m->rank);
}

static bool send_all(int fd, const void *data, size_t bytes)
{
    const char *p = data;
    while (bytes) {
        ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool recv_all(int fd, void *data, size_t bytes)
{
    char *p = data;
    while (bytes) {
        ssize_t n = recv(fd, p, bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

struct place { /* one address, of either kind */
    struct sockaddr_storage addr;
    socklen_t len;
    bool is_path;
};

static enum mode_status find_place(struct place *p, const struct mode_meeting_options *o, struct mode_error *err)
{
    const char *colon = strrchr(o->place, ':');
    *p = (struct place){.is_path = strchr(o->place, '/') != NULL};
    if (p->is_path) {
        struct sockaddr_un *un = (struct sockaddr_un *)&p->addr;
        un->sun_family = AF_UNIX;
        if (strlen(o->place) >= sizeof un->sun_path)
            return MODE_FAIL(err, MODE_E_VALUE, "the meeting place %s is too long for a socket file, at most %zu bytes",
                             o->place, sizeof un->sun_path - 1);
        strcpy(un->sun_path, o->place);
        p->len = sizeof *un;
        return MODE_OK;
    }
    if (!colon || colon == o->place || !colon[1])
        return MODE_FAIL(
            err, MODE_E_VALUE,
            "the meeting place \"%s\" is neither a path (with a '/') nor host:port, the same for all processes",
            o->place);
    char *host = mode_xasprintf("%.*s", (int)(colon - o->place), o->place);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = o->rank == 0 ? AI_PASSIVE : 0}, *found = NULL;
    int rc = getaddrinfo(host, colon + 1, &hints, &found);
    free(host);
    if (rc)
        return MODE_FAIL(err, MODE_E_VALUE, "the meeting place \"%s\" cannot be resolved: %s", o->place,
                         gai_strerror(rc));
    memcpy(&p->addr, found->ai_addr, found->ai_addrlen);
    p->len = found->ai_addrlen;
    freeaddrinfo(found);
    return MODE_OK;
}

static int new_socket(const struct place *p)
{
    return socket(p->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* TCP keepalive detects a machine that disappears without closing its connections. */
static void keep_alive(int fd, const struct place *p)
{
    int on = 1, idle = 10, every = 5, count = 3;
    if (p->is_path) return;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Does a process listen there? EAGAIN: yes, its backlog is full. */
static bool is_alive(const struct place *p)
{
    int fd = socket(p->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool yes = fd >= 0 && (connect(fd, (const struct sockaddr *)&p->addr, p->len) == 0 || errno == EAGAIN);
    if (fd >= 0) close(fd);
    return yes;
}

/* Between bind and listen a socket file refuses connections, exactly as a stale one does. So a lock on the folder
 * serialises bind and listen in it: then a file that refuses connections is stale. Returns the lock's descriptor; -1:
 * the folder cannot be locked, or another program keeps it locked. */
static int lock_folder(const char *path)
{
    char *folder = mode_path_folder(path);
    const double until = mode_clock_s() + TURN_S;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (mode_clock_s() < until && (errno == EWOULDBLOCK || errno == EINTR)) {
            (void)poll(NULL, 0, SLICE_MS);
            continue;
        }
        close(fd);
        fd = -1;
    }
    return fd;
}

static enum mode_status listen_at(int *fd, struct mode_meeting *m, const struct place *p,
                                  const struct mode_meeting_options *o, struct mode_error *err)
{
    int on = 1, rc;
    *fd = new_socket(p);
    if (*fd < 0) return MODE_FAIL(err, MODE_E_IO, "no socket: %s", strerror(errno));
    const int lock = p->is_path ? lock_folder(o->place) : -1;
    if (!p->is_path) (void)setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    mode_t mask = umask(0177);
    rc = bind(*fd, (const struct sockaddr *)&p->addr, p->len);
    if (rc && errno == EADDRINUSE && p->is_path) {
        struct stat st; /* perhaps the stale socket of a killed process */
        if (!is_alive(p) && stat(o->place, &st) == 0 && S_ISSOCK(st.st_mode) && unlink(o->place) == 0)
            rc = bind(*fd, (const struct sockaddr *)&p->addr, p->len);
        else
            errno = EADDRINUSE;
    }
    if (!rc && p->is_path) m->path = mode_xstrdup(o->place);
    if (!rc) rc = listen(*fd, MODE_RANKS_MAX); /* SO_REUSEADDR lets two bind a port; only one can listen */
    int why = errno;
    umask(mask);
    if (lock >= 0) close(lock);
    if (rc)
        return MODE_FAIL(err, MODE_E_CREATE, "process 0 cannot listen at %s: %s%s", o->place, strerror(why),
                         why == EADDRINUSE ? ". HINT: another training may be using it" : "");
    return MODE_OK;
}

/* Wait until fd is ready for events (POLLIN, POLLOUT), or until the deadline (*ready false). */
static enum mode_status wait_ready(int fd, short events, double until, const struct mode_meeting_options *o,
                                   bool *ready, struct mode_error *err)
{
    *ready = false;
    while (!*ready && mode_clock_s() < until) {
        struct pollfd p = {.fd = fd, .events = events};
        if (o->stopping && o->stopping(o->ctx))
            return MODE_FAIL(err, MODE_E_STOPPED, "stopped while waiting for the other processes");
        *ready = poll(&p, 1, SLICE_MS) > 0;
    }
    return MODE_OK;
}

static void answer(int fd, enum mode_status status, const char *text)
{
    struct answer a = {.status = (int32_t)status};
    snprintf(a.text, sizeof a.text, "%.*s", (int)sizeof a.text - 1, text);
    (void)send_all(fd, &a, sizeof a);
}

/* Constant-time comparison. */
static bool same_secret(const uint8_t *a, const uint8_t *b)
{
    unsigned differ = 0;
    for (int i = 0; i < MODE_MEETING_SECRET; i++) differ |= (unsigned)(a[i] ^ (b ? b[i] : 0));
    return !differ;
}

/* Receive before the deadline, however slowly bytes arrive; *whole false: timeout, or closed before. */
static enum mode_status recv_until(int fd, void *data, size_t bytes, double until, const struct mode_meeting_options *o,
                                   bool *whole, struct mode_error *err)
{
    size_t have = 0;
    *whole = false;
    while (have < bytes) {
        bool ready;
        enum mode_status st = wait_ready(fd, POLLIN, until, o, &ready, err);
        if (st || !ready) return st;
        ssize_t n = recv(fd, (char *)data + have, bytes - have, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return MODE_OK;
        if (n > 0) have += (size_t)n;
    }
    *whole = true;
    return MODE_OK;
}

/* A blocking connect would wait for minutes where packets are dropped, deaf to the deadline and to a stop. *connected
 * false: refused, or no answer before the deadline. */
static enum mode_status connect_until(int fd, const struct place *p, double until, const struct mode_meeting_options *o,
                                      bool *connected, struct mode_error *err)
{
    const int flags = fcntl(fd, F_GETFL);
    int failed = 0;
    socklen_t len = sizeof failed;
    *connected = false;
    (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    if (connect(fd, (const struct sockaddr *)&p->addr, p->len) != 0) {
        bool ready;
        if (errno != EINPROGRESS) return MODE_OK;
        enum mode_status st = wait_ready(fd, POLLOUT, until, o, &ready, err);
        if (st || !ready) return st;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) != 0 || failed) return MODE_OK;
    }
    (void)fcntl(fd, F_SETFL, flags);
    *connected = true;
    return MODE_OK;
}

/* The handshake with a new connection. Connections without magic or secret are dropped silently; a process of ours that
 * does not match is an error for the whole group. */
static enum mode_status welcome(struct mode_meeting *m, int fd, const struct mode_meeting_options *o,
                                struct mode_error *err)
{
    struct hello h = {0};
    bool heard;
    enum mode_status st = recv_until(fd, &h, sizeof h, mode_clock_s() + HELLO_S, o, &heard, err);
    if (st || !heard || memcmp(h.magic, MAGIC, sizeof MAGIC) != 0 || !same_secret(h.secret, o->secret)) {
        close(fd);
        return st;
    }
    struct mode_error own;
    if (h.size != o->size)
        st = MODE_FAIL(&own, MODE_E_VALUE, "process %d says that there are %d processes, process 0 says %d",
                       (int)h.rank, (int)h.size, o->size);
    else if (h.rank < 1 || h.rank >= o->size || m->fd[h.rank] >= 0)
        st = MODE_FAIL(&own, MODE_E_VALUE, "two processes say that they are process %d of %d", (int)h.rank, o->size);
    if (!st) {
        m->fd[h.rank] = fd;
        return MODE_OK;
    }
    answer(fd, st, own.text);
    close(fd);
    if (err) *err = own;
    return st;
}

/* A failed accept. A connection that ended while it waited, or was refused by a filter, is none of ours. Descriptors or
 * memory may become free: *why says for the deadline's message what was lacking. Anything else is the listener's own. */
static enum mode_status accept_failed(int error, int *why, const struct mode_meeting_options *o, struct mode_error *err)
{
    switch (error) {
    case EBADF:
    case EFAULT:
    case EINVAL:
    case ENOTSOCK:
        return MODE_FAIL(err, MODE_E_IO, "process 0 cannot accept connections at %s: %s", o->place, strerror(error));
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        *why = error;
        (void)poll(NULL, 0, SLICE_MS); /* the connection still waits, so polling the listener would return at once */
    }
    return MODE_OK;
}

static enum mode_status accept_all(struct mode_meeting *m, const struct place *p, const struct mode_meeting_options *o,
                                   struct mode_error *err)
{
    double until = mode_clock_s() + o->timeout_s;
    int listener = -1, here = 1, why = 0;
    enum mode_status st = listen_at(&listener, m, p, o, err);
    while (!st && here < m->size) {
        bool ready;
        if ((st = wait_ready(listener, POLLIN, until, o, &ready, err))) break;
        if (!ready) {
            st = MODE_FAIL(err, MODE_E_PEER, "%d of %d processes connected at %s within %.0f s%s%s", here, m->size,
                           o->place, o->timeout_s, why ? "; accepting a connection failed: " : "",
                           why ? strerror(why) : "");
            break;
        }
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            st = accept_failed(errno, &why, o, err);
            continue;
        }
        why = 0;
        keep_alive(fd, p);
        st = welcome(m, fd, o, err);
        here = 1;
        for (int r = 1; r < m->size; r++) here += m->fd[r] >= 0;
    }
    if (m->path) unlink(m->path); /* before closing the listener: while it answers, no other process takes the path */
    if (listener >= 0) close(listener);
    for (int r = 1; r < m->size; r++)
        if (m->fd[r] >= 0) answer(m->fd[r], st, st ? "process 0 ended the rendezvous: see its message" : "");
    return st;
}

static enum mode_status connect_to_rank_0(struct mode_meeting *m, const struct place *p,
                                          const struct mode_meeting_options *o, struct mode_error *err)
{
    double until = mode_clock_s() + o->timeout_s;
    struct hello h = {.rank = o->rank, .size = o->size};
    struct answer a = {0, ""};
    bool connected, answered = false;
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    if (o->secret) memcpy(h.secret, o->secret, sizeof h.secret);
    for (;;) {
        if (o->stopping && o->stopping(o->ctx))
            return MODE_FAIL(err, MODE_E_STOPPED, "stopped while waiting for process 0");
        int fd = m->fd[0] = new_socket(p);
        if (fd < 0) return MODE_FAIL(err, MODE_E_IO, "no socket: %s", strerror(errno));
        enum mode_status st = connect_until(fd, p, until, o, &connected, err);
        if (!st && connected) {
            keep_alive(fd, p);
            if (send_all(fd, &h, sizeof h)) st = recv_until(fd, &a, sizeof a, until, o, &answered, err);
        }
        if (st) return st;
        if (answered) break;
        close(fd); /* not rank 0: another program's port, or one just closed */
        m->fd[0] = -1;
        if (mode_clock_s() >= until)
            return MODE_FAIL(err, MODE_E_PEER, "process 0 of %d did not answer at %s within %.0f s", o->size, o->place,
                             o->timeout_s);
        (void)poll(NULL, 0, SLICE_MS);
    }
    a.text[sizeof a.text - 1] = '\0';
    if (a.status) return MODE_FAIL(err, (enum mode_status)a.status, "%s", a.text);
    return MODE_OK;
}

enum mode_status mode_meeting_open(struct mode_meeting **m, const struct mode_meeting_options *o,
                                   struct mode_error *err)
{
    struct place place;
    *m = NULL;
    if (o->size < 1 || o->size > MODE_RANKS_MAX || o->rank < 0 || o->rank >= o->size)
        return MODE_FAIL(err, MODE_E_VALUE, "process %d of %d is out of range; expected 0 <= rank < size <= %d",
                         o->rank, o->size, MODE_RANKS_MAX);
    enum mode_status st = find_place(&place, o, err);
    if (st) return st;
    struct mode_meeting *x = *m = mode_xcalloc(1, sizeof *x);
    x->rank = o->rank;
    x->size = o->size;
    x->fd = mode_xmalloc((size_t)o->size * sizeof *x->fd);
    for (int r = 0; r < o->size; r++) x->fd[r] = -1;
    st = o->rank == 0 ? accept_all(x, &place, o, err) : connect_to_rank_0(x, &place, o, err);
    if (st) mode_meeting_close(m);
    return st;
}

enum mode_status mode_meeting_all_gather(struct mode_meeting *m, void *data, size_t bytes, struct mode_error *err)
{
    char *rows = data;
    if (m->rank > 0) {
        bool ok = send_all(m->fd[0], rows + (size_t)m->rank * bytes, bytes);
        return ok && recv_all(m->fd[0], data, (size_t)m->size * bytes) ? MODE_OK : gone(m, 0, err);
    }
    for (int r = 1; r < m->size; r++)
        if (!recv_all(m->fd[r], rows + (size_t)r * bytes, bytes)) return gone(m, r, err);
    for (int r = 1; r < m->size; r++)
        if (!send_all(m->fd[r], data, (size_t)m->size * bytes)) return gone(m, r, err);
    return MODE_OK;
}

enum mode_status mode_meeting_barrier(struct mode_meeting *m, struct mode_error *err)
{
    char here[MODE_RANKS_MAX] = {0};
    return mode_meeting_all_gather(m, here, 1, err);
}

void mode_meeting_close(struct mode_meeting **m)
{
    struct mode_meeting *x = *m;
    if (!x) return;
    for (int r = 0; r < x->size; r++)
        if (x->fd[r] >= 0) close(x->fd[r]);
    free(x->fd);
    free(x->path);
    free(x);
    *m = NULL;
}
