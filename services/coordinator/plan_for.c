/* plan_for.c - experts_for: the tasks of an entry, and the names in its file. */
#include "plan.h"

#include "base/str.h"
#include "pipeline/spec_for.h"

#include <stdlib.h>

static void add_task(struct plan_for *f, uint32_t t)
{
    f->task = mode_xrealloc(f->task, (f->n_task + (size_t)1) * sizeof *f->task);
    f->task[f->n_task++] = t;
}

/* In plan order: the order in the spec does not change the selection. */
static enum mode_status find_tasks(struct plan *p, uint32_t j, struct mode_error *err)
{
    const struct mode_spec_for *x = &p->spec.experts_for[j];
    struct mode_spec_task *task = mode_xcalloc((size_t)p->n_tasks + 1, sizeof *task);
    for (uint32_t t = 0; t < p->n_tasks; t++) {
        task[t] = (struct mode_spec_task){p->task[t].name, mode_task_kind_parse(p->task[t].kind)};
        if (mode_spec_for_has(x, &task[t])) add_task(&p->for_tasks[j], t);
    }
    enum mode_status st = mode_spec_for_check(x, task, p->n_tasks, err);
    free(task);
    return st;
}

enum mode_status plan_for_look(struct plan *p, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    p->for_tasks = mode_xcalloc(p->spec.n_experts_for + 1, sizeof *p->for_tasks);
    for (uint32_t j = 0; j < p->spec.n_experts_for && !st; j++) {
        const struct mode_spec_for *x = &p->spec.experts_for[j];
        st = x->classes ? mode_spec_for_names(&p->for_tasks[j].names, x, err) : find_tasks(p, j, err);
    }
    return st;
}

json_t *plan_for_json(const struct plan *p)
{
    json_t *list = json_array();
    for (uint32_t j = 0; j < p->spec.n_experts_for; j++) {
        json_t *names = json_array();
        for (size_t i = 0; i < p->for_tasks[j].names.n; i++)
            json_array_append_new(names, json_string(p->for_tasks[j].names.item[i]));
        json_array_append_new(list, names);
    }
    return list;
}

bool plan_for_take(struct plan *p, const json_t *list)
{
    struct mode_error err;
    if (json_array_size(list) != p->spec.n_experts_for) return false;
    p->for_tasks = mode_xcalloc(p->spec.n_experts_for + 1, sizeof *p->for_tasks);
    for (uint32_t j = 0; j < p->spec.n_experts_for; j++) {
        const bool has_file = p->spec.experts_for[j].classes;
        const json_t *names = json_array_get(list, j), *x;
        size_t i;
        json_array_foreach(names, i, x)
        {
            if (!json_string_value(x)) return false;
            mode_spec_list_add(&p->for_tasks[j].names, mode_xstrdup(json_string_value(x)));
        }
        if (has_file != (p->for_tasks[j].names.n > 0) || (!has_file && find_tasks(p, j, &err))) return false;
    }
    return true;
}

void plan_for_forget(struct plan *p)
{
    for (size_t j = 0; p->for_tasks && j < p->spec.n_experts_for; j++) {
        free(p->for_tasks[j].task);
        mode_spec_list_clear(&p->for_tasks[j].names);
    }
    free(p->for_tasks);
    p->for_tasks = NULL;
}

uint32_t plan_for_names_node(const struct plan *p, uint32_t j)
{
    uint32_t n = p->first[PLAN_WORDS] + p->n_tasks;
    for (uint32_t i = 0; i < j; i++) n += p->for_tasks[i].names.n > 0;
    return n;
}

bool plan_for_of_words(const struct plan *p, const struct plan_node *x, uint32_t *j)
{
    if (x->a < p->n_tasks) return false;
    *j = x->a - p->n_tasks;
    return true;
}
