/* evaluate.h - the work of the evaluate service: EvaluateRequest (proto/evaluate.proto) in, scores and
 * metrics out. */
#ifndef MODE_SERVICES_EVALUATE_H
#define MODE_SERVICES_EVALUATE_H

#include "msg/job.h"

enum mode_status evaluate_work(struct mode_job *job, struct mode_error *err);

#endif
