/* patch_dropout.h - which patches of an image a training step keeps.
 *
 * Each image keeps as many, drawn without replacement, each subset equally likely. The draw is a function of the seed
 * and of the image's place in the training's order, never of threads, processes or micro-batches.
 *
 * Source:  Li et al., "Scaling language-image pre-training via masking" (FLIP, arXiv:2212.00794); the number that is
 *          kept is that of open_clip's PatchDropout.
 * Threads: pure. */
#ifndef MODE_MODELS_PATCH_DROPOUT_H
#define MODE_MODELS_PATCH_DROPOUT_H

#include <stdint.h>

/* How many of so many patches are kept where each is dropped with this probability, 0 <= probability < 1: the integer
 * part of their expected number, at least one. */
int64_t mode_patches_kept(int64_t patches, double probability);

/* kept [n]: n of the patches 0 .. patches - 1, in ascending order. place: step * global batch + index in the batch. */
void mode_patches_draw(int32_t *kept, int64_t n, int64_t patches, uint64_t seed, uint64_t place);

#endif
