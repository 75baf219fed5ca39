#include "data/decoder.h"

#include "base/str.h"
#include "data/decoder_wire.h"
#include "data/image_codecs.h"
#include "tensor/tensor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    AREA_STEP = 64 << 20, /* area sizes are multiples of this; pages are allocated on first use */
    AREA_KEPT = 8 << 20,  /* pages touched beyond this are released after each picture   */
    ALIGN = 64,
    HIGH_FD = 16, /* above the fixed descriptors of a decoder */
    TRIES = 2,
    KILLS = 3,
    BYTES_PER_PIXEL = 32, /* memory limit for larger pictures: twice the need of the most demanding formats */
};

struct mode_decoder_limits mode_decoder_limits = {
    .cpu_seconds = 30, .answer_seconds = 60, .silent_seconds = 240, .memory = (size_t)2 << 30};

struct mode_decoder {
    pid_t pid;
    int line; /* to it */
    struct mode_decoder_area *area;
    size_t bytes, memory; /* of the area; memory limit */
    bool is_busy;
    struct mode_decoder *next;
};

static struct {
    pthread_mutex_t lock;
    struct mode_decoder *first;
    double ended_seconds; /* processor time of decoders that have ended */
    bool is_ending;       /* the process is */
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* How it ended: waitpid's status, or one of these. */
enum { NO_ANSWER = -1, NO_MEMORY = -2, NONSENSE = -3, UNKNOWN = -4, TOO_LONG = -5, NO_END = -6 };

static double seconds_of(const struct mode_decoder *d)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(d->pid, &clock) != 0 || clock_gettime(clock, &t) != 0) return 0;
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double mode_decoder_cpu_seconds(void)
{
    pthread_mutex_lock(&all.lock);
    double s = all.ended_seconds;
    for (const struct mode_decoder *d = all.first; d; d = d->next) s += seconds_of(d);
    pthread_mutex_unlock(&all.lock);
    return s;
}

/* Exactly the errors about a failed decoder begin with these words. */
bool mode_decoder_failed(const char *why)
{
    static const char begin[] = "the decoder ";
    return strncmp(why, begin, sizeof begin - 1) == 0;
}

int mode_decoder_count(void)
{
    int n = 0;
    pthread_mutex_lock(&all.lock);
    for (const struct mode_decoder *d = all.first; d; d = d->next) n++;
    pthread_mutex_unlock(&all.lock);
    return n;
}

/* Before a fork: locks the list. */
static void hold_all(void)
{
    pthread_mutex_lock(&all.lock);
}

static void let_all_go(void)
{
    pthread_mutex_unlock(&all.lock);
}

/* In a forked child: the decoders are not its own, and their sockets must not stay open here. */
static void forget_all(void)
{
    for (struct mode_decoder *d = all.first, *next; d; d = next) {
        next = d->next;
        close(d->line);
        munmap(d->area, d->bytes);
        free(d);
    }
    all.first = NULL;
    all.ended_seconds = 0;
    pthread_mutex_init(&all.lock, NULL);
}

/* If SIGCHLD was inherited as ignored, the status of a decoder would be lost, and one killed for lack of memory would
 * be taken for one crashed by a picture. */
static void begin(void)
{
    struct sigaction children;
    if (sigaction(SIGCHLD, NULL, &children) == 0 && children.sa_handler == SIG_IGN) signal(SIGCHLD, SIG_DFL);
    pthread_atfork(hold_all, let_all_go, forget_all);
}

/* At process exit: ends all decoders and reaps them. */
static __attribute__((destructor)) void end_all(void)
{
    pthread_mutex_lock(&all.lock);
    all.is_ending = true;
    for (const struct mode_decoder *d = all.first; d; d = d->next) kill(d->pid, SIGKILL);
    for (const struct mode_decoder *d = all.first; d; d = d->next)
        while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    pthread_mutex_unlock(&all.lock);
}

/* Ends a decoder; returns how it ended, which is `how` if already known. */
static int end(struct mode_decoder *d, int how)
{
    int status = UNKNOWN;
    pthread_mutex_lock(&all.lock);
    struct mode_decoder **at = &all.first;
    while (*at != d) at = &(*at)->next;
    *at = d->next;
    all.ended_seconds += seconds_of(d);
    const bool is_ours = !all.is_ending;
    pthread_mutex_unlock(&all.lock);
    if (is_ours) {
        kill(d->pid, SIGKILL); /* does not change the status of one that is already ending */
        while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR) {
        } /* ECHILD: another waitpid has reaped it */
    }
    close(d->line);
    munmap(d->area, d->bytes);
    free(d);
    return how ? how : status;
}

