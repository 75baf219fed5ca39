/* clip_memory.h - a CLIP with many blocks, for tests of the memory that its training takes. */
#ifndef MODE_TESTS_CLIP_MEMORY_H
#define MODE_TESTS_CLIP_MEMORY_H

#include "models/clip_train.h"

static const char MANY_BLOCKS[] =
    "{\"embed_dim\": 64, \"vision_cfg\": {\"image_size\": 96, \"patch_size\": 16, \"width\": 96, \"layers\": 6,"
    " \"head_width\": 32}, \"text_cfg\": {\"context_length\": 32, \"vocab_size\": 300, \"width\": 64, \"heads\": 2,"
    " \"layers\": 5}}";
enum { BATCH = 24, IMAGE = 6, TEXT = 5 }; /* pairs; blocks of the towers */

static inline struct mode_clip_memory memory_of(const struct mode_clip *clip)
{
    struct mode_clip_memory m;
    mode_clip_memory(&m, clip, BATCH);
    return m;
}

#endif
