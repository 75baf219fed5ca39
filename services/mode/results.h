/* results.h - the table at the end of a run, from <workspace>/report. */
#ifndef MODE_SERVICES_MODE_RESULTS_H
#define MODE_SERVICES_MODE_RESULTS_H

#include "base/error.h"

/* result.csv as an aligned table on stdout, then where the report is. Prints nothing without a report here (the
 * coordinator's workspace is on another machine). */
enum mode_status results_print(const char *workspace, struct mode_error *err);

#endif
