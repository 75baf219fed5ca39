/* Any bytes as a model's configuration, open_clip's or Hugging Face's, with its preprocessing: an error sentence, or a
 * model with all values in range; and one that Hugging Face's config can express survives writing and reading. */
#include "models/clip_config.h"
#include "models/clip_hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tower(const struct mode_clip_tower_config *t)
{
    if (t->width < 1 || t->heads < 1 || t->layers < 1 || t->mlp < 1 || t->width % t->heads != 0) abort();
    if (!(t->ln_eps > 0)) abort();
}

static bool parse(struct mode_clip_config *c, const char *json)
{
    struct mode_error err = {0};
    if (mode_clip_config_parse(c, json, "fuzz", &err)) {
        if (!err.text[0]) abort();
        return false;
    }
    check_tower(&c->image);
    check_tower(&c->text);
    if (c->embed_dim < 1 || c->patch_size < 1 || c->image_size % c->patch_size != 0 || c->context_length < 1 ||
        c->vocab_size < 1)
        abort();
    return true;
}

static bool same_tower(const struct mode_clip_tower_config *a, const struct mode_clip_tower_config *b)
{
    return a->width == b->width && a->heads == b->heads && a->layers == b->layers && a->mlp == b->mlp &&
           a->act == b->act && a->ln_eps == b->ln_eps;
}

static void there_and_back(const struct mode_clip_config *c)
{
    struct mode_error err = {0};
    struct mode_clip_config again;
    char *theirs = NULL, *ours = NULL;
    if (c->vocab_size < 4) return; /* too small for the end token id of Hugging Face's config: refused when read */
    if (mode__clip_hf_config_write(&theirs, c, "fuzz", &err) == MODE_OK) {
        if (!mode__clip_hf_is(theirs)) abort();
        if (mode__clip_hf_config_read(&ours, theirs, "fuzz", &err) || !parse(&again, ours)) {
            fprintf(stderr, "%s\n%s\n", theirs, err.text);
            abort();
        }
        if (!same_tower(&c->image, &again.image) || !same_tower(&c->text, &again.text) ||
            c->embed_dim != again.embed_dim || c->image_size != again.image_size || c->patch_size != again.patch_size ||
            c->context_length != again.context_length || c->vocab_size != again.vocab_size)
            abort();
    }
    free(theirs);
    free(ours);
}

static void preprocessing(const char *json, int64_t side)
{
    struct mode_error err = {0};
    struct mode_preprocess p;
    if (mode_clip_preprocess_parse(&p, json, side, "fuzz", &err) == MODE_OK && p.size != side) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mode_error err = {0};
    struct mode_clip_config c;
    char *json = malloc(size + 1), *model = NULL, *preprocess = NULL;
    if (!json) abort();
    memcpy(json, data, size);
    json[size] = 0;
    if (mode__clip_hf_is(json)) {
        if (mode__clip_hf_config_read(&model, json, "fuzz", &err) == MODE_OK && parse(&c, model)) there_and_back(&c);
    } else if (mode_clip_config_split(&model, &preprocess, json, "fuzz", &err) == MODE_OK) {
        if (parse(&c, model)) {
            there_and_back(&c);
            preprocessing(preprocess, c.image_size);
        }
    }
    free(preprocess);
    preprocess = NULL;
    if (mode__clip_hf_preprocess_read(&preprocess, json, "fuzz", &err) == MODE_OK) preprocessing(preprocess, 224);
    free(preprocess);
    free(model);
    free(json);
    return 0;
}
