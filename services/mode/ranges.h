/* ranges.h - which numbers an option may be, said where the verb's options are and checked before it does anything; and
 * what a verb says of options and arguments that are missing or too many.
 *
 *     static const struct option_range ranges[] = {RANGE_FROM("batch", 1), RANGE("threads", 0, 1024), RANGE_END};
 *     if ((st = ranges_check(&o, table, ranges, err))) return st;
 *
 * The sentence names the option, what it may be and what was given: "--batch: 0 is out of range, expected 1 or more".
 */
#ifndef MODE_SERVICES_MODE_RANGES_H
#define MODE_SERVICES_MODE_RANGES_H

#include "base/error.h"
#include "base/options.h"

#include <math.h>
#include <stdbool.h>

struct option_range {
    const char *name; /* of an option of the table that is a number */
    double min, max;
    bool above_min, below_max; /* the end itself is not in the range */
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
/* What many verbs have. 0 threads: every processor. */
#define RANGE_THREADS RANGE("threads", 0, 1024)
#define RANGE_SEED    RANGE_FROM("seed", 0)

/* MODE_E_USAGE (mode_options_blame says whether the environment's). */
enum mode_status ranges_check(const void *options, const struct mode_option *table, const struct option_range *ranges,
                              struct mode_error *err);
/* One of the verb's options or arguments that must be given: "--model DIR is needed". */
enum mode_status option_needed(const char *value, const char *name, struct mode_error *err);
/* The verb takes `most` arguments; argv[1..n_args] are there. hint: what one too many may have been meant as, or NULL.
 * MODE_E_USAGE names the first too many. */
enum mode_status arguments_check(int n_args, int most, char **argv, const char *hint, struct mode_error *err);

/* An option that must be given and is a count, kept as text so that 0 and nothing differ. MODE_E_USAGE. */
enum mode_status option_count(int64_t *value, const char *text, const char *name, int64_t min, int64_t max,
                              struct mode_error *err);

#endif
