#include "fates.h"

#include "remote/address.h"

#include <stdio.h>
#include <stdlib.h>

void fates_add(struct mode_str *s, const uint64_t fate[MODE_FATE_COUNT])
{
    bool more = false;
    for (int f = MODE_FATE_KEPT + 1; f < MODE_FATE_COUNT; f++) {
        if (!fate[f]) continue;
        mode_str_printf(s, "%s%llu %s", more ? ", " : "", (unsigned long long)fate[f],
                        mode_fate_name((enum mode_fate)f));
        more = true;
    }
}

const char *fates_hint(const uint64_t fate[MODE_FATE_COUNT])
{
    /* pictures and captions in separate places of the tar give incomplete samples whose key reappears */
    if (fate[MODE_FATE_DUPLICATE_KEY])
        return " HINT: the members of a sample must follow one another in the tar, as `tar --sort=name` writes them";
    if (fate[MODE_FATE_NO_CAPTION] > fate[MODE_FATE_NO_IMAGE])
        return " HINT: captions are looked for where --text-keys says (several are separated by \";\"); `mode inspect` "
               "lists "
               "a shard's members and JSON fields";
    if (fate[MODE_FATE_NO_IMAGE]) return " HINT: pictures are members that end in .jpg, .jpeg, .png or .webp";
    return "";
}

static void add_hint(struct mode_error *err)
{
    char *text = mode_captions_bad_hint(err->text, "--" SKIP_BAD_SHARDS);
    snprintf(err->text, sizeof err->text, "%s", text);
    free(text);
}

static enum mode_status report_skipped(const char *path, const char *why, uint64_t *n_bad, uint64_t n_shards,
                                       struct mode_error *err)
{
    char *name = mode_xasprintf("%.*s", (int)mode_remote_pin_at(path), path);
    fprintf(stderr, "%s is skipped: %s\n", name, why);
    const enum mode_status st = mode_captions_check_bad(++*n_bad, n_shards, "the sources", name, why, err);
    free(name);
    return st;
}

enum mode_status fates_bad_shard(const char *path, bool skip_bad, uint64_t *n_bad, uint64_t n_shards,
                                 struct mode_error *err)
{
    const enum mode_status st = err->status;
    if (!skip_bad) {
        add_hint(err);
        return st;
    }
    char *why = mode_captions_bad_reason(err, path);
    const enum mode_status enough = report_skipped(path, why, n_bad, n_shards, err);
    free(why);
    return enough;
}

enum mode_status fates_extract(struct mode_captions *c, const char *out_path, const struct mode_captions_options *o,
                               uint64_t *n_bad, uint64_t n_shards, struct mode_error *err)
{
    enum mode_status st = mode_captions_extract(c, out_path, o, err);
    if (st == MODE_E_FORMAT && !o->skip_bad) add_hint(err);
    return st || !c->bad ? st : report_skipped(o->shard_path, c->bad, n_bad, n_shards, err);
}
