/* clock.h - the current time. Threads: any. */
#ifndef MODE_BASE_CLOCK_H
#define MODE_BASE_CLOCK_H

#include <stdint.h>

double mode_clock_s(void);        /* seconds on the monotonic clock    */
int64_t mode_clock_wall_ms(void); /* ms since 1970, for display only   */

#endif
