/* leaks.h - removes duplicates, and training pictures that leak held-out ones.
 *
 * Threads: one caller; uses the pool of base/parallel.h. */
#ifndef MODE_DEMO_LEAKS_H
#define MODE_DEMO_LEAKS_H

#include "data/items.h"

/* Pictures of one source and side with equal pixels become one, with the first captions of all. A held-out picture that
 * is equal in two classes of a task is removed from that task: it has no single correct answer. */
void mode_demo_merge_same(struct mode_demo_set *set);
/* Drops training pictures with the signature of a held-out one, or whose 24x24 thumbnails differ by a root mean square
 * below 8. Series (flags; folders among themselves) are exempt. */
void mode_demo_drop_leaks(struct mode_demo_set *set);
/* At most 12 training pictures keep the same first caption, the first ones. */
void mode_demo_cap_captions(struct mode_demo_set *set);
/* Classes with too few held-out pictures (mode_demo_task_info.fewest) are removed from their task; in retrieval,
 * pictures that share their caption. */
void mode_demo_prune_classes(struct mode_demo_set *set);

#endif
