/* train_memory.h - the memory plan of a training, made before its first step.
 *
 * Activation checkpointing is chosen per block so that the training fits (models/clip_train.h: policies). The limit is
 * given, or it is the free memory of the device or the host (base/memory.h) minus 1/32 as a reserve. On a device the
 * prefetched batches of pictures (ahead.h) are reserved first. Results are bit-identical under any choice.
 *
 * Threads: the backend's caller. */
#ifndef MODE_PIPELINE_TRAIN_MEMORY_H
#define MODE_PIPELINE_TRAIN_MEMORY_H

#include "models/clip_train.h"
#include "pipeline/windows.h"

#include <stdio.h>

struct mode_train_spec;

struct mode_train_memory { /* bytes */
    struct mode_clip_memory model;
    size_t batch;      /* host: prefetched batches */
    size_t program;    /* host: the process without the model */
    size_t decoders;   /* host: the processes that decode pictures, of ordinary size */
    size_t validation; /* host: features and scores of the largest task, in rank 0 */
    size_t pictures;   /* device: decoded pictures of the prefetched batches; 0: pixels come from the host */
    size_t lists;      /* in the model's memory: further buffers of validation */
    size_t total;      /* upper bound in the model's memory: model.total, lists and pictures; on the host also batch,
                        * program, decoders and validation */
    size_t room;       /* memory available for it, including what is already allocated; SIZE_MAX: not known */
    bool device;       /* the model's memory is a device's */
    char why_host[MODE_WINDOWS_WHY]; /* "", or a sentence: why a device that could resize pictures does not */
};

/* Set clip's policies for batches of `own` pairs, of which `batches` are held at a time; before train_begin, after all
 * other settings. window: mean bytes of a decoded picture's crop; 0: batches are pixels. With it a device resizes
 * pictures if they take at most half of the room and the model fits into the rest under some policies; otherwise
 * why_host says why not. E_MEMORY: nothing fits; the error says with how many micro-batches a step would, and m holds
 * the last plan that was tried. */
enum mode_status mode_train_memory_plan(struct mode_train_memory *m, struct mode_clip *clip, struct mode_backend *be,
                                        const struct mode_train_spec *spec, int64_t own, int batches, double window,
                                        struct mode_error *err);
/* Print a table of a few lines; nothing if total is SIZE_MAX. */
void mode_train_memory_print(const struct mode_train_memory *m, FILE *out);
/* {"parameters": bytes, ..., "blocks": {"image": {"keep": 12, ...}, "text": ...}}; the caller frees. */
char *mode_train_memory_json(const struct mode_train_memory *m);

#endif
