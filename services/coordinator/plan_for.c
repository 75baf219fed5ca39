/* plan_for.c - experts_for: the tasks of an entry, and the names in its file. */
#include "plan.h"

#include "base/file.h"
#include "base/str.h"
#include "data/evalset.h"
#include "pipeline/select.h"

#include <stdlib.h>
#include <string.h>

static enum mode_status fail_unknown(const struct plan *p, const struct mode_spec_for *x, const char *name,
                                     struct mode_error *err)
{
    const char *near = p->n_tasks ? p->task[0].name : NULL;
    for (uint32_t t = 1; t < p->n_tasks; t++)
        if (mode_str_distance(name, p->task[t].name) < mode_str_distance(name, near)) near = p->task[t].name;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "experts_for, line %d: %s is for the task \"%s\", which is not among the %u of evaluate.tasks%s%s",
                     x->line, x->name, name, p->n_tasks, near ? "; the nearest is " : "", near ? near : "");
}

static void add_task(struct plan_for *f, uint32_t t)
{
    f->task = mode_xrealloc(f->task, (f->n_task + (size_t)1) * sizeof *f->task);
    f->task[f->n_task++] = t;
}

static bool is_named(const struct mode_spec_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->item[i], name) == 0) return true;
    return false;
}

/* In plan order: the order in the spec does not change the selection. */
static enum mode_status find_tasks(struct plan *p, uint32_t j, struct mode_error *err)
{
    const struct mode_spec_for *x = &p->spec.experts_for[j];
    struct plan_for *f = &p->for_tasks[j];
    const char *retrieval = mode_task_kind_name(MODE_TASK_RETRIEVAL);
    for (uint32_t t = 0; t < p->n_tasks; t++)
        if (x->all ? strcmp(p->task[t].kind, retrieval) != 0 : is_named(&x->tasks, p->task[t].name)) add_task(f, t);
    for (size_t i = 0; i < x->tasks.n; i++) {
        uint32_t t = 0;
        while (t < p->n_tasks && strcmp(p->task[t].name, x->tasks.item[i]) != 0) t++;
        if (t == p->n_tasks) return fail_unknown(p, x, x->tasks.item[i], err);
    }
    if (x->classes || f->n_task) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "experts_for, line %d: %s is for all tasks with class names, and evaluate.tasks has none", x->line,
                     x->name);
}

static enum mode_status read_names(struct plan *p, uint32_t j, struct mode_error *err)
{
    const struct mode_spec_for *x = &p->spec.experts_for[j];
    char **name;
    int n;
    struct mode_error why;
    enum mode_status st = mode_select_names_read(&name, &n, x->classes, &why);
    for (int i = 0; i < n; i++) mode_spec_list_add(&p->for_tasks[j].names, name[i]);
    free(name);
    if (st == MODE_E_FORMAT) st = MODE_E_CONFIG; /* the file exists, but the spec must name another */
    return st ? MODE_FAIL(err, st, "experts_for, line %d: the classes of %s: %s", x->line, x->name, why.text) : MODE_OK;
}

enum mode_status plan_for_look(struct plan *p, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    p->for_tasks = mode_xcalloc(p->spec.n_experts_for + 1, sizeof *p->for_tasks);
    for (uint32_t j = 0; j < p->spec.n_experts_for && !st; j++)
        st = p->spec.experts_for[j].classes ? read_names(p, j, err) : find_tasks(p, j, err);
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
