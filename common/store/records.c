/* Tasks, commits, epochs: small files that are created once. */
#include "base/clock.h"
#include "store/artifacts.h"

#include "base/fresh.h"
#include "base/options.h"
#include "base/str.h"
#include "store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum mode_status check_key(const char *key, struct mode_error *err)
{
    if (mode_key_valid(key)) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" is not a task key (64 lower-case hex digits)", key ? key : "");
}

static enum mode_status check_size(size_t size, const char *what, struct mode_error *err)
{
    if (size <= MODE_STORE_MAX_RECORD) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE, "%s: the record would have %zu bytes, at most %zu are allowed", what, size,
                     MODE_STORE_MAX_RECORD);
}

/* ---- tasks ---- */

static uint8_t *pack_task(const Mode__TaskSpec *spec, size_t *size)
{
    *size = mode__task_spec__get_packed_size(spec);
    uint8_t *data = mode_xmalloc(*size);
    mode__task_spec__pack(spec, data);
    return data;
}

void mode_task_key(char key[MODE_DIGEST_HEX], const Mode__TaskSpec *spec)
{
    size_t size;
    uint8_t *data = pack_task(spec, &size);
    mode_digest_bytes(data, size, key);
    free(data);
}

enum mode_status mode_store_task_put(struct mode_store *s, char key[MODE_DIGEST_HEX], const Mode__TaskSpec *spec,
                                     struct mode_error *err)
{
    size_t size;
    bool created;
    uint8_t *data = pack_task(spec, &size);
    mode_digest_bytes(data, size, key);
    char *path = mode_store_path(s, "tasks", key);
    enum mode_status st = check_size(size, path, err);
    if (!st && !mode_file_exists(path)) st = mode_store_put_once(s, &created, path, data, size, err);
    free(path);
    free(data);
    return st;
}

enum mode_status mode_store_task_get(struct mode_store *s, Mode__TaskSpec **spec, const char *key,
                                     struct mode_error *err)
{
    char *data = NULL, digest[MODE_DIGEST_HEX];
    size_t size;
    *spec = NULL;
    enum mode_status st = check_key(key, err);
    if (st) return st;
    char *path = mode_store_path(s, "tasks", key);
    if ((st = mode_file_read(path, MODE_STORE_MAX_RECORD, &data, &size, err))) goto out;
    mode_digest_bytes(data, size, digest);
    if (strcmp(digest, key) != 0) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: damaged: its bytes have digest %s", path, digest);
        goto out;
    }
    *spec = mode__task_spec__unpack(NULL, size, (const uint8_t *)data);
    if (!*spec) st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is not a packed mode.TaskSpec", path);
out:
    free(data);
    free(path);
    return st;
}

/* ---- commits ---- */

/* A record begins with mode.Commit.form and ends with mode.Commit.seal, the digest of all bytes before it. Records of
 * versions without seals begin with field 1, the key: no single-bit damage or truncation makes one look like the
 * other. */
enum { FORM_TAG = 15 << 3, FORM = 1, HEAD = 2, SEAL_TAG = 14 << 3 | 2, SEAL_DIGITS = 64, SEAL = 2 + SEAL_DIGITS };
enum { KEY_TAG = 1 << 3 | 2 };

static uint8_t *pack_sealed(const Mode__Commit *c, size_t *size)
{
    char digest[MODE_DIGEST_HEX];
    MODE_ASSERT(!c->seal && !c->has_form);
    size_t n = HEAD + mode__commit__get_packed_size(c);
    uint8_t *data = mode_xmalloc(n + SEAL);
    data[0] = FORM_TAG;
    data[1] = FORM;
    mode__commit__pack(c, data + HEAD);
    mode_digest_bytes(data, n, digest);
    data[n] = SEAL_TAG;
    data[n + 1] = SEAL_DIGITS;
    memcpy(data + n + 2, digest, SEAL_DIGITS);
    *size = n + SEAL;
    return data;
}

static bool is_whole(const uint8_t *data, size_t size)
{
    char digest[MODE_DIGEST_HEX];
    if (size && data[0] == KEY_TAG) return true; /* of a version without seals */
    if (size < HEAD + SEAL || data[0] != FORM_TAG || data[1] != FORM) return false;
    mode_digest_bytes(data, size - SEAL, digest);
    const uint8_t *end = data + size - SEAL;
    return end[0] == SEAL_TAG && end[1] == SEAL_DIGITS && memcmp(end + 2, digest, SEAL_DIGITS) == 0;
}

enum mode_status mode_store_commit_get(struct mode_store *s, Mode__Commit **commit, const char *key,
                                       struct mode_error *err)
{
    char *data = NULL;
    size_t size;
    *commit = NULL;
    enum mode_status st = check_key(key, err);
    if (st) return st;
    char *path = mode_store_path(s, "commits", key);
    if ((st = mode_file_read(path, MODE_STORE_MAX_RECORD, &data, &size, err))) goto out;
    bool whole = is_whole((const uint8_t *)data, size);
    Mode__Commit *c = mode__commit__unpack(NULL, size, (const uint8_t *)data);
    if (!whole || !c || strcmp(c->key, key) != 0) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: damaged: %s. HINT: this file was not written by MoDE or the disk changed it; "
                       "remove it and the "
                       "task is done again",
                       path,
                       !c       ? "it is not a packed mode.Commit"
                       : !whole ? "its bytes do not match the digest at its end"
                                : "it is the record of another task");
        if (c) mode__commit__free_unpacked(c, NULL);
    } else
        *commit = c;
