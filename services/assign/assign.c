#include "assign.h"

#include "base/str.h"
#include "nn/choice.h"
#include "pipeline/assign.h"
#include "proto/assign.pb-c.h"

#include <inttypes.h>
#include <stdlib.h>

enum mode_status assign_work(struct mode_job *job, struct mode_error *err)
{
    size_t size;
    const uint8_t *packed = mode_job_request(job, &size);
    const char *feat = mode_job_input(job, "feat"), *centres = mode_job_input(job, "centres");
    struct mode_assign_result result = {0};
    struct mode_backend *be = NULL;
    enum mode_status st;
    Mode__AssignRequest *r = mode__assign_request__unpack(NULL, size, packed);
    if (!r) return MODE_FAIL(err, MODE_E_FORMAT, "assign: the request does not unpack (%zu bytes)", size);
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
    if (r->only_coarse != MODE_ASSIGN_ANY) {
        char *note = mode_xasprintf("{\"nearer_to_other_experts\": %" PRIu64 "}", result.nearer_elsewhere);
        mode_job_note(job, note);
        free(note);
    }
    mode_job_progress(job, 1, 1, "shards");
out:
    mode_backend_close(&be);
    mode__assign_request__free_unpacked(r, NULL);
    return st;
}
