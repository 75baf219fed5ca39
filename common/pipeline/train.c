#include "pipeline/train.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "models/clip_config.h"
#include "models/clip_folder.h"
#include "models/clip_train.h"
#include "models/patch_dropout.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "pipeline/ahead.h"
#include "pipeline/checkpoint.h"
#include "pipeline/together.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct training {
    struct mode_backend *be;
    const struct mode_train_spec *spec;
    const struct mode_train_hooks *hooks;
    const char *validation_path; /* validation.jsonl; NULL: not written */
    struct mode_tokenizer *tokenizer;
    struct mode_clip *clip;
    struct mode_together *together;
    int64_t own; /* pairs of a batch on this rank */
    struct mode_stream *stream;
    char *scratch; /* folder of the outputs */
    struct mode_ahead *ahead;
    const struct mode_batch *batch; /* of the step being done */
    uint64_t step;                  /* steps done */
    double logit_scale;             /* exp of the parameter, after these steps */
    bool told_why_not;
    struct mode_str rows;    /* steps.jsonl so far */
    struct mode_str results; /* validation.jsonl so far */
    bool is_validated;       /* validated_at is set */
    uint64_t validated_at;   /* last step with a validation */
    uint64_t saved_at;       /* step of this process's last checkpoint; 0: none */
    struct {                 /* while rank 0 evaluates: result of its heartbeats (on_validating) */
        enum mode_status st;
        struct mode_error err;
    } wait;
    struct mode_board *board;
    char selection[MODE_DIGEST_HEX]; /* digest of the selection's file, if there is one */
    double *losses;                  /* [MODE_TRAIN_FINAL_STEPS] ring buffer of the last ones */
    char *chosen;                    /* GEMM algorithms autotuned in the first step; NULL: by rule or by the spec */
    struct mode_train_result result;
};

static double lr_of(const struct mode_train_spec *s, uint64_t step)
{
    double position = (double)s->start_step + (double)(step - s->start_step) * s->schedule_stride;
    const struct mode_schedule schedule = {.kind = s->schedule,
                                           .lr = s->lr,
                                           .warmup = s->warmup_steps,
                                           .total = s->total_steps,
                                           .cooldown = s->cooldown_steps,
                                           .power = s->cooldown_power,
                                           .end = s->cooldown_end};
    return mode_schedule_lr(&schedule, position);
}

static enum mode_status check_cooldown(const struct mode_train_spec *s, struct mode_error *err)
{
    if (s->schedule != MODE_SCHEDULE_CONSTANT_COOLDOWN) return MODE_OK;
    if (s->cooldown_steps >= 1 && s->cooldown_steps <= s->total_steps && s->cooldown_power > 0 &&
        s->cooldown_end >= 0 && s->cooldown_end <= s->lr)
        return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE,
                     "training %s: a cooldown in the last %llu of %llu steps, of power %g, from %g to %g: expected 1 "
                     "step to all, a power > 0, and no end below 0 or above the peak",
                     s->name, (unsigned long long)s->cooldown_steps, (unsigned long long)s->total_steps,
                     s->cooldown_power, s->lr, s->cooldown_end);
}

static enum mode_status check_spec(const struct mode_train_spec *s, int size, struct mode_error *err)
{
    if (!(s->start_step < s->end_step && s->end_step <= s->total_steps))
        return MODE_FAIL(err, MODE_E_VALUE,
                         "training %s: steps %llu to %llu of %llu are invalid, expected start < end <= total", s->name,
                         (unsigned long long)s->start_step, (unsigned long long)s->end_step,
                         (unsigned long long)s->total_steps);
    if (s->start_step > 0 && !(s->parent && s->parent->optimizer))
        return MODE_FAIL(err, MODE_E_VALUE,
                         "training %s: starts at step %llu, so it needs its parent's weights and AdamW moments",
                         s->name, (unsigned long long)s->start_step);
    if (!(s->grad_clip_norm >= 0 && isfinite(s->grad_clip_norm)) || s->accumulate < 0 || s->accumulate > s->batch)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "training %s: gradients clipped to a length of %g, a batch of %lld in %lld pieces: expected a "
                         "length of 0 (none) or more, and at most as many pieces as pairs",
                         s->name, s->grad_clip_norm, (long long)s->batch, (long long)s->accumulate);
    if (!(s->lr > 0 && s->eps > 0 && s->weight_decay >= 0 && s->beta1 >= 0 && s->beta1 < 1 && s->beta2 >= 0 &&
          s->beta2 < 1))
        return MODE_FAIL(err, MODE_E_VALUE,
                         "training %s: lr %g, betas %g and %g, eps %g, weight decay %g: expected lr, eps > 0, betas in "
                         "[0, 1), decay >= 0",
                         s->name, s->lr, s->beta1, s->beta2, s->eps, s->weight_decay);
    if (!(s->patch_dropout >= 0 && s->patch_dropout < 1))
        return MODE_FAIL(err, MODE_E_VALUE, "training %s: a patch dropout of %g, expected 0 or more and less than 1",
                         s->name, s->patch_dropout);
    double reach = (double)s->start_step + (double)(s->end_step - s->start_step) * s->schedule_stride;
    if (!(s->schedule_stride > 0 && reach <= (double)s->total_steps * (1 + 1e-9)))
        return MODE_FAIL(err, MODE_E_VALUE, "training %s: a schedule stride of %g walks from step %llu to %g of %llu",
                         s->name, s->schedule_stride, (unsigned long long)s->start_step, reach,
                         (unsigned long long)s->total_steps);
    enum mode_status st = check_cooldown(s, err);
    if (st) return st;
    if (s->batch % size != 0 || s->accumulate > s->batch / size)
        return MODE_FAIL(
            err, MODE_E_VALUE,
            "training %s: a batch of %lld cannot be shared by %d processes in %lld pieces each: it must be "
            "a multiple of their number, and no piece empty",
            s->name, (long long)s->batch, size, (long long)s->accumulate);
    if (s->batch < 2)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "training %s: a batch of %lld pairs has nothing to contrast, expected at least 2", s->name,
                         (long long)s->batch);
    return MODE_OK;
}

