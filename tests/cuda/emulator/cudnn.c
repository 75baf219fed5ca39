/* cudnn.c - in cuDNN's place: a plan is the graph itself, and a run executes it in plain C. So the way through cuDNN,
 * its pointers, lists and scratch, is run on the host as the kernels are. */
#include "nn/cuda/cudnn.h"

#include "ops/graph_machine.h"

#include <cuda_runtime_api.h>
#include <string.h>

struct job { /* a run, waiting in its stream; kept to the end, as graphs repeat it */
    struct mode__graph graph;
    struct machine machine;
    void *work;
    struct job *before;
};

struct mode__cudnn {
    int plans; /* in existence */
    struct job *jobs;
};

struct mode__cudnn_plan {
    struct mode__graph graph;
};

enum { SCRATCH = 1000 }; /* bytes; a run overwrites them, as cuDNN may */

enum mode_status mode__cudnn_open(struct mode__cudnn **dnn, const char *device, struct mode_error *err)
{
    (void)device;
    (void)err;
    *dnn = mode_xcalloc(1, sizeof **dnn);
    return MODE_OK;
}

void mode__cudnn_close(struct mode__cudnn **dnn)
{
    MODE_ASSERT(!*dnn || (*dnn)->plans == 0);
    for (struct job *j = *dnn ? (*dnn)->jobs : NULL; j;) {
        struct job *before = j->before;
        free(j);
        j = before;
    }
    free(*dnn);
    *dnn = NULL;
}

size_t mode__cudnn_version(const struct mode__cudnn *dnn)
{
    (void)dnn;
    return 0;
}

enum mode_status mode__cudnn_plan(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan, const struct mode__graph *g,
                                  bool same_bytes, struct mode_error *err)
{
    (void)same_bytes;
    (void)err;
    *plan = mode_xcalloc(1, sizeof **plan);
    (*plan)->graph = *g;
    dnn->plans++;
    return MODE_OK;
}

void mode__cudnn_plan_free(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan)
{
    if (*plan) dnn->plans--;
    free(*plan);
    *plan = NULL;
}

size_t mode__cudnn_plan_work(const struct mode__cudnn_plan *plan)
{
    (void)plan;
    return SCRATCH;
}

const char *mode__cudnn_plan_text(const struct mode__cudnn_plan *plan)
{
    (void)plan;
    return "executed on the host";
}

static void run_job(void *data)
{
    struct job *j = data;
    struct machine m = j->machine;
    memset(j->work, 0xff, SCRATCH);
    execute(&m);
}

enum mode_status mode__cudnn_run(struct mode__cudnn *dnn, const struct mode__cudnn_plan *plan, void *stream,
                                 void *const *pointer, void *work, struct mode_error *err)
{
    struct job *j = mode_xcalloc(1, sizeof *j);
    (void)err;
    *j = (struct job){.graph = plan->graph, .work = work, .before = dnn->jobs};
    j->machine = (struct machine){.g = &j->graph, .round = true, .half = true};
    dnn->jobs = j;
    for (int i = 0; i < plan->graph.n_tensors; i++) {
        int place = plan->graph.tensor[i].place;
        MODE_ASSERT(place >= MODE__N_PLACES || (pointer[place] && (uintptr_t)pointer[place] % 16 == 0));
    }
    memcpy(j->machine.memory, pointer, sizeof j->machine.memory);
    MODE_ASSERT(cudaLaunchHostFunc((cudaStream_t)stream, run_job, j) == cudaSuccess);
    return MODE_OK;
}
