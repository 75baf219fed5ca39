/* tfevents.h - records of TensorBoard event files, as far as scalars need them.
 *
 * A file is a sequence of records: u64 length, u32 masked CRC-32C of those 8 bytes, the payload, u32 masked CRC-32C of
 * the payload; little-endian. A payload is a packed tensorflow.Event with wall_time (field 1), step (2) and one of
 * file_version (3, the first record), summary (5: tags and their values, f32) and session_log (7).
 *
 *     struct mode_str file = {0};
 *     mode_tfevents_version(&file, now);
 *     mode_tfevents_scalars(&file, now, 1, (struct mode_scalar[]){{"train/loss", 5.5}}, 1);
 *
 * Written here because six fields need less code than a dependency.
 *
 * Source:  TensorFlow's record_writer (framing), event.proto and summary.proto (fields).
 * Threads: any. */
#ifndef MODE_DATA_TFEVENTS_H
#define MODE_DATA_TFEVENTS_H

#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_scalar {
    const char *tag;
    double value; /* stored as f32 */
};

/* Each adds one record to out. wall_s: seconds since 1970. */
void mode_tfevents_version(struct mode_str *out, double wall_s);
/* A restart: readers discard what they saw of this step and later ones. */
void mode_tfevents_start(struct mode_str *out, double wall_s, uint64_t step);
void mode_tfevents_scalars(struct mode_str *out, double wall_s, uint64_t step, const struct mode_scalar *s, size_t n);

struct mode_tfevent {
    const uint8_t *record; /* all of it */
    size_t size;
    uint64_t step;
    const uint8_t *summary; /* NULL: no scalars */
    size_t n_summary;
};
/* The record at *at of a file's bytes; *at is moved behind it. false: no further record that is complete with correct
 * checksums; ignore the rest. */
bool mode_tfevents_next(struct mode_tfevent *e, const void *data, size_t size, size_t *at);
/* Whether the event's summary begins with exactly these scalars. */
bool mode_tfevents_says(const struct mode_tfevent *e, const struct mode_scalar *s, size_t n);

#endif
