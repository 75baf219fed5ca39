/* The artifact store: published files are complete, a task is committed once, whichever process dies at any time. */
#include "base/rng.h"
#include "base/str.h"
#include "store/artifacts.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64];
    struct mode_store *store;
    struct mode_error err;
};

static int set_up(void **state)
{
    struct fixture *f = mode_xcalloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/mode-store-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    if (mode_store_open(&f->store, f->dir, &f->err)) return -1;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    mode_store_close(&f->store);
    mode_dir_remove(f->dir, NULL);
    free(f);
    return 0;
}

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static char *blob_file(const struct fixture *f, const char *digest)
{
    return mode_xasprintf("%s/blobs/%.2s/%s", f->dir, digest, digest);
}

static void key_of(char key[MODE_DIGEST_HEX], int n)
{
    mode_digest_bytes(&n, sizeof n, key);
}

static Mode__Commit commit_of(char *key, uint64_t fence, Mode__Blob **blobs, size_t n)
{
    Mode__Commit c = MODE__COMMIT__INIT;
    c.key = key;
    c.service = "test";
    c.outputs = blobs;
    c.n_outputs = n;
    c.rows_in = 3;
    c.rows_out = 3;
    c.fence = fence;
    c.attempt = 1;
    c.worker = "w";
    c.seconds = 1.5;
    return c;
}

static void test_blob_is_published_by_digest_and_read_back(void **state)
{
    struct fixture *f = *state;
    char digest[MODE_DIGEST_HEX], want[MODE_DIGEST_HEX], *path, *text;
    uint64_t size;
    size_t n;
    char *src = mode_xasprintf("%s/tmp/out.bin", f->dir);
    write_file(src, "hello", 5);
    mode_digest_bytes("hello", 5, want);
    assert_int_equal(mode_store_put_blob(f->store, digest, &size, src, &f->err), MODE_OK);
    assert_string_equal(digest, want);
    assert_int_equal(size, 5);
    assert_int_equal(mode_store_put_blob(f->store, digest, &size, src, &f->err), MODE_OK); /* again is fine */
    assert_int_equal(mode_store_blob_path(f->store, &path, digest, 5, &f->err), MODE_OK);
    assert_int_equal(mode_file_read(path, 0, &text, &n, &f->err), MODE_OK);
    assert_memory_equal(text, "hello", 5);
    free(text);
    free(path);
    assert_int_equal(mode_store_blob_path(f->store, &path, digest, 6, &f->err), MODE_E_FORMAT);
    assert_null(path);
    unlink(src);
    assert_int_equal(mode_store_put_bytes(f->store, digest, "hello", 5, &f->err), MODE_OK);
    assert_string_equal(digest, want);
    free(src);
}

static void test_blob_from_another_filesystem_is_copied(void **state)
{
    struct fixture *f = *state;
    char digest[MODE_DIGEST_HEX], src[] = "/dev/shm/mode-store-XXXXXX", *path;
    uint64_t size;
    int fd = mkstemp(src);
    if (fd < 0) {
        print_message("SKIPPED: no /dev/shm here\n");
        skip();
    }
    assert_int_equal(write(fd, "far", 3), 3);
    close(fd);
    assert_int_equal(mode_store_put_blob(f->store, digest, &size, src, &f->err), MODE_OK);
    unlink(src);
    assert_int_equal(mode_store_blob_path(f->store, &path, digest, 3, &f->err), MODE_OK);
    free(path);
}

static void test_a_symbolic_link_is_published_as_the_file_it_names(void **state)
{
    struct fixture *f = *state;
    char digest[MODE_DIGEST_HEX], *path;
    uint64_t size;
    struct stat sb;
    char *real = mode_xasprintf("%s/tmp/real", f->dir), *sym = mode_xasprintf("%s/tmp/sym", f->dir);
    write_file(real, "abc", 3);
    assert_int_equal(symlink(real, sym), 0);
    assert_int_equal(mode_store_put_blob(f->store, digest, &size, sym, &f->err), MODE_OK);
    unlink(real);
    unlink(sym);
    assert_int_equal(mode_store_blob_path(f->store, &path, digest, 3, &f->err), MODE_OK);
    assert_int_equal(lstat(path, &sb), 0);
    assert_true(S_ISREG(sb.st_mode));
    free(path);
    free(real);
    free(sym);
}

