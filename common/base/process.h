/* process.h - process information from the kernel. Linux only: elsewhere results are "not known". */
#ifndef MODE_BASE_PROCESS_H
#define MODE_BASE_PROCESS_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

/* Peak resident memory of the process (VmHWM), bytes; 0 = not known: no such process, or not visible from here. */
uint64_t mode_process_peak_rss(pid_t pid);

/* Raises the limit on open files and connections to the hard limit (at most 65,536); returns the new limit. */
uint64_t mode_process_raise_files(void);
/* Number of open files now; 0 = not known. */
uint64_t mode_process_open_files(void);

enum { MODE_MOST_GPUS = 64 }; /* per machine */

/* Makes only GPU `index`, of those visible now, visible to this process and its children (CUDA_VISIBLE_DEVICES). 0
 * changes nothing: the first GPU is the one that is opened anyway. Call before threads exist. MODE_E_CONFIG: the list
 * has fewer entries. */
enum mode_status mode_process_pick_gpu(int64_t index, struct mode_error *err);
/* The same for n GPUs, in that order; the variable then names all of them. */
enum mode_status mode_process_pick_gpus(const int64_t *index, int n, struct mode_error *err);

/* index [n]: distinct visible GPUs, those claimed through this function by the fewest other processes of that kind on
 * this machine. A claim, a lock on a file in `dir`, lasts until the process ends. index[0] is -1 without a GPU.
 * MODE_E_IO: dir is not writable; MODE_E_CONFIG: there are GPUs, but fewer than n. */
enum mode_status mode_process_claim_gpus(int64_t *index, int n, const char *dir, const char *kind,
                                         struct mode_error *err);

#endif
