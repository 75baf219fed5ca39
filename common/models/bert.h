/* bert.h - a BERT-family sentence encoder: texts in, unit vectors out; forward only.
 *
 *     struct mode_text_encoder *enc;
 *     st = mode_text_encoder_open(&enc, be, "models/encoder", NULL, 0, &err);
 *     float *x = malloc(n * mode_text_encoder_dim(enc) * sizeof *x);
 *     st = mode_text_encoder_encode(enc, x, texts, n, NULL, NULL, &err);
 *     mode_text_encoder_close(&enc);
 *
 * The folder is an ordinary Hugging Face one: config.json, model.safetensors, tokenizer.json or vocab.txt, and
 * 1_Pooling/config.json where it was made for sentence vectors. Weight names may carry the prefix "bert." and the old
 * spelling gamma/beta of LayerNorm. A config that asks for anything but plain BERT is refused by name.
 *
 * Texts are sorted by length and packed into batches of at most MODE_TEXT_BATCH_TOKENS tokens (on a device 16 times as
 * many, where they fit) without padding; where pooling needs only the first token, the last layer computes only that
 * one. The same texts in the same order give the same bytes whatever the number of threads.
 *
 * Pooling: "pooler" = tanh(dense(first token)), "cls" = the first token, "mean" = the mean over all tokens; then unit
 * length. The encoder's identity ("bert:53aa51172d142c89:mean:256") is a digest of weights, config and tokenizer with
 * pooling and longest text. It is stored with every vector and centre; vectors of two identities must never meet.
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

enum { MODE_ENCODER_FEWEST_TOKENS = 3 };
/* Is it one of the three below? */
bool mode_text_encoder_knows_pooling(const char *pooling);
/* pooling: "pooler" | "cls" | "mean", or NULL = what 1_Pooling/config.json says, else "pooler".
 * max_tokens: longer texts are cut to so many tokens, special ones included (>= 3); 0 = what
 * sentence_bert_config.json says, else min(512, what the model has positions for). be is borrowed. */
enum mode_status mode_text_encoder_open(struct mode_text_encoder **enc, struct mode_backend *be, const char *dir,
                                        const char *pooling, int max_tokens, struct mode_error *err);
void mode_text_encoder_close(struct mode_text_encoder **enc);
int mode_text_encoder_dim(const struct mode_text_encoder *enc);
const char *mode_text_encoder_id(const struct mode_text_encoder *enc); /* borrowed */

/* The identity a folder would have, and what NULL and 0 resolve to, without building the model (reads the files
 * once for their digests). Any output may be NULL. pooling_out holds "pooler", "cls" or "mean" (static). */
enum mode_status mode_text_encoder_id_of(const char *dir, const char *pooling, int max_tokens, char id[MODE_ENCODER_ID],
                                         const char **pooling_out, int *max_tokens_out, struct mode_error *err);

/* Unit vectors of n NUL-terminated texts: out [n, dim] f32. tick (may be NULL) is called after every batch with the
 * number of texts done; a status other than MODE_OK ends the call with it. */
typedef enum mode_status mode_encode_tick_fn(void *ctx, size_t done, size_t total);
enum mode_status mode_text_encoder_encode(struct mode_text_encoder *enc, float *out, const char *const *texts, size_t n,
                                          mode_encode_tick_fn *tick, void *ctx, struct mode_error *err);

#endif
