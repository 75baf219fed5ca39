#include "digests.h"

#include "base/clock.h"
#include "base/digest_watch.h"
#include "base/fresh.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SETTLED_MS 2000
#define MAX_DEPTH  8
#define MAX_ENTRY  16384
#define FORM       1 /* raised when inputs are digested differently */

static const char first_line[] = "mode-digest 1\n";

struct digests {
    char *dir;
    struct mode_digest_watch watch;
    _Atomic uint64_t expected;
    _Atomic(const char *) reads;
};

void digests_open(struct digests **out, const char *workspace)
{
    *out = mode_xcalloc(1, sizeof **out);
    (*out)->dir = mode_path_join(workspace, "digests");
}

void digests_close(struct digests **dp)
{
    struct digests *d = *dp;
    *dp = NULL;
    if (!d) return;
    free(d->dir);
    free(d);
}

/* ---------------------------------------------------------------------------------------------- what is there */

struct listing {
    char **line;
    size_t n;
    uint64_t bytes;
    int64_t newest_ms;
    bool whole; /* all files could be examined */
};

static void add_file(struct listing *l, const char *name, const struct stat *s)
{
    int64_t ms = (int64_t)s->st_mtim.tv_sec * 1000 + s->st_mtim.tv_nsec / 1000000;
    if ((l->n & (l->n - 1)) == 0) l->line = mode_xrealloc(l->line, (l->n ? 2 * l->n : 1) * sizeof *l->line);
    l->line[l->n++] = mode_xasprintf("%s %lld %lld.%09ld", name, (long long)s->st_size, (long long)s->st_mtim.tv_sec,
                                     s->st_mtim.tv_nsec);
    l->bytes += (uint64_t)s->st_size;
    if (ms > l->newest_ms) l->newest_ms = ms;
}

static void add_folder(struct listing *l, const char *dir, const char *prefix, int depth)
{
    DIR *d = depth ? mode_fresh_opendir(dir) : NULL;
    if (!d) {
        l->whole = false;
        return;
    }
    for (const struct dirent *e; (e = readdir(d));) {
        struct stat s;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = mode_path_join(dir, e->d_name), *name = mode_xasprintf("%s%s", prefix, e->d_name);
        if (stat(path, &s) != 0) {
            l->whole = false;
        } else if (S_ISDIR(s.st_mode)) {
            char *inner = mode_xasprintf("%s/", name);
            add_folder(l, path, inner, depth - 1);
            free(inner);
        } else {
            add_file(l, name, &s);
        }
        free(path);
        free(name);
    }
    closedir(d);
}

/* A single file may refer to others in its folder (an index of weights), but not in subfolders. */
static void add_beside(struct listing *l, const char *path)
{
    char *dir = mode_path_folder(path);
    DIR *d = mode_fresh_opendir(dir);
    l->whole = d != NULL;
    for (const struct dirent *e; d && (e = readdir(d));) {
        struct stat s;
        char *one = mode_path_join(dir, e->d_name);
        if (stat(one, &s) == 0 && S_ISREG(s.st_mode)) add_file(l, e->d_name, &s);
        free(one);
    }
    if (d) closedir(d);
    free(dir);
}

