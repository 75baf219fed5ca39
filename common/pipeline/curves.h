/* curves.h - a model's training curve, from steps.jsonl and train.json, for the report. */
#ifndef MODE_PIPELINE_CURVES_H
#define MODE_PIPELINE_CURVES_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct mode_curve { /* owns its members */
    char *model;
    int n;
    double *step, *loss; /* [n] in file order; loss in nats */
    json_t *train;       /* train.json, or NULL */
};

/* train_path may be NULL. MODE_E_FORMAT: a line that is not an object with a number "step" and a number
 * "loss" (the error names file and line). Clear also after a failure. */
enum mode_status mode_curve_load(struct mode_curve *c, const char *model, const char *steps_path,
                                 const char *train_path, struct mode_error *err);
void mode_curve_clear(struct mode_curve *c);
/* Of train.json: is it true; a number, 0 if it is absent. */
bool mode_curve_flag(const struct mode_curve *c, const char *key);
double mode_curve_number(const struct mode_curve *c, const char *key);

#endif