/* The environment of a decoder: variables of the dynamic linker, the allocator and sanitizers, no secrets. Math
 * libraries of this program must not start threads there. */
static char **environment(void)
{
    static const char *const kept[] = {
        "LD_", "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS=", "LSAN_OPTIONS=", "MALLOC_", "GLIBC_TUNABLES="};
    static char one_thread[] = "OPENBLAS_NUM_THREADS=1";
    size_t n = 0, m = 0;
    while (environ && environ[n]) n++;
    char **list = mode_xcalloc(n + 2, sizeof *list);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
            if (strncmp(environ[i], kept[k], strlen(kept[k])) == 0) list[m++] = environ[i];
    list[m] = one_thread;
    return list;
}

/* Starts this program under another name, with socket and area at the descriptors that it expects. */
static int spawn(pid_t *pid, int line, int area)
{
    char name[sizeof MODE_DECODER_NAME], *argv[] = {name, NULL}, **env = environment();
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t every;
    memcpy(name, mode__decoder_role, sizeof name);
    sigfillset(&every);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&how);
    int rc = posix_spawn_file_actions_adddup2(&files, line, MODE_LOCK_LINE);
    if (!rc) rc = posix_spawn_file_actions_adddup2(&files, area, MODE_DECODER_AREA);
    if (!rc) rc = posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (!rc) rc = posix_spawnattr_setsigmask(&how, &every);
    if (!rc) rc = posix_spawnattr_setsigdefault(&how, &every);
    if (!rc) rc = posix_spawn(pid, "/proc/self/exe", &files, &how, argv, env);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    free(env);
    return rc;
}

/* The byte that it sends; 0: it has ended; or one of the values above: it took too long or is stalled. Seconds without
 * progress are counted, not read from a clock, so that suspending this process does not count against its decoders. The
 * decoder also has a timer of its own, in case this process dies; a compromised one may have disabled it, or use just
 * enough processor time never to look stalled. */
static int hear(const struct mode_decoder *d)
{
    enum { GRACE = 2 };
    const double begun = seconds_of(d);
    double last = begun;
    char byte;
    const int most = mode_decoder_limits.answer_seconds;
    for (int still = 0, silent = 0; still < most;) {
        const ssize_t n = recv(d->line, &byte, 1, 0);
        if (n == 1) return byte > 0 ? byte : NONSENSE;
        if (n == 0 || (errno != EINTR && errno != EAGAIN)) return 0;
        if (errno == EINTR) continue;
        const double now = seconds_of(d);
        if (now - begun > mode_decoder_limits.cpu_seconds + GRACE) return TOO_LONG;
        if (++silent >= mode_decoder_limits.silent_seconds) return NO_END;
        still = now > last ? 0 : still + 1;
        last = now;
    }
    return NO_ANSWER;
}