out:
    free(data);
    free(path);
    return st;
}

bool mode_store_commit_exists(struct mode_store *s, const char *key)
{
    if (!mode_key_valid(key)) return false;
    char *path = mode_store_path(s, "commits", key);
    bool yes = mode_file_exists(path);
    free(path);
    return yes;
}

enum mode_status mode_store_commit_aside(struct mode_store *s, char **aside, const char *key, struct mode_error *err)
{
    *aside = NULL;
    enum mode_status st = check_key(key, err);
    if (st) return st;
    char *path = mode_store_path(s, "commits", key), *folder = mode_path_folder(path),
         *to = mode_xasprintf("%s.damaged-%" PRId64, path, mode_clock_wall_ms());
    if (rename(path, to) == 0) {
        *aside = to;
        to = NULL;
        st = mode_file_sync(folder, err);
    } else if (errno != ENOENT)
        st = mode_store_fail(err, errno, path, "be renamed");
    free(to);
    free(folder);
    free(path);
    return st;
}

enum mode_status mode_store_commit_create(struct mode_store *s, bool *created, Mode__Commit **winner,
                                          const Mode__Commit *commit, struct mode_error *err)
{
    uint8_t *data = NULL;
    *created = false;
    if (winner) *winner = NULL;
    enum mode_status st = check_key(commit->key, err);
    if (st) return st;
    char *path = mode_store_path(s, "commits", commit->key);
    for (size_t i = 0; i < commit->n_outputs; i++) { /* never create a record that names missing files */
        const Mode__Blob *b = commit->outputs[i];
        if (!mode_store_blob_exists(s, b->digest, b->size)) {
            st = MODE_FAIL(err, MODE_E_VALUE,
                           "%s: output %s was not published: blob %s of %" PRIu64 " bytes is missing", path, b->name,
                           b->digest, b->size);
            goto out;
        }
    }
    size_t size;
    data = pack_sealed(commit, &size);
    if ((st = check_size(size, path, err))) goto out;
    st = mode_store_put_once(s, created, path, data, size, err);
    if (!st && (winner || !*created)) {
        Mode__Commit *c;
        st = mode_store_commit_get(s, &c, commit->key, err);
        if (!st && winner)
            *winner = c;
        else if (!st)
            mode__commit__free_unpacked(c, NULL);
    }
out:
    free(data);
    free(path);
    return st;
}

enum mode_status mode_store_commit_each(struct mode_store *s,
                                        enum mode_status (*fn)(void *ctx, const char *key, struct mode_error *err),
                                        void *ctx, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    char *dir = mode_path_join(s->root, "commits");
    DIR *d = mode_fresh_opendir(dir);
    if (!d) st = mode_store_fail(err, errno, dir, "be read");
    for (struct dirent *e; !st && (e = readdir(d)) != NULL;)
        if (mode_key_valid(e->d_name)) st = fn(ctx, e->d_name, err);
    if (d) closedir(d);
    free(dir);
    return st;
}

/* ---- epochs ---- */

enum mode_status mode_store_epoch_last(struct mode_store *s, uint64_t *epoch, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    char *dir = mode_path_join(s->root, "epochs");
    DIR *d = mode_fresh_opendir(dir);
    *epoch = 0;
    if (!d) st = mode_store_fail(err, errno, dir, "be read");
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        int64_t n;
        if (mode_parse_int(e->d_name, dir, 1, INT32_MAX, &n, NULL) == MODE_OK && (uint64_t)n > *epoch)
            *epoch = (uint64_t)n;
    }
    if (d) closedir(d);
    free(dir);
    return st;
}

enum mode_status mode_store_epoch_take(struct mode_store *s, uint64_t *epoch, struct mode_error *err)
{
    uint64_t n;
    char host[256] = "", text[320], name[32];
    bool created = false;
    enum mode_status st = mode_store_epoch_last(s, &n, err);
    gethostname(host, sizeof host - 1);
    int len = snprintf(text, sizeof text, "host=%s pid=%ld unix_ms=%" PRId64 "\n", host, (long)getpid(),
                       mode_clock_wall_ms());
    while (!st && !created) {
        if (++n > INT32_MAX) return MODE_FAIL(err, MODE_E_VALUE, "%s: the epochs are used up", s->root);
        snprintf(name, sizeof name, "%" PRIu64, n);
        char *path = mode_store_path(s, "epochs", name);
        st = mode_store_put_once(s, &created, path, text, (size_t)len, err);
        free(path);
    }
    *epoch = n;
    return st;
}
