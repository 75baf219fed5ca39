#include "optim/schedule.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {[MODE_SCHEDULE_COSINE] = "cosine",
                                    [MODE_SCHEDULE_CONSTANT] = "constant",
                                    [MODE_SCHEDULE_CONSTANT_COOLDOWN] = "constant_cooldown"};
enum { N_NAMES = sizeof names / sizeof *names };

static double cosine(const struct mode_schedule *s, double step)
{
    const double warmup = (double)s->warmup, total = (double)s->total;
    return 0.5 * s->lr * (1 + cos(3.14159265358979323846 * (step - warmup) / (total - warmup)));
}

static double cooldown(const struct mode_schedule *s, double step)
{
    const double into = step - ((double)s->total - (double)s->cooldown);
    if (into < 0) return s->lr;
    return pow(1 - into / (double)s->cooldown, s->power) * (s->lr - s->end) + s->end;
}

double mode_schedule_lr(const struct mode_schedule *s, double step)
{
    if (step < (double)s->warmup) return s->lr * (step + 1) / (double)s->warmup;
    const bool over = step >= (double)s->total;
    switch (s->kind) {
    case MODE_SCHEDULE_COSINE: return over ? 0 : cosine(s, step);
    case MODE_SCHEDULE_CONSTANT_COOLDOWN: return over ? s->end : cooldown(s, step);
    case MODE_SCHEDULE_CONSTANT: break;
    }
    return s->lr;
}

const char *mode_schedule_name(enum mode_schedule_kind kind)
{
    return names[kind];
}

bool mode_schedule_named(enum mode_schedule_kind *kind, const char *name)
{
    for (int i = 0; i < N_NAMES; i++)
        if (strcmp(names[i], name) == 0) {
            *kind = (enum mode_schedule_kind)i;
            return true;
        }
    return false;
}
