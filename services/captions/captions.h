/* captions.h - the work of the captions service: see proto/captions.proto and pipeline/captions.h. */
#ifndef MODE_SERVICES_CAPTIONS_H
#define MODE_SERVICES_CAPTIONS_H

#include "msg/job.h"

enum mode_status captions_work(struct mode_job *job, struct mode_error *err);

#endif
