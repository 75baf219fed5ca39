/* Reads pictures as training does, without training: pictures per second, and how many shards a batch is drawn from.
 * From the build folder:
 *
 *     cmake --build . --target reading-bench
 *     MODE_CLIP_MERGES=FILE bin/reading-bench NEAR FAR SCRATCH WINDOW BATCH STEPS
 *
 * NEAR: a folder of shards, from which captions are extracted, once, into the folder SCRATCH. FAR: the same shards, as
 * a source (they may be behind http://). WINDOW: shards per window; 0: the order is one permutation of all pairs.
 * Pictures are read, decoded, cropped to 32 pixels and their captions tokenised. bench/cpu/reading.sh runs this against
 * a server with high latency. */
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "pipeline/captions.h"
#include "pipeline/sources.h"
#include "pipeline/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, CONTEXT = 77 };

static void need(enum mode_status st, const struct mode_error *err)
{
    if (!st) return;
    fprintf(stderr, "%s\n", err->text);
    exit(mode_status_exit_code(st));
}

static void list(struct mode_shards *to, const char *source)
{
    struct mode_error err;
    char *text = mode_xstrdup(source);
    need(mode_sources_expand(to, &text, 1, ".", &err), &err);
    need(mode_shards_look(to, &err), &err);
    free(text);
}

/* Captions of the near shards, with the names of the far ones; *row_end: where each shard's rows end. */
static struct mode_stream_shard *make_shards(uint32_t **row_end, const struct mode_shards *near,
                                             const struct mode_shards *far, const char *scratch)
{
    struct mode_error err;
    struct mode_captions_options o = {.limits = MODE_IMAGE_LIMITS_DEFAULT};
    need(mode_text_keys_parse(&o.keys, NULL, 0, &err), &err);
    need(mode_dir_make(scratch, &err), &err);
    struct mode_stream_shard *shards = mode_xcalloc(near->n, sizeof *shards);
    *row_end = mode_xcalloc(near->n, sizeof **row_end);
    for (size_t i = 0; i < near->n; i++) {
        struct mode_captions c;
        char *path = mode_xasprintf("%s/%zu.bin", scratch, i);
        o.shard_path = near->shard[i].path;
        need(mode_file_exists(path) ? mode_captions_load(&c, path, &err) : mode_captions_extract(&c, path, &o, &err),
             &err);
        (*row_end)[i] = (i ? (*row_end)[i - 1] : 0) + c.n_rows;
        shards[i] = (struct mode_stream_shard){.captions = path, .tar = far->shard[i].path};
        mode_captions_clear(&c);
    }
    return shards;
}

/* Distinct shards per batch, averaged over the steps, and 1 / the probability that two of its pairs share a shard. */
static void tell_mix(const uint32_t *row_end, size_t n_shards, uint32_t window, uint32_t batch, uint64_t steps)
{
    struct mode_pool p;
    struct mode_error err;
    uint32_t *rows = mode_xmalloc(batch * sizeof *rows), *epochs = mode_xmalloc(batch * sizeof *epochs);
    double different = 0, alike = 0, worst = 0;
    need(mode_pool_init(&p, row_end[n_shards - 1], NULL, MODE_POOL_ALL, 0, 0, &err), &err);
    if (window) need(mode_pool_by_windows(&p, (uint32_t)n_shards, row_end, window, &err), &err);
    for (uint64_t step = 0; step < steps; step++) {
        uint64_t *of = mode_xcalloc(n_shards, sizeof *of), pairs = 0;
        mode_pool_draw(&p, step * batch, batch, rows, epochs);
        for (uint32_t i = 0; i < batch; i++) {
            size_t s = 0;
            while (row_end[s] <= rows[i]) s++;
            pairs += 2 * of[s];
            different += of[s]++ == 0;
        }
        const double same = (double)pairs / ((double)batch * (batch - 1));
        alike += same;
        if (same > worst) worst = same;
        free(of);
    }
    printf(
        "  a batch of %u: pairs from %.1f shards; two pairs share one with probability 1 / %.1f, at worst 1 / %.1f\n",
        batch, different / (double)steps, (double)steps / alike, 1 / worst);
    mode_pool_clear(&p);
    free(rows);
    free(epochs);
}

int main(int argc, char **argv)
{
    struct mode_shards near = {0}, far = {0};
    struct mode_stream *stream = NULL;
    struct mode_tokenizer *tokenizer = NULL;
    struct mode_batch batch = {0};
    struct mode_error err;
    uint32_t *row_end;
    const char *merges = getenv("MODE_CLIP_MERGES");
    if (argc != 7 || !merges) {
        fprintf(stderr, "usage: MODE_CLIP_MERGES=FILE reading-bench NEAR FAR SCRATCH WINDOW BATCH STEPS\n");
        return 2;
    }
    const uint32_t window = (uint32_t)strtoul(argv[4], NULL, 10), size = (uint32_t)strtoul(argv[5], NULL, 10);
    const uint64_t steps = strtoull(argv[6], NULL, 10);
    list(&near, argv[1]);
    list(&far, argv[2]);
    if (near.n != far.n) {
        fprintf(stderr, "%zu shards near, %zu far\n", near.n, far.n);
        return 2;
    }
    struct mode_stream_shard *shards = make_shards(&row_end, &near, &far, argv[3]);
    need(mode_tokenizer_open_clip(&tokenizer, merges, MODE_CLIP_CLEAN_OPENAI, &err), &err);
    struct mode_stream_options o = {.n_shards = far.n,
                                    .shards = shards,
                                    .expert = MODE_POOL_ALL,
                                    .scale_min = 0.9,
                                    .scale_max = 1,
                                    .window_shards = window,
                                    .samples = steps * size,
                                    .context = CONTEXT,
                                    .tokenizer = tokenizer};
    mode_preprocess_default(&o.preprocess, SIDE);
    const double began = mode_clock_s();
    need(mode_stream_open(&stream, &o, &err), &err);
    if (mode_stream_warning(stream)) fprintf(stderr, "%s\n", mode_stream_warning(stream));
    need(mode_batch_init(&batch, size, SIDE, CONTEXT, &err), &err);
    double first = 0;
    for (uint64_t step = 0; step < steps; step++) {
        need(mode_stream_fill(stream, &batch, step, &err), &err);
        if (step == 0) first = mode_clock_s() - began;
    }
    const double seconds = mode_clock_s() - began;
    printf("%s %u: %llu pictures in %.1f s, %.0f per second; the first batch after %.2f s\n",
           window ? "windows of" : "shuffle", window, (unsigned long long)(steps * size), seconds,
           (double)(steps * size) / seconds, first);
    tell_mix(row_end, far.n, window, size, steps);
    mode_stream_close(&stream);
    mode_batch_clear(&batch);
    mode_tokenizer_close(&tokenizer);
    for (size_t i = 0; i < far.n; i++) free((char *)(uintptr_t)shards[i].captions);
    free(shards);
    free(row_end);
    mode_shards_clear(&near);
    mode_shards_clear(&far);
    return 0;
}