/* Digest of everything that decides the result bitwise: a checkpoint with another one is refused. */
static void fingerprint(const struct training *t, char hex[MODE_DIGEST_HEX])
{
    const struct mode_train_spec *s = t->spec;
    const struct mode_pool *pool = mode_stream_pool(t->stream);
    struct mode_str text = {0};
    mode_str_printf(&text, "%s\n%s\n%s\n%llu %lld %a %a %a %a %a\n%llu %llu %llu %llu %a %d %a %a %a\n%u %u %u",
                    s->name, s->model_config, s->preprocess_config ? s->preprocess_config : "",
                    (unsigned long long)s->seed, (long long)s->batch, s->lr, s->beta1, s->beta2, s->eps,
                    s->weight_decay, (unsigned long long)s->warmup_steps, (unsigned long long)s->total_steps,
                    (unsigned long long)s->start_step, (unsigned long long)s->end_step, s->schedule_stride, s->expert,
                    s->out_ratio, s->scale_min, s->scale_max, pool->n_in, pool->n_outside, pool->n_out);
    /* activation checkpointing is not part of it: results are bit-identical with and without */
    mode_str_printf(&text, "\n%a %lld %d %d", s->grad_clip_norm, (long long)(s->accumulate > 1 ? s->accumulate : 1),
                    s->dense_tokens, s->full_last_block);
    if (s->patch_dropout > 0) mode_str_printf(&text, "\npatch dropout %a", s->patch_dropout);
    if (s->lock.image) mode_str_printf(&text, "\nlocked image %lld", (long long)s->lock.image_unlocked_groups);
    if (s->lock.text) mode_str_printf(&text, "\nlocked text %lld", (long long)s->lock.text_unlocked_layers);
    if (s->window_shards) mode_str_printf(&text, "\nwindows of %u shards", s->window_shards);
    if (s->selection) mode_str_printf(&text, "\nselection %s", t->selection);
    if (s->schedule)
        mode_str_printf(&text, "\nschedule %s %llu %a %a", mode_schedule_name(s->schedule),
                        (unsigned long long)s->cooldown_steps, s->cooldown_power, s->cooldown_end);
    const char *algorithms = t->chosen ? t->chosen : s->algorithms;
    if (algorithms) mode_str_printf(&text, "\n%s", algorithms);
    mode_digest_bytes(text.data, text.len, hex);
    mode_str_clear(&text);
}

/* Shapes alone do not pin down the model: heads and the activation function must match the parent's too. */
static enum mode_status check_parent_config(const struct mode_train_spec *s, struct mode_error *err)
{
    struct mode_clip_files f;
    enum mode_status st = mode_clip_files_read(&f, s->parent->config, err);
    if (!st) {
        json_t *a = json_loads(f.model_cfg, 0, NULL), *b = json_loads(s->model_config, 0, NULL);
        if (!json_equal(a, b))
            st = MODE_FAIL(err, MODE_E_VALUE, "its model_cfg is %.200s, ours is %.200s", f.model_cfg, s->model_config);
        json_decref(a);
        json_decref(b);
    }
    mode_clip_files_clear(&f);
    return st;
}

/* Report what the loader noticed about the parent's file (mode_clip_note). */
static void tell_of_parent(const struct training *t)
{
    const char *note = mode_clip_note(t->clip);
    char text[800];
    if (!note[0] || !t->hooks->notice) return;
    snprintf(text, sizeof text, "%.400s: %s", t->spec->parent->weights, note);
    t->hooks->notice(t->hooks->ctx, text);
}

static enum mode_status load_parent(struct training *t, struct mode_error *err)
{
    const struct mode_train_parent *parent = t->spec->parent;
    uint64_t step = 0;
    enum mode_status st = parent->config ? check_parent_config(t->spec, err) : MODE_OK;
    if (!st) st = mode_clip_read_weights(t->clip, parent->weights, err);
    if (!st && parent->optimizer) st = mode_together_load_moments(t->together, &step, parent->optimizer, err);
    if (st) return mode_error_prefix(err, st, "training %s cannot go on from its parent", t->spec->name);
    if (step != t->spec->start_step)
        return MODE_FAIL(err, MODE_E_VALUE, "training %s: starts at step %llu, its parent %s ended at step %llu",
                         t->spec->name, (unsigned long long)t->spec->start_step, parent->optimizer,
                         (unsigned long long)step);
    tell_of_parent(t);
    return MODE_OK;
}

