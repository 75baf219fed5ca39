/* Replaces cudnn.c where cuDNN's header was not found: mode__cudnn_open fails. */
#include "nn/cuda/cudnn.h"

enum mode_status mode__cudnn_open(struct mode__cudnn **dnn, const char *device, struct mode_error *err)
{
    (void)device;
    *dnn = NULL;
    return MODE_FAIL(err, MODE_E_DEVICE, "this program was built without cuDNN (cudnn_graph.h was not found)");
}

void mode__cudnn_close(struct mode__cudnn **dnn)
{
    MODE_ASSERT(!*dnn);
}

size_t mode__cudnn_version(const struct mode__cudnn *dnn)
{
    MODE_ASSERT(!dnn);
    return 0;
}

enum mode_status mode__cudnn_plan(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan, const struct mode__graph *g,
                                  bool deterministic, int from, struct mode_error *err)
{
    (void)g;
    (void)deterministic;
    (void)from;
    MODE_ASSERT(!dnn);
    *plan = NULL;
    return MODE_FAIL(err, MODE_E_DEVICE, "no cuDNN is open");
}

enum mode_status mode__cudnn_plan_again(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan,
                                        const struct mode__graph *g, const struct mode__cudnn_choice *choice,
                                        struct mode_error *err)
{
    (void)choice;
    return mode__cudnn_plan(dnn, plan, g, true, 0, err);
}

int mode__cudnn_plan_candidate(const struct mode__cudnn_plan *plan)
{
    MODE_ASSERT(!plan);
    return 0;
}

const struct mode__cudnn_choice *mode__cudnn_plan_choice(const struct mode__cudnn_plan *plan)
{
    MODE_ASSERT(!plan);
    return NULL;
}

void mode__cudnn_plan_free(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan)
{
    MODE_ASSERT(!dnn && !*plan);
}

size_t mode__cudnn_plan_work(const struct mode__cudnn_plan *plan)
{
    MODE_ASSERT(!plan);
    return 0;
}

const char *mode__cudnn_plan_text(const struct mode__cudnn_plan *plan)
{
    MODE_ASSERT(!plan);
    return "";
}

enum mode_status mode__cudnn_run(struct mode__cudnn *dnn, const struct mode__cudnn_plan *plan, void *stream,
                                 void *const *pointer, void *work, struct mode_error *err)
{
    (void)stream;
    (void)pointer;
    (void)work;
    MODE_ASSERT(!dnn && !plan);
    return MODE_FAIL(err, MODE_E_DEVICE, "no cuDNN is open");
}
