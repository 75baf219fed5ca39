/* clip_vocab.h - CLIP's tokenizer as the files Hugging Face keeps beside a model. */
#ifndef MODE_DATA_CLIP_VOCAB_H
#define MODE_DATA_CLIP_VOCAB_H

#include "base/error.h"

/* vocab.json, merges.txt, tokenizer.json (all of it in one file, for the fast tokenizer), tokenizer_config.json and
 * special_tokens_map.json in dir, from the merges file CLIP was published with. context: the longest text. */
enum mode_status mode_clip_vocab_write(const char *dir, const char *merges_path, int context, struct mode_error *err);

#endif
