/* The functions of image.h and window.h on picture files, executed by a decoder process (data/decoder.h). */
#include "data/decode_here.h"
#include "data/decoder_wire.h"
#include "data/image.h"
#include "data/image_codecs.h"
#include "data/window.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 64 << 20 }; /* prefix of a file that must contain its header */

enum mode_status mode_image_header(const uint8_t *data, size_t size, int *width, int *height, struct mode_error *err)
{
    const struct mode_decoder_ask ask = {.work = MODE_DECODE_HEADER, .size = size < HEAD_BYTES ? size : HEAD_BYTES};
    struct mode_decoding d;
    enum mode_status st = mode__decoder_do(&d, &ask, data, NULL, err);
    if (st) return st;
    *width = d.answer.width;
    *height = d.answer.height;
    mode__decoder_give(&d);
    return MODE_OK;
}

/* Files over the limit are not sent to a decoder. */
static enum mode_status check_size(size_t size, const struct mode_image_limits *limits, struct mode_error *err)
{
    if (size <= limits->max_bytes) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE, "a picture file of %zu bytes, at most %zu are allowed", size,
                     limits->max_bytes);
}

enum mode_status mode_image_probe(const uint8_t *data, size_t size, const struct mode_image_limits *limits, int *width,
                                  int *height, struct mode_error *err)
{
    const struct mode_decoder_ask ask = {.work = MODE_DECODE_PROBE, .size = size, .limits = *limits};
    struct mode_decoding d;
    enum mode_status st;
    *width = *height = 0;
    if (size > limits->max_bytes) {
        st = mode_image_header(data, size, width, height, err);
        return st ? st : check_size(size, limits, err);
    }
    st = mode__decoder_do(&d, &ask, data, NULL, err);
    if (d.answer.width > 0 && d.answer.height > 0) {
        *width = d.answer.width;
        *height = d.answer.height;
    }
    if (!st) mode__decoder_give(&d);
    return st;
}

enum mode_status mode_image_decode(struct mode_image *im, const uint8_t *data, size_t size,
                                   const struct mode_image_limits *limits, struct mode_error *err)
{
    struct mode_decoder_ask ask = {.work = MODE_DECODE_PIXELS, .size = size, .limits = *limits};
    struct mode_decoding d;
    *im = (struct mode_image){0};
    enum mode_status st = check_size(size, limits, err);
    if (st) return st;
    if (limits->max_pixels > SIZE_MAX / 16)
        return MODE_FAIL(err, MODE_E_VALUE, "pictures of %llu pixels are allowed, more than memory can address",
                         (unsigned long long)limits->max_pixels);
    ask.out_bytes = (size_t)limits->max_pixels * 3;
    if ((st = mode__decoder_do(&d, &ask, data, NULL, err))) return st;
    st = mode_image_reserve(im, (uint64_t)d.answer.width, (uint64_t)d.answer.height, limits, err);
    if (!st) memcpy(im->rgb, d.out, (size_t)im->width * (size_t)im->height * 3);
    mode__decoder_give(&d);
    return st;
}

/* Gets the window's bytes, unresized if they are at most half->unresized. */
static enum mode_status window(struct mode_decoding *d, struct mode_half *half, const struct mode_picture *f,
                               struct mode_error *err)
{
    const struct mode_preprocess *p = half->p;
    const size_t resized = p->size > 0 ? (size_t)p->size * (size_t)p->size * 3 : 0;
    struct mode_decoder_ask ask = {.work = MODE_DECODE_WINDOW,
                                   .size = f->size,
                                   .limits = *f->limits,
                                   .preprocess = *p,
                                   .train = half->draw,
                                   .n_blur = f->n_blur,
                                   .unresized = half->unresized,
                                   .out_bytes = half->unresized > resized ? half->unresized : resized};
    enum mode_status st = check_size(f->size, f->limits, err);
    if (half->draw) ask.draw = *half->draw;
    if (!st) st = mode__preprocess_check(p, half->draw, err);
    if (!st) st = mode__decoder_do(d, &ask, f->data, f->blur, err);
    if (st) return st;
    half->width = d->answer.width;
    half->height = d->answer.height;
    half->resized = d->answer.resized != 0;
    return MODE_OK;
}

static enum mode_status to_floats(const struct mode_preprocess *p, const struct mode_picture *f,
                                  const struct mode_crop_draw *draw, float *out, struct mode_error *err)
{
    struct mode_half half = {.p = p, .draw = draw};
    struct mode_decoding d;
    enum mode_status st = window(&d, &half, f, err);
    if (st) return st;
    st = mode__window_floats(out, &half, d.out, err);
    mode__decoder_give(&d);
    return st;
}

enum mode_status mode_preprocess_eval_file(const struct mode_preprocess *p, const struct mode_picture *f, float *out,
                                           struct mode_error *err)
{
    return to_floats(p, f, NULL, out, err);
}

enum mode_status mode_preprocess_train_file(const struct mode_preprocess *p, const struct mode_picture *f,
                                            const struct mode_crop_draw *draw, float *out, struct mode_error *err)
{
    return to_floats(p, f, draw, out, err);
}

enum mode_status mode_window_file(const struct mode_preprocess *p, const struct mode_picture *f,
                                  const struct mode_crop_draw *draw, const struct mode_window_sink *sink,
                                  struct mode_error *err)
{
    struct mode_half half = {.p = p, .draw = draw, .unresized = sink->most};
    struct mode_decoding d;
    bool refused = false;
    enum mode_status st = window(&d, &half, f, err);
    if (st) return st;
    st = mode__window_sink(&half, d.out, sink, &refused, err);
    mode__decoder_give(&d);
    if (st || !refused || half.resized) return st;
    half.unresized = 0; /* no room for the unresized window */
    if ((st = window(&d, &half, f, err))) return st;
    st = mode__window_sink(&half, d.out, sink, &refused, err);
    mode__decoder_give(&d);
    return st;
}
