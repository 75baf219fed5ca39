/* mode-demo-data - builds the demo's training shards and evaluation sets from Debian packages.
 *
 *     mode-demo-data --packages CACHE_DIR --out OUT_DIR --profile full|smoke
 *
 * What it uses and what it leaves out is described in deploy/demo/README.md and counted in OUT_DIR/SOURCES.md. The same
 * packages give the same bytes, for any number of threads. */
#include "data/items.h"
#include "data/leaks.h"
#include "data/render.h"
#include "data/smoke.h"
#include "data/write.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/options.h"
#include "base/parallel.h"

#include <libxml/parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct opts {
    const char *packages, *out, *profile;
    bool without_tuxpaint;
};
static const struct mode_option table[] = {
    MODE_OPT_STR(struct opts, packages, "packages", NULL, "DIR", "folder that deploy/demo/packages.sh filled"),
    MODE_OPT_STR(struct opts, out, "out", NULL, "DIR", "folder to fill: train/, eval/, SOURCES.md"),
    MODE_OPT_STR(struct opts, profile, "profile", "full", "WORD", "full, or smoke: about 2,500 pairs, small sets"),
    MODE_OPT_FLAG(struct opts, without_tuxpaint, "without-tuxpaint", "leave Tux Paint's stamps out (3 + 1 sets less)"),
    MODE_OPT_END};
/* Version of the output. Raise it with every change that affects a byte of it: data of another version are rebuilt
 * (deploy/demo/data.sh), data of this one are kept. */
#define MODE_DEMO_DATA_VERSION 2

#define ENV   "MODE_DEMO_"
#define USAGE "mode-demo-data --packages DIR --out DIR [--profile full|smoke]"
#define PROSE                                                                                                          \
    "Builds image-caption shards and evaluation sets from the pictures of Debian packages.\n"                          \
    "Exit codes: 0 done, 2 wrong usage, 66 a package is missing, 73 and 74 output cannot be written."

static enum mode_status collect(struct mode_demo_set *set, const char *root, bool tuxpaint, struct mode_error *err)
{
    enum mode_status st = mode_demo_openclipart(set, root, err);
    if (st == MODE_OK) st = mode_demo_emoji(set, root, err);
    if (st == MODE_OK) st = mode_demo_icons(set, root, err);
    if (st == MODE_OK) st = mode_demo_flags(set, root, err);
    if (st == MODE_OK && tuxpaint) st = mode_demo_tuxpaint(set, root, err);
    return st;
}

/* Before and after rendering: drops pictures without words or, on the held-out side, without a task. */
static void drop_useless(struct mode_demo_set *set)
{
    for (int64_t i = 0; i < set->n; i++) {
        struct mode_demo_item *it = &set->items[i];
        if (it->fate != MODE_DEMO_KEPT) continue;
        bool in_task = false;
        for (int t = 0; t < MODE_DEMO_TASKS; t++) in_task |= it->label[t] != NULL;
        if (!it->texts.n)
            it->fate = MODE_DEMO_NO_WORDS;
        else if (it->held && !in_task)
            it->fate = MODE_DEMO_NO_TASK;
    }
}

static void render_one(void *ctx, int64_t i, int thread)
{
    (void)thread;
    struct mode_demo_item *it = &((struct mode_demo_set *)ctx)->items[i];
    if (it->fate == MODE_DEMO_KEPT) mode_demo_render(it);
}

/* Text inside drawings uses the packages' own font and English, whatever this machine has: the same packages give the
 * same bytes. */
