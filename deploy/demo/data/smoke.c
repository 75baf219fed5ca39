#include "data/smoke.h"

#include "base/rng.h"

#include <stdlib.h>

#define SMOKE_SEED 20

/* training pictures of each source; about 2,500 after dropping */
static const int64_t quota[MODE_DEMO_SOURCES] = {[MODE_DEMO_OPENCLIPART] = 900,
                                                 [MODE_DEMO_NOTO] = 650,
                                                 [MODE_DEMO_PAPIRUS] = 600,
                                                 [MODE_DEMO_OXYGEN] = 250,
                                                 [MODE_DEMO_BREEZE] = 200};

void mode_demo_choose_smoke(struct mode_demo_set *set)
{
    /* one order for all tasks, so that tasks over the same pictures choose the same ones */
    uint32_t *order = mode_xmalloc(((size_t)set->n + 1) * sizeof *order);
    struct mode_rng r = mode_rng_for(SMOKE_SEED, MODE_RNG_SAMPLE, 0, 0);
    for (int64_t i = 0; i < set->n; i++) order[i] = (uint32_t)i;
    mode_rng_shuffle_u32(&r, order, (uint64_t)set->n);

    int64_t taken[MODE_DEMO_SOURCES] = {0}, in_task[MODE_DEMO_TASKS] = {0};
    for (int64_t i = 0; i < set->n; i++) {
        struct mode_demo_item *it = &set->items[order[i]];
        if (it->fate != MODE_DEMO_KEPT) continue;
        bool chosen = false;
        if (!it->held) chosen = taken[it->source]++ < quota[it->source];
        for (int t = 0; t < MODE_DEMO_TASKS; t++) {
            if (!it->label[t]) continue;
            if (in_task[t] < MODE_DEMO_SMOKE_TASK_MAX) {
                in_task[t]++;
                chosen = true;
            } else {
                free(it->label[t]);
                it->label[t] = NULL;
            }
        }
        if (!chosen) it->fate = MODE_DEMO_NOT_CHOSEN;
    }
    free(order);
}
