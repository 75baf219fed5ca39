/* leaks.h - one picture once, and no training picture that answers a held-out one.
 *
 * Threads: one caller; uses the pool of base/parallel.h. */
#ifndef MODE_DEMO_LEAKS_H
#define MODE_DEMO_LEAKS_H

#include "data/items.h"

/* Pictures of one source and side with the same pixels become one, with the first captions of all. A held-out
 * picture drawn alike in two classes of a task leaves that task: it has no single right answer. */
void mode_demo_merge_same(struct mode_demo_set *set);
/* Drop training pictures with the signature of a held-out one, or whose 24x24 thumbnails differ by a root
 * mean square under 8. Series (flags; folders among themselves) are excepted. */
void mode_demo_drop_leaks(struct mode_demo_set *set);
/* A first caption keeps the first 12 training pictures. */
void mode_demo_cap_captions(struct mode_demo_set *set);
/* Classes with too few held-out pictures (mode_demo_task_info.fewest) leave their task; in retrieval,
 * pictures that share their caption do. */
void mode_demo_prune_classes(struct mode_demo_set *set);

#endif
