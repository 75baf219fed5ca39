/* mode - the command line. `mode --help` lists the verbs, `mode <verb> --help` explains one.
 *
 * Results go to stdout, logs and progress to stderr. Exit codes: docs/FORMATS.md. */
#include "base/environment.h"
#include "base/log.h"
#include "base/options.h"
#include "base/str.h"
#include "base/version.h"
#include "interrupt.h"
#include "verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
#define MODE_VERBS(X) \
    X(init) \
    X(up) \
    X(down) \
    X(run) \
    X(status) \
    X(watch) \
    X(cancel) \
    X(drain) \
    X(reconcile) \
    X(gc) \
    X(experts) \
    X(pairs) \
    X(doctor) \
    X(pack) \
    X(inspect) \
    X(captions) \
    X(preprocess) \
    X(tokenize) \
    X(embed) \
    X(cluster) \
    X(assign) \
    X(select) \
    X(train) \
    X(encode) \
    X(convert) \
    X(evaluate) \
    X(probe) \
    X(overlap) \
    X(weights) \
    X(ensemble) \
    X(predict) \
    X(bench) \
    X(verify) \
    X(keys)

/* clang-format on */
#define X(name) extern const struct mode_verb mode_verb_##name;
MODE_VERBS(X)
#undef X

static const struct mode_verb *const verbs[] = {
#define X(name) &mode_verb_##name,
    MODE_VERBS(X)
#undef X
        NULL};

static void help(void)
{
    printf("usage: mode <verb> [options]\n\n"
           "CLIP data experts via clustering: shards in, experts, an ensemble and a report out.\n\nverbs:\n");
    for (size_t i = 0; verbs[i]; i++) printf("  %-12s %s\n", verbs[i]->name, verbs[i]->summary);
    printf("\n`mode <verb> --help` explains a verb; `mode --version` prints the version.\n");
}

/* Flushes stdout: buffered output may fail, for instance on a full disk. */
static int end(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    fprintf(stderr, "mode: writing stdout failed: %s\n", strerror(errno));
    return code ? code : mode_status_exit_code(MODE_E_IO);
}

int main(int argc, char **argv)
{
    struct mode_error err = {0};
    mode_log_open("mode");
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help();
        return end(argc < 2 ? 2 : 0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mode %s\n", mode_version);
        return end(0);
    }
    if (mode_environment_check(&err)) {
        fprintf(stderr, "mode: %s\n", err.text);
        return mode_status_exit_code(MODE_E_CONFIG);
    }
    for (size_t i = 0; verbs[i]; i++) {
        if (strcmp(verbs[i]->name, argv[1]) != 0) continue;
        enum mode_status st = mode_options_blame(verbs[i]->run(argc - 1, argv + 1, &err), &err, "MODE_", argc, argv);
        if (st && err.text[0]) fprintf(stderr, "mode %s: %s\n", argv[1], err.text);
        if (st == MODE_E_STOPPED && interrupt_signal()) return interrupt_exit();
        return end(mode_status_exit_code(st));
    }
    const char *near = NULL;
    size_t least = 3;
    for (size_t i = 0; verbs[i]; i++) {
        const size_t d = mode_str_distance(argv[1], verbs[i]->name);
        if (d >= least || d >= strlen(argv[1])) continue;
        least = d;
        near = verbs[i]->name;
    }
    fprintf(stderr, "mode: unknown verb \"%s\";%s%s%s `mode --help` lists the verbs\n", argv[1], near ? " is \"" : "",
            near ? near : "", near ? "\" meant?" : "");
    return 2;
}
