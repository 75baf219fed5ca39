#include "base/rng.h"
#include "data/decode_here.h"
#include "data/face_boxes.h"
#include "data/image.h"
#include "data/image_codecs.h"
#include "data/resize.h"
#include "data/window.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void mode_preprocess_default(struct mode_preprocess *p, int size)
{
    *p = (struct mode_preprocess){.size = size,
                                  .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                  .std = {0.26862954f, 0.26130258f, 0.27577711f},
                                  .resize_mode = MODE_RESIZE_SHORTEST,
                                  .filter = MODE_FILTER_BICUBIC};
}

/* State of the transform of one picture. */
struct job {
    const struct mode_preprocess *p;
    const struct mode_crop_draw *draw; /* NULL: evaluation */
    float *out;                        /* NULL: bytes are written to half->to                     */
    struct mode_half *half;
    uint8_t *bytes;    /* where the next rows go in half->to                                        */
    int width, height; /* of the picture                                         */
    int x, y;          /* position of the first column and row in the model's input */
    int view_x, view_y, view_width, view_height; /* the part of the picture that is resized */
    struct mode_resizer resizer;
    float table[3][256]; /* levels */
};

void mode_preprocess_levels(const struct mode_preprocess *p, float levels[3][256])
{
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) levels[c][v] = ((float)v / 255.0f - p->mean[c]) / p->std[c];
}

static void put_floats(const struct job *j, int y, const uint8_t *row, size_t count)
{
    const size_t size = (size_t)j->p->size, n = size * size;
    float *out = j->out + (size_t)(j->y + y) * size + (size_t)j->x;
    for (size_t i = 0; i < count; i++, row += 3) {
        out[i] = j->table[0][row[0]];
        out[n + i] = j->table[1][row[1]];
        out[2 * n + i] = j->table[2][row[2]];
    }
}

static void put_row(void *ctx, int y, const uint8_t *row)
{
    const struct job *j = ctx;
    put_floats(j, y, row, (size_t)j->resizer.plan.n_x);
}

static void put_bytes(void *ctx, int y, const uint8_t *row)
{
    struct job *j = ctx;
    const size_t n = (size_t)j->resizer.plan.n_x * 3;
    memcpy(j->half->to + (size_t)y * n, row, n);
}

/* Centre crop in one direction: n pixels to s. If n < s, `to` padding pixels come first. */
static void centre(int64_t n, int64_t s, int *from, int *to, int *count)
{
    if (n >= s) {
        *from = (int)rint((double)(n - s) / 2.0); /* rounds half to even, like Python's round */
        *to = 0;
        *count = (int)s;
    } else {
        *from = 0;
        *to = (int)((s - n) / 2);
        *count = (int)n;
    }
}

/* The evaluation transform's size after the resize step; rounding as torchvision (shortest) and open_clip
 * (longest) do. */
static void resized_size(const struct job *j, int64_t *w, int64_t *h)
{
    const int64_t s = j->p->size;
    *w = *h = s;
    if (j->p->resize_mode == MODE_RESIZE_SHORTEST) {
        if (j->width <= j->height)
            *h = (int64_t)((double)(s * j->height) / j->width);
        else
            *w = (int64_t)((double)(s * j->width) / j->height);
    } else if (j->p->resize_mode == MODE_RESIZE_LONGEST) {
        const double ratio = fmax((double)j->width / (double)s, (double)j->height / (double)s);
        *w = (int64_t)rint(j->width / ratio);
        *h = (int64_t)rint(j->height / ratio);
        if (*w < 1) *w = 1;
        if (*h < 1) *h = 1;
    }
}

bool mode_crop_size(int width, int height, double share, double aspect, int *w, int *h)
{
    const double area = (double)width * height * share;
    const double cw = rint(sqrt(area * aspect)), ch = rint(sqrt(area / aspect));
    if (cw < 1 || cw > width || ch < 1 || ch > height) return false;
    *w = (int)cw;
    *h = (int)ch;
    return true;
}

void mode_crop_fallback(int width, int height, int *x, int *y, int *w, int *h)
{
    const double ratio_min = 3.0 / 4.0, ratio_max = 4.0 / 3.0, aspect = (double)width / height;
    *w = width;
    *h = height;
    if (aspect < ratio_min)
        *h = (int)rint(width / ratio_min);
    else if (aspect > ratio_max)
        *w = (int)rint(height * ratio_max);
    *x = (width - *w) / 2;
    *y = (height - *h) / 2;
}

static void draw_crop(struct job *j)
{
    const struct mode_crop_draw *d = j->draw;
    const double log_min = log(3.0 / 4.0), log_max = log(4.0 / 3.0);
    struct mode_rng r = mode_rng_for(d->seed, MODE_RNG_CROP, d->epoch, d->sample);
    for (int i = 0; i < 10; i++) {
        const double share = d->scale_min + (d->scale_max - d->scale_min) * mode_rng_uniform(&r);
        const double aspect = exp(log_min + (log_max - log_min) * mode_rng_uniform(&r));
        if (!mode_crop_size(j->width, j->height, share, aspect, &j->view_width, &j->view_height)) continue;
        j->view_y = (int)mode_rng_below(&r, (uint64_t)(j->height - j->view_height) + 1);
        j->view_x = (int)mode_rng_below(&r, (uint64_t)(j->width - j->view_width) + 1);
        return;
    }
    mode_crop_fallback(j->width, j->height, &j->view_x, &j->view_y, &j->view_width, &j->view_height);
}

