/* Opening, blobs and upkeep. DESIGN: every final name is made by mode_store_link_once from a file that was
 * fsynced under another name, and its folder is fsynced after; the only other way to a final name is the replacement of
 * a damaged blob, by renaming an equally finished file. */
#include "store/artifacts.h"

#include "base/fresh.h"
#include "base/str.h"
#include "store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, TICK_CHUNKS = 16 };

bool mode_key_valid(const char *key)
{
    if (!key) return false;
    for (int i = 0; i < 64; i++)
        if (!((key[i] >= '0' && key[i] <= '9') || (key[i] >= 'a' && key[i] <= 'f'))) return false;
    return key[64] == '\0';
}

char *mode_store_path(const struct mode_store *s, const char *folder, const char *name)
{
    return mode_xasprintf("%s/%s/%s", s->root, folder, name);
}

void mode_store_tick(struct mode_store *s)
{
    if (s->tick) s->tick(s->tick_ctx);
}

void mode_store_on_tick(struct mode_store *store, void (*fn)(void *ctx), void *ctx)
{
    store->tick = fn;
    store->tick_ctx = ctx;
}

enum mode_status mode_store_fail(struct mode_error *err, int e, const char *path, const char *doing)
{
    switch (e) {
    case ENOSPC:
    case EDQUOT:
        return MODE_FAIL(err, MODE_E_IO,
                         "%s: cannot %s: the artifact store's disk is full (%s). Nothing was damaged. HINT: free some "
                         "space; the task can be done again",
                         path, doing, strerror(e));
    case EFBIG:
        return MODE_FAIL(err, MODE_E_IO, "%s: cannot %s: larger than the file size limit of this process (ulimit -f)",
                         path, doing);
    case EACCES:
    case EPERM:
    case EROFS: return MODE_FAIL(err, MODE_E_PERM, "%s: cannot %s: %s", path, doing, strerror(e));
    case ENOENT:
    case ENOTDIR: return MODE_FAIL(err, MODE_E_NOINPUT, "%s: cannot %s: %s", path, doing, strerror(e));
    default: return MODE_FAIL(err, MODE_E_IO, "%s: cannot %s: %s", path, doing, strerror(e));
    }
}

static enum mode_status sync_folder_of(const char *path, struct mode_error *err)
{
    char *dir = mode_xstrdup(path);
    *strrchr(dir, '/') = '\0'; /* all paths here are below the root */
    enum mode_status st = MODE_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) st = mode_store_fail(err, errno, dir, "be flushed to disk");
    if (fd >= 0) close(fd);
    free(dir);
    return st;
}

static enum mode_status make_folder_of(const char *path, struct mode_error *err)
{
    char *dir = mode_xstrdup(path);
    *strrchr(dir, '/') = '\0';
    enum mode_status st = mode_dir_make(dir, err);
    if (!st) st = sync_folder_of(dir, err);
    free(dir);
    return st;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

enum mode_status mode_store_link_once(bool *created, const char *from, const char *to, struct mode_error *err)
{
    enum mode_status st;
    *created = false;
    int rc = linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
    if (rc != 0 && errno == ENOENT) {
        if ((st = make_folder_of(to, err))) return st;
        rc = linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
    }
    if (rc == 0)
        *created = true;
    else {
        int e = errno;
        /* on NFS the reply to a successful link can get lost, so that its retry fails with EEXIST or an error is
         * reported: what counts is whether both names are the same file */
        if (same_file(from, to))
            *created = true;
        else if (e != EEXIST)
            return mode_store_fail(err, e, to, "be linked to its final name");
    }
    return sync_folder_of(to, err);
}

static enum mode_status write_all(int fd, const char *path, const void *data, size_t size, struct mode_error *err)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return mode_store_fail(err, errno, path, "be written");
        p += n;
        size -= (size_t)n;
    }
    return MODE_OK;
}

