/* hub_snapshot.h - what Hugging Face's own programs left of a model on this machine.
 *
 * Their cache is $HF_HUB_CACHE, else $HF_HOME/hub, else huggingface/hub in $XDG_CACHE_HOME (~/.cache):
 *
 *     models--ORG--NAME/refs/<revision>               the commit that the name meant when it was last asked
 *     models--ORG--NAME/snapshots/<commit>/<file>     what was fetched of it, seldom all
 *     models--ORG--NAME/.no_exist/<commit>/<file>     what the hub was asked for and does not have
 */
#ifndef MODE_HUB_SNAPSHOT_H
#define MODE_HUB_SNAPSHOT_H

#include "pipeline/cache.h"

#include <stdbool.h>

struct hub_snapshot {
    char *cache;          /* where such snapshots are looked for */
    char *dir, *no_exist; /* NULL: there is none of this model's revision */
    char *commit;
    bool whole; /* what is not in it, the model does not have */
};

enum hub_file { HUB_FILE_THERE, HUB_FILE_NONE, HUB_FILE_UNKNOWN };

void hub_snapshot_find(struct hub_snapshot *s, const struct mode_hub_id *id);
enum hub_file hub_snapshot_look(const struct hub_snapshot *s, const char *name);
void hub_snapshot_clear(struct hub_snapshot *s);

#endif
