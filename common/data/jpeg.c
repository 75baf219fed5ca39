#include "data/image_codecs.h"

#include <limits.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* requires stdio.h before it; jerror.h requires its configuration */
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

/* Treats warnings that mean wrong pixels as errors. Others (bytes between markers, unknown colour transforms) do not
 * affect the picture. */
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

/* Initialises j and reads the header. */
static void start(struct decoder *j, const uint8_t *data, size_t size)
{
    jpeg_create_decompress(&j->d);
    j->d.progress = &j->progress;
    jpeg_mem_src(&j->d, data, (unsigned long)size);
    jpeg_read_header(&j->d, TRUE);
}

static enum mode_status check(struct decoder *j, const struct mode_image_limits *limits, struct mode_error *err)
{
    const int n = j->d.num_components;
    if (n != 1 && n != 3 && n != 4)
        return MODE_FAIL(err, MODE_E_FORMAT, "JPEG: %d colour components, expected 1, 3 or 4", n);
    j->d.out_color_space = n == 4 ? JCS_CMYK : JCS_RGB;
    j->d.dct_method = JDCT_ISLOW;
    j->d.do_fancy_upsampling = TRUE;
    return mode_image_check(j->d.image_width, j->d.image_height, limits, err);
}

static void listen_to(struct decoder *j)
{
    memset(j, 0, sizeof *j);
    j->d.err = jpeg_std_error(&j->errors);
    j->errors.error_exit = fail;
    j->errors.emit_message = hear;
    j->errors.output_message = nothing;
    j->progress.progress_monitor = count_scans;
    j->d.client_data = j;
}

static enum mode_status failed(const struct decoder *j, struct mode_error *err)
{
    return MODE_FAIL(err,
                     j->no_memory        ? MODE_E_MEMORY
                     : j->too_many_scans ? MODE_E_VALUE
                                         : MODE_E_FORMAT,
                     "JPEG: %s", j->message);
}

/* The next n rows. cmyk: scratch for a row of four bytes per pixel; unused for other pictures. */
static void read_rows(struct decoder *j, uint8_t *rgb, size_t stride, JDIMENSION n, uint8_t *cmyk)
{
    JSAMPROW rows[MODE_ROWS_AT_ONCE];
    if (j->d.num_components == 4) {
        for (JDIMENSION i = 0; i < n; i++, rgb += stride) {
            while (jpeg_read_scanlines(&j->d, &cmyk, 1) != 1) {
            }
            cmyk_to_rgb(rgb, cmyk, j->d.output_width);
        }
        return;
    }
    for (JDIMENSION i = 0; i < n; i++) rows[i] = rgb + (size_t)i * stride;
    for (JDIMENSION done = 0; done < n;) done += jpeg_read_scanlines(&j->d, rows + done, n - done);
}

enum mode_status mode_jpeg_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                  const struct mode_image_limits *limits, struct mode_error *err)
{
    struct decoder j;
    enum mode_status st;
    uint8_t *volatile cmyk = NULL; /* lives across longjmp */
    if (size > ULONG_MAX) return MODE_FAIL(err, MODE_E_VALUE, "a JPEG of %zu bytes", size);
    listen_to(&j);
    if (setjmp(j.stop)) {
        st = failed(&j, err);
        goto out;
    }
    start(&j, data, size);
    if (im) {
        if ((st = check(&j, limits, err)) ||
            (st = mode_image_reserve(im, j.d.image_width, j.d.image_height, limits, err)))
            goto out;
        cmyk = malloc((size_t)im->width * 4);
        if (!cmyk) {
            st = MODE_FAIL(err, MODE_E_MEMORY, "JPEG: no memory for a row of %d pixels", im->width);
            goto out;
        }
        jpeg_start_decompress(&j.d);
        const size_t stride = (size_t)im->width * 3;
        while (j.d.output_scanline < j.d.output_height) {
            const JDIMENSION y = j.d.output_scanline, left = j.d.output_height - y;
            read_rows(&j, im->rgb + y * stride, stride, left < MODE_ROWS_AT_ONCE ? left : MODE_ROWS_AT_ONCE, cmyk);
        }
        jpeg_finish_decompress(&j.d); /* reads to the end marker, so that missing data is detected */
    }
    *width = (int)j.d.image_width;
    *height = (int)j.d.image_height;
    st = MODE_OK;
out:
    jpeg_destroy_decompress(&j.d);
    free(cmyk);
    if (st && im) mode_image_clear(im);
    return st;
}

