/* mistakes.h - deliberate mistakes, each in a process of its own, and the message that each must end with. */
#ifndef MODE_EMULATOR_MISTAKES_H
#define MODE_EMULATOR_MISTAKES_H

#include "emulator.h"

#include <sys/wait.h>
#include <unistd.h>

#include <string>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #x);                                      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

struct mistake {
    const char *name;
    void (*make)();
    const char *words; /* part of what the process must print */
};

/* Makes the mistake in a child process, which must fail and say why. */
static inline bool is_found(void (*make)(), const char *words)
{
    int fd[2], status;
    char text[4096];
    std::string said;
    CHECK(pipe(fd) == 0);
    fflush(nullptr);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(fd[1], 2);
        close(fd[0]);
        make();
        cudaDeviceSynchronize();
        _exit(0);
    }
    close(fd[1]);
    for (ssize_t n; (n = read(fd[0], text, sizeof text)) > 0;) said.append(text, (size_t)n);
    close(fd[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    if (failed && said.find(words) != said.npos) return true;
    printf("  expected \"%s\", got %s:\n%s\n", words, failed ? "another end" : "no complaint", said.c_str());
    return false;
}

/* How many of them went unreported. */
static inline int missed(const mistake *mistakes, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        const bool found = is_found(mistakes[i].make, mistakes[i].words);
        printf("%-8s%s\n", found ? "found" : "MISSED", mistakes[i].name);
        bad += !found;
    }
    printf("%d of %zu mistakes were missed\n", bad, n);
    return bad;
}

#endif
