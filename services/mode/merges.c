#include "merges.h"

#include "base/file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum mode_status merges_find(const char **path, struct mode_error *err)
{
    static char found[PATH_MAX];
    const char *cache = getenv("MODE_CACHE"), *home = getenv("HOME");
    if (*path) return MODE_OK;
    if (cache)
        snprintf(found, sizeof found, "%s/models/bpe_simple_vocab_16e6.txt.gz", cache);
    else
        snprintf(found, sizeof found, "%s/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz", home ? home : "");
    if (access(found, F_OK) != 0 && errno == EACCES) return mode_input_fail(err, errno, found, "be opened");
    if (!mode_file_exists(found))
        return MODE_FAIL(
            err, MODE_E_NOINPUT,
            "CLIP's merges file is needed: %s does not exist. HINT: --clip-merges FILE, or deploy/fetch-models.sh %s",
            found, cache ? "$MODE_CACHE/models" : "~/.cache/mode/models");
    *path = found;
    return MODE_OK;
}
