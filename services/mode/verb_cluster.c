#include "backend_option.h"
#include "base/options.h"
#include "base/output.h"
#include "base/str.h"
#include "pipeline/cluster.h"
#include "pipeline/defaults.h"
#include "ranges.h"
#include "verb.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

struct opts {
    struct backend_options backend;
    const char *features, *out, *metric, *grow;
    int64_t fine, coarse, seed, sample, fine_iterations, coarse_iterations;
    bool json;
};
static const struct mode_option table[] = {
    MODE_OPT_STR(struct opts, features, "features", NULL, "GLOB",
                 "text vectors (feat.safetensors of `mode embed`), read in the order of their names"),
    MODE_OPT_STR(struct opts, out, "out", "centres.safetensors", "FILE", "centres to write"),
    MODE_OPT_INT(struct opts, fine, "fine", MODE_DEFAULT_FINE, "M", "fine centres"),
    MODE_OPT_INT(struct opts, coarse, "coarse", MODE_DEFAULT_COARSE, "N", "coarse groups: one expert each"),
    MODE_OPT_STR(struct opts, metric, "metric", MODE_DEFAULT_METRIC, "NAME", "euclidean | cosine"),
    MODE_OPT_INT(struct opts, seed, "seed", "0", "N", "seed of the sample and of the initial centres"),
    MODE_OPT_INT(struct opts, sample, "sample-per-centre", MODE_DEFAULT_SAMPLE_PER_CENTRE, "N",
                 "rows sampled per fine centre; 0 = all rows"),
    MODE_OPT_INT(struct opts, fine_iterations, "fine-iterations", MODE_DEFAULT_FINE_ITERATIONS, "N",
                 "maximum iterations of the fine step"),
    MODE_OPT_INT(struct opts, coarse_iterations, "coarse-iterations", MODE_DEFAULT_COARSE_ITERATIONS, "N",
                 "maximum iterations of the coarse step"),
    MODE_OPT_STR(struct opts, grow, "grow", NULL, "FILE",
                 "centres to extend, which stay as they are: the inputs become one more coarse group (--coarse 1)"),
    BACKEND_OPTIONS(struct opts),
    MODE_OPT_FLAG(struct opts, json, "json", "print the balance certificate as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("fine", 1, 1 << 20),
                                             RANGE("coarse", 1, 1 << 20),
                                             RANGE("sample-per-centre", 0, 1 << 24),
                                             RANGE("fine-iterations", 1, 100000),
                                             RANGE("coarse-iterations", 1, 100000),
                                             RANGE_SEED,
                                             RANGE_END};

static void on_round(void *ctx, int iteration, int iterations, double objective)
{
    *(bool *)ctx = true;
    fprintf(stderr, "\riteration %d of at most %d, mean cost %.6f ", iteration, iterations, objective);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct opts o = {0};
    struct mode_cluster_result r = {0};
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT};
    glob_t found = {0};
    bool rounds = false;
    int n_args;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_", "mode cluster (--features 'feat*.safetensors' | FILE...) [options]",
            "Finds balanced fine centres of text vectors and groups them into coarse clusters, one per expert.");
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err))) return st;
    if ((st = ranges_check(&o, table, ranges, err)) || (st = backend_check(&o.backend, err))) return st;
    if (o.coarse > o.fine)
        return MODE_FAIL(err, MODE_E_USAGE, "--coarse %lld: more groups than fine centres, --fine %lld",
                         (long long)o.coarse, (long long)o.fine);
    if (o.grow && o.coarse != 1)
        return MODE_FAIL(err, MODE_E_USAGE, "--grow adds one coarse group at a time: give --coarse 1, not %lld",
                         (long long)o.coarse);
    struct mode_error why;
    if (mode_metric_parse(&p.step.metric, o.metric, &why))
        return MODE_FAIL(err, MODE_E_USAGE, "--metric: %s", why.text);
    if (!o.features && n_args == 0)
        return MODE_FAIL(err, MODE_E_USAGE, "no text vectors: give --features GLOB or file names");
    if ((st = mode_output_file(o.out, err))) return st;
    if (o.features && glob(o.features, 0, NULL, &found))
        return MODE_FAIL(err, MODE_E_NOINPUT, "--features: no file matches \"%s\"", o.features);
    const char **paths = mode_xmalloc((found.gl_pathc + (size_t)n_args + 1) * sizeof *paths);
    size_t n = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) paths[n++] = found.gl_pathv[i];
    for (int i = 1; i <= n_args; i++) paths[n++] = argv[i];
    p.step.fine = (int)o.fine;
    p.step.coarse = (int)o.coarse;
    p.step.fine_iterations = (int)o.fine_iterations;
    p.step.coarse_iterations = (int)o.coarse_iterations;
    p.step.seed = (uint64_t)o.seed;
    p.step.progress = on_round;
    p.step.ctx = &rounds;
    p.sample_per_centre = (int)o.sample;
    p.grow = o.grow;
    paths[n] = o.grow;
    if ((st = mode_output_apart(o.out, paths, n + 1, err)) || (st = backend_open(&p.step.be, &o.backend, err)))
        goto out;
    st = mode_cluster_run(&r, o.out, paths, n, &p, err);
    if (rounds) fputc('\n', stderr);
    if (st) goto out;
    if (o.json)
        printf("{\"out\": \"%s\", \"rows\": %llu, \"sample\": %llu, \"certificate\": %s}\n", o.out,
               (unsigned long long)r.rows, (unsigned long long)r.sample, r.certificate);
    else
        printf("%s: %d fine centre%s in %lld group%s from %llu of %llu row%s\n%s\n", o.out, r.fine, MODE_PLURAL(r.fine),
               (long long)o.coarse, MODE_PLURAL(o.coarse), (unsigned long long)r.sample, (unsigned long long)r.rows,
               MODE_PLURAL(r.rows), r.certificate);
    if (r.fine < o.fine)
        fprintf(stderr, "%d fine centre%s, not %lld: the sample has no more different captions\n", r.fine,
                MODE_PLURAL(r.fine), (long long)o.fine);
out:
    mode_backend_close(&p.step.be);
    mode_cluster_result_clear(&r);
    globfree(&found);
    free(paths);
    return st;
}

const struct mode_verb mode_verb_cluster = {"cluster", "text vectors to balanced fine centres and coarse groups", run};
