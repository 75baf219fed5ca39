#include "merges.h"

#include "base/file.h"
#include "pipeline/cache.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum mode_status merges_find(const char **path, struct mode_error *err)
{
    static char found[PATH_MAX];
    if (*path) return MODE_OK;
    char *models = mode_cache_models(), *merges = mode_cache_merges();
    enum mode_status st = MODE_OK;
    snprintf(found, sizeof found, "%s", merges);
    if (access(found, F_OK) != 0 && errno == EACCES)
        st = mode_input_fail(err, errno, found, "be opened");
    else if (!mode_file_exists(found))
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "CLIP's merges file is needed: %s does not exist. HINT: --clip-merges FILE, or "
                       "deploy/fetch-models.sh %s (containers: docker compose run --rm models)",
                       found, models);
    if (!st) *path = found;
    free(models);
    free(merges);
    return st;
}
