/* spec_for.h - experts_for of a run spec: the tasks of an entry, and the names in its file. For planning a run, and for
 * checking a spec without one.
 *
 * Threads: nothing here is global. */
#ifndef MODE_PIPELINE_SPEC_FOR_H
#define MODE_PIPELINE_SPEC_FOR_H

#include "data/evalset.h"
#include "pipeline/spec.h"

struct mode_spec_task { /* a task of evaluate.tasks */
    const char *name;
    enum mode_task_kind kind;
};

/* Is it a task of the entry? */
bool mode_spec_for_has(const struct mode_spec_for *x, const struct mode_spec_task *task);
/* task [n]: those of the run. MODE_E_CONFIG: the entry names a task that is not among them, or is for all tasks with
 * class names and there are none. */
enum mode_status mode_spec_for_check(const struct mode_spec_for *x, const struct mode_spec_task *task, size_t n,
                                     struct mode_error *err);
/* The names in the entry's file, appended to names. MODE_E_CONFIG: it is empty or no list of names; MODE_E_NOINPUT,
 * MODE_E_IO, ...: it cannot be read. */
enum mode_status mode_spec_for_names(struct mode_spec_list *names, const struct mode_spec_for *x,
                                     struct mode_error *err);

#endif
