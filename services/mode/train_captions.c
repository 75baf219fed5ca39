#include "train_captions.h"

#include "base/file.h"
#include "base/options.h"
#include "fetching.h"
#include "interrupt.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum mode_status train_captions_selectors(struct mode_text_keys *keys, struct mode_text_key *blur,
                                          const struct train_captions_options *o, struct mode_error *err)
{
    struct mode_error why;
    if (mode_text_keys_parse(keys, &o->text_keys, 1, &why))
        return MODE_FAIL(err, MODE_E_USAGE, "--text-keys: %s", why.text);
    if (o->blur_faces && mode_face_key_parse(blur, o->blur_faces, &why))
        return MODE_FAIL(err, MODE_E_USAGE, "--blur-faces: %s", why.text);
    return MODE_OK;
}

struct extraction {
    size_t shard, n_shards;
    uint64_t rejected;
};

static bool on_extracted(void *ctx, uint64_t done, uint64_t total)
{
    struct extraction *x = ctx;
    if (isatty(2) || done == total)
        fprintf(stderr, "captions of shard %zu of %zu: %llu of %llu samples%s", x->shard + 1, x->n_shards,
                (unsigned long long)done, (unsigned long long)total, done == total ? "\n" : "\r");
    return !interrupt_signal();
}

static bool on_fetching(void *ctx, uint64_t done, uint64_t total)
{
    char what[64];
    const struct extraction *x = ctx;
    snprintf(what, sizeof what, "shard %zu of %zu", x->shard + 1, x->n_shards);
    return fetching_show(what, done, total);
}

static void on_reject(void *ctx, uint32_t sample, enum mode_fate fate, const char *why)
{
    (void)sample;
    (void)fate;
    (void)why;
    ((struct extraction *)ctx)->rejected++;
}

enum mode_status train_captions_extract(struct mode_stream_shard *to, struct train_folder *folder,
                                        const struct mode_shards *shards, const struct train_captions_options *o,
                                        uint64_t seed, bool resume, bool first, struct mode_error *err)
{
    struct extraction x = {.n_shards = shards->n};
    struct mode_captions_options co = {.limits = MODE_IMAGE_LIMITS_DEFAULT,
                                       .seed = seed,
                                       .progress = on_extracted,
                                       .reject = on_reject,
                                       .fetching = on_fetching,
                                       .ctx = &x};
    char *dir = mode_path_join(folder->path, "captions");
    uint64_t kept = 0;
    enum mode_status st = first ? mode_dir_make(dir, err) : MODE_OK;
    if (!st) st = train_captions_selectors(&co.keys, &co.blur, o, err);
    for (size_t i = 0; !st && i < shards->n; i++) {
        struct mode_captions c = {0};
        char *path = train_folder_captions(folder, i);
        folder->n_captions = i + 1;
        x.shard = i;
        co.shard_path = shards->shard[i].path;
        co.shard_name = shards->shard[i].name;
        co.shard_index = (uint32_t)i;
        to[i] = (struct mode_stream_shard){.captions = path, .tar = shards->shard[i].path};
        if (!first || (resume && mode_file_exists(path))) continue;
        st = mode_captions_extract(&c, path, &co, err);
        kept += c.n_rows;
        mode_captions_clear(&c);
    }
    if (!st && first && !resume)
        fprintf(stderr, "captions: %llu pairs, %llu samples not taken (`mode captions` tells why)\n",
                (unsigned long long)kept, (unsigned long long)x.rejected);
    free(dir);
    return st;
}
