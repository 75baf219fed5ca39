#include "pipeline/cache.h"

#include "base/file.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PART = 96 };

static const char known[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

char *mode_cache_models(void)
{
    char *cache = mode_cache_folder(), *models = mode_path_join(cache, "models");
    free(cache);
    return models;
}

char *mode_cache_merges(void)
{
    char *models = mode_cache_models(), *path = mode_path_join(models, "bpe_simple_vocab_16e6.txt.gz");
    free(models);
    return path;
}

static bool is_part(const char *p, size_t n)
{
    return n > 0 && n <= MAX_PART && p[0] != '.' && strspn(p, known) >= n;
}

/* May contain slashes (refs/pr/1), but no component that could escape the folder. */
static bool is_revision(const char *p)
{
    if (strlen(p) > MAX_PART || p[0] == '-') return false;
    for (;; p++) {
        const size_t n = strcspn(p, "/");
        if (!is_part(p, n)) return false;
        p += n;
        if (!*p) return true;
    }
}

bool mode_hub_id_parse(struct mode_hub_id *id, const char *text)
{
    const char *slash = strchr(text, '/'), *at = strchr(text, '@');
    const char *end = at ? at : text + strlen(text);
    *id = (struct mode_hub_id){0};
    if (!slash || slash > end || !is_part(text, (size_t)(slash - text)) ||
        !is_part(slash + 1, (size_t)(end - slash) - 1) || (at && !is_revision(at + 1)))
        return false;
    id->repo = mode_xasprintf("%.*s", (int)(end - text), text);
    id->revision = mode_xstrdup(at ? at + 1 : "main");
    return true;
}

void mode_hub_id_clear(struct mode_hub_id *id)
{
    free(id->repo);
    free(id->revision);
    *id = (struct mode_hub_id){0};
}

char *mode_cache_hub(enum mode_hub_kind kind, const char *text)
{
    struct mode_hub_id id;
    if (!mode_hub_id_parse(&id, text)) return NULL;
    char *models = mode_cache_models();
    struct mode_str path = {0};
    mode_str_printf(&path, "%s/%s/%s", models, kind == MODE_HUB_CLIP ? "hub-clip" : "hub", id.repo);
    if (strcmp(id.revision, "main") != 0) {
        mode_str_add_char(&path, '@');
        for (const char *c = id.revision; *c; c++)
            if (*c == '/') /* one folder per revision */
                mode_str_add_cstr(&path, "%2F");
            else
                mode_str_add_char(&path, *c);
    }
    free(models);
    mode_hub_id_clear(&id);
    return path.data;
}

const char *mode_hub_name(const char *text)
{
    const size_t n = sizeof MODE_HUB_PREFIX - 1;
    return strncmp(text, MODE_HUB_PREFIX, n) == 0 ? text + n : NULL;
}
