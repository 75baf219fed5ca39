/* equal_rows.h - a sample in which no row is so frequent that it would fill more than one centre.
 *
 * Balanced k-means gives every centre n / k rows. A caption that is in the sample more often than that would have
 * several centres at one place, and assignment sends all its copies to one of them: the others, and the experts they
 * belong to, would stand empty. So copies beyond one centre's share are left out, before the centres are made.
 *
 * Threads: pure. */
#ifndef MODE_CLUSTER_EQUAL_ROWS_H
#define MODE_CLUSTER_EQUAL_ROWS_H

#include "base/error.h"

#include <stdint.h>

struct mode_equal_rows {
    int64_t different; /* rows that differ from all rows before them */
    int64_t most;      /* of equal rows so many are left at most; 0: none was too frequent and nothing was left out */
    int64_t rows;      /* left, in their order */
};

/* x [n, d]: rows are equal when all their bits are. `most` is the largest number of copies that is no more than what
 * one of min(k, different) centres gets of the rows that are left; what is left moves to the front of x.
 * n < 2^31. MODE_E_MEMORY. */
enum mode_status mode_equal_rows_cap(struct mode_equal_rows *out, float *x, int64_t n, int d, int k,
                                     struct mode_error *err);

#endif
