/* The store on an NFS client with stale caches: a negative lookup is cached until the folder is revalidated, and so are
 * directory listings. Files that another machine has made meanwhile must still be seen. The client is modelled by
 * interposing the store's calls; decision 40 describes the real one. */
#include "base/file.h"
#include "base/fresh.h"
#include "base/str.h"
#include "store/artifacts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 64 };

static struct { /* the client's cache */
    char root[64];
    bool on;
    char *missing[MOST];
    size_t n;
    char *asked; /* the last one */
} client;

static bool is_above(const char *above, const char *path)
{
    const size_t n = strlen(above);
    return strncmp(path, above, n) == 0 && (!path[n] || path[n] == '/');
}

/* Whether the name is cached as missing; if not, it is looked up, and the result is cached. */
static bool believes_missing(const char *path)
{
    struct stat sb;
    if (!client.on || !is_above(client.root, path)) return false;
    for (size_t i = 0; i < client.n; i++)
        if (is_above(client.missing[i], path)) return true;
    char *first = mode_xstrdup(path), *above = mode_path_folder(first);
    if (syscall(SYS_newfstatat, AT_FDCWD, path, &sb, 0) == 0 || errno != ENOENT) goto out;
    while (syscall(SYS_newfstatat, AT_FDCWD, above, &sb, 0) != 0) { /* the highest missing one */
        free(first);
        first = above;
        above = mode_path_folder(first);
    }
    assert_true(client.n < MOST);
    client.missing[client.n++] = first;
    first = NULL;
out:
    free(first);
    free(above);
    return false;
}

static void forget(size_t i)
{
    free(client.missing[i]);
    client.missing[i] = client.missing[--client.n];
}

static void ask(const char *folder)
{
    free(client.asked);
    client.asked = folder ? mode_xstrdup(folder) : NULL;
}

/* ---- interposed calls, which some of our files call with the suffix 64 ---- */

#define BOTH(type, name, ...)                                                                                          \
    type as_##name(__VA_ARGS__) __asm__(#name);                                                                        \
    type as_##name##64(__VA_ARGS__) __asm__(#name "64");

BOTH(int, open, const char *path, int flags, mode_t mode)
BOTH(int, stat, const char *path, struct stat *sb)
BOTH(int, scandir, const char *path, struct dirent ***list) /* and filter, order: an empty list */

int as_open(const char *path, int flags, mode_t mode)
{
    errno = ENOENT;
    return !(flags & O_CREAT) && believes_missing(path) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int as_open64(const char *path, int flags, mode_t mode)
{
    return as_open(path, flags, mode);
}

int as_stat(const char *path, struct stat *sb)
{
    errno = ENOENT;
    return believes_missing(path) ? -1 : (int)syscall(SYS_newfstatat, AT_FDCWD, path, sb, 0);
}

int as_stat64(const char *path, struct stat *sb)
{
    return as_stat(path, sb);
}

int statx(int dir, const char *path, int flags, unsigned mask, struct statx *x)
{
    errno = ENOENT;
    if (believes_missing(path)) return -1;
    if (client.on && flags & AT_STATX_FORCE_SYNC) {
        ask(path);
        for (size_t i = client.n; i-- > 0;) {
            char *folder = mode_path_folder(client.missing[i]);
            if (strcmp(folder, path) == 0) forget(i);
            free(folder);
        }
    }
    return (int)syscall(SYS_statx, dir, path, flags, mask, x);
}

DIR *opendir(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && client.on && is_above(client.root, path) && (!client.asked || strcmp(client.asked, path) != 0))
        fail_msg("%s is listed as it may have been", path);
    ask(NULL);
    return fd < 0 ? NULL : fdopendir(fd);
}

int as_scandir(const char *path, struct dirent ***list)
{
    DIR *d = opendir(path);
    *list = NULL;
    if (d) closedir(d);
    return d ? 0 : -1;
}

int as_scandir64(const char *path, struct dirent ***list)
{
    return as_scandir(path, list);
}

