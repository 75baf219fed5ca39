/* ask.h - what the verbs share that use the experts of a finished run together: what experts/index.json says of that run,
 * and the words that decide how the experts are weighted. */
#ifndef MODE_SERVICES_MODE_ASK_H
#define MODE_SERVICES_MODE_ASK_H

#include "base/options.h"
#include "data/evalset.h"
#include "pipeline/predict.h"
#include "router_option.h"

#include <jansson.h>

struct ask_options {
    const char *classes, *templates, *queries; /* files, or NULL */
    const char *encoder, *merges;              /* NULL: the run's */
};

/* type has a struct ask_options named ask and a struct router_options named router. What it calls queries is the verb's
 * own. */
#define ASK_OPTIONS(type)                                                                                              \
    MODE_OPT_STR(type, ask.classes, "classes", NULL, "FILE",                                                           \
                 "class names, one a line (tabs between several of one class)"),                                       \
        MODE_OPT_STR(type, ask.templates, "templates", NULL, "FILE",                                                   \
                     "with --classes: texts with {c} for the class, one a line (default: {c} alone)")
#define ASK_ENCODER_OPTION(type)                                                                                       \
    MODE_OPT_STR(type, ask.encoder, "encoder", NULL, "DIR",                                                            \
                 "the encoder the centres were made with (default: the run's)")
#define ASK_ROUTER_OPTIONS(type)                                                                                       \
    ROUTER_OPTIONS(type, NULL,                                                                                         \
                   "paper | reference | uniform | coarse-centre | share (default: the run's, as of the next two)")

/* Options that make no sense, alone or together: MODE_E_USAGE. */
enum mode_status ask_check(const struct ask_options *o, const struct router_options *router, struct mode_error *err);

struct ask {
    json_t *index;
    struct mode_evalset words;
    char *encoder;
};

/* The words as a task without pictures; none where neither file is named. Close them also after a failure. */
enum mode_status ask_words(struct mode_evalset *words, const struct ask_options *o, struct mode_error *err);
/* Fills in s what the experts' folder and the options say: experts, encoder, merges, words (NULL where neither classes
 * nor queries are given), router. They live as long as a. Close also after a failure. */
enum mode_status ask_open(struct ask *a, struct mode_predict_spec *s, const char *experts, const struct ask_options *o,
                          const struct router_options *router, struct mode_error *err);
/* Parts of ask_open, for who needs no more: the index alone; of a router what is not given, as the run has it; the encoder
 * to ask for, given or the run's, a folder or a name. What they say lives as long as a. */
enum mode_status ask_index(struct ask *a, const char *experts, struct mode_error *err);
struct router_options ask_router(const struct ask *a, const struct router_options *given);
enum mode_status ask_encoder(const char **encoder, const struct ask *a, const char *given, struct mode_error *err);
/* What became of asking them, st, unless a model of the folder has been replaced or taken away since ask_open: then what
 * was read may be of two runs, and it is MODE_E_TEMP. Experts that came beside the others change nothing. */
enum mode_status ask_end(const struct ask *a, const char *experts, enum mode_status st, struct mode_error *err);
void ask_close(struct ask *a);
/* A line of weights [n] on stderr; word: whose they are, NULL = all words'. */
void ask_print_weights(const double *weight, int n, const char *word);

#endif