static enum mode_status temp_open(struct mode_store *s, char **path, int *fd, struct mode_error *err)
{
    *path = mode_xasprintf("%s/put-XXXXXX", s->tmp);
    *fd = mkostemp(*path, O_CLOEXEC);
    if (*fd >= 0) return MODE_OK;
    enum mode_status st = mode_store_fail(err, errno, *path, "be created");
    free(*path);
    *path = NULL;
    return st;
}

/* Finishes a temporary file: read-only, fsynced. On failure it is removed. */
static enum mode_status temp_finish(enum mode_status st, char **path, int fd, struct mode_error *err)
{
    if (!st && fchmod(fd, 0444) != 0) st = mode_store_fail(err, errno, *path, "be made read-only");
    if (!st && fsync(fd) != 0) st = mode_store_fail(err, errno, *path, "be flushed to disk");
    if (close(fd) != 0 && !st) st = mode_store_fail(err, errno, *path, "be closed");
    if (st) {
        unlink(*path);
        free(*path);
        *path = NULL;
    }
    return st;
}

enum mode_status mode_store_temp(struct mode_store *s, char **path, const void *data, size_t size,
                                 struct mode_error *err)
{
    int fd;
    enum mode_status st = temp_open(s, path, &fd, err);
    if (st) return st;
    return temp_finish(write_all(fd, *path, data, size, err), path, fd, err);
}

enum mode_status mode_store_put_once(struct mode_store *s, bool *created, const char *to, const void *data, size_t size,
                                     struct mode_error *err)
{
    char *temp;
    enum mode_status st = mode_store_temp(s, &temp, data, size, err);
    if (st) return st;
    st = mode_store_link_once(created, temp, to, err);
    unlink(temp);
    free(temp);
    return st;
}

/* ---- opening ---- */

static enum mode_status probe_create_once(struct mode_store *s, struct mode_error *err)
{
    bool first = false, second = true;
    char *a = NULL, *b = NULL, *name = NULL;
    enum mode_status st = mode_store_temp(s, &a, "1", 1, err);
    if (!st) st = mode_store_temp(s, &b, "2", 1, err);
    if (st) goto out;
    name = mode_xasprintf("%s.once", a);
    struct mode_error why = {0};
    st = mode_store_link_once(&first, a, name, &why);
    if (!st) st = mode_store_link_once(&second, b, name, &why);
    if (st || !first || second)
        st = MODE_FAIL(err, MODE_E_CONFIG,
                       "%s: this filesystem cannot create a file atomically by a hard link, which the artifact store "
                       "requires: %s. HINT: use a local disk or NFS for the workspace",
                       s->root,
                       st      ? why.text
                       : first ? "the second link did not fail"
                               : "the first link did not appear");
out:
    if (name) unlink(name);
    if (a) unlink(a);
    if (b) unlink(b);
    free(name);
    free(a);
    free(b);
    return st;
}

static enum mode_status read_id(struct mode_store *s, struct mode_error *err)
{
    uint8_t raw[16];
    char text[34], *got = NULL;
    size_t n;
    bool created;
    char *path = mode_path_join(s->root, "store-id");
    enum mode_status st = MODE_OK;
    if (!mode_file_exists(path)) {
        if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw) {
            st = MODE_FAIL(err, MODE_E_IO, "%s: no random numbers from the system: %s", path, strerror(errno));
            goto out;
        }
        for (int i = 0; i < 16; i++) snprintf(text + 2 * i, 3, "%02x", raw[i]);
        text[32] = '\n';
        if ((st = mode_store_put_once(s, &created, path, text, 33, err))) goto out;
    }
    if ((st = mode_file_read(path, 64, &got, &n, err))) goto out;
    if (n < 32 || strspn(got, "0123456789abcdef") != 32)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: expected 32 hex digits, got \"%.40s\"", path, got);
    else {
        memcpy(s->id, got, 32);
        s->id[32] = '\0';
    }
out:
    free(got);
    free(path);
    return st;
}

/* A lock is released when its process ends, in any way. On the rare filesystems without locks every process gets in,
 * and nothing is ever freed. */
