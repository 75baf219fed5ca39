/* Checkpoints of running tasks. DESIGN: the folder of an attempt is named by its fence, and fences never
 * repeat, so an attempt that was given up long ago cannot touch the files of its successor. A checkpoint is complete
 * when its manifest exists, which is written last, once, and lists what must be there:
 *
 *     mode-checkpoint 1
 *     order 3
 *     file <digest> <bytes> <name>
 *     end
 *
 * An attempt that lost its connection may still train, and removes its older checkpoints as it makes new ones, possibly
 * the one that its successor is about to read. So a successor resumes from its own hard links to the same files, in
 * `from` below its fence, which has no manifest and is removed when it has made a checkpoint itself. */
#include "store/artifacts.h"

#include "base/fresh.h"
#include "base/str.h"
#include "store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SUFFIX ".manifest"
#define FROM   "from"
enum { LOOKS = 20 };

struct found { /* one manifest */
    uint64_t fence, order;
    char *name;
};
struct found_list {
    struct found *v;
    size_t n;
};

static bool name_valid(const char *name)
{
    if (!name[0] || name[0] == '.' || strlen(name) > 200) return false;
    for (const char *p = name; *p; p++)
        if (*p == '/' || (unsigned char)*p < 0x20) return false;
    return true;
}

static char *fence_dir(const struct mode_store *s, const char *key, uint64_t fence)
{
    return mode_xasprintf("%s/ckpt/%s/%016" PRIx64, s->root, key, fence);
}

enum mode_status mode_store_checkpoint_dir(struct mode_store *s, char **path, const char *key, uint64_t fence,
                                           struct mode_error *err)
{
    *path = NULL;
    if (!mode_key_valid(key)) return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a task key", key);
    char *dir = fence_dir(s, key, fence);
    enum mode_status st = mode_dir_make(dir, err);
    if (st)
        free(dir);
    else
        *path = dir;
    return st;
}

/* order of a manifest, 0 if it is torn or not one */
static uint64_t manifest_order(const char *text)
{
    uint64_t order = 0;
    size_t n = strlen(text);
    if (n < 5 || strcmp(text + n - 5, "\nend\n") != 0) return 0;
    if (sscanf(text, "mode-checkpoint 1\norder %" SCNu64 "\n", &order) != 1) return 0;
    return order;
}

static int newest_first(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->fence != y->fence) return x->fence < y->fence ? 1 : -1;
    return x->order == y->order ? 0 : x->order < y->order ? 1 : -1;
}

static void found_clear(struct found_list *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->v[i].name);
    free(l->v);
    *l = (struct found_list){0};
}

static void find_in_fence(struct found_list *l, const char *dir, uint64_t fence)
{
    DIR *d = mode_fresh_opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name), m = strlen(SUFFIX);
        if (n <= m || strcmp(e->d_name + n - m, SUFFIX) != 0) continue;
        char *path = mode_path_join(dir, e->d_name), *text = NULL;
        if (mode_file_read(path, MODE_STORE_MAX_RECORD, &text, NULL, NULL) == MODE_OK && manifest_order(text) > 0) {
            l->v = mode_xrealloc(l->v, (l->n + 1) * sizeof *l->v);
            l->v[l->n] = (struct found){fence, manifest_order(text), mode_xstrdup(e->d_name)};
            l->v[l->n++].name[n - m] = '\0';
        }
        free(text);
        free(path);
    }
    if (d) closedir(d);
}

/* Every complete checkpoint of the task of fence <= max_fence, newest first. */
static void find_all(const struct mode_store *s, struct found_list *l, const char *key, uint64_t max_fence)
{
    char *dir = mode_store_path(s, "ckpt", key);
    DIR *d = mode_fresh_opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        char *end;
        uint64_t fence = strtoull(e->d_name, &end, 16);
        if (strlen(e->d_name) != 16 || *end || fence > max_fence) continue;
        char *sub = mode_path_join(dir, e->d_name);
        find_in_fence(l, sub, fence);
        free(sub);
    }
    if (d) closedir(d);
    free(dir);
    if (l->n) qsort(l->v, l->n, sizeof *l->v, newest_first);
}

static enum mode_status describe_file(struct mode_store *s, struct mode_str *text, const char *dir, const char *name,
                                      struct mode_error *err)
{
    struct stat sb;
    char digest[MODE_DIGEST_HEX];
    uint64_t size;
    char *path = mode_path_join(dir, name);
    enum mode_status st = MODE_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        st = mode_store_fail(err, errno, path, "be opened");
    else if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode) || !name_valid(name))
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: a checkpoint may hold regular files with plain names only", path);
    else if (!(st = mode_store_digest_fd(s, digest, &size, fd, path, err))) {
        if (fsync(fd) != 0)
            st = mode_store_fail(err, errno, path, "be flushed to disk");
        else
            mode_str_printf(text, "file %s %" PRIu64 " %s\n", digest, size, name);
    }
    if (fd >= 0) close(fd);
    free(path);
    return st;
}

