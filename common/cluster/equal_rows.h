/* equal_rows.h - deduplicates a sample: no row may be so frequent that it would fill more than one cluster.
 *
 * Balanced k-means gives every centre n / k rows. A caption with more copies than that would get several identical
 * centres, and assignment sends all its copies to one of them: the others, and their experts, would be empty. So copies
 * beyond one centre's share are dropped before clustering.
 *
 * Threads: reentrant. */
#ifndef MODE_CLUSTER_EQUAL_ROWS_H
#define MODE_CLUSTER_EQUAL_ROWS_H

#include "base/error.h"

#include <stdint.h>

struct mode_equal_rows {
    int64_t different; /* distinct rows */
    int64_t most;      /* copies of a row that are kept at most; 0: no row was too frequent, nothing was dropped */
    int64_t rows;      /* kept, in their order */
};

/* x [n, d] f32: rows are equal if they are bitwise equal. `most` is the largest cap on copies that does not exceed the
 * share of one of min(k, different) centres in the rows that it keeps; these are moved to the front of x.
 * n < 2^31. MODE_E_MEMORY. */
enum mode_status mode_equal_rows_cap(struct mode_equal_rows *out, float *x, int64_t n, int d, int k,
                                     struct mode_error *err);

#endif
