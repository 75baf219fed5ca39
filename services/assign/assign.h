/* assign.h - the work of the assign service: see README.md. */
#ifndef MODE_SERVICES_ASSIGN_H
#define MODE_SERVICES_ASSIGN_H

#include "msg/job.h"

mode_work_fn assign_work;

#endif
