#include "ranges.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mode_option *find(const struct mode_option *table, const char *name)
{
    while (table->type != MODE_OPTION_END && strcmp(table->name, name) != 0) table++;
    MODE_ASSERT(table->type == MODE_OPTION_INT || table->type == MODE_OPTION_REAL);
    return table;
}

/* "1 or more", "0 to 65536", "more than 0 and at most 1" ... */
static void describe(char *text, size_t size, const struct option_range *r)
{
    if (r->max == INFINITY)
        snprintf(text, size, r->above_min ? "more than %.15g" : "%.15g or more", r->min);
    else if (!r->above_min && !r->below_max)
        snprintf(text, size, "%.15g to %.15g", r->min, r->max);
    else
        snprintf(text, size, "%s%.15g%s and %s %.15g", r->above_min ? "more than " : "", r->min,
                 r->above_min ? "" : " or more", r->below_max ? "less than" : "at most", r->max);
}

enum mode_status ranges_check(const void *options, const struct mode_option *table, const struct option_range *ranges,
                              struct mode_error *err)
{
    for (const struct option_range *r = ranges; r->name; r++) {
        const struct mode_option *o = find(table, r->name);
        const char *field = (const char *)options + o->offset;
        const bool whole = o->type == MODE_OPTION_INT;
        const int64_t n = whole ? *(const int64_t *)(const void *)field : 0;
        const double value = whole ? (double)n : *(const double *)(const void *)field;
        const bool low = r->above_min ? !(value > r->min) : !(value >= r->min),
                   high = r->below_max ? !(value < r->max) : !(value <= r->max);
        char expected[96], got[32];
        if (!low && !high) continue;
        describe(expected, sizeof expected, r);
        if (whole)
            snprintf(got, sizeof got, "%lld", (long long)n);
        else
            snprintf(got, sizeof got, "%g", value);
        return MODE_FAIL(err, MODE_E_USAGE, "--%s: %s is out of range, expected %s", r->name, got, expected);
    }
    return MODE_OK;
}

enum mode_status option_needed(const char *value, const char *name, struct mode_error *err)
{
    return value ? MODE_OK : MODE_FAIL(err, MODE_E_USAGE, "%s is needed; --help lists all options", name);
}

enum mode_status arguments_check(int n_args, int most, char **argv, const char *hint, struct mode_error *err)
{
    if (n_args <= most) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE, "unexpected argument \"%s\"; %s", argv[most + 1],
                     hint ? hint : "--help lists all options");
}

enum mode_status option_count(int64_t *value, const char *text, const char *name, int64_t min, int64_t max,
                              struct mode_error *err)
{
    if (mode_parse_int(text, name, min, max, value, err) == MODE_OK) return MODE_OK;
    if (err) err->status = MODE_E_USAGE;
    return MODE_E_USAGE;
}
