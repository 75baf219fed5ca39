/* spec_keys.h - every key of the run spec: its field, default, range and help text.
 *
 * X(path, type, field, default text or NULL = required, min, max, help); a test compares docs/RUN.md with it. Sections
 * ("train") are the parts of paths before the dot. "model" has a parser of its own. Types: STR, PATH (relative to the
 * spec's folder), LIST (strings), PATHS, UINT, REAL, BOOL, WORD (help begins with the allowed words, "a|b|c: ..."),
 * EITHER (two such words; false is the first, true the second). The default "=seed" means the value of the key `seed`;
 * a list's default is separated by ';'. Defaults shared with a verb's options are in defaults.h. */
#ifndef MODE_PIPELINE_SPEC_KEYS_H
#define MODE_PIPELINE_SPEC_KEYS_H

#include "data/caption_text.h"
#include "models/clip_train.h"
#include "optim/schedule.h"
#include "pipeline/defaults.h"

/* clang-format off */
#define MODE_SPEC_KEYS(X) \
    X("name", STR, name, NULL, 0, 0, "the run's name: letters, digits, . _ -") \
    X("seed", UINT, seed, "0", 0, 1e15, "seed of everything that has no seed of its own") \
    X("precision", WORD, precision, "f32", 0, 0, "f32|tf32|bf16: of the matrix products in embed, train and evaluate; below f32 their workers need GPUs") \
    X("data.train", LIST, data_train, NULL, 0, 0, "sources of training shards") \
    X("data.blur_faces", STR, blur_faces, "", 0, 0, "where the boxes of faces to blur are: json:face_bbox; empty = nothing is blurred") \
    X("data.added", LIST, data_added, "", 0, 0, "sources that came later: each makes one more expert") \
    X("data.bad_shards", EITHER, skip_bad_shards, "stop", 0, 0, "stop|skip: what a shard that is not a tar, or a broken one, does to the run") \
    X("captions.text_keys", LIST, captions.text_keys, MODE_TEXT_KEYS_DEFAULT, 0, 0, "where captions are, first that exists") \
    X("captions.seed", UINT, captions.seed, "=seed", 0, 1e15, "which of several captions is chosen") \
    X("captions.per_sample", EITHER, captions.all, "one", 0, 0, "one|all: how many of a sample's captions become pairs") \
    X("captions.strict", BOOL, captions.strict, "false", 0, 0, "duplicate keys are errors") \
    X("captions.max_image_pixels", UINT, captions.max_image_pixels, MODE_DEFAULT_MAX_IMAGE_PIXELS, 1, 1e12, "larger pictures are rejected") \
    X("encoder.dir", PATH, encoder.dir, "", 0, 0, "Hugging Face folder of the text encoder; this or encoder.hub") \
    X("encoder.hub", STR, encoder.hub, "", 0, 0, "the text encoder's ORG/NAME[@REVISION] on the hub; `mode run` fetches it once") \
    X("encoder.pooling", WORD, encoder.pooling, "auto", 0, 0, "auto|pooler|cls|mean: which vector of the encoder; auto = what its folder says") \
    X("encoder.max_tokens", UINT, encoder.max_tokens, "0", 0, 8192, "longer texts are cut; 0 = what its folder says") \
    X("cluster.fine", UINT, cluster.fine, MODE_DEFAULT_FINE, 1, 1e6, "m, fine centres") \
    X("cluster.coarse", UINT, cluster.coarse, MODE_DEFAULT_COARSE, 1, 1e4, "n, coarse groups = experts") \
    X("cluster.metric", WORD, cluster.metric, MODE_DEFAULT_METRIC, 0, 0, "euclidean|cosine: distance between vectors and centres") \
    X("cluster.seed", UINT, cluster.seed, "=seed", 0, 1e15, "seed of the sample and of the initial centres") \
    X("cluster.sample_per_centre", UINT, cluster.sample_per_centre, MODE_DEFAULT_SAMPLE_PER_CENTRE, 0, 1e7, "captions sampled per fine centre; 0 = all") \
    X("cluster.added_fine", UINT, cluster.added_fine, "0", 0, 1e6, "fine centres of each added source; 0 = fine / coarse") \
    X("cluster.fine_iterations", UINT, cluster.fine_iterations, MODE_DEFAULT_FINE_ITERATIONS, 1, 1e5, "at most, fine step") \
    X("cluster.coarse_iterations", UINT, cluster.coarse_iterations, MODE_DEFAULT_COARSE_ITERATIONS, 1, 1e5, "at most, coarse step") \
    X("tokenizer.merges", PATH, tokenizer_merges, "", 0, 0, "bpe_simple_vocab_16e6.txt.gz; empty = the one in the cache") \
    X("train.batch", UINT, train.batch, MODE_DEFAULT_BATCH, 2, 1e6, "pairs per step") \
    X("train.lr", REAL, train.lr, MODE_DEFAULT_LR, 1e-12, 1e3, "peak learning rate") \
    X("train.beta1", REAL, train.beta1, MODE_DEFAULT_BETA1, 0, 0.999999, "AdamW") \
    X("train.beta2", REAL, train.beta2, MODE_DEFAULT_BETA2, 0, 0.9999999, "AdamW") \
    X("train.eps", REAL, train.eps, MODE_DEFAULT_EPS, 1e-20, 1, "AdamW") \
    X("train.weight_decay", REAL, train.weight_decay, MODE_DEFAULT_WEIGHT_DECAY, 0, 10, "AdamW, on tensors of two and more dimensions") \
    X("train.grad_clip_norm", REAL, train.grad_clip_norm, MODE_DEFAULT_GRAD_CLIP_NORM, 0, 1e6, "cut the global norm of the gradient to this; 0 = no clipping") \
    X("train.accumulate", UINT, train.accumulate, MODE_DEFAULT_ACCUMULATE, 1, 1e6, "pieces in which a batch is computed, one after another; exact") \
    X("train.checkpoint_activations", BOOL, train.checkpoint_activations, "false", 0, 0, "activation checkpointing in every block; otherwise as memory requires") \
    X("train.algorithms", PATH, train.algorithms, "", 0, 0, "file that mode train --algorithms wrote on such a GPU: which algorithms make matrix products") \
    X("train.warmup_steps", UINT, train.warmup_steps, MODE_DEFAULT_WARMUP_STEPS, 0, 1e9, "linear warm-up; where it is not given, at most a tenth of the schedule") \
    X("train.schedule", WORD, train.schedule, MODE_DEFAULT_SCHEDULE, 0, 0, MODE_SCHEDULE_NAMES ": learning rate after the warm-up") \
    X("train.cooldown_steps", UINT, train.cooldown_steps, "0", 0, 1e12, "with constant_cooldown: the last so many steps of the schedule") \
    X("train.cooldown_power", REAL, train.cooldown_power, MODE_DEFAULT_COOLDOWN_POWER, 0.01, 100, "with constant_cooldown: power of the decay; 1 = linear") \
    X("train.cooldown_end", REAL, train.cooldown_end, MODE_DEFAULT_COOLDOWN_END, 0, 1e3, "with constant_cooldown: learning rate at the end of the schedule") \
    X("train.seed", UINT, train.seed, "=seed", 0, 1e15, "of initialisation, order and crops") \
    X("train.init", PATH, train.init, "", 0, 0, "folder or file of a CLIP model that the seed begins with, or hf-hub:ORG/NAME; none = random weights") \
    X("train.seed_steps", UINT, train.seed_steps, "0", 0, 1e12, "steps of the seed model (the fork point); 0 = by epochs, or with init none") \
    X("train.total_steps", UINT, train.total_steps, "0", 0, 1e12, "steps of the whole schedule; 0 = by epochs") \
    X("train.seed_epochs", REAL, train.seed_epochs, "27", 0, 1e6, "passes over the kept pairs before the fork") \
    X("train.epochs", REAL, train.epochs, "32", 0, 1e6, "passes over the kept pairs in all") \
    X("train.expert_steps", EITHER, train.share_steps, "same", 0, 0, "same|share: steps of an expert's continuation") \
    X("train.out_ratio", REAL, train.out_ratio, MODE_DEFAULT_OUT_RATIO, 0, 1, "share of the pairs outside its clusters that an expert sees") \
    X("train.checkpoint_steps", UINT, train.checkpoint_steps, MODE_DEFAULT_CHECKPOINT_STEPS, 1, 1e9, "a resumable checkpoint every so many steps") \
    X("train.scale_min", REAL, train.scale_min, MODE_DEFAULT_SCALE_MIN, 0.01, 1, "random crop: smallest share of the area") \
    X("train.scale_max", REAL, train.scale_max, MODE_DEFAULT_SCALE_MAX, 0.01, 1, "random crop: largest share of the area") \
    X("train.patch_dropout", REAL, train.patch_dropout, MODE_DEFAULT_PATCH_DROPOUT, 0, 0.999999, "share of every picture's patches that a training step drops, at random; where it is not given, vision_cfg.patch_dropout of the model") \
    X("train.lock_image", BOOL, train.lock_image, "false", 0, 0, "lock the image tower: its weights stay those of train.init, and a step computes only its forward pass") \
    X("train.lock_image_unlocked_groups", UINT, train.lock_image_unlocked_groups, "0", 0, MODE_CLIP_MOST_UNLOCKED, "with lock_image: its last so many groups are trained, of the projection, each block, and what comes before them") \
    X("train.lock_text", BOOL, train.lock_text, "false", 0, 0, "lock the text tower") \
    X("train.lock_text_unlocked_layers", UINT, train.lock_text_unlocked_layers, "0", 0, MODE_CLIP_MOST_UNLOCKED, "with lock_text: its last so many layers are trained, counted as the image tower's groups") \
    X("train.order", EITHER, train.by_windows, MODE_DEFAULT_ORDER, 0, 0, "shuffle|windows: one permutation of all pairs, or one that keeps to a few shards at a time") \
    X("train.window_shards", UINT, train.window_shards, MODE_DEFAULT_WINDOW_SHARDS, 1, MODE_MOST_WINDOW_SHARDS, "with order windows: so many shards are mixed") \
    X("train.evaluate_steps", UINT, train.evaluate_steps, MODE_DEFAULT_EVALUATE_STEPS, 0, 1e9, "every model is evaluated on evaluate.tasks every so many steps while it trains; 0 = never; in no key") \
    X("evaluate.tasks", PATHS, evaluate.tasks, "", 0, 0, "CLIP_benchmark folders, or folders of such folders") \
    X("evaluate.batch", UINT, evaluate.batch, MODE_DEFAULT_EVALUATE_BATCH, 1, 1e5, "pictures at a time") \
    X("ensemble.router", WORD, router, MODE_DEFAULT_ROUTER, 0, 0, "paper|reference|uniform|coarse-centre|share: how experts are weighted") \
    X("ensemble.params", STR, router_params, "", 0, 0, "constants of the routers' formulas: NAME=NUMBER, blanks between") \
    X("ensemble.top_experts", UINT, top_experts, "0", 0, 4096, "so many experts at most answer a task, those of the greatest weights; 0 = all, anything else an approximation")
/* clang-format on */

#endif