/* ---- */

struct fixture {
    struct mode_store *here, *there;
    struct mode_error err;
};

static int set_up(void **state)
{
    struct fixture *f = mode_xcalloc(1, sizeof *f);
    memset(&client, 0, sizeof client);
    strcpy(client.root, "/tmp/mode-stale-XXXXXX");
    if (!mkdtemp(client.root)) return -1;
    assert_int_equal(mode_store_open(&f->there, client.root, &f->err), MODE_OK);
    assert_int_equal(mode_store_open(&f->here, client.root, &f->err), MODE_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    client.on = false;
    while (client.n) forget(0);
    ask(NULL);
    mode_store_close(&f->here);
    mode_store_close(&f->there);
    mode_dir_remove(client.root, NULL);
    free(f);
    return 0;
}

static void put(struct mode_store *s, char digest[MODE_DIGEST_HEX], const char *text)
{
    assert_int_equal(mode_store_put_bytes(s, digest, text, strlen(text), NULL), MODE_OK);
}

static void test_blobs(void **state)
{
    struct fixture *f = *state;
    char digest[MODE_DIGEST_HEX], *path;
    bool bad;
    for (int i = 0; i < 3; i++) { /* in a folder that is missing, too */
        char text[8] = {"abc"[i]};
        mode_digest_bytes(text, 1, digest);
        client.on = true;
        assert_false(mode_store_blob_exists(f->here, digest, 1));
        assert_int_equal(mode_store_blob_path(f->here, &path, digest, 1, &f->err), MODE_E_NOINPUT);
        client.on = false;
        put(f->there, digest, text);
        client.on = true;
        if (i == 0) assert_true(mode_store_blob_exists(f->here, digest, 1));
        if (i == 1) assert_int_equal(mode_store_blob_path(f->here, &path, digest, 1, &f->err), MODE_OK);
        if (i == 1) free(path);
        if (i == 2) assert_int_equal(mode_store_blob_check(f->here, &bad, digest, 1, &f->err), MODE_OK);
        if (i == 2) assert_false(bad);
    }
}

static enum mode_status count(void *ctx, const char *key, struct mode_error *err)
{
    (void)key;
    (void)err;
    ++*(int *)ctx;
    return MODE_OK;
}

static void test_records(void **state)
{
    struct fixture *f = *state;
    Mode__Commit c = MODE__COMMIT__INIT, *got;
    Mode__TaskSpec spec = MODE__TASK_SPEC__INIT, *task;
    char key[MODE_DIGEST_HEX];
    bool created;
    for (int i = 0; i < 2; i++) {
        mode_digest_bytes(&i, sizeof i, key);
        c.key = key;
        c.service = c.worker = (char *)"test";
        client.on = true;
        assert_false(mode_store_commit_exists(f->here, key));
        client.on = false;
        assert_int_equal(mode_store_commit_create(f->there, &created, NULL, &c, &f->err), MODE_OK);
        client.on = true;
        if (i == 0)
            assert_true(mode_store_commit_exists(f->here, key));
        else
            assert_int_equal(mode_store_commit_get(f->here, &got, key, &f->err), MODE_OK);
    }
    mode__commit__free_unpacked(got, NULL);
    int n = 0;
    ask(NULL);
    assert_int_equal(mode_store_commit_each(f->here, count, &n, &f->err), MODE_OK);
    assert_int_equal(n, 2);
    spec.service = spec.code_version = (char *)"test";
    mode_task_key(key, &spec);
    assert_int_equal(mode_store_task_get(f->here, &task, key, &f->err), MODE_E_NOINPUT);
    client.on = false;
    assert_int_equal(mode_store_task_put(f->there, key, &spec, &f->err), MODE_OK);
    client.on = true;
    assert_int_equal(mode_store_task_get(f->here, &task, key, &f->err), MODE_OK);
    mode__task_spec__free_unpacked(task, NULL);
}

/* A training is resumed from the other machine's newest checkpoint. */
static void test_checkpoints(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], *dir, *sub, *file, *latest;
    mode_digest_bytes("a", 1, key);
    client.on = true;
    assert_int_equal(mode_store_checkpoint_latest(f->here, &latest, key, NULL, &f->err), MODE_OK);
    assert_null(latest);
    client.on = false;
    assert_int_equal(mode_store_checkpoint_dir(f->there, &dir, key, 1, &f->err), MODE_OK);
    sub = mode_path_join(dir, "step-2");
    file = mode_path_join(sub, "weights");
    assert_int_equal(mode_dir_make(sub, &f->err), MODE_OK);
    assert_int_equal(mode_file_write_atomic(file, "w", 1, &f->err), MODE_OK);
    assert_int_equal(mode_store_checkpoint_done(f->there, key, 1, "step-2", &f->err), MODE_OK);
    client.on = true;
    assert_int_equal(mode_store_checkpoint_latest(f->here, &latest, key, NULL, &f->err), MODE_OK);
    assert_string_equal(latest, sub);
    client.on = false;
    free(latest);
    free(file);
    free(sub);
    free(dir);
}

