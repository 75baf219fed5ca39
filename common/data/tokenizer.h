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
 * post-processor is refused by name. What tokenizer_config.json says about case, accents, Chinese characters and the
 * special tokens goes before the other files, as transformers has it. */
enum mode_status mode_tokenizer_open_bert(struct mode_tokenizer **t, const char *dir, struct mode_error *err);
void mode_tokenizer_close(struct mode_tokenizer **t);

/* Ids of text (UTF-8, need not be valid: bad bytes become U+FFFD), special tokens included, at most max_ids
 * (>= 1; 77 for CLIP). A longer text is cut and its last id is the end token. Returns how many were written to
 * ids; never pads. */
int mode_tokenizer_encode(const struct mode_tokenizer *t, const char *text, size_t n_bytes, int32_t *ids, int max_ids);
int32_t mode_tokenizer_vocab_size(const struct mode_tokenizer *t);
/* What the original fills up with: 0 (open_clip), the end token (Hugging Face's CLIP), [PAD] or what the folder calls
 * it. */
int32_t mode_tokenizer_pad_id(const struct mode_tokenizer *t);

#endif
