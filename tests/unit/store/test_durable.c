/* The state after a power loss at any instant: no final name before its bytes are on disk, no record before the names
 * that it refers to are, no success reported before it is durable. Every relevant system call is intercepted: nothing
 * else would notice a missing fsync. */
#include "base/file.h"
#include "base/str.h"
#include "store/artifacts.h"
#include "store/gc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 256 };

static struct { /* the modelled state of the disk */
    char root[64];
    bool on;
    struct stat synced[MOST]; /* files whose bytes are on disk, and their state then */
    size_t n_synced;
    ino_t dirty[MOST]; /* folders whose entries are not synced */
    size_t n_dirty;
    int links_fail, links_lie; /* the next N calls: the file is gone; it succeeds, but the reply is lost */
    size_t writes;             /* at most that many bytes per call; 0 = all */
    int wrong;
    char what[512]; /* the first violation */
} disk;

static bool begins(const char *s, const char *head)
{
    return strncmp(s, head, strlen(head)) == 0;
}

/* The path below the root; NULL: outside of it, or where nothing has to be durable. */
static const char *place_of(const char *path)
{
    const size_t n = strlen(disk.root);
    if (!disk.on || !begins(path, disk.root) || path[n] != '/' || begins(path + n, "/tmp/")) return NULL;
    return strstr(path, "/from") ? NULL : path + n + 1;
}

static void complain(const char *path, const char *what)
{
    if (!disk.wrong++) snprintf(disk.what, sizeof disk.what, "%s %s", path, what);
}

static ino_t folder_of(const char *path)
{
    struct stat sb;
    char *dir = mode_path_folder(path);
    assert_int_equal(stat(dir, &sb), 0);
    free(dir);
    return sb.st_ino;
}

static bool is_dirty(ino_t folder)
{
    for (size_t i = 0; i < disk.n_dirty; i++)
        if (disk.dirty[i] == folder) return true;
    return false;
}

static void changes(const char *path)
{
    const ino_t folder = folder_of(path);
    if (is_dirty(folder)) return;
    assert_true(disk.n_dirty < MOST);
    disk.dirty[disk.n_dirty++] = folder;
}

