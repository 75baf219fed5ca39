/* hub.h - a text encoder by its id on Hugging Face's hub, fetched once. */
#ifndef MODE_HUB_H
#define MODE_HUB_H

#include "base/error.h"

/* *dir: encoder itself where such a folder exists or the name is no "ORG/NAME"; otherwise the folder in the cache
 * ($MODE_CACHE/models/hub/ORG/NAME, or ~/.cache/mode/...), which is fetched from $HF_ENDPOINT (https://huggingface.co)
 * when it is not there yet: complete or not at all, one line on stderr per file. The caller frees.
 * E_PEER: the hub cannot be reached; E_NOINPUT: it has no such model, or one without a file that is needed. */
enum mode_status mode_hub_find(char **dir, const char *encoder, struct mode_error *err);

#endif