/* Fill the ring buffer of losses from steps.jsonl. */
static enum mode_status parse_rows(struct training *t, const char *path, struct mode_error *err)
{
    uint64_t step = t->spec->start_step;
    for (const char *line = t->rows.data; line && *line;) {
        const char *end = strchr(line, '\n');
        json_t *row = end ? json_loadb(line, (size_t)(end - line), 0, NULL) : NULL;
        const json_t *loss = json_object_get(row, "loss");
        bool ok = json_is_number(loss) && (uint64_t)json_integer_value(json_object_get(row, "step")) == step + 1;
        t->losses[step++ % MODE_TRAIN_FINAL_STEPS] = json_number_value(loss);
        json_decref(row);
        if (!ok)
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: line %llu is not the row of step %llu", path,
                             (unsigned long long)(step - t->spec->start_step), (unsigned long long)step);
        line = end + 1;
    }
    if (step != t->step)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: ends at step %llu, its checkpoint is of step %llu", path,
                         (unsigned long long)step, (unsigned long long)t->step);
    return MODE_OK;
}

static enum mode_status load_results(struct training *t, const char *path, struct mode_error *err)
{
    char *text;
    size_t size;
    enum mode_status st = mode_file_read(path, 0, &text, &size, err);
    if (st) return st;
    mode_str_add(&t->results, text, size);
    free(text);
    t->is_validated = mode_validation_last(&t->validated_at, &t->results);
    if (t->is_validated && t->validated_at <= t->step) return MODE_OK;
    return MODE_FAIL(err, MODE_E_FORMAT, "%s: its last line is not the row of a step up to %llu", path,
                     (unsigned long long)t->step);
}

static enum mode_status load_checkpoint(struct training *t, const char *dir, struct mode_error *err)
{
    char *weights = mode_path_join(dir, MODE_FILE_CLIP_WEIGHTS), *steps = mode_path_join(dir, MODE_FILE_STEPS),
         *optimizer = mode_path_join(dir, MODE_FILE_CLIP_OPTIMIZER), *state = mode_path_join(dir, "fingerprint");
    char *results = mode_path_join(dir, MODE_FILE_VALIDATION), *rows = NULL, *mark = NULL, want[MODE_DIGEST_HEX];
    size_t size = 0;
    enum mode_status st;
    fingerprint(t, want);
    if ((st = mode_file_read(state, 0, &mark, NULL, err))) goto out;
    if (strcmp(mark, want) != 0) {
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "checkpoint %s is of a training with other parameters or data. HINT: continue a training with "
                       "the options it was started with; for others, start a new one from that folder (--init)",
                       dir);
        goto out;
    }
    if ((st = mode_clip_read_weights(t->clip, weights, err))) goto out;
    if ((st = mode_together_load_moments(t->together, &t->step, optimizer, err))) goto out;
    if (t->step < t->spec->start_step || t->step > t->spec->end_step) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "checkpoint %s is of step %llu, expected %llu to %llu", dir,
                       (unsigned long long)t->step, (unsigned long long)t->spec->start_step,
                       (unsigned long long)t->spec->end_step);
        goto out;
    }
    if ((st = mode_file_read(steps, 0, &rows, &size, err))) goto out;
    mode_str_reset(&t->rows);
    mode_str_add(&t->rows, rows, size);
    if ((st = parse_rows(t, steps, err))) goto out;
    if (mode_file_exists(results)) st = load_results(t, results, err);
out:
    free(results);
    free(weights);
    free(steps);
    free(optimizer);
    free(state);
    free(rows);
    free(mark);
    return st;
}

static enum mode_status save_model(const struct training *t, const char *config, const char *weights,
                                   const char *optimizer, const char *steps, struct mode_error *err)
{
    enum mode_status st = mode_together_save_moments(t->together, optimizer, t->step, err);
    if (st || !mode_together_first(t->together)) return st;
    st = mode_clip_save(t->clip, config, weights, err);
    if (!st) st = mode_file_write_atomic(steps, t->rows.len ? t->rows.data : "", t->rows.len, err);
    return st;
}

/* Without results there must be no file, not even one of an earlier attempt. */
static enum mode_status save_results(const struct training *t, const char *path, struct mode_error *err)
{
    if (!path || !mode_together_first(t->together)) return MODE_OK;
    if (t->results.len > 0) return mode_file_write_atomic(path, t->results.data, t->results.len, err);
    return unlink(path) == 0 || errno == ENOENT ? MODE_OK : mode_output_fail(err, errno, path, "be removed");
}

