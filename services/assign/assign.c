#include "assign.h"

#include "base/str.h"
#include "nn/choice.h"
#include "pipeline/assign.h"
#include "pipeline/select.h"
#include "proto/assign.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Notes the number of pairs of each expert, so that the coordinator can plan without opening every shard's file. */
static enum mode_status note(struct mode_job *job, const struct mode_assign_result *result, const char *assign,
                             const char *centres, bool only, struct mode_error *err)
{
    struct mode_centres c = {0};
    struct mode_str text = {0};
    enum mode_status st = mode_centres_load(&c, centres, err);
    uint64_t *pairs = mode_xcalloc((size_t)c.n + 1, sizeof *pairs);
    if (!st) st = mode_assign_count(pairs, assign, c.fine_to_coarse, c.m, err);
    mode_str_add_char(&text, '{');
    if (only) mode_str_printf(&text, "\"nearer_to_other_experts\": %" PRIu64 ", ", result->nearer_elsewhere);
    mode_str_add_cstr(&text, "\"pairs\": [");
    for (int k = 0; k < c.n; k++) mode_str_printf(&text, "%s%" PRIu64, k ? ", " : "", pairs[k]);
    mode_str_add_cstr(&text, "]}");
    if (!st) mode_job_note(job, text.data);
    mode_str_clear(&text);
    free(pairs);
    mode_centres_clear(&c);
    return st;
}

/* The inputs prefix/0000, prefix/0001, ...; NULL: no more. */
static const char *numbered(const struct mode_job *job, const char *prefix, unsigned i)
{
    char name[40];
    snprintf(name, sizeof name, "%s/%04u", prefix, i);
    return mode_job_input(job, name);
}

/* Words choose fine centres. */
static enum mode_status choose(struct mode_job *job, const Mode__AssignRequest *r, struct mode_error *err)
{
    const char *centres = mode_job_input(job, "centres"), *path;
    struct mode_select s = {0};
    struct mode_str note = {0};
    enum mode_status st;
    if (!centres || !numbered(job, "words", 0))
        return MODE_FAIL(err, MODE_E_VALUE, "assign: input \"%s\" is missing", centres ? "words/0000" : "centres");
    if (r->nearest < 1 || r->nearest > MODE_SELECTION_MOST_NEAREST)
        return MODE_FAIL(err, MODE_E_VALUE, "assign: %u nearest centres of a word, expected 1 to %d", r->nearest,
                         MODE_SELECTION_MOST_NEAREST);
    mode_job_progress(job, 0, 1, "selections");
    if ((st = mode_select_open(&s, centres, r->encoder_id, err))) goto out;
    for (unsigned i = 0; !st && (path = numbered(job, "words", i)); i++)
        st = mode_select_words(&s, NULL, path, (int)r->nearest, err);
    for (unsigned i = 0; !st && (path = numbered(job, "assign", i)); i++) {
        st = mode_select_count(&s, path, err);
        mode_job_goes_on(job);
    }
    if (!st) st = mode_selection_save(&s.selection, mode_job_output(job, "selection.safetensors"), err);
    if (st) goto out;
    mode_job_count_rows(job, s.words, s.words);
    mode_str_printf(
        &note, "{\"words\": %" PRIu64 ", \"chosen\": %d, \"fine\": %d, \"pairs\": %" PRIu64 ", \"rows\": %" PRIu64 "}",
        s.words, s.selection.n_chosen, s.selection.m, mode_select_pairs(&s), s.rows);
    mode_job_note(job, note.data);
    mode_job_progress(job, 1, 1, "selections");
out:
    mode_select_close(&s);
    mode_str_clear(&note);
    return st;
}

enum mode_status assign_work(struct mode_job *job, struct mode_error *err)
{
    const char *feat = mode_job_input(job, "feat"), *centres = mode_job_input(job, "centres");
    struct mode_assign_result result = {0};
    struct mode_backend *be = NULL;
    enum mode_status st;
    Mode__AssignRequest *r = mode_job_unpack(job, &mode__assign_request__descriptor, err);
    if (!r) return err->status;
    if (r->has_nearest) {
        st = choose(job, r, err);
        goto out;
    }
    if (!feat || !centres) {
        st = MODE_FAIL(err, MODE_E_VALUE, "assign: input \"%s\" is missing", feat ? "centres" : "feat");
        goto out;
    }
    mode_job_progress(job, 0, 1, "shards");
    if ((st = mode_backend_choose(&be, NULL, mode_job_backend(job), NULL, err))) goto out;
    mode_job_made_on(job, mode_backend_name(be));
    if ((st = mode_assign_run(&result, be, mode_job_output(job, "assign.safetensors"), feat, centres, r->encoder_id,
                              r->only_coarse, err))) {
        mode_error_prefix(err, st, "shard %u", r->shard_index);
        goto out;
    }
    mode_job_count_rows(job, result.rows, result.rows);
    if ((st = note(job, &result, mode_job_output(job, "assign.safetensors"), centres, r->only_coarse != MODE_ASSIGN_ANY,
                   err)))
        goto out;
    mode_job_progress(job, 1, 1, "shards");
out:
    mode_backend_close(&be);
    mode__assign_request__free_unpacked(r, NULL);
    return st;
}
