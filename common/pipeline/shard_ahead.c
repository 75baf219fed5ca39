#include "pipeline/shard_ahead.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/str.h"
#include "remote/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    FETCHERS = 4,           /* on a long path one connection does not fill the bandwidth */
    AHEAD_LOCAL = 2,        /* shards; more could evict each other from the page cache before they are read */
    READ_AHEAD = 128 << 10, /* bytes: read_ahead_kb of Linux by default, its limit for one WILLNEED */
    WAIT_MS = 100,
    PATIENCE_S = 5, /* without a byte, once other processes are known to pin the rest of the cache */
    OTHER_FILES = 256
};

enum state {
    AWAY,
    WANTED,     /* queued for a fetcher */
    COMING,     /* a fetcher has it */
    HERE,       /* pinned in the shard cache; for a local file: readahead is done */
    BY_PICTURE, /* does not fit the cache: its pictures are fetched one by one */
    FAILED
};

struct entry {
    const char *path; /* NULL: skip it */
    uint64_t bytes;   /* 0: a local file */
    enum state state;
    uint64_t until; /* its last turn in the queue, + 1 */
    uint64_t done;  /* bytes fetched */
    bool tried;     /* retried already after a failure */
    struct mode_shard_file file;
    struct mode_error err;
};

struct mode_shard_ahead {
    const struct mode_shard_order *order;
    struct entry *shard;
    size_t n_shards;
    uint64_t room, taken;    /* bytes: capacity of the shard cache; of them reserved by WANTED, COMING and HERE */
    uint64_t from, next, to; /* turns from .. to - 1 are in the queue; none before next is WANTED */
    uint32_t *queue;         /* [cap] shard of turn t at t % cap */
    uint64_t cap;
    uint32_t *turn; /* [order->n] of epoch */
    uint64_t epoch;
    uint32_t ahead;       /* prefetch distance in turns */
    bool closing, shared; /* shared: other processes pin the rest of the cache */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread[FETCHERS];
    int n_threads;
};

/* Upper bound of what a shard takes of the cache, which counts disk blocks, not bytes. */
static uint64_t on_disk(uint64_t bytes)
{
    return (bytes + bytes / 64 + 4095) / 4096 * 4096;
}

static struct entry *at(struct mode_shard_ahead *a, uint64_t turn)
{
    return &a->shard[a->queue[turn % a->cap]];
}

static void away(struct mode_shard_ahead *a, struct entry *e)
{
    if (e->state == WANTED || e->state == COMING || e->state == HERE) a->taken -= on_disk(e->bytes);
    mode_shard_release(&e->file);
    e->state = AWAY;
    e->tried = false;
    e->done = 0;
}

/* ---------------------------------------------------------------------------------------------- the fetchers */

struct fetch {
    struct mode_shard_ahead *ahead;
    struct entry *shard;
    double since; /* the last byte came */
    bool in_vain; /* gave up: no byte for PATIENCE_S */
};

static bool is_wanted(void *ctx, uint64_t done, uint64_t total)
{
    struct fetch *f = ctx;
    struct mode_shard_ahead *a = f->ahead;
    const double now = mode_clock_s();
    (void)total;
    pthread_mutex_lock(&a->lock);
    if (f->since <= 0 || done != f->shard->done) f->since = now;
    f->shard->done = done;
    f->in_vain = a->shared && now - f->since > PATIENCE_S;
    const bool yes = !a->closing && f->shard->until > a->from && !f->in_vain;
    pthread_mutex_unlock(&a->lock);
    return yes;
}

/* For pages that are cached already this is almost free. A file that cannot be opened is reported when it is read. */
static void advise_readahead(struct fetch *f)
{
    const int fd = open(f->shard->path, O_RDONLY | O_CLOEXEC);
    const off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    for (off_t from = 0; from < size && is_wanted(f, 0, 0); from += READ_AHEAD)
        (void)posix_fadvise(fd, from, READ_AHEAD, POSIX_FADV_WILLNEED);
    if (fd >= 0) close(fd);
}

static struct entry *take(struct mode_shard_ahead *a)
{
    while (a->next < a->to) {
        struct entry *e = at(a, a->next++);
        if (e->state == WANTED) return e;
    }
    return NULL;
}

/* Other processes pin the rest of the cache, which took a long timeout to find out. From here on the capacity is what
 * is HERE now, so that no other shard waits for as long again. Other processes may pin some of these too, so the real
 * share can be smaller still. */
static void shrink_room(struct mode_shard_ahead *a)
{
    a->shared = true;
    a->room = 0;
    for (size_t i = 0; i < a->n_shards; i++) {
        struct entry *e = &a->shard[i];
        if (e->state == HERE) a->room += on_disk(e->bytes);
        if (e->state != WANTED || !e->bytes) continue;
        away(a, e);
        e->state = BY_PICTURE;
    }
}