static enum mode_status save_checkpoint(struct training *t, struct mode_error *err)
{
    char name[40], mark[MODE_DIGEST_HEX];
    if (!t->hooks->checkpoint_dir) return MODE_OK;
    if (!mode_together_first(t->together)) return save_model(t, NULL, NULL, NULL, NULL, err);
    snprintf(name, sizeof name, "step-%010llu", (unsigned long long)t->step);
    char *dir = t->hooks->checkpoint_dir(t->hooks->ctx, name);
    char *config = mode_path_join(dir, MODE_FILE_CLIP_CONFIG), *weights = mode_path_join(dir, MODE_FILE_CLIP_WEIGHTS),
         *optimizer = mode_path_join(dir, MODE_FILE_CLIP_OPTIMIZER), *steps = mode_path_join(dir, MODE_FILE_STEPS),
         *results = mode_path_join(dir, MODE_FILE_VALIDATION), *state = mode_path_join(dir, "fingerprint");
    enum mode_status st = mode_dir_make(dir, err);
    fingerprint(t, mark);
    if (!st) st = save_model(t, config, weights, optimizer, steps, err);
    if (!st) st = save_results(t, results, err);
    if (!st) st = mode_file_write_atomic(state, mark, strlen(mark), err);
    if (st) mode_dir_remove(dir, NULL); /* incomplete */
    if (!st) st = t->hooks->checkpoint_done(t->hooks->ctx, name, err);
    if (st) mode_error_prefix(err, st, "checkpoint of step %llu", (unsigned long long)t->step);
    if (!st) t->saved_at = t->step;
    free(dir);
    free(config);
    free(weights);
    free(optimizer);
    free(steps);
    free(results);
    free(state);
    return st;
}

/* The file is informational, and every checkpoint has a copy: failing to write it does not end the training. */
static void publish_results(struct training *t)
{
    struct mode_error err;
    char text[400];
    if (save_results(t, t->validation_path, &err) == MODE_OK) return;
    t->validation_path = NULL;
    snprintf(text, sizeof text, "the training continues without a file of its validations: %.300s", err.text);
    if (t->hooks->notice) t->hooks->notice(t->hooks->ctx, text);
}

static void end_board(struct training *t, const struct mode_error *why)
{
    char text[400];
    mode_board_close(&t->board);
    snprintf(text, sizeof text, "the training continues without its curve for TensorBoard: %.300s", why->text);
    if (t->hooks->notice) t->hooks->notice(t->hooks->ctx, text);
}

static void open_board(struct training *t)
{
    struct mode_error err;
    if (!t->hooks->board || !mode_together_first(t->together)) return;
    if (mode_board_open(&t->board, t->hooks->board, t->spec->start_step, t->rows.data, t->results.data, &err))
        end_board(t, &err);
}

static void add_row(struct training *t, double loss, double lr, double norm)
{
    /* the loss as rounded by the text, so that a resumed training averages the same numbers */
    char text[32];
    snprintf(text, sizeof text, "%.9g", loss);
    t->losses[(t->step - 1) % MODE_TRAIN_FINAL_STEPS] = strtod(text, NULL);
    mode_str_printf(&t->rows,
                    "{\"step\": %llu, \"epoch\": %.6f, \"loss\": %s, \"lr\": %.9g, \"logit_scale\": %.7g, "
                    "\"samples_seen\": %llu",
                    (unsigned long long)t->step, t->batch->epoch, text, lr, t->logit_scale,
                    (unsigned long long)(t->step * (uint64_t)t->spec->batch));
    if (t->spec->grad_clip_norm > 0) mode_str_printf(&t->rows, ", \"grad_norm\": %.7g", norm);
    mode_str_add_cstr(&t->rows, "}\n");
}

/* Report once why a device runs the ops one by one and not as a captured graph. */
static void tell_why_not(struct training *t, const char *why)
{
    char text[256];
    if (t->told_why_not || !why[0] || t->spec->no_graphs || !t->hooks->notice) return;
    snprintf(text, sizeof text, "steps run op by op, not as CUDA graphs: %s", why);
    t->hooks->notice(t->hooks->ctx, text);
    t->told_why_not = true;
}

/* Report once, after the first step, how many GEMMs the fp8 experiment runs in fp8. */
static void tell_narrowed(const struct training *t, const struct mode_backend_narrowed *before)
{
    struct mode_backend_narrowed n;
    char text[256];
    mode_backend_narrowed(t->be, &n);
    n.made -= before->made;
    n.left -= before->left;
    if (t->result.steps_run > 0 || n.made + n.left == 0 || !t->hooks->notice) return;
    snprintf(text, sizeof text,
             "experiment: of the GEMMs in the blocks, per step, %lld run in fp8 and %lld stay in bf16 because a "
             "dimension is "
             "not a multiple of 16",
             (long long)n.made, (long long)n.left);
    t->hooks->notice(t->hooks->ctx, text);
}

static bool chooses(const struct training *t)
{
    return t->hooks->chosen && !t->spec->algorithms;
}

/* Autotune in the first step, not earlier: a validation before it has other shapes. */
static void autotune(const struct training *t)
{
    if (t->spec->measure)
        mode_backend_measure(t->be, true);
    else
        mode_backend_measure_products(t->be, chooses(t));
}

/* Use the algorithms of the spec instead of autotuning. */
static enum mode_status take_algorithms(struct training *t, struct mode_error *err)
{
    const struct mode_train_spec *s = t->spec;
    char why_not[400], text[500];
    enum mode_status st;
    if (!s->algorithms) return MODE_OK;
    if ((st = mode_backend_use_algorithms(t->be, s->algorithms, why_not, sizeof why_not, err)))
        return mode_error_prefix(err, st, "training %s", s->name);
    if (!why_not[0] || !t->hooks->notice) return MODE_OK;
    snprintf(text, sizeof text, "the stored algorithms are not used: %s", why_not);
    t->hooks->notice(t->hooks->ctx, text);
    return MODE_OK;
}

