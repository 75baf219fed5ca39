/* pipeline/assign.h - assignment: text vectors of a shard, or its captions, to the ids of their nearest fine centres.
 *
 * assign.safetensors: fine_id [N] i32, distance [N] f32 (L2, or 1 - cosine with cosine centres), metadata
 * encoder_id, centres (digest of the centres file), metric. Row i is row i of the shard's captions.bin. Only
 * fine ids are stored: another coarse grouping of the same fine centres needs no new assignment.
 *
 * Sources that were added later form one expert, regardless of distance: `only` restricts the search to its centres.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.2.
 * Threads: one caller per backend; uses the pool. */
#ifndef MODE_PIPELINE_ASSIGN_H
#define MODE_PIPELINE_ASSIGN_H

#include "cluster/centres.h"
#include "models/bert.h"
#include "nn/backend.h"

#include <stdint.h>

enum { MODE_ASSIGN_ANY = -1 };

struct mode_assign_result {
    uint64_t rows;
    uint64_t nearer_elsewhere; /* with `only`: rows that lie nearer to a centre of another group */
};

/* be: NULL = "cpu"; the file is the same bytes on every backend. encoder_id: what both files must have; NULL: that of
 * the centres. only: a coarse group, or MODE_ASSIGN_ANY. Errors: MODE_E_NOINPUT, MODE_E_IO, MODE_E_FORMAT, MODE_E_VALUE
 * (encoders differ, no such group, a row not finite or not unit; the error names it), MODE_E_MEMORY. */
enum mode_status mode_assign_run(struct mode_assign_result *result, struct mode_backend *be, const char *out_path,
                                 const char *feat_path, const char *centres_path, const char *encoder_id, int32_t only,
                                 struct mode_error *err);

/* The same from captions.bin: enc computes the vectors, which are not written. The file is the same as by way of
 * feat.safetensors. tick and ctx as in mode_text_encoder_encode. */
enum mode_status mode_assign_captions(struct mode_assign_result *result, struct mode_backend *be, const char *out_path,
                                      struct mode_text_encoder *enc, const char *captions_path,
                                      const char *centres_path, int32_t only, mode_encode_tick_fn *tick, void *ctx,
                                      struct mode_error *err);

/* Adds the number of rows of every group to count; group [m]: group of each fine centre, NULL: its own id (count [m]).
 * MODE_E_FORMAT: not an assignment, or an id >= m. */
enum mode_status mode_assign_count(uint64_t *count, const char *assign_path, const int32_t *group, int m,
                                   struct mode_error *err);

#endif
