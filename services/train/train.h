/* train.h - the work of the train service: TrainRequest (proto/train.proto) in, a model out. */
#ifndef MODE_SERVICES_TRAIN_H
#define MODE_SERVICES_TRAIN_H

#include "msg/job.h"

enum mode_status train_work(struct mode_job *job, struct mode_error *err);

#endif
