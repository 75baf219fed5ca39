#include "store/gc.h"

#include "base/fresh.h"
#include "base/str.h"
#include "store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *mode_gc_kind_name(enum mode_gc_kind k)
{
    static const char *const names[] = {"commits", "tasks", "checkpoints", "blobs", "optimizer", "leftovers"};
    return k < MODE_GC_KINDS ? names[k] : "?";
}

void mode_gc_measure(struct mode_gc_sum *sum, const char *path)
{
    struct stat sb;
    if (lstat(path, &sb) != 0) return;
    DIR *d = S_ISDIR(sb.st_mode) ? mode_fresh_opendir(path) : NULL;
    if (!S_ISDIR(sb.st_mode)) {
        sum->files++;
        if (sb.st_nlink == 1) sum->bytes += (uint64_t)sb.st_size;
    }
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *child = mode_path_join(path, e->d_name);
        mode_gc_measure(sum, child);
        free(child);
    }
    if (d) closedir(d);
}

struct pass {
    struct mode_store *s;
    struct mode_gc *gc;
    struct mode_error *err;
};

static enum mode_status drop(struct pass *p, enum mode_gc_kind kind, const char *path)
{
    struct mode_gc_sum one = {0};
    mode_gc_measure(&one, path);
    enum mode_status st = p->gc->dry ? MODE_OK : mode_dir_remove(path, p->err);
    if (st) return st;
    p->gc->sum[kind].files += one.files;
    p->gc->sum[kind].bytes += one.bytes;
    return MODE_OK;
}

/* Calls fn for every entry of a folder below the root, until one fails. */
static enum mode_status each(struct pass *p, const char *folder,
                             enum mode_status (*fn)(struct pass *, const char *path, const char *name))
{
    enum mode_status st = MODE_OK;
    char *dir = mode_path_join(p->s->root, folder);
    DIR *d = mode_fresh_opendir(dir);
    if (!d && errno != ENOENT) st = mode_store_fail(p->err, errno, dir, "be read");
    for (struct dirent *e; d && !st && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = mode_path_join(dir, e->d_name);
        st = fn(p, path, e->d_name);
        free(path);
        mode_store_tick(p->s);
    }
    if (d) closedir(d);
    free(dir);
    return st;
}

/* Whether the name begins with the key of a needed task. A record that was put aside has a suffix after its key. */
static bool is_needed(struct pass *p, const char *name)
{
    char key[MODE_DIGEST_HEX];
    memcpy(key, name, strnlen(name, sizeof key - 1) + 1);
    key[sizeof key - 1] = '\0';
    return !mode_key_valid(key) || p->gc->needs_task(p->gc->ctx, key); /* foreign files stay */
}

static enum mode_status commit(struct pass *p, const char *path, const char *name)
{
    return is_needed(p, name) ? MODE_OK : drop(p, MODE_GC_COMMITS, path);
}

static enum mode_status task(struct pass *p, const char *path, const char *name)
{
    return is_needed(p, name) ? MODE_OK : drop(p, MODE_GC_TASKS, path);
}

static enum mode_status checkpoints(struct pass *p, const char *path, const char *name)
{
    if (is_needed(p, name) && !mode_store_commit_exists(p->s, name)) return MODE_OK;
    struct mode_gc_sum one = {0};
    mode_gc_measure(&one, path);
    enum mode_status st = p->gc->dry ? MODE_OK : mode_store_checkpoints_drop(p->s, name, NULL, p->err);
    if (st) return st;
    p->gc->sum[MODE_GC_CHECKPOINTS].files += one.files;
    p->gc->sum[MODE_GC_CHECKPOINTS].bytes += one.bytes;
    return MODE_OK;
}

static enum mode_status blob(struct pass *p, const char *path, const char *name)
{
    enum mode_gc_kind kind = mode_key_valid(name) ? p->gc->keeps_blob(p->gc->ctx, name) : MODE_GC_KEPT;
    return kind == MODE_GC_KEPT ? MODE_OK : drop(p, kind, path);
}

static enum mode_status blobs(struct pass *p, const char *path, const char *name)
{
    (void)path;
    char *folder = mode_path_join("blobs", name);
    enum mode_status st = strlen(name) == 2 ? each(p, folder, blob) : MODE_OK;
    free(folder);
    return st;
}

static enum mode_status leftover(struct pass *p, const char *path, const char *name)
{
    (void)name;
    return drop(p, MODE_GC_LEFTOVERS, path);
}

enum mode_status mode_store_gc(struct mode_store *s, struct mode_gc *gc, struct mode_error *err)
{
    struct pass p = {s, gc, err};
    memset(gc->sum, 0, sizeof gc->sum);
    MODE_ASSERT(gc->dry || s->alone);
    char *records = mode_path_join(s->root, "commits");
    enum mode_status st = each(&p, "commits", commit);
    if (!st && !gc->dry)
        st = mode_file_sync(records, err); /* a power loss must not bring a record back without its
                                                               files */
    free(records);
    if (!st) st = each(&p, "tasks", task);
    if (!st) st = each(&p, "ckpt", checkpoints);
    if (!st) st = each(&p, "blobs", blobs);
    if (!st) st = each(&p, "tmp", leftover);
    return st;
}
