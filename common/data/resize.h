/* resize.h - Pillow's resize of 8-bit RGB: of a view into a picture, or of rows as a decoder produces them.
 *
 * The view serves crop-then-resize: pixels outside it have no effect, as if the crop had been copied. The window serves
 * resize-then-crop: only that part of the resized picture is computed.
 *
 *     mode_resizer_init(&r, &plan, put, ctx, &err);
 *     for each 16 rows of the decoder: mode_resizer_rows(&r, pixels, stride, 16);    put(ctx, y, row) is called
 *     mode_resizer_clear(&r);
 *
 * Source:  Pillow's documented resampling: support 2 * scale (bicubic, a = -0.5) or 1 * scale (bilinear),
 * coefficients normalised to one and rounded to 22 fractional bits, horizontal pass first, 8-bit values in
 * between. Byte for byte the same as Pillow 3.3 to 12, which all published CLIP weights were made with.
 * (Pillow 13 does the vertical pass first where the height shrinks much more than the width; there its last
 * bits differ, by up to about 30 levels on noise.) The AVX2 path is bit-identical to the plain one.
 * Threads: pure. */
#ifndef MODE_DATA_RESIZE_H
#define MODE_DATA_RESIZE_H

#include "base/error.h"
#include "data/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_rgb_view {
    const uint8_t *rgb; /* first pixel; rows of width * 3 bytes, stride apart  */
    size_t stride;      /* bytes from row to row                               */
    size_t tail;        /* bytes that may be read past the view's last pixel   */
    int width, height;  /* pixels, >= 1                                        */
};

struct mode_resize_plan {
    int in_width, in_height;
    double x0, y0, x1, y1; /* box of the input, may be fractional; lies inside                        */
    int width, height;     /* of the output                                                           */
    int x, y, n_x, n_y;    /* the window of width x height to compute                                 */
    enum mode_filter filter;
    bool plain; /* no AVX2 (tests) */
};

struct mode_taps;
struct mode_resizer {
    int column, n_columns; /* the input's columns that are needed: row pointers are to pixel `column`    */
    int row, n_rows;       /* its rows that are needed, fed in order from `row` on                       */
    size_t overread;       /* bytes after the last needed pixel of every row that must be readable       */
    struct mode_resize_plan plan;
    struct mode_taps *across, *down; /* NULL: this direction is not resized                              */
    void (*put)(void *ctx, int y, const uint8_t *row);
    void *ctx;
    bool down_first;                /* for very thin pictures, see Source                               */
    uint8_t *kept, *line, *crossed; /* rows after the first pass; one finished row of either            */
    size_t stride, row_bytes;       /* of kept                                                          */
    int top, have, room;            /* kept holds rows [top, have) and has room for `room`                          */
    int next;                       /* output to be made next                                                       */
};

/* put is called for every row of the window from 0 on, with n_x * 3 bytes that are valid during the call.
 * Errors: MODE_E_VALUE (box, size or window out of range), MODE_E_MEMORY. */
enum mode_status mode_resizer_init(struct mode_resizer *r, const struct mode_resize_plan *plan,
                                   void (*put)(void *ctx, int y, const uint8_t *row), void *ctx,
                                   struct mode_error *err);
/* Computes only which part of the input is needed, r->column to r->n_rows; r cannot take rows. */
enum mode_status mode_resizer_reach(struct mode_resizer *r, const struct mode_resize_plan *plan,
                                    struct mode_error *err);
enum { MODE_RESIZER_ROWS = 16 }; /* at most this many per call */
void mode_resizer_rows(struct mode_resizer *r, const uint8_t *rows, size_t stride, int n);
/* All needed rows of a view of plan.in_width x plan.in_height pixels. MODE_E_MEMORY. */
enum mode_status mode_resizer_view(struct mode_resizer *r, const struct mode_rgb_view *in, struct mode_error *err);
void mode_resizer_clear(struct mode_resizer *r);

/* All in one call: out [height, width, 3], the caller's, for the whole width x height. */
enum mode_status mode_resize_rgb(uint8_t *out, int width, int height, const struct mode_rgb_view *in, double x0,
                                 double y0, double x1, double y1, enum mode_filter filter, bool simd,
                                 struct mode_error *err);

#endif
