/* Garbage collection: unneeded files are freed, in a crash-safe order, and never while in use. */
#include "store/gc.h"

#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { TASKS = 6 }; /* 0 to 2 are needed */

struct world {
    char dir[64], key[TASKS][MODE_DIGEST_HEX], blob[TASKS][MODE_DIGEST_HEX], shared[MODE_DIGEST_HEX];
    uint64_t size[TASKS];
    int end_after; /* blobs looked at before the process ends; 0 = never */
};

static void make(struct world *w)
{
    struct mode_store *s;
    struct mode_error err = {0};
    uint64_t fence = (uint64_t)1 << 32;
    strcpy(w->dir, "/tmp/mode-gc-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(mode_store_open(&s, w->dir, &err), MODE_OK);
    assert_int_equal(mode_store_put_bytes(s, w->shared, "shared", 6, &err), MODE_OK);
    for (int t = 0; t < TASKS; t++) {
        Mode__TaskSpec spec = MODE__TASK_SPEC__INIT;
        Mode__Commit c = MODE__COMMIT__INIT;
        Mode__Blob blob[2] = {MODE__BLOB__INIT, MODE__BLOB__INIT}, *blobs[2] = {&blob[0], &blob[1]};
        char text[32], *ckpt;
        bool created;
        snprintf(text, sizeof text, "blob of task %d", t);
        spec.service = "embed";
        spec.code_version = text;
        w->size[t] = strlen(text);
        assert_int_equal(mode_store_task_put(s, w->key[t], &spec, &err), MODE_OK);
        assert_int_equal(mode_store_put_bytes(s, w->blob[t], text, strlen(text), &err), MODE_OK);
        blob[0] = (Mode__Blob){blob[0].base, "a", w->blob[t], w->size[t]};
        blob[1] = (Mode__Blob){blob[1].base, "b", w->shared, 6};
        c.key = w->key[t];
        c.service = "embed";
        c.worker = "w";
        c.outputs = blobs;
        c.n_outputs = 2;
        if (t % 3 == 2) { /* 2 and 5 are running */
            assert_int_equal(mode_store_checkpoint_dir(s, &ckpt, w->key[t], fence, &err), MODE_OK);
            char *file = mode_path_join(ckpt, "x");
            assert_int_equal(mode_file_write_atomic(file, "123", 3, &err), MODE_OK);
            free(file);
            free(ckpt);
        } else {
            assert_int_equal(mode_store_commit_create(s, &created, NULL, &c, &err), MODE_OK);
        }
    }
    mode_store_close(&s);
}

static void clean(struct world *w)
{
    assert_int_equal(mode_dir_remove(w->dir, NULL), MODE_OK);
}

static bool needs_task(void *ctx, const char *key)
{
    const struct world *w = ctx;
    return strcmp(key, w->key[0]) == 0 || strcmp(key, w->key[1]) == 0 || strcmp(key, w->key[2]) == 0;
}

static enum mode_gc_kind keeps_blob(void *ctx, const char *digest)
{
    struct world *w = ctx;
    if (w->end_after && --w->end_after == 0) _exit(9);
    for (int t = 0; t < 2; t++)
        if (strcmp(digest, w->blob[t]) == 0) return MODE_GC_KEPT;
    return strcmp(digest, w->shared) == 0    ? MODE_GC_KEPT
           : strcmp(digest, w->blob[3]) == 0 ? MODE_GC_OPTIMIZER
                                             : MODE_GC_BLOBS;
}

static enum mode_status run_gc(struct world *w, struct mode_gc *gc, bool dry)
{
    struct mode_store *s;
    struct mode_error err = {0};
    *gc = (struct mode_gc){.needs_task = needs_task, .keeps_blob = keeps_blob, .ctx = w, .dry = dry};
    enum mode_status st = (dry ? mode_store_open_to_read : mode_store_open_alone)(&s, w->dir, &err);
    if (!st) st = mode_store_gc(s, gc, &err);
    mode_store_close(&s);
    return st;
}

static bool is_there(const struct world *w, const char *fmt, const char *a)
{
    char name[200], *path;
    snprintf(name, sizeof name, strcmp(fmt, "blobs") == 0 ? "blobs/%.2s/%s" : "%s/%s",
             strcmp(fmt, "blobs") == 0 ? a : fmt, a);
    path = mode_path_join(w->dir, name);
    bool yes = mode_file_exists(path);
    free(path);
    return yes;
}

static void expect_whole(const struct world *w)
{
    for (int t = 0; t < TASKS; t++) {
        const bool needed = t < 3, done = t % 3 != 2;
        assert_int_equal(is_there(w, "tasks", w->key[t]), needed);
        assert_int_equal(is_there(w, "commits", w->key[t]), needed && done);
        assert_int_equal(is_there(w, "ckpt", w->key[t]), needed && !done);
        assert_int_equal(is_there(w, "blobs", w->blob[t]), t < 2);
    }
    assert_true(is_there(w, "blobs", w->shared));
}

static void test_frees_what_nobody_needs_and_counts_it(void **state)
{
    (void)state;
    struct world w = {0};
    struct mode_gc gc, dry;
    make(&w);
    char *left = mode_path_join(w.dir, "tmp/put-left");
    assert_int_equal(mode_file_write_atomic(left, "12345", 5, NULL), MODE_OK);
    assert_int_equal(run_gc(&w, &dry, true), MODE_OK);
    assert_true(mode_file_exists(left));
    assert_true(is_there(&w, "commits", w.key[3]));
    assert_true(is_there(&w, "blobs", w.blob[5]));
    assert_int_equal(run_gc(&w, &gc, false), MODE_OK);
    assert_memory_equal(gc.sum, dry.sum, sizeof gc.sum);
    assert_int_equal(gc.sum[MODE_GC_COMMITS].files, 2);
    assert_int_equal(gc.sum[MODE_GC_TASKS].files, 3);
    assert_int_equal(gc.sum[MODE_GC_CHECKPOINTS].files, 1);
    assert_int_equal(gc.sum[MODE_GC_CHECKPOINTS].bytes, 3);
    assert_int_equal(gc.sum[MODE_GC_BLOBS].files, 3); /* of tasks 2, 4, 5: what no record names */
    assert_int_equal(gc.sum[MODE_GC_BLOBS].bytes, w.size[2] + w.size[4] + w.size[5]);
    assert_int_equal(gc.sum[MODE_GC_OPTIMIZER].files, 1);
    assert_int_equal(gc.sum[MODE_GC_LEFTOVERS].files, 1);
    assert_int_equal(gc.sum[MODE_GC_LEFTOVERS].bytes, 5);
    expect_whole(&w);
    assert_int_equal(run_gc(&w, &gc, false), MODE_OK);
    for (int k = 0; k < MODE_GC_KINDS; k++) assert_int_equal(gc.sum[k].files, 0);
    free(left);
    clean(&w);
}

/* Killed at any blob: no record refers to a removed one, and the next collection frees the rest. */
static void test_a_killed_one_leaves_a_store_that_works(void **state)
{
    (void)state;
    for (int after = 1; after <= TASKS + 1; after++) {
        struct world w = {0};
        struct mode_gc gc;
        struct mode_store *s;
        struct mode_error err = {0};
        make(&w);
        pid_t pid = fork();
        if (pid == 0) {
            w.end_after = after;
            run_gc(&w, &gc, false);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WEXITSTATUS(status), 9);
        assert_int_equal(mode_store_open(&s, w.dir, &err), MODE_OK);
        for (int t = 0; t < TASKS; t++) {
            Mode__Commit *c;
            if (mode_store_commit_get(s, &c, w.key[t], &err)) continue;
            for (size_t i = 0; i < c->n_outputs; i++)
                assert_true(mode_store_blob_exists(s, c->outputs[i]->digest, c->outputs[i]->size));
            mode__commit__free_unpacked(c, NULL);
        }
        mode_store_close(&s);
        assert_int_equal(run_gc(&w, &gc, false), MODE_OK);
        expect_whole(&w);
        clean(&w);
    }
}

static void test_never_beside_others(void **state)
{
    (void)state;
    struct world w = {0};
    struct mode_gc gc;
    struct mode_store *a, *b, *alone;
    struct mode_error err = {0};
    make(&w);
    assert_int_equal(mode_store_open(&a, w.dir, &err), MODE_OK);
    assert_int_equal(mode_store_open(&b, w.dir, &err), MODE_OK);
    assert_int_equal(run_gc(&w, &gc, true), MODE_OK);
    assert_int_equal(run_gc(&w, &gc, false), MODE_E_TEMP);
    mode_store_close(&a);
    assert_int_equal(mode_store_open_alone(&alone, w.dir, &err), MODE_E_TEMP);
    assert_non_null(strstr(err.text, "mode down"));
    mode_store_close(&b);
    assert_int_equal(mode_store_open_alone(&alone, w.dir, &err), MODE_OK);
    assert_int_equal(mode_store_open(&a, w.dir, &err), MODE_E_TEMP);
    assert_non_null(strstr(err.text, "mode gc"));
    mode_store_close(&alone);
    assert_int_equal(mode_store_open(&a, w.dir, &err), MODE_OK);
    mode_store_close(&a);
    clean(&w);
    assert_int_equal(mode_store_open_alone(&alone, "/tmp", &err), MODE_E_NOINPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_frees_what_nobody_needs_and_counts_it),
                                       cmocka_unit_test(test_a_killed_one_leaves_a_store_that_works),
                                       cmocka_unit_test(test_never_beside_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
