#include "data/render.h"

#include "base/file.h"
#include "data/image.h"

#include <cairo.h>
#include <hb.h>
#include <librsvg/rsvg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <spng.h>
#include <xxhash.h>

#define SIDE          256
#define PIXELS_MAX    40000000
#define NOT_WHITE     12   /* a pixel belongs to the drawing if a channel is this far from white */
#define FILLS_ENOUGH  0.75 /* box / page, longest sides: below, the page is cut */
#define EDGE          0.05 /* of the box's longest side */
#define ENLARGE_MAX   4.0  /* of a cut SVG */
#define LONGEST_MIN   32
#define SHORTEST_MIN  12
#define ASPECT_MAX    6
#define DEVIATION_MIN 4.0 /* standard deviation of the most varied channel */
#define QUALITY       90
#define FILE_MAX      ((size_t)64 << 20)

struct box {
    int x0, y0, x1, y1; /* pixels, x1 and y1 exclusive */
};

/* Bounding box of everything that is not white; false if everything is. */
static bool find_box(struct box *b, const struct mode_image *im)
{
    *b = (struct box){im->width, im->height, 0, 0};
    for (int y = 0; y < im->height; y++) {
        const uint8_t *row = im->rgb + (size_t)y * im->width * 3;
        for (int x = 0; x < im->width; x++) {
            const uint8_t *p = row + (size_t)x * 3;
            if (p[0] > 255 - NOT_WHITE && p[1] > 255 - NOT_WHITE && p[2] > 255 - NOT_WHITE) continue;
            if (x < b->x0) b->x0 = x;
            if (x >= b->x1) b->x1 = x + 1;
            if (y < b->y0) b->y0 = y;
            b->y1 = y + 1;
        }
    }
    return b->x1 > b->x0;
}

static int longest(int a, int b)
{
    return a > b ? a : b;
}

/* The box with its edge, inside the page; false when the drawing fills the page well enough. */
static bool find_cut(struct box *b, const struct mode_image *im)
{
    int side = longest(b->x1 - b->x0, b->y1 - b->y0);
    if (side >= FILLS_ENOUGH * longest(im->width, im->height)) return false;
    int edge = (int)ceil(EDGE * side);
    b->x0 = b->x0 > edge ? b->x0 - edge : 0;
    b->y0 = b->y0 > edge ? b->y0 - edge : 0;
    b->x1 = b->x1 + edge < im->width ? b->x1 + edge : im->width;
    b->y1 = b->y1 + edge < im->height ? b->y1 + edge : im->height;
    return true;
}

static enum mode_demo_fate fail(struct mode_demo_item *it, enum mode_demo_fate fate, const char *detail)
{
    free(it->detail);
    it->detail = mode_demo_clean(detail);
    return fate;
}

/* --- SVG --- */

/* The document's rectangle in its own units: its size, else the viewBox, else the bounding box of its content. */
static bool svg_page(RsvgHandle *svg, RsvgRectangle *page)
{
    gboolean has_width, has_height, has_box;
    RsvgLength width, height;
    RsvgRectangle box, ink;
    *page = (RsvgRectangle){0, 0, 0, 0};
    if (rsvg_handle_get_intrinsic_size_in_pixels(svg, &page->width, &page->height) && page->width > 0 &&
        page->height > 0)
        return true;
    rsvg_handle_get_intrinsic_dimensions(svg, &has_width, &width, &has_height, &height, &has_box, &box);
    if (has_box && box.width > 0 && box.height > 0) {
        page->width = box.width;
        page->height = box.height;
        return true;
    }
    if (!rsvg_handle_get_geometry_for_layer(svg, NULL, &(RsvgRectangle){0, 0, SIDE, SIDE}, &ink, NULL, NULL) ||
        !(ink.width > 0) || !(ink.height > 0))
        return false;
    *page = ink;
    return true;
}

/* Renders part (in units of the page) at scale on white. */
static enum mode_demo_fate svg_draw(struct mode_demo_item *it, struct mode_image *im, RsvgHandle *svg,
                                    const RsvgRectangle *page, const RsvgRectangle *part, double scale)
{
    int w = (int)fmax(1, round(part->width * scale)), h = (int)fmax(1, round(part->height * scale));
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, w, h);
    cairo_t *cr = cairo_create(surface);
    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_paint(cr);
    cairo_scale(cr, scale, scale);
    cairo_translate(cr, -part->x, -part->y);
    RsvgRectangle viewport = {0, 0, page->width + page->x, page->height + page->y};
    GError *error = NULL;
    enum mode_demo_fate fate = MODE_DEMO_KEPT;
    if (!rsvg_handle_render_document(svg, cr, &viewport, &error)) {
        fate = fail(it, MODE_DEMO_UNPARSABLE, error ? error->message : "librsvg cannot draw it");
        g_clear_error(&error);
    } else {
        cairo_surface_flush(surface);
        const uint8_t *data = cairo_image_surface_get_data(surface);
        int stride = cairo_image_surface_get_stride(surface);
        *im = (struct mode_image){mode_xmalloc((size_t)w * h * 3), w, h};
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                uint32_t pixel; /* xRGB in machine order */
                memcpy(&pixel, data + (size_t)y * stride + (size_t)x * 4, 4);
                uint8_t *p = im->rgb + ((size_t)y * w + x) * 3;
                p[0] = (uint8_t)(pixel >> 16);
                p[1] = (uint8_t)(pixel >> 8);
                p[2] = (uint8_t)pixel;
            }
    }
    cairo_destroy(cr);
    cairo_surface_destroy(surface);
    return fate;
}