static void test_damaged_blobs_are_found_and_healed(void **state)
{
    struct fixture *f = *state;
    char digest[MODE_DIGEST_HEX], *path;
    mode_digest_bytes("good bytes", 10, digest);
    char *name = blob_file(f, digest);
    char *dir = mode_xasprintf("%s/blobs/%.2s", f->dir, digest);
    assert_int_equal(mode_dir_make(dir, &f->err), MODE_OK);
    const char *wrong[] = {"", "good", "evil bytes"}; /* empty, torn, flipped */
    for (int i = 0; i < 3; i++) {
        unlink(name);
        write_file(name, wrong[i], strlen(wrong[i]));
        assert_int_equal(mode_store_blob_path(f->store, &path, digest, 10, &f->err), MODE_E_FORMAT);
        assert_non_null(strstr(f->err.text, "damaged"));
        char again[MODE_DIGEST_HEX];
        assert_int_equal(mode_store_put_bytes(f->store, again, "good bytes", 10, &f->err), MODE_OK);
        assert_int_equal(mode_store_blob_path(f->store, &path, digest, 10, &f->err), MODE_OK);
        free(path);
    }
    struct stat sb;
    bool bad;
    assert_int_equal(mode_store_blob_check(f->store, &bad, digest, 10, &f->err), MODE_OK);
    assert_false(bad);
    assert_int_equal(stat(name, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0444); /* protected against accidental writes */
    /* changed after it was verified in this process */
    chmod(name, 0644);
    write_file(name, "evil bytes", 10);
    assert_int_equal(mode_store_blob_check(f->store, &bad, digest, 10, &f->err), MODE_OK);
    assert_true(bad);
    assert_int_equal(mode_store_blob_path(f->store, &path, digest, 10, &f->err), MODE_E_FORMAT);
    free(dir);
    free(name);
}

static void test_keys_that_are_no_keys_never_become_paths(void **state)
{
    struct fixture *f = *state;
    const char *bad[] = {"", "../../../../etc/passwd",
                         "ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789",
                         "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde",
                         "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *path;
        Mode__TaskSpec *t;
        Mode__Commit *c;
        assert_false(mode_key_valid(bad[i]));
        assert_int_equal(mode_store_blob_path(f->store, &path, bad[i], 0, &f->err), MODE_E_VALUE);
        assert_int_equal(mode_store_task_get(f->store, &t, bad[i], &f->err), MODE_E_VALUE);
        assert_int_equal(mode_store_commit_get(f->store, &c, bad[i], &f->err), MODE_E_VALUE);
        assert_int_equal(mode_store_checkpoint_dir(f->store, &path, bad[i], 1, &f->err), MODE_E_VALUE);
        assert_false(mode_store_commit_exists(f->store, bad[i]));
    }
}

static void test_tasks_are_named_by_their_bytes(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], key2[MODE_DIGEST_HEX], digest[MODE_DIGEST_HEX];
    key_of(digest, 1);
    Mode__Input in = MODE__INPUT__INIT, *ins[] = {&in};
    in.name = "captions/0000";
    in.digest = digest;
    in.size = 9;
    Mode__TaskSpec t = MODE__TASK_SPEC__INIT, *got;
    t.service = "embed";
    t.code_version = "1";
    t.request = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
    t.inputs = ins;
    t.n_inputs = 1;
    assert_int_equal(mode_store_task_put(f->store, key, &t, &f->err), MODE_OK);
    assert_int_equal(mode_store_task_put(f->store, key2, &t, &f->err), MODE_OK);
    assert_string_equal(key, key2);
    assert_int_equal(mode_store_task_get(f->store, &got, key, &f->err), MODE_OK);
    assert_string_equal(got->inputs[0]->name, "captions/0000");
    mode__task_spec__free_unpacked(got, NULL);
    t.code_version = "2";
    mode_task_key(key2, &t);
    assert_string_not_equal(key, key2);
    assert_int_equal(mode_store_task_get(f->store, &got, key2, &f->err), MODE_E_NOINPUT);
    char *path = mode_xasprintf("%s/tasks/%s", f->dir, key), *text, *at;
    size_t n;
    chmod(path, 0644);
    assert_int_equal(mode_file_read(path, 0, &text, &n, &f->err), MODE_OK);
    assert_non_null(at = memmem(text, n, "abc", 3)); /* still a valid task, but another one */
    *at = 'x';
    write_file(path, text, n);
    free(text);
    assert_int_equal(mode_store_task_get(f->store, &got, key, &f->err), MODE_E_FORMAT);
    assert_null(got);
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(mode_store_task_get(f->store, &got, key, &f->err), MODE_E_FORMAT);
    free(path);
}

