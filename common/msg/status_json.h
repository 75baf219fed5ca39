/* status_json.h - the coordinator's status as JSON, for /status and `mode status --json`. */
#ifndef MODE_MSG_STATUS_JSON_H
#define MODE_MSG_STATUS_JSON_H

#include "proto/envelope.pb-c.h"

/* malloc'd text; one object: version, epoch, ready, runs (with stages), workers, notes. */
char *mode_status_json(const Mode__StatusReply *status);
/* "running", "done", ... */
const char *mode_run_state_name(Mode__RunState state);

#endif
