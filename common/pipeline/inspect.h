/* inspect.h - a summary of a file's contents, for people and scripts.
 *
 * A tar shard (samples, fates, members by extension, oddities, first samples), a captions.bin, a safetensors
 * file, a picture, or the folder of an evaluation task; detected by content.
 *
 * Threads: reentrant; a shard uses the pool of base/parallel.h. */
#ifndef MODE_PIPELINE_INSPECT_H
#define MODE_PIPELINE_INSPECT_H

#include "data/caption_text.h"

#include <jansson.h>

/* An object with "kind" and its summary; the caller decrefs it. first: samples or tensors listed at most. Errors: those
 * of the readers. */
enum mode_status mode_inspect(json_t **out, const char *path, const struct mode_text_keys *keys, uint32_t first,
                              struct mode_error *err);

#endif