/* Many processes commit the same tasks at the same time; each record has exactly one creator and all see the
 * same winner. */
static void test_concurrent_committers_have_one_winner(void **state)
{
    struct fixture *f = *state;
    enum { PROCESSES = 12, TASKS = 20 };
    struct shared {
        int go, created[TASKS], errors;
        uint64_t seen[PROCESSES][TASKS];
    } *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(sh, MAP_FAILED);
    pid_t pid[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        pid[p] = fork();
        if (pid[p] > 0) continue;
        struct mode_store *store;
        struct mode_error err;
        if (mode_store_open(&store, f->dir, &err)) _exit(1);
        __atomic_add_fetch(&sh->go, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&sh->go, __ATOMIC_SEQ_CST) < PROCESSES) sched_yield();
        for (int t = 0; t < TASKS; t++) {
            char key[MODE_DIGEST_HEX];
            bool created;
            Mode__Commit *winner = NULL;
            key_of(key, t);
            Mode__Commit c = commit_of(key, (uint64_t)p + 1, NULL, 0);
            if (mode_store_commit_create(store, &created, &winner, &c, &err)) {
                fprintf(stderr, "%s\n", err.text);
                __atomic_add_fetch(&sh->errors, 1, __ATOMIC_SEQ_CST);
                continue;
            }
            if (created) __atomic_add_fetch(&sh->created[t], 1, __ATOMIC_SEQ_CST);
            if (created && winner->fence != (uint64_t)p + 1) __atomic_add_fetch(&sh->errors, 1, __ATOMIC_SEQ_CST);
            sh->seen[p][t] = winner->fence;
            mode__commit__free_unpacked(winner, NULL);
        }
        mode_store_close(&store);
        _exit(0);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        assert_int_equal(waitpid(pid[p], &status, 0), pid[p]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(sh->errors, 0);
    for (int t = 0; t < TASKS; t++) {
        assert_int_equal(sh->created[t], 1);
        for (int p = 1; p < PROCESSES; p++) assert_int_equal(sh->seen[p][t], sh->seen[0][t]);
    }
    munmap(sh, sizeof *sh);
}

static enum mode_status count_key(void *ctx, const char *key, struct mode_error *err)
{
    (void)key;
    (void)err;
    ++*(int *)ctx;
    return MODE_OK;
}

static void test_commits_name_published_blobs_only_and_torn_records_are_reported(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], digest[MODE_DIGEST_HEX], *text;
    bool created;
    size_t n;
    int count = 0;
    Mode__Commit *got;
    key_of(key, 7);
    key_of(digest, 8);
    Mode__Blob b = MODE__BLOB__INIT, *bs[] = {&b};
    b.name = "out";
    b.digest = digest;
    b.size = 4;
    Mode__Commit c = commit_of(key, 1, bs, 1);
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), MODE_E_VALUE);
    assert_false(mode_store_commit_exists(f->store, key));
    assert_int_equal(mode_store_put_bytes(f->store, digest, "data", 4, &f->err), MODE_OK);
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), MODE_OK);
    assert_true(created);
    assert_int_equal(mode_store_commit_each(f->store, count_key, &count, &f->err), MODE_OK);
    assert_int_equal(count, 1);
    /* truncated at every byte: never read as a complete one */
    char *path = mode_xasprintf("%s/commits/%s", f->dir, key);
    assert_int_equal(mode_file_read(path, 0, &text, &n, &f->err), MODE_OK);
    unlink(path);
    for (size_t cut = 0; cut < n; cut++) {
        write_file(path, text, cut);
        assert_int_equal(mode_store_commit_get(f->store, &got, key, &f->err), MODE_E_FORMAT);
        assert_null(got);
    }
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), MODE_E_FORMAT);
    free(path);
    /* intact, but of another task */
    key_of(key, 9);
    path = mode_xasprintf("%s/commits/%s", f->dir, key);
    write_file(path, text, n);
    assert_int_equal(mode_store_commit_get(f->store, &got, key, &f->err), MODE_E_FORMAT);
    assert_null(got);
    assert_non_null(strstr(f->err.text, "it is the record of another task"));
    free(text);
    free(path);
}

