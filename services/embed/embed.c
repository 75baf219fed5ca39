#include "embed.h"

#include "base/log.h"
#include "base/str.h"
#include "nn/choice.h"
#include "pipeline/embed.h"
#include "proto/embed.pb-c.h"

#include <stdlib.h>
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

/* The encoder, kept from task to task: identity and precision determine its vectors. */
struct loaded {
    struct mode_backend *be;
    struct mode_text_encoder *enc;
    char *precision;
};

static void drop(void *kept)
{
    struct loaded *l = kept;
    mode_text_encoder_close(&l->enc);
    mode_backend_close(&l->be);
    free(l->precision);
    free(l);
}

static enum mode_status encoder_of(struct mode_text_encoder **enc, struct mode_job *job, const Mode__EmbedRequest *q,
                                   struct mode_error *err)
{
    struct loaded *l = mode_job_kept(job);
    char why[MODE_BACKEND_WHY];
    enum mode_status st;
    if (l && strcmp(mode_text_encoder_id(l->enc), q->encoder_id) == 0 && strcmp(l->precision, q->precision) == 0) {
        *enc = l->enc;
        mode_job_made_on(job, mode_backend_name(l->be));
        return MODE_OK;
    }
    mode_job_keep(job, NULL, NULL); /* frees the old one first */
    l = mode_xcalloc(1, sizeof *l);
    l->precision = mode_xstrdup(q->precision);
    if (!(st = mode_backend_choose(&l->be, why, mode_job_backend(job), q->precision, err)))
        st = mode_text_encoder_open(&l->enc, l->be, q->encoder_dir, q->pooling, (int)q->max_tokens, err);
    if (!st && strcmp(mode_text_encoder_id(l->enc), q->encoder_id) != 0)
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "%s: the encoder there is %s, the run was planned with %s. HINT: were its files replaced?",
                       q->encoder_dir, mode_text_encoder_id(l->enc), q->encoder_id);
    if (st) {
        drop(l);
        return st;
    }
    mode_log_info("backend", "name=%s %s", mode_backend_name(l->be), why);
    mode_job_made_on(job, mode_backend_name(l->be));
    mode_job_keep(job, l, drop);
    *enc = l->enc;
    return MODE_OK;
}

enum mode_status embed_work(struct mode_job *job, struct mode_error *err)
{
    const char *captions = mode_job_input(job, "captions"), *out = mode_job_output(job, "feat.safetensors");
    struct mode_text_encoder *enc = NULL;
    struct reporter r = {.job = job, .err = err};
    uint64_t rows = 0;
    enum mode_status st;
    Mode__EmbedRequest *q = mode_job_unpack(job, &mode__embed_request__descriptor, err);
    if (!q) return err->status;
    if (!!captions + !!q->task_dir + (q->n_texts > 0) != 1) {
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "embed: the request must have either the input \"captions\", a task_dir or texts");
        goto out;
    }
    if (q->max_tokens > 1 << 16) {
        st = MODE_FAIL(err, MODE_E_VALUE, "embed: max_tokens %u is out of range", q->max_tokens);
        goto out;
    }
    if ((st = encoder_of(&enc, job, q, err))) goto out;
    if (captions)
        st = mode_embed_captions(&rows, out, enc, captions, tick, &r, err);
    else if (q->task_dir)
        st = mode_embed_task(&rows, out, enc, q->task_dir, q->task_digest, tick, &r, err);
    else
        st = mode_embed_texts(&rows, out, enc, (const char *const *)q->texts, q->n_texts, tick, &r, err);
    if (!st) mode_job_count_rows(job, rows, rows);
out:
    mode__embed_request__free_unpacked(q, NULL);
    return st;
}
