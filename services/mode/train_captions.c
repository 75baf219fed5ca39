#include "train_captions.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/options.h"
#include "fates.h"
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
    double last_line;
};

static bool on_extracted(void *ctx, uint64_t done, uint64_t total)
{
    struct extraction *x = ctx;
    const double now = mode_clock_s();
    const bool last = done == total && x->shard + 1 == x->n_shards;
    /* limits the number of lines for thousands of shards */
    if (isatty(2) ? done == total || now - x->last_line > 0.1 : last || (done == total && now - x->last_line > 30)) {
        x->last_line = now;
        fprintf(stderr, "captions of shard %zu of %zu: %llu of %llu sample%s%s", x->shard + 1, x->n_shards,
                (unsigned long long)done, (unsigned long long)total, MODE_PLURAL(total),
                last || !isatty(2) ? "\n" : "   \r");
    }
    return !interrupt_signal();
}

static bool on_fetching(void *ctx, uint64_t done, uint64_t total)
{
    char what[64];
    const struct extraction *x = ctx;
    snprintf(what, sizeof what, "shard %zu of %zu", x->shard + 1, x->n_shards);
    return fetching_show(what, done, total);
}

/* Reports kept and rejected samples; fails if no pair was kept. */
static enum mode_status conclude(const uint64_t fate[MODE_FATE_COUNT], const char *text_keys, struct mode_error *err)
{
    struct mode_str lost = {0};
    uint64_t samples = 0;
    enum mode_status st = MODE_OK;
    for (int f = 0; f < MODE_FATE_COUNT; f++) samples += fate[f];
    fates_add(&lost, fate);
    if (fate[MODE_FATE_KEPT])
        fprintf(stderr, "captions: %llu pair%s of %llu sample%s%s%s\n", (unsigned long long)fate[MODE_FATE_KEPT],
                MODE_PLURAL(fate[MODE_FATE_KEPT]), (unsigned long long)samples, MODE_PLURAL(samples),
                lost.len ? "; not taken: " : "", lost.len ? lost.data : "");
    else
        st = MODE_FAIL(err, MODE_E_VALUE, "the shards hold no pair to train on: %llu sample%s%s%s (--text-keys %s).%s",
                       (unsigned long long)samples, MODE_PLURAL(samples), lost.len ? ", " : "",
                       lost.len ? lost.data : "", text_keys, fates_hint(fate));
    mode_str_clear(&lost);
    return st;
}

/* By the training that is gone on with. A file that cannot be read is an error of whoever needs it. */
static bool was_left_out(const char *path)
{
    struct mode_captions c;
    struct mode_error err;
    const bool bad = mode_captions_load(&c, path, &err) == MODE_OK && c.bad;
    mode_captions_clear(&c);
    return bad;
}

enum mode_status train_captions_extract(struct mode_stream_shard *to, struct train_folder *folder,
                                        const struct mode_shards *shards, const struct train_captions_options *o,
                                        uint64_t seed, bool resume, bool first, struct mode_error *err)
{
    struct extraction x = {.n_shards = shards->n};
    struct mode_captions_options co = {.limits = MODE_IMAGE_LIMITS_DEFAULT,
                                       .seed = seed,
                                       .skip_bad = o->skip_bad,
                                       .progress = on_extracted,
                                       .fetching = on_fetching,
                                       .ctx = &x};
    char *dir = mode_path_join(folder->path, "captions");
    uint64_t fate[MODE_FATE_COUNT] = {0}, n_bad = 0;
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
        if (!first) continue;
        if (resume && mode_file_exists(path)) {
            n_bad += was_left_out(path);
            continue;
        }
        st = fates_extract(&c, path, &co, &n_bad, shards->n, err);
        for (int f = 0; !st && f < MODE_FATE_COUNT; f++) fate[f] += c.fate_count[f];
        mode_captions_clear(&c);
    }
    if (!st && first && !resume) st = conclude(fate, o->text_keys, err);
    free(dir);
    return st;
}
