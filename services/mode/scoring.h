/* scoring.h - what the verbs share that score models on evaluation tasks: how far they are, and a result's line. */
#ifndef MODE_SERVICES_MODE_SCORING_H
#define MODE_SERVICES_MODE_SCORING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Of a struct mode_encode_hook, ctx: the task's name. `more` is for a terminal. */
bool scoring_more(void *ctx, uint64_t done, uint64_t total, const char *unit);
void scoring_notice(void *ctx, const char *text);

/* What results call the model of a folder: its last name. The caller frees. */
char *scoring_name(const char *folder);

/* A CLIP_benchmark result object on stdout: as it is on one line, or the task's name and its metrics, tabs between. */
void scoring_print(const char *task, const json_t *result, bool json);

#endif
