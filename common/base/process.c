#include "base/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t mode_process_peak_rss(pid_t pid)
{
    char path[64], line[256];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return (uint64_t)kib << 10;
}

enum mode_status mode_process_pick_gpu(int64_t index, struct mode_error *err)
{
    const char *seen = getenv("CUDA_VISIBLE_DEVICES"), *at = seen;
    char one[128];
    if (index == 0) return MODE_OK;
    if (index < 0) return MODE_FAIL(err, MODE_E_CONFIG, "device %lld: expected 0 or more", (long long)index);
    if (!seen) {
        snprintf(one, sizeof one, "%lld", (long long)index);
    } else {
        for (int64_t i = 0; i < index && at; i++) at = (at = strchr(at, ',')) ? at + 1 : NULL;
        if (!at || !*at || strcspn(at, ",") >= sizeof one)
            return MODE_FAIL(err, MODE_E_CONFIG, "device %lld: CUDA_VISIBLE_DEVICES is \"%s\" and has no such entry",
                             (long long)index, seen);
        snprintf(one, sizeof one, "%.*s", (int)strcspn(at, ","), at);
    }
    if (setenv("CUDA_VISIBLE_DEVICES", one, 1) != 0)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the environment variable CUDA_VISIBLE_DEVICES");
    return MODE_OK;
}