static enum mode_status take_lock(struct mode_store *s, bool alone, struct mode_error *err)
{
    char *path = mode_path_join(s->root, "lock");
    enum mode_status st = MODE_OK;
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (s->lock < 0) s->lock = open(path, O_RDONLY | O_CLOEXEC); /* another user's */
    if (s->lock >= 0)
        st = mode_file_lock(s->lock, alone ? LOCK_EX : LOCK_SH, path, err);
    else if (alone)
        st = mode_output_fail(err, errno, path, "be locked");
    if (st == MODE_E_TEMP)
        st = alone
                 ? MODE_FAIL(err, MODE_E_TEMP,
                             "%s is in use: a coordinator, a worker or another command has it open. HINT: `mode down`, "
                             "and stop workers on other machines; work goes on afterwards",
                             s->root)
                 : MODE_FAIL(err, MODE_E_TEMP,
                             "%s: space is being freed here (`mode gc`). HINT: try again when it is done", s->root);
    else if (st && !alone)
        st = MODE_OK;
    s->alone = alone && !st;
    free(path);
    return st;
}

static struct mode_store *begin(const char *root, struct mode_error *err)
{
    char *real = realpath(root, NULL);
    if (!real) {
        mode_store_fail(err, errno, root, "be resolved");
        return NULL;
    }
    struct mode_store *s = mode_xcalloc(1, sizeof *s);
    s->root = real;
    s->lock = -1;
    s->tmp = mode_path_join(real, "tmp");
    MODE_ASSERT(pthread_mutex_init(&s->mutex, NULL) == 0);
    return s;
}

static enum mode_status open_existing(struct mode_store **out, const char *root, bool alone, struct mode_error *err)
{
    *out = NULL;
    struct mode_store *s = begin(root, err);
    if (!s) return MODE_E_NOINPUT;
    char *id = mode_path_join(s->root, "store-id");
    enum mode_status st = MODE_OK;
    if (!mode_file_exists(id))
        st = MODE_FAIL(err, MODE_E_NOINPUT, "%s is not a workspace (it has no file store-id)", root);
    if (!st) st = take_lock(s, alone, err);
    if (!st) st = read_id(s, err);
    if (st) mode_store_close(&s);
    *out = s;
    free(id);
    return st;
}

enum mode_status mode_store_open_alone(struct mode_store **out, const char *root, struct mode_error *err)
{
    return open_existing(out, root, true, err);
}

enum mode_status mode_store_open_to_read(struct mode_store **out, const char *root, struct mode_error *err)
{
    return open_existing(out, root, false, err);
}

enum mode_status mode_store_open(struct mode_store **out, const char *root, struct mode_error *err)
{
    static const char *const folders[] = {"blobs", "tasks", "commits", "ckpt", "epochs", "tmp"};
    enum mode_status st = mode_dir_make(root, err);
    *out = NULL;
    if (st) return st;
    struct mode_store *s = begin(root, err);
    if (!s) return MODE_E_NOINPUT;
    st = take_lock(s, false, err);
    for (size_t i = 0; !st && i < sizeof folders / sizeof *folders; i++) {
        char *p = mode_path_join(s->root, folders[i]);
        st = mode_dir_make(p, err);
        free(p);
    }
    if (!st) st = probe_create_once(s, err);
    if (!st) st = read_id(s, err);
    if (st) mode_store_close(&s);
    *out = s;
    return st;
}

void mode_store_close(struct mode_store **store)
{
    struct mode_store *s = *store;
    *store = NULL;
    if (!s) return;
    pthread_mutex_destroy(&s->mutex);
    if (s->lock >= 0) close(s->lock);
    free(s->table);
    free(s->root);
    free(s->tmp);
    free(s);
}

const char *mode_store_root(const struct mode_store *store)
{
    return store->root;
}

const char *mode_store_id(const struct mode_store *store)
{
    return store->id;
}

const char *mode_store_tmp(const struct mode_store *store)
{
    return store->tmp;
}

