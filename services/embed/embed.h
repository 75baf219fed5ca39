/* embed.h - the work of the embed service: see README.md. */
#ifndef MODE_SERVICES_EMBED_H
#define MODE_SERVICES_EMBED_H

#include "msg/job.h"

mode_work_fn embed_work;

#endif