/* End autotuning after the first step; its choices stay for the whole training. */
static enum mode_status keep_algorithms(struct training *t, struct mode_error *err)
{
    mode_backend_measure(t->be, false);
    if (!chooses(t)) return MODE_OK;
    t->chosen = mode_backend_algorithms(t->be);
    if (t->chosen) return t->hooks->chosen(t->hooks->ctx, t->chosen, err);
    if (t->hooks->notice)
        t->hooks->notice(t->hooks->ctx, "no algorithms were stored: a processor has none to choose from");
    return MODE_OK;
}

/* Where the pairs of the step after `step` are in the order of all: draws the patches that they keep, while a device
 * computes. */
static void place_next(const struct training *t, uint64_t step)
{
    const int64_t rank = t->hooks->group ? t->hooks->group->rank : 0;
    mode_clip_train_place(t->clip, step * (uint64_t)t->spec->batch + (uint64_t)(rank * t->own));
}

static enum mode_status train_step(struct training *t, struct mode_train_progress *p, struct mode_error *err)
{
    const struct mode_train_spec *s = t->spec;
    enum mode_status st;
    const char *why_not;
    double began = mode_clock_s();
    struct mode_backend_narrowed before;
    mode_backend_narrowed(t->be, &before);
    if (t->result.steps_run == 0) autotune(t);
    if ((st = mode_ahead_next(t->ahead, &t->batch, err))) return st;
    double filled = mode_clock_s(), lr = lr_of(s, t->step);
    const struct mode_adamw update = {.lr = lr,
                                      .beta1 = s->beta1,
                                      .beta2 = s->beta2,
                                      .eps = s->eps,
                                      .weight_decay = s->weight_decay,
                                      .clip_norm = s->grad_clip_norm};
    mode_together_tell(t->together, &update, (int64_t)t->step + 1);
    const struct mode_batch *b = t->batch;
    const struct mode_pictures *pictures = mode_ahead_pictures(t->ahead);
    st = pictures ? mode_clip_train_load_pictures(t->clip, pictures, b->ids, b->n_ids, t->own, err)
                  : mode_clip_train_load(t->clip, b->pixels, b->ids, b->n_ids, t->own, err);
    if (st) return st;
    if ((st = mode_together_step(t->together, &why_not, err))) return st;
    place_next(t, t->step + 1);
    tell_why_not(t, why_not);
    tell_narrowed(t, &before);
    double loss = mode_clip_train_loss(t->clip), norm = mode_together_norm(t->together); /* the step's only sync */
    if ((st = mode_together_check(t->together, err))) return st;
    if (!isfinite(loss))
        return MODE_FAIL(err, MODE_E_VALUE,
                         "training %s: the loss of step %llu is %f (lr %g, logit scale %g). HINT: a "
                         "lower lr or a longer warm-up",
                         s->name, (unsigned long long)t->step + 1, loss, lr, t->logit_scale);
    if (!isfinite(norm))
        return MODE_FAIL(err, MODE_E_VALUE, "training %s: the gradients of step %llu have length %f", s->name,
                         (unsigned long long)t->step + 1, norm);
    if (t->result.steps_run == 0 && (st = keep_algorithms(t, err))) return st;
    t->logit_scale = (double)mode_clip_train_logit_scale(t->clip);
    t->step++;
    const size_t row = t->rows.len;
    add_row(t, loss, lr, norm);
    double now = mode_clock_s();
    t->result.seconds += now - began;
    t->result.data_seconds += filled - began;
    t->result.steps_run++;
    *p = (struct mode_train_progress){.step = t->step,
                                      .start_step = s->start_step,
                                      .end_step = s->end_step,
                                      .loss = loss,
                                      .lr = lr,
                                      .epoch = t->batch->epoch,
                                      .logit_scale = t->logit_scale,
                                      .samples_per_second = (double)s->batch / (now - began),
                                      .data_seconds = filled - began,
                                      .step_seconds = now - began};
    const struct mode_board_pace pace = {p->samples_per_second, p->data_seconds, p->step_seconds,
                                         t->hooks->group ? t->hooks->group->size : 1};
    struct mode_error no_board;
    if (t->board && mode_board_add(t->board, t->rows.data + row, &pace, &no_board)) end_board(t, &no_board);
    return MODE_OK;
}

/* A stop arrived while a batch waited for a shard: checkpoint the steps done so far, as for a stop between two steps.
 * Not with several ranks: saving is a collective, which the others do not enter. */
static void keep_steps(struct training *t)
{
    struct mode_error stopped_all_the_same;
    if (!t->hooks->group && t->step > t->result.resumed_at && t->saved_at != t->step)
        (void)save_checkpoint(t, &stopped_all_the_same);
}

static enum mode_status stopped(const struct training *t, struct mode_error *err)
{
    return MODE_FAIL(err, MODE_E_STOPPED, "training %s: stopped after step %llu of %llu", t->spec->name,
                     (unsigned long long)t->step, (unsigned long long)t->spec->end_step);
}

