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

/* A text encoder on Hugging Face's hub, "ORG/NAME" or "ORG/NAME@REVISION" (a branch, a tag, a commit; else main).
 * false: not such a name. */
struct mode_hub_id {
    char *repo, *revision;
};
bool mode_hub_id_parse(struct mode_hub_id *id, const char *text);
void mode_hub_id_clear(struct mode_hub_id *id);

/* Where it lies once it was fetched: models/hub/ORG/NAME, models/hub/ORG/NAME@REVISION. NULL: not such a name. */
char *mode_cache_hub(const char *id);

#endif
