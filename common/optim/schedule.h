/* schedule.h - the learning rate at a step: linear warmup, then cosine decay to zero.
 *
 * Source:  open_clip's cosine_lr.
 * Threads: reentrant. */
#ifndef MODE_OPTIM_SCHEDULE_H
#define MODE_OPTIM_SCHEDULE_H

#include <stdint.h>

/* base * (step + 1) / warmup while step < warmup, else base * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2;
 * 0 from step total on. step counts from 0 and may be fractional; warmup may be 0. */
double mode_schedule_lr(double base, double step, int64_t warmup, int64_t total);

#endif
