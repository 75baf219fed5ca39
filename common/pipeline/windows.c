#include "pipeline/windows.h"

#include "base/str.h"
#include "data/window.h"
#include "nn/pixels.h"
#include "nn/staging.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

struct mode_windows {
    struct mode_backend *be;
    struct mode_preprocess preprocess;
    struct mode_staging *staging;
    void *levels;                  /* [3, 256] f32, backend memory: normalised value of each u8 level */
    struct mode_pictures pictures; /* result of the last take */
    int64_t most;
    size_t least;         /* bytes reserved for every picture */
    pthread_mutex_t lock; /* of all below */
    size_t used, spare;   /* bytes: allocated; neither allocated nor reserved */
    uint64_t resized;     /* by the host */
};

static size_t padded(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t taps_bytes(const struct mode_taps *t, int n)
{
    return padded(mode_pixels_taps_bytes(n, t ? t->n_max : 1));
}

static size_t bytes_of(const struct mode_window *w)
{
    return taps_bytes(w->across, w->n_x) + taps_bytes(w->down, w->n_y) +
           padded((size_t)w->width * (size_t)w->height * 3);
}

/* Bytes of the intermediate image in the device's scratch memory. */
static int64_t between(const struct mode_window *w)
{
    return mode_pixels_between(&(struct mode_pixels_window){
        .width = w->width, .height = w->height, .n_x = w->n_x, .n_y = w->n_y, .down_first = w->down_first});
}

/* Bytes of a picture that the host has resized. */
static size_t least_of(const struct mode_preprocess *p)
{
    const struct mode_window w = {.width = p->size, .height = p->size, .n_x = p->size, .n_y = p->size};
    return bytes_of(&w);
}

static size_t table_bytes(int64_t most)
{
    return padded((size_t)most * sizeof(struct mode_pixels_window));
}

/* The mean + 1/8, the resampling taps, and room for one window of maximum size per batch. */
size_t mode_windows_average(double mean, int64_t most)
{
    const double taps = 32 << 10;
    return (size_t)(mean * 1.125 + taps + MODE_WINDOW_MOST / (double)most);
}

size_t mode_windows_bytes(const struct mode_preprocess *p, int64_t most, size_t bytes)
{
    const size_t least = least_of(p), each = (bytes > least ? bytes : least) + sizeof(struct mode_pixels_window);
    size_t all;
    return mode_mul_size((size_t)most, each, &all) && all <= SIZE_MAX - ALIGN ? all + ALIGN : SIZE_MAX;
}

enum mode_status mode_windows_open(struct mode_windows **windows, struct mode_backend *be,
                                   const struct mode_preprocess *p, int64_t most, size_t bytes, struct mode_error *err)
{
    struct mode_windows *w = *windows = mode_xcalloc(1, sizeof *w);
    const size_t all = mode_windows_bytes(p, most, bytes);
    enum mode_status st;
    w->be = be;
    w->preprocess = *p;
    w->most = most;
    w->least = least_of(p);
    pthread_mutex_init(&w->lock, NULL);
    if (all == SIZE_MAX)
        st = MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld pictures does not fit any memory", (long long)most);
    else
        st = mode_staging_open(&w->staging, be, all, err);
    if (!st) st = mode_backend_alloc(be, &w->levels, 3 * 256 * sizeof(float), err);
    if (st) {
        mode_windows_close(windows);
        return st;
    }
    float levels[3][256];
    mode_preprocess_levels(p, levels);
    mode_backend_copy(be, w->levels, levels, sizeof levels);
    return MODE_OK;
}

void mode_windows_close(struct mode_windows **windows)
{
    struct mode_windows *w = *windows;
    if (!w) return;
    mode_staging_close(&w->staging);
    mode_backend_free(w->be, w->levels);
    pthread_mutex_destroy(&w->lock);
    free(w);
    *windows = NULL;
}

void mode_windows_begin(struct mode_windows *w)
{
    mode_staging_wait(w->staging);
    w->used = table_bytes(w->most);
    w->spare = w->staging->bytes - w->used - (size_t)w->most * w->least;
}

/* Allocate a window. What exceeds `least` is taken from the spare bytes, and a smaller window returns the difference to
 * them. A window over MODE_WINDOW_MOST is not sent as decoded. Resized by the host it has no taps and always fits. */
static bool take(struct mode_windows *w, const struct mode_window *x, size_t *at)
{
    const size_t bytes = bytes_of(x);
    const bool sent = (size_t)x->width * (size_t)x->height * 3 <= MODE_WINDOW_MOST || (!x->across && !x->down);
    pthread_mutex_lock(&w->lock);
    const bool fits = sent &&
                      (bytes <= w->least || (between(x) <= MODE_PIXELS_BETWEEN && bytes - w->least <= w->spare));
    if (fits) {
        *at = w->used;
        w->used += bytes;
        w->spare += w->least - bytes; /* modulo 2^64 */
    } else {
        w->resized++;
    }
    pthread_mutex_unlock(&w->lock);
    return fits;
}

struct one { /* picture i of the batch in w */
    struct mode_windows *w;
    int64_t i;
};

static void write_taps(int32_t *to, const struct mode_taps *t, int n, int from)
{
    if (t)
        mode_pixels_taps(to, n, t->n_max, t->first, t->n, t->k, from);
    else
        mode_pixels_same(to, n);
}

static uint8_t *place(void *ctx, const struct mode_window *x)
{
    const struct one *o = ctx;
    const size_t across = taps_bytes(x->across, x->n_x), down = taps_bytes(x->down, x->n_y);
    char *base = o->w->staging->host;
    size_t at;
    if (!take(o->w, x, &at)) return NULL;
    ((struct mode_pixels_window *)(void *)base)[o->i] = (struct mode_pixels_window){
        .across = (int64_t)at,
        .down = (int64_t)(at + across),
        .rgb = (int64_t)(at + across + down),
        .width = x->width,
        .height = x->height,
        .across_most = x->across ? x->across->n_max : 1,
        .down_most = x->down ? x->down->n_max : 1,
        .x = x->x,
        .y = x->y,
        .n_x = x->n_x,
        .n_y = x->n_y,
        .down_first = x->down_first};
    write_taps((int32_t *)(void *)(base + at), x->across, x->n_x, x->column);
    write_taps((int32_t *)(void *)(base + at + across), x->down, x->n_y, x->row);
    return (uint8_t *)base + at + across + down;
}

enum mode_status mode_windows_add(struct mode_windows *w, int64_t i, const struct mode_picture *f,
                                  const struct mode_crop_draw *draw, struct mode_error *err)
{
    struct one o = {w, i};
    const struct mode_window_sink sink = {.most = MODE_WINDOW_MOST, .place = place, .ctx = &o};
    return mode_window_file(&w->preprocess, f, draw, &sink, err);
}

void mode_windows_send(struct mode_windows *w, int64_t n)
{
    if (n > 0) mode_staging_send(w->staging, w->used);
}

const struct mode_pictures *mode_windows_take(struct mode_windows *w)
{
    w->pictures = (struct mode_pictures){.windows = w->staging->host,
                                         .bytes = w->staging->device,
                                         .n_bytes = w->used,
                                         .levels = w->levels,
                                         .border = w->preprocess.fill};
    mode_staging_begin(w->staging);
    return &w->pictures;
}

void mode_windows_done(struct mode_windows *w)
{
    mode_staging_end(w->staging);
}

uint64_t mode_windows_resized(struct mode_windows *w)
{
    pthread_mutex_lock(&w->lock);
    const uint64_t n = w->resized;
    pthread_mutex_unlock(&w->lock);
    return n;
}

bool mode_windows_wanted(const struct mode_backend *be)
{
    const char *where = getenv("MODE_CUDA_PIXELS");
    return be && mode_backend_is_device(be) && !(where && strcmp(where, "host") == 0);
}

void mode_windows_why(char why[MODE_WINDOWS_WHY], size_t bytes, size_t room)
{
    snprintf(why, MODE_WINDOWS_WHY,
             "pictures are resized by the host: as decoded they would take %.1f MiB of the device's memory, where %.1f "
             "MiB can be had",
             (double)bytes / 1048576, (double)room / 1048576);
}

bool mode_windows_fit(char why[MODE_WINDOWS_WHY], const struct mode_backend *be, const struct mode_preprocess *p,
                      int64_t most, size_t bytes, int batches)
{
    size_t left, total, all;
    mode_backend_room(be, &left, &total);
    if (!mode_mul_size((size_t)batches, mode_windows_bytes(p, most, bytes), &all)) all = SIZE_MAX;
    why[0] = '\0';
    if (all > left / 2) mode_windows_why(why, all, left / 2);
    return all <= left / 2;
}
