/* mode-test-pictures - processes requests about pictures from stdin, one per line, for tests/golden/check_images.py.
 *
 *     decode PATH                                             RGB bytes
 *     resize PATH bicubic|bilinear W H X0 Y0 X1 Y1 PLAIN      RGB bytes; PLAIN 1: without AVX2
 *     eval PATH SIZE RESIZE FILTER FILL                       f32 [3, SIZE, SIZE]; RESIZE, FILTER as enums
 *     crop W H SHARE ASPECT                                   i32 [2]: width, height, or 0 0: does not fit
 *     fallback W H                                            i32 [4]: x, y, width, height
 *     jpeg PATH W H CHANNELS H V RESTART PROGRESSIVE YCCK SEED      writes a file; nothing
 *
 * Answer: i32 status, i32 width, i32 height, u32 n, n bytes (after a failure: the sentence). */
#include "base/file.h"
#include "data/image.h"
#include "data/resize.h"
#include "picture_fixture.h"

static void answer(enum mode_status st, int w, int h, const void *data, size_t n)
{
    const int32_t head[] = {(int32_t)st, w, h, (int32_t)n};
    fwrite(head, sizeof head, 1, stdout);
    fwrite(data, 1, n, stdout);
    fflush(stdout);
}

static enum mode_status picture(const char *line, struct mode_error *err)
{
    static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    char path[1024], filter[16];
    int size, resize, kind, fill, w, h, plain, used = 0;
    double x0, y0, x1, y1;
    struct mode_mapping map;
    struct mode_image im = {0};
    enum mode_status st;
    if (sscanf(line, "%*s %1000s%n", path, &used) != 1) return MODE_FAIL(err, MODE_E_USAGE, "no path: %s", line);
    if ((st = mode_file_map(path, &map, err))) return st;
    const char *rest = line + used;
    if (sscanf(line, "eval %*s %d %d %d %d", &size, &resize, &kind, &fill) == 4) {
        const struct mode_picture f = {.data = map.data, .size = map.size, .limits = &limits};
        struct mode_preprocess p;
        mode_preprocess_default(&p, size);
        p.resize_mode = resize;
        p.filter = kind;
        p.fill = (uint8_t)fill;
        const size_t n = 3 * (size_t)size * (size_t)size * sizeof(float);
        float *out = mode_xmalloc(n);
        st = mode_preprocess_eval_file(&p, &f, out, err);
        if (!st) answer(st, size, size, out, n);
        free(out);
    } else if (!(st = mode_image_decode(&im, map.data, map.size, &limits, err))) {
        if (sscanf(rest, " %15s %d %d %lf %lf %lf %lf %d", filter, &w, &h, &x0, &y0, &x1, &y1, &plain) == 8) {
            const struct mode_rgb_view view = {
                .rgb = im.rgb, .stride = (size_t)im.width * 3, .width = im.width, .height = im.height};
            uint8_t *out = mode_xmalloc((size_t)w * (size_t)h * 3);
            st = mode_resize_rgb(out, w, h, &view, x0, y0, x1, y1,
                                 filter[2] == 'c' ? MODE_FILTER_BICUBIC : MODE_FILTER_BILINEAR, !plain, err);
            if (!st) answer(st, w, h, out, (size_t)w * (size_t)h * 3);
            free(out);
        } else
            answer(st, im.width, im.height, im.rgb, (size_t)im.width * (size_t)im.height * 3);
        mode_image_clear(&im);
    }
    mode_file_unmap(&map);
    return st;
}

int main(void)
{
    char line[2048], path[1024];
    int w, h, box[4], progressive, ycck;
    double share, aspect;
    unsigned long long seed;
    while (fgets(line, sizeof line, stdin)) {
        struct mode_error err = {0};
        struct fixture_jpeg_options o = {0};
        enum mode_status st = MODE_OK;
        if (sscanf(line, "crop %d %d %lf %lf", &w, &h, &share, &aspect) == 4) {
            if (!mode_crop_size(w, h, share, aspect, box, box + 1)) box[0] = box[1] = 0;
            answer(MODE_OK, w, h, box, 2 * sizeof *box);
        } else if (sscanf(line, "fallback %d %d", &w, &h) == 2) {
            mode_crop_fallback(w, h, box, box + 1, box + 2, box + 3);
            answer(MODE_OK, w, h, box, sizeof box);
        } else if (sscanf(line, "jpeg %1000s %d %d %d %d %d %d %d %d %llu", path, &w, &h, &o.channels, &o.h, &o.v,
                          &o.restart_rows, &progressive, &ycck, &seed) == 10) {
            o.progressive = progressive != 0;
            o.ycck = ycck != 0;
            struct bytes j = fixture_jpeg_as(w, h, &o, seed);
            if (!(st = mode_file_write_atomic(path, j.data, j.size, &err))) answer(st, w, h, "", 0);
            free(j.data);
        } else
            st = picture(line, &err);
        if (st) answer(st, 0, 0, err.text, strlen(err.text));
    }
    return 0;
}
