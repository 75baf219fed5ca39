/* cache.h - the folder of what was fetched once: $MODE_CACHE, else ~/.cache/mode. `mode`, the coordinator and the
 * workers must have the same one: a run's file names what lies in it without a path.
 *
 * Threads: pure, but for the environment. Every text is the caller's to free. */
#ifndef MODE_PIPELINE_CACHE_H
#define MODE_PIPELINE_CACHE_H

#include <stdbool.h>
#include <stddef.h>

/* models/, which deploy/fetch-models.sh fills, and CLIP's merges file in it. */
char *mode_cache_models(void);
char *mode_cache_merges(void);

/* A model on Hugging Face's hub, "ORG/NAME" or "ORG/NAME@REVISION" (a branch, a tag, a commit; else main). false: not
 * such a name. */
struct mode_hub_id {
    char *repo, *revision;
};
bool mode_hub_id_parse(struct mode_hub_id *id, const char *text);
void mode_hub_id_clear(struct mode_hub_id *id);

/* How open_clip spells a model on the hub where a folder's path may stand: hf-hub:ORG/NAME. */
#define MODE_HUB_PREFIX "hf-hub:"

/* Of a model only the files are fetched that it has as a text encoder, or as a CLIP model. */
enum mode_hub_kind { MODE_HUB_ENCODER, MODE_HUB_CLIP };

/* Where it lies once it was fetched: models/hub/ORG/NAME, models/hub/ORG/NAME@REVISION, of a CLIP model below hub-clip/.
 * NULL: not such a name. */
char *mode_cache_hub(enum mode_hub_kind kind, const char *id);

/* What is behind the prefix; NULL: text does not begin with it. */
const char *mode_hub_name(const char *text);

#endif
