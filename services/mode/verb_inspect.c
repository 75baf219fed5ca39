/* mode inspect - shows what is in a file. */
#include "base/file.h"
#include "base/options.h"
#include "fetching.h"
#include "pipeline/inspect.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
    const char *text_keys;
    int64_t first;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_INT(struct options, first, "first", "3", "N", "number of samples, tensors or words to show"),
    MODE_OPT_STR(struct options, text_keys, "text-keys", MODE_TEXT_KEYS_DEFAULT, "LIST",
                 "shards: where captions are, separated by \";\""),
    MODE_OPT_FLAG(struct options, json, "json", "print JSON, one object per file"), MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("first", 0, UINT32_MAX), RANGE_END};

static const char usage[] = "mode inspect FILE... [options]";
static const char prose[] =
    "Shows what a file holds and what is wrong with it: a tar shard (a path or an address; every picture is decoded), "
    "a captions.bin, a safetensors file, a picture, or the folder of an evaluation task. The kind is detected from the "
    "content. Of a shard with JSON, json_fields lists what --text-keys may name: in how many of the first 1,000 JSON "
    "members, and an example.";

static void print_scalar(const json_t *v)
{
    char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    printf("%s", text ? text : json_string_value(v));
    free(text);
}

static void print_list(json_t *v)
{
    json_t *item;
    size_t i;
    json_array_foreach(v, i, item)
    {
        printf("%s", !i ? " " : json_is_string(item) ? ", " : " ");
        print_scalar(item);
    }
    putchar('\n');
}

/* "key value"; objects are indented below their key, lists of plain values are printed on one line */
static void print_object(json_t *v, int depth)
{
    const char *key;
    json_t *child, *item;
    size_t i;
    json_object_foreach(v, key, child)
    {
        printf("%*s%-*s", 2 * depth, "", 22 - 2 * depth, key);
        if (json_is_array(child) && json_is_object(json_array_get(child, 0))) {
            json_array_foreach(child, i, item)
            {
                putchar('\n');
                print_object(item, depth + 1);
            }
        } else if (json_is_array(child)) {
            print_list(child);
        } else if (json_is_object(child)) {
            putchar('\n');
            print_object(child, depth + 1);
        } else {
            putchar(' ');
            print_scalar(child);
            putchar('\n');
        }
    }
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_text_keys keys;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    struct mode_error why;
    if (st) return st;
    if (mode_text_keys_parse(&keys, &o.text_keys, 1, &why))
        return MODE_FAIL(err, MODE_E_USAGE, "--text-keys: %s", why.text);
    if ((st = option_needed(n_args ? argv[1] : NULL, "FILE", err)) || (st = ranges_check(&o, table, ranges, err)))
        return st;
    for (int i = 1; !st && i <= n_args; i++) {
        json_t *v;
        struct mode_shard_file file;
        if (!(st = fetching_file(&file, argv[i], err)) &&
            (st = mode_inspect(&v, file.path, &keys, (uint32_t)o.first, err)))
            mode_error_rename(err, file.path, argv[i]);
        mode_shard_release(&file);
        if (st) break;
        if (mode_remote_is(argv[i]) && json_object_get(v, "shard")) /* not the name of its cached copy */
            json_object_set_new(v, "shard", json_string(mode_path_base(argv[i])));
        json_object_set_new(v, "file", json_string(argv[i]));
        if (o.json) {
            char *text = json_dumps(v, JSON_COMPACT | JSON_REAL_PRECISION(6));
            puts(text);
            free(text);
        } else {
            printf("%s: %s\n", argv[i], json_string_value(json_object_get(v, "kind")));
            json_object_del(v, "kind");
            json_object_del(v, "file");
            print_object(v, 1);
        }
        json_decref(v);
    }
    return st;
}

const struct mode_verb mode_verb_inspect = {"inspect", "show what is in a shard, captions, safetensors or task", run};
