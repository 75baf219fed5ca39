#include "cluster/centres.h"

#include "base/options.h"
#include "base/str.h"
#include "data/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CENTRES = 1 << 20, MAX_DIM = 1 << 16 };

static enum mode_status need_meta(const struct mode_safetensors *f, const char *path, const char *key,
                                  const char **value, struct mode_error *err)
{
    *value = mode_safetensors_meta(f, key);
    if (*value) return MODE_OK;
    return MODE_FAIL(err, MODE_E_FORMAT, "%s: metadata \"%s\" is missing; is this a centres file?", path, key);
}

static enum mode_status meta_u64(const struct mode_safetensors *f, const char *path, const char *key, uint64_t *out,
                                 struct mode_error *err)
{
    const char *text;
    char *end;
    enum mode_status st = need_meta(f, path, key, &text, err);
    if (st) return st;
    *out = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: metadata \"%s\" is \"%.40s\", expected a whole number", path, key,
                         text);
    return MODE_OK;
}

static enum mode_status check_groups(const struct mode_centres *c, const char *path, struct mode_error *err)
{
    for (int64_t i = 0; i < (int64_t)(c->m + c->n) * c->d; i++) {
        float v = i < (int64_t)c->m * c->d ? c->fine[i] : c->coarse[i - (int64_t)c->m * c->d];
        if (!isfinite(v)) return MODE_FAIL(err, MODE_E_FORMAT, "%s: a centre holds a value that is not finite", path);
    }
    bool *seen = mode_xcalloc((size_t)c->n, sizeof *seen);
    int missing = c->n;
    for (int i = 0; i < c->m; i++) {
        int g = c->fine_to_coarse[i];
        if (g < 0 || g >= c->n || c->fine_size[i] < 0) {
            free(seen);
            return MODE_FAIL(err, MODE_E_FORMAT,
                             "%s: fine centre %d has coarse id %d and %lld rows; expected an id in [0, %d)", path, i, g,
                             (long long)c->fine_size[i], c->n);
        }
        missing -= !seen[g];
        seen[g] = true;
    }
    free(seen);
    if (missing)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: %d of %d coarse groups have no fine centre", path, missing, c->n);
    return MODE_OK;
}

enum mode_status mode_centres_load(struct mode_centres *c, const char *path, struct mode_error *err)
{
    struct mode_safetensors f;
    const struct mode_tensor *fine, *coarse, *map, *size;
    const char *metric, *id, *certificate;
    *c = (struct mode_centres){0};
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    int64_t any[2] = {-1, -1};
    if ((st = mode_safetensors_need(&f, "fine", MODE_DTYPE_F32, 2, any, &fine, err))) goto out;
    int64_t m = fine->dim[0], d = fine->dim[1];
    int64_t like_coarse[2] = {-1, d}, per_fine[1] = {m};
    if ((st = mode_safetensors_need(&f, "coarse", MODE_DTYPE_F32, 2, like_coarse, &coarse, err))) goto out;
    if ((st = mode_safetensors_need(&f, "fine_to_coarse", MODE_DTYPE_I32, 1, per_fine, &map, err))) goto out;
    if ((st = mode_safetensors_need(&f, "fine_size", MODE_DTYPE_I64, 1, per_fine, &size, err))) goto out;
    int64_t n = coarse->dim[0];
    if (n < 1 || m < n || m > MAX_CENTRES || d < 1 || d > MAX_DIM) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: %lld fine centres, %lld coarse groups, width %lld; expected 1 <= coarse <= fine <= %d",
                       path, (long long)m, (long long)n, (long long)d, MAX_CENTRES);
        goto out;
    }
    if ((st = need_meta(&f, path, "metric", &metric, err)) || (st = need_meta(&f, path, "encoder_id", &id, err)) ||
        (st = need_meta(&f, path, "certificate", &certificate, err)) ||
        (st = meta_u64(&f, path, "seed", &c->seed, err)) ||
        (st = meta_u64(&f, path, "sample_size", &c->sample_size, err)))
        goto out;
    if (strcmp(metric, "euclidean") == 0) {
        c->metric = MODE_METRIC_EUCLIDEAN;
    } else if (strcmp(metric, "cosine") == 0) {
        c->metric = MODE_METRIC_COSINE;
    } else {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: metric \"%.40s\", expected euclidean or cosine", path, metric);
        goto out;
    }
    c->m = (int)m;
    c->n = (int)n;
    c->d = (int)d;
    c->fine = malloc(mode_tensor_bytes(fine));
    c->coarse = malloc(mode_tensor_bytes(coarse));
    c->fine_to_coarse = malloc(mode_tensor_bytes(map));
    c->fine_size = malloc(mode_tensor_bytes(size));
    c->encoder_id = mode_xstrdup(id);
    c->certificate = mode_xstrdup(certificate);
    const char *grown_from = mode_safetensors_meta(&f, "grown_from");
    if (grown_from) c->grown_from = mode_xstrdup(grown_from);
    if (!c->fine || !c->coarse || !c->fine_to_coarse || !c->fine_size) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %lld centres", path, (long long)m);
        goto out;
    }
    memcpy(c->fine, fine->data, mode_tensor_bytes(fine));
    memcpy(c->coarse, coarse->data, mode_tensor_bytes(coarse));
    memcpy(c->fine_to_coarse, map->data, mode_tensor_bytes(map));
    memcpy(c->fine_size, size->data, mode_tensor_bytes(size));
    st = check_groups(c, path, err);
    if (!st && mode_centres_added(c) >= c->n)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: grown_from names %d files, but there are %d coarse groups", path,
                       mode_centres_added(c), c->n);
