#include "data/image_codecs.h"

#include <limits.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* needs stdio.h before it, and jerror.h its configuration */
#include <jpeglib.h>

#include <jerror.h>

struct decoder {
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf stop;
    char message[JMSG_LENGTH_MAX];
    bool no_memory;
    bool too_many_scans;
};

static void fail(j_common_ptr c)
{
    struct decoder *j = c->client_data;
    j->no_memory = c->err->msg_code == JERR_OUT_OF_MEMORY;
    c->err->format_message(c, j->message);
    longjmp(j->stop, 1);
}

/* Warnings after which the pixels are not those that were stored. Others (bytes between markers, unknown
 * colour transform numbers) leave the picture whole. */
static void hear(j_common_ptr c, int level)
{
    if (level >= 0) return;
    switch (c->err->msg_code) {
    case JWRN_ARITH_BAD_CODE:
    case JWRN_BOGUS_PROGRESSION:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC: fail(c);
    }
}

static void count_scans(j_common_ptr c)
{
    struct decoder *j = c->client_data;
    if (j->d.input_scan_number <= MODE_JPEG_MAX_SCANS) return;
    j->too_many_scans = true;
    snprintf(j->message, sizeof j->message, "more than %d scans", MODE_JPEG_MAX_SCANS);
    longjmp(j->stop, 1);
}

static void nothing(j_common_ptr c)
{
    (void)c;
}

/* Inverted CMYK (what Adobe writes and Pillow always assumes) to RGB, rounding as Pillow's convert("RGB"). */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, size_t n)
{
    for (size_t i = 0; i < n; i++, rgb += 3, cmyk += 4) {
        const int white = cmyk[3];
        for (int c = 0; c < 3; c++) {
            const int t = (255 - cmyk[c]) * white + 128;
            rgb[c] = (uint8_t)(white - (((t >> 8) + t) >> 8));
        }
    }
}

enum mode_status mode_jpeg_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                  const struct mode_image_limits *limits, struct mode_error *err)
{
    struct decoder j;
    enum mode_status st;
    uint8_t *volatile cmyk = NULL; /* lives across longjmp */
    memset(&j, 0, sizeof j);
    if (size > ULONG_MAX) return MODE_FAIL(err, MODE_E_VALUE, "a JPEG of %zu bytes", size);
    j.d.err = jpeg_std_error(&j.errors);
    j.errors.error_exit = fail;
    j.errors.emit_message = hear;
    j.errors.output_message = nothing;
    j.progress.progress_monitor = count_scans;
    j.d.client_data = &j;
    if (setjmp(j.stop)) {
        st = MODE_FAIL(err,
                       j.no_memory        ? MODE_E_MEMORY
                       : j.too_many_scans ? MODE_E_VALUE
                                          : MODE_E_FORMAT,
                       "JPEG: %s", j.message);
        goto out;
    }
    jpeg_create_decompress(&j.d);
    j.d.progress = &j.progress;
    jpeg_mem_src(&j.d, data, (unsigned long)size);
    jpeg_read_header(&j.d, TRUE);
    if (!im) {
        *width = (int)j.d.image_width;
        *height = (int)j.d.image_height;
        st = MODE_OK;
        goto out;
    }
    const int n = j.d.num_components;
    if (n != 1 && n != 3 && n != 4) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "JPEG: %d colour components, expected 1, 3 or 4", n);
        goto out;
    }
    if ((st = mode_image_reserve(im, j.d.image_width, j.d.image_height, limits, err))) goto out;
    j.d.out_color_space = n == 4 ? JCS_CMYK : JCS_RGB;
    j.d.dct_method = JDCT_ISLOW;
    j.d.do_fancy_upsampling = TRUE;
    if (n == 4) {
        cmyk = malloc((size_t)im->width * 4);
        if (!cmyk) {
            st = MODE_FAIL(err, MODE_E_MEMORY, "JPEG: no memory for a row of %d pixels", im->width);
            goto out;
        }
    }
    jpeg_start_decompress(&j.d);
    enum { ROWS = 16 };
    while (j.d.output_scanline < j.d.output_height) {
        const size_t stride = (size_t)im->width * 3;
        uint8_t *row = im->rgb + (size_t)j.d.output_scanline * stride;
        if (cmyk) {
            JSAMPROW one = cmyk;
            if (jpeg_read_scanlines(&j.d, &one, 1) == 1) cmyk_to_rgb(row, cmyk, (size_t)im->width);
            continue;
        }
        JSAMPROW some[ROWS];
        JDIMENSION want = j.d.output_height - j.d.output_scanline;
        if (want > ROWS) want = ROWS;
        for (JDIMENSION i = 0; i < want; i++) some[i] = row + (size_t)i * stride;
        jpeg_read_scanlines(&j.d, some, want);
    }
    jpeg_finish_decompress(&j.d); /* reads to the end marker: what is missing is noticed */
    *width = im->width;
    *height = im->height;
    st = MODE_OK;
out:
    jpeg_destroy_decompress(&j.d);
    free(cmyk);
    if (st && im) mode_image_clear(im);
    return st;
}
