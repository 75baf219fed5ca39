/* tokenizer.h - CLIP byte-BPE and BERT WordPiece: text in, token ids out.
 *
 * Source:  CLIP: bpe_simple_vocab_16e6.txt.gz and open_clip's SimpleTokenizer behaviour. BERT: vocab.txt or
 *          tokenizer.json and the uncased/cased BertTokenizer behaviour.
 * Threads: an open tokenizer is read-only; encode may be called from many threads. */
#ifndef MODE_DATA_TOKENIZER_H
#define MODE_DATA_TOKENIZER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_tokenizer;

enum mode_clip_clean { MODE_CLIP_CLEAN_OPENAI, MODE_CLIP_CLEAN_HF };

/* path: bpe_simple_vocab_16e6.txt.gz (or unpacked). Vocabulary 49408, start 49406, end 49407. */
enum mode_status mode_tokenizer_open_clip(struct mode_tokenizer **t, const char *path, enum mode_clip_clean clean,
                                          struct mode_error *err);
/* dir: a Hugging Face folder with tokenizer.json or vocab.txt. An unknown normaliser, pre-tokenizer, model or
 * post-processor is rejected by name. For case, accents, Chinese characters and special tokens, tokenizer_config.json
 * takes precedence over the other files, as in transformers. */
enum mode_status mode_tokenizer_open_bert(struct mode_tokenizer **t, const char *dir, struct mode_error *err);
void mode_tokenizer_close(struct mode_tokenizer **t);

/* Ids of text (UTF-8, need not be valid: bad bytes become U+FFFD), special tokens included, at most max_ids
 * (>= 1; 77 for CLIP). A longer text is truncated, with the end token as its last id. Returns the number of ids
 * written; never pads. */
int mode_tokenizer_encode(const struct mode_tokenizer *t, const char *text, size_t n_bytes, int32_t *ids, int max_ids);
int32_t mode_tokenizer_vocab_size(const struct mode_tokenizer *t);
/* The padding id of the original: 0 (open_clip), the end token (Hugging Face's CLIP), [PAD] or what the folder calls
 * it. */
int32_t mode_tokenizer_pad_id(const struct mode_tokenizer *t);

#endif
