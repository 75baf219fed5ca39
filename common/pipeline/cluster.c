#include "pipeline/cluster.h"

#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "cluster/equal_rows.h"
#include "data/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* Opens a file of vectors [rows, width]; -1: any. */
static enum mode_status open_input(struct mode_safetensors *f, const struct mode_tensor **feat, int64_t rows,
                                   int64_t width, const char *path, struct mode_error *err)
{
    enum mode_status st = mode_safetensors_open(f, path, err);
    if (st) return st;
    if ((st = mode_safetensors_need(f, "feat", MODE_DTYPE_F32, 2, (int64_t[]){rows, width}, feat, err)))
        mode_safetensors_close(f);
    return st;
}

/* Checks every file and closes it again, as there may be more shards than a process can map. n_rows [n]. */
static enum mode_status check_inputs(int64_t *n_rows, uint64_t *rows, int64_t *width, char **encoder_id,
                                     const char *const *path, size_t n, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *rows = 0;
    *width = -1;
    for (size_t i = 0; i < n && !st; i++) {
        struct mode_safetensors f = {0};
        const struct mode_tensor *feat;
        if ((st = open_input(&f, &feat, -1, *width, path[i], err))) return st;
        const char *id = mode_safetensors_meta(&f, "encoder_id");
        if (id && !*encoder_id) *encoder_id = mode_xstrdup(id);
        if (!id)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: metadata \"encoder_id\" is missing", path[i]);
        else if (strcmp(id, *encoder_id) != 0)
            st = MODE_FAIL(err, MODE_E_VALUE,
                           "%s: vectors of encoder \"%s\", expected \"%s\"; vectors of different encoders "
                           "cannot be clustered together",
                           path[i], id, *encoder_id);
        *width = feat->dim[1];
        *rows += (uint64_t)(n_rows[i] = feat->dim[0]);
        mode_safetensors_close(&f);
    }
    if (st) return st;
    if (*width < 1) return MODE_FAIL(err, MODE_E_VALUE, "clustering: no text vectors given");
    return MODE_OK;
}

struct ticket {
    uint64_t draw, row;
};

static bool above(struct ticket a, struct ticket b)
{
    return a.draw > b.draw || (a.draw == b.draw && a.row > b.row);
}

static int by_row(const void *a, const void *b)
{
    uint64_t x = ((const struct ticket *)a)->row, y = ((const struct ticket *)b)->row;
    return (x > y) - (x < y);
}

/* Every row draws a number from a generator of its own; the `want` smallest are the sample. So membership does not
 * depend on the order of rows, on file boundaries or on processes. t [want]: the sample, in row order. */
static void draw_sample(struct ticket *t, uint64_t want, uint64_t rows, uint64_t seed)
{
    for (uint64_t i = 0; i < rows; i++) {
        struct mode_rng r = mode_rng_for(seed, MODE_RNG_SAMPLE, 0, i);
        struct ticket x = {mode_rng_u64(&r), i};
        uint64_t at;
        if (i < want) { /* max-heap by draw */
            for (at = i; at > 0 && above(x, t[(at - 1) / 2]); at = (at - 1) / 2) t[at] = t[(at - 1) / 2];
        } else {
            if (!above(t[0], x)) continue;
            for (at = 0;;) {
                uint64_t child = 2 * at + 1;
                if (child + 1 < want && above(t[child + 1], t[child])) child++;
                if (child >= want || !above(t[child], x)) break;
                t[at] = t[child];
                at = child;
            }
        }
        t[at] = x;
    }
    qsort(t, want, sizeof *t, by_row);
}

/* Reads the rows of the sample; they are checked file by file, so that errors name the file. */
static enum mode_status gather(float *x, const struct ticket *t, uint64_t n, const int64_t *n_rows, size_t n_files,
                               int64_t d, const char *const *path, struct mode_error *err)
{
    uint64_t first = 0, done = 0;
    int64_t *number = mode_xmalloc((size_t)(n + 1) * sizeof *number);
    enum mode_status st = MODE_OK;
    for (size_t i = 0; i < n_files && !st; i++) {
        uint64_t end = first + (uint64_t)n_rows[i], start = done;
        if (done < n && t[done].row < end) {
            struct mode_safetensors f = {0};
            const struct mode_tensor *feat;
            if ((st = open_input(&f, &feat, n_rows[i], d, path[i], err))) break;
            for (; done < n && t[done].row < end; done++) {
                number[done] = (int64_t)(t[done].row - first);
                memcpy(x + (int64_t)done * d, mode_f32(feat) + number[done] * d, (size_t)d * sizeof *x);
            }
            mode_safetensors_close(&f);
        }
        st = mode_rows_check(x + (int64_t)start * d, (int64_t)(done - start), (int)d, true, number + start, path[i],
                             err);
        first = end;
    }
    free(number);
    return st;
}

/* Drops excess copies of frequent rows, which would become identical centres (equal_rows.h). step->fine is lowered to
 * the number of distinct rows. */
