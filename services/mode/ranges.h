/* ranges.h - the valid ranges of numeric options, declared beside a verb's options and checked before it does anything;
 * and errors for missing or surplus options and arguments.
 *
 *     static const struct option_range ranges[] = {RANGE_FROM("batch", 1), RANGE("threads", 0, 1024), RANGE_END};
 *     if ((st = ranges_check(&o, table, ranges, err))) return st;
 *
 * The error names the option, its range and the given value: "--batch: 0 is out of range, expected 1 or more". */
#ifndef MODE_SERVICES_MODE_RANGES_H
#define MODE_SERVICES_MODE_RANGES_H

#include "base/error.h"
#include "base/options.h"

#include <math.h>
#include <stdbool.h>

struct option_range {
    const char *name; /* of a numeric option of the table */
    double min, max;
    bool above_min, below_max; /* the bound itself is excluded */
};

#define RANGE(name, min, max)                                                                                          \
    {                                                                                                                  \
        name, min, max, false, false                                                                                   \
    }
#define RANGE_FROM(name, min)                                                                                          \
    {                                                                                                                  \
        name, min, INFINITY, false, false                                                                              \
    }
#define RANGE_ABOVE(name, min)                                                                                         \
    {                                                                                                                  \
        name, min, INFINITY, true, false                                                                               \
    }
#define RANGE_ABOVE_TO(name, min, max)                                                                                 \
    {                                                                                                                  \
        name, min, max, true, false                                                                                    \
    }
#define RANGE_BELOW(name, min, max)                                                                                    \
    {                                                                                                                  \
        name, min, max, false, true                                                                                    \
    }
#define RANGE_END                                                                                                      \
    {                                                                                                                  \
        NULL, 0, 0, false, false                                                                                       \
    }
/* Shared by many verbs. 0 threads: one per processor. */
#define RANGE_THREADS RANGE("threads", 0, 1024)
#define RANGE_SEED    RANGE_FROM("seed", 0)

/* MODE_E_USAGE (mode_options_blame decides whether the environment is to blame). */
enum mode_status ranges_check(const void *options, const struct mode_option *table, const struct option_range *ranges,
                              struct mode_error *err);
/* Checks that a required option or argument is given: "--model DIR is needed". */
enum mode_status option_needed(const char *value, const char *name, struct mode_error *err);
/* The verb takes at most `most` arguments; argv[1..n_args] are given. hint: what a surplus one may have been meant as,
 * or NULL. MODE_E_USAGE names the first surplus one. */
enum mode_status arguments_check(int n_args, int most, char **argv, const char *hint, struct mode_error *err);

/* A required count, kept as text so that 0 differs from a missing value. MODE_E_USAGE. */
enum mode_status option_count(int64_t *value, const char *text, const char *name, int64_t min, int64_t max,
                              struct mode_error *err);

#endif
