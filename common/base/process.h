/* process.h - what the kernel knows of a process. Linux only: elsewhere the answers are "not known". */
#ifndef MODE_BASE_PROCESS_H
#define MODE_BASE_PROCESS_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

/* Most resident memory the process ever had (VmHWM), bytes; 0 = not known: no such process, or not visible from here.
 */
uint64_t mode_process_peak_rss(pid_t pid);

/* Let this process have as many files and connections open as it may (the hard limit, at most 65,536); how many that
 * is. */
uint64_t mode_process_raise_files(void);
/* How many it has open now; 0 = not known. */
uint64_t mode_process_open_files(void);

enum { MODE_MOST_GPUS = 64 }; /* of a machine */

/* Let this process and those it starts see GPU `index` alone, of those it sees now (CUDA_VISIBLE_DEVICES). 0 leaves
 * everything as it is: the first GPU is what is opened anyway. Before threads exist.
 * MODE_E_CONFIG: there are fewer in that list. */
enum mode_status mode_process_pick_gpu(int64_t index, struct mode_error *err);
/* The same of n of them, in that order; all are named. */
enum mode_status mode_process_pick_gpus(const int64_t *index, int n, struct mode_error *err);

/* index [n]: different GPUs, of those that this process sees, which the fewest other processes of that kind on this
 * machine have taken by this function; theirs until they end. Locks are files in `dir`. index[0] is -1 where there is
 * no GPU. MODE_E_IO: dir cannot be written to; MODE_E_CONFIG: there are GPUs, but fewer than n. */
enum mode_status mode_process_claim_gpus(int64_t *index, int n, const char *dir, const char *kind,
                                         struct mode_error *err);

#endif
