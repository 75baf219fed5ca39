/* options.h - one table defines the options of a program: flags, environment variables, defaults, help.
 *
 *     struct opts { const char *model; int64_t batch; bool raw; };
 *     static const struct mode_option table[] = {
 *         MODE_OPT_STR (struct opts, model, "model", NULL,  "DIR",  "open_clip folder"),
 *         MODE_OPT_INT (struct opts, batch, "batch", "256", "N",    "pairs in a batch"),
 *         MODE_OPT_FLAG(struct opts, raw,   "raw",          "rows are not normalised"),
 *         MODE_OPT_END};
 *
 * Every flag --some-name has an environment variable <prefix>SOME_NAME. Precedence: flag > environment > default.
 * Unknown flags and unparsable numbers are MODE_E_USAGE (environment: MODE_E_CONFIG) with the key named. "--name=value"
 * and "--name value" are both accepted; a flag is switched off by "--no-name". "--" ends the options. */
#ifndef MODE_BASE_OPTIONS_H
#define MODE_BASE_OPTIONS_H

#include "base/backend_name.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mode_option_type {
    MODE_OPTION_END,
    MODE_OPTION_STR,
    MODE_OPTION_INT,
    MODE_OPTION_REAL,
    MODE_OPTION_FLAG,
    MODE_OPTION_BARE
};

struct mode_option {
    enum mode_option_type type;
    const char *name;  /* kebab-case, without the dashes         */
    size_t offset;     /* of the field in the caller's struct: const char * | int64_t | double | bool */
    const char *value; /* default as text; NULL = none (NULL, 0, 0.0, false); -1 = none where 0 is a choice */
    const char *meta;  /* "DIR", "N": what help shows for the value */
    const char *help;
};

#define MODE_OPT_STR(type, field, name, value, meta, help)                                                             \
    {                                                                                                                  \
        MODE_OPTION_STR, name, offsetof(type, field), value, meta, help                                                \
    }
#define MODE_OPT_INT(type, field, name, value, meta, help)                                                             \
    {                                                                                                                  \
        MODE_OPTION_INT, name, offsetof(type, field), value, meta, help                                                \
    }
#define MODE_OPT_REAL(type, field, name, value, meta, help)                                                            \
    {                                                                                                                  \
        MODE_OPTION_REAL, name, offsetof(type, field), value, meta, help                                               \
    }
#define MODE_OPT_FLAG(type, field, name, help)                                                                         \
    {                                                                                                                  \
        MODE_OPTION_FLAG, name, offsetof(type, field), NULL, NULL, help                                                \
    }
/* A flag without an environment variable: for names that are options with a value in another program or verb. */
#define MODE_OPT_BARE(type, field, name, help)                                                                         \
    {                                                                                                                  \
        MODE_OPTION_BARE, name, offsetof(type, field), NULL, NULL, help                                                \
    }
/* --backend and --device, identical in every program that computes: a const char * and an int64_t. */
#define MODE_OPT_BACKEND(type, backend, device)                                                                        \
    MODE_OPT_STR(type, backend, "backend", "auto", "NAME", MODE_BACKENDS_HELP),                                        \
        MODE_OPT_INT(type, device, "device", "0", "N",                                                                 \
                     "index of the GPU among those visible to this process, from 0; above 0, auto requires a GPU")
#define MODE_OPT_END                                                                                                   \
    {                                                                                                                  \
        MODE_OPTION_END, NULL, 0, NULL, NULL, NULL                                                                     \
    }

/* Fill *out from defaults, environment (names prefixed with env_prefix, e.g. "MODE_") and argv[1..argc-1].
 * Positional arguments are moved, in order, to the front of argv: argv[1..*n_args]; the rest follows. Strings are
 * borrowed from argv, the environment or the table. --help is not handled here: see mode_options_wants_help. */
enum mode_status mode_options_parse(void *out, const struct mode_option *table, const char *env_prefix, int argc,
                                    char **argv, int *n_args, struct mode_error *err);
/* Prefixes the error text about an option's value with "--NAME: " and makes it MODE_E_USAGE; returns that. */
enum mode_status mode_option_wrong(struct mode_error *err, const char *name);
/* A wrong value may come from the environment. When a MODE_E_USAGE begins with the --NAME of an option that is not in
 * argv (after mode_options_parse) and whose environment variable is set, it becomes a MODE_E_CONFIG that names the
 * variable. Returns the status; any other than MODE_E_USAGE is left alone. */
enum mode_status mode_options_blame(enum mode_status st, struct mode_error *err, const char *env_prefix, int argc,
                                    char **argv);
bool mode_options_wants_help(int argc, char **argv);
/* Usage text on stdout: the usage line, the prose, then a row per option with default and environment variable, all in
 * lines of at most COLUMNS columns, else of the terminal's width up to 100. Line breaks of prose and help are kept; a
 * line that begins with a space is not broken. */
void mode_options_help(const struct mode_option *table, const char *env_prefix, const char *usage, const char *prose);

/* Strict: the whole text must be a number in range; MODE_E_VALUE otherwise; what names the value in the error. */
enum mode_status mode_parse_int(const char *text, const char *what, int64_t min, int64_t max, int64_t *out,
                                struct mode_error *err);
enum mode_status mode_parse_real(const char *text, const char *what, double *out, struct mode_error *err);

#endif