static enum mode_status use_own_font(const char *packages, const char *root, struct mode_error *err)
{
    char *fonts = mode_path_join(root, "usr/share/fonts/truetype/dejavu");
    char *conf = mode_path_join(packages, "fonts.conf"), *cache = mode_path_join(packages, "fonts-cache");
    struct mode_str s = {0};
    enum mode_status st = MODE_OK;
    if (!mode_file_exists(fonts)) {
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s does not exist: it comes with the Debian package fonts-dejavu-core. HINT: run "
                       "deploy/demo/packages.sh, which fetches and unpacks it",
                       fonts);
        goto out;
    }
    mode_str_add_cstr(&s, "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n<fontconfig>\n<dir>");
    mode_str_add_html(&s, fonts);
    mode_str_add_cstr(&s, "</dir>\n<cachedir>");
    mode_str_add_html(&s, cache);
    mode_str_add_cstr(&s, "</cachedir>\n");
    static const char *const families[][2] = {
        {"serif", "DejaVu Serif"}, {"sans-serif", "DejaVu Sans"}, {"monospace", "DejaVu Sans Mono"}};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        mode_str_printf(&s, "<alias><family>%s</family><prefer><family>%s</family></prefer></alias>\n", families[i][0],
                        families[i][1]);
    mode_str_add_cstr(&s, "</fontconfig>\n");
    st = mode_file_write_atomic(conf, s.data, s.len, err);
    if (st != MODE_OK) goto out;
    setenv("FONTCONFIG_FILE", conf, 1);
    setenv("LC_ALL", "C.UTF-8", 1); /* SVG may choose drawings by language */
    unsetenv("LANGUAGE");
out:
    mode_str_clear(&s);
    free(fonts);
    free(conf);
    free(cache);
    return st;
}

static enum mode_status build(const struct opts *o, bool smoke, struct mode_error *err)
{
    struct mode_demo_set set = {0};
    char *root = mode_path_join(o->packages, "root");
    double start = mode_clock_s();
    enum mode_status st = use_own_font(o->packages, root, err);
    if (st == MODE_OK) st = collect(&set, root, !o->without_tuxpaint, err);
    if (st != MODE_OK) goto out;
    mode_log_info("collected", "pictures=%lld seconds=%.1f", (long long)set.n, mode_clock_s() - start);
    drop_useless(&set);
    if (smoke) {
        mode_demo_prune_classes(&set);
        mode_demo_choose_smoke(&set);
    }
    mode_parallel_for(set.n, render_one, &set);
    mode_log_info("drawn", "seconds=%.1f", mode_clock_s() - start);
    mode_demo_merge_same(&set);
    mode_demo_drop_leaks(&set);
    mode_demo_cap_captions(&set);
    if (!smoke) mode_demo_prune_classes(&set);
    drop_useless(&set);
    mode_log_info("compared", "seconds=%.1f", mode_clock_s() - start);
    st = mode_demo_write(&set, o->packages, o->out, o->profile, !o->without_tuxpaint, err);
    if (st == MODE_OK) mode_log_info("written", "out=%s seconds=%.1f", o->out, mode_clock_s() - start);
out:
    mode_demo_set_clear(&set);
    xmlCleanupParser();
    free(root);
    return st;
}

int main(int argc, char **argv)
{
    struct mode_error err;
    struct opts o = {0};
    int n_args = 0;
    mode_log_open("demo-data");
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, ENV, USAGE, PROSE);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        char with[200];
        mode_demo_drawn_with(with, sizeof with);
        printf("mode-demo-data, data version %d, %s\n", MODE_DEMO_DATA_VERSION, with);
        return 0;
    }
    enum mode_status st = mode_options_parse(&o, table, ENV, argc, argv, &n_args, &err);
    if (st == MODE_OK && (n_args || !o.packages || !o.out))
        st = MODE_FAIL(&err, MODE_E_USAGE, "--packages and --out are needed, and nothing else: %s", USAGE);
    bool smoke = st == MODE_OK && !strcmp(o.profile, "smoke");
    if (st == MODE_OK && !smoke && strcmp(o.profile, "full") != 0)
        st = MODE_FAIL(&err, MODE_E_USAGE, "--profile is \"%s\", but full and smoke are all there are", o.profile);
    if (st == MODE_OK) st = build(&o, smoke, &err);
    if (st != MODE_OK) mode_log_failure("failed", &err);
    return mode_status_exit_code(st);
}
