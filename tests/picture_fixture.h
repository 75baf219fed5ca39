/* picture_fixture.h - picture files made in memory, for tests. */
#ifndef MODE_TESTS_PICTURE_FIXTURE_H
#define MODE_TESTS_PICTURE_FIXTURE_H

#include "base/error.h"
#include "base/rng.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <spng.h>

struct bytes {
    uint8_t *data;
    size_t size;
};

/* Smooth colour with a little noise, n channels, a function of seed alone. */
static inline uint8_t *fixture_pixels(int width, int height, int n, uint64_t seed)
{
    uint8_t *p = mode_xmalloc((size_t)width * (size_t)height * (size_t)n);
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_TEST, 0, 0);
    uint32_t phase = mode_rng_u32(&r);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < n; c++)
                p[((size_t)y * (size_t)width + (size_t)x) * (size_t)n + (size_t)c] = (uint8_t)((uint32_t)(x * (3 + c) +
                                                                                                          y * (5 - c)) +
                                                                                               phase +
                                                                                               (mode_rng_u32(&r) & 15));
    return p;
}

struct fixture_jpeg_options {
    int channels;     /* 1, 3 or 4                                                */
    int h, v;         /* sampling of the first component, the others' being 1 x 1 */
    int restart_rows; /* 0: no restart markers                                    */
    bool progressive;
    bool ycck; /* for four channels */
};

static inline struct bytes fixture_jpeg_as(int width, int height, const struct fixture_jpeg_options *o, uint64_t seed)
{
    const int channels = o->channels;
    struct jpeg_compress_struct c = {0};
    struct jpeg_error_mgr e;
    struct bytes out = {0};
    unsigned char *mem = NULL; /* jpeg_mem_dest keeps pointers to both */
    unsigned long mem_size = 0;
    uint8_t *pixels = fixture_pixels(width, height, channels, seed);
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &mem, &mem_size);
    c.image_width = (JDIMENSION)width;
    c.image_height = (JDIMENSION)height;
    c.input_components = channels;
    c.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_set_defaults(&c);
    if (o->ycck) jpeg_set_colorspace(&c, JCS_YCCK);
    jpeg_set_quality(&c, 85, TRUE);
    if (o->progressive) jpeg_simple_progression(&c);
    c.comp_info[0].h_samp_factor = o->h;
    c.comp_info[0].v_samp_factor = o->v;
    c.restart_in_rows = o->restart_rows;
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = pixels + (size_t)c.next_scanline * (size_t)width * (size_t)channels;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    free(pixels);
    out.data = mem;
    out.size = mem_size;
    return out;
}

static inline struct bytes fixture_jpeg(int width, int height, int channels, bool progressive, uint64_t seed)
{
    const int sampling = channels == 3 ? 2 : 1;
    const struct fixture_jpeg_options o = {
        .channels = channels, .h = sampling, .v = sampling, .progressive = progressive};
    return fixture_jpeg_as(width, height, &o, seed);
}

static inline struct bytes fixture_png(int width, int height, uint64_t seed)
{
    struct bytes out = {0};
    int rc;
    uint8_t *pixels = fixture_pixels(width, height, 3, seed);
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr head = {
        .width = (uint32_t)width, .height = (uint32_t)height, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
    spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
    spng_set_ihdr(ctx, &head);
    rc = spng_encode_image(ctx, pixels, (size_t)width * (size_t)height * 3, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    MODE_ASSERT(rc == 0);
    out.data = spng_get_png_buffer(ctx, &out.size, &rc);
    MODE_ASSERT(out.data && rc == 0);
    spng_ctx_free(ctx);
    free(pixels);
    return out;
}

/* Overwrite the size in a JPEG's frame header. */
static inline void fixture_jpeg_claim(struct bytes *j, unsigned width, unsigned height)
{
    for (size_t i = 2; i + 9 < j->size && j->data[i] == 0xff;) {
        const uint8_t m = j->data[i + 1];
        if (m == 0xc0 || m == 0xc2) {
            const uint8_t dims[] = {(uint8_t)(height >> 8), (uint8_t)height, (uint8_t)(width >> 8), (uint8_t)width};
            memcpy(j->data + i + 5, dims, sizeof dims);
            return;
        }
        i += 2 + ((size_t)j->data[i + 2] << 8 | j->data[i + 3]);
    }
    MODE_ASSERT(!"no frame header");
}

#endif
