/* mode convert - CLIP checkpoints between open_clip's and Hugging Face's folders. */
#include "base/file.h"
#include "base/options.h"
#include "base/str.h"
#include "hub.h"
#include "merges.h"
#include "models/clip_config.h"
#include "models/clip_folder.h"
#include "ranges.h"
#include "verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct options {
    const char *to, *config, *merges;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, to, "to", NULL, "FORMAT", "open_clip | hf"),
    MODE_OPT_STR(struct options, config, "config", NULL, "MODEL",
                 "when IN is a file of weights: ViT-B-32, ... or the path of a config in JSON"),
    MERGES_OPTION(struct options, merges), MODE_OPT_END};

static const char usage[] = "mode convert IN OUT --to open_clip|hf [options]";
static const char prose[] =
    "IN: an open_clip folder, a Hugging Face folder of a CLIPModel, one of these on the hub as hf-hub:ORG/NAME, or, "
    "with --config, a file: .safetensors, or .pt and .bin of torch.save (training checkpoints and TorchScript archives "
    "too), which are read without executing any code in them. OUT: a new folder that open_clip loads as local-dir:OUT, "
    "or transformers with CLIPModel.from_pretrained and CLIPProcessor. Values and dtypes are preserved, byte for byte.";

/* Reads the file given as --config: errors in it are configuration errors, as in `mode train`. */
static enum mode_status read_config(struct mode_clip_files *f, const char *path, struct mode_error *err)
{
    struct mode_clip_config c;
    struct mode_preprocess p;
    enum mode_status st = mode_clip_files_read(f, path, err);
    if (!st) st = mode_clip_config_parse(&c, f->model_cfg, path, err);
    if (!st) st = mode_clip_preprocess_parse(&p, f->preprocess_cfg, c.image_size, path, err);
    if (st == MODE_E_FORMAT || st == MODE_E_VALUE) {
        st = MODE_E_CONFIG;
        if (err) err->status = st;
    }
    return st;
}

static enum mode_status find(struct mode_clip_files *f, const char *in, const char *config, struct mode_error *err)
{
    struct stat s;
    if (stat(in, &s) != 0) return mode_input_fail(err, errno, in, "be opened");
    if (S_ISDIR(s.st_mode)) {
        if (config) return MODE_FAIL(err, MODE_E_USAGE, "--config goes with a file; %s is a folder with a config", in);
        return mode_clip_files_find(f, in, err);
    }
    if (!config)
        return MODE_FAIL(
            err, MODE_E_USAGE,
            "%s is a file of weights: --config MODEL must say which model (`mode train --help` on --config)", in);
    size_t n = strlen(config);
    enum mode_status st = MODE_OK;
    if (n > 5 && strcmp(config + n - 5, ".json") == 0) {
        st = read_config(f, config, err);
    } else {
        *f = (struct mode_clip_files){.config = mode_xstrdup(config), .model_cfg = mode_clip_config_by_name(config)};
        if (!f->model_cfg)
            st = MODE_FAIL(err, MODE_E_USAGE,
                           "--config: \"%s\" is not a known model; give open_clip's name of a plain ViT (ViT-B-32, "
                           "ViT-L-14-quickgelu) or the path of a config in JSON",
                           config);
    }
    if (!st) f->weights = mode_xstrdup(in);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_clip_files f = {0};
    char *note = NULL, *fetched = NULL;
    int n;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n, err);
    if (st || (st = arguments_check(n, 2, argv, NULL, err)) ||
        (st = option_needed(n == 2 ? argv[2] : NULL, n ? "OUT" : "IN", err)))
        return st;
    if ((st = option_needed(o.to, "--to hf (for transformers) or --to open_clip", err))) return st;
    bool hf = strcmp(o.to, "hf") == 0;
    if (!hf && strcmp(o.to, "open_clip") != 0)
        return MODE_FAIL(err, MODE_E_USAGE, "--to: \"%s\", expected open_clip or hf", o.to);
    if (hf && (st = merges_find(&o.merges, err))) return st;
    const char *in = argv[1];
    st = mode_hub_clip(&in, &fetched, err);
    if (!st) st = find(&f, in, o.config, err);
    if (!st) st = mode_clip_convert(argv[2], &f, hf ? MODE_CLIP_HF : MODE_CLIP_OPEN_CLIP, o.merges, &note, err);
    if (!st && note[0]) fprintf(stderr, "%s: %s\n", f.weights, note);
    if (!st) printf("%s: %s folder of %s\n", argv[2], hf ? "Hugging Face" : "open_clip", f.weights);
    free(note);
    free(fetched);
    mode_clip_files_clear(&f);
    return st;
}

const struct mode_verb mode_verb_convert = {"convert", "CLIP checkpoints: open_clip <-> Hugging Face, .pt in", run};
