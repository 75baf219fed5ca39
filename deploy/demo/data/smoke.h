/* smoke.h - the small profile: the same stages and tasks on a fraction of the pictures.
 *
 * Threads: one caller. */
#ifndef MODE_DEMO_SMOKE_H
#define MODE_DEMO_SMOKE_H

#include "data/items.h"

#define MODE_DEMO_SMOKE_TASK_MAX 60

/* Before rendering: keeps a fixed number of training pictures of each source and at most MODE_DEMO_SMOKE_TASK_MAX
 * pictures of each task; the others get the fate MODE_DEMO_NOT_CHOSEN. */
void mode_demo_choose_smoke(struct mode_demo_set *set);

#endif
