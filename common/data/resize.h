/* resize.h - Pillow's bicubic resize of 8-bit RGB, on a view into a picture.
 *
 * The view is what crop-then-resize needs: pixels outside it are not seen, as if the crop had been copied
 * out.
 *
 * Source:  Pillow's documented resampling: support 2 * scale, a = -0.5, coefficients normalised to one and
 * rounded to 22 fractional bits, horizontal pass first, 8-bit values in between. Byte for byte the same as
 * Pillow 3.3 to 12, which all published CLIP weights were made with. (Pillow 13 does the vertical pass first
 *          where the height shrinks much more than the width; there its last bits differ, by up to about 30
 * levels on noise.) The AVX2 path gives the same bytes as the plain one. Threads: pure. */
#ifndef MODE_DATA_RESIZE_H
#define MODE_DATA_RESIZE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_rgb_view {
    const uint8_t *rgb; /* first pixel; rows of width * 3 bytes, stride apart  */
    size_t stride;      /* bytes from row to row                               */
    size_t tail;        /* bytes that may be read past the view's last pixel   */
    int width, height;  /* pixels, >= 1                                        */
};

/* out [height, width, 3], the caller's. The box (x0, y0)-(x1, y1) is in the view's pixels, may be fractional,
 * and lies inside the view. simd false forces the plain path (tests). Errors: MODE_E_VALUE (box or size out
 * of range), MODE_E_MEMORY. */
enum mode_status mode_resize_rgb(uint8_t *out, int width, int height, const struct mode_rgb_view *in, double x0,
                                 double y0, double x1, double y1, bool simd, struct mode_error *err);

#endif
