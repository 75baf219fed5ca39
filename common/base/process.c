#include "base/process.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MOST_SHARERS = 16 };

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

uint64_t mode_process_raise_files(void)
{
    enum { MOST = 65536 };
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
    rlim_t want = files.rlim_max > MOST ? MOST : files.rlim_max;
    if (files.rlim_cur < want) {
        struct rlimit more = {want, files.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) files.rlim_cur = want;
    }
    return files.rlim_cur;
}

uint64_t mode_process_open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the folder itself */
}

/* The name of the index-th visible GPU. */
static enum mode_status name_of(char *one, size_t size, int64_t index, struct mode_error *err)
{
    const char *seen = getenv("CUDA_VISIBLE_DEVICES"), *at = seen;
    if (index < 0) return MODE_FAIL(err, MODE_E_CONFIG, "device %lld: expected 0 or more", (long long)index);
    if (!seen) {
        snprintf(one, size, "%lld", (long long)index);
        return MODE_OK;
    }
    for (int64_t i = 0; i < index && at; i++) at = (at = strchr(at, ',')) ? at + 1 : NULL;
    if (!at || !*at || strcspn(at, ",") >= size)
        return MODE_FAIL(err, MODE_E_CONFIG, "device %lld: CUDA_VISIBLE_DEVICES is \"%s\" and has no such entry",
                         (long long)index, seen);
    snprintf(one, size, "%.*s", (int)strcspn(at, ","), at);
    return MODE_OK;
}

enum mode_status mode_process_pick_gpus(const int64_t *index, int n, struct mode_error *err)
{
    char list[MODE_MOST_GPUS * 64] = "";
    MODE_ASSERT(n >= 1 && n <= MODE_MOST_GPUS);
    for (int i = 0; i < n; i++) {
        size_t at = strlen(list);
        if (i > 0) list[at++] = ',';
        enum mode_status st = name_of(list + at, 63, index[i], err); /* "GPU-" and a UUID has 40 characters */
        if (st) return st;
    }
    if (setenv("CUDA_VISIBLE_DEVICES", list, 1) != 0)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the environment variable CUDA_VISIBLE_DEVICES");
    return MODE_OK;
}

enum mode_status mode_process_pick_gpu(int64_t index, struct mode_error *err)
{
    return index == 0 ? MODE_OK : mode_process_pick_gpus(&index, 1, err);
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
    for (int i = 0; i < MODE_MOST_GPUS; i++) {
        snprintf(path, sizeof path, "/dev/nvidia%d", i);
        n += access(path, F_OK) == 0;
    }
    return n;
}

static bool is_among(const int64_t *index, int n, int64_t gpu)
{
    for (int i = 0; i < n; i++)
        if (index[i] == gpu) return true;
    return false;
}

enum mode_status mode_process_claim_gpus(int64_t *index, int n, const char *dir, const char *kind,
                                         struct mode_error *err)
{
    char path[PATH_MAX];
    const int64_t seen = gpus_seen();
    int got = 0;
    index[0] = -1;
    if (seen > 0 && seen < n)
        return MODE_FAIL(err, MODE_E_CONFIG, "%d GPUs are asked for, and %lld can be seen", n, (long long)seen);
    for (int64_t i = 0; i < seen * MOST_SHARERS; i++) { /* try every GPU once, then every GPU a second time, ... */
        if (is_among(index, got, i % seen)) continue;
        snprintf(path, sizeof path, "%s/gpu-%lld-%s-%lld.lock", dir, (long long)(i % seen), kind,
                 (long long)(i / seen));
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0) return MODE_FAIL(err, MODE_E_IO, "%s: %s", path, strerror(errno));
        const enum mode_status st = mode_file_lock(fd, LOCK_EX, path, err);
        if (st) {
            close(fd);
            if (st != MODE_E_TEMP) return st;
            continue;
        }
        index[got++] = i % seen; /* stays open: the kernel releases the lock when the process ends */
        if (got == n) return MODE_OK;
    }
    for (int64_t i = 0; seen > 0 && got < n; i++) /* more processes than locks */
        if (!is_among(index, got, i)) index[got++] = i;
    return MODE_OK;
}
