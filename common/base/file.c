#include "base/file.h"

#include "base/digest_watch.h"
#include "base/fresh.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- faults ------------------------------------------------------------------------------------------------ */

static enum mode_status status_of(int e, enum mode_status absent)
{
    switch (e) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENXIO: /* a socket */
    case ENAMETOOLONG:
    case EEXIST:
    case ENOTEMPTY: return absent;
    case EACCES:
    case EPERM:
    case EROFS: return MODE_E_PERM;
    default: return MODE_E_IO;
    }
}

/* The user who was denied access: folders mounted into containers rarely belong to the user inside. */
static const char *as_whom(char text[40], int e)
{
    text[0] = '\0';
    if (e == EACCES) snprintf(text, 40, " (as uid %ld)", (long)geteuid());
    return text;
}

enum mode_status mode_input_fail(struct mode_error *err, int e, const char *path, const char *doing)
{
    char whom[40];
    return MODE_FAIL(err, status_of(e, MODE_E_NOINPUT), "%s: cannot %s: %s%s", path, doing, strerror(e),
                     as_whom(whom, e));
}

enum mode_status mode_output_fail(struct mode_error *err, int e, const char *path, const char *doing)
{
    enum mode_status st = status_of(e, MODE_E_CREATE);
    char *dir = mode_path_folder(path), whom[40];
    if (e == ENOENT && access(dir, F_OK) != 0)
        MODE_FAIL(err, st, "%s: cannot %s: there is no folder %s", path, doing, dir);
    else
        MODE_FAIL(err, st, "%s: cannot %s: %s%s", path, doing, strerror(e), as_whom(whom, e));
    free(dir);
    return st;
}

static enum mode_status fail_not_a_file(const char *path, mode_t mode, struct mode_error *err)
{
    return MODE_FAIL(err, MODE_E_NOINPUT, "%s: is %s, a file is needed", path,
                     S_ISDIR(mode) ? "a folder" : "a device or a pipe");
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

enum mode_status mode_file_read(const char *path, size_t max_bytes, char **data, size_t *size, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct stat sb;
    char *buf = NULL;
    size_t got = 0;
    if (max_bytes == 0) max_bytes = (size_t)1 << 30;
    int fd = mode_fresh_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe may have no writer */
    if (fd < 0) return mode_input_fail(err, errno, path, "be opened");
    if (fstat(fd, &sb) != 0) {
        st = MODE_FAIL(err, MODE_E_IO, "%s: cannot be examined: %s", path, strerror(errno));
        goto out;
    }
    if (S_ISDIR(sb.st_mode)) {
        st = fail_not_a_file(path, sb.st_mode, err);
        goto out;
    }
    if ((uint64_t)sb.st_size > max_bytes) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: %lld bytes, at most %zu are read", path, (long long)sb.st_size,
                       max_bytes);
        goto out;
    }
    size_t cap = (size_t)sb.st_size + 2; /* the NUL, and room to detect the end; pipes and devices have no size */
    if (cap < 4096) cap = 4096;
    for (;;) {
        if (!buf || got + 1 == cap) {
            char *larger = realloc(buf, buf ? (cap *= 2) : cap);
            if (!larger) {
                st = MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %zu bytes", path, cap);
                goto out;
            }
            buf = larger;
        }
        ssize_t n = read(fd, buf + got, cap - 1 - got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN && fcntl(fd, F_SETFL, 0) == 0) continue; /* there is a writer: wait for its data */
        if (n < 0) {
            st = MODE_FAIL(err, MODE_E_IO, "%s: reading failed at byte %zu: %s", path, got, strerror(errno));
            goto out;
        }
        if (n == 0 && got == 0 && S_ISFIFO(sb.st_mode)) {
            st = MODE_FAIL(err, MODE_E_NOINPUT, "%s: is a pipe without a writer", path);
            goto out;
        }
        if (n == 0) break;
        got += (size_t)n;
        if (got > max_bytes) {
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: more than %zu bytes, at most that many are read", path, max_bytes);
            goto out;
        }
    }
    buf[got] = '\0';
    *data = buf;
    if (size) *size = got;
    buf = NULL;
out:
    free(buf);
    close(fd);
    return st;
}

