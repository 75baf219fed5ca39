#include "data/resize.h"

#include "data/resize_taps.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

static enum mode_status check(const struct mode_resize_plan *p, struct mode_error *err)
{
    if (p->width < 1 || p->height < 1 ||
        !(p->x0 >= 0 && p->y0 >= 0 && p->x1 > p->x0 && p->y1 > p->y0 && p->x1 <= p->in_width && p->y1 <= p->in_height))
        return MODE_FAIL(err, MODE_E_VALUE, "box (%g, %g)-(%g, %g) of a %dx%d picture cannot be resized to %dx%d",
                         p->x0, p->y0, p->x1, p->y1, p->in_width, p->in_height, p->width, p->height);
    if (p->x < 0 || p->y < 0 || p->n_x < 1 || p->n_y < 1 || p->n_x > p->width - p->x || p->n_y > p->height - p->y)
        return MODE_FAIL(err, MODE_E_VALUE, "window %d x %d at (%d, %d) is not inside the resized %d x %d", p->n_x,
                         p->n_y, p->x, p->y, p->width, p->height);
    return MODE_OK;
}

enum mode_status mode_resizer_init(struct mode_resizer *r, const struct mode_resize_plan *plan,
                                   void (*put)(void *ctx, int y, const uint8_t *row), void *ctx, struct mode_error *err)
{
    const struct mode_resize_plan *p = plan;
    const bool fast = !p->plain && mode_taps_have_avx2();
    enum mode_status st = check(p, err);
    *r = (struct mode_resizer){.plan = *p, .put = put, .ctx = ctx};
    if (st) return st;
    r->column = p->x;
    r->n_columns = p->n_x;
    r->row = p->y;
    r->n_rows = p->n_y;
    int longest = 1;
    if (p->width != p->in_width || p->x0 != 0 || p->x1 != p->width) {
        if (!(r->across = calloc(1, sizeof *r->across))) goto no_memory;
        if ((st = mode_taps_make(r->across, p->in_width, p->x0, p->x1, p->width, p->x, p->n_x, p->filter, err)))
            goto failed;
        if (fast && !mode_taps_split(r->across, true)) goto no_memory;
        r->column = r->across->first[0];
        r->n_columns = r->across->first[p->n_x - 1] + r->across->n[p->n_x - 1] - r->column;
        r->overread = r->across->split ? MODE_TAPS_OVERREAD : 0;
    }
    if (p->height != p->in_height || p->y0 != 0 || p->y1 != p->height) {
        if (!(r->down = calloc(1, sizeof *r->down))) goto no_memory;
        if ((st = mode_taps_make(r->down, p->in_height, p->y0, p->y1, p->height, p->y, p->n_y, p->filter, err)))
            goto failed;
        if (fast && !mode_taps_split(r->down, false)) goto no_memory;
        r->row = r->down->first[0];
        r->n_rows = r->down->first[p->n_y - 1] + r->down->n[p->n_y - 1] - r->row;
        longest = r->down->n_max;
    }
    /* room for twice the rows that one output needs, so that they are rarely moved up */
    size_t bytes;
    r->down_first = r->down && r->across && p->in_height > p->in_width * (int64_t)100 && p->height < p->in_height;
    if (r->n_rows < longest) longest = r->n_rows;
    r->row_bytes = (size_t)(r->down_first ? r->n_columns : p->n_x) * 3;
    r->stride = r->row_bytes + (MODE_TAPS_OVERWRITE > MODE_TAPS_OVERREAD ? MODE_TAPS_OVERWRITE : MODE_TAPS_OVERREAD);
    r->room = 2 * longest + 2 * MODE_RESIZER_ROWS;
    r->top = r->have = r->row;
    if (!mode_mul_size(r->stride, (size_t)r->room, &bytes) || !(r->kept = malloc(bytes)) ||
        !(r->line = calloc(1, r->stride)) || !(r->crossed = malloc((size_t)p->n_x * 3 + MODE_TAPS_OVERWRITE)))
        goto no_memory;
    return MODE_OK;
no_memory:
    st = MODE_FAIL(err, MODE_E_MEMORY, "no memory to resize a picture to %dx%d", p->width, p->height);
failed:
    mode_resizer_clear(r);
    return st;
}

/* The input range of one direction: taps are monotonic, so the first and the last output determine it. */
static enum mode_status reach(int *from, int *count, int n_in, double in0, double in1, int n_all, int at, int n,
                              enum mode_filter filter, struct mode_error *err)
{
    struct mode_taps first = {0}, last = {0};
    *from = at;
    *count = n;
    if (n_all == n_in && in0 == 0 && in1 == n_all) return MODE_OK;
    enum mode_status st = mode_taps_make(&first, n_in, in0, in1, n_all, at, 1, filter, err);
    if (!st) st = mode_taps_make(&last, n_in, in0, in1, n_all, at + n - 1, 1, filter, err);
    if (!st) {
        *from = first.first[0];
        *count = last.first[0] + last.n[0] - *from;
    }
    mode_taps_clear(&first);
    mode_taps_clear(&last);
    return st;
}

