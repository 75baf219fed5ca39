#include "base/memory.h"

#include "base/str.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 4096 };

/* The number after `key` in a file of lines "key number"; key "": the whole file is the number. False: not found. */
static bool number_in(size_t *out, const char *path, const char *key)
{
    char line[LINE], *end;
    bool found = false;
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        size_t n = strlen(key);
        if (strncmp(line, key, n) != 0) continue;
        errno = 0;
        unsigned long long value = strtoull(line + n, &end, 10);
        found = end != line + n && errno == 0;
        *out = (size_t)value;
    }
    if (f) fclose(f);
    return found;
}

struct group_files { /* of one cgroup version */
    const char *mount, *limit, *used, *cache;
};

/* Bytes left below the limit of the group at `at`; SIZE_MAX: no limit. */
static size_t left_in_group(const char *root, const struct group_files *g, const char *at)
{
    char *path[] = {mode_xasprintf("%s%s%s/%s", root, g->mount, at, g->limit),
                    mode_xasprintf("%s%s%s/%s", root, g->mount, at, g->used),
                    mode_xasprintf("%s%s%s/memory.stat", root, g->mount, at)};
    size_t limit, used, cache = 0, left = SIZE_MAX;
    if (number_in(&limit, path[0], "") && number_in(&used, path[1], "")) { /* "max" is not a number */
        (void)number_in(&cache, path[2], g->cache);
        used -= cache < used ? cache : used;
        left = limit > used ? limit - used : 0;
    }
    for (int i = 0; i < 3; i++) free(path[i]);
    return left;
}

/* The minimum over the group and its ancestors; at is shortened step by step. */
static size_t left_in_groups(const char *root, const struct group_files *g, char *at)
{
    size_t left = SIZE_MAX;
    for (;;) {
        size_t here = left_in_group(root, g, at);
        char *end = strrchr(at, '/');
        if (here < left) left = here;
        if (!end) return left;
        *end = '\0';
    }
}

size_t mode_memory_left(const char *root)
{
    static const struct group_files v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                          "total_inactive_file "},
                                    v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};
    char *info = mode_xasprintf("%s/proc/meminfo", root), *groups = mode_xasprintf("%s/proc/self/cgroup", root);
    char line[LINE];
    size_t kib, left = SIZE_MAX;
    if (number_in(&kib, info, "MemAvailable:")) left = kib << 10;
    FILE *f = fopen(groups, "re");
    while (f && fgets(line, sizeof line, f)) { /* number:controllers:path */
        char *kind = strchr(line, ':'), *path = kind ? strchr(kind + 1, ':') : NULL;
        if (!path) continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        size_t n = strlen(path);
        if (n > 0 && path[n - 1] == '/') path[n - 1] = '\0';
        const bool second = strcmp(kind, ":") == 0, first = strcmp(kind, ":memory") == 0;
        if (!first && !second) continue;
        size_t here = left_in_groups(root, first ? &v1 : &v2, path);
        if (here < left) left = here;
    }
    if (f) fclose(f);
    free(info);
    free(groups);
    return left;
}

size_t mode_memory_held(void)
{
    size_t kib;
    return number_in(&kib, "/proc/self/status", "VmRSS:") ? kib << 10 : 0;
}

enum mode_status mode_parse_size(const char *text, const char *what, size_t *out, struct mode_error *err)
{
    static const char units[] = "kmgt";
    const char *end = text + strspn(text, "0123456789.");
    char *stop;
    double n = strtod(text, &stop);
    const char *unit = *end ? strchr(units, *end | 0x20) : NULL;
    const bool number = stop == end && *text >= '0' && *text <= '9', whole = *end == '\0' || (unit && end[1] == '\0');
    for (const char *u = units; unit && u <= unit; u++) n *= 1024;
    if (!number || !whole || n < 1 || n >= (double)(SIZE_MAX / 2))
        return MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" is not a size; expected bytes, or a number and k, m, g or t",
                         what, text);
    *out = (size_t)n;
    return MODE_OK;
}

const char *mode_size_text(char text[MODE_SIZE_TEXT], uint64_t bytes)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB"};
    double v = (double)bytes / 1e3;
    size_t u = 0;
    for (; v >= 999.95 && u + 1 < sizeof units / sizeof *units; u++) v /= 1e3; /* would print as "1000.0" */
    if (bytes < 1000)
        snprintf(text, MODE_SIZE_TEXT, "%u byte%s", (unsigned)bytes, MODE_PLURAL(bytes));
    else
        snprintf(text, MODE_SIZE_TEXT, "%.1f %s", v, units[u]);
    return text;
}

void *mode_memory_pages(size_t bytes)
{
    const size_t pages = bytes / MODE_PAGE + (bytes % MODE_PAGE || bytes == 0);
    return pages <= SIZE_MAX / MODE_PAGE ? aligned_alloc(MODE_PAGE, pages * MODE_PAGE) : NULL;
}
