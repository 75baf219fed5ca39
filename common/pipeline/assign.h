/* pipeline/assign.h - text vectors of one shard, or its captions, to fine ids.
 *
 * assign.safetensors: fine_id [N] i32, distance [N] f32 (L2, or 1 - cosine with cosine centres), metadata
 * encoder_id, centres (digest of the centres file), metric. Row i is row i of the shard's captions.bin. Only
 * fine ids are stored: another coarse grouping of the same fine centres needs no new assignment.
 *
 * Data that came later are one expert's by decision and not by distance: `only` keeps the search to its centres. */
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

/* be: NULL = the processor; the file is the same bytes on every backend. encoder_id: what the caller expects of both
 * files; NULL: whatever the centres say. only: a coarse group, or MODE_ASSIGN_ANY. Errors: MODE_E_FORMAT, MODE_E_VALUE
 * (encoders or widths differ, no such group, a row not finite or not unit; the sentence names it). */
enum mode_status mode_assign_run(struct mode_assign_result *result, struct mode_backend *be, const char *out_path,
                                 const char *feat_path, const char *centres_path, const char *encoder_id, int32_t only,
                                 struct mode_error *err);

/* The same of captions.bin: vectors are made by enc, on its backend and be's, and written nowhere. The same bytes as by
 * way of feat.safetensors. tick and ctx as in mode_text_encoder_encode. */
enum mode_status mode_assign_captions(struct mode_assign_result *result, struct mode_backend *be, const char *out_path,
                                      struct mode_text_encoder *enc, const char *captions_path,
                                      const char *centres_path, int32_t only, mode_encode_tick_fn *tick, void *ctx,
                                      struct mode_error *err);

/* Adds the rows of every group to count; group [m] of each fine centre, NULL: each is a group of its own. MODE_E_FORMAT:
 * no assignment, or of other centres. */
enum mode_status mode_assign_count(uint64_t *count, const char *assign_path, const int32_t *group, int m,
                                   struct mode_error *err);

#endif
