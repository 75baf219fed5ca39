#include "embed.h"

#include "nn/backend.h"
#include "pipeline/embed.h"
#include "proto/embed.pb-c.h"

#include <string.h>

struct reporter {
    struct mode_job *job;
    struct mode_error *err;
};

static enum mode_status tick(void *ctx, size_t done, size_t total)
{
    struct reporter *r = ctx;
    mode_job_progress(r->job, done, total, "texts");
    if (mode_job_stopping(r->job))
        return MODE_FAIL(r->err, MODE_E_STOPPED, "stopped after %zu of %zu texts", done, total);
    return MODE_OK;
}

enum mode_status embed_work(struct mode_job *job, struct mode_error *err)
{
    size_t size;
    const uint8_t *packed = mode_job_request(job, &size);
    const char *captions = mode_job_input(job, "captions"), *out = mode_job_output(job, "feat.safetensors");
    struct mode_backend *be = NULL;
    struct mode_text_encoder *enc = NULL;
    struct reporter r = {.job = job, .err = err};
    uint64_t rows = 0;
    enum mode_status st;
    Mode__EmbedRequest *q = mode__embed_request__unpack(NULL, size, packed);
    if (!q) return MODE_FAIL(err, MODE_E_FORMAT, "embed: the request does not unpack (%zu bytes)", size);
    if (!captions == !q->task_dir) {
        st = MODE_FAIL(err, MODE_E_VALUE, "embed: the request must have either the input \"captions\" or a task_dir");
        goto out;
    }
    mode_job_progress(job, 0, 1, "texts");
    if (q->max_tokens > 1 << 16) {
        st = MODE_FAIL(err, MODE_E_VALUE, "embed: max_tokens %u is out of range", q->max_tokens);
        goto out;
    }
    if ((st = mode_backend_open(&be, "cpu", err)) ||
        (st = mode_text_encoder_open(&enc, be, q->encoder_dir, q->pooling, (int)q->max_tokens, err)))
        goto out;
    if (strcmp(mode_text_encoder_id(enc), q->encoder_id) != 0) {
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "%s: the encoder there is %s, the run was planned with %s. HINT: were its files replaced?",
                       q->encoder_dir, mode_text_encoder_id(enc), q->encoder_id);
        goto out;
    }
    st = captions ? mode_embed_captions(&rows, out, enc, captions, tick, &r, err)
                  : mode_embed_task(&rows, out, enc, q->task_dir, q->task_digest, tick, &r, err);
    if (!st) mode_job_count_rows(job, rows, rows);
out:
    mode_text_encoder_close(&enc);
    mode_backend_close(&be);
    mode__embed_request__free_unpacked(q, NULL);
    return st;
}
