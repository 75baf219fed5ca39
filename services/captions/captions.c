#include "captions.h"

#include "base/log.h"
#include "base/str.h"
#include "data/decoder.h"
#include "pipeline/captions.h"
#include "proto/captions.pb-c.h"

#include <jansson.h>
#include <stdlib.h>

struct reporter {
    struct mode_job *job;
    const char *shard;
    uint64_t seen[MODE_FATE_COUNT];
};

static bool progress(void *ctx, uint64_t done, uint64_t total)
{
    struct reporter *r = ctx;
    mode_job_progress(r->job, done, total, "samples");
    return !mode_job_stopping(r->job);
}

static bool fetching(void *ctx, uint64_t done, uint64_t total)
{
    struct reporter *r = ctx;
    mode_job_progress(r->job, done, total, "bytes of the shard");
    return !mode_job_stopping(r->job);
}

/* The first rejection of each fate and every 1000th are logged as warnings, the others at debug level. Every picture
 * that makes a decoder fail is logged: it may be an attack. */
static void reject(void *ctx, uint32_t sample, enum mode_fate fate, const char *why)
{
    struct reporter *r = ctx;
    const uint64_t n = r->seen[fate]++;
    if (mode_decoder_failed(why))
        mode_log_warn("decoder_failed", "shard=%s sample=%u fate=%s why=%s", r->shard, sample, mode_fate_name(fate),
                      why);
    mode_log_write(n % 1000 == 0 ? MODE_LOG_WARN : MODE_LOG_DEBUG, "sample_rejected",
                   "sample=%u fate=%s so_far=%llu why=%s", sample, mode_fate_name(fate), (unsigned long long)n + 1,
                   why);
}

enum mode_status captions_work(struct mode_job *job, struct mode_error *err)
{
    struct mode_captions c = {0};
    struct mode_str note = {0};
    enum mode_status st;
    Mode__CaptionsRequest *q = mode_job_unpack(job, &mode__captions_request__descriptor, err);
    if (!q) return err->status;
    struct reporter r = {.job = job, .shard = q->shard_name};
    struct mode_captions_options o = {.shard_path = q->shard_path,
                                      .shard_name = q->shard_name,
                                      .shard_size = q->shard_size,
                                      .shard_mtime_ns = q->shard_mtime_ns,
                                      .limits = MODE_IMAGE_LIMITS_DEFAULT,
                                      .seed = q->seed,
                                      .shard_index = q->shard_index,
                                      .all = q->all,
                                      .strict = q->strict,
                                      .skip_bad = q->skip_bad,
                                      .progress = progress,
                                      .reject = reject,
                                      .fetching = fetching,
                                      .ctx = &r};
    if (q->max_image_pixels) o.limits.max_pixels = q->max_image_pixels;
    if ((st = mode_text_keys_parse(&o.keys, (const char *const *)q->text_keys, q->n_text_keys, err)) ||
        (q->blur && (st = mode_face_key_parse(&o.blur, q->blur, err))) ||
        (st = mode_captions_extract(&c, mode_job_output(job, "captions.bin"), &o, err)))
        goto out;
    mode_job_count_rows(job, c.n_samples, c.n_rows);
    if (c.cut_at)
        mode_log_warn("shard_cut", "shard=%s byte=%llu samples=%u the rest is missing", q->shard_path,
                      (unsigned long long)c.cut_at, c.n_samples);
    if (c.bad) mode_log_warn("shard_skipped", "shard=%s why=%s", q->shard_path, c.bad);
    for (int f = MODE_FATE_KEPT + 1; f < MODE_FATE_COUNT; f++)
        if (c.fate_count[f]) mode_job_count_reject(job, mode_fate_name((enum mode_fate)f), c.fate_count[f]);
    mode_str_printf(
        &note, "{\"duplicate_ext\": %llu, \"ignored_members\": %llu, \"cut_at\": %llu, \"blurred\": %u, \"boxes\": %u",
        (unsigned long long)c.warn_duplicate_ext, (unsigned long long)c.warn_ignored_members,
        (unsigned long long)c.cut_at, c.n_blurred, c.n_boxes);
    if (c.bad) {
        json_t *why = json_string(c.bad);
        char *text = json_dumps(why, JSON_ENCODE_ANY);
        mode_str_printf(&note, ", \"bad\": %s", text);
        free(text);
        json_decref(why);
    }
    mode_str_add_char(&note, '}');
    mode_job_note(job, note.data);
out:
    mode_str_clear(&note);
    mode_captions_clear(&c);
    mode__captions_request__free_unpacked(q, NULL);
    return st;
}
