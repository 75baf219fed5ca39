#include "pipeline/spec_for.h"

#include "base/str.h"
#include "pipeline/select.h"

#include <stdlib.h>
#include <string.h>

static enum mode_status fail_unknown(const struct mode_spec_for *x, const char *name, const struct mode_spec_task *task,
                                     size_t n, struct mode_error *err)
{
    const char *near = n ? task[0].name : NULL;
    for (size_t t = 1; t < n; t++)
        if (mode_str_distance(name, task[t].name) < mode_str_distance(name, near)) near = task[t].name;
    return MODE_FAIL(
        err, MODE_E_CONFIG,
        "experts_for, line %d: %s is for the task \"%s\", which is not among the %zu of evaluate.tasks%s%s", x->line,
        x->name, name, n, near ? "; the nearest is " : "", near ? near : "");
}

bool mode_spec_for_has(const struct mode_spec_for *x, const struct mode_spec_task *task)
{
    if (x->all) return task->kind != MODE_TASK_RETRIEVAL;
    for (size_t i = 0; i < x->tasks.n; i++)
        if (strcmp(x->tasks.item[i], task->name) == 0) return true;
    return false;
}

enum mode_status mode_spec_for_check(const struct mode_spec_for *x, const struct mode_spec_task *task, size_t n,
                                     struct mode_error *err)
{
    bool some = false;
    for (size_t i = 0; i < x->tasks.n; i++) {
        size_t t = 0;
        while (t < n && strcmp(task[t].name, x->tasks.item[i]) != 0) t++;
        if (t == n) return fail_unknown(x, x->tasks.item[i], task, n, err);
    }
    for (size_t t = 0; t < n && !some; t++) some = mode_spec_for_has(x, &task[t]);
    if (!x->all || some) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "experts_for, line %d: %s is for all tasks with class names, and evaluate.tasks has none", x->line,
                     x->name);
}

enum mode_status mode_spec_for_names(struct mode_spec_list *names, const struct mode_spec_for *x,
                                     struct mode_error *err)
{
    char **name;
    int n;
    struct mode_error why;
    enum mode_status st = mode_select_names_read(&name, &n, x->classes, &why);
    for (int i = 0; i < n; i++) mode_spec_list_add(names, name[i]);
    free(name);
    if (st == MODE_E_FORMAT) st = MODE_E_CONFIG; /* the file exists, but the spec must name another */
    return st ? MODE_FAIL(err, st, "experts_for, line %d: the classes of %s: %s", x->line, x->name, why.text) : MODE_OK;
}
