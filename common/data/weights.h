/* weights.h - the tensors of a checkpoint in any supported format.
 *
 *     struct mode_weights w;
 *     st = mode_weights_open(&w, "open_clip_pytorch_model.bin", &err);
 *     const struct mode_tensor *t = mode_weights_find(&w, "logit_scale");
 *     mode_weights_close(&w);
 *
 * The format is detected from the content: safetensors; torch.save's zip and the older layout (torch_file.h: nothing is
 * executed). A path that ends in .index.json is Hugging Face's index of a sharded checkpoint.
 *
 * Threads: open weights are read-only. */
#ifndef MODE_DATA_WEIGHTS_H
#define MODE_DATA_WEIGHTS_H

#include "base/str.h"
#include "data/safetensors.h"
#include "data/torch_file.h"

struct mode_weights {
    size_t n_tensors;
    struct mode_tensor *tensors; /* in file order; data read-only and of any alignment; names borrowed below */
    size_t n_parts;
    struct mode_weights_part {
        bool is_torch;
        struct mode_safetensors safetensors;
        struct mode_torch_file torch;
    } * parts;
    size_t bytes;               /* of all files together */
    char note[MODE_TORCH_NOTE]; /* "" or a sentence on what was ignored */
};

enum mode_status mode_weights_open(struct mode_weights *w, const char *path, struct mode_error *err);
void mode_weights_close(struct mode_weights *w);
/* NULL when absent; borrowed. */
const struct mode_tensor *mode_weights_find(const struct mode_weights *w, const char *name);

/* The first of the usual names that a folder holds (open_clip's order, then Hugging Face's): "dir/<name>", the caller
 * frees; NULL when there is none. */
char *mode_weights_in(const char *dir);

/* The names of an index's parts, one per line, each once; empty for a file that is not an index. The caller frees. */
enum mode_status mode_weights_parts(char **names, const char *path, struct mode_error *err);

/* What identifies a checkpoint: a line "<name> <digest>" for the file and for every part of it. */
enum mode_status mode_weights_digests(struct mode_str *lines, const char *path, struct mode_error *err);

/* The name without the wrappers PyTorch puts before it ("module.", "_orig_mod."). */
const char *mode_weights_bare_name(const char *name);

#endif
