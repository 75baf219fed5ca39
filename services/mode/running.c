#include "running.h"

#include "base/file.h"
#include "base/str.h"
#include "msg/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum mode_status running_say(int fd, pid_t pid, const struct supervisor_options *o, const char *path,
                             struct mode_error *err)
{
    if (ftruncate(fd, 0) == 0 && dprintf(fd, "%ld\nworkers=%s\nredis=%s\nhttp=%s\ngpus=%d\n", (long)pid, o->workers,
                                         o->redis_url ? o->redis_url : "", o->http, o->gpus) > 0)
        return MODE_OK;
    return MODE_FAIL(err, MODE_E_IO, "%s: %s", path, strerror(errno));
}

/* The rest of the line that begins with name, or NULL. */
static char *value_of(const char *text, const char *name)
{
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, strlen(name)) != 0) continue;
        line += strlen(name);
        return mode_xasprintf("%.*s", (int)strcspn(line, "\n"), line);
    }
    return NULL;
}

enum mode_status running_read(struct running *r, const char *workspace, struct mode_error *err)
{
    char *path = NULL, *text = NULL;
    *r = (struct running){0};
    enum mode_status st = mode_place_path(&path, workspace, "supervisor.pid", err);
    if (!st) st = mode_file_read(path, 1 << 16, &text, NULL, err);
    if (!st) {
        r->workers = value_of(text, "workers=");
        r->redis = value_of(text, "redis=");
        r->http = value_of(text, "http=");
        char *gpus = value_of(text, "gpus=");
        r->gpus = gpus ? atoi(gpus) : 0;
        free(gpus);
        if (!r->workers || !r->redis || !r->http || r->gpus == 0)
            st = MODE_FAIL(err, MODE_E_TEMP,
                           "a supervisor is running here, and %s does not say with what options (another version wrote "
                           "it, or it is just starting). HINT: try again, or `mode down --workspace %s` first",
                           path, workspace);
    }
    free(text);
    free(path);
    if (st) running_clear(r);
    return st;
}

void running_clear(struct running *r)
{
    free(r->workers);
    free(r->redis);
    free(r->http);
    *r = (struct running){0};
}

static bool same_workers(const char *a, const char *b)
{
    for (int i = 0; supervisor_kind(i); i++)
        if (mode_place_workers(a, supervisor_kind(i)) != mode_place_workers(b, supervisor_kind(i))) return false;
    return true;
}

enum mode_status running_is_asked(const struct running *r, const char *workspace, const char *workers,
                                  const char *redis, const char *http, int gpus, struct mode_error *err)
{
    struct mode_str differs = {0};
    if (workers && !same_workers(workers, r->workers))
        mode_str_printf(&differs, " with --workers %s, not %s", r->workers, workers);
    if (redis && strcmp(redis, r->redis) != 0) /* not shown: URLs may contain passwords */
        mode_str_printf(&differs, "%s with %s", differs.len ? " and" : "",
                        r->redis[0] ? "another --redis than this" : "a Redis of its own, not this --redis");
    if (http && strcmp(http, r->http) != 0)
        mode_str_printf(&differs, "%s %s%s, not %s", differs.len ? " and" : "",
                        r->http[0] ? "with --http " : "without --http", r->http, http);
    if (gpus && gpus != r->gpus)
        mode_str_printf(&differs, "%s with --gpus %d, not %d", differs.len ? " and" : "", r->gpus, gpus);
    enum mode_status st = MODE_OK;
    if (differs.len)
        st = MODE_FAIL(err, MODE_E_TEMP,
                       "it is already running,%s; nothing was changed. HINT: `mode down --workspace %s` first (what is "
                       "done stays done)",
                       differs.data, workspace);
    mode_str_clear(&differs);
    return st;
}
