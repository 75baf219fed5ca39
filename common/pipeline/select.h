/* pipeline/select.h - selects the fine clusters nearest to words, and counts their pairs: a task-specific expert's
 * data.
 *
 *     st = mode_select_open(&s, "centres.safetensors", NULL, &err);
 *     if (!st) st = mode_select_words(&s, &chosen, "words.safetensors", 1, &err);    // once for every task
 *     if (!st) st = mode_select_count(&s, "assign.safetensors", &err);               // once for every shard
 *     if (!st) st = mode_selection_save(&s.selection, "selection.safetensors", &err);
 *     mode_select_close(&s);
 *
 * Pairs are counted for people and for the planner. The file lists clusters only, no words or pairs, so other words
 * that select the same clusters do not cause another training.
 *
 * Threads: one caller. */
#ifndef MODE_PIPELINE_SELECT_H
#define MODE_PIPELINE_SELECT_H

#include "ensemble/selection.h"

struct mode_select {
    struct mode_centres centres;
    struct mode_selection selection;
    uint64_t words, rows; /* so far; rows: pairs of all counted shards */
    uint64_t *pairs;      /* [m] those in each fine cluster */
};

/* encoder_id: that the centres must have; NULL: any. Close also after a failure. */
enum mode_status mode_select_open(struct mode_select *s, const char *centres_path, const char *encoder_id,
                                  struct mode_error *err);
/* feat_path: vectors of the words (embed.h). chosen: NULL, or every word's centres, which the caller clears, also after
 * a failure. Errors: those of mode_selection_add; MODE_E_VALUE: vectors of another encoder. */
enum mode_status mode_select_words(struct mode_select *s, struct mode_chosen *chosen, const char *feat_path,
                                   int nearest, struct mode_error *err);
/* Count the pairs of a shard. MODE_E_FORMAT: not an assignment, or an id out of range. */
enum mode_status mode_select_count(struct mode_select *s, const char *assign_path, struct mode_error *err);
/* Counted pairs in the selected clusters. */
uint64_t mode_select_pairs(const struct mode_select *s);
void mode_select_close(struct mode_select *s);

/* The names in a file: one class per line, its synonyms separated by tabs; every synonym is a word of its own. Errors
 * as mode_evalset_words_read; free with mode_evalset_words_free. */
enum mode_status mode_select_names_read(char ***names, int *n, const char *path, struct mode_error *err);

#endif