/* Whether columns and rows can be skipped without changing the others. For a single scan with usual sampling yes,
 * except for the two columns at each edge of the decoded part. With several scans, missing detail may be smoothed from
 * neighbouring blocks. */
static bool can_leave_out(const struct decoder *j)
{
    const struct jpeg_decompress_struct *d = &j->d;
    if (d->num_components == 4 || jpeg_has_multiple_scans((j_decompress_ptr)(uintptr_t)d)) return false;
    for (int c = 0; c < d->num_components; c++) {
        const int h = d->comp_info[c].h_samp_factor, v = d->comp_info[c].v_samp_factor;
        if (c == 0 ? h > 2 || v > 2 : h != 1 || v != 1) return false;
    }
    return true;
}

enum mode_status mode_jpeg_rows(const struct mode_row_sink *sink, const uint8_t *data, size_t size,
                                const struct mode_image_limits *limits, struct mode_error *err)
{
    enum { EDGE = 4, WORTHWHILE = 32 }; /* columns */
    struct decoder j;
    struct mode_rows_wanted w = {0};
    enum mode_status st;
    uint8_t *volatile cmyk = NULL, *volatile rgb = NULL;
    if (size > ULONG_MAX) return MODE_FAIL(err, MODE_E_VALUE, "a JPEG of %zu bytes", size);
    listen_to(&j);
    if (setjmp(j.stop)) {
        st = failed(&j, err);
        goto out;
    }
    start(&j, data, size);
    if ((st = check(&j, limits, err)) ||
        (st = sink->begin(sink->ctx, (int)j.d.image_width, (int)j.d.image_height, &w, err)))
        goto out;
    MODE_ASSERT(w.x >= 0 && w.y >= 0 && w.width > 0 && w.height > 0 && w.overread <= MODE_ROWS_OVERREAD);
    JDIMENSION left = 0, columns = j.d.image_width;
    const JDIMENSION end = (JDIMENSION)(w.y + w.height);
    const bool partly = can_leave_out(&j);
    jpeg_start_decompress(&j.d);
    if (partly && columns - (JDIMENSION)w.width >= WORTHWHILE) {
        const JDIMENSION right = (JDIMENSION)(w.x + w.width) + EDGE;
        left = w.x > EDGE ? (JDIMENSION)(w.x - EDGE) : 0;
        columns = (right < j.d.image_width ? right : j.d.image_width) - left;
        jpeg_crop_scanline(&j.d, &left, &columns);
    }
    const size_t stride = (size_t)columns * 3 + MODE_ROWS_OVERREAD;
    rgb = calloc(MODE_ROWS_AT_ONCE, stride);
    cmyk = malloc((size_t)columns * 4);
    if (!rgb || !cmyk) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "JPEG: no memory for rows of %u pixels", columns);
        goto out;
    }
    const uint8_t *from = rgb + ((JDIMENSION)w.x - left) * (size_t)3;
    if (partly && w.y > 0) jpeg_skip_scanlines(&j.d, (JDIMENSION)w.y);
    while (j.d.output_scanline < (partly ? end : j.d.output_height)) {
        const JDIMENSION y = j.d.output_scanline;
        const JDIMENSION stop = y < (JDIMENSION)w.y ? (JDIMENSION)w.y : y < end ? end : j.d.output_height;
        const JDIMENSION n = stop - y < MODE_ROWS_AT_ONCE ? stop - y : MODE_ROWS_AT_ONCE;
        read_rows(&j, rgb, stride, n, cmyk);
        if (y >= (JDIMENSION)w.y && y < end) sink->rows(sink->ctx, from, stride, (int)n);
    }
    if (j.d.output_scanline < j.d.output_height) { /* the last row is read: skipping it would stop before the end
                                                      marker */
        if (j.d.output_height - j.d.output_scanline > 1)
            jpeg_skip_scanlines(&j.d, j.d.output_height - j.d.output_scanline - 1);
        read_rows(&j, rgb, stride, 1, cmyk);
    }
    jpeg_finish_decompress(&j.d);
    st = MODE_OK;
out:
    jpeg_destroy_decompress(&j.d);
    free(cmyk);
    free(rgb);
    return st;
}
