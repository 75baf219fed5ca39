#include "assign.h"

#include "base/str.h"
#include "nn/choice.h"
#include "pipeline/assign.h"
#include "proto/assign.pb-c.h"

#include <inttypes.h>
#include <stdlib.h>

/* How many pairs each expert gets: the coordinator plans with it, and need not open every shard's file. */
static enum mode_status note(struct mode_job *job, const struct mode_assign_result *result, const char *assign,
                             const char *centres, bool only, struct mode_error *err)
{
    struct mode_centres c = {0};
    struct mode_str text = {0};
    enum mode_status st = mode_centres_load(&c, centres, err);
    uint64_t *pairs = mode_xcalloc((size_t)c.n + 1, sizeof *pairs);
    if (!st) st = mode_assign_count(pairs, assign, &c, err);
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

enum mode_status assign_work(struct mode_job *job, struct mode_error *err)
{
    const char *feat = mode_job_input(job, "feat"), *centres = mode_job_input(job, "centres");
    struct mode_assign_result result = {0};
    struct mode_backend *be = NULL;
    enum mode_status st;
    Mode__AssignRequest *r = mode_job_unpack(job, &mode__assign_request__descriptor, err);
    if (!r) return err->status;
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