/* Every single bit of a commit record counts; a record of a version that did not seal them is still read. */
static void test_a_flipped_bit_of_a_commit_is_noticed(void **state)
{
    struct fixture *f = *state;
    Mode__Commit *got;
    char key[MODE_DIGEST_HEX], *data;
    size_t size;
    bool created;
    mode_digest_bytes("flip", 4, key);
    Mode__Commit c = commit_of(key, 1, NULL, 0);
    c.note = "{\"loss\": 0.5}";
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), MODE_OK);
    assert_int_equal(mode_store_commit_get(f->store, &got, key, &f->err), MODE_OK);
    mode__commit__free_unpacked(got, NULL);
    char *path = mode_xasprintf("%s/commits/%s", f->dir, key);
    assert_int_equal(mode_file_read(path, 1 << 20, &data, &size, &f->err), MODE_OK);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        data[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(mode_file_write_atomic(path, data, size, &f->err), MODE_OK);
        if (mode_store_commit_get(f->store, &got, key, &f->err) != MODE_E_FORMAT)
            fail_msg("bit %zu of %zu bytes flipped, and the record is read", bit, size);
        data[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_int_equal(mode_file_write_atomic(path, data + 2, size - 68, &f->err), MODE_OK);
    assert_int_equal(mode_store_commit_get(f->store, &got, key, &f->err), MODE_OK);
    assert_string_equal(got->note, c.note);
    assert_null(got->seal);
    mode__commit__free_unpacked(got, NULL);
    free(path);
    free(data);
}

/* Kill publishers at random instants; afterwards every blob is whole and every commit's outputs are there. */
static void test_killed_publishers_leave_nothing_torn(void **state)
{
    struct fixture *f = *state;
    int commits = 0;
    for (int round = 0; round < 25; round++) {
        int alive[2];
        char byte;
        assert_int_equal(pipe(alive), 0);
        pid_t pid = fork();
        if (pid == 0) {
            struct mode_store *store;
            if (mode_store_open(&store, f->dir, NULL)) _exit(1);
            for (int i = 0;; i++) {
                char key[MODE_DIGEST_HEX], digest[MODE_DIGEST_HEX], data[3000];
                bool created;
                uint64_t size;
                key_of(key, 1000 * round + i);
                memset(data, round + i, sizeof data);
                memcpy(data, key, 64);
                char *src = mode_xasprintf("%s/src-%d", mode_store_tmp(store), round);
                unlink(src);
                FILE *o = fopen(src, "wb");
                fwrite(data, 1, sizeof data, o);
                fclose(o);
                if (mode_store_put_blob(store, digest, &size, src, NULL)) _exit(2);
                Mode__Blob b = MODE__BLOB__INIT, *bs[] = {&b};
                b.name = "out";
                b.digest = digest;
                b.size = size;
                Mode__Commit c = commit_of(key, 1, bs, 1);
                if (mode_store_commit_create(store, &created, NULL, &c, NULL)) _exit(3);
                if (write(alive[1], "c", 1) != 1) _exit(4);
                free(src);
            }
        }
        struct mode_rng r = mode_rng_for(5, MODE_RNG_TEST, 0, (uint64_t)round);
        close(alive[1]);
        assert_int_equal(read(alive[0], &byte, 1), 1); /* at least one commit, however slow the machine is */
        usleep((useconds_t)mode_rng_below(&r, 20000));
        kill(pid, SIGKILL);
        close(alive[0]);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
    }
    for (int round = 0; round < 25; round++)
        for (int i = 0; i < 1000; i++) {
            char key[MODE_DIGEST_HEX], *path;
            Mode__Commit *c;
            key_of(key, 1000 * round + i);
            enum mode_status st = mode_store_commit_get(f->store, &c, key, &f->err);
            if (st == MODE_E_NOINPUT) break; /* it was killed here */
            assert_int_equal(st, MODE_OK);
            assert_int_equal(mode_store_blob_path(f->store, &path, c->outputs[0]->digest, c->outputs[0]->size, &f->err),
                             MODE_OK);
            free(path);
            mode__commit__free_unpacked(c, NULL);
            commits++;
        }
    assert_true(commits >= 25);
    uint64_t removed;
    assert_int_equal(mode_store_sweep_tmp(f->store, 3600, &removed, NULL, NULL, &f->err), MODE_OK);
    assert_int_equal(removed, 0); /* too young */
    assert_int_equal(mode_store_sweep_tmp(f->store, 0, &removed, NULL, NULL, &f->err), MODE_OK);
    assert_true(removed > 0);
}

static bool is_in_use(void *name, const char *entry)
{
    return strcmp(entry, name) == 0;
}

/* Another user's leftovers cannot be removed: they are reported and skipped. Folders in use stay, too. */
static void test_a_sweep_passes_over_what_it_cannot_remove(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"a", "b", "job-1", "stuck", "c", "d", "e"};
    bool root = geteuid() == 0;
    uint64_t removed;
    const char *tmp = mode_store_tmp(f->store);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *dir = mode_path_join(tmp, names[i]), *file = mode_path_join(dir, "x");
        assert_int_equal(mode_dir_make(dir, &f->err), MODE_OK);
        assert_int_equal(mode_file_write_atomic(file, "x", 1, &f->err), MODE_OK);
        if (strcmp(names[i], "stuck") == 0) assert_int_equal(chmod(dir, root ? 0755 : 0500), 0);
        if (root && strcmp(names[i], "stuck") != 0) assert_int_equal(chmod(dir, 0777), 0);
        free(file);
        free(dir);
    }
    if (root) { /* root may remove anything */
        assert_int_equal(chmod(mode_store_root(f->store), 0755), 0);
        assert_int_equal(chmod(tmp, 0777), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    enum mode_status st = mode_store_sweep_tmp(f->store, 0, &removed, is_in_use, (void *)(uintptr_t) "job-1", &f->err);
    if (root) assert_int_equal(seteuid(0), 0);
    assert_int_not_equal(st, MODE_OK);
    assert_non_null(strstr(f->err.text, "stuck"));
    assert_int_equal(removed, 5);
    char *stuck = mode_path_join(tmp, "stuck"), *job = mode_path_join(tmp, "job-1");
    assert_true(mode_file_exists(stuck));
    assert_true(mode_file_exists(job));
    chmod(stuck, 0700);
    free(stuck);
    free(job);
}

/* Every kind of write, with only some bytes of space: the error says so, nothing is left at a final name, and it works
 * once there is space. Runs in a child; returns its exit code. */
static int fill_the_disk(const char *dir)
{
    struct mode_store *store;
    struct mode_error err = {0};
    char digest[MODE_DIGEST_HEX], want[MODE_DIGEST_HEX], key[MODE_DIGEST_HEX], *big = calloc(1, 3 << 20);
    bool created;
    if (mode_store_open(&store, dir, &err)) return 1;
    mode_digest_bytes(big, 3 << 20, want);
    if (mode_store_put_bytes(store, digest, big, 3 << 20, &err) != MODE_E_IO) return 2; /* tmpfs of 2 MiB */
    if (!strstr(err.text, "full")) return 3;
    if (mode_store_blob_exists(store, want, 3 << 20)) return 4;
    char *filler = mode_path_join(dir, "filler");
    FILE *f = fopen(filler, "wb");
    while (fwrite(big, 1, 4096, f) == 4096 && fflush(f) == 0) continue;
    fclose(f);
    key_of(key, 1);
    Mode__Commit c = commit_of(key, 1, NULL, 0);
    if (mode_store_commit_create(store, &created, NULL, &c, &err) != MODE_E_IO) return 5;
    if (!strstr(err.text, "full") || mode_store_commit_exists(store, key)) return 6;
    unlink(filler);
    if (mode_store_commit_create(store, &created, NULL, &c, &err) != MODE_OK || !created) return 7;
    if (mode_store_put_bytes(store, digest, big, 1 << 20, &err) != MODE_OK) return 8;
    uint64_t removed;
    if (mode_store_sweep_tmp(store, 0, &removed, NULL, NULL, &err) != MODE_OK || removed != 0)
        return 9; /* cleaned up after itself */
    mode_store_close(&store);
    free(filler);
    free(big);
    return 0;
}

static void test_a_full_disk_is_a_sentence_and_tears_nothing(void **state)
{
    struct fixture *f = *state;
    char *dir = mode_path_join(f->dir, "small");
    assert_int_equal(mkdir(dir, 0700), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("small", dir, "tmpfs", 0, "size=2m") != 0)
            _exit(77);
        _exit(fill_the_disk(dir));
    }
    int status;
    waitpid(pid, &status, 0);
    free(dir);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("SKIPPED: mounting a small tmpfs is not permitted here; the file size limit below "
                      "covers part of it\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_a_file_size_limit_is_a_sentence_and_tears_nothing(void **state)
{
    struct fixture *f = *state;
    struct rlimit old, small;
    char digest[MODE_DIGEST_HEX], want[MODE_DIGEST_HEX], *big = mode_xcalloc(1, 100000);
    mode_digest_bytes(big, 100000, want);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    for (rlim_t limit = 0; limit < 100000; limit += 9999) {
        small.rlim_cur = limit;
        setrlimit(RLIMIT_FSIZE, &small);
        enum mode_status st = mode_store_put_bytes(f->store, digest, big, 100000, &f->err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(st, MODE_E_IO);
        assert_non_null(strstr(f->err.text, "limit"));
        assert_false(mode_store_blob_exists(f->store, want, 100000));
    }
    assert_int_equal(mode_store_put_bytes(f->store, digest, big, 100000, &f->err), MODE_OK);
    free(big);
}

static void test_epochs_never_repeat(void **state)
{
    struct fixture *f = *state;
    enum { PROCESSES = 8, EACH = 10 };
    pid_t pid[PROCESSES];
    uint64_t e;
    int *taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(mode_store_epoch_last(f->store, &e, &f->err), MODE_OK);
    assert_int_equal(e, 0);
    for (int p = 0; p < PROCESSES; p++)
        if ((pid[p] = fork()) == 0) {
            for (int i = 0; i < EACH; i++) {
                if (mode_store_epoch_take(f->store, &e, NULL)) _exit(1);
                __atomic_add_fetch(&taken[e], 1, __ATOMIC_SEQ_CST);
            }
            _exit(0);
        }
    for (int p = 0; p < PROCESSES; p++) waitpid(pid[p], NULL, 0);
    for (int i = 1; i <= PROCESSES * EACH; i++) assert_int_equal(taken[i], 1);
    assert_int_equal(mode_store_epoch_last(f->store, &e, &f->err), MODE_OK);
    assert_int_equal(e, PROCESSES * EACH);
    munmap(taken, 4096);
}

static void checkpoint(struct fixture *f, const char *key, uint64_t fence, const char *name, const char *text,
                       enum mode_status want)
{
    char *dir, *folder, *file;
    assert_int_equal(mode_store_checkpoint_dir(f->store, &dir, key, fence, &f->err), MODE_OK);
    folder = mode_path_join(dir, name);
    file = mode_path_join(folder, "state");
    assert_int_equal(mode_dir_make(folder, &f->err), MODE_OK);
    write_file(file, text, strlen(text));
    if (want == MODE_OK) assert_int_equal(mode_store_checkpoint_done(f->store, key, fence, name, &f->err), MODE_OK);
    free(file);
    free(folder);
    free(dir);
}

static void expect_latest(struct fixture *f, const char *key, const char *tail, uint32_t damaged)
{
    char *path;
    uint32_t bad;
    assert_int_equal(mode_store_checkpoint_latest(f->store, &path, key, &bad, &f->err), MODE_OK);
    assert_int_equal(bad, damaged);
    if (!tail) {
        assert_null(path);
        return;
    }
    assert_non_null(path);
    assert_true(strlen(path) > strlen(tail) && strcmp(path + strlen(path) - strlen(tail), tail) == 0);
    free(path);
}

static void test_checkpoints_are_whole_newest_first_and_fenced(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    uint64_t old = UINT64_C(1) << 32 | 5, new = UINT64_C(2) << 32 | 1;
    key_of(key, 3);
    expect_latest(f, key, NULL, 0);
    checkpoint(f, key, old, "step-100", "a", MODE_OK);
    expect_latest(f, key, "/0000000100000005/step-100", 0);
    checkpoint(f, key, old, "step-20", "b", MODE_OK); /* newer although its name sorts before */
    expect_latest(f, key, "/step-20", 0);
    checkpoint(f, key, old, "step-300", "c", MODE_E_STOPPED); /* killed before it was declared complete */
    expect_latest(f, key, "/step-20", 0);
    checkpoint(f, key, new, "step-200", "d", MODE_OK);
    checkpoint(f, key, old, "step-400", "e", MODE_OK); /* the zombie continues: the successor's stays the newest */
    expect_latest(f, key, "/0000000200000001/step-200", 0);
    /* if it is damaged, the previous one is used */
    char *file = mode_xasprintf("%s/ckpt/%s/0000000200000001/step-200/state", f->dir, key);
    write_file(file, "x", 1);
    expect_latest(f, key, "/0000000100000005/step-400", 1);
    free(file);
    char *gone = mode_xasprintf("%s/ckpt/%s/0000000100000005/step-100", f->dir, key);
    assert_false(mode_file_exists(gone)); /* only the newest two stay */
    free(gone);
    assert_int_equal(mode_store_checkpoint_remove(f->store, key, &f->err), MODE_OK);
    expect_latest(f, key, NULL, 0);
}

/* A disconnected attempt continues and removes its older checkpoints, also those that its successor holds. */
static void test_a_checkpoint_that_is_gone_on_from_stays(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], *held, *text;
    uint32_t bad;
    const uint64_t old = UINT64_C(1) << 32 | 5, new = UINT64_C(1) << 32 | 6;
    key_of(key, 5);
    assert_int_equal(mode_store_checkpoint_hold(f->store, &held, key, new, &bad, &f->err), MODE_OK);
    assert_null(held);
    checkpoint(f, key, old, "step-1", "one", MODE_OK);
    assert_int_equal(mode_store_checkpoint_hold(f->store, &held, key, new, &bad, &f->err), MODE_OK);
    assert_non_null(held);
    assert_int_equal(bad, 0);
    checkpoint(f, key, old, "step-2", "two", MODE_OK);
    checkpoint(f, key, old, "step-3", "three", MODE_OK);
    char *gone = mode_xasprintf("%s/ckpt/%s/0000000100000005/step-1", f->dir, key),
         *file = mode_path_join(held, "state");
    assert_false(mode_file_exists(gone));
    assert_int_equal(mode_file_read(file, 0, &text, NULL, &f->err), MODE_OK);
    assert_string_equal(text, "one");
    free(text);
    expect_latest(f, key, "/0000000100000005/step-3", 0); /* the held one is not its own checkpoint */
    /* retried by the same attempt: now the newest, and nothing of the held one */
    free(held);
    assert_int_equal(mode_store_checkpoint_hold(f->store, &held, key, new, &bad, &f->err), MODE_OK);
    assert_int_equal(mode_file_read(file, 0, &text, NULL, &f->err), MODE_OK);
    assert_string_equal(text, "three");
    free(text);
    checkpoint(f, key, new, "step-4", "four", MODE_OK);
    assert_false(mode_file_exists(held)); /* it has one of its own now */
    expect_latest(f, key, "/0000000100000006/step-4", 0);
    free(held);
    free(gone);
    free(file);
}

/* Another process removes all during the lookup: a checkpoint is found complete or not at all. */
static void *makes_checkpoints(void *ctx)
{
    struct fixture *f = ctx;
    char key[MODE_DIGEST_HEX], name[24];
    key_of(key, 6);
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof name, "step-%d", i);
        checkpoint(f, key, 7, name, name, MODE_OK);
    }
    return NULL;
}