uint64_t mode_store_free_bytes(const struct mode_store *store, uint64_t *size)
{
    struct statvfs v;
    bool known = statvfs(store->root, &v) == 0;
    if (size) *size = known ? (uint64_t)v.f_blocks * v.f_frsize : 0;
    return known ? (uint64_t)v.f_bavail * v.f_frsize : 0;
}

/* ---- digests ---- */

static struct verified *verified_slot(struct verified *table, size_t cap, const char *digest)
{
    size_t i = strtoul(
        (char[9]){digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7], 0}, NULL, 16);
    for (i &= cap - 1; table[i].digest[0] && strcmp(table[i].digest, digest) != 0; i = (i + 1) & (cap - 1)) continue;
    return &table[i];
}

static struct verified look_of(const char *digest, const struct stat *sb)
{
    struct verified v = {.dev = sb->st_dev,
                         .ino = sb->st_ino,
                         .size = (uint64_t)sb->st_size,
                         .mtime_ns = (int64_t)sb->st_mtim.tv_sec * 1000000000 + sb->st_mtim.tv_nsec};
    memcpy(v.digest, digest, MODE_DIGEST_HEX);
    return v;
}

static bool verified_has(struct mode_store *s, const struct verified *v)
{
    pthread_mutex_lock(&s->mutex);
    const struct verified *t = s->cap ? verified_slot(s->table, s->cap, v->digest) : NULL;
    bool yes = t && t->digest[0] && t->dev == v->dev && t->ino == v->ino && t->size == v->size &&
               t->mtime_ns == v->mtime_ns;
    pthread_mutex_unlock(&s->mutex);
    return yes;
}

static void verified_add(struct mode_store *s, const struct verified *v)
{
    pthread_mutex_lock(&s->mutex);
    if (2 * (s->n + 1) > s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        struct verified *table = mode_xcalloc(cap, sizeof *table);
        for (size_t i = 0; i < s->cap; i++)
            if (s->table[i].digest[0]) *verified_slot(table, cap, s->table[i].digest) = s->table[i];
        free(s->table);
        s->table = table;
        s->cap = cap;
    }
    struct verified *t = verified_slot(s->table, s->cap, v->digest);
    s->n += t->digest[0] == '\0';
    *t = *v;
    pthread_mutex_unlock(&s->mutex);
}

/* Reads fd from its start, digests it, and copies it to fd `to` unless that is negative. */
static enum mode_status stream(struct mode_store *s, char digest[MODE_DIGEST_HEX], uint64_t *size, int fd,
                               const char *path, int to, const char *to_path, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    unsigned char md[32];
    uint64_t total = 0;
    char *buf = mode_xmalloc(CHUNK);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    MODE_ASSERT(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    if (lseek(fd, 0, SEEK_SET) != 0) st = mode_store_fail(err, errno, path, "be read");
    for (uint64_t chunk = 0; !st; chunk++) {
        ssize_t n = read(fd, buf, CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) st = mode_store_fail(err, errno, path, "be read");
        if (n <= 0) break;
        EVP_DigestUpdate(ctx, buf, (size_t)n);
        if (to >= 0) st = write_all(to, to_path, buf, (size_t)n, err);
        total += (uint64_t)n;
        if (chunk % TICK_CHUNKS == 0) mode_store_tick(s);
    }
    EVP_DigestFinal_ex(ctx, md, NULL);
    EVP_MD_CTX_free(ctx);
    free(buf);
    if (st) return st;
    for (int i = 0; i < 32; i++) snprintf(digest + 2 * i, 3, "%02x", md[i]);
    *size = total;
    return MODE_OK;
}

enum mode_status mode_store_digest_fd(struct mode_store *s, char digest[MODE_DIGEST_HEX], uint64_t *size, int fd,
                                      const char *path, struct mode_error *err)
{
    return stream(s, digest, size, fd, path, -1, NULL, err);
}

/* ---- blobs ---- */

static char *blob_name(const struct mode_store *s, const char *digest)
{
    return mode_xasprintf("%s/blobs/%.2s/%s", s->root, digest, digest);
}

/* MODE_OK when the blob at path matches its name. */
static enum mode_status check_blob(struct mode_store *s, const char *path, const char *digest, uint64_t size,
                                   struct mode_error *err)
{
    struct stat sb;
    char got[MODE_DIGEST_HEX];
    uint64_t got_size;
    int fd = mode_fresh_open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mode_store_fail(err, errno, path, "be opened");
    enum mode_status st = MODE_OK;
    if (fstat(fd, &sb) != 0)
        st = mode_store_fail(err, errno, path, "be examined");
    else if (size != UINT64_MAX && (uint64_t)sb.st_size != size)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: damaged: %llu bytes, expected %llu", path,
                       (unsigned long long)sb.st_size, (unsigned long long)size);
    else {
        struct verified v = look_of(digest, &sb);
        if (!verified_has(s, &v)) {
            st = mode_store_digest_fd(s, got, &got_size, fd, path, err);
            if (!st && strcmp(got, digest) != 0)
                st = MODE_FAIL(err, MODE_E_FORMAT, "%s: damaged: its bytes have digest %s", path, got);
            if (!st) verified_add(s, &v);
        }
    }
    close(fd);
    return st;
}

