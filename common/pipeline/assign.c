#include "pipeline/assign.h"

#include "base/file.h"
#include "cluster/cost.h"
#include "cluster/nearest.h"
#include "data/safetensors.h"

#include <stdlib.h>

enum mode_status mode_assign_run(uint64_t *rows, const char *out_path, const char *feat_path, const char *centres_path,
                                 const char *encoder_id, struct mode_error *err)
{
    enum mode_status st;
    struct mode_centres c = {0};
    struct mode_safetensors f = {0};
    const struct mode_tensor *feat;
    int32_t *id = NULL;
    float *distance = NULL;
    char digest[MODE_DIGEST_HEX];
    if ((st = mode_centres_load(&c, centres_path, err)) || (st = mode_digest_file(centres_path, digest, NULL, err)))
        goto out;
    if ((st = mode_safetensors_open(&f, feat_path, err))) goto out;
    if ((st = mode_centres_check_encoder(&c, mode_safetensors_meta(&f, "encoder_id"), feat_path, err)) ||
        (encoder_id && (st = mode_centres_check_encoder(&c, encoder_id, "the request", err))))
        goto out;
    int64_t dim[2] = {-1, c.d};
    if ((st = mode_safetensors_need(&f, "feat", MODE_DTYPE_F32, 2, dim, &feat, err))) goto out;
    int64_t n = feat->dim[0];
    if ((st = mode_rows_check(mode_f32(feat), n, c.d, true, NULL, feat_path, err))) goto out;
    id = malloc((size_t)n * sizeof *id + 1);
    distance = malloc((size_t)n * sizeof *distance + 1);
    if (!id || !distance) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %lld ids", feat_path, (long long)n);
        goto out;
    }
    if ((st = mode_nearest(id, distance, c.metric, mode_f32(feat), n, c.fine, c.m, c.d, err))) goto out;
    struct mode_tensor t[] = {mode_tensor_1d(id, MODE_DTYPE_I32, n), mode_tensor_1d(distance, MODE_DTYPE_F32, n)};
    t[0].name = "fine_id";
    t[1].name = "distance";
    char k_id[] = "encoder_id", k_centres[] = "centres", k_metric[] = "metric", euclidean[] = "euclidean",
         cosine[] = "cosine";
    struct mode_meta meta[] = {
        {k_centres, digest}, {k_id, c.encoder_id}, {k_metric, c.metric == MODE_METRIC_COSINE ? cosine : euclidean}};
    if ((st = mode_safetensors_write(out_path, t, 2, meta, 3, err))) goto out;
    if (rows) *rows = (uint64_t)n;
out:
    mode_safetensors_close(&f);
    mode_centres_clear(&c);
    free(id);
    free(distance);
    return st;
}
