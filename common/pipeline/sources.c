#include "pipeline/sources.h"

#include "base/file.h"
#include "base/fresh.h"
#include "base/str.h"
#include "remote/link.h"
#include "remote/queries.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define MAX_SHARDS 2000000
#define MAX_DEPTH  32

struct expansion {
    struct mode_shards *out;
    size_t cap;
    bool in_list;     /* in a list file, which is private: there URLs may have queries with credentials */
    char *compressed; /* pattern of compressed tars found in a folder, which takes .tar alone; for hints */
    struct mode_error *err;
};

static enum mode_status keep(struct expansion *x, const char *path, const char *base, uint64_t size, uint64_t mtime_ns)
{
    if (x->out->n == MAX_SHARDS) return MODE_FAIL(x->err, MODE_E_VALUE, "more than %d shards in one run", MAX_SHARDS);
    if (x->out->n == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 64;
        x->out->shard = mode_xrealloc(x->out->shard, x->cap * sizeof *x->out->shard);
    }
    size_t n = strlen(base);
    const char *name = strncmp(path, base, n) == 0 ? path + n : path;
    while (*name == '/') name++;
    x->out->shard[x->out->n++] = (struct mode_shard){
        .path = mode_xstrdup(path),
        .name = mode_xstrdup(*name ? name : mode_path_base(path)),
        .size = size,
        .mtime_ns = mtime_ns,
    };
    return MODE_OK;
}

static enum mode_status add_shard(struct expansion *x, const char *path, const char *base)
{
    struct stat st;
    if (stat(path, &st) != 0) return mode_input_fail(x->err, errno, path, "be opened");
    if (!S_ISREG(st.st_mode)) return MODE_FAIL(x->err, MODE_E_NOINPUT, "%s: a shard must be a regular file", path);
    return keep(x, path, base, (uint64_t)st.st_size,
                (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec);
}

static enum mode_status add_remote(struct expansion *x, const char *text, const char *base)
{
    char *address, *query;
    enum mode_status st = mode_remote_address(&address, &query, text, x->err);
    if (st) return st;
    if (query && !x->in_list)
        st = MODE_FAIL(x->err, MODE_E_CONFIG,
                       "%s?...: what is after \"?\" may be a key, and a run's spec is kept and shown. HINT: write such "
                       "addresses into a file, one per line, and name that: @FILE; or leave the query out",
                       address);
    if (!st) st = mode_remote_query_put(address, query, x->err);
    if (!st) st = keep(x, address, base, 0, 0);
    free(address);
    free(query);
    return st;
}

/* Digits compare as numbers, everything else as bytes; leading zeros break ties, so the order is total. */
static int natural_cmp(const char *a, const char *b)
{
    const char *a0 = a, *b0 = b;
    while (*a && *b) {
        if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
            while (*a == '0') a++;
            while (*b == '0') b++;
            size_t na = strspn(a, "0123456789"), nb = strspn(b, "0123456789");
            if (na != nb) return na < nb ? -1 : 1;
            int c = strncmp(a, b, na);
            if (c) return c;
            a += na;
            b += nb;
        } else {
            if (*a != *b) return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
            a++;
            b++;
        }
    }
    if (*a || *b) return *a ? 1 : -1;
    return strcmp(a0, b0);
}

static int by_name(const void *a, const void *b)
{
    return natural_cmp(((const struct mode_shard *)a)->path, ((const struct mode_shard *)b)->path);
}

static bool ends_in(const char *name, const char *end)
{
    const size_t n = strlen(name), k = strlen(end);
    return n > k && strcmp(name + n - k, end) == 0;
}

