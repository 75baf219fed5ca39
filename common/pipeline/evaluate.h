/* evaluate.h - zero-shot evaluation of one CLIP on one task: classification, retrieval.
 *
 * Classification: the text vector of a class is the mean of its unit text features over the templates, normalised;
 * the score of an image for a class is their cosine. Retrieval: the cosine of every image with every text. No logit
 * scale, no temperature.
 *
 *     mode_evaluate(cosine, clip, tokenizer, &set, 256, NULL, &err);   // cosine [N, C] f32, caller's
 *
 * Dimensions: N images, C classes (classification) or texts (retrieval): mode_evaluate_columns.
 * Source:  CLIP_benchmark, zeroshot_classification and zeroshot_retrieval.
 * Threads: one caller per model; uses the thread pool. */
#ifndef MODE_PIPELINE_EVALUATE_H
#define MODE_PIPELINE_EVALUATE_H

#include "base/error.h"
#include "data/evalset.h"
#include "pipeline/encode.h"
#include "pipeline/result.h"

#include <stdint.h>

int64_t mode_evaluate_columns(const struct mode_evalset *e);
/* The parts of mode_evaluate. out [C, E]: the set's text vectors. cosine [n, c] of unit rows images [n, e] and texts
 * [c, e], f32 in host memory, computed on the CPU whatever backend made the features. */
enum mode_status mode_evaluate_texts(float *out, struct mode_clip *clip, const struct mode_tokenizer *tokenizer,
                                     const struct mode_evalset *e, int64_t batch, const struct mode_encode_hook *hook,
                                     struct mode_error *err);
enum mode_status mode_evaluate_cosines(float *cosine, const float *images, int64_t n, const float *texts, int64_t c,
                                       int64_t e, struct mode_error *err);
/* hook may be NULL; it is called for texts first, then for pictures. A picture that does not decode is an error:
 * skipping it would silently change the result. */
enum mode_status mode_evaluate(float *cosine, struct mode_clip *clip, const struct mode_tokenizer *tokenizer,
                               const struct mode_evalset *e, int64_t batch, const struct mode_encode_hook *hook,
                               struct mode_error *err);
/* e and cosine as a result, which borrows its arguments. */
struct mode_result mode_evaluate_result(const struct mode_evalset *e, const float *cosine, const char *model_name);

#endif
