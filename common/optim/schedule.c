#include "optim/schedule.h"

#include <math.h>

double mode_schedule_lr(double base, int64_t step, int64_t warmup, int64_t total)
{
    if (step < warmup) return base * (double)(step + 1) / (double)warmup;
    if (step >= total) return 0;
    return 0.5 * base * (1 + cos(3.14159265358979323846 * (double)(step - warmup) / (double)(total - warmup)));
}
