#include "msg/health.h"

#include "base/file.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MAX_AGE_S = 15 };

void mode_health_write(const char *path, bool connected, int busy)
{
    struct timespec boot;
    char *temp = mode_xasprintf("%s.tmp-%ld", path, (long)getpid());
    clock_gettime(CLOCK_BOOTTIME, &boot);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644); /* /tmp is everybody's */
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f) {
        fprintf(f, "boot_s=%lld pid=%ld connected=%d busy=%d\n", (long long)boot.tv_sec, (long)getpid(), connected,
                busy);
        if (fclose(f) != 0 || rename(temp, path) != 0) unlink(temp);
    } else if (fd >= 0)
        close(fd);
    free(temp);
}

int mode_health_check(const char *path)
{
    struct mode_error err;
    struct timespec boot;
    char *text;
    long long at;
    long pid;
    int connected;
    if (mode_file_read(path, 4096, &text, NULL, &err)) {
        fprintf(stderr, "unhealthy: %s\n", err.text);
        return 1;
    }
    clock_gettime(CLOCK_BOOTTIME, &boot);
    bool ok = sscanf(text, "boot_s=%lld pid=%ld connected=%d", &at, &pid, &connected) == 3;
    free(text);
    if (!ok) {
        fprintf(stderr, "unhealthy: %s: is not a health file\n", path);
        return 1;
    }
    if (boot.tv_sec - at > MAX_AGE_S || boot.tv_sec < at || (kill((pid_t)pid, 0) != 0 && errno == ESRCH)) {
        fprintf(stderr, "unhealthy: process %ld was last heard of %lld s ago\n", pid, (long long)boot.tv_sec - at);
        return 1;
    }
    printf("healthy: pid %ld, %s\n", pid, connected ? "connected" : "not connected yet");
    return 0;
}
