#include "hub_snapshot.h"

#include "base/file.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static char *hub_cache(void)
{
    const char *cache = getenv("HF_HUB_CACHE"), *hf = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (cache && *cache) return mode_xstrdup(cache);
    if (hf && *hf) return mode_path_join(hf, "hub");
    if (xdg && *xdg) return mode_path_join(xdg, "huggingface/hub");
    return mode_xasprintf("%s/.cache/huggingface/hub", home ? home : "");
}

static bool is_commit(const char *text)
{
    const size_t n = strlen(text);
    return n >= 40 && n <= 64 && strspn(text, "0123456789abcdef") == n;
}

/* The commit of a revision: itself, or from refs/; NULL: not known here. */
static char *commit_of(const char *model, const char *revision)
{
    char *path = mode_xasprintf("%s/refs/%s", model, revision), *text = NULL;
    if (is_commit(revision))
        text = mode_xstrdup(revision);
    else if (!mode_file_read(path, 1024, &text, NULL, NULL))
        text[strcspn(text, " \r\n")] = '\0';
    free(path);
    if (text && is_commit(text)) return text;
    free(text);
    return NULL;
}

void hub_snapshot_find(struct hub_snapshot *s, const struct mode_hub_id *id)
{
    const char *slash = strchr(id->repo, '/');
    *s = (struct hub_snapshot){.cache = hub_cache()};
    char *model = mode_xasprintf("%s/models--%.*s--%s", s->cache, (int)(slash - id->repo), id->repo, slash + 1);
    if ((s->commit = commit_of(model, id->revision))) {
        s->dir = mode_xasprintf("%s/snapshots/%s", model, s->commit);
        s->no_exist = mode_xasprintf("%s/.no_exist/%s", model, s->commit);
        /* every model has this file, and only complete downloads fetch it */
        s->whole = hub_snapshot_look(s, ".gitattributes") == HUB_FILE_THERE;
    }
    free(model);
    if (!s->dir || mode_file_exists(s->dir)) return;
    char *cache = s->cache;
    s->cache = NULL;
    hub_snapshot_clear(s);
    s->cache = cache;
}

enum hub_file hub_snapshot_look(const struct hub_snapshot *s, const char *name)
{
    if (!s->dir) return HUB_FILE_UNKNOWN;
    char *there = mode_path_join(s->dir, name), *none = mode_path_join(s->no_exist, name);
    const enum hub_file file = mode_file_exists(there)              ? HUB_FILE_THERE
                               : s->whole || mode_file_exists(none) ? HUB_FILE_NONE
                                                                    : HUB_FILE_UNKNOWN;
    free(there);
    free(none);
    return file;
}

void hub_snapshot_clear(struct hub_snapshot *s)
{
    free(s->cache);
    free(s->dir);
    free(s->no_exist);
    free(s->commit);
    *s = (struct hub_snapshot){0};
}
