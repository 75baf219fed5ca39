#include "base/path.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

char *mode_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return mode_xasprintf("%s%s%s", dir, n > 0 && dir[n - 1] == '/' ? "" : "/", name);
}

char *mode_path_folder(const char *path)
{
    char *dir = mode_xstrdup(path), *slash;
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') dir[--n] = '\0';
    slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    else {
        free(dir);
        dir = mode_xstrdup(".");
    }
    return dir;
}

const char *mode_path_base(const char *path)
{
    const char *s = strrchr(path, '/');
    return s ? s + 1 : path;
}
