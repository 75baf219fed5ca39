#include "remote/shards.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 100, TOUCH_S = 60, SPOILT_MOST = 2, BOOT = 8 };
static _Atomic double patience_s = 120;               /* for room occupied by shards in use */
static const uint64_t MOST_FLOOR = (uint64_t)1 << 30; /* as in the coordinator's check of the workspace's disk */
enum { FLOOR_PART = 50 };

char *mode_shard_folder(void)
{
    const char *own = getenv("MODE_SHARD_CACHE");
    if (own && *own) return mode_xstrdup(own);
    char *cache = mode_cache_folder(), *dir = mode_path_join(cache, "shards");
    free(cache);
    return dir;
}

/* *bytes = 0: not set. */
static enum mode_status read_limit(uint64_t *bytes, struct mode_error *err)
{
    const char *text = getenv("MODE_SHARD_CACHE_BYTES");
    struct mode_error why;
    size_t n = 0;
    if (text && *text && mode_parse_size(text, "MODE_SHARD_CACHE_BYTES", &n, &why))
        return MODE_FAIL(err, MODE_E_CONFIG, "%s", why.text);
    *bytes = n;
    return MODE_OK;
}

/* ---------------------------------------------------------------------------------------------- what is there */

struct entry {
    char *name;
    uint64_t bytes; /* on disk or reserved */
    struct timespec used;
};

struct contents {
    struct entry *entry;
    size_t n, n_busy; /* n_busy: entries found in use */
    uint64_t bytes, free, floor;
};

static bool is_ours(const char *name)
{
    const size_t n = strspn(name, "0123456789abcdef");
    return n == MODE_DIGEST_HEX - 1 && (!name[n] || name[n] == '.');
}

