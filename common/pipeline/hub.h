/* hub.h - where a text encoder from Hugging Face's hub lies once it was fetched. */
#ifndef MODE_PIPELINE_HUB_H
#define MODE_PIPELINE_HUB_H

/* "ORG/NAME" -> $MODE_CACHE/models/hub/ORG/NAME ($MODE_CACHE: ~/.cache/mode); the caller frees. NULL: not an id. */
char *mode_hub_dir(const char *id);

#endif
