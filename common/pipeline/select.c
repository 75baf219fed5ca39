#include "pipeline/select.h"

#include "base/file.h"
#include "base/str.h"
#include "data/evalset.h"
#include "data/safetensors.h"
#include "pipeline/assign.h"

#include <stdlib.h>
#include <string.h>

enum mode_status mode_select_open(struct mode_select *s, const char *centres_path, const char *encoder_id,
                                  struct mode_error *err)
{
    char digest[MODE_DIGEST_HEX];
    *s = (struct mode_select){0};
    enum mode_status st = mode_centres_load(&s->centres, centres_path, err);
    if (!st) st = mode_digest_file(centres_path, digest, NULL, err);
    if (!st && encoder_id) st = mode_centres_check_encoder(&s->centres, encoder_id, "the request", err);
    if (st) return st;
    mode_selection_init(&s->selection, &s->centres, digest);
    s->pairs = mode_xcalloc((size_t)s->centres.m, sizeof *s->pairs);
    return MODE_OK;
}

enum mode_status mode_select_words(struct mode_select *s, struct mode_chosen *chosen, const char *feat_path,
                                   int nearest, struct mode_error *err)
{
    struct mode_safetensors f;
    const struct mode_tensor *feat;
    const int64_t dim[2] = {-1, s->centres.d};
    if (chosen) *chosen = (struct mode_chosen){0};
    enum mode_status st = mode_safetensors_open(&f, feat_path, err);
    if (st) return st;
    if (!(st = mode_centres_check_encoder(&s->centres, mode_safetensors_meta(&f, "encoder_id"), feat_path, err)) &&
        !(st = mode_safetensors_need(&f, "feat", MODE_DTYPE_F32, 2, dim, &feat, err)) &&
        !(st = mode_selection_add(&s->selection, chosen, &s->centres, mode_f32(feat), (int)feat->dim[0], nearest, err)))
        s->words += (uint64_t)feat->dim[0];
    mode_safetensors_close(&f);
    return st;
}

enum mode_status mode_select_count(struct mode_select *s, const char *assign_path, struct mode_error *err)
{
    struct mode_safetensors f;
    enum mode_status st = mode_safetensors_open(&f, assign_path, err);
    if (st) return st;
    const char *made_with = mode_safetensors_meta(&f, "centres");
    if (!mode_centres_know(&s->centres, s->selection.centres, made_with))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: assigned with centres %.12s, the words choose among centres %.12s",
                       assign_path, made_with ? made_with : "(unnamed)", s->selection.centres);
    mode_safetensors_close(&f);
    uint64_t before = 0, after = 0;
    for (int i = 0; i < s->centres.m; i++) before += s->pairs[i];
    if (!st) st = mode_assign_count(s->pairs, assign_path, NULL, s->centres.m, err);
    for (int i = 0; i < s->centres.m; i++) after += s->pairs[i];
    s->rows += after - before;
    return st;
}

uint64_t mode_select_pairs(const struct mode_select *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < s->selection.m; i++) sum += s->selection.chosen[i] ? s->pairs[i] : 0;
    return sum;
}

void mode_select_close(struct mode_select *s)
{
    mode_centres_clear(&s->centres);
    mode_selection_clear(&s->selection);
    free(s->pairs);
    *s = (struct mode_select){0};
}

enum mode_status mode_select_names_read(char ***names, int *n, const char *path, struct mode_error *err)
{
    char **line = NULL, *save = NULL;
    int n_lines = 0;
    *names = NULL;
    *n = 0;
    enum mode_status st = mode_evalset_words_read(&line, &n_lines, path, err);
    for (int i = 0; !st && i < n_lines; i++)
        for (char *w = strtok_r(line[i], "\t", &save); w; w = strtok_r(NULL, "\t", &save)) {
            *names = mode_xrealloc(*names, ((size_t)*n + 1) * sizeof **names);
            (*names)[(*n)++] = mode_xstrdup(w);
        }
    mode_evalset_words_free(line, n_lines);
    return st;
}
