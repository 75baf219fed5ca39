/* render.h - from a picture's file to the JPEG and the signature of an item.
 *
 * SVG is drawn by librsvg on white so that the longest side is 256; PNG is flattened on white and never
 * enlarged. A drawing that fills less than three quarters of its page is cut to its box with a 5 % edge.
 * Pictures nobody could learn from are dropped with a fate. JPEG quality is 90.
 *
 * Threads: different items may be drawn at the same time (each call has its own librsvg handle). */
#ifndef MODE_DEMO_RENDER_H
#define MODE_DEMO_RENDER_H

#include "data/items.h"

/* Sets fate and, when it is MODE_DEMO_KEPT, jpeg, width, height and sig. */
void mode_demo_render(struct mode_demo_item *it);

/* The libraries whose versions decide the pixels, as text. */
void mode_demo_drawn_with(char *text, size_t n);

#endif