enum mode_status mode_file_sync(const char *path, struct mode_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mode_input_fail(err, errno, path, "be opened");
    int rc = fsync(fd), e = errno;
    close(fd);
    if (rc != 0) return MODE_FAIL(err, MODE_E_IO, "%s: fsync failed: %s", path, strerror(e));
    return MODE_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

static enum mode_status sync_parent(const char *path, struct mode_error *err)
{
    char *dir = mode_path_folder(path);
    enum mode_status st = mode_file_sync(dir, err);
    free(dir);
    return st;
}

static enum mode_status write_all(int fd, const char *path, const struct mode_file_part *part, size_t before,
                                  struct mode_error *err)
{
    const char *p = part->fetch ? part->fetch(part->ctx, part->data, part->size) : part->data;
    for (size_t left = part->size; left > 0;) {
        ssize_t n = write(fd, p, left);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return MODE_FAIL(err, MODE_E_IO, "%s: writing failed at byte %zu: %s", path, before + part->size - left,
                             strerror(errno));
        p += n;
        left -= (size_t)n;
    }
    return MODE_OK;
}

enum mode_status mode_output_target(char **target, const char *path, struct mode_error *err)
{
    struct stat at;
    *target = lstat(path, &at) == 0 && S_ISLNK(at.st_mode) ? realpath(path, NULL) : mode_xstrdup(path);
    if (!*target) {
        const int e = errno;
        if (status_of(e, MODE_E_CREATE) != MODE_E_CREATE) return mode_output_fail(err, e, path, "be created");
        return MODE_FAIL(err, MODE_E_CREATE, "%s: the link leads nowhere: %s", path, strerror(e));
    }
    if (stat(*target, &at) != 0 || S_ISREG(at.st_mode)) return MODE_OK;
    free(*target);
    *target = NULL;
    return MODE_FAIL(err, MODE_E_CREATE, "%s: is %s; expected a file, or nothing, in its place", path,
                     S_ISDIR(at.st_mode) ? "a folder" : "a device or a pipe");
}

static enum mode_status write_parts(const char *path, const struct mode_file_part *parts, size_t n_parts,
                                    struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    char *temp = mode_xasprintf("%s.tmp-XXXXXX", path);
    size_t written = 0;
    int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        st = mode_output_fail(err, errno, path, "be created");
        free(temp);
        return st;
    }
    for (size_t i = 0; !st && i < n_parts; i++) {
        st = write_all(fd, path, &parts[i], written, err);
        written += parts[i].size;
    }
    if (!st && fchmod(fd, 0644) != 0) st = MODE_FAIL(err, MODE_E_IO, "%s: chmod failed: %s", path, strerror(errno));
    if (!st && fsync(fd) != 0) st = MODE_FAIL(err, MODE_E_IO, "%s: fsync failed: %s", path, strerror(errno));
    if (close(fd) != 0 && !st) st = MODE_FAIL(err, MODE_E_IO, "%s: close failed: %s", path, strerror(errno));
    if (!st && rename(temp, path) != 0) st = mode_output_fail(err, errno, path, "be created");
    if (st)
        unlink(temp);
    else
        st = sync_parent(path, err);
    free(temp);
    return st;
}

enum mode_status mode_file_write_parts(const char *path, const struct mode_file_part *parts, size_t n_parts,
                                       struct mode_error *err)
{
    char *target;
    enum mode_status st = mode_output_target(&target, path, err);
    if (!st) st = write_parts(target, parts, n_parts, err);
    free(target);
    return st;
}

enum mode_status mode_file_write_atomic(const char *path, const void *data, size_t size, struct mode_error *err)
{
    const struct mode_file_part part = {.data = data, .size = size};
    return mode_file_write_parts(path, &part, 1, err);
}

enum mode_status mode_file_copy(const char *src, const char *dst, bool use_link, struct mode_error *err)
{
    if (use_link) {
        char *temp = mode_xasprintf("%s.tmp-%ld", dst, (long)getpid());
        unlink(temp);
        if (link(src, temp) == 0) {
            int rc = rename(temp, dst), e = errno;
            if (rc != 0) unlink(temp);
            unlink(temp); /* rename is a no-op when both names are the same file */
            free(temp);
            if (rc != 0) return mode_output_fail(err, e, dst, "be created");
            return MODE_OK;
        }
        free(temp);
    }
    struct mode_mapping map;
    enum mode_status st = mode_file_map(src, &map, err);
    if (st) return st;
    st = mode_file_write_atomic(dst, map.data, map.size, err);
    mode_file_unmap(&map);
    return st;
}