static enum mode_demo_fate draw_svg(struct mode_demo_item *it, struct mode_image *im)
{
    GError *error = NULL;
    RsvgHandle *svg = rsvg_handle_new_from_file(it->path, &error);
    RsvgRectangle page;
    enum mode_demo_fate fate;
    if (!svg) {
        fate = fail(it, MODE_DEMO_UNPARSABLE, error ? error->message : "librsvg cannot read it");
        g_clear_error(&error);
        return fate;
    }
    if (!svg_page(svg, &page)) {
        fate = fail(it, MODE_DEMO_EMPTY, "neither size nor content");
        goto out;
    }
    double scale = SIDE / fmax(page.width, page.height);
    struct box b;
    fate = svg_draw(it, im, svg, &page, &page, scale);
    if (fate != MODE_DEMO_KEPT) goto out;
    if (!find_box(&b, im)) {
        fate = MODE_DEMO_EMPTY;
    } else if (find_cut(&b, im)) {
        int w = b.x1 - b.x0, h = b.y1 - b.y0;
        RsvgRectangle part = {page.x + b.x0 / scale, page.y + b.y0 / scale, w / scale, h / scale};
        mode_image_clear(im);
        fate = svg_draw(it, im, svg, &page, &part, scale * fmin(ENLARGE_MAX, (double)SIDE / longest(w, h)));
    }
out:
    g_object_unref(svg);
    return fate;
}

/* --- PNG --- */

static enum mode_demo_fate decode_png(struct mode_demo_item *it, struct mode_image *im, const uint8_t *data,
                                      size_t size)
{
    spng_ctx *png = spng_ctx_new(0);
    struct spng_ihdr head;
    uint8_t *rgba = NULL;
    size_t n = 0;
    enum mode_demo_fate fate = MODE_DEMO_KEPT;
    int rc = png ? spng_set_png_buffer(png, data, size) : SPNG_EMEM;
    if (!rc) rc = spng_get_ihdr(png, &head);
    if (!rc && (uint64_t)head.width * head.height > PIXELS_MAX) {
        fate = MODE_DEMO_TOO_MANY_PIXELS;
        goto out;
    }
    if (!rc) rc = spng_decoded_image_size(png, SPNG_FMT_RGBA8, &n);
    if (!rc) {
        rgba = mode_xmalloc(n);
        rc = spng_decode_image(png, rgba, n, SPNG_FMT_RGBA8, SPNG_DECODE_TRNS);
    }
    if (rc) {
        fate = fail(it, MODE_DEMO_UNPARSABLE, spng_strerror(rc));
        goto out;
    }
    size_t pixels = (size_t)head.width * head.height;
    *im = (struct mode_image){mode_xmalloc(pixels * 3), (int)head.width, (int)head.height};
    for (size_t i = 0; i < pixels; i++) {
        int a = rgba[i * 4 + 3];
        for (size_t c = 0; c < 3; c++)
            im->rgb[i * 3 + c] = (uint8_t)((rgba[i * 4 + c] * a + 255 * (255 - a) + 127) / 255);
    }
out:
    free(rgba);
    spng_ctx_free(png);
    return fate;
}

/* Crops to b, and scales down to SIDE if larger. */
static void cut_and_reduce(struct mode_image *im, const struct box *b)
{
    int w = b->x1 - b->x0, h = b->y1 - b->y0;
    double scale = fmin(1, (double)SIDE / longest(w, h));
    int new_w = (int)fmax(1, round(w * scale)), new_h = (int)fmax(1, round(h * scale));
    if (w == im->width && h == im->height && new_w == w && new_h == h) return;
    struct mode_image out = {0};
    enum mode_status st = mode_image_resize(&out, im, new_w, new_h, b->x0, b->y0, b->x1, b->y1, NULL);
    MODE_ASSERT(st == MODE_OK);
    mode_image_clear(im);
    *im = out;
}