static void prune(struct mode_store *s, const char *key, uint64_t fence)
{
    struct found_list l = {0};
    find_all(s, &l, key, fence);
    for (size_t i = 2; i < l.n; i++) {
        char *dir = fence_dir(s, key, l.v[i].fence);
        char *manifest = mode_xasprintf("%s/%s" SUFFIX, dir, l.v[i].name), *folder = mode_path_join(dir, l.v[i].name);
        /* the manifest first: a partial removal leaves an incomplete checkpoint, not a wrong one. A failed removal
         * costs disk space, and the next prune retries it. */
        if (unlink(manifest) == 0) mode_dir_remove(folder, NULL);
        free(folder);
        free(manifest);
        free(dir);
    }
    found_clear(&l);
}

/* A name is durable when its parent folder is synced: all of ckpt/<key>/<fence>/<name> may be new. */
static enum mode_status sync_folders(const char *folder, struct mode_error *err)
{
    enum { LEVELS = 4 };
    enum mode_status st = MODE_OK;
    char *at = mode_xstrdup(folder);
    for (int i = 0; !st && i < LEVELS; i++) {
        char *above = mode_path_folder(at);
        st = mode_file_sync(at, err);
        free(at);
        at = above;
    }
    free(at);
    return st;
}

enum mode_status mode_store_checkpoint_done(struct mode_store *s, const char *key, uint64_t fence, const char *name,
                                            struct mode_error *err)
{
    struct found_list mine = {0};
    struct mode_str text = {0};
    bool created = false;
    DIR *d = NULL;
    if (!mode_key_valid(key)) return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a task key", key);
    if (!name_valid(name)) return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a name for a checkpoint", name);
    char *dir = fence_dir(s, key, fence), *folder = mode_path_join(dir, name),
         *manifest = mode_xasprintf("%s" SUFFIX, folder);
    find_in_fence(&mine, dir, fence);
    uint64_t order = 1;
    for (size_t i = 0; i < mine.n; i++)
        if (mine.v[i].order >= order) order = mine.v[i].order + 1;
    mode_str_printf(&text, "mode-checkpoint 1\norder %" PRIu64 "\n", order);
    enum mode_status st = MODE_OK;
    if (!(d = mode_fresh_opendir(folder))) st = mode_store_fail(err, errno, folder, "be read");
    for (struct dirent *e; !st && (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            st = describe_file(s, &text, folder, e->d_name, err);
    mode_str_add_cstr(&text, "end\n");
    if (!st) st = sync_folders(folder, err);
    if (!st) st = mode_store_put_once(s, &created, manifest, text.data, text.len, err);
    if (!st && !created) st = MODE_FAIL(err, MODE_E_VALUE, "%s: this checkpoint was declared complete before", folder);
    if (!st) prune(s, key, fence);
    if (!st) {
        char *from = mode_path_join(dir, FROM);
        mode_dir_remove(from, NULL); /* as with prune */
        free(from);
    }
    if (d) closedir(d);
    found_clear(&mine);
    mode_str_clear(&text);
    free(manifest);
    free(folder);
    free(dir);
    return st;
}

struct listed { /* a file of a manifest */
    char digest[MODE_DIGEST_HEX], name[256];
    uint64_t size;
};

/* Calls `each` for every file listed in the folder's manifest, until one fails. False also without a complete
 * manifest. */
static bool every_file(const char *folder, bool (*each)(void *ctx, const struct listed *f), void *ctx)
{
    char *manifest = mode_xasprintf("%s" SUFFIX, folder), *text = NULL, *next = NULL;
    bool ok = mode_file_read(manifest, MODE_STORE_MAX_RECORD, &text, NULL, NULL) == MODE_OK && manifest_order(text) > 0;
    for (char *line = ok ? strtok_r(text, "\n", &next) : NULL; ok && line; line = strtok_r(NULL, "\n", &next)) {
        struct listed f;
        if (strncmp(line, "file ", 5) != 0) continue;
        ok = sscanf(line, "file %64[0-9a-f] %" SCNu64 " %255[^\n]", f.digest, &f.size, f.name) == 3 &&
             name_valid(f.name) && each(ctx, &f);
    }
    free(text);
    free(manifest);
    return ok;
}

struct folder {
    struct mode_store *store;
    const char *path, *to;
    int errnum;
};

static bool file_intact(void *ctx, const struct listed *f)
{
    const struct folder *d = ctx;
    char got[MODE_DIGEST_HEX], *path = mode_path_join(d->path, f->name);
    uint64_t size;
    int fd = mode_fresh_open(path, O_RDONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && mode_store_digest_fd(d->store, got, &size, fd, path, NULL) == MODE_OK &&
                    size == f->size && strcmp(got, f->digest) == 0;
    if (fd >= 0) close(fd);
    free(path);
    return ok;
}

/* Whether the files match the manifest. */
static bool intact(struct mode_store *s, const char *folder)
{
    return every_file(folder, file_intact, &(struct folder){.store = s, .path = folder});
}

enum mode_status mode_store_checkpoint_latest(struct mode_store *s, char **path, const char *key, uint32_t *damaged,
                                              struct mode_error *err)
{
    struct found_list l = {0};
    uint32_t bad = 0;
    *path = NULL;
    if (!mode_key_valid(key)) return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a task key", key);
    find_all(s, &l, key, UINT64_MAX);
    for (size_t i = 0; i < l.n && !*path; i++) {
        char *dir = fence_dir(s, key, l.v[i].fence), *folder = mode_path_join(dir, l.v[i].name);
        if (intact(s, folder))
            *path = folder;
        else {
            bad++;
            free(folder);
        }
        free(dir);
    }
    if (damaged) *damaged = bad;
    found_clear(&l);
    return MODE_OK;
}

static bool link_file(void *ctx, const struct listed *f)
{
    struct folder *d = ctx;
    char *path = mode_path_join(d->path, f->name), *to = mode_path_join(d->to, f->name);
    if (link(path, to) != 0) d->errnum = errno;
    free(path);
    free(to);
    return !d->errnum;
}

enum mode_status mode_store_checkpoint_hold(struct mode_store *s, char **path, const char *key, uint64_t fence,
                                            uint32_t *damaged, struct mode_error *err)
{
    char *dir = fence_dir(s, key, fence), *from = mode_path_join(dir, FROM), *latest = NULL;
    enum mode_status st = MODE_OK;
    *path = NULL;
    for (int i = 0; !st && !*path; i++) {
        if ((st = mode_store_checkpoint_latest(s, &latest, key, damaged, err)) || !latest) break;
        struct folder f = {.path = latest, .to = from};
        st = mode_dir_remove(from, err);
        if (!st) st = mode_dir_make(from, err);
        const bool all = !st && every_file(latest, link_file, &f);
        if (!st && f.errnum && f.errnum != ENOENT) st = mode_store_fail(err, f.errnum, from, "get its files");
        if (!st && !all && i + 1 == LOOKS)
            st = MODE_FAIL(err, MODE_E_TEMP,
                           "%s: every checkpoint that was found was removed before it could be opened", latest);
        if (all) *path = mode_xstrdup(from);
        free(latest);
    }
    free(from);
    free(dir);
    return st;
}

enum mode_status mode_store_checkpoint_remove(struct mode_store *s, const char *key, struct mode_error *err)
{
    if (!mode_key_valid(key)) return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a task key", key);
    char *dir = mode_store_path(s, "ckpt", key);
    enum mode_status st = mode_dir_remove(dir, err);
    free(dir);
    return st;
}

enum mode_status mode_store_checkpoints_drop(struct mode_store *s, const char *key, uint64_t *removed,
                                             struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    /* renamed away in one step, then removed: a killed sweep leaves no partial checkpoint under this name */
    char *dir = mode_store_path(s, "ckpt", key), *aside = mode_xasprintf("%s/ckpt-%s-%ld", s->tmp, key, (long)getpid());
    if (rename(dir, aside) == 0) {
        if (removed) ++*removed;
        st = mode_dir_remove(aside, err);
    } else if (errno != ENOENT)
        st = mode_store_fail(err, errno, dir, "be removed");
    free(aside);
    free(dir);
    return st;
}

enum mode_status mode_store_checkpoint_sweep(struct mode_store *s, uint64_t *removed,
                                             bool (*wanted)(void *ctx, const char *key), void *ctx, uint64_t min_age_s,
                                             struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    char *root = mode_store_path(s, "ckpt", "");
    DIR *d = mode_fresh_opendir(root);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *removed = 0;
    if (!d && errno != ENOENT) st = mode_store_fail(err, errno, root, "be read");
    for (struct dirent *e; d && !st && (e = readdir(d)) != NULL;) {
        if (!mode_key_valid(e->d_name)) continue;
        char *dir = mode_store_path(s, "ckpt", e->d_name);
        bool done = mode_store_commit_exists(s, e->d_name);
        int64_t t = done ? 0 : mode_store_newest_mtime(dir, 4);
        if (done || (!wanted(ctx, e->d_name) && t != INT64_MAX && t + (int64_t)min_age_s <= now.tv_sec))
            st = mode_store_checkpoints_drop(s, e->d_name, removed, err);
        free(dir);
    }
    if (d) closedir(d);
    free(root);
    return st;
}
