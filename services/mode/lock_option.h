/* lock_option.h - locked towers, the same options in every verb that trains. */
#ifndef MODE_SERVICES_MODE_LOCK_OPTION_H
#define MODE_SERVICES_MODE_LOCK_OPTION_H

#include "base/options.h"
#include "models/clip_train.h"

struct lock_options {
    bool image, text;
    const char *image_groups, *text_layers;
};

/* type has a struct lock_options named lock */
#define LOCK_OPTIONS(type)                                                                                             \
    MODE_OPT_FLAG(type, lock.image, "lock-image",                                                                      \
                  "lock the image tower (LiT): it is not trained, and costs only its forward pass"),                   \
        MODE_OPT_STR(type, lock.image_groups, "lock-image-unlocked-groups", NULL, "N",                                 \
                     "with --lock-image: train its last N groups, of the projection, each block, and what comes "      \
                     "before them (default: 0)"),                                                                      \
        MODE_OPT_FLAG(type, lock.text, "lock-text", "lock the text tower"),                                            \
        MODE_OPT_STR(type, lock.text_layers, "lock-text-unlocked-layers", NULL, "N",                                   \
                     "with --lock-text: train its last N layers, counted as the image tower's groups (default: 0)")

/* E_USAGE: a number that is none, or without its tower's option. */
enum mode_status lock_find(struct mode_clip_lock *lock, const struct lock_options *o, struct mode_error *err);

#endif
