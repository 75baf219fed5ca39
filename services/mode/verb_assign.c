#include "backend_option.h"
#include "base/options.h"
#include "base/output.h"
#include "cluster/centres.h"
#include "encoding.h"
#include "hub.h"
#include "pipeline/assign.h"
#include "pipeline/embed.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>

struct opts {
    struct backend_options backend;
    const char *features, *captions, *encoder, *centres, *out;
    int64_t only;
    bool json;
};
static const struct mode_option table[] = {
    MODE_OPT_STR(struct opts, features, "features", NULL, "FILE",
                 "text vectors of one shard (feat.safetensors of `mode embed`)"),
    MODE_OPT_STR(struct opts, captions, "captions", NULL, "FILE",
                 "or its captions (captions.bin of `mode captions`), which are embedded without writing the vectors"),
    MODE_OPT_STR(struct opts, encoder, "encoder", NULL, "DIR",
                 "with --captions: the encoder that the centres were made with, or its ORG/NAME[@REVISION] on the hub"),
    MODE_OPT_STR(struct opts, centres, "centres", "centres.safetensors", "FILE", "of `mode cluster`"),
    MODE_OPT_STR(struct opts, out, "out", "assign.safetensors", "FILE", "fine id and distance of every row"),
    MODE_OPT_INT(struct opts, only, "only", "-1", "K",
                 "search only the centres of coarse group K (for data added later); -1 = all"),
    BACKEND_OPTIONS(struct opts),
    MODE_OPT_FLAG(struct opts, json, "json", "print the result as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("only", MODE_ASSIGN_ANY, INT32_MAX), RANGE_END};

/* Checks that --only is a group of --centres. */
static enum mode_status check_group(const struct opts *o, struct mode_error *err)
{
    struct mode_centres c = {0};
    if (o->only == MODE_ASSIGN_ANY) return MODE_OK;
    enum mode_status st = mode_centres_load(&c, o->centres, err);
    if (!st && o->only >= c.n)
        st = MODE_FAIL(err, MODE_E_USAGE, "--only: %lld is out of range, %s has the coarse groups 0 to %d",
                       (long long)o->only, o->centres, c.n - 1);
    mode_centres_clear(&c);
    return st;
}

/* Uses the pooling and max_tokens that the centres were made with. */
static enum mode_status assign_captions(struct mode_assign_result *r, struct mode_backend *be, const struct opts *o,
                                        struct mode_error *err)
{
    struct mode_centres c = {0};
    struct mode_text_encoder *enc = NULL;
    char *dir = NULL;
    enum mode_status st = mode_centres_load(&c, o->centres, err);
    if (!st) st = mode_hub_encoder(&dir, o->encoder, err);
    if (!st) st = mode_text_encoder_open_as(&enc, be, dir, c.encoder_id, NULL, 0, err);
    if (!st)
        st = mode_assign_captions(r, be, o->out, enc, o->captions, o->centres, (int32_t)o->only, encoding_show, NULL,
                                  err);
    mode_text_encoder_close(&enc);
    mode_centres_clear(&c);
    free(dir);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct opts o = {0};
    int n_args;
    struct mode_assign_result r;
    struct mode_backend *be = NULL;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode assign (--features FILE | --captions FILE --encoder DIR) [options]",
                          "Gives every text vector, or every caption, the id of its nearest fine centre.");
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err))) return st;
    if ((st = arguments_check(n_args, 0, argv, "text vectors are --features FILE", err)) ||
        (st = option_needed(o.features ? o.features : o.captions, "--features FILE or --captions FILE", err)))
        return st;
    if (o.features && (o.captions || o.encoder))
        return MODE_FAIL(err, MODE_E_USAGE, "give either --features, or --captions with --encoder");
    if ((o.captions && (st = option_needed(o.encoder, "--encoder DIR", err))) ||
        (st = ranges_check(&o, table, ranges, err)) || (st = backend_check(&o.backend, err)) ||
        (st = mode_output_file(o.out, err)) ||
        (st = mode_output_apart(o.out, (const char *const[]){o.features, o.captions, o.centres}, 3, err)) ||
        (st = check_group(&o, err)))
        return st;
    if (!(st = backend_open(&be, &o.backend, err)))
        st = o.captions ? assign_captions(&r, be, &o, err)
                        : mode_assign_run(&r, be, o.out, o.features, o.centres, NULL, (int32_t)o.only, err);
    mode_backend_close(&be);
    if (st) return st;
    if (o.json)
        printf("{\"out\": \"%s\", \"rows\": %llu, \"nearer_elsewhere\": %llu}\n", o.out, (unsigned long long)r.rows,
               (unsigned long long)r.nearer_elsewhere);
    else
        printf("%s: %llu row%s assigned, %llu of them nearer to another group\n", o.out, (unsigned long long)r.rows,
               MODE_PLURAL(r.rows), (unsigned long long)r.nearer_elsewhere);
    return MODE_OK;
}

const struct mode_verb mode_verb_assign = {"assign", "text vectors or captions of a shard to fine centre ids", run};
