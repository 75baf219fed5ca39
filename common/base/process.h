/* process.h - what the kernel knows of a process. Linux only: elsewhere the answers are "not known". */
#ifndef MODE_BASE_PROCESS_H
#define MODE_BASE_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

/* Most resident memory the process ever had (VmHWM), bytes; 0 = not known: no such process, or not visible from here.
 */
uint64_t mode_process_peak_rss(pid_t pid);

#endif
