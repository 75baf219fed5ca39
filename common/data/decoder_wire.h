/* decoder_wire.h - what a decoder and the process that it decodes for say to each other: a piece of shared memory with
 * this at its beginning, and one byte through a socket for "do it" and for "done".
 *
 * The decoder may have been taken over: of its answer every number is checked, and pixels are any bytes.
 *
 * Threads: one asks, one answers. */
#ifndef MODE_DATA_DECODER_WIRE_H
#define MODE_DATA_DECODER_WIRE_H

#include "base/system_calls.h"
#include "data/image.h"

enum { MODE_DECODER_AREA = MODE_LOCK_LINE + 1 }; /* file descriptor of the shared memory, when a decoder starts */
#define MODE_DECODER_NAME "mode-decoder"         /* its argv[0], all there is */
enum { MODE_DECODER_LOCKED = 'l', MODE_DECODER_OPEN = 'o', MODE_DECODER_DONE = 'd' };

enum mode_decoder_work { MODE_DECODE_HEADER, MODE_DECODE_PROBE, MODE_DECODE_PIXELS, MODE_DECODE_WINDOW };

struct mode_decoder_ask {
    int work, cpu_seconds;
    size_t size, boxes, out, out_bytes; /* where the area has what; the picture file begins at MODE_DECODER_FILE */
    struct mode_image_limits limits;
    /* of a window */
    struct mode_preprocess preprocess;
    struct mode_crop_draw draw;
    bool train, plainly; /* by draw; decoded whole, whatever is needed of it */
    uint32_t n_blur;
    size_t unresized; /* at most so many bytes of a window come as they were decoded */
};

struct mode_decoder_answer {
    int status, width, height, resized;
    char text[1024];
};

struct mode_decoder_area {
    size_t memory; /* that a decoder may take, when it starts */
    struct mode_decoder_ask ask;
    struct mode_decoder_answer answer;
};
enum { MODE_DECODER_FILE = 4096 };

/* One that is lent: its answer is a copy, and checked to be one of a decoder's. out is shared with it. */
struct mode_decoder;
struct mode_decoding {
    struct mode_decoder *decoder;
    struct mode_decoder_answer answer;
    const uint8_t *out;
    size_t used; /* of the area */
};

/* Have `ask` done with the file (and boxes [ask.n_blur]). MODE_OK: there are width and height, within ask.limits, and
 * the caller calls mode__decoder_give; else there is nothing to give, and d->answer's width and height may be 0. */
enum mode_status mode__decoder_do(struct mode_decoding *d, const struct mode_decoder_ask *ask, const uint8_t *file,
                                  const struct mode_box *boxes, struct mode_error *err);
void mode__decoder_give(struct mode_decoding *d);

/* Is linked into every program that has decoders: its begin is this program's other main. */
extern const char mode__decoder_role[];

#endif
