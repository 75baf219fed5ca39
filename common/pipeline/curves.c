#include "pipeline/curves.h"

#include "base/file.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum mode_status mode_curve_load(struct mode_curve *c, const char *model, const char *steps_path,
                                 const char *train_path, struct mode_error *err)
{
    char *text = NULL;
    size_t size;
    json_error_t je;
    *c = (struct mode_curve){.model = mode_xstrdup(model)};
    enum mode_status st = mode_file_read(steps_path, 0, &text, &size, err);
    if (st) return st;
    int line = 0, cap = 0;
    for (char *p = text, *end; *p; p = end) {
        end = strchr(p, '\n');
        end = end ? end + 1 : p + strlen(p);
        line++;
        json_t *o = json_loadb(p, (size_t)(end - p), 0, &je), *step = json_object_get(o, "step"),
               *loss = json_object_get(o, "loss");
        if (!json_is_number(step) || !json_is_number(loss)) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: line %d is not an object with numbers \"step\" and \"loss\"",
                           steps_path, line);
            json_decref(o);
            goto out;
        }
        if (c->n == cap) {
            cap = cap ? 2 * cap : 1024;
            c->step = mode_xrealloc(c->step, (size_t)cap * sizeof *c->step);
            c->loss = mode_xrealloc(c->loss, (size_t)cap * sizeof *c->loss);
        }
        c->step[c->n] = json_number_value(step);
        c->loss[c->n++] = json_number_value(loss);
        json_decref(o);
    }
    if (train_path) {
        c->train = json_load_file(train_path, 0, &je);
        if (!json_is_object(c->train))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: not a JSON object (line %d: %s)", train_path, je.line, je.text);
    }
out:
    free(text);
    return st;
}

void mode_curve_clear(struct mode_curve *c)
{
    free(c->model);
    free(c->step);
    free(c->loss);
    json_decref(c->train);
    *c = (struct mode_curve){0};
}

bool mode_curve_flag(const struct mode_curve *c, const char *key)
{
    return json_is_true(json_object_get(c->train, key));
}

double mode_curve_number(const struct mode_curve *c, const char *key)
{
    return json_number_value(json_object_get(c->train, key));
}
