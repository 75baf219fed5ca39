#include "pipeline/assign.h"

#include "base/file.h"
#include "base/str.h"
#include "cluster/cost.h"
#include "cluster/nearest.h"
#include "data/captions.h"
#include "data/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* mode_nearest among the fine centres of coarse group `only`; counts the rows that are nearer to another group. */
static enum mode_status nearest_in_group(struct mode_backend *be, int32_t *id, float *distance, uint64_t *elsewhere,
                                         const float *x, int64_t n, const struct mode_centres *c, int32_t only,
                                         struct mode_error *err)
{
    int32_t *fine_id = mode_xmalloc((size_t)c->m * sizeof *fine_id), k = 0;
    float *fine = mode_xmalloc((size_t)c->m * (size_t)c->d * sizeof *fine);
    for (int i = 0; i < c->m; i++) {
        if (c->fine_to_coarse[i] != only) continue;
        memcpy(fine + (size_t)k * (size_t)c->d, c->fine + (size_t)i * (size_t)c->d, (size_t)c->d * sizeof *fine);
        fine_id[k++] = i;
    }
    struct mode_nearest *rows;
    enum mode_status st = mode_nearest_open(&rows, be, x, n, c->d, c->m, err);
    if (!st) mode_nearest_again(rows, id, distance, c->metric, c->fine, c->m);
    *elsewhere = 0;
    for (int64_t i = 0; i < n && !st; i++) *elsewhere += c->fine_to_coarse[id[i]] != only;
    if (!st) mode_nearest_again(rows, id, distance, c->metric, fine, k);
    mode_nearest_close(&rows);
    for (int64_t i = 0; i < n && !st; i++) id[i] = fine_id[id[i]];
    free(fine_id);
    free(fine);
    return st;
}

static enum mode_status open_centres(struct mode_centres *c, char digest[MODE_DIGEST_HEX], const char *path,
                                     const char *encoder_id, int32_t only, struct mode_error *err)
{
    enum mode_status st;
    if ((st = mode_centres_load(c, path, err)) || (st = mode_digest_file(path, digest, NULL, err))) return st;
    if (encoder_id && (st = mode_centres_check_encoder(c, encoder_id, "the request", err))) return st;
    if (only != MODE_ASSIGN_ANY && (only < 0 || only >= c->n))
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: no coarse group %d, it has 0 to %d", path, only, c->n - 1);
    return st;
}

/* x [n, c->d]; what: names it in errors */
static enum mode_status assign(struct mode_assign_result *result, struct mode_backend *be, const char *out_path,
                               const float *x, int64_t n, const char *what, const struct mode_centres *c,
                               char digest[MODE_DIGEST_HEX], int32_t only, struct mode_error *err)
{
    enum mode_status st = mode_rows_check(x, n, c->d, true, NULL, what, err);
    if (st) return st;
    int32_t *id = malloc((size_t)n * sizeof *id + 1);
    float *distance = malloc((size_t)n * sizeof *distance + 1);
    if (!id || !distance) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %lld ids", what, (long long)n);
        goto out;
    }
    *result = (struct mode_assign_result){.rows = (uint64_t)n};
    if (only == MODE_ASSIGN_ANY)
        st = mode_nearest(be, id, distance, c->metric, x, n, c->fine, c->m, c->d, err);
    else
        st = nearest_in_group(be, id, distance, &result->nearer_elsewhere, x, n, c, only, err);
    if (st) goto out;
    struct mode_tensor t[] = {mode_tensor_1d(id, MODE_DTYPE_I32, n), mode_tensor_1d(distance, MODE_DTYPE_F32, n)};
    t[0].name = "fine_id";
    t[1].name = "distance";
    char k_id[] = "encoder_id", k_centres[] = "centres", k_metric[] = "metric", euclidean[] = "euclidean",
         cosine[] = "cosine";
    struct mode_meta meta[] = {
        {k_centres, digest}, {k_id, c->encoder_id}, {k_metric, c->metric == MODE_METRIC_COSINE ? cosine : euclidean}};
    st = mode_safetensors_write(out_path, t, 2, meta, 3, err);
out:
    free(id);
    free(distance);
    return st;
}

enum mode_status mode_assign_run(struct mode_assign_result *result, struct mode_backend *be, const char *out_path,
                                 const char *feat_path, const char *centres_path, const char *encoder_id, int32_t only,
                                 struct mode_error *err)
{
    enum mode_status st;
    struct mode_centres c = {0};
    struct mode_safetensors f = {0};
    const struct mode_tensor *feat;
    char digest[MODE_DIGEST_HEX];
    if ((st = open_centres(&c, digest, centres_path, encoder_id, only, err)) ||
        (st = mode_safetensors_open(&f, feat_path, err)) ||
        (st = mode_centres_check_encoder(&c, mode_safetensors_meta(&f, "encoder_id"), feat_path, err)))
        goto out;
    int64_t dim[2] = {-1, c.d};
    if ((st = mode_safetensors_need(&f, "feat", MODE_DTYPE_F32, 2, dim, &feat, err))) goto out;
    st = assign(result, be, out_path, mode_f32(feat), feat->dim[0], feat_path, &c, digest, only, err);
out:
    mode_safetensors_close(&f);
    mode_centres_clear(&c);
    return st;
}

enum mode_status mode_assign_captions(struct mode_assign_result *result, struct mode_backend *be, const char *out_path,
                                      struct mode_text_encoder *enc, const char *captions_path,
                                      const char *centres_path, int32_t only, mode_encode_tick_fn *tick, void *ctx,
                                      struct mode_error *err)
{
    enum mode_status st;
    struct mode_centres c = {0};
    struct mode_captions captions = {0};
    const char **texts = NULL;
    float *x = NULL;
    char digest[MODE_DIGEST_HEX];
    if ((st = open_centres(&c, digest, centres_path, mode_text_encoder_id(enc), only, err)) ||
        (st = mode_captions_load(&captions, captions_path, err)))
        goto out;
    const size_t n = captions.n_rows;
    texts = mode_xcalloc(n + 1, sizeof *texts);
    for (uint32_t i = 0; i < n; i++) texts[i] = mode_captions_row(&captions, i).caption;
    if (!(x = malloc((n + 1) * (size_t)c.d * sizeof *x)))
        st = MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %zu vectors", captions_path, n);
    if (!st) st = mode_text_encoder_encode(enc, x, texts, n, tick, ctx, err);
    if (!st) st = assign(result, be, out_path, x, (int64_t)n, captions_path, &c, digest, only, err);
out:
    free(x);
    free(texts);
    mode_captions_clear(&captions);
    mode_centres_clear(&c);
    return st;
}

enum mode_status mode_assign_count(uint64_t *count, const char *path, const int32_t *group, int m,
                                   struct mode_error *err)
{
    struct mode_safetensors f = {0};
    const struct mode_tensor *id;
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    st = mode_safetensors_need(&f, "fine_id", MODE_DTYPE_I32, 1, (int64_t[]){-1}, &id, err);
    for (int64_t r = 0; !st && r < id->dim[0]; r++) {
        int32_t fine;
        memcpy(&fine, (const char *)id->data + 4 * r, 4);
        if (fine < 0 || fine >= m)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: row %lld has fine id %d of %d", path, (long long)r, fine, m);
        else
            count[group ? group[fine] : fine]++;
    }
    mode_safetensors_close(&f);
    return st;
}