/* A heartbeat to the other ranks after every batch of a validation: without it their collective would time out. */
static bool on_validating(void *ctx)
{
    struct training *t = ctx;
    bool is_busy = true;
    if (t->hooks->validating) t->hooks->validating(t->hooks->ctx);
    if ((t->wait.st = mode_together_any(t->together, &is_busy, &t->wait.err))) return false;
    return !(t->hooks->stopping && t->hooks->stopping(t->hooks->ctx));
}

static void on_result(void *ctx, const struct mode_validation_result *r)
{
    const struct training *t = ctx;
    if (t->hooks->validated) t->hooks->validated(t->hooks->ctx, r);
}

/* On rank 0. *stop: a stop was requested, and there are no results. */
static enum mode_status evaluate(struct training *t, bool *stop, struct mode_error *err)
{
    const struct mode_validation_hook hook = {t, on_validating, on_result};
    const size_t before = t->results.len;
    struct mode_error why;
    t->wait.st = MODE_OK;
    enum mode_status st = mode_validation_run(t->spec->validation, &t->results, t->clip, t->tokenizer, t->step, &hook,
                                              &why);
    if (t->wait.st) why = t->wait.err;
    *stop = st == MODE_E_STOPPED && !t->wait.st;
    if (st && !*stop) {
        if (err) *err = why;
        return mode_error_prefix(err, why.status, "training %s, validation after step %llu", t->spec->name,
                                 (unsigned long long)t->step);
    }
    if (*stop) return MODE_OK;
    publish_results(t);
    if (t->board && mode_board_validated(t->board, t->results.data + before, &why)) end_board(t, &why);
    return MODE_OK;
}

/* Validate after this step if it is due and not done yet. The other ranks wait for rank 0. */
static enum mode_status validate(struct training *t, struct mode_error *err)
{
    const struct mode_train_spec *s = t->spec;
    const double began = mode_clock_s();
    bool stop = false, is_busy = true;
    enum mode_status st = MODE_OK;
    if (!s->validation || !mode_validation_due(s->validation, t->step, s->start_step, s->end_step) ||
        (t->is_validated && t->validated_at >= t->step))
        return MODE_OK;
    if (mode_together_first(t->together)) st = evaluate(t, &stop, err);
    while (!st && is_busy) {
        is_busy = false;
        st = mode_together_any(t->together, &is_busy, err);
    }
    if (!st) st = mode_together_any(t->together, &stop, err);
    t->result.validation_seconds += mode_clock_s() - began;
    if (st || !stop) {
        t->is_validated = true;
        t->validated_at = t->step;
        return st;
    }
    if (t->saved_at != t->step && t->step > s->start_step && (st = save_checkpoint(t, err))) return st;
    return stopped(t, err);
}

static enum mode_status run(struct training *t, struct mode_error *err)
{
    const struct mode_train_spec *s = t->spec;
    enum mode_status st;
    while (t->step < s->end_step) {
        struct mode_train_progress p;
        if ((st = validate(t, err))) return st;
        if ((st = train_step(t, &p, err))) {
            if (st == MODE_E_STOPPED) keep_steps(t);
            return st;
        }
        if (t->hooks->progress) t->hooks->progress(t->hooks->ctx, &p);
        bool last = t->step == s->end_step, stop = t->hooks->stopping && t->hooks->stopping(t->hooks->ctx);
        if ((st = mode_together_any(t->together, &stop, err))) return st;
        if (!last && (stop || (s->checkpoint_steps && t->step % s->checkpoint_steps == 0)))
            if ((st = save_checkpoint(t, err))) return st;
        if (!last && stop) return stopped(t, err);
    }
    return validate(t, err);
}

static double final_loss(const struct training *t)
{
    uint64_t n = t->spec->end_step - t->spec->start_step;
    double sum = 0;
    if (n > MODE_TRAIN_FINAL_STEPS) n = MODE_TRAIN_FINAL_STEPS;
    for (uint64_t i = n; i > 0; i--) sum += t->losses[(t->step - i) % MODE_TRAIN_FINAL_STEPS];
    return sum / (double)n;
}

/* Those of the run spec, where they are set. */
static void add_lock_keys(json_t *o, const struct mode_clip_lock *lock)
{
    const json_int_t groups = lock->image_unlocked_groups, layers = lock->text_unlocked_layers;
    if (lock->image) json_object_set_new(o, "lock_image", json_true());
    if (lock->image && groups > 0) json_object_set_new(o, "lock_image_unlocked_groups", json_integer(groups));
    if (lock->text) json_object_set_new(o, "lock_text", json_true());
    if (lock->text && layers > 0) json_object_set_new(o, "lock_text_unlocked_layers", json_integer(layers));
}