static void test_a_checkpoint_is_held_whole_while_others_come_and_go(void **state)
{
    struct fixture *f = *state, mine = *f;
    char key[MODE_DIGEST_HEX], *held, *text;
    pthread_t thread;
    key_of(key, 6);
    assert_int_equal(mode_store_open(&mine.store, f->dir, &f->err), MODE_OK);
    assert_int_equal(pthread_create(&thread, NULL, makes_checkpoints, &mine), 0);
    for (bool last = false; !last;) {
        last = pthread_tryjoin_np(thread, NULL) == 0;
        enum mode_status st = mode_store_checkpoint_hold(f->store, &held, key, 8, NULL, &f->err);
        if (st == MODE_E_TEMP) continue;
        assert_int_equal(st, MODE_OK);
        if (!held) continue;
        char *file = mode_path_join(held, "state");
        assert_int_equal(mode_file_read(file, 0, &text, NULL, &f->err), MODE_OK);
        assert_memory_equal(text, "step-", 5);
        if (last) assert_string_equal(text, "step-59");
        free(text);
        free(file);
        free(held);
    }
    mode_store_close(&mine.store);
}

static bool is_key(void *ctx, const char *key)
{
    return strcmp(ctx, key) == 0;
}

/* Everything of a task's checkpoints was last touched so long ago. */
static void make_old(const struct fixture *f, const char *key, long seconds)
{
    char *line = mode_xasprintf("find '%s/ckpt/%s' -exec touch -d '%ld seconds ago' {} +", f->dir, key, seconds);
    assert_int_equal(system(line), 0);
    free(line);
}

