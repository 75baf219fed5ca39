#include "fetching.h"

#include "base/memory.h"
#include "base/str.h"
#include "interrupt.h"
#include "pipeline/sources.h"

#include <stdio.h>
#include <unistd.h>

bool fetching_show(const char *what, uint64_t done, uint64_t total)
{
    char have[MODE_SIZE_TEXT], of[MODE_SIZE_TEXT];
    if (isatty(STDERR_FILENO)) /* \033[K clears the rest of a longer line */
        fprintf(stderr, "fetching %s: %s of %s\033[K%s", what, mode_size_text(have, done), mode_size_text(of, total),
                done == total ? "\n" : "\r");
    return !interrupt_signal();
}

static bool show_one(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    return fetching_show("the shard", done, total);
}

enum mode_status fetching_file(struct mode_shard_file *f, char *named, struct mode_error *err)
{
    struct mode_shards shards = {0};
    const struct mode_remote_watch watch = {.going = show_one};
    *f = (struct mode_shard_file){.hold = -1};
    if (!mode_remote_is(named)) {
        f->path = mode_xstrdup(named);
        return MODE_OK;
    }
    enum mode_status st = mode_sources_expand(&shards, &named, 1, ".", err);
    if (!st) st = mode_shards_look(&shards, err);
    if (!st && shards.n != 1) st = MODE_FAIL(err, MODE_E_USAGE, "%s: names %zu shards, expected one", named, shards.n);
    if (!st) st = mode_shard_hold(f, shards.shard[0].path, &watch, err);
    mode_shards_clear(&shards);
    return st;
}