static enum mode_status write_summary(const struct training *t, const char *path, struct mode_error *err)
{
    const struct mode_train_spec *s = t->spec;
    const struct mode_train_result *r = &t->result;
    json_t *o = json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}",
                          "name", s->name, "expert", s->expert, "rows", (json_int_t)r->rows, "in_cluster",
                          (json_int_t)r->in_cluster, "outside", (json_int_t)r->outside, "out_of_cluster_per_epoch",
                          (json_int_t)r->out_of_cluster, "pool", (json_int_t)(r->in_cluster + r->out_of_cluster),
                          "out_ratio", s->out_ratio, "seed", (json_int_t)s->seed, "batch", (json_int_t)s->batch,
                          "start_step", (json_int_t)s->start_step, "end_step", (json_int_t)s->end_step, "total_steps",
                          (json_int_t)s->total_steps, "samples_seen", (json_int_t)r->samples_seen, "parameters",
                          (json_int_t)r->parameters, "final_loss", r->final_loss, "start_lr", lr_of(s, s->start_step),
                          "end_lr", lr_of(s, s->end_step - 1));
    MODE_ASSERT(o);
    if (s->schedule) json_object_set_new(o, "schedule", json_string(mode_schedule_name(s->schedule)));
    if (s->schedule == MODE_SCHEDULE_CONSTANT_COOLDOWN) {
        json_object_set_new(o, "cooldown_steps", json_integer((json_int_t)s->cooldown_steps));
        json_object_set_new(o, "cooldown_power", json_real(s->cooldown_power));
        json_object_set_new(o, "cooldown_end", json_real(s->cooldown_end));
    }
    if (s->init) json_object_set_new(o, "init", json_string(s->init));
    if (s->patch_dropout > 0) json_object_set_new(o, "patch_dropout", json_real(s->patch_dropout));
    add_lock_keys(o, &s->lock);
    if (s->window_shards) json_object_set_new(o, "window_shards", json_integer(s->window_shards));
    if (s->selection) json_object_set_new(o, "selection", json_string(t->selection));
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    json_decref(o);
    MODE_ASSERT(text);
    enum mode_status st = mode_file_write_atomic(path, text, strlen(text), err);
    free(text);
    return st;
}

/* Prefetched batches: a device computes while the CPU prepares them. */
static int slots_of(const struct training *t)
{
    return mode_backend_is_device(t->be) ? MODE_AHEAD_SLOTS : 0;
}

/* All ranks must train with the same options, from the same step. */
static enum mode_status agree(const struct training *t, struct mode_error *err)
{
    char text[MODE_DIGEST_HEX + 48];
    const uint64_t every = t->spec->validation ? mode_validation_every(t->spec->validation) : 0;
    fingerprint(t, text);
    size_t at = strlen(text);
    snprintf(text + at, sizeof text - at, " %llu %d %llu", (unsigned long long)t->step,
             t->hooks->checkpoint_dir != NULL, (unsigned long long)every);
    return mode_together_begin(t->together, text, err);
}

/* Report how many patches a step computes. */
static void tell_of_patches(const struct training *t)
{
    char text[160];
    const int64_t patches = mode_clip_patches(t->clip);
    if (t->spec->patch_dropout == 0 || !t->hooks->notice) return;
    snprintf(text, sizeof text, "patch dropout %g: a step computes %lld of the %lld patches of every picture",
             t->spec->patch_dropout, (long long)mode_patches_kept(patches, t->spec->patch_dropout), (long long)patches);
    t->hooks->notice(t->hooks->ctx, text);
}

static void add_lock(struct mode_str *text, const char *tower, int64_t unlocked, const char *part)
{
    mode_str_printf(text, "%s%s", text->len ? ", " : "locked: ", tower);
    if (unlocked == 1) mode_str_printf(text, " but its last %s", part);
    if (unlocked > 1) mode_str_printf(text, " but its last %lld %ss", (long long)unlocked, part);
}

/* Report which parameters are not trained. */
static void tell_of_locks(const struct training *t)
{
    const struct mode_clip_lock *lock = &t->spec->lock;
    const struct mode_clip_locked l = mode_clip_locked(t->clip);
    struct mode_str text = {0};
    if (lock->image) add_lock(&text, "image tower", lock->image_unlocked_groups, "group");
    if (lock->text) add_lock(&text, "text tower", lock->text_unlocked_layers, "layer");
    if (text.len > 0 && t->hooks->notice) {
        mode_str_printf(&text, ": %zu of %zu tensors, %.1f %% of the parameters", l.tensors, l.all_tensors,
                        100 * (double)l.parameters / (double)l.all);
        t->hooks->notice(t->hooks->ctx, text.data);
    }
    mode_str_clear(&text);
}