enum mode_status mode_resizer_reach(struct mode_resizer *r, const struct mode_resize_plan *p, struct mode_error *err)
{
    enum mode_status st = check(p, err);
    *r = (struct mode_resizer){.plan = *p};
    if (!st) st = reach(&r->column, &r->n_columns, p->in_width, p->x0, p->x1, p->width, p->x, p->n_x, p->filter, err);
    if (!st) st = reach(&r->row, &r->n_rows, p->in_height, p->y0, p->y1, p->height, p->y, p->n_y, p->filter, err);
    return st;
}

void mode_resizer_clear(struct mode_resizer *r)
{
    if (r->across) mode_taps_clear(r->across);
    if (r->down) mode_taps_clear(r->down);
    free(r->across);
    free(r->down);
    free(r->kept);
    free(r->line);
    free(r->crossed);
    r->across = r->down = NULL;
    r->kept = r->line = r->crossed = NULL;
}

void mode_resizer_rows(struct mode_resizer *r, const uint8_t *rows, size_t stride, int n)
{
    MODE_ASSERT(n >= 0 && n <= MODE_RESIZER_ROWS && r->have + n <= r->row + r->n_rows);
    if (r->have - r->top + n > r->room) {
        int keep = r->down ? r->down->first[r->next] : r->have;
        if (keep > r->have) keep = r->have;
        memmove(r->kept, r->kept + (size_t)(keep - r->top) * r->stride, (size_t)(r->have - keep) * r->stride);
        r->top = keep;
    }
    uint8_t *to = r->kept + (size_t)(r->have - r->top) * r->stride;
    if (r->across && !r->down_first)
        mode_taps_across(to, r->stride, rows, stride, r->column, n, r->across);
    else
        for (int y = 0; y < n; y++) memcpy(to + (size_t)y * r->stride, rows + (size_t)y * stride, r->row_bytes);
    r->have += n;
    for (; r->next < r->plan.n_y; r->next++) {
        const int first = r->down ? r->down->first[r->next] : r->row + r->next;
        if (first + (r->down ? r->down->n[r->next] : 1) > r->have) break;
        const uint8_t *from = r->kept + (size_t)(first - r->top) * r->stride;
        if (r->down) {
            mode_taps_down(r->line, from, r->stride, r->row_bytes, r->down, r->next);
            from = r->line;
        }
        if (r->down_first) {
            mode_taps_across(r->crossed, 0, r->line, 0, r->column, 1, r->across);
            from = r->crossed;
        }
        r->put(r->ctx, r->next, from);
    }
}

enum mode_status mode_resizer_view(struct mode_resizer *r, const struct mode_rgb_view *in, struct mode_error *err)
{
    const int end = r->row + r->n_rows;
    const size_t skip = (size_t)r->column * 3, bytes = (size_t)r->n_columns * 3;
    int y = r->row;
    MODE_ASSERT(in->width == r->plan.in_width && in->height == r->plan.in_height);
    while (y < end) {
        int n = end - y < MODE_RESIZER_ROWS ? end - y : MODE_RESIZER_ROWS;
        /* rows whose overread would leave the picture's memory are copied first */
        size_t over = skip + bytes + r->overread, row = (size_t)in->width * 3;
        over = over > row ? over - row : 0;
        while (n > 0 && (size_t)(in->height - (y + n)) * in->stride + in->tail < over) n--;
        if (n == 0) break;
        mode_resizer_rows(r, in->rgb + (size_t)y * in->stride + skip, in->stride, n);
        y += n;
    }
    if (y == end) return MODE_OK;
    uint8_t *copy = calloc(1, bytes + r->overread);
    if (!copy) return MODE_FAIL(err, MODE_E_MEMORY, "no memory for a row of %d pixels", r->n_columns);
    for (; y < end; y++) {
        memcpy(copy, in->rgb + (size_t)y * in->stride + skip, bytes);
        mode_resizer_rows(r, copy, 0, 1);
    }
    free(copy);
    return MODE_OK;
}

struct whole {
    uint8_t *out;
    size_t row_bytes;
};

static void put_row(void *ctx, int y, const uint8_t *row)
{
    const struct whole *w = ctx;
    memcpy(w->out + (size_t)y * w->row_bytes, row, w->row_bytes);
}

enum mode_status mode_resize_rgb(uint8_t *out, int width, int height, const struct mode_rgb_view *in, double x0,
                                 double y0, double x1, double y1, enum mode_filter filter, bool simd,
                                 struct mode_error *err)
{
    const struct mode_resize_plan plan = {.in_width = in->width,
                                          .in_height = in->height,
                                          .x0 = x0,
                                          .y0 = y0,
                                          .x1 = x1,
                                          .y1 = y1,
                                          .width = width,
                                          .height = height,
                                          .n_x = width,
                                          .n_y = height,
                                          .filter = filter,
                                          .plain = !simd};
    struct whole w = {.out = out, .row_bytes = (size_t)(width > 0 ? width : 0) * 3};
    struct mode_resizer r;
    enum mode_status st = mode_resizer_init(&r, &plan, put_row, &w, err);
    if (!st) st = mode_resizer_view(&r, in, err);
    mode_resizer_clear(&r);
    return st;
}
