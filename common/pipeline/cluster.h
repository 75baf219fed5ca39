/* pipeline/cluster.h - the clustering step: text vectors of all shards to centres.safetensors.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.1.
 * Threads: one caller per backend; uses the pool. */
#ifndef MODE_PIPELINE_CLUSTER_H
#define MODE_PIPELINE_CLUSTER_H

#include "cluster/two_step.h"

struct mode_cluster_params {
    struct mode_two_step_params step;
    int sample_per_centre;  /* rows sampled per fine centre; 0 = all rows */
    const char *encoder_id; /* that all inputs must have; NULL: that of the first file */
    const char *grow;       /* centres.safetensors that the inputs are added to as one more coarse group (step.coarse
                               must be 1), without moving or renumbering its centres; NULL: new centres */
};

struct mode_cluster_result {
    uint64_t rows;     /* of all inputs */
    uint64_t drawn;    /* into the sample */
    uint64_t sample;   /* of those clustered: without excess copies of frequent captions (equal_rows.h) */
    int fine;          /* fine centres: as requested, or the number of distinct captions if that is less */
    char *certificate; /* JSON; owned */
};

/* feat [n_feats]: feat.safetensors files in shard order ("feat" [N, d] f32 unit rows). The sample depends only on the
 * seed and the row numbers over all files. The caller clears result, also after a failure. If the sample has fewer
 * distinct captions than params->step.fine, each is a fine centre. Errors: MODE_E_FORMAT, MODE_E_VALUE (encoders
 * differ; a row not finite or not unit; no row; fewer distinct captions than coarse groups), MODE_E_MEMORY,
 * MODE_E_STOPPED. */
enum mode_status mode_cluster_run(struct mode_cluster_result *result, const char *out_path, const char *const *feat,
                                  size_t n_feats, const struct mode_cluster_params *params, struct mode_error *err);
void mode_cluster_result_clear(struct mode_cluster_result *result);
/* MODE_E_VALUE unless name is euclidean or cosine. */
enum mode_status mode_metric_parse(enum mode_metric *metric, const char *name, struct mode_error *err);

#endif
