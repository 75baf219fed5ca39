/* mode bench preprocess - throughput from picture files to a model's input: on the CPU, with a device that resizes what
 * the CPU decodes, or the CPU's half of that alone. */
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "bench.h"
#include "bench_inputs.h"
#include "data/image.h"
#include "nn/backend.h"
#include "nn/ops.h"
#include "pipeline/windows.h"
#include "verb.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 256, SLOTS = 2 };

struct options {
    struct backend_options backend;
    int64_t rounds, size;
    bool train, decode;
};

static const struct mode_option table[] = {
    MODE_OPT_INT(struct options, size, "size", "224", "S", "input side, pixels"),
    MODE_OPT_BARE(struct options, train, "train",
                  "the training transform (random crops of 0.9 to 1) instead of evaluation"),
    MODE_OPT_FLAG(struct options, decode, "decode",
                  "stop where a GPU would take over: decoded and packed, not resized"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, rounds, "rounds", "5", "N",
                 "passes over all pictures, after a warm-up that is not counted"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("size", 1, 4096), RANGE_END};

struct pictures {
    struct mode_preprocess p;
    const struct mode_mapping *files;
    float *out; /* [threads, 3, S, S] */
    bool train;
    struct mode_backend *be;
    struct mode_windows *slot[SLOTS], *windows; /* NULL: on the CPU; the one in use */
    struct mode_tensor cols;                    /* on the device, of a batch; without data: --decode */
    int64_t first;                              /* first picture of the batch */
    pthread_mutex_t lock;
    int64_t failed; /* lowest that failed, or INT64_MAX */
    struct mode_error error;
};

static void one_picture(void *ctx, int64_t item, int thread)
{
    static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct pictures *x = ctx;
    const int64_t i = x->first + item;
    const struct mode_picture f = {.data = x->files[i].data, .size = x->files[i].size, .limits = &limits};
    const struct mode_crop_draw draw = {.scale_min = 0.9, .scale_max = 1, .sample = (uint64_t)i};
    struct mode_error err;
    float *out = x->out + (size_t)thread * 3 * (size_t)x->p.size * (size_t)x->p.size;
    enum mode_status st;
    if (x->windows)
        st = mode_windows_add(x->windows, item, &f, x->train ? &draw : NULL, &err);
    else if (x->train)
        st = mode_preprocess_train_file(&x->p, &f, &draw, out, &err);
    else
        st = mode_preprocess_eval_file(&x->p, &f, out, &err);
    if (!st) return;
    pthread_mutex_lock(&x->lock);
    if (i < x->failed) {
        x->failed = i;
        x->error = err;
    }
    pthread_mutex_unlock(&x->lock);
}

/* Resizes into the patch matrix of a model. */
static void resize(struct pictures *x, int64_t n)
{
    x->cols.dim[0] = n;
    mode_picture_patches(x->be, &x->cols, mode_windows_take(x->windows), 0, x->p.size, x->p.size);
    mode_windows_done(x->windows);
}

/* One pass over all pictures. A batch is decoded while the previous one is copied and resized. */
static void one_round(struct pictures *x, int64_t n)
{
    x->first = 0;
    if (!x->slot[0]) {
        mode_parallel_for(n, one_picture, x);
        return;
    }
    for (int turn = 0; x->first < n && x->failed == INT64_MAX; x->first += BATCH, turn = (turn + 1) % SLOTS) {
        const int64_t b = n - x->first < BATCH ? n - x->first : BATCH;
        x->windows = x->slot[turn];
        mode_windows_begin(x->windows);
        mode_parallel_for(b, one_picture, x);
        mode_windows_send(x->windows, b);
        if (x->cols.data && x->failed == INT64_MAX) resize(x, b);
    }
    mode_backend_sync(x->be);
}

static enum mode_status open_slots(struct pictures *x, int64_t n, bool decode, struct mode_error *err)
{
    double bytes = 0;
    const int64_t numbers = (int64_t)3 * x->p.size * x->p.size;
    enum mode_status st = MODE_OK;
    x->cols = mode_tensor_2d(NULL, mode_backend_activations(x->be), BATCH, numbers);
    if (!decode && !mode_backend_is_device(x->be)) return MODE_OK;
    for (int64_t i = 0; !st && i < n; i++) {
        int width, height;
        st = mode_image_header(x->files[i].data, x->files[i].size, &width, &height, err);
        if (!st) bytes += 3.0 * width * height;
    }
    if (!st && !decode) st = mode_backend_alloc(x->be, &x->cols.data, mode_tensor_bytes(&x->cols), err);
    for (int i = 0; !st && i < SLOTS; i++)
        st = mode_windows_open(&x->slot[i], x->be, &x->p, BATCH, mode_windows_average(bytes / (double)n, BATCH), err);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct pictures x = {.failed = INT64_MAX, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct mode_mapping *files = NULL;
    int n_args, n_open = 0;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_", "mode bench preprocess FILE... [options]",
            "Decodes, resizes, crops and normalises every picture, --rounds times, with MODE_THREADS threads.\n"
            "With a GPU the threads decode, and the GPU does the rest.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if (n_args == 0) return MODE_FAIL(err, MODE_E_USAGE, "picture files are needed");
    if ((st = ranges_check(&o, table, bench_ranges, err)) || (st = ranges_check(&o, table, ranges, err))) return st;
    if ((st = backend_open(&x.be, &o.backend, err))) return st;
    mode_preprocess_default(&x.p, (int)o.size);
    x.train = o.train;
    files = mode_xcalloc((size_t)n_args, sizeof *files);
    for (; n_open < n_args; n_open++)
        if ((st = mode_file_map(argv[n_open + 1], &files[n_open], err))) goto out;
    x.files = files;
    x.out = mode_xmalloc((size_t)mode_parallel_threads() * 3 * (size_t)o.size * (size_t)o.size * sizeof *x.out);
    if ((st = open_slots(&x, n_args, o.decode, err))) goto out;
    for (int64_t round = 0; round <= o.rounds; round++) {
        const struct bench_clock since = bench_now();
        one_round(&x, n_args);
        if (x.failed != INT64_MAX) {
            if (err) *err = x.error;
            st = mode_error_prefix(err, x.error.status, "%s", argv[x.failed + 1]);
            goto out;
        }
        if (round > 0) bench_print("preprocess", "pictures", n_args, since);
    }
    if (x.slot[0])
        fprintf(stderr, "%llu of them did not fit and were resized by the processor\n",
                (unsigned long long)(mode_windows_resized(x.slot[0]) + mode_windows_resized(x.slot[1])));
out:
    for (int i = 0; i < SLOTS; i++) mode_windows_close(&x.slot[i]);
    if (x.cols.data) mode_backend_free(x.be, x.cols.data);
    mode_backend_close(&x.be);
    for (int i = 0; i < n_open; i++) mode_file_unmap(&files[i]);
    free(files);
    free(x.out);
    pthread_mutex_destroy(&x.lock);
    return st;
}

const struct mode_verb mode_bench_preprocess = {"preprocess", "picture files to a model's input", run};