static void finish(struct mode_shard_ahead *a, struct entry *e, enum mode_status st, const struct mode_shard_file *file,
                   const struct mode_error *err)
{
    const bool wanted = e->until > a->from, tried = e->tried;
    e->file = *file;
    if (!st && wanted) {
        e->state = HERE;
        return;
    }
    away(a, e);
    if (!wanted) return;
    e->state = st == MODE_E_TEMP ? BY_PICTURE : FAILED;
    e->tried = tried;
    e->err = *err;
    if (st == MODE_E_TEMP) shrink_room(a);
}

static void *fetcher(void *ctx)
{
    struct mode_shard_ahead *a = ctx;
    pthread_mutex_lock(&a->lock);
    while (!a->closing) {
        struct fetch f = {.ahead = a, .shard = take(a)};
        struct mode_shard_file file = {.hold = -1};
        const struct mode_remote_watch watch = {is_wanted, &f};
        struct mode_error err = {0};
        enum mode_status st = MODE_OK;
        if (!f.shard) {
            pthread_cond_wait(&a->changed, &a->lock);
            continue;
        }
        f.shard->state = COMING;
        pthread_mutex_unlock(&a->lock);
        if (f.shard->bytes)
            st = mode_shard_hold(&file, f.shard->path, &watch, &err);
        else
            advise_readahead(&f);
        pthread_mutex_lock(&a->lock);
        if (st == MODE_E_STOPPED && f.in_vain) st = MODE_E_TEMP;
        finish(a, f.shard, st, &file, &err);
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* ----------------------------------------------------------------------------------------- the queue of turns */

static void grow(struct mode_shard_ahead *a)
{
    const uint64_t cap = 2 * a->cap;
    uint32_t *queue = mode_xmalloc(cap * sizeof *queue);
    for (uint64_t t = a->from; t < a->to; t++) queue[t % cap] = a->queue[t % a->cap];
    free(a->queue);
    a->queue = queue;
    a->cap = cap;
}

/* Append the next turn to the queue. needed: it is in a window that is read now. False: it is only a prefetch, and the
 * cache has no room for it. */
static bool push(struct mode_shard_ahead *a, bool needed)
{
    const uint64_t epoch = a->to / a->order->n;
    if (epoch != a->epoch) mode_shard_order_turns(a->order, epoch, a->turn);
    a->epoch = epoch;
    const uint32_t shard = a->order->shard[a->turn[a->to % a->order->n]];
    struct entry *e = &a->shard[shard];
    const bool fits = e->state != AWAY || a->taken + on_disk(e->bytes) <= a->room || !e->bytes;
    if (!fits && !needed) return false;
    if (e->state == AWAY && e->path) {
        e->state = fits ? WANTED : BY_PICTURE;
        if (fits) a->taken += on_disk(e->bytes);
    }
    e->until = a->to + 1;
    if (a->to - a->from == a->cap) grow(a);
    a->queue[a->to++ % a->cap] = shard;
    return true;
}

/* The reader has jumped out of the queue: empty it. */
static void begin_at(struct mode_shard_ahead *a, uint64_t turn)
{
    for (size_t i = 0; i < a->n_shards; i++) {
        a->shard[i].until = 0;
        if (a->shard[i].state != COMING) away(a, &a->shard[i]); /* COMING: its fetcher does it */
    }
    a->from = a->next = a->to = turn;
}

static void move_on(struct mode_shard_ahead *a, uint64_t from, uint64_t to, uint64_t end)
{
    if (from < a->from || from > a->to) begin_at(a, from);
    for (; a->from < from; a->from++) {
        struct entry *e = at(a, a->from);
        if (e->until == a->from + 1 && e->state != COMING) away(a, e);
    }
    if (a->next < from) a->next = from;
    while (a->to < to) push(a, true);
    if (end > to + a->ahead) end = to + a->ahead;
    while (a->to < end && push(a, false)) continue;
}

/* Number of needed shards that are not fetched yet; *bad: one that failed twice. */
static int missing(struct mode_shard_ahead *a, uint64_t to, uint64_t *done, uint64_t *total, const struct entry **bad)
{
    int n = 0;
    *done = *total = 0;
    *bad = NULL;
    for (uint64_t t = a->from; t < to; t++) {
        struct entry *e = at(a, t);
        if (!e->bytes) continue;
        if (e->state == FAILED && e->tried) {
            *bad = e;
            return 0;
        }
        if (e->state == FAILED) {
            e->tried = true;
            e->state = WANTED;
            a->taken += on_disk(e->bytes);
            if (a->next > t) a->next = t;
        }
        if (e->state != WANTED && e->state != COMING) continue;
        n++;
        *done += e->done;
        *total += e->bytes;
    }
    return n;
}

static void wait_for_change(struct mode_shard_ahead *a)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_clockwait(&a->changed, &a->lock, CLOCK_MONOTONIC, &until);
}

enum mode_status mode_shard_ahead_need(struct mode_shard_ahead *a, uint64_t from, uint64_t to, uint64_t end,
                                       const struct mode_remote_watch *w, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    uint64_t done, total;
    const struct entry *bad;
    pthread_mutex_lock(&a->lock);
    move_on(a, from, to, end);
    while (!st && missing(a, to, &done, &total, &bad)) {
        pthread_cond_broadcast(&a->changed);
        wait_for_change(a);
        pthread_mutex_unlock(&a->lock);
        if (!mode_remote_going(w, done, total))
            st = MODE_FAIL(err, MODE_E_STOPPED, "stopped while remote shards were downloaded");
        pthread_mutex_lock(&a->lock);
    }
    if (!st && bad) {
        st = bad->err.status;
        if (err) *err = bad->err;
    }
    pthread_cond_broadcast(&a->changed); /* for the prefetches that were queued */
    pthread_mutex_unlock(&a->lock);
    return st;
}

int mode_shard_ahead_file(const struct mode_shard_ahead *a, size_t shard)
{
    const struct entry *e = &a->shard[shard];
    return e->state == HERE ? e->file.hold : -1;
}

/* ---------------------------------------------------------------------------------------------- open and close */

/* Every pinned shard is an open file descriptor. */
static enum mode_status allow_files(uint64_t n, struct mode_error *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= n + OTHER_FILES) return MODE_OK;
    const unsigned long long most = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_max >= n + OTHER_FILES && setrlimit(RLIMIT_NOFILE, &limit) == 0) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "two windows are %llu shards, and the system allows this process %llu open files. HINT: a smaller "
                     "train.window_shards, or ulimit -n",
                     (unsigned long long)n, most);
}

