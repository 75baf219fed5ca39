#include "pipeline/train_memory.h"

#include "base/memory.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/decoder.h"
#include "nn/backend.h"
#include "pipeline/train.h"

#include <jansson.h>
#include <stdlib.h>

enum { LEFT_TO_OTHERS = 32 }; /* reserve: 1/32 of the free memory */
static const double MIB = 1 << 20;
static const char *const policies[] = {"keep", "lean", "checkpoint"};

/* Bytes in the model's memory besides the model. */
static size_t beside(const struct mode_train_memory *m)
{
    return m->lists + (m->device ? m->pictures : m->batch + m->program + m->decoders + m->validation);
}

static void count(struct mode_train_memory *m, const struct mode_clip *clip, int64_t own)
{
    mode_clip_memory(&m->model, clip, own);
    m->total = m->model.total;
    if (m->total < SIZE_MAX - beside(m)) m->total += beside(m);
}

/* Memory available to a training whose parameters are allocated already. */
static size_t room_of(const struct mode_train_memory *m, const struct mode_backend *be, size_t stated)
{
    size_t left, total, there = m->model.parameters + m->model.copies + (m->device ? 0 : m->program);
    mode_backend_room(be, &left, &total);
    if (!m->device) left = mode_memory_left("");
    if (!m->device && stated) return stated;
    if (left == SIZE_MAX) return SIZE_MAX;
    const size_t free = left - left / LEFT_TO_OTHERS + there;
    return stated && stated < left + there ? stated : free;
}

/* Choose the checkpointing policies, unless the spec fixes them. branches: run both towers concurrently. */
static bool fit_as(struct mode_train_memory *m, struct mode_clip *clip, const struct mode_train_spec *spec, int64_t own,
                   int64_t pieces, bool branches)
{
    mode_clip_set_branches(clip, branches);
    mode_clip_set_memory(clip, pieces, spec->checkpoint_activations);
    if (!spec->checkpoint_activations && m->room != SIZE_MAX)
        (void)mode_clip_fit(clip, own, m->room > beside(m) ? m->room - beside(m) : 0);
    count(m, clip, own);
    return m->total <= m->room;
}

/* Run the towers serially if there is no memory to run them concurrently. */
static bool fit(struct mode_train_memory *m, struct mode_clip *clip, const struct mode_train_spec *spec, int64_t own,
                int64_t pieces)
{
    return (m->device && !spec->no_streams && fit_as(m, clip, spec, own, pieces, true)) ||
           fit_as(m, clip, spec, own, pieces, false);
}

/* Try to let the device resize the pictures: false if the model does not fit beside them. */
static bool fit_pictures(struct mode_train_memory *m, struct mode_clip *clip, const struct mode_train_spec *spec,
                         int64_t own, int64_t pieces, int batches, double window)
{
    const size_t each = mode_windows_bytes(mode_clip_preprocess(clip), own, mode_windows_average(window, own)),
                 ids = (size_t)own * ((size_t)mode_clip_context(clip) + 1) * sizeof(int32_t);
    size_t all, there = m->room / 2;
    if (!mode_mul_size((size_t)batches, each, &all)) all = SIZE_MAX;
    if (all <= there) {
        m->pictures = all;
        mode_clip_set_pictures(clip, true);
        if (fit(m, clip, spec, own, pieces)) {
            m->batch = all + (size_t)batches * ids;
            return true;
        }
        there = m->room > m->model.total ? m->room - m->model.total : 0;
        m->pictures = 0;
        mode_clip_set_pictures(clip, false);
    }
    mode_windows_why(m->why_host, all, there);
    return false;
}

enum mode_status mode_train_memory_plan(struct mode_train_memory *m, struct mode_clip *clip, struct mode_backend *be,
                                        const struct mode_train_spec *spec, int64_t own, int batches, double window,
                                        struct mode_error *err)
{
    int64_t pieces = spec->accumulate > 1 ? spec->accumulate : 1;
    size_t side = (size_t)mode_clip_preprocess(clip)->size, held = mode_memory_held();
    char remedy[200] = "a smaller batch or a smaller model", more[64] = "";
    *m = (struct mode_train_memory){.device = mode_backend_is_device(be)};
    count(m, clip, own);
    const size_t parameters = m->model.parameters + m->model.copies;
    m->batch = (size_t)batches * (size_t)own *
               (3 * side * side * sizeof(float) + ((size_t)mode_clip_context(clip) + 1) * sizeof(int32_t));
    if (batches > 0) m->decoders = (size_t)mode_parallel_threads() * MODE_DECODER_BYTES;
    if (spec->validation) m->validation = mode_validation_bytes(spec->validation, clip);
    if (spec->validation) m->lists = mode_clip_train_infer_bytes(clip, own);
    m->program = m->device || held < parameters ? 0 : held - parameters;
    m->room = room_of(m, be, spec->memory);
    if (m->total == SIZE_MAX) return MODE_OK; /* overflow: mode_clip_train_begin reports it */
    if (window > 0 && mode_windows_wanted(be) && fit_pictures(m, clip, spec, own, pieces, batches, window))
        return MODE_OK;
    if (fit(m, clip, spec, own, pieces)) return MODE_OK;
    const size_t needed = m->total, tried = (size_t)pieces;
    while (pieces < own) {
        pieces = 2 * pieces < own ? 2 * pieces : own;
        if (!fit(m, clip, spec, own, pieces)) continue;
        snprintf(remedy, sizeof remedy, "--accumulate %lld (train.accumulate: %lld) takes %.1f MiB", (long long)pieces,
                 (long long)pieces, (double)m->total / MIB);
        break;
    }
    (void)fit(m, clip, spec, own, (int64_t)tried);
    if (spec->memory && needed <= room_of(m, be, 0)) /* the limit is the one that was given */
        snprintf(more, sizeof more, "--memory %zum, or ", (needed >> 20) + 2);
    return MODE_FAIL(err, MODE_E_MEMORY,
                     "training %s: a batch of %lld takes %.1f MiB of %s memory even with full activation "
                     "checkpointing; %.1f MiB are free%s. HINT: %s%s",
                     spec->name, (long long)own, (double)needed / MIB, m->device ? "device" : "host",
                     (double)m->room / MIB, spec->memory ? " (--memory)" : "", more, remedy);
}

