/* Thumbnails: a picture of a shard as a small JPEG for the report. */
#include "data/image.h"
#include "pipeline/corpus.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

struct guard {
    struct jpeg_error_mgr base;
    jmp_buf back;
};

static void give_up(j_common_ptr c)
{
    longjmp(((struct guard *)c->err)->back, 1);
}

static enum mode_status encode(struct mode_corpus_picture *out, const struct mode_image *im, struct mode_error *err)
{
    struct jpeg_compress_struct c = {0};
    struct guard guard;
    unsigned char *buffer = NULL; /* jpeg_mem_dest keeps pointers to both, and sets them in term_destination */
    unsigned long size = 0;
    c.err = jpeg_std_error(&guard.base);
    guard.base.error_exit = give_up;
    if (setjmp(guard.back)) {
        if (c.dest) c.dest->term_destination(&c);
        jpeg_destroy_compress(&c);
        free(buffer);
        return MODE_FAIL(err, MODE_E_MEMORY, "the JPEG encoder failed on a %d x %d picture", im->width, im->height);
    }
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &buffer, &size);
    c.image_width = (JDIMENSION)im->width;
    c.image_height = (JDIMENSION)im->height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 82, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = im->rgb + (size_t)c.next_scanline * (size_t)im->width * 3;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    out->jpeg = buffer;
    out->jpeg_size = size;
    out->width = im->width;
    out->height = im->height;
    return MODE_OK;
}

enum mode_status mode_corpus_thumbnail(struct mode_corpus_picture *out, const unsigned char *data, size_t size,
                                       struct mode_error *err)
{
    struct mode_image im = {0}, small = {0};
    struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    enum mode_status st = mode_image_decode(&im, data, size, &limits, err);
    if (st) goto out;
    int longest = im.width > im.height ? im.width : im.height, w = im.width, h = im.height;
    if (longest > MODE_CORPUS_PICTURE_SIDE) {
        w = (w * MODE_CORPUS_PICTURE_SIDE + longest / 2) / longest;
        h = (h * MODE_CORPUS_PICTURE_SIDE + longest / 2) / longest;
    }
    w = w < 1 ? 1 : w;
    h = h < 1 ? 1 : h;
    if ((st = mode_image_resize(&small, &im, w, h, 0, 0, im.width, im.height, err))) goto out;
    st = encode(out, &small, err);
out:
    mode_image_clear(&im);
    mode_image_clear(&small);
    return st;
}
