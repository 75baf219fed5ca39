#include "cluster/equal_rows.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct hashed {
    uint64_t hash;
    uint32_t row;
};

static int by_hash(const void *a, const void *b)
{
    const struct hashed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* copy[i]: number of earlier rows equal to row i; times [different]: copies of each distinct row. Returns the number of
 * distinct rows. */
static int64_t count(uint32_t *copy, uint32_t *times, struct hashed *h, const float *x, int64_t n, int d)
{
    const size_t bytes = (size_t)d * sizeof *x;
    int64_t different = 0;
    for (int64_t i = 0; i < n; i++) h[i] = (struct hashed){XXH3_64bits(x + i * d, bytes), (uint32_t)i};
    qsort(h, (size_t)n, sizeof *h, by_hash);
    for (int64_t i = 0, first = 0; i < n; i++) {
        if (i > 0 && h[i].hash != h[i - 1].hash) first = different;
        /* rows of equal hash are compared: a collision must not merge them */
        int64_t j = first;
        const float *row = x + (int64_t)h[i].row * d;
        while (j < different && memcmp(x + (int64_t)h[j].row * d, row, bytes) != 0) j++;
        if (j == different) {
            h[different] = h[i]; /* h[0 .. different): the first of each distinct row; different <= i */
            times[different++] = 0;
        }
        copy[h[i].row] = times[j]++;
    }
    return different;
}

/* Rows kept under a cap on copies. */
static int64_t kept_rows(const uint32_t *times, int64_t different, int64_t most)
{
    int64_t rows = 0;
    for (int64_t j = 0; j < different; j++) rows += times[j] < most ? times[j] : most;
    return rows;
}

enum mode_status mode_equal_rows_cap(struct mode_equal_rows *out, float *x, int64_t n, int d, int k,
                                     struct mode_error *err)
{
    const size_t room = (size_t)n + 1;
    struct hashed *h = malloc(room * sizeof *h);
    uint32_t *copy = malloc(room * sizeof *copy), *times = malloc(room * sizeof *times);
    enum mode_status st = MODE_OK;
    *out = (struct mode_equal_rows){.rows = n};
    if (!h || !copy || !times) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "clustering: no memory to compare %lld rows", (long long)n);
        goto out;
    }
    out->different = count(copy, times, h, x, n, d);
    int64_t centres = k < out->different ? k : out->different, fits = 1, high = 1;
    for (int64_t j = 0; j < out->different; j++) high = times[j] > high ? times[j] : high;
    if (high * centres <= n) goto out; /* none is too frequent */
    /* kept_rows(cap) is concave in cap and cap * centres linear, so the caps that fit are 1 .. most: bisection */
    for (high--; fits < high;) {
        int64_t middle = (fits + high + 1) / 2;
        if (middle * centres <= kept_rows(times, out->different, middle))
            fits = middle;
        else
            high = middle - 1;
    }
    out->most = fits;
    out->rows = 0;
    for (int64_t i = 0; i < n; i++) {
        if (copy[i] >= fits) continue;
        if (out->rows < i) memcpy(x + out->rows * d, x + i * d, (size_t)d * sizeof *x);
        out->rows++;
    }
out:
    free(h);
    free(copy);
    free(times);
    return st;
}
