/* Any bytes as the other members of a shard's sample: a .json with captions and face boxes, a .npy of labels, a caption
 * before it is tokenized. The first byte chooses which. */
#include "data/face_boxes.h"
#include "data/npy.h"
#include "data/sample_json.h"
#include "data/text_clean.h"
#include "data/utf8.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WIDTH = 640, HEIGHT = 480, LABELS = 8 };

static void check_boxes(const json_t *v)
{
    struct mode_box *boxes;
    uint32_t n;
    char why[MODE_WHY_BYTES] = "";
    if (!mode_face_boxes(&boxes, &n, v, WIDTH, HEIGHT, why, sizeof why)) {
        if (!why[0]) abort();
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (boxes[i].x0 >= boxes[i].x1 || boxes[i].x1 > WIDTH || boxes[i].y0 >= boxes[i].y1 || boxes[i].y1 > HEIGHT)
            abort();
    free(boxes);
}

static void check_json(const uint8_t *data, size_t size)
{
    json_t *root, *v;
    const char *key;
    char why[MODE_WHY_BYTES] = "";
    const enum mode_fate fate = mode_sample_json(&root, (const char *)data, size, why);
    if ((fate == MODE_FATE_KEPT) != json_is_object(root) || (fate != MODE_FATE_KEPT && !why[0])) abort();
    json_object_foreach(root, key, v) check_boxes(v);
    json_decref(root);
}

static void check_npy(const uint8_t *data, size_t size)
{
    int32_t flag[LABELS];
    struct mode_error err = {0};
    for (int64_t n = 1; n <= LABELS; n += LABELS - 1) {
        if (mode_npy_read_flags(flag, n, data, size, "fuzz", &err)) {
            if (!err.text[0]) abort();
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            if (flag[i] != 0 && flag[i] != 1) abort();
    }
}

static void check_text(const uint8_t *data, size_t size)
{
    void (*const clean[])(struct mode_runes *) = {mode_text_clean_openai, mode_text_clean_hf};
    for (size_t k = 0; k < 2; k++) {
        struct mode_runes r = {0};
        mode_runes_from_utf8(&r, (const char *)data, size);
        clean[k](&r);
        mode_runes_clear(&r);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    uint8_t *copy = mode_xmalloc(size); /* its own allocation: ASan catches a read past the end */
    memcpy(copy, data + 1, size - 1);
    switch (data[0] % 4) {
    case 0: check_npy(copy, size - 1); break;
    case 1: check_text(copy, size - 1); break;
    default: check_json(copy, size - 1); break;
    }
    free(copy);
    return 0;
}
