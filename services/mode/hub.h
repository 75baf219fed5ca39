/* hub.h - a text encoder or a CLIP model by its id on the Hugging Face hub, downloaded once.
 *
 *     ORG/NAME, ORG/NAME@REVISION (a branch, a tag, a commit), prefixed by hf-hub: where a path is also possible
 *
 * The model is stored in MODE's own cache (pipeline/cache.h), completely or not at all. Files in the cache of Hugging
 * Face's programs are taken from there (hub_snapshot.h); the rest, of the same commit, is downloaded from HF_ENDPOINT
 * (https://huggingface.co), with the token HF_TOKEN if set, which is sent to that host only, never to redirects.
 * HF_HUB_OFFLINE: no requests. One line on stderr per file. */
#ifndef MODE_HUB_H
#define MODE_HUB_H

#include "base/error.h"
#include "pipeline/cache.h"

/* Downloads a model into MODE's cache if it is not there yet. id must be such a name. E_PEER: the hub cannot be
 * reached; E_PERM: the model is not public; E_NOINPUT: no such model, a required file is missing, or requests are
 * disabled. */
enum mode_status mode_hub_fetch(enum mode_hub_kind kind, const char *id, struct mode_error *err);

/* *dir: the encoder's folder: `encoder` itself if that path exists or it is not a hub name, else its place in the
 * cache, downloaded as above. The caller frees. */
enum mode_status mode_hub_encoder(char **dir, const char *encoder, struct mode_error *err);

/* Downloads a CLIP model named hf-hub:ORG/NAME; *model becomes its place in the cache, also in *place for the caller to
 * free; a path stays as it is. E_USAGE: malformed name. */
enum mode_status mode_hub_clip(const char **model, char **place, struct mode_error *err);

#endif