enum mode_status mode_shard_ahead_open(struct mode_shard_ahead **ahead, const struct mode_shard_order *order,
                                       const char *const *path, size_t n_shards, uint64_t room, struct mode_error *err)
{
    struct mode_shard_ahead *a = *ahead = mode_xcalloc(1, sizeof *a);
    bool remote = false, any = false;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    a->order = order;
    a->n_shards = n_shards;
    a->shard = mode_xcalloc(n_shards, sizeof *a->shard);
    for (size_t i = 0; i < n_shards; i++) {
        struct entry *e = &a->shard[i];
        *e = (struct entry){.path = path[i], .file.hold = -1};
        if (path[i]) e->bytes = mode_remote_bytes(path[i]);
        remote = remote || e->bytes;
        any = any || path[i];
    }
    a->room = room;
    a->epoch = UINT64_MAX;
    a->turn = mode_xmalloc((size_t)order->n * sizeof *a->turn);
    a->ahead = remote || order->window < AHEAD_LOCAL ? order->window : AHEAD_LOCAL;
    a->cap = 2 * (uint64_t)order->window;
    a->queue = mode_xmalloc(a->cap * sizeof *a->queue);
    enum mode_status st = remote ? allow_files(2 * (uint64_t)order->window, err) : MODE_OK;
    const int threads = remote ? FETCHERS : any; /* one: several would make a disk seek */
    while (!st && a->n_threads < threads) {
        const int e = pthread_create(&a->thread[a->n_threads], NULL, fetcher, a);
        if (e)
            st = MODE_FAIL(err, MODE_E_GENERIC, "no thread to fetch shards ahead: %s", strerror(e));
        else
            a->n_threads++;
    }
    if (st) mode_shard_ahead_close(ahead);
    return st;
}

void mode_shard_ahead_close(struct mode_shard_ahead **ahead)
{
    struct mode_shard_ahead *a = *ahead;
    if (!a) return;
    pthread_mutex_lock(&a->lock);
    a->closing = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    for (int i = 0; i < a->n_threads; i++) pthread_join(a->thread[i], NULL);
    for (size_t i = 0; i < a->n_shards; i++) mode_shard_release(&a->shard[i].file);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a->shard);
    free(a->turn);
    free(a->queue);
    free(a);
    *ahead = NULL;
}

static int larger_first(const void *x, const void *y)
{
    const uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return (a < b) - (a > b);
}

char *mode_shard_ahead_warning(uint64_t *bytes, size_t n, uint32_t window, uint64_t room)
{
    char have[MODE_SIZE_TEXT], most[MODE_SIZE_TEXT];
    uint64_t two = 0;
    if (n) qsort(bytes, n, sizeof *bytes, larger_first);
    for (size_t i = 0; i < n && i < 2 * (uint64_t)window; i++) two += on_disk(bytes[i]);
    if (two <= room) return NULL;
    return mode_xasprintf(
        "two windows of %u shard%s may have %s, and the shard cache holds at most %s: training will pause at the start "
        "of each epoch, and if even one window does not fit, request pictures one by one. HINT: "
        "MODE_SHARD_CACHE_BYTES, a larger disk by MODE_SHARD_CACHE, or a smaller train.window_shards",
        window, MODE_PLURAL(window), mode_size_text(have, two), mode_size_text(most, room));
}