static enum mode_demo_fate draw_png(struct mode_demo_item *it, struct mode_image *im)
{
    char *file = NULL;
    size_t size = it->size;
    struct mode_error err;
    if (it->path && mode_file_read(it->path, FILE_MAX, &file, &size, &err) != MODE_OK)
        return fail(it, MODE_DEMO_UNPARSABLE, err.text);
    enum mode_demo_fate fate = decode_png(it, im, it->path ? (const uint8_t *)file : it->data, size);
    free(file);
    if (fate != MODE_DEMO_KEPT) return fate;
    struct box b;
    if (!find_box(&b, im)) return MODE_DEMO_EMPTY;
    if (!find_cut(&b, im)) b = (struct box){0, 0, im->width, im->height};
    cut_and_reduce(im, &b);
    return MODE_DEMO_KEPT;
}

/* --- what is kept --- */

static enum mode_demo_fate judge(const struct mode_image *im)
{
    int side = longest(im->width, im->height), other = im->width + im->height - side;
    if (side < LONGEST_MIN || other < SHORTEST_MIN) return MODE_DEMO_TOO_SMALL;
    if (side > ASPECT_MAX * other) return MODE_DEMO_TOO_LONG;
    double n = (double)im->width * im->height, widest = 0;
    for (int c = 0; c < 3; c++) {
        uint64_t sum = 0, squares = 0; /* exact: at most 256 x 256 x 255^2 */
        for (size_t i = (size_t)c; i < (size_t)im->width * im->height * 3; i += 3) {
            sum += im->rgb[i];
            squares += (uint64_t)im->rgb[i] * im->rgb[i];
        }
        double mean = (double)sum / n;
        widest = fmax(widest, (double)squares / n - mean * mean);
    }
    return widest < DEVIATION_MIN * DEVIATION_MIN ? MODE_DEMO_FLAT : MODE_DEMO_KEPT;
}

static void shrink(struct mode_image *out, const struct mode_image *im, int w, int h)
{
    enum mode_status st = mode_image_resize(out, im, w, h, 0, 0, im->width, im->height, NULL);
    MODE_ASSERT(st == MODE_OK);
}

static int grey(const uint8_t *p)
{
    return 299 * p[0] + 587 * p[1] + 114 * p[2];
}

static void sign(struct mode_demo_signature *s, const struct mode_image *im)
{
    struct mode_image small;
    XXH128_hash_t h = XXH3_128bits_withSeed(im->rgb, (size_t)im->width * im->height * 3,
                                            (uint64_t)im->width << 32 | (uint32_t)im->height);
    s->pixels[0] = h.low64;
    s->pixels[1] = h.high64;
    shrink(&small, im, 9, 8);
    s->gradient = 0;
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 8; x++) {
            const uint8_t *p = small.rgb + (y * 9 + x) * 3;
            s->gradient = s->gradient << 1 | (grey(p) > grey(p + 3));
        }
    mode_image_clear(&small);
    shrink(&small, im, 4, 4);
    for (size_t i = 0; i < sizeof s->coarse; i++) s->coarse[i] = small.rgb[i] >> 4;
    mode_image_clear(&small);
    shrink(&small, im, 24, 24);
    memcpy(s->thumb, small.rgb, sizeof s->thumb);
    for (int c = 0; c < 3; c++) s->thumb_sum[c] = 0;
    for (size_t i = 0; i < sizeof s->thumb; i++) s->thumb_sum[i % 3] += s->thumb[i];
    mode_image_clear(&small);
}

/* In-memory compression fails only when out of memory: libjpeg's own handler exits the process. */
static void compress(struct mode_demo_item *it, struct mode_image *im)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr handler;
    unsigned char *data = NULL;
    unsigned long size = 0;
    c.err = jpeg_std_error(&handler);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &data, &size);
    c.image_width = (JDIMENSION)im->width;
    c.image_height = (JDIMENSION)im->height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, QUALITY, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = im->rgb + (size_t)c.next_scanline * im->width * 3;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    it->jpeg = mode_xmalloc(size);
    it->jpeg_size = size;
    memcpy(it->jpeg, data, size);
    free(data);
}

void mode_demo_render(struct mode_demo_item *it)
{
    struct mode_image im = {0};
    it->fate = it->is_svg ? draw_svg(it, &im) : draw_png(it, &im);
    if (it->fate == MODE_DEMO_KEPT) it->fate = judge(&im);
    if (it->fate == MODE_DEMO_KEPT) {
        it->width = im.width;
        it->height = im.height;
        sign(&it->sig, &im);
        compress(it, &im);
    }
    mode_image_clear(&im);
}

void mode_demo_drawn_with(char *text, size_t n)
{
    snprintf(text, n, "librsvg %u.%u.%u, cairo %s, HarfBuzz %s", rsvg_major_version, rsvg_minor_version,
             rsvg_micro_version, cairo_version_string(), hb_version_string());
}
