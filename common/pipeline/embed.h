/* embed.h - the embedding step: captions of a shard, words of a task, or lines of a file, to text vectors.
 *
 * Each writes feat [N, d] f32 with unit rows and the metadata encoder_id and source (SHA-256 of the input):
 *
 *     captions         row i = caption of row i of the captions.bin
 *     classification   row c = class c: mean of the unit vectors over all templates, normalised
 *     retrieval        row q = caption q, in tar order
 *     lines            row i = line i of a text file
 *
 * An out_path that ends in .npy gives only the matrix, any other a safetensors file; both are written atomically.
 * *rows (may be NULL) receives N. tick and ctx as in mode_text_encoder_encode (models/bert.h). Errors: those of reading
 * the input and writing out_path; MODE_E_MEMORY; the status of tick.
 *
 * Source:  MoDE (arXiv:2404.16030) sections 3.1 and 3.3.
 * Threads: one caller per encoder. */
#ifndef MODE_PIPELINE_EMBED_H
#define MODE_PIPELINE_EMBED_H

#include "data/evalset.h"
#include "models/bert.h"

/* mode_text_encoder_open with the pooling and max_tokens of encoder_id (of centres), unless they are given. */
enum mode_status mode_text_encoder_open_as(struct mode_text_encoder **enc, struct mode_backend *be, const char *dir,
                                           const char *encoder_id, const char *pooling, int max_tokens,
                                           struct mode_error *err);

enum mode_status mode_embed_captions(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                     const char *captions_path, mode_encode_tick_fn *tick, void *ctx,
                                     struct mode_error *err);
/* words_digest (may be NULL): of mode_evalset_words_digest when planned; MODE_E_VALUE: the words have changed. */
enum mode_status mode_embed_task(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                 const char *task_dir, const char *words_digest, mode_encode_tick_fn *tick, void *ctx,
                                 struct mode_error *err);
/* The same vectors from words in memory: classes and templates, or texts. *x [N, d]; the caller frees it, also after a
 * failure. */
enum mode_status mode_embed_words(float **x, struct mode_text_encoder *enc, const struct mode_evalset *e,
                                  mode_encode_tick_fn *tick, void *ctx, struct mode_error *err);
/* Texts in memory; source is the digest of them as lines of a file. */
enum mode_status mode_embed_texts(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                  const char *const *texts, size_t n, mode_encode_tick_fn *tick, void *ctx,
                                  struct mode_error *err);
enum mode_status mode_embed_lines(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                  const char *text_path, mode_encode_tick_fn *tick, void *ctx, struct mode_error *err);

#endif
