/* bench.h - what the subjects of `mode bench` share. Each subject lives in bench_<subject>.c, defines
 * `const struct mode_verb mode_bench_<subject>` and has one line in the list of verb_bench.c.
 *
 * A subject prepares its inputs, warms up, and times only its work, for --rounds rounds; every round prints one JSON
 * line on stdout, which bench/peers/bench_<subject>.py reads:
 *
 *     {"subject":"tokenize","items":20000,"unit":"texts","seconds":0.041,"cpu":0.041,"threads":1} */
#ifndef MODE_SERVICES_MODE_BENCH_H
#define MODE_SERVICES_MODE_BENCH_H

#include <stdbool.h>
#include <stdint.h>

struct bench_clock {
    double wall, cpu; /* seconds; cpu: of all threads of this process, and of its decoders */
};

/* The current values of both clocks. */
struct bench_clock bench_now(void);
/* Prints the line of a round that processed n_items from `since` until now. */
void bench_print(const char *subject, const char *unit, int64_t n_items, struct bench_clock since);
/* Whether a round that began at `since` repeats its work: until it has taken --seconds. */
bool bench_goes_on(struct bench_clock since, double seconds);

#endif