static void test_epochs(void **state)
{
    struct fixture *f = *state;
    uint64_t n;
    client.on = true;
    assert_int_equal(mode_store_epoch_last(f->here, &n, &f->err), MODE_OK);
    assert_int_equal(n, 0);
    client.on = false;
    assert_int_equal(mode_store_epoch_take(f->there, &n, &f->err), MODE_OK);
    client.on = true;
    assert_int_equal(mode_store_epoch_last(f->here, &n, &f->err), MODE_OK);
    assert_int_equal(n, 1);
}

/* Files of any name and depth; and a missing file gives its own error. */
static void test_files(void **state)
{
    struct fixture *f = *state;
    struct mode_mapping map;
    char *file = mode_xasprintf("%s/a/b/c/file", client.root), *folder = mode_path_folder(file), *text, hex[65];
    struct dirent **list;
    client.on = true;
    assert_false(mode_file_exists(file));
    assert_int_equal(mode_file_read(file, 0, &text, NULL, &f->err), MODE_E_NOINPUT);
    assert_non_null(strstr(f->err.text, "No such file or directory"));
    assert_null(mode_fresh_opendir(folder));
    client.on = false;
    assert_int_equal(mode_dir_make(folder, &f->err), MODE_OK);
    assert_int_equal(mode_file_write_atomic(file, "text", 4, &f->err), MODE_OK);
    char *believed[MOST];
    const size_t n = client.n;
    for (size_t i = 0; i < n; i++) believed[i] = mode_xstrdup(client.missing[i]);
    for (int i = 0; i < 6; i++) { /* each separately, from the same stale cache */
        while (client.n) forget(0);
        for (client.n = 0; client.n < n; client.n++) client.missing[client.n] = mode_xstrdup(believed[client.n]);
        client.on = true;
        if (i == 0) assert_true(mode_file_exists(file));
        if (i == 1) assert_int_equal(mode_file_read(file, 0, &text, NULL, &f->err), MODE_OK);
        if (i == 2) assert_int_equal(mode_file_map(file, &map, &f->err), MODE_OK);
        if (i == 3) assert_int_equal(mode_digest_file(file, hex, NULL, &f->err), MODE_OK);
        if (i == 5) assert_int_equal(mode_fresh_scandir(folder, &list, NULL, NULL), 0);
        DIR *d = i == 4 ? mode_fresh_opendir(folder) : NULL;
        if (i == 4) assert_non_null(d);
        client.on = false;
        if (d) closedir(d);
    }
    mode_file_unmap(&map);
    assert_string_equal(text, "text");
    for (size_t i = 0; i < n; i++) free(believed[i]);
    free(text);
    free(folder);
    free(file);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_blobs), CASE(test_records), CASE(test_checkpoints), CASE(test_epochs), CASE(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
