/* clip_weights.h - the tensors of a CLIP checkpoint under open_clip's names or Hugging Face's; inside models/ only.
 *
 * Both hold the same values: Hugging Face splits the fused qkv into query, key and value and transposes the two
 * projections. Dtypes are kept, so a round trip is bit-identical. */
#ifndef MODE_MODELS_CLIP_WEIGHTS_H
#define MODE_MODELS_CLIP_WEIGHTS_H

#include "data/weights.h"
#include "nn/param.h"

struct mode__clip_tensors {
    size_t n;
    struct mode_tensor *list; /* [n]; names are owned, data borrowed from the source or owned in memory */
    void **memory;            /* [n]; NULL where data is borrowed */
    bool from_hf;             /* the source had Hugging Face's names */
};

/* One tensor per parameter, in the parameters' order, with their names and shapes, out of w, which may use either
 * naming, with or without wrapper prefixes of PyTorch ("module.") and open_clip's "text.". E_FORMAT: a tensor is
 * missing, occurs twice, or is not the model's; E_SHAPE. Buffers that old checkpoints contain are ignored. */
enum mode_status mode__clip_tensors_read(struct mode__clip_tensors *to, const struct mode_param *params, size_t n,
                                         const struct mode_weights *w, const char *what, struct mode_error *err);
/* The same tensors under Hugging Face's names. E_VALUE: a parameter has no counterpart there. */
enum mode_status mode__clip_tensors_to_hf(struct mode__clip_tensors *to, const struct mode__clip_tensors *from,
                                          const char *what, struct mode_error *err);
void mode__clip_tensors_clear(struct mode__clip_tensors *t);

#endif