static void row(FILE *out, const char *what, size_t bytes, const char *more)
{
    fprintf(out, "  %-20s %10.1f%s%s\n", what, (double)bytes / MIB, *more ? "   " : "", more);
}

void mode_train_memory_print(const struct mode_train_memory *m, FILE *out)
{
    const struct mode_clip_memory *c = &m->model;
    const char *host = m->device ? "host memory, not in the total" : "";
    size_t others = c->activations;
    char text[96];
    if (m->total == SIZE_MAX) return;
    fprintf(out, "memory, at most            MiB\n");
    row(out, "parameters", c->parameters, "");
    if (c->copies) row(out, "bf16 copies", c->copies, "");
    row(out, "gradients", c->gradients, "");
    row(out, "moments", c->moments, "");
    for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
        others -= c->kept[p];
        if (c->blocks.image[p] + c->blocks.text[p] == 0) continue;
        char *name = mode_xasprintf("blocks: %s", policies[p]);
        snprintf(text, sizeof text, "image %lld, text %lld", (long long)c->blocks.image[p],
                 (long long)c->blocks.text[p]);
        row(out, name, c->kept[p], text);
        free(name);
    }
    row(out, "other activations", others, "");
    row(out, "shared in turn", c->turns,
        c->branches ? "activation gradients of both towers, a recomputed block, logits"
                    : "activation gradients, a recomputed block, logits");
    row(out, "workspace", c->workspace, "");
    if (m->pictures) row(out, "pictures", m->pictures, "of the next batches, resized on the device");
    row(out, "batch", m->batch, host);
    if (m->validation) row(out, "validation", m->validation + (m->device ? 0 : m->lists), host);
    if (!m->device) row(out, "program", m->program, "");
    if (m->decoders) row(out, "decoders", m->decoders, m->device ? host : "of pictures; more if these are large");
    snprintf(text, sizeof text, "of %.1f free; %.1f %% of the forward pass is recomputed", (double)m->room / MIB,
             100 * c->again);
    if (m->room == SIZE_MAX) snprintf(text, sizeof text, "%.1f %% of the forward pass is recomputed", 100 * c->again);
    row(out, "total", m->total, text);
}

static json_t *numbers(const int64_t n[MODE_CLIP_POLICIES])
{
    json_t *o = json_object();
    for (int p = 0; p < MODE_CLIP_POLICIES; p++) json_object_set_new(o, policies[p], json_integer((json_int_t)n[p]));
    return o;
}

char *mode_train_memory_json(const struct mode_train_memory *m)
{
    const struct mode_clip_memory *c = &m->model;
    const struct {
        const char *name;
        size_t bytes;
    } all[] = {{"parameters", c->parameters}, {"copies", c->copies},
               {"gradients", c->gradients},   {"moments", c->moments},
               {"kept", c->kept[0]},          {"lean", c->kept[1]},
               {"checkpointed", c->kept[2]},  {"activations", c->activations},
               {"turns", c->turns},           {"workspace", c->workspace},
               {"batch", m->batch},           {"program", m->program},
               {"decoders", m->decoders},     {"pictures", m->pictures},
               {"validation", m->validation}, {"lists", m->lists},
               {"total", m->total},           {"room", m->room}};
    json_t *o = json_object(), *blocks = json_object();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].bytes != SIZE_MAX) json_object_set_new(o, all[i].name, json_integer((json_int_t)all[i].bytes));
    json_object_set_new(blocks, "image", numbers(c->blocks.image));
    json_object_set_new(blocks, "text", numbers(c->blocks.text));
    json_object_set_new(o, "blocks", blocks);
    json_object_set_new(o, "branches", json_boolean(c->branches));
    json_object_set_new(o, "again", json_real(c->again));
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(4));
    json_decref(o);
    MODE_ASSERT(text);
    return text;
}