static bool same_bytes(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static bool is_synced(const struct stat *sb)
{
    bool yes = false;
    for (size_t i = 0; !yes && i < disk.n_synced; i++) yes = same_bytes(&disk.synced[i], sb);
    return yes;
}

/* The files of this manifest's checkpoint. */
static bool all_synced(const char *manifest)
{
    char *folder = mode_xasprintf("%.*s", (int)(strlen(manifest) - strlen(".manifest")), manifest);
    DIR *d = opendir(folder);
    bool all = d != NULL;
    struct stat sb;
    for (const struct dirent *e; d && (e = readdir(d));)
        if (fstatat(dirfd(d), e->d_name, &sb, 0) == 0 && S_ISREG(sb.st_mode)) all &= is_synced(&sb);
    if (d) closedir(d);
    free(folder);
    return all;
}

/* A file gets its final name. */
static void named(const char *path)
{
    struct stat sb;
    const char *place = place_of(path);
    if (!place) return;
    if (stat(path, &sb) != 0 || (!S_ISDIR(sb.st_mode) && !is_synced(&sb)))
        complain(path, "has its name before its bytes are on disk");
    if (strstr(place, ".manifest") && !all_synced(path)) complain(path, "is there before the files that it lists");
    if ((begins(place, "commits/") || strstr(place, ".manifest")) && disk.n_dirty)
        complain(path, "is there before what it tells of has its names on disk");
    changes(path);
}

static void removed(const char *path)
{
    const char *place = place_of(path);
    char *records = mode_path_join(disk.root, "commits/x"), *slash, *manifest;
    if (place && begins(place, "commits/")) changes(path);
    if (place && begins(place, "blobs/") && is_dirty(folder_of(records)))
        complain(path, "is removed before it is certain that no record names it");
    if (place && begins(place, "ckpt/")) { /* a file of a checkpoint that counts? */
        manifest = mode_xstrdup(path);
        if ((slash = strrchr(manifest, '/'))) *slash = '\0';
        char *whole = mode_xasprintf("%s.manifest", manifest);
        if (mode_file_exists(whole)) complain(path, "is removed while its manifest says that it is whole");
        free(whole);
        free(manifest);
    }
    free(records);
}

/* ---- interposed system calls of the store ---- */

int fsync(int fd)
{
    struct stat sb;
    int rc = (int)syscall(SYS_fsync, fd);
    if (rc != 0 || !disk.on || fstat(fd, &sb) != 0) return rc;
    if (!S_ISDIR(sb.st_mode)) {
        assert_true(disk.n_synced < MOST);
        disk.synced[disk.n_synced++] = sb;
    }
    for (size_t i = 0; S_ISDIR(sb.st_mode) && i < disk.n_dirty; i++)
        if (disk.dirty[i] == sb.st_ino) disk.dirty[i--] = disk.dirty[--disk.n_dirty];
    return rc;
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    if (disk.links_fail && disk.links_fail-- == 1) {
        errno = ENOENT;
        return -1;
    }
    int rc = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (rc == 0) named(to);
    if (rc != 0 || !disk.links_lie) return rc;
    disk.links_lie--; /* as NFS does when a reply is lost and it retries */
    errno = EEXIST;
    return -1;
}

int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int rename(const char *from, const char *to)
{
    int rc = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (rc == 0) named(to);
    return rc;
}

int mkdir(const char *path, mode_t mode)
{
    int rc = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (rc == 0 && place_of(path)) changes(path);
    return rc;
}

ssize_t write(int fd, const void *data, size_t n)
{
    return syscall(SYS_write, fd, data, disk.writes && n > disk.writes ? disk.writes : n);
}

int unlink(const char *path)
{
    removed(path);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* ---- what was reported as done is durable ---- */

struct fixture {
    struct mode_store *store;
    struct mode_error err;
};

static void good(enum mode_status st, const char *what)
{
    assert_int_equal(st, MODE_OK);
    if (!disk.wrong && disk.n_dirty) complain(what, "is said to be done before its names are on disk");
    if (disk.wrong) fail_msg("%s", disk.what);
}

static int set_up(void **state)
{
    struct fixture *f = mode_xcalloc(1, sizeof *f);
    memset(&disk, 0, sizeof disk);
    strcpy(disk.root, "/tmp/mode-durable-XXXXXX");
    if (!mkdtemp(disk.root)) return -1;
    disk.on = true;
    good(mode_store_open(&f->store, disk.root, &f->err), "the store");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    disk.on = false;
    mode_store_close(&f->store);
    mode_dir_remove(disk.root, NULL);
    free(f);
    return 0;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void test_blobs_and_records(void **state)
{
    struct fixture *f = *state;
    char digest[MODE_DIGEST_HEX], key[MODE_DIGEST_HEX], far[] = "/dev/shm/mode-durable-XXXXXX";
    uint64_t size, epoch;
    bool created;
    char *out = mode_path_join(mode_store_tmp(f->store), "out"), *aside;
    write_file(out, "an output");
    good(mode_store_put_blob(f->store, digest, &size, out, &f->err), "a blob");
    int fd = mkstemp(far);
    if (fd >= 0) {
        assert_int_equal(write(fd, "far", 3), 3);
        close(fd);
        good(mode_store_put_blob(f->store, digest, &size, far, &f->err), "a blob of another disk");
        unlink(far);
    }
    good(mode_store_put_bytes(f->store, digest, "bytes", 5, &f->err), "bytes");
    char *path = mode_xasprintf("%s/blobs/%.2s/%s", disk.root, digest, digest);
    changes(path); /* its creator has not got further than that */
    good(mode_store_put_bytes(f->store, digest, "bytes", 5, &f->err), "bytes that somebody else put there just now");
    unlink(path);
    write_file(path, "byt");
    good(mode_store_put_bytes(f->store, digest, "bytes", 5, &f->err), "a blob that was damaged");
    Mode__TaskSpec spec = MODE__TASK_SPEC__INIT;
    spec.service = spec.code_version = (char *)"test";
    good(mode_store_task_put(f->store, key, &spec, &f->err), "a task");
    Mode__Blob b = MODE__BLOB__INIT, *blobs[] = {&b};
    Mode__Commit c = MODE__COMMIT__INIT;
    b.name = (char *)"out";
    b.digest = digest;
    b.size = 5;
    c.key = key;
    c.service = c.worker = (char *)"test";
    c.outputs = blobs;
    c.n_outputs = 1;
    for (int i = 0; i < 2; i++) {
        disk.links_lie = i == 0;
        good(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), "a record");
        assert_int_equal(created, i == 0);
    }
    good(mode_store_commit_aside(f->store, &aside, key, &f->err), "a record that is put aside");
    assert_non_null(aside);
    good(mode_store_epoch_take(f->store, &epoch, &f->err), "an epoch");
    free(aside);
    free(path);
    free(out);
}

static void test_checkpoints(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], name[32];
    mode_digest_bytes("a", 1, key);
    for (uint64_t fence = 1; fence < 3; fence++) {
        char *dir, *held;
        assert_int_equal(mode_store_checkpoint_dir(f->store, &dir, key, fence, &f->err), MODE_OK);
        assert_int_equal(mode_store_checkpoint_hold(f->store, &held, key, fence, NULL, &f->err), MODE_OK);
        assert_int_equal(held != NULL, fence > 1);
        for (int step = 1; step < 4; step++) {
            snprintf(name, sizeof name, "step-%d", step);
            char *folder = mode_path_join(dir, name), *file = mode_path_join(folder, "state");
            assert_int_equal(mode_dir_make(folder, &f->err), MODE_OK);
            write_file(file, "weights");
            good(mode_store_checkpoint_done(f->store, key, fence, name, &f->err), "a checkpoint");
            assert_int_equal(mode_store_checkpoint_done(f->store, key, fence, name, &f->err), MODE_E_VALUE); /* once */
            free(folder);
            free(file);
        }
        free(held);
        free(dir);
    }
}

/* A file that a successor is about to resume from is removed: it retries, and gets all files or none. */
static void test_a_checkpoint_that_goes_while_it_is_held(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], *dir, *held;
    mode_digest_bytes("b", 1, key);
    assert_int_equal(mode_store_checkpoint_dir(f->store, &dir, key, 1, &f->err), MODE_OK);
    char *folder = mode_path_join(dir, "step-1"), *file[] = {mode_path_join(folder, "a"), mode_path_join(folder, "b")};
    assert_int_equal(mode_dir_make(folder, &f->err), MODE_OK);
    for (int i = 0; i < 2; i++) write_file(file[i], "weights");
    good(mode_store_checkpoint_done(f->store, key, 1, "step-1", &f->err), "a checkpoint");
    disk.links_fail = 2;
    assert_int_equal(mode_store_checkpoint_hold(f->store, &held, key, 2, NULL, &f->err), MODE_OK);
    assert_int_equal(disk.links_fail, 0);
    for (int i = 0; i < 2; i++) {
        char *mine = mode_path_join(held, mode_path_base(file[i]));
        assert_true(mode_file_exists(mine));
        free(mine);
        free(file[i]);
    }
    free(held);
    free(folder);
    free(dir);
}

