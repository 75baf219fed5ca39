/* face_boxes.h - the face boxes in a sample's JSON, and the blur that hides them.
 *
 * The field is a list of boxes [x0, y0, x1, y1] (a fifth number, a score, is ignored), a single box, null, or missing;
 * the last two and an empty list mean no faces. If no number of the sample is greater than 1 the boxes are relative to
 * width and height (as in DataComp's face_bboxes), otherwise they are pixels of the picture as stored (EXIF's
 * orientation is ignored).
 *
 * Source: what data sets for CLIP do before training: the box grows by a tenth of its longer side on each side; the
 *          inside is blended with a Gaussian blur whose standard deviation is a tenth of that side, through a mask with
 *          soft edges of the same deviation. Implemented as three integer box blurs: bit-identical everywhere, with a
 *          cost independent of the blur size. Threads: pure. */
#ifndef MODE_DATA_FACE_BOXES_H
#define MODE_DATA_FACE_BOXES_H

#include "data/captions.h"
#include "data/image.h"

#include <jansson.h>

enum { MODE_FACE_BOXES_MAX = 1024 };

/* Boxes of a picture of width x height, clipped to it, without empty ones; *boxes is malloc'd or NULL. False: v is
 * malformed, and why says how. */
bool mode_face_boxes(struct mode_box **boxes, uint32_t *n, const json_t *v, uint32_t width, uint32_t height, char *why,
                     size_t why_size);
/* MODE_E_MEMORY, MODE_E_VALUE: a box outside the picture. */
enum mode_status mode_faces_blur(struct mode_image *im, const struct mode_box *boxes, uint32_t n,
                                 struct mode_error *err);

#endif
