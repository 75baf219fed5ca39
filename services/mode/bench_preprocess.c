/* mode bench preprocess - picture files to a model's input, as fast as it goes. */
#include "base/file.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "bench.h"
#include "data/image.h"
#include "verb.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct options {
    int64_t rounds, size;
    bool train;
};

static const struct mode_option table[] = {
    MODE_OPT_INT(struct options, size, "size", "224", "S", "input side, pixels"),
    MODE_OPT_FLAG(struct options, train, "train",
                  "the training transform (random crops of 0.9 to 1) instead of evaluation"),
    MODE_OPT_INT(struct options, rounds, "rounds", "5", "N", "times over all pictures, after one that is not counted"),
    MODE_OPT_END};

struct pictures {
    struct mode_preprocess p;
    const struct mode_mapping *files;
    float *out; /* [threads, 3, S, S] */
    bool train;
    pthread_mutex_t lock;
    int64_t failed; /* lowest that failed, or INT64_MAX */
    struct mode_error error;
};

static void one_picture(void *ctx, int64_t i, int thread)
{
    static const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct pictures *x = ctx;
    const struct mode_picture f = {.data = x->files[i].data, .size = x->files[i].size, .limits = &limits};
    const struct mode_crop_draw draw = {.scale_min = 0.9, .scale_max = 1, .sample = (uint64_t)i};
    struct mode_error err;
    float *out = x->out + (size_t)thread * 3 * (size_t)x->p.size * (size_t)x->p.size;
    const enum mode_status st = x->train ? mode_preprocess_train_file(&x->p, &f, &draw, out, &err)
                                         : mode_preprocess_eval_file(&x->p, &f, out, &err);
    if (!st) return;
    pthread_mutex_lock(&x->lock);
    if (i < x->failed) {
        x->failed = i;
        x->error = err;
    }
    pthread_mutex_unlock(&x->lock);
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
            "Decodes, resizes, crops and normalises every picture, --rounds times, with MODE_THREADS threads.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if (n_args == 0) return MODE_FAIL(err, MODE_E_USAGE, "expected picture files");
    if (o.rounds < 1 || o.size < 1 || o.size > 4096)
        return MODE_FAIL(err, MODE_E_USAGE, "--rounds must be at least 1, --size 1 to 4096");
    mode_preprocess_default(&x.p, (int)o.size);
    x.train = o.train;
    files = mode_xcalloc((size_t)n_args, sizeof *files);
    for (; n_open < n_args; n_open++)
        if ((st = mode_file_map(argv[n_open + 1], &files[n_open], err))) goto out;
    x.files = files;
    x.out = mode_xmalloc((size_t)mode_parallel_threads() * 3 * (size_t)o.size * (size_t)o.size * sizeof *x.out);
    for (int64_t round = 0; round <= o.rounds; round++) {
        const struct bench_clock since = bench_now();
        mode_parallel_for(n_args, one_picture, &x);
        if (x.failed != INT64_MAX) {
            if (err) *err = x.error;
            st = mode_error_prefix(err, x.error.status, "%s", argv[x.failed + 1]);
            goto out;
        }
        if (round > 0) bench_print("preprocess", "pictures", n_args, since);
    }
out:
    for (int i = 0; i < n_open; i++) mode_file_unmap(&files[i]);
    free(files);
    free(x.out);
    pthread_mutex_destroy(&x.lock);
    return st;
}

const struct mode_verb mode_bench_preprocess = {"preprocess", "picture files to a model's input", run};
