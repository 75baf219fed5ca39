/* mode - what a person types. `mode --help` lists the verbs, `mode <verb> --help` explains one.
 *
 * Results go to stdout, logs and progress to stderr. Exit codes: docs/FORMATS.md. */
#include "base/log.h"
#include "base/version.h"
#include "interrupt.h"
#include "verb.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
#define MODE_VERBS(X) \
    X(up) \
    X(down) \
    X(run) \
    X(status) \
    X(watch) \
    X(cancel) \
    X(drain) \
    X(reconcile) \
    X(experts) \
    X(doctor) \
    X(pack) \
    X(inspect) \
    X(captions) \
    X(preprocess) \
    X(tokenize) \
    X(embed) \
    X(cluster) \
    X(assign) \
    X(train) \
    X(encode) \
    X(convert) \
    X(evaluate) \
    X(weights) \
    X(ensemble) \
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
    printf("\n`mode <verb> --help` explains a verb; `mode --version` says what this is.\n");
}

int main(int argc, char **argv)
{
    struct mode_error err = {0};
    mode_log_open("mode");
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help();
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mode %s\n", MODE_VERSION);
        return 0;
    }
    for (size_t i = 0; verbs[i]; i++) {
        if (strcmp(verbs[i]->name, argv[1]) != 0) continue;
        enum mode_status st = verbs[i]->run(argc - 1, argv + 1, &err);
        if (st && err.text[0]) fprintf(stderr, "mode %s: %s\n", argv[1], err.text);
        if (st == MODE_E_STOPPED && interrupt_signal()) return interrupt_exit();
        return mode_status_exit_code(st);
    }
    fprintf(stderr, "mode: unknown verb \"%s\"; `mode --help` lists the verbs\n", argv[1]);
    return 2;
}