/* Also with short writes. */
static void test_a_file_that_is_written_whole_or_not_at_all(void **state)
{
    struct fixture *f = *state;
    char *path = mode_path_join(disk.root, "runs"), *text, digest[MODE_DIGEST_HEX], want[MODE_DIGEST_HEX];
    disk.writes = 3;
    for (int i = 0; i < 2; i++) good(mode_file_write_atomic(path, "some text", 9, &f->err), "a file");
    assert_int_equal(mode_file_read(path, 0, &text, NULL, &f->err), MODE_OK);
    assert_string_equal(text, "some text");
    free(text);
    free(path);
    good(mode_store_put_bytes(f->store, digest, "some text", 9, &f->err), "bytes");
    assert_int_equal(mode_store_blob_path(f->store, &path, digest, 9, &f->err), MODE_OK);
    assert_int_equal(mode_digest_file(path, want, NULL, &f->err), MODE_OK);
    assert_string_equal(digest, want);
    free(path);
}

static bool needs_nothing(void *ctx, const char *key)
{
    (void)ctx;
    (void)key;
    return false;
}

static enum mode_gc_kind keeps_nothing(void *ctx, const char *digest)
{
    (void)ctx;
    (void)digest;
    return MODE_GC_BLOBS;
}

static void test_what_is_freed(void **state)
{
    struct fixture *f = *state;
    test_blobs_and_records(state);
    test_checkpoints(state);
    mode_store_close(&f->store);
    assert_int_equal(mode_store_open_alone(&f->store, disk.root, &f->err), MODE_OK);
    struct mode_gc gc = {.needs_task = needs_nothing, .keeps_blob = keeps_nothing};
    assert_int_equal(mode_store_gc(f->store, &gc, &f->err), MODE_OK);
    assert_true(gc.sum[MODE_GC_COMMITS].files > 0 && gc.sum[MODE_GC_BLOBS].files > 0);
    if (disk.wrong) fail_msg("%s", disk.what);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_blobs_and_records),
        T(test_checkpoints),
        T(test_a_checkpoint_that_goes_while_it_is_held),
        T(test_a_file_that_is_written_whole_or_not_at_all),
        T(test_what_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