static int by_use(const void *a, const void *b)
{
    const struct timespec *x = &((const struct entry *)a)->used, *y = &((const struct entry *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

static void forget(struct contents *c)
{
    for (size_t i = 0; i < c->n; i++) free(c->entry[i].name);
    free(c->entry);
    *c = (struct contents){0};
}

/* Allocated bytes, including reservations. */
static uint64_t on_disk(const struct stat *s)
{
    const uint64_t blocks = (uint64_t)s->st_blocks * 512, size = (uint64_t)s->st_size;
    return blocks > size ? blocks : size;
}

/* Lists the cache, oldest first, without `but`, which is not counted. */
static enum mode_status list(struct contents *c, const char *dir, const char *but, struct mode_error *err)
{
    struct statvfs disk;
    DIR *d = opendir(dir);
    *c = (struct contents){0};
    if (!d) return mode_input_fail(err, errno, dir, "be read");
    for (const struct dirent *e; (e = readdir(d));) {
        struct stat s;
        if (!is_ours(e->d_name) || strcmp(e->d_name, but) == 0 || fstatat(dirfd(d), e->d_name, &s, 0) != 0) continue;
        if ((c->n & (c->n - 1)) == 0) c->entry = mode_xrealloc(c->entry, (c->n ? 2 * c->n : 1) * sizeof *c->entry);
        c->entry[c->n] = (struct entry){mode_xstrdup(e->d_name), on_disk(&s), s.st_mtim};
        c->bytes += c->entry[c->n++].bytes;
    }
    closedir(d);
    if (c->n) qsort(c->entry, c->n, sizeof *c->entry, by_use);
    if (statvfs(dir, &disk) != 0) return mode_input_fail(err, errno, dir, "be examined");
    const uint64_t all = (uint64_t)disk.f_blocks * disk.f_frsize;
    c->free = (uint64_t)disk.f_bavail * disk.f_frsize;
    c->floor = all / FLOOR_PART < MOST_FLOOR ? all / FLOOR_PART : MOST_FLOOR;
    return MODE_OK;
}

static uint64_t room_of(const struct contents *c, uint64_t limit)
{
    return limit ? limit : (c->bytes + c->free) / 2;
}

void mode_shard_set_patience(double seconds)
{
    patience_s = seconds;
}

enum mode_status mode_shard_room(uint64_t *bytes, struct mode_error *err)
{
    struct contents c = {0};
    char *dir = mode_shard_folder();
    enum mode_status st = read_limit(bytes, err);
    if (!st && !*bytes && !(st = mode_dir_make(dir, err)) && !(st = list(&c, dir, "", err))) *bytes = room_of(&c, 0);
    forget(&c);
    free(dir);
    return st;
}

/* Whether the name still refers to the open file. With an exclusive lock this stays so: nobody else may rename or
 * remove it. */
static bool is_named(int fd, const char *path)
{
    struct stat mine, named;
    return fstat(fd, &mine) == 0 && stat(path, &named) == 0 && mine.st_ino == named.st_ino &&
           mine.st_dev == named.st_dev;
}

/* Removes an entry that is not in use. */
static bool drop(const char *dir, const char *name)
{
    char *path = mode_path_join(dir, name);
    int fd = open(path, O_RDWR | O_CLOEXEC); /* on NFS exclusive locks need write access */
    const bool gone = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && is_named(fd, path) && unlink(path) == 0;
    if (fd >= 0) close(fd);
    free(path);
    return gone;
}

/* ---------------------------------------------------------------------------------------------- room */

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
}

/* Polls flock, so that it can be stopped. how: LOCK_EX or LOCK_SH. grows: a file whose size shows the progress of its
 * owner. */
static enum mode_status take_lock(int fd, int how, const char *path, uint64_t total, const struct mode_remote_watch *w,
                                  struct mode_error *err)
{
    while (flock(fd, how | LOCK_NB) != 0) {
        struct stat s;
        if (errno != EWOULDBLOCK && errno != EINTR) return mode_output_fail(err, errno, path, "be locked");
        if (!mode_remote_going(w, fstat(fd, &s) == 0 ? (uint64_t)s.st_size : 0, total))
            return MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while another process was downloading it", path);
        wait_a_little();
    }
    return MODE_OK;
}

static bool fits(const struct contents *c, uint64_t limit, uint64_t bytes, uint64_t to_write)
{
    return c->bytes + bytes <= limit && c->free >= to_write + c->floor;
}

/* Evicts entries until the shard fits or no unused entry is left. Evicts nothing if it would not fit even so. */
static bool make_room(struct contents *c, const char *dir, uint64_t limit, uint64_t bytes, uint64_t to_write)
{
    if (bytes > limit || c->free + c->bytes < to_write + c->floor) return false;
    for (size_t i = 0; i < c->n && !fits(c, limit, bytes, to_write); i++) {
        if (!drop(dir, c->entry[i].name)) {
            c->n_busy++;
            continue;
        }
        c->bytes -= c->entry[i].bytes;
        c->free += c->entry[i].bytes;
    }
    return fits(c, limit, bytes, to_write);
}

struct fetch {
    const char *pinned, *dir, *name; /* name: of the partial file */
    char *address;                   /* for people */
    struct mode_remote_version version;
    int fd;
    const struct mode_remote_watch *watch;
    int errnum; /* of a failed write */
};

static enum mode_status no_room(const struct fetch *f, const struct contents *c, uint64_t limit, struct mode_error *err)
{
    const unsigned long long want = f->version.bytes;
    if (want > limit)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s: %llu bytes, and the shard cache %s is limited to %llu. HINT: "
                         "MODE_SHARD_CACHE_BYTES, or a larger disk by MODE_SHARD_CACHE",
                         f->address, want, f->dir, (unsigned long long)limit);
    if (c->n_busy)
        return MODE_FAIL(err, MODE_E_TEMP,
                         "%s: %llu bytes do not fit into %s, which is limited to %llu, beside %zu shards that are in "
                         "use. HINT: MODE_SHARD_CACHE_BYTES, fewer workers, or a larger disk by MODE_SHARD_CACHE",
                         f->address, want, f->dir, (unsigned long long)limit, c->n_busy);
    return MODE_FAIL(err, MODE_E_IO,
                     "%s: %llu bytes cannot be kept in %s: %s (%llu bytes are free, %llu stay free). "
                     "HINT: MODE_SHARD_CACHE names another folder",
                     f->address, want, f->dir, strerror(ENOSPC), (unsigned long long)c->free,
                     (unsigned long long)c->floor);
}

/* Reserves room under a lock: one process at a time, whose reservation is on disk when the next one counts. */
static enum mode_status reserve(const struct fetch *f, uint64_t have, struct mode_error *err)
{
    char *path = mode_path_join(f->dir, "lock");
    struct contents c = {0};
    struct stat s;
    uint64_t limit = 0;
    const double until = mode_clock_s() + patience_s;
    enum mode_status st = MODE_OK;
    const uint64_t own = fstat(f->fd, &s) == 0 ? on_disk(&s) : have,
                   to_write = own < f->version.bytes ? f->version.bytes - own : 0;
    for (bool done = false; !st && !done;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0)
            st = mode_output_fail(err, errno, path, "be created");
        else if (!(st = take_lock(fd, LOCK_EX, path, 0, f->watch, err)) && !(st = read_limit(&limit, err)) &&
                 !(st = list(&c, f->dir, f->name, err))) {
            limit = room_of(&c, limit);
            done = make_room(&c, f->dir, limit, f->version.bytes, to_write);
            if (done && f->version.bytes && fallocate(f->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)f->version.bytes) != 0 &&
                (errno == ENOSPC || errno == EDQUOT))
                done = false;
            if (!done && (!c.n_busy || f->version.bytes > limit || mode_clock_s() > until))
                st = no_room(f, &c, limit, err);
        }
        if (fd >= 0) close(fd);
        forget(&c);
        if (st || done) break;
        if (!mode_remote_going(f->watch, have, f->version.bytes))
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while it waited for room", f->address);
        wait_a_little();
    }
    free(path);
    return st;
}