static enum mode_status prepare(struct training *t, struct mode_error *err)
{
    const struct mode_train_spec *s = t->spec;
    enum mode_status st;
    size_t n_params;
    if (s->selection && (st = mode_digest_file(s->selection, t->selection, NULL, err))) return st;
    if ((st = mode_tokenizer_open_clip(&t->tokenizer, s->tokenizer, MODE_CLIP_CLEAN_OPENAI, err))) return st;
    if ((st = mode_clip_create(&t->clip, t->be, s->model_config, s->preprocess_config, s->seed, err))) return st;
    if ((st = mode_clip_set_lock(t->clip, &s->lock, err))) return st;
    tell_of_locks(t);
    mode_clip_set_group(t->clip, t->hooks->group);
    mode_clip_set_savings(t->clip, s->dense_tokens, s->full_last_block);
    mode_clip_set_patch_dropout(t->clip, s->patch_dropout, s->seed);
    tell_of_patches(t);
    mode_backend_record(t->be, !s->no_graphs);
    if ((st = take_algorithms(t, err))) return st;
    const struct mode_stream_options options = {.n_shards = s->n_shards,
                                                .shards = s->shards,
                                                .centres = s->centres,
                                                .expert = s->expert,
                                                .selection = s->selection,
                                                .out_ratio = s->out_ratio,
                                                .scale_min = s->scale_min,
                                                .scale_max = s->scale_max,
                                                .seed = s->seed,
                                                .window_shards = s->window_shards,
                                                .samples = s->end_step * (uint64_t)s->batch,
                                                .preprocess = *mode_clip_preprocess(t->clip),
                                                .context = mode_clip_context(t->clip),
                                                .tokenizer = t->tokenizer,
                                                .scratch = t->scratch,
                                                .fetching = t->hooks->fetching,
                                                .ctx = t->hooks->ctx,
                                                .part = t->hooks->group ? t->hooks->group->rank : 0,
                                                .parts = t->hooks->group ? t->hooks->group->size : 1};
    if ((st = mode_stream_open(&t->stream, &options, err))) return st;
    if (mode_stream_warning(t->stream) && t->hooks->notice)
        t->hooks->notice(t->hooks->ctx, mode_stream_warning(t->stream));
    struct mode_train_memory memory;
    st = mode_train_memory_plan(&memory, t->clip, t->be, s, t->own, 1 + slots_of(t),
                                mode_stream_window_bytes(t->stream), err);
    if (t->hooks->memory) t->hooks->memory(t->hooks->ctx, &memory);
    if (st) return st;
    if (memory.why_host[0] && t->hooks->notice) t->hooks->notice(t->hooks->ctx, memory.why_host);
    if ((st = mode_clip_train_begin(t->clip, t->own, err))) return st;
    if (s->validation && (st = mode_clip_train_infer(t->clip, err))) return st;
    if ((st = mode_together_open(&t->together, t->be, t->clip, t->hooks->group, err))) return st;
    const struct mode_param *params = mode_clip_params(t->clip, &n_params);
    for (size_t i = 0; i < n_params; i++) t->result.parameters += (size_t)mode_tensor_count(&params[i].value);
    t->step = s->start_step;
    if (s->parent && (st = load_parent(t, err))) return st;
    const struct mode_pool *pool = mode_stream_pool(t->stream);
    t->result.rows = (uint64_t)pool->n_in + pool->n_outside;
    t->result.in_cluster = pool->n_in;
    t->result.outside = pool->n_outside;
    t->result.out_of_cluster = pool->n_out;
    if (mode_pool_size(pool) < s->batch)
        return MODE_FAIL(err, MODE_E_VALUE, "training %s: a batch of %lld needs as many pairs, the model's pool has %u",
                         s->name, (long long)s->batch, mode_pool_size(pool));
    if (t->hooks->resume_from && (st = load_checkpoint(t, t->hooks->resume_from, err))) return st;
    t->result.resumed_at = t->step;
    if ((st = agree(t, err))) return st;
    place_next(t, t->step);
    publish_results(t);
    open_board(t);
    mode_backend_sync(t->be);
    t->logit_scale = (double)mode_clip_logit_scale(t->clip);
    return mode_ahead_open(&t->ahead, t->stream, t->be, memory.pictures > 0, t->own, options.preprocess.size,
                           options.context, t->step, s->end_step, slots_of(t), err);
}

enum mode_status mode_train(struct mode_train_result *result, struct mode_backend *be,
                            const struct mode_train_spec *spec, const struct mode_train_outputs *outputs,
                            const struct mode_train_hooks *hooks, struct mode_error *err)
{
    enum mode_status st;
    static const struct mode_train_hooks no_hooks = {0};
    struct training t = {
        .be = be, .spec = spec, .hooks = hooks ? hooks : &no_hooks, .validation_path = outputs->validation};
    t.losses = mode_xcalloc(MODE_TRAIN_FINAL_STEPS, sizeof *t.losses);
    int size = t.hooks->group ? t.hooks->group->size : 1;
    t.own = spec->batch / size;
    t.scratch = mode_path_folder(outputs->summary);
    if ((st = check_spec(spec, size, err))) goto out;
    if ((st = prepare(&t, err))) goto out;
    if ((st = run(&t, err))) goto out;
    t.result.samples_seen = (spec->end_step - spec->start_step) * (uint64_t)spec->batch;
    t.result.final_loss = final_loss(&t);
    if ((st = save_model(&t, outputs->config, outputs->weights, outputs->optimizer, outputs->steps, err))) goto out;
    if (mode_together_first(t.together) && (st = write_summary(&t, outputs->summary, err))) goto out;
    st = mode_together_any(t.together, &(bool){false}, err); /* a barrier: no rank returns before the files exist */
out:
    if (t.ahead) t.result.device_pixels = mode_ahead_resizes(t.ahead, &t.result.host_resized);
    if (result) *result = t.result;
    mode_ahead_close(&t.ahead);
    mode_stream_close(&t.stream);
    mode_together_close(&t.together);
    mode_clip_close(&t.clip);
    mode_tokenizer_close(&t.tokenizer);
    mode_board_close(&t.board);
    mode_str_clear(&t.rows);
    mode_str_clear(&t.results);
    free(t.losses);
    free(t.scratch);
    free(t.chosen);
    return st;
}
