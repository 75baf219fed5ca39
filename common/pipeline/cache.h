/* cache.h - the cache folder of downloads: $MODE_CACHE, else ~/.cache/mode. `mode`, the coordinator and the workers
 * must share it: a run's spec refers to its contents without a path.
 *
 * Threads: reentrant; reads the environment. The caller frees every returned string. */
#ifndef MODE_PIPELINE_CACHE_H
#define MODE_PIPELINE_CACHE_H

#include <stdbool.h>
#include <stddef.h>

/* Paths of models/, which deploy/fetch-models.sh fills, and of CLIP's BPE merges file in it. */
char *mode_cache_models(void);
char *mode_cache_merges(void);

/* A model on the Hugging Face Hub: "ORG/NAME" or "ORG/NAME@REVISION" (a branch, a tag, a commit; default main). False:
 * not such a name. */
struct mode_hub_id {
    char *repo, *revision;
};
bool mode_hub_id_parse(struct mode_hub_id *id, const char *text);
void mode_hub_id_clear(struct mode_hub_id *id);

/* open_clip's spelling of a Hub model in place of a folder's path: hf-hub:ORG/NAME. */
#define MODE_HUB_PREFIX "hf-hub:"

/* Decides which of a model's files are fetched. */
enum mode_hub_kind { MODE_HUB_ENCODER, MODE_HUB_CLIP };

/* The model's folder in the cache: models/hub/ORG/NAME, models/hub/ORG/NAME@REVISION, for a CLIP model below hub-clip/.
 * NULL: not such a name. */
char *mode_cache_hub(enum mode_hub_kind kind, const char *id);

/* The part of text after the prefix, borrowed; NULL: text does not begin with it. */
const char *mode_hub_name(const char *text);

#endif
