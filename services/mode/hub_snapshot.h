/* hub_snapshot.h - a model in the cache of Hugging Face's own programs.
 *
 * Their cache is $HF_HUB_CACHE, else $HF_HOME/hub, else huggingface/hub in $XDG_CACHE_HOME (~/.cache):
 *
 *     models--ORG--NAME/refs/<revision>               the commit that the name referred to at the last request
 *     models--ORG--NAME/snapshots/<commit>/<file>     downloaded files, rarely all
 *     models--ORG--NAME/.no_exist/<commit>/<file>     files that the hub does not have
 */
#ifndef MODE_HUB_SNAPSHOT_H
#define MODE_HUB_SNAPSHOT_H

#include "pipeline/cache.h"

#include <stdbool.h>

struct hub_snapshot {
    char *cache;          /* folder that is searched for snapshots */
    char *dir, *no_exist; /* NULL: no snapshot of this revision */
    char *commit;
    bool whole; /* complete: files that are not in it do not exist */
};

enum hub_file { HUB_FILE_THERE, HUB_FILE_NONE, HUB_FILE_UNKNOWN };

void hub_snapshot_find(struct hub_snapshot *s, const struct mode_hub_id *id);
enum hub_file hub_snapshot_look(const struct hub_snapshot *s, const char *name);
void hub_snapshot_clear(struct hub_snapshot *s);

#endif
