/* ask.h - shared by the verbs that use all experts of a finished run: the contents of experts/index.json, and the words
 * that decide the weights of the experts. */
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

/* type has a struct ask_options named ask and a struct router_options named router. The option for queries is defined
 * by the verb. */
#define ASK_OPTIONS(type)                                                                                              \
    MODE_OPT_STR(type, ask.classes, "classes", NULL, "FILE",                                                           \
                 "class names, one line per class (tabs between several names of one class)"),                         \
        MODE_OPT_STR(type, ask.templates, "templates", NULL, "FILE",                                                   \
                     "with --classes: texts with {c} for the class, one per line (default: {c} alone)")
#define ASK_ENCODER_OPTION(type)                                                                                       \
    MODE_OPT_STR(type, ask.encoder, "encoder", NULL, "DIR",                                                            \
                 "the encoder the centres were made with (default: the run's)")
#define ASK_ROUTER_OPTIONS(type)                                                                                       \
    ROUTER_OPTIONS(type, NULL,                                                                                         \
                   "paper | reference | uniform | coarse-centre | share (default: the run's, as for the next two)")

/* Checks the options and their combination: MODE_E_USAGE. */
enum mode_status ask_check(const struct ask_options *o, const struct router_options *router, struct mode_error *err);

struct ask {
    json_t *index;
    struct mode_evalset words;
    char *encoder;
};

/* The words as a task without pictures; empty if neither file is given. Close also after a failure. */
enum mode_status ask_words(struct mode_evalset *words, const struct ask_options *o, struct mode_error *err);
/* Fills s from the experts' folder and the options: experts, encoder, merges, words (NULL if neither classes nor
 * queries are given), router. They are valid as long as a. Close also after a failure. */
enum mode_status ask_open(struct ask *a, struct mode_predict_spec *s, const char *experts, const struct ask_options *o,
                          const struct router_options *router, struct mode_error *err);
/* Parts of ask_open, for callers that need only these: the index; the router options, with the run's in place of those
 * not given; the encoder, given or the run's, a folder or a name. Results are valid as long as a. */
enum mode_status ask_index(struct ask *a, const char *experts, struct mode_error *err);
struct router_options ask_router(const struct ask *a, const struct router_options *given);
enum mode_status ask_encoder(const char **encoder, const struct ask *a, const char *given, struct mode_error *err);
/* Returns st, unless a model of the folder was replaced or removed since ask_open: then the data may be of two runs,
 * and the result is MODE_E_TEMP. Added experts do not matter. */
enum mode_status ask_end(const struct ask *a, const char *experts, enum mode_status st, struct mode_error *err);
void ask_close(struct ask *a);
/* Prints weights [n] as a line on stderr; word: the word they belong to, NULL = all words. */
void ask_print_weights(const double *weight, int n, const char *word);

#endif
