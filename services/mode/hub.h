/* hub.h - a text encoder or a CLIP model by its id on Hugging Face's hub, fetched once.
 *
 *     ORG/NAME, ORG/NAME@REVISION (a branch, a tag, a commit), with hf-hub: before it where a path may stand
 *
 * It lies in MODE's own cache (pipeline/cache.h) afterwards, complete or not at all. What Hugging Face's programs have
 * in theirs is taken from there (hub_snapshot.h); the rest, of the same commit, comes from HF_ENDPOINT
 * (https://huggingface.co), with the token HF_TOKEN where there is one: it goes to that host alone, whatever redirects
 * say. HF_HUB_OFFLINE: nothing is asked. One line on stderr per file. */
#ifndef MODE_HUB_H
#define MODE_HUB_H

#include "base/error.h"
#include "pipeline/cache.h"

/* Fetches a model to its place in MODE's cache when it is not there yet. id must be such a name. E_PEER: the hub cannot
 * be reached; E_PERM: it shows the model not to everybody; E_NOINPUT: it has no such model, or one without a file that
 * is needed, or nothing may be asked. */
enum mode_status mode_hub_fetch(enum mode_hub_kind kind, const char *id, struct mode_error *err);

/* *dir: the encoder's folder: itself where such a path exists or it is no name, else its place in the cache, fetched as
 * above. The caller frees. */
enum mode_status mode_hub_encoder(char **dir, const char *encoder, struct mode_error *err);

/* A CLIP model that is named as hf-hub:ORG/NAME is fetched, and *model is then its place in the cache, which is *place
 * for the caller to free; a path stays what it is. E_USAGE: a name that is none. */
enum mode_status mode_hub_clip(const char **model, char **place, struct mode_error *err);

#endif
