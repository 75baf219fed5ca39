/* truth.h - a model's results on its batches in few values, and a file of them: what takes the reference minutes is
 * computed once, beforehand.
 *
 * A gradient is kept as its sketch (a count sketch): a hash of i adds element i to one of 64 sums, or subtracts it. The
 * distance of two sketches is that of the two gradients, to within a tenth or so where it is spread over many elements,
 * and exactly where it is in one; up to 64 elements are their own sketch.
 *
 * The file: for each model and backend a head, the values in native byte order, and a checksum over all of it.
 * Truncated entries and those of other inputs are not found. */
#ifndef MODE_TESTS_CUDA_TRUTH_H
#define MODE_TESTS_CUDA_TRUTH_H

#include "base/parallel.h"
#include "base/str.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 10, SKETCH = 64, SKETCH_PIECE = 1 << 16 };

struct sketch {
    double size; /* norm of the gradient itself */
    float sums[SKETCH];
};

struct numbers {
    int64_t floats, steps, n; /* of one tower's features; steps; gradients */
    float *features[2];       /* of pictures and of texts: unit rows, computed before the first step */
    double loss[STEPS], norm[STEPS];
    struct sketch *gradients; /* of the first step */
};

static inline void numbers_clear(struct numbers *x)
{
    free(x->features[0]);
    free(x->features[1]);
    free(x->gradients);
    *x = (struct numbers){0};
}

/* FNV-1a, by words where possible: for files and keys. */
static inline uint64_t sum_of(uint64_t before, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t h = before ^ 0xcbf29ce484222325u, word;
    for (; bytes >= sizeof word; bytes -= sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        h = (h ^ word) * 0x100000001b3u;
        h ^= h >> 29;
    }
    for (; bytes > 0; bytes--) h = (h ^ *p++) * 0x100000001b3u;
    return h;
}

/* ---- sketches ---- */

struct sketching {
    const float *v;
    int64_t n;
    double (*sums)[SKETCH + 1]; /* per chunk; the last is the sum of squares */
};

static inline void sketch_piece(void *ctx, int64_t piece, int thread)
{
    const struct sketching *s = ctx;
    double *to = s->sums[piece];
    (void)thread;
    for (int64_t i = piece * SKETCH_PIECE; i < s->n && i < (piece + 1) * SKETCH_PIECE; i++) {
        uint64_t h = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
        h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
        const int at = s->n <= SKETCH ? (int)i : (int)(h >> 58);
        to[at] += s->n > SKETCH && (h >> 57 & 1) ? -(double)s->v[i] : s->v[i];
        to[SKETCH] += (double)s->v[i] * s->v[i];
    }
}

static inline struct sketch sketch_of(const float *v, int64_t n)
{
    const int64_t pieces = (n + SKETCH_PIECE - 1) / SKETCH_PIECE;
    struct sketching s = {v, n, mode_xcalloc((size_t)pieces + 1, sizeof *s.sums)};
    double all[SKETCH + 1] = {0};
    struct sketch out;
    mode_parallel_for(pieces, sketch_piece, &s);
    for (int64_t k = 0; k < pieces; k++)
        for (int i = 0; i <= SKETCH; i++) all[i] += s.sums[k][i];
    for (int i = 0; i < SKETCH; i++) out.sums[i] = (float)all[i];
    out.size = sqrt(all[SKETCH]);
    free(s.sums);
    return out;
}

/* Relative to the truth. */
static inline double sketch_distance(const struct sketch *a, const struct sketch *truth)
{
    double d = 0;
    for (int i = 0; i < SKETCH; i++) d += ((double)a->sums[i] - truth->sums[i]) * ((double)a->sums[i] - truth->sums[i]);
    return truth->size > 0 ? sqrt(d) / truth->size : sqrt(d);
}

/* ---- the file ---- */

struct truth_head {
    char model[40], backend[16];
    uint64_t key; /* of the inputs */
    int64_t floats, steps, n;
};

static inline size_t truth_bytes(const struct truth_head *h)
{
    return (size_t)(2 * h->floats) * sizeof(float) + 2 * STEPS * sizeof(double) + (size_t)h->n * sizeof(struct sketch);
}

static inline struct truth_head truth_head_of(const char *model, const char *backend, uint64_t key)
{
    struct truth_head h;
    memset(&h, 0, sizeof h);
    snprintf(h.model, sizeof h.model, "%s", model);
    snprintf(h.backend, sizeof h.backend, "%s", backend);
    h.key = key;
    return h;
}

/* Appends to the file. False: the error was printed. */
static inline bool truth_add(const char *path, struct truth_head h, const struct numbers *x)
{
    struct mode_str all = {0};
    FILE *f = fopen(path, "ab");
    h.floats = x->floats;
    h.steps = x->steps;
    h.n = x->n;
    mode_str_add(&all, &h, sizeof h);
    for (int k = 0; k < 2; k++) mode_str_add(&all, x->features[k], (size_t)x->floats * sizeof(float));
    mode_str_add(&all, x->loss, sizeof x->loss);
    mode_str_add(&all, x->norm, sizeof x->norm);
    mode_str_add(&all, x->gradients, (size_t)x->n * sizeof *x->gradients);
    const uint64_t sum = sum_of(0, all.data, all.len);
    mode_str_add(&all, &sum, sizeof sum);
    bool good = f && fwrite(all.data, 1, all.len, f) == all.len;
    if (f && fclose(f) != 0) good = false;
    if (!good) perror(path);
    mode_str_clear(&all);
    return good;
}

/* Finds the results of that model, backend and key; false: there are none. */
static inline bool truth_find(const char *path, struct truth_head want, struct numbers *x)
{
    struct truth_head h;
    bool found = false;
    FILE *f = path ? fopen(path, "rb") : NULL;
    while (f && !found && fread(&h, sizeof h, 1, f) == 1) {
        uint64_t sum;
        if (h.floats < 0 || h.floats > 1 << 24 || h.n < 0 || h.n > 1 << 16) break;
        const size_t bytes = truth_bytes(&h);
        char *data = mode_xmalloc(bytes + 1), *at = data;
        bool whole = fread(data, 1, bytes, f) == bytes && fread(&sum, sizeof sum, 1, f) == 1;
        if (whole) {
            struct mode_str all = {0};
            mode_str_add(&all, &h, sizeof h);
            mode_str_add(&all, data, bytes);
            whole = sum == sum_of(0, all.data, all.len);
            mode_str_clear(&all);
        }
        found = whole && h.key == want.key && strncmp(h.model, want.model, sizeof h.model) == 0 &&
                strncmp(h.backend, want.backend, sizeof h.backend) == 0;
        if (found) {
            *x = (struct numbers){.floats = h.floats, .steps = h.steps, .n = h.n};
            for (int k = 0; k < 2; k++, at += (size_t)h.floats * sizeof(float)) {
                x->features[k] = mode_xmalloc((size_t)h.floats * sizeof(float) + 1);
                memcpy(x->features[k], at, (size_t)h.floats * sizeof(float));
            }
            memcpy(x->loss, at, sizeof x->loss);
            memcpy(x->norm, at + sizeof x->loss, sizeof x->norm);
            x->gradients = mode_xmalloc((size_t)h.n * sizeof *x->gradients + 1);
            memcpy(x->gradients, at + sizeof x->loss + sizeof x->norm, (size_t)h.n * sizeof *x->gradients);
        }
        free(data);
        if (!whole) break;
    }
    if (f) fclose(f);
    return found;
}

#endif
