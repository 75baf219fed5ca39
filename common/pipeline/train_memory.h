/* train_memory.h - what a training will take, decided and said before its first step.
 *
 * Of every block as much is kept as fits (models/clip_train.h: policies); what fits is a number given, or what is free:
 * of the device's memory, or of the host's (base/memory.h), but for one part in 32, which is left to others. On a
 * device the pictures of the batches that are on their way (ahead.h) come first. Results are the same bytes whatever is
 * chosen.
 */
#ifndef MODE_PIPELINE_TRAIN_MEMORY_H
#define MODE_PIPELINE_TRAIN_MEMORY_H

#include "models/clip_train.h"
#include "pipeline/windows.h"

#include <stdio.h>

struct mode_train_spec;

struct mode_train_memory { /* bytes */
    struct mode_clip_memory model;
    size_t batch;      /* the host's: batches that are made ready */
    size_t program;    /* the host's: what the process holds beside the model */
    size_t validation; /* the host's: features and scores of the largest task between steps, by the first process */
    size_t pictures;   /* the device's: the same batches as decoded, which it resizes; 0: pixels come from the host */
    size_t lists;      /* where the model lies: what else a validation takes */
    size_t total;      /* at most, where the model lies: model.total, lists and pictures; on the host batch, program and
                      * validation */
    size_t room;       /* there for it, what of it is taken already included; SIZE_MAX: not known */
    bool device;       /* the model lies in a device's memory */
    char why_host[MODE_WINDOWS_WHY]; /* "", or a sentence: why a device that could resize pictures does not */
};

/* Set clip's policies for batches of `own` pairs, of which `batches` are held at a time; before train_begin, after all
 * other settings. window: bytes of a picture as decoded, on average; 0: batches are pixels. With it a device is to
 * resize pictures where they take at most half of the room and the model fits into the rest under any policies;
 * why_host says that they do not. E_MEMORY: nothing fits; says in how many pieces a step would, m holds what was tried
 * last. */
enum mode_status mode_train_memory_plan(struct mode_train_memory *m, struct mode_clip *clip, struct mode_backend *be,
                                        const struct mode_train_spec *spec, int64_t own, int batches, double window,
                                        struct mode_error *err);
/* A table of a few lines. Nothing where total is SIZE_MAX. */
void mode_train_memory_print(const struct mode_train_memory *m, FILE *out);
/* {"parameters": bytes, ..., "blocks": {"image": {"keep": 12, ...}, "text": ...}}; the caller frees. */
char *mode_train_memory_json(const struct mode_train_memory *m);

#endif