/* Output of bytes: unresized or, if those are too many, resized here. */
static enum mode_status begin_half(struct job *j, const struct mode_resize_plan *plan, struct mode_error *err)
{
    struct mode_resizer *r = &j->resizer;
    enum mode_status st;
    j->bytes = j->half->to;
    if (j->half->unresized > 0) {
        if ((st = mode_resizer_reach(r, plan, err))) return st;
        if ((size_t)r->n_columns * (size_t)r->n_rows * 3 <= j->half->unresized) return MODE_OK;
    }
    j->half->resized = true;
    return mode_resizer_init(r, plan, put_bytes, j, err);
}

/* Computes the resize plan from the picture's size. */
static enum mode_status make_plan(struct job *j, struct mode_resize_plan *plan, int width, int height,
                                  struct mode_error *err)
{
    const int s = j->p->size;
    *plan = (struct mode_resize_plan){.width = s, .height = s, .n_x = s, .n_y = s};
    j->width = j->view_width = width;
    j->height = j->view_height = height;
    if (j->draw)
        draw_crop(j);
    else {
        int64_t w, h;
        resized_size(j, &w, &h);
        if (w > INT32_MAX || h > INT32_MAX)
            return MODE_FAIL(err, MODE_E_VALUE, "a picture of %dx%d pixels is too thin to be resized to %d", width,
                             height, s);
        plan->width = (int)w;
        plan->height = (int)h;
        plan->filter = (enum mode_filter)j->p->filter;
        centre(w, s, &plan->x, &j->x, &plan->n_x);
        centre(h, s, &plan->y, &j->y, &plan->n_y);
    }
    plan->in_width = j->view_width;
    plan->in_height = j->view_height;
    plan->x1 = j->view_width;
    plan->y1 = j->view_height;
    return MODE_OK;
}

/* Fills the padding around the picture. */
static void begin_floats(struct job *j, const struct mode_resize_plan *plan)
{
    const int s = j->p->size;
    const size_t n = (size_t)s * (size_t)s;
    mode_preprocess_levels(j->p, j->table);
    if (plan->n_x < s || plan->n_y < s)
        for (size_t i = 0; i < 3 * n; i++) j->out[i] = j->table[i / n][j->p->fill];
}

/* Sets up everything that depends on the picture's size. The caller clears the resizer in any case. */
static enum mode_status begin(struct job *j, int width, int height, struct mode_error *err)
{
    struct mode_resize_plan plan;
    enum mode_status st = make_plan(j, &plan, width, height, err);
    if (st) return st;
    if (j->half) return begin_half(j, &plan, err);
    begin_floats(j, &plan);
    return mode_resizer_init(&j->resizer, &plan, put_row, j, err);
}

/* Receives rows of the wanted part. */
static void take_rows(void *ctx, const uint8_t *rgb, size_t stride, int n)
{
    struct job *j = ctx;
    const size_t bytes = (size_t)j->resizer.n_columns * 3;
    if (!j->half || j->half->resized) {
        mode_resizer_rows(&j->resizer, rgb, stride, n);
        return;
    }
    for (int y = 0; y < n; y++, j->bytes += bytes) memcpy(j->bytes, rgb + (size_t)y * stride, bytes);
}

enum mode_status mode__preprocess_check(const struct mode_preprocess *p, const struct mode_crop_draw *d,
                                        struct mode_error *err)
{
    if (p->size < 1 || p->size > 1 << 14)
        return MODE_FAIL(err, MODE_E_VALUE, "input size %d, expected 1 to %d", p->size, 1 << 14);
    if (d && !(d->scale_min > 0 && d->scale_min <= d->scale_max && d->scale_max <= 1))
        return MODE_FAIL(err, MODE_E_VALUE, "crop area %g to %g, expected 0 < smallest <= largest <= 1", d->scale_min,
                         d->scale_max);
    return MODE_OK;
}

static enum mode_status from_pixels(struct job *j, const struct mode_image *im, struct mode_error *err)
{
    enum mode_status st = mode__preprocess_check(j->p, j->draw, err);
    if (st) return st;
    if (!im->rgb || im->width < 1 || im->height < 1)
        return MODE_FAIL(err, MODE_E_VALUE, "an empty picture cannot be preprocessed");
    if (!(st = begin(j, im->width, im->height, err))) {
        const size_t stride = (size_t)im->width * 3;
        const size_t last = (size_t)(j->view_y + j->view_height - 1) * stride + (size_t)(j->view_x + j->view_width) * 3;
        const struct mode_rgb_view view = {.rgb = im->rgb + (size_t)j->view_y * stride + (size_t)j->view_x * 3,
                                           .stride = stride,
                                           .tail = stride * (size_t)im->height - last,
                                           .width = j->view_width,
                                           .height = j->view_height};
        if (j->half && !j->half->resized)
            take_rows(j, view.rgb + (size_t)j->resizer.row * stride + (size_t)j->resizer.column * 3, stride,
                      j->resizer.n_rows);
        else
            st = mode_resizer_view(&j->resizer, &view, err);
    }
    mode_resizer_clear(&j->resizer);
    return st;
}