static const char *compressed_kind(const char *name)
{
    static const char *const kinds[] = {".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (ends_in(name, kinds[i])) return kinds[i];
    return NULL;
}

static enum mode_status add_folder(struct expansion *x, const char *dir, const char *base, int depth)
{
    if (depth > MAX_DEPTH) return MODE_FAIL(x->err, MODE_E_VALUE, "%s: folders nested deeper than %d", dir, MAX_DEPTH);
    DIR *d = mode_fresh_opendir(dir);
    if (!d) return mode_input_fail(x->err, errno, dir, "be read");
    enum mode_status st = MODE_OK;
    struct dirent *e;
    while (!st && (e = readdir(d))) {
        if (e->d_name[0] == '.') continue;
        char *path = mode_path_join(dir, e->d_name);
        struct stat s;
        const char *kind = compressed_kind(e->d_name);
        if (stat(path, &s) == 0 && S_ISDIR(s.st_mode))
            st = add_folder(x, path, base, depth + 1);
        else if (ends_in(e->d_name, ".tar"))
            st = add_shard(x, path, base);
        else if (kind && !x->compressed)
            x->compressed = mode_xasprintf("%s/*%s", dir, kind);
        free(path);
    }
    closedir(d);
    return st;
}

/* The folder before the first pattern character: names are relative to it. */
static char *fixed_folder(const char *pattern)
{
    size_t n = strcspn(pattern, "*?[{");
    while (n && pattern[n - 1] != '/') n--;
    char *base = mode_xstrdup(pattern);
    base[n] = 0;
    return base;
}

static enum mode_status add_pattern(struct expansion *x, const char *pattern, const char *base)
{
    struct stat s;
    if (mode_remote_is(pattern)) return add_remote(x, pattern, base);
    if (!strpbrk(pattern, "*?[")) {
        if (stat(pattern, &s) == 0 && S_ISDIR(s.st_mode)) return add_folder(x, pattern, pattern, 0);
        return add_shard(x, pattern, base);
    }
    glob_t g;
    int rc = glob(pattern, GLOB_NOSORT, NULL, &g);
    enum mode_status st = MODE_OK;
    if (rc == GLOB_NOMATCH) {
        if (*base && (st = mode_input_folder(base, x->err))) return st;
        return MODE_FAIL(x->err, MODE_E_NOINPUT, "%s: the pattern matches no file", pattern);
    }
    if (rc) return MODE_FAIL(x->err, MODE_E_IO, "%s: the pattern cannot be expanded (%d)", pattern, rc);
    for (size_t i = 0; i < g.gl_pathc && !st; i++) st = add_pattern(x, g.gl_pathv[i], base);
    globfree(&g);
    return st;
}

static bool all_digits(const char *s, size_t n)
{
    if (n == 0 || n > 18) return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return true;
}

static enum mode_status fail_braces(struct expansion *x, enum mode_status st, const char *pattern, const char *why)
{
    char *shown = mode_remote_shown(pattern);
    MODE_FAIL(x->err, st, "%s: %s", shown, why);
    free(shown);
    return st;
}

/* Expand the first brace of pattern, and the rest by recursion. */
static enum mode_status add_braces(struct expansion *x, const char *pattern, const char *base, int depth)
{
    const char *open = strchr(pattern, '{');
    if (!open) return add_pattern(x, pattern, base);
    if (depth > MAX_DEPTH) return fail_braces(x, MODE_E_VALUE, pattern, "too many braces");
    const char *close = open;
    for (int level = 0; *close; close++) {
        if (*close == '{') level++;
        if (*close == '}' && --level == 0) break;
    }
    if (!*close) return fail_braces(x, MODE_E_CONFIG, pattern, "a brace is not closed");
    const char *in = open + 1;
    const size_t n_head = (size_t)(open - pattern);
    enum mode_status st = MODE_OK;
    const char *dots = strstr(in, "..");
    if (dots && dots < close && all_digits(in, (size_t)(dots - in)) &&
        all_digits(dots + 2, (size_t)(close - dots - 2))) {
        int width = in[0] == '0' ? (int)(dots - in) : 0;
        unsigned long long from = strtoull(in, NULL, 10), to = strtoull(dots + 2, NULL, 10);
        if (to < from || to - from >= MAX_SHARDS)
            return fail_braces(x, MODE_E_CONFIG, pattern, "its range {A..B} is empty or too long");
        for (unsigned long long i = from; i <= to && !st; i++) {
            char *one = mode_xasprintf("%.*s%0*llu%s", (int)n_head, pattern, width, i, close + 1);
            st = add_braces(x, one, base, depth + 1);
            free(one);
        }
        return st;
    }
    const char *part = in;
    int level = 0;
    for (const char *p = in; p <= close && !st; p++) {
        if (*p == '{') level++;
        if (*p == '}') level--;
        if (p == close || (*p == ',' && level == 0)) {
            char *one = mode_xasprintf("%.*s%.*s%s", (int)n_head, pattern, (int)(p - part), part, close + 1);
            st = add_braces(x, one, base, depth + 1);
            free(one);
            part = p + 1;
        }
    }
    return st;
}

static enum mode_status add_source(struct expansion *x, const char *source, const char *folder, int depth);

static enum mode_status add_list(struct expansion *x, const char *path, int depth)
{
    char *text = NULL;
    size_t size;
    enum mode_status st = mode_file_read(path, 256u << 20, &text, &size, x->err);
    if (st) return st;
    char *folder = mode_xstrdup(path);
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0;
    char *save = NULL;
    const bool outer = x->in_list;
    x->in_list = true;
    for (char *line = strtok_r(text, "\r\n", &save); line && !st; line = strtok_r(NULL, "\r\n", &save)) {
        line += strspn(line, " \t");
        if (*line && *line != '#') st = add_source(x, line, folder, depth + 1);
    }
    x->in_list = outer;
    free(folder);
    free(text);
    return st;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The local path of a file: URL, which the caller frees; *path NULL: source is not one. */
static enum mode_status path_of_url(char **path, const char *source, struct mode_error *err)
{
    enum { SCHEME = 5 };
    static const char local[] = "localhost/", patterns[] = "*?[{}\\/";
    *path = NULL;
    if (strncasecmp(source, "file:", SCHEME) != 0) return MODE_OK;
    const char *from = source + SCHEME;
    if (strncmp(from, "//", 2) == 0) {
        from += 2;
        if (strncasecmp(from, local, sizeof local - 1) == 0) from += sizeof local - 2;
    }
    if (*from != '/')
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s: is no file on this machine; expected file:///PATH, an absolute path after three slashes",
                         source);
    char *to = *path = mode_xmalloc(strlen(from) + 1);
    for (; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        const int high = hex(from[1]), low = high < 0 ? -1 : hex(from[2]);
        const char c = (char)(16 * high + low);
        if (low < 0 || !c || strchr(patterns, c)) {
            free(*path);
            *path = NULL;
            return low < 0
                       ? MODE_FAIL(err, MODE_E_CONFIG,
                                   "%s: \"%.3s\" is not an encoded byte; expected %% and two hex digits", source, from)
                       : MODE_FAIL(err, MODE_E_CONFIG,
                                   "%s: %.3s encodes a character that a name may not contain (a NUL, or one of %s)",
                                   source, from, patterns);
        }
        *to++ = c;
        from += 2;
    }
    *to = '\0';
    return MODE_OK;
}

/* Fails for URLs that are not supported, with a hint for each. */
static enum mode_status refuse_other(const char *source, const char *rest, struct mode_error *err)
{
    const char *hint = "copy the shards to this machine, or mount them";
    const bool pipe = strncmp(rest, "pipe:", 5) == 0;
    if (!pipe && !strstr(rest, "://")) return MODE_OK;
    if (strncmp(rest, "hf://", 5) == 0)
        hint = "https://huggingface.co/datasets/ORG/NAME/resolve/main/FILE.tar, with HF_TOKEN where it is not for "
               "everybody";
    else if (strncmp(rest, "gs://", 5) == 0)
        hint = "https://storage.googleapis.com/BUCKET/KEY, of a public bucket or presigned";
    else if (source != rest)
        hint = "a list of sources must be a local file";
    else if (pipe)
        hint = "commands are not run; name what the command reads, as https:// or s3://";
    char *shown = mode_remote_shown(source);
    enum mode_status st = MODE_FAIL(err, MODE_E_CONFIG,
                                    "%s: only local files and folders can be read, by path or as file:///PATH, and "
                                    "https://, http:// and s3:// addresses of shards. HINT: %s",
                                    shown, hint);
    free(shown);
    return st;
}

static enum mode_status add_source(struct expansion *x, const char *source, const char *folder, int depth)
{
    if (depth > MAX_DEPTH) {
        char *shown = mode_remote_shown(source);
        enum mode_status deep = MODE_FAIL(x->err, MODE_E_VALUE, "%s: lists nested too deep", shown);
        free(shown);
        return deep;
    }
    const char *join = strstr(source, "::");
    if (join) {
        char *head = mode_xasprintf("%.*s", (int)(join - source), source);
        enum mode_status st = add_source(x, head, folder, depth + 1);
        free(head);
        return st ? st : add_source(x, join + 2, folder, depth + 1);
    }
    bool list = source[0] == '@';
    const char *rest = source + list;
    char *path;
    enum mode_status st = path_of_url(&path, rest, x->err);
    if (st) return st;
    if (!path && !list && mode_remote_is(rest)) {
        path = mode_xstrdup(rest);
        for (char *c = path; *c != ':'; c++) *c |= 0x20; /* lower-case the scheme: equal addresses are equal strings */
    }
    if (!path && (st = refuse_other(source, rest, x->err))) return st;
    if (!path) path = rest[0] == '/' || strcmp(folder, ".") == 0 ? mode_xstrdup(rest) : mode_path_join(folder, rest);
    size_t first = x->out->n;
    if (list) {
        st = add_list(x, path, depth);
    } else {
        char *base = fixed_folder(path);
        st = add_braces(x, path, base, 0);
        free(base);
        if (!st && x->out->n > first) qsort(x->out->shard + first, x->out->n - first, sizeof *x->out->shard, by_name);
    }
    if (!st && x->out->n == first)
        st = MODE_FAIL(x->err, MODE_E_NOINPUT, "%s: contains no shard (*.tar)%s%s%s", path,
                       x->compressed ? ". HINT: for compressed ones give a pattern, " : "",
                       x->compressed ? x->compressed : "",
                       x->compressed ? ", and are unpacked whenever they are read: plain tars are faster" : "");
    else if (!st && x->compressed)
        st = MODE_FAIL(x->err, MODE_E_CONFIG,
                       "%s: holds plain tars and compressed ones (%s), which may be copies of each other. HINT: say "
                       "which by a pattern, \"*.tar\" or \"*.tar.gz\"",
                       path, x->compressed);
    free(x->compressed);
    x->compressed = NULL;
    free(path);
    return st;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum mode_status mode_sources_expand(struct mode_shards *out, char *const *sources, size_t n_sources,
                                     const char *folder, struct mode_error *err)
{
    *out = (struct mode_shards){0};
    struct expansion x = {.out = out, .err = err};
    enum mode_status st = MODE_OK;
    for (size_t i = 0; i < n_sources && !st; i++) st = add_source(&x, sources[i], folder, 0);
    if (!st && out->n) {
        char **paths = mode_xmalloc(out->n * sizeof *paths);
        for (size_t i = 0; i < out->n; i++) paths[i] = out->shard[i].path;
        qsort(paths, out->n, sizeof *paths, by_path);
        for (size_t i = 1; i < out->n && !st; i++)
            if (strcmp(paths[i - 1], paths[i]) == 0)
                st = MODE_FAIL(err, MODE_E_CONFIG, "%s: the sources name this shard twice", paths[i]);
        free(paths);
    }
    if (st) mode_shards_clear(out);
    return st;
}

/* ---------------------------------------------------------------------------------------------- servers */

enum { ASK_AT_ONCE = 16 };

struct looking {
    struct mode_shards *shards;
    atomic_size_t next;
    pthread_mutex_t lock; /* of what follows */
    size_t failed;        /* lowest shard that failed, so that the error reported does not depend on timing */
    struct mode_error err;
};

static void fail_at(struct looking *l, size_t i, const struct mode_error *err)
{
    pthread_mutex_lock(&l->lock);
    if (i < l->failed) {
        l->failed = i;
        l->err = *err;
    }
    pthread_mutex_unlock(&l->lock);
}

static bool goes_on(struct looking *l)
{
    pthread_mutex_lock(&l->lock);
    const bool good = l->failed == SIZE_MAX;
    pthread_mutex_unlock(&l->lock);
    return good;
}

static void *look(void *ctx)
{
    struct looking *l = ctx;
    struct mode_remote_link *link = NULL;
    struct mode_error err = {0};
    enum mode_status st = mode_remote_link_open(&link, &err);
    for (size_t i; (i = atomic_fetch_add(&l->next, 1)) < l->shards->n && goes_on(l);) {
        struct mode_shard *s = &l->shards->shard[i];
        struct mode_remote_version v;
        if (!mode_remote_is(s->path)) continue;
        if (!st) st = mode_remote_look(&v, link, s->path, NULL, &err);
        if (st) {
            fail_at(l, i, &err);
            break;
        }
        char *address = s->path;
        s->path = mode_remote_pin(address, &v);
        s->size = v.bytes;
        free(address);
    }
    mode_remote_link_close(&link);
    return NULL;
}

enum mode_status mode_shards_look(struct mode_shards *s, struct mode_error *err)
{
    struct looking l = {.shards = s, .lock = PTHREAD_MUTEX_INITIALIZER, .failed = SIZE_MAX};
    pthread_t thread[ASK_AT_ONCE];
    size_t n_remote = 0;
    int n = 0;
    for (size_t i = 0; i < s->n; i++) n_remote += mode_remote_is(s->shard[i].path);
    if (!n_remote) return MODE_OK;
    while (n < ASK_AT_ONCE - 1 && (size_t)n + 1 < n_remote && pthread_create(&thread[n], NULL, look, &l) == 0) n++;
    look(&l);
    while (n) pthread_join(thread[--n], NULL);
    pthread_mutex_destroy(&l.lock);
    if (l.failed == SIZE_MAX) return MODE_OK;
    if (err) *err = l.err;
    return l.err.status;
}

uint64_t mode_shards_remote_bytes(const struct mode_shards *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->n; i++) bytes += mode_remote_bytes(s->shard[i].path);
    return bytes;
}

void mode_shards_clear(struct mode_shards *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->shard[i].path);
        free(s->shard[i].name);
    }
    free(s->shard);
    *s = (struct mode_shards){0};
}
