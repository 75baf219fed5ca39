/* dali_index.h - the index file that DALI's webdataset reader expects beside a tar (.idx, version 1.2).
 *
 * First line "v1.2 <samples>"; then a line per sample: "<extension> <offset> <size> <name>" for each of its
 * members, offset being the byte position of the member's data.
 *
 * Source: NVIDIA DALI's documentation of wds2idx. */
#ifndef MODE_DATA_DALI_INDEX_H
#define MODE_DATA_DALI_INDEX_H

#include "data/samples.h"

/* Writes all samples of the list, kept by MoDE or not; incomplete members are omitted. The format cannot hold names
 * with spaces: MODE_E_VALUE. */
enum mode_status mode_dali_index_write(const char *path, const struct mode_sample_list *s, struct mode_error *err);

#endif
