/* selection.h - the fine centres that words choose: on the pairs of these a model of its own is trained.
 *
 * Words (class names) are embedded as for a router. Every word chooses its `nearest` fine centres; the union over all
 * words is the selection. A coarse group is a map of fine centres to numbers, and so is a selection: 1 for what is
 * chosen, 0 for all others, so whoever trains an expert of a group trains a selection's in the same way.
 *
 *     mode_selection_init(&s, &centres, digest);
 *     mode_selection_add(&s, &chosen, &centres, words, k, 1, &err);     // once for every task
 *     mode_selection_save(&s, "selection.safetensors", &err);
 *
 * selection.safetensors: chosen [m] i32, 0 or 1; metadata encoder_id, centres (digest of the centres file) and, where
 * sources were added, grown_from as in that file. Words that choose the same centres leave the same bytes.
 *
 * Source:  MoDE (arXiv:2404.16030), retrieval-enhanced training; its rule is not published, so this one is ours
 *          (docs/decisions/0043-experts-for-tasks.md).
 * Threads: pure. */
#ifndef MODE_ENSEMBLE_SELECTION_H
#define MODE_ENSEMBLE_SELECTION_H

#include "base/error.h"
#include "cluster/centres.h"

#include <stdint.h>

enum { MODE_SELECTION_MOST_NEAREST = 1024 };

struct mode_selection {
    int m, n_chosen;
    int32_t *chosen; /* [m] 1: chosen; 0 */
    char *encoder_id;
    char *centres;    /* digest of the centres file */
    char *grown_from; /* as in mode_centres, or NULL */
};

/* What every word chose. */
struct mode_chosen {
    int k, nearest;   /* words; centres of each: as many as asked for, or all there are */
    int32_t *fine_id; /* [k, nearest] by distance, of equal ones the lower id first */
    float *distance;  /* [k, nearest] L2 */
};

/* Nothing is chosen yet. digest: of the file the centres were loaded from. */
void mode_selection_init(struct mode_selection *s, const struct mode_centres *centres, const char *digest);
/* words [k, centres->d] unit rows, of the centres' encoder (the caller checks that); 1 <= nearest. The first choice of a
 * word is the centre that mode_near_open gives it. chosen may be NULL, else it is cleared by the caller, also after a
 * failure. Errors: MODE_E_VALUE (no words, a row not finite or not unit), MODE_E_MEMORY. */
enum mode_status mode_selection_add(struct mode_selection *s, struct mode_chosen *chosen,
                                    const struct mode_centres *centres, const float *words, int k, int nearest,
                                    struct mode_error *err);
enum mode_status mode_selection_save(const struct mode_selection *s, const char *path, struct mode_error *err);
/* MODE_E_FORMAT: it is none. Clear also after a failure. */
enum mode_status mode_selection_load(struct mode_selection *s, const char *path, struct mode_error *err);
void mode_selection_clear(struct mode_selection *s);
void mode_chosen_clear(struct mode_chosen *chosen);

#endif
