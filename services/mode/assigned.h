/* assigned.h - the pairs of one shard of a run, and the fine centres that they were assigned to. */
#ifndef MODE_SERVICES_MODE_ASSIGNED_H
#define MODE_SERVICES_MODE_ASSIGNED_H

#include "cluster/centres.h"
#include "data/captions.h"
#include "data/safetensors.h"
#include "run_record.h"

struct assigned {
    struct mode_captions captions;
    const int32_t *fine;   /* [captions.n_rows] below centres->m */
    const float *distance; /* [captions.n_rows] */
    struct mode_safetensors file;
};

/* The centres of all experts of a run. Errors: those of run_record_output. */
enum mode_status assigned_centres(struct mode_centres *centres, const struct run_record *r, struct mode_error *err);

/* Why the run skipped this shard as corrupt (data.bad_shards); NULL: it did not. The caller frees. */
enum mode_status assigned_skipped(char **why, const struct run_record *r, size_t shard, struct mode_error *err);

/* Close also after a failure; one all zero is fine. MODE_E_FORMAT: a fine id that is none of the centres'; else those of
 * run_record_output and of the files. */
enum mode_status assigned_open(struct assigned *a, const struct run_record *r, size_t shard,
                               const struct mode_centres *centres, struct mode_error *err);
void assigned_close(struct assigned *a);

#endif
