/* render.h - from a picture's file to the JPEG and the signature of an item.
 *
 * SVG is rendered by librsvg on white with the longest side 256; PNG is flattened on white and never enlarged. A
 * drawing that fills less than three quarters of its page is cropped to its bounding box with a 5 % margin. Tiny, very
 * long and nearly uniform pictures are dropped with a fate. JPEG quality is 90.
 *
 * Threads: different items may be rendered concurrently (each call has its own librsvg handle). */
#ifndef MODE_DEMO_RENDER_H
#define MODE_DEMO_RENDER_H

#include "data/items.h"

/* Sets fate and, if it is MODE_DEMO_KEPT, jpeg, width, height and sig. */
void mode_demo_render(struct mode_demo_item *it);

/* The versions of the libraries that determine the pixels, as text. */
void mode_demo_drawn_with(char *text, size_t n);

#endif
