/* selection.h - the fine centres selected by a task's words; a task-specific model is trained on their pairs.
 *
 * Words (class names) are embedded as for a router. Every word selects its `nearest` fine centres; the union over all
 * words is the selection. It is a map of fine centres to 0 or 1, of the same form as fine_to_coarse: training on a
 * selection is training the expert of group 1.
 *
 *     mode_selection_init(&s, &centres, digest);
 *     mode_selection_add(&s, &chosen, &centres, words, k, 1, &err);     // once for every task
 *     mode_selection_save(&s, "selection.safetensors", &err);
 *
 * selection.safetensors: chosen [m] i32, 0 or 1; metadata encoder_id, centres (digest of the centres file) and, where
 * sources were added, grown_from as in that file. Words that select the same centres give the same bytes.
 *
 * Source:  MoDE (arXiv:2404.16030), retrieval-enhanced training; its rule is not published, so this one is ours
 *          (docs/decisions/0043-experts-for-tasks.md).
 * Threads: reentrant; uses the pool. */
#ifndef MODE_ENSEMBLE_SELECTION_H
#define MODE_ENSEMBLE_SELECTION_H

#include "base/error.h"
#include "cluster/centres.h"

#include <stdint.h>

enum { MODE_SELECTION_MOST_NEAREST = 1024 };

struct mode_selection {
    int m, n_chosen;
    int32_t *chosen; /* [m] 0 or 1; n_chosen ones */
    char *encoder_id;
    char *centres;    /* digest of the centres file */
    char *grown_from; /* as in mode_centres, or NULL */
};

/* The centres that every word selected. */
struct mode_chosen {
    int k, nearest;   /* words; centres of each: min(nearest, m) */
    int32_t *fine_id; /* [k, nearest] by distance, ties to the lower id */
    float *distance;  /* [k, nearest] L2 */
};

/* An empty selection. digest: of the file the centres were loaded from. */
void mode_selection_init(struct mode_selection *s, const struct mode_centres *centres, const char *digest);
/* words [k, centres->d] f32 unit rows, of the centres' encoder (the caller checks that); nearest >= 1. The first centre
 * of a word is that of mode_near_open. chosen may be NULL, else the caller clears it, also after a failure.
 * Errors: MODE_E_VALUE (no words, a row not finite or not unit), MODE_E_MEMORY. */
enum mode_status mode_selection_add(struct mode_selection *s, struct mode_chosen *chosen,
                                    const struct mode_centres *centres, const float *words, int k, int nearest,
                                    struct mode_error *err);
enum mode_status mode_selection_save(const struct mode_selection *s, const char *path, struct mode_error *err);
/* MODE_E_NOINPUT, MODE_E_IO; MODE_E_FORMAT: not a selection. Clear also after a failure. */
enum mode_status mode_selection_load(struct mode_selection *s, const char *path, struct mode_error *err);
void mode_selection_clear(struct mode_selection *s);
void mode_chosen_clear(struct mode_chosen *chosen);

#endif
