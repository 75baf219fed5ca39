/* mode experts - lists the models of a workspace, from the last finished run. */
#include "base/file.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/str.h"
#include "msg/place.h"
#include "ranges.h"
#include "verb.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct experts_options {
    const char *workspace;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct experts_options, workspace, "workspace", ".", "DIR", "the workspace"),
    MODE_OPT_FLAG(struct experts_options, json, "json", "print JSON"), MODE_OPT_END};

static void print_models(json_t *root, const char *workspace)
{
    size_t i;
    json_t *m;
    char size[MODE_SIZE_TEXT];
    printf("%-12s %12s %10s %9s  %s\n", "name", "pairs", "size", "seconds", "folder (open_clip: local-dir:)");
    json_array_foreach(json_object_get(root, "models"), i, m)
    {
        const char *name = json_string_value(json_object_get(m, "name"));
        if (!name) continue;
        printf("%-12s %12lld %10s %9.1f  %s/experts/%s\n", name,
               (long long)json_integer_value(json_object_get(m, "rows_out")),
               mode_size_text(size, (uint64_t)json_integer_value(json_object_get(m, "bytes"))),
               json_number_value(json_object_get(m, "seconds")), workspace, name);
    }
}

static enum mode_status experts(int argc, char **argv, struct mode_error *err)
{
    struct experts_options o = {0};
    char *text = NULL;
    size_t size;
    int n_args;
    json_error_t why;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode experts [list] [options]",
                          "Lists the models of the workspace: the seed, the dense continuation and the experts.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    const int most = n_args > 0 && strcmp(argv[1], "list") == 0;
    if (st || (st = arguments_check(n_args, most, argv, "expected list or nothing", err))) return st;
    char *path = mode_xasprintf("%s/experts/index.json", o.workspace);
    st = mode_place_exists(o.workspace, err);
    if (!st && !mode_file_exists(path))
        st = MODE_FAIL(err, MODE_E_NOINPUT, "%s has no experts yet: no run has finished here", o.workspace);
    if (!st) st = mode_file_read(path, 64u << 20, &text, &size, err);
    if (!st) {
        json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
        if (!root)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s:%d: not JSON: %s", path, why.line, why.text);
        else if (!json_is_array(json_object_get(root, "models")))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: has no list \"models\"; a finished run writes one", path);
        else if (o.json)
            printf("%s\n", text);
        else
            print_models(root, o.workspace);
        json_decref(root);
    }
    free(path);
    free(text);
    return st;
}

const struct mode_verb mode_verb_experts = {"experts", "list the models of a workspace", experts};
