#include "data/image_codecs.h"

#include <spng.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CHUNK = 8 << 20 }; /* bytes of one ancillary chunk; four times that for all of them */

/* 16-bit grey is special: Pillow's convert("RGB") does not scale it but clips it at 255. Returns spng's code. */
static int decode_grey16(spng_ctx *ctx, struct mode_image *im)
{
    const size_t n = (size_t)im->width * (size_t)im->height;
    uint16_t *grey = malloc(n * sizeof *grey);
    if (!grey) return SPNG_EMEM;
    const int rc = spng_decode_image(ctx, grey, n * sizeof *grey, SPNG_FMT_PNG, 0);
    for (size_t i = 0; !rc && i < n; i++) memset(im->rgb + i * 3, grey[i] > 255 ? 255 : grey[i], 3);
    free(grey);
    return rc;
}

enum mode_status mode_png_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                 const struct mode_image_limits *limits, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct spng_ihdr head;
    size_t out_size;
    int rc;
    spng_ctx *ctx = spng_ctx_new(0);
    if (!ctx) return MODE_FAIL(err, MODE_E_MEMORY, "PNG: no memory for the decoder");
    if ((rc = spng_set_chunk_limits(ctx, MAX_CHUNK, 4 * (size_t)MAX_CHUNK)) ||
        (rc = spng_set_crc_action(ctx, SPNG_CRC_ERROR, SPNG_CRC_DISCARD)) ||
        (rc = spng_set_png_buffer(ctx, data, size)) || (rc = spng_get_ihdr(ctx, &head)))
        goto failed;
    if (im) {
        if ((st = mode_image_reserve(im, head.width, head.height, limits, err))) goto out;
        if (head.color_type == SPNG_COLOR_TYPE_GRAYSCALE && head.bit_depth == 16) {
            if ((rc = decode_grey16(ctx, im))) goto failed;
            goto done;
        }
        /* RGB8: grey is copied to the three channels, palettes are looked up, alpha is dropped, and of 16
         * bits the upper 8 are kept */
        if ((rc = spng_decoded_image_size(ctx, SPNG_FMT_RGB8, &out_size))) goto failed;
        MODE_ASSERT(out_size == (size_t)im->width * (size_t)im->height * 3);
        if ((rc = spng_decode_image(ctx, im->rgb, out_size, SPNG_FMT_RGB8, 0))) goto failed;
    }
done:
    *width = (int)head.width;
    *height = (int)head.height;
    goto out;
failed:
    st = MODE_FAIL(err, rc == SPNG_EMEM ? MODE_E_MEMORY : MODE_E_FORMAT, "PNG: %s", spng_strerror(rc));
out:
    spng_ctx_free(ctx);
    if (st && im) mode_image_clear(im);
    return st;
}