static int by_line(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static struct digests_look look_at(const char *what, const char *path)
{
    struct digests_look look = {.what = what, .path = path};
    struct listing l = {.whole = true};
    struct mode_str all = {0};
    struct stat s;
    if (stat(path, &s) != 0)
        l.whole = false;
    else if (S_ISDIR(s.st_mode))
        add_folder(&l, path, "", MAX_DEPTH);
    else
        add_beside(&l, path);
    if (l.n) qsort(l.line, l.n, sizeof *l.line, by_line);
    mode_str_printf(&all, "%d\n%s\n%s\n", FORM, what, path);
    for (size_t i = 0; i < l.n; i++) {
        mode_str_printf(&all, "%zu:%s\n", strlen(l.line[i]), l.line[i]);
        free(l.line[i]);
    }
    free(l.line);
    mode_digest_bytes(all.data, all.len, look.stamp);
    mode_str_clear(&all);
    look.bytes = l.bytes;
    look.settled = l.whole && l.newest_ms < mode_clock_wall_ms() - SETTLED_MS;
    return look;
}

/* ---------------------------------------------------------------------------------------------- entries */

static char *entry_path(const struct digests *d, const struct digests_look *look)
{
    char *all = mode_xasprintf("%s\n%s", look->what, look->path), name[MODE_DIGEST_HEX];
    mode_digest_bytes(all, strlen(all), name);
    free(all);
    return mode_path_join(d->dir, name);
}

/* Lines: "mode-digest 1", the stamp, the value, its input (for people), and the digest of these lines. */
static bool read_entry(char value[DIGESTS_VALUE], const char *text, size_t size, const char *stamp)
{
    const size_t head = sizeof first_line - 1, seal = MODE_DIGEST_HEX; /* 64 digits and a newline */
    char hex[MODE_DIGEST_HEX];
    if (size < head + MODE_DIGEST_HEX + seal || strlen(text) != size || text[size - 1] != '\n') return false;
    mode_digest_bytes(text, size - seal, hex);
    if (strncmp(text + size - seal, hex, seal - 1) != 0 || strncmp(text, first_line, head) != 0) return false;
    if (strncmp(text + head, stamp, MODE_DIGEST_HEX - 1) != 0) return false;
    const char *from = text + head + MODE_DIGEST_HEX;
    size_t n = strcspn(from, "\n");
    if (n == 0 || n >= DIGESTS_VALUE) return false;
    memcpy(value, from, n);
    value[n] = '\0';
    return true;
}

static bool find(char value[DIGESTS_VALUE], const struct digests *d, const struct digests_look *look)
{
    char *path = entry_path(d, look), *text = NULL;
    size_t size;
    bool found = mode_file_exists(path) && mode_file_read(path, MAX_ENTRY, &text, &size, NULL) == MODE_OK &&
                 read_entry(value, text, size, look->stamp);
    free(text);
    free(path);
    return found;
}

bool digests_find(char value[DIGESTS_VALUE], struct digests_look *look, struct digests *d, const char *what,
                  const char *path)
{
    if (!d) return false;
    *look = look_at(what, path);
    return find(value, d, look);
}

void digests_keep(struct digests *d, const struct digests_look *look, const char *value)
{
    struct mode_error err = {0};
    struct mode_str text = {0};
    char seal[MODE_DIGEST_HEX];
    if (!d || !look->settled || strcmp(look_at(look->what, look->path).stamp, look->stamp) != 0) return;
    mode_str_printf(&text, "%s%s\n%s\n%s %s\n", first_line, look->stamp, value, look->what, look->path);
    mode_digest_bytes(text.data, text.len, seal);
    mode_str_printf(&text, "%s\n", seal);
    char *path = entry_path(d, look);
    enum mode_status st = mode_dir_make(d->dir, &err);
    if (!st) st = mode_file_write_atomic(path, text.data, text.len, &err);
    if (st) mode_log_failure("digest_not_kept", &err); /* it will be digested again next time */
    free(path);
    mode_str_clear(&text);
}

/* ---------------------------------------------------------------------------------------------- looking on */

void digests_watch(struct digests *d)
{
    mode_digest_watch(d ? &d->watch : NULL);
}

void digests_begin(struct digests *d, const char *reads)
{
    if (!d) return;
    atomic_store(&d->reads, NULL);
    atomic_store(&d->watch.bytes, 0);
    atomic_store(&d->expected, 0);
    atomic_store(&d->reads, reads);
}

void digests_expect(struct digests *d, const char *what, const char *path)
{
    char value[DIGESTS_VALUE];
    struct digests_look look;
    if (d && !digests_find(value, &look, d, what, path)) atomic_fetch_add(&d->expected, look.bytes);
}

void digests_reading(char *text, size_t size, struct digests *d)
{
    const char *reads = atomic_load(&d->reads);
    uint64_t of = atomic_load(&d->expected), bytes = atomic_load(&d->watch.bytes);
    char have[MODE_SIZE_TEXT], all[MODE_SIZE_TEXT];
    text[0] = '\0';
    if (reads && !of)
        snprintf(text, size, "reads %s", reads);
    else if (reads)
        snprintf(text, size, "is reading %s: %s of %s", reads, mode_size_text(have, bytes < of ? bytes : of),
                 mode_size_text(all, of));
}

void digests_stop(struct digests *d)
{
    atomic_store(&d->watch.stop, true);
}