/* Give a finished, synced file its blob name. */
static enum mode_status publish(struct mode_store *s, const char *from, const char *digest, uint64_t size,
                                struct mode_error *err)
{
    bool created;
    char *to = blob_name(s, digest), *temp = NULL;
    enum mode_status st = mode_store_link_once(&created, from, to, err);
    struct stat sb;
    if (st) goto out;
    if (created) {
        if (stat(to, &sb) == 0 && (uint64_t)sb.st_size == size) {
            struct verified v = look_of(digest, &sb);
            verified_add(s, &v);
        }
    } else if (check_blob(s, to, digest, size, NULL) != MODE_OK) {
        /* a damaged blob of this name: replace it by the good bytes, or the damage would be permanent */
        temp = mode_xasprintf("%s/heal-%s-%ld", s->tmp, digest, (long)getpid());
        unlink(temp);
        if (linkat(AT_FDCWD, from, AT_FDCWD, temp, AT_SYMLINK_FOLLOW) != 0 || rename(temp, to) != 0) {
            st = mode_store_fail(err, errno, to, "be replaced (it is damaged)");
            unlink(temp);
        } else
            st = sync_folder_of(to, err);
    }
out:
    free(temp);
    free(to);
    return st;
}

enum mode_status mode_store_put_blob(struct mode_store *s, char digest[MODE_DIGEST_HEX], uint64_t *size,
                                     const char *path, struct mode_error *err)
{
    struct stat sb, home;
    char *temp = NULL;
    enum mode_status st;
    int fd = mode_fresh_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* nonblocking: opening a FIFO must not hang */
    if (fd < 0) return mode_store_fail(err, errno, path, "be opened");
    if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode)) {
        st = MODE_FAIL(err, MODE_E_NOINPUT, "%s: is not a regular file", path);
        goto out;
    }
    if (stat(s->tmp, &home) == 0 && home.st_dev == sb.st_dev) {
        if ((st = mode_store_digest_fd(s, digest, size, fd, path, err))) goto out;
        if (fchmod(fd, 0444) != 0 && errno != EPERM) { /* EPERM: another owner's file; the digest protects readers */
            st = mode_store_fail(err, errno, path, "be made read-only");
            goto out;
        }
        if (fsync(fd) != 0) {
            st = mode_store_fail(err, errno, path, "be flushed to disk");
            goto out;
        }
        st = publish(s, path, digest, *size, err);
    } else {
        int to;
        if ((st = temp_open(s, &temp, &to, err))) goto out;
        st = temp_finish(stream(s, digest, size, fd, path, to, temp, err), &temp, to, err);
        if (!st) st = publish(s, temp, digest, *size, err);
    }
out:
    close(fd);
    if (temp) unlink(temp);
    free(temp);
    return st;
}

