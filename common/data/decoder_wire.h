/* decoder_wire.h - the protocol between a decoder and its parent process: a shared memory area that begins with these
 * structs, and one byte over a socket for "go" and for "done".
 *
 * The decoder may be compromised: every number of its answer is checked, and pixels may be any bytes.
 *
 * Threads: one requests, one answers. */
#ifndef MODE_DATA_DECODER_WIRE_H
#define MODE_DATA_DECODER_WIRE_H

#include "base/system_calls.h"
#include "data/image.h"

enum { MODE_DECODER_AREA = MODE_LOCK_LINE + 1 }; /* file descriptor of the shared memory, when a decoder starts */
#define MODE_DECODER_NAME "mode-decoder"         /* its argv[0], the only argument */
enum { MODE_DECODER_LOCKED = 'l', MODE_DECODER_OPEN = 'o', MODE_DECODER_DONE = 'd' };

enum mode_decoder_work { MODE_DECODE_HEADER, MODE_DECODE_PROBE, MODE_DECODE_PIXELS, MODE_DECODE_WINDOW };

struct mode_decoder_ask {
    int work, cpu_seconds;
    size_t size, boxes, out, out_bytes; /* offsets and sizes in the area; the picture file begins at
                                           MODE_DECODER_FILE */
    struct mode_image_limits limits;
    /* of a window */
    struct mode_preprocess preprocess;
    struct mode_crop_draw draw;
    bool train, plainly; /* train: use draw; plainly: decode the whole picture */
    uint32_t n_blur;
    size_t unresized; /* a window of at most this many bytes is returned unresized */
};

struct mode_decoder_answer {
    int status, width, height, resized;
    char text[1024];
};

struct mode_decoder_area {
    size_t memory; /* memory limit of the decoder, read when it starts */
    struct mode_decoder_ask ask;
    struct mode_decoder_answer answer;
};
enum { MODE_DECODER_FILE = 4096 };

/* A decoder on loan to the caller. answer is a checked copy; out is shared memory. */
struct mode_decoder;
struct mode_decoding {
    struct mode_decoder *decoder;
    struct mode_decoder_answer answer;
    const uint8_t *out;
    size_t used; /* of the area */
};

/* Execute `ask` on the file (and boxes [ask.n_blur]). MODE_OK: width and height are set, within ask.limits, and the
 * caller must call mode__decoder_give; otherwise it must not, and d->answer's width and height may be 0. */
enum mode_status mode__decoder_do(struct mode_decoding *d, const struct mode_decoder_ask *ask, const uint8_t *file,
                                  const struct mode_box *boxes, struct mode_error *err);
void mode__decoder_give(struct mode_decoding *d);

/* Linked into every program that uses decoders: its constructor is the entry point of the decoder process. */
extern const char mode__decoder_role[];

#endif
