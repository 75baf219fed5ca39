/* scoring.h - shared by the verbs that score models on evaluation tasks: progress, and a result's line. */
#ifndef MODE_SERVICES_MODE_SCORING_H
#define MODE_SERVICES_MODE_SCORING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Callbacks of a struct mode_encode_hook; ctx: the task's name. `more` prints only on a terminal. */
bool scoring_more(void *ctx, uint64_t done, uint64_t total, const char *unit);
void scoring_notice(void *ctx, const char *text);

/* The name of a folder's model in results: its last path component. The caller frees. */
char *scoring_name(const char *folder);

/* Prints a CLIP_benchmark result object on stdout: as JSON on one line, or the task's name and its metrics,
 * tab-separated. */
void scoring_print(const char *task, const json_t *result, bool json);

#endif
