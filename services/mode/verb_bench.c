/* mode bench - measures the speed of one part on this machine with given inputs. */
#include "base/options.h"
#include "base/parallel.h"
#include "bench.h"
#include "data/decoder.h"
#include "verb.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* clang-format off */
#define BENCH_SUBJECTS(X) \
    X(tokenize) \
    X(preprocess) \
    X(encode) \
    X(embed) \
    X(kmeans) \
    X(logistic) \
    X(train)

/* clang-format on */
#define X(name) extern const struct mode_verb mode_bench_##name;
BENCH_SUBJECTS(X)
#undef X

static const struct mode_verb *const subjects[] = {
#define X(name) &mode_bench_##name,
    BENCH_SUBJECTS(X)
#undef X
        NULL};

static double seconds(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench_clock bench_now(void)
{
    return (struct bench_clock){seconds(CLOCK_MONOTONIC),
                                seconds(CLOCK_PROCESS_CPUTIME_ID) + mode_decoder_cpu_seconds()};
}

void bench_print(const char *subject, const char *unit, int64_t n_items, struct bench_clock since)
{
    struct bench_clock now = bench_now();
    printf("{\"subject\":\"%s\",\"items\":%lld,\"unit\":\"%s\",\"seconds\":%.6f,\"cpu\":%.6f,\"threads\":%d}\n",
           subject, (long long)n_items, unit, now.wall - since.wall, now.cpu - since.cpu, mode_parallel_threads());
    fflush(stdout);
}

bool bench_goes_on(struct bench_clock since, double length)
{
    return bench_now().wall - since.wall < length;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    if (argc < 2) return MODE_FAIL(err, MODE_E_USAGE, "a subject is needed; mode bench --help lists them");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        static const struct mode_option none[] = {MODE_OPT_END};
        mode_options_help(none, "", "mode bench SUBJECT [options]",
                          "Times one part alone (reading the inputs, loading and a warm-up are not counted) and prints "
                          "one JSON line per round: subject, items, unit, seconds of wall time, cpu seconds of all "
                          "threads, threads (MODE_THREADS). bench/peers/bench_SUBJECT.py alternates it with the Python "
                          "peer and prints the ratio. `mode bench SUBJECT --help` explains one.");
        printf("\nsubjects:\n");
        for (size_t i = 0; subjects[i]; i++) printf("  %-12s %s\n", subjects[i]->name, subjects[i]->summary);
        return MODE_OK;
    }
    for (size_t i = 0; subjects[i]; i++)
        if (strcmp(subjects[i]->name, argv[1]) == 0) return subjects[i]->run(argc - 1, argv + 1, err);
    return MODE_FAIL(err, MODE_E_USAGE, "unknown subject \"%.40s\"; mode bench --help lists them", argv[1]);
}

const struct mode_verb mode_verb_bench = {"bench", "time one part on this machine", run};