enum mode_status mode_file_lock(int fd, int how, const char *path, struct mode_error *err)
{
    if (flock(fd, how | LOCK_NB) == 0) return MODE_OK;
    if (errno == EWOULDBLOCK || errno == EINTR)
        return MODE_FAIL(err, MODE_E_TEMP, "%s: another process has it locked", path);
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "%s: cannot be locked (%s), so it is unknown whether it is in use. HINT: a filesystem with locks "
                     "(Lustre: mounted with `flock`; NFS 3: with its lock service running)",
                     path, strerror(errno));
}

bool mode_file_exists(const char *path)
{
    struct stat sb;
    return mode_fresh_stat(path, &sb);
}

static const uint8_t empty_mapping[1];

bool mode_file_is_lfs_pointer(const void *data, uint64_t size)
{
    static const char lfs[] = "version https://git-lfs";
    return size >= sizeof lfs - 1 && memcmp(data, lfs, sizeof lfs - 1) == 0;
}

enum mode_status mode_file_map(const char *path, struct mode_mapping *map, struct mode_error *err)
{
    struct stat sb;
    *map = (struct mode_mapping){0};
    int fd = mode_fresh_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe, which cannot be mapped,
                                                                          must not block */
    if (fd < 0) return mode_input_fail(err, errno, path, "be opened");
    if (fstat(fd, &sb) != 0) {
        const int e = errno;
        close(fd);
        return mode_input_fail(err, e, path, "be examined");
    }
    if (!S_ISREG(sb.st_mode)) {
        close(fd);
        return fail_not_a_file(path, sb.st_mode, err);
    }
    map->size = (size_t)sb.st_size;
    if (map->size == 0)
        map->data = empty_mapping;
    else {
        void *p = mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            int e = errno;
            close(fd);
            map->size = 0;
            return MODE_FAIL(err, MODE_E_IO, "%s: cannot be mapped: %s", path, strerror(e));
        }
        map->data = p;
    }
    close(fd);
    return MODE_OK;
}

void mode_file_unmap(struct mode_mapping *map)
{
    if (map->data && map->size > 0) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct mode_mapping){0};
}

static void to_hex(const unsigned char md[32], char hex[MODE_DIGEST_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = digits[md[i] >> 4];
        hex[2 * i + 1] = digits[md[i] & 15];
    }
    hex[64] = '\0';
}

void mode_digest_bytes(const void *data, size_t size, char hex[MODE_DIGEST_HEX])
{
    unsigned char md[32];
    MODE_ASSERT(EVP_Digest(data, size, md, NULL, EVP_sha256(), NULL) == 1);
    to_hex(md, hex);
}

static _Thread_local struct mode_digest_watch *watched;

void mode_digest_watch(struct mode_digest_watch *w)
{
    watched = w;
}

enum mode_status mode_digest_file(const char *path, char hex[MODE_DIGEST_HEX], uint64_t *size, struct mode_error *err)
{
    enum { CHUNK = 1 << 20 };
    enum mode_status st = MODE_OK;
    unsigned char md[32];
    uint64_t total = 0;
    struct stat sb;
    int fd = mode_fresh_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return mode_input_fail(err, errno, path, "be opened");
    if (fstat(fd, &sb) == 0 && !S_ISREG(sb.st_mode)) {
        close(fd);
        return fail_not_a_file(path, sb.st_mode, err);
    }
    char *buf = mode_xmalloc(CHUNK);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    MODE_ASSERT(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    for (;;) {
        ssize_t n = read(fd, buf, CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = MODE_FAIL(err, MODE_E_IO, "%s: reading failed: %s", path, strerror(errno));
            break;
        }
        if (n == 0) break;
        EVP_DigestUpdate(ctx, buf, (size_t)n);
        total += (uint64_t)n;
        if (!watched) continue;
        atomic_fetch_add(&watched->bytes, (uint64_t)n);
        if (atomic_load(&watched->stop)) {
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: reading it was stopped", path);
            break;
        }
    }
    EVP_DigestFinal_ex(ctx, md, NULL);
    EVP_MD_CTX_free(ctx);
    free(buf);
    close(fd);
    if (st) return st;
    to_hex(md, hex);
    if (size) *size = total;
    return MODE_OK;
}

enum mode_status mode_digest_line(struct mode_str *lines, const char *dir, const char *name, struct mode_error *err)
{
    char hex[MODE_DIGEST_HEX], *path = mode_path_join(dir, name);
    enum mode_status st = mode_digest_file(path, hex, NULL, err);
    if (!st) mode_str_printf(lines, "%s %s\n", name, hex);
    free(path);
    return st;
}
