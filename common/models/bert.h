/* bert.h - a BERT-family sentence encoder: texts in, unit vectors out; forward only.
 *
 *     struct mode_text_encoder *enc;
 *     st = mode_text_encoder_open(&enc, be, "models/encoder", NULL, 0, &err);
 *     float *x = malloc(n * mode_text_encoder_dim(enc) * sizeof *x);
 *     st = mode_text_encoder_encode(enc, x, texts, n, NULL, NULL, &err);
 *     mode_text_encoder_close(&enc);
 *
 * The folder is an ordinary Hugging Face one: config.json, model.safetensors, tokenizer.json or vocab.txt, and
 * 1_Pooling/config.json if it is a sentence-transformers model. Weight names may carry the prefix "bert." and the old
 * spelling gamma/beta of LayerNorm. A config of anything but plain BERT is refused; the error names the key.
 *
 * Texts are sorted by length and packed without padding into batches of at most MODE_TEXT_BATCH_TOKENS tokens (on a
 * GPU up to 16 times as many, if they fit). If pooling needs only the first token, the last layer computes only that
 * row. The same texts in the same order give bit-identical vectors for any number of threads.
 *
 * Pooling: "pooler" = tanh(dense(first token)), "cls" = the first token, "mean" = the mean over all tokens; then L2
 * normalised. The encoder's identity ("bert:53aa51172d142c89:mean:256") is a digest of weights, config and tokenizer,
 * followed by the pooling and the maximum length in tokens. It is stored with every vector and centre: vectors of
 * different identities must never be compared.
 *
 * Source:  Devlin et al. 2018; Hugging Face's BertModel is the numerical truth (1 - cos <= 1e-6).
 * Threads: one caller per encoder. */
#ifndef MODE_MODELS_BERT_H
#define MODE_MODELS_BERT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_backend;
struct mode_text_encoder;

enum { MODE_TEXT_BATCH_TOKENS = 2048, MODE_ENCODER_ID = 64 /* bytes for an identity, NUL included */ };

enum { MODE_ENCODER_FEWEST_TOKENS = 3 }; /* [CLS], one token, [SEP] */
/* Is it "pooler", "cls" or "mean"? */
bool mode_text_encoder_knows_pooling(const char *pooling);
/* pooling: "pooler" | "cls" | "mean", or NULL = that of 1_Pooling/config.json, else "pooler".
 * max_tokens: longer texts are truncated to this many tokens, special tokens included (>= 3); 0 = max_seq_length of
 * sentence_bert_config.json, else min(512, the model's positions). be is borrowed. On failure *enc is NULL.
 * E_FORMAT: config, tokenizer or weights; E_VALUE: pooling or max_tokens; E_NOINPUT, E_IO: a file; E_MEMORY. */
enum mode_status mode_text_encoder_open(struct mode_text_encoder **enc, struct mode_backend *be, const char *dir,
                                        const char *pooling, int max_tokens, struct mode_error *err);
void mode_text_encoder_close(struct mode_text_encoder **enc);
int mode_text_encoder_dim(const struct mode_text_encoder *enc);
const char *mode_text_encoder_id(const struct mode_text_encoder *enc); /* borrowed */

/* The identity an encoder opened with these arguments would have, and what NULL and 0 resolve to, without building the
 * model (id: every file is read for its digest). Any output may be NULL. *pooling_out is static. */
enum mode_status mode_text_encoder_id_of(const char *dir, const char *pooling, int max_tokens, char id[MODE_ENCODER_ID],
                                         const char **pooling_out, int *max_tokens_out, struct mode_error *err);

/* Unit vectors of n NUL-terminated texts: out [n, dim] f32, host memory. tick (may be NULL) is called after every batch
 * with the number of texts done; if it returns a status other than MODE_OK, so does the call, and out is incomplete.
 * E_MEMORY. */
typedef enum mode_status mode_encode_tick_fn(void *ctx, size_t done, size_t total);
enum mode_status mode_text_encoder_encode(struct mode_text_encoder *enc, float *out, const char *const *texts, size_t n,
                                          mode_encode_tick_fn *tick, void *ctx, struct mode_error *err);

#endif