/* ---------------------------------------------------------------------------------------------- fetching */

static bool keep(void *ctx, const void *data, size_t n, uint64_t at)
{
    struct fetch *f = ctx;
    const char *from = data;
    while (n) {
        const ssize_t got = pwrite(f->fd, from, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            f->errnum = got < 0 ? errno : ENOSPC;
            return false;
        }
        from += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return true;
}

static bool md5_of(char hex[33], int fd)
{
    static const size_t PIECE = (size_t)1 << 20;
    unsigned char *piece = mode_xmalloc(PIECE), md[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool good = c && EVP_DigestInit_ex(c, EVP_md5(), NULL) == 1;
    off_t at = 0;
    for (ssize_t got; good && (got = pread(fd, piece, PIECE, at)) != 0; at += got) {
        if (got < 0 && errno == EINTR) got = 0;
        good = got >= 0 && EVP_DigestUpdate(c, piece, (size_t)got) == 1;
    }
    good = good && EVP_DigestFinal_ex(c, md, &n) == 1 && n == 16;
    for (unsigned int i = 0; good && i < n; i++) snprintf(hex + 2 * i, 3, "%02x", md[i]);
    EVP_MD_CTX_free(c);
    free(piece);
    return good;
}

/* Fetches the shard into f->fd, which is locked exclusively. Existing bytes are reused once: if the checksum of the
 * whole then fails, it is fetched again from the first byte. */
static enum mode_status fetch_bytes(struct fetch *f, struct mode_error *err)
{
    struct mode_remote_link *link = NULL;
    enum mode_status st = mode_remote_link_open(&link, err);
    for (int spoilt = 0; !st; spoilt++) {
        char md5[33], is[33] = "";
        struct stat s;
        if (fstat(f->fd, &s) != 0) {
            st = mode_output_fail(err, errno, f->address, "be kept");
            break;
        }
        uint64_t have = (uint64_t)s.st_size;
        if ((have > f->version.bytes || spoilt) && ftruncate(f->fd, 0) == 0) have = 0;
        if ((st = reserve(f, have, err))) break;
        st = mode_remote_get(link, f->pinned, have, f->version.bytes, keep, f, md5, f->watch, err);
        if (st == MODE_E_IO) {
            char *path = mode_path_join(f->dir, f->name);
            st = mode_output_fail(err, f->errnum, path, "be written");
            free(path);
        }
        if (st || !md5[0] || !md5_of(is, f->fd) || strcmp(is, md5) == 0) break;
        if (spoilt + 1 == SPOILT_MOST)
            st = MODE_FAIL(err, MODE_E_PEER,
                           "%s: the bytes received are not those the server names: MD5 %s, expected %s", f->address, is,
                           md5);
    }
    mode_remote_link_close(&link);
    return st;
}

static enum mode_status finish(struct fetch *f, const char *part, const char *path, struct mode_error *err)
{
    int dir;
    if (fsync(f->fd) != 0) return mode_output_fail(err, errno, path, "be written");
    if (rename(part, path) != 0) return mode_output_fail(err, errno, path, "be made");
    if ((dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0) {
        (void)fsync(dir); /* if lost, it is fetched again */
        close(dir);
    }
    return MODE_OK;
}

static void boot_name(char to[BOOT + 1])
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f || fscanf(f, "%8[0-9a-f]", to) != 1 || strlen(to) != BOOT) snprintf(to, BOOT + 1, "%s", "00000000");
    if (f) fclose(f);
}

/* One attempt: *held is the locked complete file; -1: try again. */
static enum mode_status fetch(int *held, const char *pinned, const char *dir, const char *path,
                              const struct mode_remote_watch *w, struct mode_error *err)
{
    char boot[BOOT + 1];
    boot_name(boot);
    char *part = mode_xasprintf("%s.%s.part", path, boot);
    struct fetch f = {.pinned = pinned, .dir = dir, .name = mode_path_base(part), .fd = -1, .watch = w};
    enum mode_status st = mode_remote_unpin(&f.address, &f.version, pinned, err);
    *held = -1;
    if (st || (st = mode_dir_make(dir, err))) goto out;
    if ((f.fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0) {
        st = mode_output_fail(err, errno, part, "be created");
        goto out;
    }
    if ((st = take_lock(f.fd, LOCK_EX, f.address, f.version.bytes, w, err))) goto out;
    if (!is_named(f.fd, part)) goto out; /* another process has finished or removed it */
    if (mode_file_exists(path)) {
        unlink(part);
        goto out;
    }
    st = fetch_bytes(&f, err);
    if (!st) st = finish(&f, part, path, err);
    if (st && st != MODE_E_PEER && st != MODE_E_STOPPED && st != MODE_E_TEMP) unlink(part);
    if (!st) {
        *held = f.fd;
        f.fd = -1;
    }
out:
    if (f.fd >= 0) close(f.fd);
    free(f.address);
    free(part);
    return st;
}

/* Marks the file as recently used, at most once a minute, which is precise enough for eviction. */
static void touch(int fd, const struct stat *s)
{
    if (time(NULL) - s->st_mtim.tv_sec >= TOUCH_S) (void)futimens(fd, NULL);
}

/* The file may have been evicted between opening and locking. */
static bool is_whole(int fd, const char *path, uint64_t bytes)
{
    struct stat s;
    if (flock(fd, LOCK_SH) != 0 || fstat(fd, &s) != 0 || s.st_nlink == 0) return false;
    if ((uint64_t)s.st_size != bytes) {
        unlink(path); /* its size is wrong: another program wrote to it */
        return false;
    }
    touch(fd, &s);
    return true;
}

static char *place(const char *dir, const char *pinned)
{
    char name[MODE_DIGEST_HEX];
    mode_digest_bytes(pinned, strlen(pinned), name);
    return mode_path_join(dir, name);
}

enum mode_status mode_shard_hold(struct mode_shard_file *f, const char *path, const struct mode_remote_watch *w,
                                 struct mode_error *err)
{
    *f = (struct mode_shard_file){.hold = -1};
    if (!mode_remote_is(path)) {
        f->path = mode_xstrdup(path);
        return MODE_OK;
    }
    char *dir = mode_shard_folder(), *copy = place(dir, path);
    enum mode_status st = MODE_OK;
    while (!st) {
        int fd = open(copy, O_RDONLY | O_CLOEXEC);
        if (fd < 0) st = fetch(&fd, path, dir, copy, w, err);
        if (st || fd < 0) continue;
        if (is_whole(fd, copy, mode_remote_bytes(path))) {
            *f = (struct mode_shard_file){copy, fd};
            copy = NULL;
            break;
        }
        close(fd);
    }
    free(copy);
    free(dir);
    return st;
}

void mode_shard_release(struct mode_shard_file *f)
{
    if (f->hold >= 0) close(f->hold);
    free(f->path);
    *f = (struct mode_shard_file){.hold = -1};
}

struct piece {
    unsigned char *data;
    uint64_t at;
};

static bool take_piece(void *ctx, const void *data, size_t n, uint64_t at)
{
    const struct piece *p = ctx;
    memcpy(p->data + (at - p->at), data, n);
    return true;
}

enum mode_status mode_shard_read(void *data, const char *pinned, uint64_t at, size_t n, struct mode_remote_link **link,
                                 const struct mode_remote_watch *w, struct mode_error *err)
{
    char *dir = mode_shard_folder(), *copy = place(dir, pinned), md5[33];
    struct piece p = {data, at};
    enum mode_status st = MODE_OK;
    int fd = open(copy, O_RDONLY | O_CLOEXEC);
    const bool here = fd >= 0 && pread(fd, data, n, (off_t)at) == (ssize_t)n;
    if (!here && !*link) st = mode_remote_link_open(link, err);
    if (!here && !st) st = mode_remote_get(*link, pinned, at, at + n, take_piece, &p, md5, w, err);
    if (fd >= 0) close(fd);
    free(copy);
    free(dir);
    return st;
}