static enum mode_status deduplicate(struct mode_equal_rows *equal, struct mode_two_step_params *step, float *x,
                                    uint64_t rows, int64_t d, struct mode_error *err)
{
    enum mode_status st = mode_equal_rows_cap(equal, x, (int64_t)rows, (int)d, step->fine, err);
    if (st || rows == 0) return st;
    if (equal->different < step->coarse)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "clustering: the %llu captions of the sample are %lld different ones, too few for %d coarse "
                         "groups. HINT: fewer groups (cluster.coarse)",
                         (unsigned long long)rows, (long long)equal->different, step->coarse);
    if (equal->different < step->fine) step->fine = (int)equal->different;
    return MODE_OK;
}

/* Records dropped copies in the certificate: balance holds for the rows that were kept. */
static void note_deduplication(struct mode_centres *c, const struct mode_equal_rows *equal, uint64_t drawn, int asked)
{
    if (!equal->most && c->m == asked) return;
    char *with = mode_xasprintf("%.*s, \"sample\": {\"rows\": %llu, \"different\": %lld, \"most_copies\": %lld, "
                                "\"centres_asked\": %d}}",
                                (int)strlen(c->certificate) - 1, c->certificate, (unsigned long long)drawn,
                                (long long)equal->different, (long long)equal->most, asked);
    free(c->certificate);
    c->certificate = with;
}

enum mode_status mode_cluster_run(struct mode_cluster_result *result, const char *out_path, const char *const *feat,
                                  size_t n_feats, const struct mode_cluster_params *p, struct mode_error *err)
{
    enum mode_status st;
    struct mode_centres centres = {0}, grown = {0};
    struct mode_two_step_params step = p->step;
    struct mode_equal_rows equal;
    struct ticket *t = NULL;
    float *x = NULL;
    int64_t d;
    uint64_t rows;
    char *encoder_id = p->encoder_id ? mode_xstrdup(p->encoder_id) : NULL;
    char digest[MODE_DIGEST_HEX];
    *result = (struct mode_cluster_result){0};
    int64_t *n_rows = mode_xcalloc(n_feats + 1, sizeof *n_rows);
    if ((st = check_inputs(n_rows, &rows, &d, &encoder_id, feat, n_feats, err))) goto out;
    if (p->grow &&
        ((st = mode_digest_file(p->grow, digest, NULL, err)) || (st = mode_centres_load(&grown, p->grow, err)) ||
         (st = mode_centres_check_encoder(&grown, encoder_id, "the added data", err))))
        goto out;
    uint64_t want = (uint64_t)p->sample_per_centre * (uint64_t)p->step.fine;
    if (want == 0 || want > rows) want = rows;
    size_t bytes;
    if (!mode_mul_size((size_t)want, (size_t)d * sizeof *x, &bytes)) bytes = SIZE_MAX;
    t = malloc((size_t)(want + 1) * sizeof *t);
    x = bytes == SIZE_MAX ? NULL : malloc(bytes + 1);
    if (!t || !x) {
        st = MODE_FAIL(err, MODE_E_MEMORY,
                       "clustering: no memory for a sample of %llu rows. HINT: sample fewer per centre",
                       (unsigned long long)want);
        goto out;
    }
    draw_sample(t, want, rows, p->step.seed);
    if ((st = gather(x, t, want, n_rows, n_feats, d, feat, err))) goto out;
    if ((st = deduplicate(&equal, &step, x, want, d, err))) goto out;
    if ((st = mode_two_step_train(&centres, x, equal.rows, (int)d, &step, err))) goto out;
    note_deduplication(&centres, &equal, want, p->step.fine);
    centres.encoder_id = mode_xstrdup(encoder_id);
    *result = (struct mode_cluster_result){rows, want, (uint64_t)equal.rows, step.fine,
                                           mode_xstrdup(centres.certificate)};
    if (p->grow) {
        MODE_ASSERT(p->step.coarse == 1);
        if ((st = mode_centres_grow(&grown, digest, &centres, "the added data", err))) goto out;
    }
    st = mode_centres_save(p->grow ? &grown : &centres, out_path, err);
out:
    mode_centres_clear(&centres);
    mode_centres_clear(&grown);
    free(encoder_id);
    free(n_rows);
    free(t);
    free(x);
    return st;
}

void mode_cluster_result_clear(struct mode_cluster_result *result)
{
    free(result->certificate);
    *result = (struct mode_cluster_result){0};
}

enum mode_status mode_metric_parse(enum mode_metric *metric, const char *name, struct mode_error *err)
{
    if (strcmp(name, "euclidean") == 0) {
        *metric = MODE_METRIC_EUCLIDEAN;
    } else if (strcmp(name, "cosine") == 0) {
        *metric = MODE_METRIC_COSINE;
    } else {
        return MODE_FAIL(err, MODE_E_VALUE, "metric \"%.40s\" is not known; expected euclidean or cosine", name);
    }
    return MODE_OK;
}