enum mode_status mode_store_put_bytes(struct mode_store *s, char digest[MODE_DIGEST_HEX], const void *data, size_t size,
                                      struct mode_error *err)
{
    char *temp;
    mode_digest_bytes(data, size, digest);
    enum mode_status st = mode_store_temp(s, &temp, data, size, err);
    if (st) return st;
    st = publish(s, temp, digest, size, err);
    unlink(temp);
    free(temp);
    return st;
}

enum mode_status mode_store_blob_path(struct mode_store *s, char **path, const char *digest, uint64_t size,
                                      struct mode_error *err)
{
    *path = NULL;
    if (!mode_key_valid(digest))
        return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a digest (64 lower-case hex digits)", digest);
    char *p = blob_name(s, digest);
    enum mode_status st = check_blob(s, p, digest, size, err);
    if (st)
        free(p);
    else
        *path = p;
    return st;
}

enum mode_status mode_store_blob_check(struct mode_store *s, bool *bad, const char *digest, uint64_t size,
                                       struct mode_error *err)
{
    char got[MODE_DIGEST_HEX] = "", *path = blob_name(s, digest);
    uint64_t got_size = 0;
    enum mode_status st = MODE_OK;
    int fd = mode_fresh_open(path, O_RDONLY | O_CLOEXEC);
    *bad = fd < 0 && errno == ENOENT;
    if (fd < 0 && !*bad) st = mode_store_fail(err, errno, path, "be opened");
    if (fd >= 0) {
        st = mode_store_digest_fd(s, got, &got_size, fd, path, err);
        *bad = !st && (got_size != size || strcmp(got, digest) != 0);
        close(fd);
    }
    free(path);
    return st;
}

enum mode_status mode_store_blob_discard(struct mode_store *s, const char *digest, struct mode_error *err)
{
    char *path = blob_name(s, digest);
    enum mode_status st = MODE_OK;
    if (unlink(path) != 0 && errno != ENOENT) st = mode_store_fail(err, errno, path, "be removed");
    free(path);
    return st;
}

bool mode_store_blob_exists(struct mode_store *s, const char *digest, uint64_t size)
{
    struct stat sb;
    if (!mode_key_valid(digest)) return false;
    char *p = blob_name(s, digest);
    bool yes = mode_fresh_stat(p, &sb) && S_ISREG(sb.st_mode) && (uint64_t)sb.st_size == size;
    free(p);
    return yes;
}

/* ---- upkeep ---- */

int64_t mode_store_newest_mtime(const char *path, int depth)
{
    struct stat sb;
    if (lstat(path, &sb) != 0) return INT64_MAX; /* vanished: not ours to remove */
    int64_t newest = sb.st_mtim.tv_sec;
    DIR *d = S_ISDIR(sb.st_mode) && depth > 0 ? mode_fresh_opendir(path) : NULL;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *child = mode_path_join(path, e->d_name);
        int64_t t = mode_store_newest_mtime(child, depth - 1);
        if (t != INT64_MAX && t > newest) newest = t;
        free(child);
    }
    if (d) closedir(d);
    return newest;
}

enum mode_status mode_store_sweep_tmp(struct mode_store *s, uint64_t min_age_s, uint64_t *removed,
                                      bool (*in_use)(void *ctx, const char *name), void *ctx, struct mode_error *err)
{
    struct timespec now;
    struct mode_error later;
    enum mode_status st = MODE_OK;
    if (removed) *removed = 0;
    uint64_t n = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    DIR *d = mode_fresh_opendir(s->tmp);
    if (!d) return mode_store_fail(err, errno, s->tmp, "be read");
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *p = mode_path_join(s->tmp, e->d_name);
        int64_t t = mode_store_newest_mtime(p, 3);
        if (t != INT64_MAX && t + (int64_t)min_age_s <= now.tv_sec && !(in_use && in_use(ctx, e->d_name))) {
            enum mode_status one = mode_dir_remove(p, st ? &later : err);
            n += one == MODE_OK;
            if (!st) st = one;
        }
        free(p);
    }
    closedir(d);
    if (removed) *removed = n;
    return st;
}
