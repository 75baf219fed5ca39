/* schedule.h - the learning rate at a step: linear warm-up, then cosine decay to 0, a constant rate, or a constant rate
 * that ends with a cooldown.
 *
 *     const struct mode_schedule s = {.kind = MODE_SCHEDULE_CONSTANT_COOLDOWN, .lr = 5e-4, .warmup = 2000,
 *                                     .total = 40000, .cooldown = 8000, .power = 1};
 *     opt.lr = mode_schedule_lr(&s, step);
 *
 * Source:  open_clip's cosine_lr, const_lr and const_lr_cooldown.
 * Threads: reentrant. */
#ifndef MODE_OPTIM_SCHEDULE_H
#define MODE_OPTIM_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

enum mode_schedule_kind { MODE_SCHEDULE_COSINE, MODE_SCHEDULE_CONSTANT, MODE_SCHEDULE_CONSTANT_COOLDOWN };
#define MODE_SCHEDULE_NAMES "cosine|constant|constant_cooldown"

struct mode_schedule {
    enum mode_schedule_kind kind;
    double lr;              /* peak, > 0                                            */
    uint64_t warmup, total; /* steps; warmup may be 0                               */
    uint64_t cooldown;      /* of constant_cooldown: the last so many of the total steps, 1 to total - warmup */
    double power, end;      /* of constant_cooldown: power of the decay, > 0; learning rate at step total, 0 to lr */
};

/* While step < warmup: lr * (step + 1) / warmup. Then, by kind:
 *     cosine              lr * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2; 0 from step total on
 *     constant            lr
 *     constant_cooldown   lr; with c = total - cooldown, from step c on (1 - (step - c) / cooldown)^power * (lr - end) +
 *                         end; end from step total on
 * step counts from 0 and may be fractional. */
double mode_schedule_lr(const struct mode_schedule *s, double step);

const char *mode_schedule_name(enum mode_schedule_kind kind);
/* False if there is none of this name; *kind is then unchanged. */
bool mode_schedule_named(enum mode_schedule_kind *kind, const char *name);

#endif
