/* ensemble.h - the work of the ensemble service: see README.md. */
#ifndef MODE_SERVICES_ENSEMBLE_H
#define MODE_SERVICES_ENSEMBLE_H

#include "msg/job.h"

mode_work_fn ensemble_work;

#endif
