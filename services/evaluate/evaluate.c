#include "evaluate.h"

#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "models/clip.h"
#include "nn/choice.h"
#include "pipeline/checkpoint.h"
#include "pipeline/evaluate.h"
#include "proto/evaluate.pb-c.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

static bool on_batch(void *ctx, uint64_t done, uint64_t total, const char *unit)
{
    mode_job_progress(ctx, done, total, unit);
    return !mode_job_stopping(ctx);
}

static enum mode_status check_digests(const Mode__EvaluateRequest *r, struct mode_error *err)
{
    char digest[MODE_DIGEST_HEX];
    enum mode_status st = mode_digest_file(r->tokenizer_path, digest, NULL, err);
    if (st) return st;
    if (strcmp(digest, r->tokenizer_digest) != 0)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: has digest %s, the task was planned with %s", r->tokenizer_path,
                         digest, r->tokenizer_digest);
    return mode_evalset_unchanged(r->task_dir, r->task_digest, err);
}

static enum mode_status write_outputs(struct mode_job *job, const struct mode_result *result, struct mode_error *err)
{
    json_t *o = NULL;
    enum mode_status st = mode_result_json(&o, result, err);
    if (st) return st;
    char *note = json_dumps(json_object_get(o, "metrics"), JSON_COMPACT | JSON_REAL_PRECISION(6));
    mode_job_note(job, note);
    free(note);
    json_decref(o);
    if ((st = mode_result_write_logits(mode_job_output(job, "logits.safetensors"), result, err))) return st;
    return mode_result_write_metrics(mode_job_output(job, "metrics.json"), result, err);
}

static void on_notice(void *ctx, const char *text)
{
    (void)ctx;
    mode_log_info("notice", "%s", text);
}

enum mode_status evaluate_work(struct mode_job *job, struct mode_error *err)
{
    size_t bytes;
    const char *config = mode_job_input(job, MODE_FILE_CLIP_CONFIG),
               *weights = mode_job_input(job, MODE_FILE_CLIP_WEIGHTS);
    Mode__EvaluateRequest *r = mode_job_unpack(job, &mode__evaluate_request__descriptor, err);
    const struct mode_encode_hook hook = {.ctx = job, .more = on_batch, .notice = on_notice};
    struct mode_tokenizer *tokenizer = NULL;
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    struct mode_evalset set = {0};
    float *cosine = NULL;
    enum mode_status st;
    if (!r) return err->status;
    if (!config || !weights) {
        st = MODE_FAIL(err, MODE_E_VALUE, "the evaluate task of model %s has no input \"%s\"", r->model_name,
                       config ? MODE_FILE_CLIP_WEIGHTS : MODE_FILE_CLIP_CONFIG);
        goto out;
    }
    if ((st = check_digests(r, err))) goto out;
    if ((st = mode_tokenizer_open_clip(&tokenizer, r->tokenizer_path, MODE_CLIP_CLEAN_OPENAI, err))) goto out;
    if ((st = mode_backend_choose(&be, NULL, mode_job_backend(job), r->precision, err))) goto out;
    mode_job_made_on(job, mode_backend_name(be));
    if ((st = mode_clip_load_files(&clip, be, config, weights, err))) goto out;
    if ((st = mode_evalset_open(&set, r->task_dir, err))) goto out;
    if (!mode_mul_size((size_t)set.n_images, (size_t)mode_evaluate_columns(&set) * sizeof(float), &bytes) ||
        !(cosine = malloc(bytes ? bytes : 1))) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "task %s: no memory for scores [%d, %lld]", set.name, set.n_images,
                       (long long)mode_evaluate_columns(&set));
        goto out;
    }
    if ((st = mode_evaluate(cosine, clip, tokenizer, &set, r->batch, &hook, err))) goto out;
    struct mode_result result = mode_evaluate_result(&set, cosine, r->model_name);
    result.task_name = r->task_name;
    if ((st = write_outputs(job, &result, err))) goto out;
    mode_job_count_rows(job, (uint64_t)set.n_images, (uint64_t)set.n_images);
out:
    free(cosine);
    mode_evalset_close(&set);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    mode_tokenizer_close(&tokenizer);
    mode__evaluate_request__free_unpacked(r, NULL);
    return st;
}
