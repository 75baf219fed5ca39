/* Any bytes as the rows of a training: steps.jsonl and train.json, validation.jsonl, the file of a run that names its
 * validation tasks, TensorBoard's event file. The first byte chooses which. */
#include "data/tfevents.h"
#include "pipeline/board.h"
#include "pipeline/curves.h"
#include "pipeline/validation.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *put(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("rows", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    return path;
}

static void check_curve(const uint8_t *data, size_t size, bool as_train)
{
    struct mode_curve c;
    struct mode_error err = {0};
    const char *path = put(data, size);
    if (mode_curve_load(&c, "seed", as_train ? "/dev/null" : path, as_train ? path : NULL, &err)) {
        if (!err.text[0]) abort();
    } else {
        volatile double sum = mode_curve_number(&c, "final_loss");
        for (int i = 0; i < c.n; i++) sum = sum + c.step[i] + c.loss[i];
    }
    mode_curve_clear(&c);
}

static void check_results(const char *text, size_t size)
{
    struct mode_board_scalars all = {0};
    struct mode_str rows = {0};
    uint64_t step;
    json_t *row = json_loadb(text, size, 0, NULL);
    mode_board_metrics(&all, row);
    for (size_t i = 0; i < all.n; i++)
        if (strncmp(all.s[i].tag, "val/", 4) != 0) abort();
    mode_board_scalars_clear(&all);
    json_decref(row);
    mode_str_add(&rows, text, size);
    if (size && mode_validation_last(&step, &rows) && !memchr(rows.data, '{', rows.len)) abort();
    mode_str_clear(&rows);
}

static void check_options(const uint8_t *data, size_t size)
{
    struct mode_validation *v;
    struct mode_error err = {0};
    if (mode_validation_open_saved(&v, put(data, size), false, &err)) {
        if (!err.text[0]) abort();
        return;
    }
    mode_validation_close(&v);
}

static void check_events(const uint8_t *data, size_t size)
{
    static const struct mode_scalar loss = {"train/loss", 5.5};
    struct mode_tfevent e;
    size_t at = 0, before = 0;
    volatile uint8_t sum = 0;
    for (; mode_tfevents_next(&e, data, size, &at); before = at) {
        if (at <= before || at > size || e.record != data + before || e.size != at - before) abort();
        if (e.summary && e.n_summary) sum = (uint8_t)(sum + e.summary[0] + e.summary[e.n_summary - 1]);
        (void)mode_tfevents_says(&e, &loss, 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    uint8_t *copy = mode_xmalloc(size); /* its own allocation: ASan catches a read past the end */
    memcpy(copy, data + 1, size - 1);
    switch (data[0] % 5) {
    case 0: check_curve(copy, size - 1, false); break;
    case 1: check_curve(copy, size - 1, true); break;
    case 2: check_results((const char *)copy, size - 1); break;
    case 3: check_options(copy, size - 1); break;
    default: check_events(copy, size - 1); break;
    }
    free(copy);
    return 0;
}
