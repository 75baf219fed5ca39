#include "scoring.h"

#include "base/file.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool scoring_more(void *ctx, uint64_t done, uint64_t total, const char *unit)
{
    fprintf(stderr, "\r%s: %llu of %llu %s   %s", (const char *)ctx, (unsigned long long)done,
            (unsigned long long)total, unit, done == total ? "\n" : "");
    return true;
}

void scoring_notice(void *ctx, const char *text)
{
    fprintf(stderr, "%s: %s\n", (const char *)ctx, text);
}

char *scoring_name(const char *folder)
{
    char *path = mode_xstrdup(folder);
    for (size_t k = strlen(path); k > 1 && path[k - 1] == '/'; k--) path[k - 1] = '\0';
    char *name = mode_xstrdup(mode_path_base(path));
    free(path);
    return name;
}

static void print_metrics(const char *task, const json_t *metrics)
{
    const char *key;
    json_t *value;
    printf("%s", task);
    json_object_foreach((json_t *)metrics, key, value)
    {
        if (json_is_null(value))
            printf("\t%s=-", key);
        else
            printf("\t%s=%.4f", key, json_number_value(value));
    }
    printf("\n");
}

void scoring_print(const char *task, const json_t *result, bool json)
{
    if (json) {
        char *line = json_dumps(result, JSON_COMPACT | JSON_REAL_PRECISION(12));
        printf("%s\n", line);
        free(line);
    } else
        print_metrics(task, json_object_get(result, "metrics"));
    fflush(stdout);
}
