#include "base/environment.h"

#include "base/memory.h"
#include "base/parallel.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *words;
} choices[] = {{"MODE_LOG_LEVEL", "error | warn | info | debug"},
               {"MODE_CUDA_ATTENTION", "own | cudnn"},
               {"MODE_CUDA_ACTIVATIONS", "own | cudnn"},
               {"MODE_CUDA_NEAREST", "own | library"},
               {"MODE_CUDA_PIXELS", "host"}};

static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_one_of(const char *words, const char *word)
{
    static const char between[] = " | ";
    for (size_t n; *words; words += n + strspn(words + n, between)) {
        n = strcspn(words, between);
        if (n == strlen(word) && strncmp(words, word, n) == 0) return true;
    }
    return false;
}

enum mode_status mode_environment_check(struct mode_error *err)
{
    const char *limit = value_of("MODE_SHARD_CACHE_BYTES");
    struct mode_error why;
    size_t bytes;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const char *value = value_of(choices[i].name);
        if (value && !is_one_of(choices[i].words, value))
            return MODE_FAIL(err, MODE_E_CONFIG, "%s: \"%.40s\" is unknown; expected %s", choices[i].name, value,
                             choices[i].words);
    }
    if (mode_parallel_check(&why) || (limit && mode_parse_size(limit, "MODE_SHARD_CACHE_BYTES", &bytes, &why)))
        return MODE_FAIL(err, MODE_E_CONFIG, "%s", why.text);
    return MODE_OK;
}
