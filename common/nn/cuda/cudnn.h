/* cudnn.h - cuDNN's graph (backend) API, loaded on first use. Inside nn/cuda only.
 *
 *     struct mode__cudnn *dnn;
 *     if (mode__cudnn_open(&dnn, NULL, &err) == MODE_OK) { ...plans... }     // no cuDNN: own kernels do the work
 *     st = mode__cudnn_plan(dnn, &plan, &graph, true, 0, &err);
 *     mode__cudnn_run(dnn, plan, stream, pointers, work);
 *
 * A plan is cuDNN's execution plan of one struct mode__graph: an engine that supports the graph, chosen by the
 * heuristics, compiled on creation (up to seconds), then run with pointers alone. Plans are created for the current
 * GPU, or for a device described by a text: so `make cudnn-plans` creates the plans for an H100 on a machine without a
 * GPU, through the same functions. Versions below 9.15.1 are refused: 9.10.0 and 9.10.1 compute attention wrongly, and
 * before 9.15.1 the backward pass could read out of bounds if the number of tokens is not a multiple of 128. **No GPU
 * has run this yet.** Threads: one caller per handle. */
#ifndef MODE_NN_CUDA_CUDNN_H
#define MODE_NN_CUDA_CUDNN_H

#include "base/error.h"
#include "nn/cuda/graph.h"

#include <stddef.h>

struct mode__cudnn;
struct mode__cudnn_plan;

/* device: NULL for the current GPU, or device properties as cuDNN serialises them (JSON); then nothing can be run.
 * MODE_E_DEVICE: no cuDNN, or too old, or it fails to start; err says which. */
enum mode_status mode__cudnn_open(struct mode__cudnn **dnn, const char *device, struct mode_error *err);
void mode__cudnn_close(struct mode__cudnn **dnn);
/* 91900 for 9.19.0 */
size_t mode__cudnn_version(const struct mode__cudnn *dnn);

/* deterministic: exclude engines with the numerical note NONDETERMINISTIC. (cuDNN 9.19 gives it to no attention engine,
 * although a backward pass that accumulates dq in memory has no fixed order: the graph must be the one without that
 * sum, see deterministic of struct mode__attention_shape.) from: skip the candidates before this number; they are
 * ordered fastest first by the heuristics. MODE_E_DEVICE: no engine supports the graph; err has cuDNN's reason. */
enum mode_status mode__cudnn_plan(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan, const struct mode__graph *g,
                                  bool deterministic, int from, struct mode_error *err);
/* What recreates a plan with the same version of cuDNN: an engine and its knobs. */
enum { MODE__CUDNN_KNOBS = 6 };
struct mode__cudnn_choice {
    int64_t engine;
    int n_knobs;
    struct {
        int64_t kind, value;
    } knob[MODE__CUDNN_KNOBS];
};
enum mode_status mode__cudnn_plan_again(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan,
                                        const struct mode__graph *g, const struct mode__cudnn_choice *choice,
                                        struct mode_error *err);
int mode__cudnn_plan_candidate(const struct mode__cudnn_plan *plan); /* its number */
const struct mode__cudnn_choice *
mode__cudnn_plan_choice(const struct mode__cudnn_plan *plan); /* NULL: too many knobs */
void mode__cudnn_plan_free(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan);
size_t mode__cudnn_plan_work(const struct mode__cudnn_plan *plan); /* workspace bytes, aligned to 256 */
/* The choice, human-readable: "engine 8, candidate 1 of 3". */
const char *mode__cudnn_plan_text(const struct mode__cudnn_plan *plan);

/* stream: a cudaStream_t. pointer [MODE__N_PLACES]: addresses of the graph's tensors; places it does not have are
 * ignored. MODE_E_DEVICE. */
enum mode_status mode__cudnn_run(struct mode__cudnn *dnn, const struct mode__cudnn_plan *plan, void *stream,
                                 void *const *pointer, void *work, struct mode_error *err);

#endif