static enum mode_status begin_rows(void *ctx, int width, int height, struct mode_rows_wanted *w, struct mode_error *err)
{
    struct job *j = ctx;
    const struct mode_resizer *r = &j->resizer;
    enum mode_status st = begin(j, width, height, err);
    if (!st)
        *w = (struct mode_rows_wanted){.x = j->view_x + r->column,
                                       .y = j->view_y + r->row,
                                       .width = r->n_columns,
                                       .height = r->n_rows,
                                       .overread = r->overread};
    return st;
}

enum mode_status mode__window_here(struct mode_half *half, const struct mode_picture *f, struct mode_error *err)
{
    struct job j = {.p = half->p, .draw = half->draw, .half = half};
    enum mode_status st;
    half->resized = false;
    if (half->plainly || f->size > f->limits->max_bytes || f->n_blur > 0 ||
        mode_image_sniff(f->data, f->size) != MODE_IMAGE_JPEG) {
        struct mode_image im;
        st = mode__decode_here(&im, f->data, f->size, f->limits, err);
        if (!st) st = mode_faces_blur(&im, f->blur, f->n_blur, err);
        if (!st) st = from_pixels(&j, &im, err);
        mode_image_clear(&im);
    } else {
        const struct mode_row_sink sink = {.begin = begin_rows, .rows = take_rows, .ctx = &j};
        if (!(st = mode__preprocess_check(j.p, j.draw, err)))
            st = mode_jpeg_rows(&sink, f->data, f->size, f->limits, err);
        mode_resizer_clear(&j.resizer);
    }
    half->width = j.width;
    half->height = j.height;
    return st;
}

enum mode_status mode__window_floats(float *out, const struct mode_half *half, const uint8_t *bytes,
                                     struct mode_error *err)
{
    struct job j = {.p = half->p, .draw = half->draw, .out = out};
    struct mode_resize_plan plan;
    enum mode_status st = make_plan(&j, &plan, half->width, half->height, err);
    if (st) return st;
    begin_floats(&j, &plan);
    const size_t n = (size_t)plan.n_x;
    for (int y = 0; y < plan.n_y; y++) put_floats(&j, y, bytes + (size_t)y * n * 3, n);
    return MODE_OK;
}

enum mode_status mode__window_sink(const struct mode_half *half, const uint8_t *bytes,
                                   const struct mode_window_sink *sink, bool *refused, struct mode_error *err)
{
    struct job j = {.p = half->p, .draw = half->draw};
    struct mode_resizer *r = &j.resizer;
    struct mode_resize_plan plan;
    uint8_t *to = NULL;
    enum mode_status st = make_plan(&j, &plan, half->width, half->height, err);
    if (st) return st;
    struct mode_window w = {
        .width = plan.n_x, .height = plan.n_y, .x = j.x, .y = j.y, .n_x = plan.n_x, .n_y = plan.n_y};
    if (*refused && !half->resized) return MODE_FAIL(err, MODE_E_FORMAT, "not resized, as was asked for");
    if (!*refused) {
        struct mode_window decoded = w;
        plan.plain = true; /* only its taps are used */
        if ((st = mode_resizer_init(r, &plan, put_bytes, &j, err))) return st;
        decoded.width = r->n_columns;
        decoded.height = r->n_rows;
        decoded.column = r->column;
        decoded.row = r->row;
        decoded.across = r->across;
        decoded.down = r->down;
        decoded.down_first = r->down_first;
        const size_t bytes_decoded = (size_t)decoded.width * (size_t)decoded.height * 3;
        if (half->resized != (bytes_decoded > half->unresized))
            st = MODE_FAIL(err, MODE_E_FORMAT, "resized or not, against what was asked for");
        else if ((to = sink->place(sink->ctx, &decoded)))
            memcpy(to, bytes, bytes_decoded);
        else
            *refused = true;
        mode_resizer_clear(r);
        if (st || to || !half->resized) return st;
    }
    to = sink->place(sink->ctx, &w);
    MODE_ASSERT(to);
    memcpy(to, bytes, (size_t)w.width * (size_t)w.height * 3);
    return MODE_OK;
}

enum mode_status mode_preprocess_eval(const struct mode_preprocess *p, const struct mode_image *im, float *out,
                                      struct mode_error *err)
{
    struct job j = {.p = p, .out = out};
    return from_pixels(&j, im, err);
}

enum mode_status mode_preprocess_train(const struct mode_preprocess *p, const struct mode_image *im,
                                       const struct mode_crop_draw *draw, float *out, struct mode_error *err)
{
    struct job j = {.p = p, .draw = draw, .out = out};
    return from_pixels(&j, im, err);
}
