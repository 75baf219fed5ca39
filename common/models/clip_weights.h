/* clip_weights.h - the tensors of a CLIP checkpoint under open_clip's names or Hugging Face's; inside models/ only.
 *
 * Both hold the same numbers: Hugging Face cuts query, key and value apart and turns the two projections round. Nothing
 * else is done to a tensor here: dtypes stay, so that there and back again gives the same bytes. */
#ifndef MODE_MODELS_CLIP_WEIGHTS_H
#define MODE_MODELS_CLIP_WEIGHTS_H

#include "data/weights.h"
#include "nn/param.h"

struct mode__clip_tensors {
    size_t n;
    struct mode_tensor *list; /* names owned here; data borrowed from the source, or owned in memory */
    void **memory;
    bool from_hf; /* the source had Hugging Face's names */
};

/* One tensor per parameter, in the parameters' order, with their names and shapes, out of w under either kind of
 * names, with or without PyTorch's wrappers and open_clip's "text.". E_FORMAT: one is missing, there twice, or is none
 * of the model's; E_SHAPE. Constants that old checkpoints carry along are passed over. */
enum mode_status mode__clip_tensors_read(struct mode__clip_tensors *to, const struct mode_param *params, size_t n,
                                         const struct mode_weights *w, const char *what, struct mode_error *err);
/* The same tensors under Hugging Face's names. E_VALUE: one has no place there. */
enum mode_status mode__clip_tensors_to_hf(struct mode__clip_tensors *to, const struct mode__clip_tensors *from,
                                          const char *what, struct mode_error *err);
void mode__clip_tensors_clear(struct mode__clip_tensors *t);

#endif
