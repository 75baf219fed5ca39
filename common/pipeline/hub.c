#include "pipeline/hub.h"

#include "base/str.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_part(const char *p, size_t n)
{
    static const char known[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return n > 0 && n <= 96 && p[0] != '.' && strspn(p, known) >= n;
}

char *mode_hub_dir(const char *id)
{
    const char *cache = getenv("MODE_CACHE"), *home = getenv("HOME"), *slash = strchr(id, '/');
    if (!slash || !is_part(id, (size_t)(slash - id)) || !is_part(slash + 1, strlen(slash + 1))) return NULL;
    return cache && *cache ? mode_xasprintf("%s/models/hub/%s", cache, id)
                           : mode_xasprintf("%s/.cache/mode/models/hub/%s", home ? home : "", id);
}
