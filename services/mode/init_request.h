/* init_request.h - what `mode init` was asked for, and the parts of a spec that both of its forms write. */
#ifndef MODE_SERVICES_MODE_INIT_REQUEST_H
#define MODE_SERVICES_MODE_INIT_REQUEST_H

#include "base/error.h"
#include "spec_text.h"

#include <stdint.h>

#define INIT_MODEL   "ViT-B-32"
#define INIT_ENCODER "princeton-nlp/sup-simcse-bert-base-uncased" /* the paper's */
#define INIT_EXPERTS "4"

struct init_request {
    const char *data, *name, *model, *encoder, *tasks, *precision; /* NULL: not given */
    int64_t experts;
    const char *out; /* NULL: stdout */
    char *here;      /* the current folder, if the spec is written to another one; else NULL */
};

/* A path relative to the current folder, as the spec names it: absolute if the spec is in another folder. The caller
 * frees. */
char *init_path(const struct init_request *r, const char *path);
/* The same for a source of shards with its `::`, lists and addresses, in quotes if YAML needs them. */
char *init_source(const struct init_request *r, const char *source);
/* A valid name of a run, from any text; the caller frees. */
char *init_name(const char *text);
/* What a run on this source is called by default: the last folder of its path; the caller frees. */
char *init_name_of(const char *source);

/* What to call next, as comments. first: lines of commands to begin with, or NULL; gpus: for each model. */
void init_write_next(struct spec_text *t, const struct init_request *r, const char *first, uint64_t gpus);
void init_write_encoder(struct spec_text *t, const struct init_request *r);
/* fine 0: the default. */
void init_write_cluster(struct spec_text *t, const struct init_request *r, uint64_t fine, const char *why);
/* An example if there are no tasks. */
void init_write_tasks(struct spec_text *t, const char *tasks, const char *comment);

#endif
