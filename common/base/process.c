#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { MOST_GPUS = 64, MOST_SHARERS = 16 };

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

static int64_t gpus_seen(void)
{
    const char *seen = getenv("CUDA_VISIBLE_DEVICES");
    char path[32];
    int64_t n = 0;
    if (seen) {
        n = *seen != '\0';
        for (; *seen; seen++) n += *seen == ',';
        return n;
    }
    for (int i = 0; i < MOST_GPUS; i++) {
        snprintf(path, sizeof path, "/dev/nvidia%d", i);
        n += access(path, F_OK) == 0;
    }
    return n;
}

enum mode_status mode_process_claim_gpu(int64_t *index, const char *dir, const char *kind, struct mode_error *err)
{
    char path[PATH_MAX];
    int64_t n = gpus_seen();
    *index = -1;
    for (int64_t i = 0; i < n * MOST_SHARERS; i++) { /* every GPU once, then every GPU a second time, ... */
        snprintf(path, sizeof path, "%s/gpu-%lld-%s-%lld.lock", dir, (long long)(i % n), kind, (long long)(i / n));
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0) return MODE_FAIL(err, MODE_E_IO, "%s: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) { /* stays open: the kernel lets go when the process ends */
            *index = i % n;
            return MODE_OK;
        }
        close(fd);
    }
    if (n > 0) *index = 0;
    return MODE_OK;
}
