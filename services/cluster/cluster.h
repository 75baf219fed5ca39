/* cluster.h - the work of the cluster service: see README.md. */
#ifndef MODE_SERVICES_CLUSTER_H
#define MODE_SERVICES_CLUSTER_H

#include "msg/job.h"

mode_work_fn cluster_work;

#endif
