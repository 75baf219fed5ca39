/* mode keys - makes the CURVE keys for workers and people on other machines. */
#include "ranges.h"
#include "verb.h"

#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/str.h"
#include "msg/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct keys_options {
    const char *worker, *admin, *out;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct keys_options, worker, "worker", NULL, "NAME", "a key pair that lets a worker in"),
    MODE_OPT_STR(struct keys_options, admin, "admin", NULL, "NAME", "a key pair that lets the mode command in"),
    MODE_OPT_STR(struct keys_options, out, "out", NULL, "DIR",
                 "also copy NAME's pair and server.pub there, for the other machine"),
    MODE_OPT_END};

/* Copies the pair of `name` and the server's public key, nothing else, to a folder. */
static enum mode_status carry_away(const char *dir, const char *out, const char *name, struct mode_error *err)
{
    char *key = mode_xasprintf("%s.key", name), *pub = mode_xasprintf("%s.pub", name);
    const char *files[] = {key, pub, "server.pub"};
    enum mode_status st = mode_dir_make(out, err);
    for (int i = 0; i < 3 && !st; i++) {
        char *from = mode_path_join(dir, files[i]), *to = mode_path_join(out, files[i]);
        if (!(st = mode_file_copy(from, to, false, err)) && i == 0 && chmod(to, 0600) != 0)
            st = MODE_FAIL(err, MODE_E_PERM, "%s: the secret key cannot be made private", to);
        free(from);
        free(to);
    }
    free(key);
    free(pub);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct keys_options o = {0};
    int n_args;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode keys DIR [--worker NAME | --admin NAME] [--out DIR]",
                          "Makes the coordinator's key pair in DIR (an existing one is kept) and, for NAME, a pair "
                          "that its allow list accepts. Workers and people on other machines need <name>.key, "
                          "<name>.pub and server.pub: --out copies just these into a folder. DIR itself stays with the "
                          "coordinator. Nothing here is needed on one machine: its processes meet on private sockets.");
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err))) return st;
    if ((st = arguments_check(n_args, 1, argv, NULL, err)) ||
        (st = option_needed(n_args ? argv[1] : NULL, "a folder for keys", err)))
        return st;
    if (o.worker && o.admin) return MODE_FAIL(err, MODE_E_USAGE, "--worker and --admin need a call each");
    const char *dir = argv[1], *name = o.worker ? o.worker : o.admin;
    if (o.out && !name) return MODE_FAIL(err, MODE_E_USAGE, "--out needs --worker NAME or --admin NAME");
    if (name && mode_keys_check_name(name, err)) return err->status = MODE_E_USAGE;
    struct stat s; /* checked before any key is made */
    if (o.out && stat(o.out, &s) == 0 && !S_ISDIR(s.st_mode))
        return MODE_FAIL(err, MODE_E_CREATE, "--out %s: is not a folder", o.out);
    if (o.out && (st = mode_output_apart(o.out, &dir, 1, err))) return st;
    if ((st = mode_keys_generate(dir, err))) return st;
    if (name && (st = mode_keys_add(dir, name, o.worker ? MODE_ROLE_WORKER : MODE_ROLE_ADMIN, err))) return st;
    if (o.out && (st = carry_away(dir, o.out, name, err))) return st;
    printf("%s\n", o.out ? o.out : dir);
    return MODE_OK;
}

const struct mode_verb mode_verb_keys = {"keys", "make the keys that workers on other machines need", run};
