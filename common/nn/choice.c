#include "nn/choice.h"

#include "base/backend_name.h"

#include <stdio.h>
#include <string.h>

/* The GEMM precision of the backend of that name. */
static const char *precision_of(const char *name)
{
#define X(known, precision, ops, whom)                                                                                 \
    if (strcmp(name, known) == 0) return precision;
    MODE_BACKENDS(X)
#undef X
    return "f32";
}

/* The GPU's backend for a precision, or NULL. */
static const char *gpu_for(const char *precision)
{
    if (strcmp(precision, "fp8") == 0) return NULL; /* which no task can request */
#define X(name, its, ops, whom)                                                                                        \
    if (strcmp(precision, its) == 0) return name;
    MODE_BACKENDS_CUDA(X)
#undef X
    return NULL;
}

enum mode_status mode_backend_choose(struct mode_backend **be, char why[MODE_BACKEND_WHY], const char *name,
                                     const char *precision, struct mode_error *err)
{
    const char *asked = precision ? precision : "f32", *gpu = gpu_for(asked);
    struct mode_error no_gpu = {0};
    *be = NULL;
    if (why) why[0] = '\0';
    if (!gpu) return MODE_FAIL(err, MODE_E_VALUE, "precision \"%.20s\" is unknown; expected f32, tf32 or bf16", asked);
    if (strcmp(name, "auto") == 0) {
        bool exact = strcmp(asked, "f32") == 0;
        enum mode_status st = mode_backend_open(be, gpu, &no_gpu);
        if (st == MODE_OK) return MODE_OK;
        if (st != MODE_E_DEVICE || !exact || mode_backend_gpu_is_broken()) {
            if (err) *err = no_gpu;
            return st;
        }
        if (why) snprintf(why, MODE_BACKEND_WHY, "%.*s", MODE_BACKEND_WHY - 1, no_gpu.text);
        return mode_backend_open(be, "cpu", err);
    }
    if (precision && strcmp(name, "cuda") == 0) return mode_backend_open(be, gpu, err);
    if (precision && strcmp(precision_of(name), precision) != 0)
        return MODE_FAIL(
            err, MODE_E_DEVICE,
            "the task requires matrix products in %s, and this worker's backend \"%s\" computes them in %s. HINT: "
            "start it with --backend auto, or change the key precision of the run's spec",
            precision, name, precision_of(name));
    return mode_backend_open(be, name, err);
}