static bool ask_it(const struct mode_decoder *d)
{
    const char byte = MODE_DECODER_DONE;
    ssize_t n;
    do n = send(d->line, &byte, 1, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

static int raised(int fd)
{
    const int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
    if (fd >= 0) close(fd);
    return high;
}

/* Killed from outside, not by us. */
static bool was_killed(int how)
{
    return how > 0 && WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL;
}

static int shared_memory(void)
{
    const unsigned no_exec = 0x8; /* MFD_NOEXEC_SEAL, required by some systems; unknown before Linux 6.3 */
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    const int fd = memfd_create(MODE_DECODER_NAME, flags | no_exec);
    return fd < 0 && errno == EINVAL ? memfd_create(MODE_DECODER_NAME, flags) : fd;
}

static enum mode_status start(struct mode_decoder **decoder, size_t bytes, size_t memory, struct mode_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct timeval second = {.tv_sec = 1};
    int pair[2] = {-1, -1}, fd, rc = 0;
    const char *what = "shared memory";
    struct mode_decoder *d = mode_xcalloc(1, sizeof *d);
    pthread_once(&once, begin);
    *d = (struct mode_decoder){.line = -1, .bytes = bytes, .memory = memory, .is_busy = true};
    void *area = MAP_FAILED;
    fd = raised(shared_memory());
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        (area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        goto failed;
    d->area = area;
    d->area->memory = memory;
    what = "a socket";
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) goto failed;
    for (int i = 0; i < 2; i++) pair[i] = raised(pair[i]);
    d->line = pair[0];
    if (pair[0] < 0 || pair[1] < 0 || setsockopt(d->line, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second) != 0)
        goto failed;
    what = "a process";
    pthread_mutex_lock(&all.lock); /* from here on other threads' forks know about it */
    rc = all.is_ending ? ECANCELED : spawn(&d->pid, pair[1], fd);
    if (!rc) {
        d->next = all.first;
        all.first = d;
    }
    pthread_mutex_unlock(&all.lock);
    if (rc) goto failed;
    close(fd);
    close(pair[1]);
    const int byte = hear(d);
    if (byte == MODE_DECODER_LOCKED || byte == MODE_DECODER_OPEN) {
        *decoder = d;
        return MODE_OK;
    }
    const int how = end(d, byte < 0 ? byte : 0);
    return MODE_FAIL(err, was_killed(how) ? MODE_E_TEMP : MODE_E_GENERIC,
                     "the process that decodes pictures did not start (%s %d); it is this program, started again "
                     "through /proc/self/exe",
                     how < 0            ? "reason"
                     : WIFSIGNALED(how) ? "signal"
                                        : "status",
                     how < 0            ? how
                     : WIFSIGNALED(how) ? WTERMSIG(how)
                                        : WEXITSTATUS(how));
failed:
    if (!rc) rc = errno;
    if (fd >= 0) close(fd);
    if (d->line >= 0) close(d->line);
    if (pair[1] >= 0) close(pair[1]);
    if (area != MAP_FAILED) munmap(area, bytes);
    free(d);
    return MODE_FAIL(err, MODE_E_MEMORY, "no process to decode pictures: %s: %s", what, strerror(rc));
}

/* Takes an idle decoder that is large enough, or starts one, replacing one that is too small. MODE_E_TEMP: it was
 * killed before it started. */
static enum mode_status take(struct mode_decoder **decoder, size_t bytes, size_t memory, struct mode_error *err)
{
    struct mode_decoder *d, *small = NULL;
    pthread_mutex_lock(&all.lock);
    for (d = all.first; d; d = d->next) {
        if (d->is_busy) continue;
        if (d->bytes >= bytes && d->memory >= memory) break;
        small = d;
    }
    if (d)
        d->is_busy = true;
    else if (small)
        small->is_busy = true;
    pthread_mutex_unlock(&all.lock);
    *decoder = d;
    if (d) return MODE_OK;
    if (small) end(small, 0);
    return start(decoder, (bytes + AREA_STEP - 1) / AREA_STEP * AREA_STEP, memory, err);
}

void mode__decoder_give(struct mode_decoding *decoding)
{
    struct mode_decoder *d = decoding->decoder;
    if (decoding->used > AREA_KEPT) madvise((char *)d->area + AREA_KEPT, d->bytes - AREA_KEPT, MADV_REMOVE);
    pthread_mutex_lock(&all.lock);
    d->is_busy = false;
    pthread_mutex_unlock(&all.lock);
}

/* Whether this process could allocate that much. If not, a decoder out of memory is not the picture's fault. */
static bool is_to_be_had(size_t memory)
{
    void *p = mmap(NULL, memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return false;
    munmap(p, memory);
    return true;
}

static enum mode_status ended(int how, size_t memory, struct mode_error *err)
{
    const unsigned long long mib = memory >> 20;
    if (how == NO_ANSWER || how == NO_END)
        return MODE_FAIL(err, MODE_E_FORMAT, "the decoder did not answer for %d s",
                         how == NO_END ? mode_decoder_limits.silent_seconds : mode_decoder_limits.answer_seconds);
    if (how == NO_MEMORY && !is_to_be_had(memory))
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory to decode a picture: %llu MiB cannot be allocated", mib);
    if (how == NO_MEMORY) return MODE_FAIL(err, MODE_E_FORMAT, "the decoder needed more than %llu MiB of memory", mib);
    if (how == NONSENSE) return MODE_FAIL(err, MODE_E_FORMAT, "the decoder sent a malformed answer");
    if (how == UNKNOWN) return MODE_FAIL(err, MODE_E_FORMAT, "the decoder ended");
    if (how == TOO_LONG || (WIFSIGNALED(how) && WTERMSIG(how) == SIGPROF))
        return MODE_FAIL(err, MODE_E_FORMAT, "the decoder took longer than %d s", mode_decoder_limits.cpu_seconds);
    if (!WIFSIGNALED(how)) return MODE_FAIL(err, MODE_E_FORMAT, "the decoder ended with status %d", WEXITSTATUS(how));
    return MODE_FAIL(err, MODE_E_FORMAT, "the decoder was stopped by signal %d (%s)", WTERMSIG(how),
                     strsignal(WTERMSIG(how)));
}

/* Copies and validates the answer. */
static bool take_answer(struct mode_decoder_answer *to, const struct mode_decoder_area *area,
                        const struct mode_decoder_ask *ask)
{
    memcpy(to, &area->answer, sizeof *to);
    to->text[sizeof to->text - 1] = '\0';
    for (char *c = to->text; *c; c++)
        if (*c < ' ' || *c > '~') *c = '?';
    if (to->status == MODE_E_FORMAT || to->status == MODE_E_VALUE || to->status == MODE_E_MEMORY)
        return to->text[0] != '\0';
    if (to->status != MODE_OK || to->width < 1 || to->height < 1) return false;
    return ask->work == MODE_DECODE_HEADER ||
           mode_image_check((uint64_t)to->width, (uint64_t)to->height, &ask->limits, NULL) == MODE_OK;
}

static size_t aligned(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t memory_for(const struct mode_decoder_ask *ask)
{
    const size_t usual = mode_decoder_limits.memory;
    const uint64_t pixels = ask->work == MODE_DECODE_HEADER ? 0 : ask->limits.max_pixels;
    if (pixels > SIZE_MAX / 2 / BYTES_PER_PIXEL) return SIZE_MAX / 2;
    return pixels * BYTES_PER_PIXEL > usual ? (size_t)pixels * BYTES_PER_PIXEL : usual;
}

enum mode_status mode__decoder_do(struct mode_decoding *decoding, const struct mode_decoder_ask *given,
                                  const uint8_t *file, const struct mode_box *boxes, struct mode_error *err)
{
    struct mode_decoder_ask ask = *given;
    struct mode_decoder_answer *answer = &decoding->answer;
    struct mode_decoder *d;
    enum mode_status st;
    answer->width = answer->height = 0;
    if (ask.size > SIZE_MAX / 4 || ask.out_bytes > SIZE_MAX / 4)
        return MODE_FAIL(err, MODE_E_VALUE, "a picture file of %zu bytes", ask.size);
    ask.boxes = aligned(MODE_DECODER_FILE + ask.size);
    ask.out = aligned(ask.boxes + ask.n_blur * sizeof *boxes);
    ask.cpu_seconds = mode_decoder_limits.cpu_seconds;
    const size_t used = ask.out + ask.out_bytes, memory = memory_for(&ask);
    for (int tries = 0, kills = 0;;) {
        if (kills == KILLS)
            return MODE_FAIL(err, MODE_E_MEMORY,
                             "the decoder was killed %d times (signal 9), as happens where memory runs out", kills);
        if ((st = take(&d, used, memory, err)) == MODE_E_TEMP) {
            kills++;
            continue;
        }
        if (st) return st;
        char *area = (char *)d->area;
        memcpy(area + MODE_DECODER_FILE, file, ask.size);
        if (ask.n_blur) memcpy(area + ask.boxes, boxes, ask.n_blur * sizeof *boxes);
        d->area->ask = ask;
        d->area->answer.status = -1;
        d->area->answer.width = d->area->answer.height = 0;
        d->area->answer.text[0] = '\0';
        if (!ask_it(d)) { /* killed while idle */
            end(d, 0);
            continue;
        }
        const int byte = hear(d);
        int how = byte > 0 ? NONSENSE : byte; /* 0: it has ended; its status follows */
        if (byte == MODE_DECODER_DONE) {
            how = !take_answer(answer, d->area, &ask) ? NONSENSE : answer->status == MODE_E_MEMORY ? NO_MEMORY : 0;
            decoding->decoder = d;
            decoding->out = (const uint8_t *)area + ask.out;
            decoding->used = used;
            if (!how && answer->status) {
                mode__decoder_give(decoding);
                return MODE_FAIL(err, (enum mode_status)answer->status, "%s", answer->text);
            }
            if (!how) return MODE_OK;
        }
        answer->width = answer->height = 0;
        how = end(d, how);
        if (was_killed(how)) {
            kills++;
            continue;
        }
        if (++tries == TRIES) return ended(how, memory, err);
        ask.plainly = true;
    }
}
