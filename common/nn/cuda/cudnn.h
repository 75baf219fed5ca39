/* cudnn.h - cuDNN's graph interface, loaded when it is first asked for. Inside nn/cuda only.
 *
 *     struct mode__cudnn *dnn;
 *     if (mode__cudnn_open(&dnn, NULL, &err) == MODE_OK) { ...plans... }     // no cuDNN: own kernels do the work
 *     st = mode__cudnn_plan(dnn, &plan, &graph, true, 0, &err);
 *     mode__cudnn_run(dnn, plan, stream, pointers, work);
 *
 * A plan is what cuDNN makes of one struct mode__graph: chosen by its heuristics among the engines that take the graph,
 * compiled when it is made (up to seconds), then run with pointers alone. Plans are made for the current GPU, or for a
 * device that a text describes: so `make cudnn-plans` makes the plans for an H100 on a machine without a GPU, through
 * the same functions.
 * Versions below 9.15.1 are refused: 9.10.0 and 9.10.1 compute attention wrongly, and before 9.15.1 the way back could
 * read beyond its tensors where the number of tokens is no multiple of 128. **No GPU has run this yet.** Threads: one
 * caller per handle. */
#ifndef MODE_NN_CUDA_CUDNN_H
#define MODE_NN_CUDA_CUDNN_H

#include "base/error.h"
#include "nn/cuda/graph.h"

#include <stddef.h>

struct mode__cudnn;
struct mode__cudnn_plan;

/* device: NULL for the current GPU, or the device's properties as cuDNN writes them (JSON); then nothing can be run.
 * MODE_E_DEVICE: no cuDNN here, or too old, or it cannot be started; err says which. */
enum mode_status mode__cudnn_open(struct mode__cudnn **dnn, const char *device, struct mode_error *err);
void mode__cudnn_close(struct mode__cudnn **dnn);
/* 91900 for 9.19.0 */
size_t mode__cudnn_version(const struct mode__cudnn *dnn);

/* same_bytes: no engine which says of itself that its sums come in any order. (cuDNN 9.19 says so of none for
 * attention, although a way back that adds dq up in memory has no order: the graph must be the one without such a sum,
 * see same_bytes of struct mode__attention_shape.) from: of the candidates, the likely fastest first, those before this
 * number are left out. MODE_E_DEVICE: no engine takes the graph; err has cuDNN's reason. */
enum mode_status mode__cudnn_plan(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan, const struct mode__graph *g,
                                  bool same_bytes, int from, struct mode_error *err);
/* What makes a plan again, with the same version of cuDNN: an engine and what it was told. */
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
size_t mode__cudnn_plan_work(const struct mode__cudnn_plan *plan); /* bytes of scratch, to be aligned to 256 */
/* What was chosen, of how many: "engine 8, candidate 1 of 3". */
const char *mode__cudnn_plan_text(const struct mode__cudnn_plan *plan);

/* stream: a cudaStream_t. pointer [MODE__N_PLACES]: where the graph's tensors lie; those it lacks are ignored.
 * MODE_E_DEVICE. */
enum mode_status mode__cudnn_run(struct mode__cudnn *dnn, const struct mode__cudnn_plan *plan, void *stream,
                                 void *const *pointer, void *work, struct mode_error *err);

#endif
