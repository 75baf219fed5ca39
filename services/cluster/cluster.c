#include "cluster.h"

#include "base/str.h"
#include "nn/choice.h"
#include "pipeline/cluster.h"
#include "proto/cluster.pb-c.h"

#include <stdlib.h>
#include <string.h>

static void on_round(void *ctx, int iteration, int iterations, double objective)
{
    (void)objective;
    mode_job_progress(ctx, (uint64_t)iteration, (uint64_t)iterations, "rounds");
}

static bool asked_to_stop(void *ctx)
{
    return mode_job_stopping(ctx);
}

enum mode_status cluster_work(struct mode_job *job, struct mode_error *err)
{
    size_t n = 0;
    const char *name, *path, **feat = NULL;
    struct mode_cluster_result result = {0};
    struct mode_cluster_params p = {.step = MODE_TWO_STEP_PARAMS_DEFAULT};
    enum mode_status st;
    Mode__ClusterRequest *r = mode_job_unpack(job, &mode__cluster_request__descriptor, err);
    if (!r) return err->status;
    if (r->fine < 1 || r->fine > 1 << 20 || r->coarse < 1 || r->coarse > r->fine || r->fine_iterations < 1 ||
        r->fine_iterations > 100000 || r->coarse_iterations < 1 || r->coarse_iterations > 100000 ||
        r->sample_per_centre > 1 << 24) {
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "cluster: fine %u, coarse %u, iterations %u and %u, sample_per_centre %u: expected 1 "
                       "<= coarse <= fine <= 2^20, "
                       "1 to 100000 iterations, at most 2^24 rows per centre",
                       r->fine, r->coarse, r->fine_iterations, r->coarse_iterations, r->sample_per_centre);
        goto out;
    }
    p.step.fine = (int)r->fine;
    p.step.coarse = (int)r->coarse;
    p.step.fine_iterations = (int)r->fine_iterations;
    p.step.coarse_iterations = (int)r->coarse_iterations;
    p.step.seed = r->seed;
    p.step.progress = on_round;
    p.step.stopping = asked_to_stop;
    p.step.ctx = job;
    p.sample_per_centre = (int)r->sample_per_centre;
    p.encoder_id = r->encoder_id;
    if ((st = mode_metric_parse(&p.step.metric, r->metric, err))) goto out;
    for (size_t i = 0; mode_job_input_at(job, i, &name, &path); i++) {
        if (strcmp(name, "centres") == 0 && r->coarse == 1) {
            p.grow = path;
            continue;
        }
        if (strncmp(name, "feat/", 5) != 0) {
            st = MODE_FAIL(err, MODE_E_VALUE, "cluster: input \"%s\", expected feat/<shard>", name);
            goto out;
        }
        feat = mode_xrealloc(feat, (n + 1) * sizeof *feat);
        feat[n++] = path;
    }
    mode_job_progress(job, 0, r->fine_iterations, "rounds");
    if ((st = mode_backend_choose(&p.step.be, NULL, mode_job_backend(job), "f32", err))) goto out;
    mode_job_made_on(job, mode_backend_name(p.step.be));
    if ((st = mode_cluster_run(&result, mode_job_output(job, "centres.safetensors"), feat, n, &p, err))) goto out;
    mode_job_count_rows(job, result.rows, result.sample);
    if (result.rows > result.drawn) mode_job_count_reject(job, "not_sampled", result.rows - result.drawn);
    if (result.drawn > result.sample) mode_job_count_reject(job, "too_frequent", result.drawn - result.sample);
    mode_job_note(job, result.certificate);
out:
    mode_backend_close(&p.step.be);
    mode_cluster_result_clear(&result);
    mode__cluster_request__free_unpacked(r, NULL);
    free(feat);
    return st;
}
