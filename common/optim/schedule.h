/* schedule.h - the learning rate at a step: linear warm-up, then half a cosine down to zero.
 *
 * Source: open_clip's cosine schedule. steps count from 0 and need not be whole; warmup may
 * be 0. */
#ifndef MODE_OPTIM_SCHEDULE_H
#define MODE_OPTIM_SCHEDULE_H

#include <stdint.h>

/* base * (step + 1) / warmup while step < warmup, else base * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2.
 * Steps at or past total have rate 0. */
double mode_schedule_lr(double base, double step, int64_t warmup, int64_t total);

#endif
