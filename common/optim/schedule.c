#include "optim/schedule.h"

#include <math.h>

double mode_schedule_lr(double base, double step, int64_t warmup, int64_t total)
{
    if (step < (double)warmup) return base * (step + 1) / (double)warmup;
    if (step >= (double)total) return 0;
    return 0.5 * base * (1 + cos(3.14159265358979323846 * (step - (double)warmup) / (double)(total - warmup)));
}
