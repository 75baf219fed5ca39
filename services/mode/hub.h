/* hub.h - a text encoder by its id on Hugging Face's hub, fetched once.
 *
 *     ORG/NAME, ORG/NAME@REVISION (a branch, a tag, a commit)
 *
 * It lies in MODE's own cache (pipeline/cache.h) afterwards, complete or not at all. What Hugging Face's programs have
 * in theirs is taken from there (hub_snapshot.h); the rest, of the same commit, comes from HF_ENDPOINT
 * (https://huggingface.co), with the token HF_TOKEN where there is one: it goes to that host alone, whatever redirects
 * say. HF_HUB_OFFLINE: nothing is asked. One line on stderr per file. */
#ifndef MODE_HUB_H
#define MODE_HUB_H

#include "base/error.h"

/* The encoder's place in MODE's cache, where it is fetched to when it is not there yet. id must be such a name. E_PEER:
 * the hub cannot be reached; E_PERM: it shows the model not to everybody; E_NOINPUT: it has no such model, or one
 * without a file that is needed, or nothing may be asked. */
enum mode_status mode_hub_fetch(const char *id, struct mode_error *err);

/* *dir: encoder itself where such a folder exists or it is no such name; else its place in the cache, as above. The
 * caller frees. */
enum mode_status mode_hub_find(char **dir, const char *encoder, struct mode_error *err);

#endif
