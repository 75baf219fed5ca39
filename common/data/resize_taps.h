/* resize_taps.h - the filter taps of each output pixel, and the horizontal and vertical passes (behind resize.h).
 *
 * Output i of one direction is the sum of n[i] inputs from first[i] on, weighted by k[i * n_max ...] in fixed
 * point.
 *
 * Source:  Pillow's documented resampling (see resize.h).
 * Threads: read-only once made. */
#ifndef MODE_DATA_RESIZE_TAPS_H
#define MODE_DATA_RESIZE_TAPS_H

#include "data/resize.h"

struct mode_taps {
    int n_out, n_max; /* n_max is a multiple of 4; unused weights are 0 */
    int *first, *n;   /* first never falls from one output to the next  */
    int32_t *k;       /* [n_out, n_max], MODE_TAPS_BITS fractional bits  */
    int16_t *split;   /* the AVX2 layout, NULL without                   */
};
enum { MODE_TAPS_BITS = 32 - 8 - 2 }; /* 8 bits for the pixel, 2 for overshoot and sign */

/* Taps of outputs at .. at + n_out - 1 of a resize of the inputs in0 .. in1 (of n_in) to n_all outputs.
 * MODE_E_MEMORY. */
enum mode_status mode_taps_make(struct mode_taps *t, int n_in, double in0, double in1, int n_all, int at, int n_out,
                                enum mode_filter filter, struct mode_error *err);
void mode_taps_clear(struct mode_taps *t);

/* Whether this processor has AVX2. */
bool mode_taps_have_avx2(void);
/* Makes the layout for AVX2; false: out of memory. */
bool mode_taps_split(struct mode_taps *t, bool across);
enum {
    MODE_TAPS_OVERREAD = 16, /* bytes that AVX2 may read past the last pixel of a row    */
    MODE_TAPS_OVERWRITE = 16 /* bytes that AVX2 may write past the last pixel of an output */
};

/* The horizontal pass for n rows of pixels (row r at in + r * in_stride, its pixel 0 being the input's column
 * `column`), to out + r * out_stride. With t->split the rows have MODE_TAPS_OVERREAD readable bytes at their end and
 * the outputs MODE_TAPS_OVERWRITE writable ones. */
void mode_taps_across(uint8_t *out, size_t out_stride, const uint8_t *in, size_t in_stride, int column, int n,
                      const struct mode_taps *t);
/* Row i of the vertical pass: n_bytes bytes from input rows first[i] ..., the first of which is at `rows`. */
void mode_taps_down(uint8_t *out, const uint8_t *rows, size_t stride, size_t n_bytes, const struct mode_taps *t, int i);

#endif