out:
    mode_safetensors_close(&f);
    if (st) mode_centres_clear(c);
    return st;
}

enum mode_status mode_centres_save(const struct mode_centres *c, const char *path, struct mode_error *err)
{
    struct mode_tensor t[] = {
        mode_tensor_2d(c->fine, MODE_DTYPE_F32, c->m, c->d), mode_tensor_2d(c->coarse, MODE_DTYPE_F32, c->n, c->d),
        mode_tensor_1d(c->fine_to_coarse, MODE_DTYPE_I32, c->m), mode_tensor_1d(c->fine_size, MODE_DTYPE_I64, c->m)};
    const char *names[] = {"fine", "coarse", "fine_to_coarse", "fine_size"};
    for (int i = 0; i < 4; i++) t[i].name = names[i];
    char seed[24], sample[24];
    snprintf(seed, sizeof seed, "%" PRIu64, c->seed);
    snprintf(sample, sizeof sample, "%" PRIu64, c->sample_size);
    char k[][16] = {"encoder_id", "metric", "seed", "sample_size", "certificate", "grown_from"};
    char euclidean[] = "euclidean", cosine[] = "cosine";
    struct mode_meta meta[] = {{k[0], c->encoder_id},  {k[1], c->metric == MODE_METRIC_COSINE ? cosine : euclidean},
                               {k[2], seed},           {k[3], sample},
                               {k[4], c->certificate}, {k[5], c->grown_from}};
    MODE_ASSERT(c->encoder_id && c->certificate);
    return mode_safetensors_write(path, t, 4, meta, c->grown_from ? 6 : 5, err);
}

void mode_centres_clear(struct mode_centres *c)
{
    free(c->fine);
    free(c->coarse);
    free(c->fine_to_coarse);
    free(c->fine_size);
    free(c->encoder_id);
    free(c->certificate);
    free(c->grown_from);
    *c = (struct mode_centres){0};
}

enum mode_status mode_centres_check_encoder(const struct mode_centres *c, const char *encoder_id, const char *what,
                                            struct mode_error *err)
{
    if (encoder_id && strcmp(encoder_id, c->encoder_id) == 0) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE,
                     "%s: vectors of encoder \"%s\", but the centres were made from encoder \"%s\"; "
                     "distances between them "
                     "mean nothing. HINT: embed with the encoder of the centres",
                     what, encoder_id ? encoder_id : "(not named)", c->encoder_id);
}

enum mode_status mode_centres_grow(struct mode_centres *c, const char *c_digest, const struct mode_centres *more,
                                   const char *what, struct mode_error *err)
{
    enum mode_status st = mode_centres_check_encoder(c, more->encoder_id, what, err);
    if (st) return st;
    if (more->metric != c->metric || more->d != c->d)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: %s centres of width %d cannot be added to %s centres of width %d",
                         what, more->metric == MODE_METRIC_COSINE ? "cosine" : "euclidean", more->d,
                         c->metric == MODE_METRIC_COSINE ? "cosine" : "euclidean", c->d);
    if (c->m > MAX_CENTRES - more->m)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: %d fine centres and %d more are over %d", what, c->m, more->m,
                         MAX_CENTRES);
    size_t m = (size_t)c->m, m2 = (size_t)more->m, d = (size_t)c->d, n = (size_t)c->n;
    c->fine = mode_xrealloc(c->fine, (m + m2) * d * sizeof *c->fine);
    c->fine_to_coarse = mode_xrealloc(c->fine_to_coarse, (m + m2) * sizeof *c->fine_to_coarse);
    c->fine_size = mode_xrealloc(c->fine_size, (m + m2) * sizeof *c->fine_size);
    c->coarse = mode_xrealloc(c->coarse, (n + 1) * d * sizeof *c->coarse);
    memcpy(c->fine + m * d, more->fine, m2 * d * sizeof *c->fine);
    memcpy(c->fine_size + m, more->fine_size, m2 * sizeof *c->fine_size);
    memcpy(c->coarse + n * d, more->coarse, d * sizeof *c->coarse);
    for (size_t i = 0; i < m2; i++) c->fine_to_coarse[m + i] = c->n;
    char *from = c->grown_from ? mode_xasprintf("%s %s", c->grown_from, c_digest) : mode_xstrdup(c_digest);
    free(c->grown_from);
    c->grown_from = from;
    c->m += more->m;
    c->n++;
    c->sample_size += more->sample_size;
    return MODE_OK;
}

bool mode_centres_know(const struct mode_centres *c, const char *c_digest, const char *made_with)
{
    if (!made_with) return false;
    if (strcmp(made_with, c_digest) == 0) return true;
    size_t n = strlen(made_with);
    for (const char *at = c->grown_from; at && *at; at += strcspn(at, " "), at += *at == ' ')
        if (strcspn(at, " ") == n && strncmp(at, made_with, n) == 0) return true;
    return false;
}

int mode_centres_added(const struct mode_centres *c)
{
    int n = c->grown_from != NULL;
    for (const char *at = c->grown_from; at && *at; at++) n += *at == ' ';
    return n;
}
