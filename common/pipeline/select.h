/* pipeline/select.h - the fine clusters that words choose, and the pairs in them: what an expert for tasks is trained on.
 *
 *     st = mode_select_open(&s, "centres.safetensors", NULL, &err);
 *     if (!st) st = mode_select_words(&s, &chosen, "words.safetensors", 1, &err);    // once for every task
 *     if (!st) st = mode_select_count(&s, "assign.safetensors", &err);               // once for every shard
 *     if (!st) st = mode_selection_save(&s.selection, "selection.safetensors", &err);
 *     mode_select_close(&s);
 *
 * Pairs are counted for people and for the planner; the file says which clusters, and nothing of words or pairs, so
 * other words that choose the same clusters train nothing anew.
 *
 * Threads: one caller. */
#ifndef MODE_PIPELINE_SELECT_H
#define MODE_PIPELINE_SELECT_H

#include "ensemble/selection.h"

struct mode_select {
    struct mode_centres centres;
    struct mode_selection selection;
    uint64_t words, rows; /* so far; rows: pairs of all shards that were counted */
    uint64_t *pairs;      /* [m] of them in each fine cluster */
};

/* encoder_id: what the caller expects of the centres; NULL: whatever they say. Close also after a failure. */
enum mode_status mode_select_open(struct mode_select *s, const char *centres_path, const char *encoder_id,
                                  struct mode_error *err);
/* chosen: NULL, or what every word chose, which the caller clears, also after a failure. Errors: those of
 * mode_selection_add; MODE_E_VALUE: vectors of another encoder. */
enum mode_status mode_select_words(struct mode_select *s, struct mode_chosen *chosen, const char *feat_path,
                                   int nearest, struct mode_error *err);
/* MODE_E_FORMAT: no assignment, or made with other centres. */
enum mode_status mode_select_count(struct mode_select *s, const char *assign_path, struct mode_error *err);
/* Pairs in the chosen clusters, of those that were counted. */
uint64_t mode_select_pairs(const struct mode_select *s);
void mode_select_close(struct mode_select *s);

/* Names of a file, one a line, as lines of their own those of one class with tabs between: each chooses for itself.
 * Errors as mode_evalset_words_read; free with mode_evalset_words_free. */
enum mode_status mode_select_names_read(char ***names, int *n, const char *path, struct mode_error *err);

#endif
