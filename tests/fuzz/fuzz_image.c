/* Any bytes as a picture: it decodes or is refused with a sentence, in bounded memory; and the transforms give the same
 * result from the file as from its decoded pixels. */
#include "data/decode_here.h"
#include "data/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { S = 16 };

static void refused(enum mode_status st, const struct mode_error *err)
{
    if ((st != MODE_E_FORMAT && st != MODE_E_VALUE) || err->text[0] == 0) abort();
}

static void same(const struct mode_picture *f, const struct mode_image *im, const struct mode_preprocess *p,
                 const struct mode_crop_draw *draw)
{
    float a[3 * S * S], b[3 * S * S];
    uint8_t bytes[3 * S * S];
    struct mode_half half = {.p = p, .draw = draw, .to = bytes};
    struct mode_error err = {0};
    enum mode_status sa, sb;
    sa = draw ? mode_preprocess_train(p, im, draw, a, &err) : mode_preprocess_eval(p, im, a, &err);
    sb = mode__window_here(&half, f, &err);
    if (!sb) sb = mode__window_floats(b, &half, bytes, &err);
    if (sa != sb || (!sa && memcmp(a, b, sizeof a) != 0)) abort();
    for (int i = 0; !sa && i < 3 * S * S; i++)
        if (!isfinite(a[i])) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct mode_image_limits limits = {.max_pixels = 1 << 18, .max_side = 1 << 14, .max_bytes = 1 << 20};
    const struct mode_picture f = {.data = data, .size = size, .limits = &limits};
    struct mode_error err = {0};
    struct mode_image im;
    struct mode_preprocess p;
    int w = 0, h = 0;
    const enum mode_status head = mode__header_here(data, size, &w, &h, &err);
    if (head) refused(head, &err);
    memset(&err, 0, sizeof err);
    const bool whole = mode_image_is_whole(data, size);
    const enum mode_status st = mode__decode_here(&im, data, size, &limits, &err);
    mode_preprocess_default(&p, S);
    if (st) {
        uint8_t out[3 * S * S];
        struct mode_half half = {.p = &p, .to = out};
        refused(st, &err);
        if (im.rgb || mode__window_here(&half, &f, &err) == MODE_OK) abort();
        return 0;
    }
    if (head || im.width != w || im.height != h) abort();
    if (!whole && mode_image_sniff(data, size) == MODE_IMAGE_JPEG) abort(); /* mode pack would refuse it */
    p.resize_mode = (int)(size % 3);
    p.filter = (int)(size % 2);
    same(&f, &im, &p, NULL);
    same(&f, &im, &p, &(struct mode_crop_draw){.scale_min = 0.05, .scale_max = 1, .seed = size});
    mode_image_clear(&im);
    return 0;
}
