/* defaults.h - default values shared by a run's spec and the verb of the same step, as text.
 *
 * `mode cluster` without options does what a run does by default: spec_keys.h and the verbs' option tables take the
 * value from here, and a test compares docs/RUN.md with it. The default of captions.text_keys is MODE_TEXT_KEYS_DEFAULT
 * of data/caption_text.h. */
#ifndef MODE_PIPELINE_DEFAULTS_H
#define MODE_PIPELINE_DEFAULTS_H

/* captions */
#define MODE_DEFAULT_MAX_IMAGE_PIXELS "64000000"

/* cluster */
#define MODE_DEFAULT_FINE              "1024"
#define MODE_DEFAULT_COARSE            "4"
#define MODE_DEFAULT_METRIC            "euclidean"
#define MODE_DEFAULT_SAMPLE_PER_CENTRE "2000"
#define MODE_DEFAULT_FINE_ITERATIONS   "50"
#define MODE_DEFAULT_COARSE_ITERATIONS "100"

/* train */
#define MODE_DEFAULT_BATCH            "256"
#define MODE_DEFAULT_LR               "5e-4"
#define MODE_DEFAULT_BETA1            "0.9"
#define MODE_DEFAULT_BETA2            "0.98"
#define MODE_DEFAULT_EPS              "1e-6"
#define MODE_DEFAULT_WEIGHT_DECAY     "0.2"
#define MODE_DEFAULT_GRAD_CLIP_NORM   "0"
#define MODE_DEFAULT_ACCUMULATE       "1"
#define MODE_DEFAULT_WARMUP_STEPS     "2000" /* as a default it is at most a tenth of the schedule */
#define MODE_DEFAULT_SCHEDULE         "cosine"
#define MODE_DEFAULT_COOLDOWN_POWER   "1"
#define MODE_DEFAULT_COOLDOWN_END     "0"
#define MODE_DEFAULT_OUT_RATIO        "0.02"
#define MODE_DEFAULT_CHECKPOINT_STEPS "200"
#define MODE_DEFAULT_SCALE_MIN        "0.9"
#define MODE_DEFAULT_SCALE_MAX        "1.0"
#define MODE_DEFAULT_PATCH_DROPOUT    "0" /* or what the model config says */
#define MODE_DEFAULT_ORDER            "shuffle"
#define MODE_DEFAULT_WINDOW_SHARDS    "16"
#define MODE_MOST_WINDOW_SHARDS       100000
#define MODE_DEFAULT_EVALUATE_STEPS   "0" /* never */

/* evaluate, ensemble */
#define MODE_DEFAULT_EVALUATE_BATCH "64"
#define MODE_DEFAULT_ROUTER         "paper"

#endif