static void test_checkpoints_that_nobody_wants_are_swept(void **state)
{
    struct fixture *f = *state;
    enum { DONE, WANTED, OLD, YOUNG, N };
    static const bool stays[N] = {[WANTED] = true, [YOUNG] = true};
    char key[N][MODE_DIGEST_HEX];
    bool created;
    uint64_t n;
    for (int i = 0; i < N; i++) {
        key_of(key[i], 20 + i);
        checkpoint(f, key[i], 7, "step-10", "a", MODE_OK);
        checkpoint(f, key[i], 8, "step-20", "b", MODE_E_STOPPED);
        make_old(f, key[i], i == YOUNG ? 30 : 5000);
    }
    Mode__Commit c = MODE__COMMIT__INIT;
    c.key = key[DONE];
    c.service = c.worker = (char *)"train";
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), MODE_OK);
    assert_int_equal(mode_store_checkpoint_sweep(f->store, &n, is_key, key[WANTED], 1000, &f->err), MODE_OK);
    assert_int_equal(n, 2);
    for (int i = 0; i < N; i++) {
        char *dir = mode_xasprintf("%s/ckpt/%s", f->dir, key[i]);
        assert_int_equal(mode_file_exists(dir), stays[i]);
        free(dir);
    }
    expect_latest(f, key[YOUNG], "/0000000000000007/step-10", 0);
    /* one file was written recently: it is in use */
    char *fresh = mode_xasprintf("%s/ckpt/%s/0000000000000008/step-20/state", f->dir, key[YOUNG]);
    make_old(f, key[YOUNG], 5000);
    write_file(fresh, "c", 1);
    assert_int_equal(mode_store_checkpoint_sweep(f->store, &n, is_key, key[WANTED], 1000, &f->err), MODE_OK);
    assert_int_equal(n, 0);
    make_old(f, key[YOUNG], 5000);
    assert_int_equal(mode_store_checkpoint_sweep(f->store, &n, is_key, key[WANTED], 1000, &f->err), MODE_OK);
    assert_int_equal(n, 1);
    free(fresh);
}

