/* pipeline/cluster.h - text vectors of all shards to centres.safetensors. */
#ifndef MODE_PIPELINE_CLUSTER_H
#define MODE_PIPELINE_CLUSTER_H

#include "cluster/two_step.h"

struct mode_cluster_params {
    struct mode_two_step_params step;
    int sample_per_centre;  /* rows sampled per fine centre; 0 = all rows */
    const char *encoder_id; /* inputs of another encoder are an error; NULL: that of the first file */
    const char *grow;       /* centres.safetensors to which the inputs are added as one more coarse group (step.coarse
                               must be 1): nothing in it moves or is renumbered; NULL: new centres */
};

struct mode_cluster_result {
    uint64_t rows;     /* of all inputs */
    uint64_t drawn;    /* into the sample */
    uint64_t sample;   /* of those clustered: without copies of captions that are too frequent (equal_rows.h) */
    int fine;          /* centres made: those asked for, or as many as captions differ */
    char *certificate; /* JSON; owned */
};

/* feat [n_feats]: feat.safetensors files in shard order ("feat" [N, d] f32 unit rows). The sample is a
 * function of the seed and the rows' numbers over all files alone. The caller clears result, also after a
 * failure. Where fewer captions of the sample differ than params->step.fine, each is a fine centre. Errors:
 * MODE_E_FORMAT, MODE_E_VALUE (encoders differ; a row not finite or not unit; no row; fewer captions that differ than
 * coarse groups). */
enum mode_status mode_cluster_run(struct mode_cluster_result *result, const char *out_path, const char *const *feat,
                                  size_t n_feats, const struct mode_cluster_params *params, struct mode_error *err);
void mode_cluster_result_clear(struct mode_cluster_result *result);
/* MODE_E_VALUE unless name is euclidean or cosine. */
enum mode_status mode_metric_parse(enum mode_metric *metric, const char *name, struct mode_error *err);

#endif