static void test_torn_manifests_do_not_count(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], *text;
    size_t n;
    key_of(key, 4);
    checkpoint(f, key, 1, "a", "first", MODE_OK);
    checkpoint(f, key, 1, "b", "second", MODE_OK);
    char *path = mode_xasprintf("%s/ckpt/%s/0000000000000001/b.manifest", f->dir, key);
    assert_int_equal(mode_file_read(path, 0, &text, &n, &f->err), MODE_OK);
    unlink(path);
    for (size_t cut = 0; cut < n; cut++) {
        write_file(path, text, cut);
        expect_latest(f, key, "/a", 0);
    }
    write_file(path, text, n);
    expect_latest(f, key, "/b", 0);
    free(text);
    free(path);
}

static void test_the_store_has_one_identity(void **state)
{
    struct fixture *f = *state;
    struct mode_store *again, *other;
    char dir[] = "/tmp/mode-store-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(mode_store_open(&again, f->dir, &f->err), MODE_OK);
    assert_int_equal(mode_store_open(&other, dir, &f->err), MODE_OK);
    assert_int_equal(strlen(mode_store_id(f->store)), 32);
    assert_string_equal(mode_store_id(f->store), mode_store_id(again));
    assert_string_not_equal(mode_store_id(f->store), mode_store_id(other));
    mode_store_close(&again);
    mode_store_close(&other);
    mode_dir_remove(dir, NULL);
    assert_int_equal(mode_store_open(&other, "/proc/nowhere", &f->err), MODE_E_CREATE);
    assert_null(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        T(test_blob_is_published_by_digest_and_read_back),
        T(test_blob_from_another_filesystem_is_copied),
        T(test_a_symbolic_link_is_published_as_the_file_it_names),
        T(test_damaged_blobs_are_found_and_healed),
        T(test_keys_that_are_no_keys_never_become_paths),
        T(test_tasks_are_named_by_their_bytes),
        T(test_concurrent_committers_have_one_winner),
        T(test_commits_name_published_blobs_only_and_torn_records_are_reported),
        T(test_a_flipped_bit_of_a_commit_is_noticed),
        T(test_killed_publishers_leave_nothing_torn),
        T(test_a_full_disk_is_a_sentence_and_tears_nothing),
        T(test_a_file_size_limit_is_a_sentence_and_tears_nothing),
        T(test_a_sweep_passes_over_what_it_cannot_remove),
        T(test_epochs_never_repeat),
        T(test_checkpoints_are_whole_newest_first_and_fenced),
        T(test_a_checkpoint_that_is_gone_on_from_stays),
        T(test_a_checkpoint_is_held_whole_while_others_come_and_go),
        T(test_checkpoints_that_nobody_wants_are_swept),
        T(test_torn_manifests_do_not_count),
        T(test_the_store_has_one_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
