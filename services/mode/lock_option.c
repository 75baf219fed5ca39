#include "lock_option.h"

#include "ranges.h"

static enum mode_status find_unlocked(int64_t *n, const char *text, const char *name, bool locks, const char *tower,
                                      struct mode_error *err)
{
    *n = 0;
    if (!text) return MODE_OK;
    if (!locks) return MODE_FAIL(err, MODE_E_USAGE, "%s goes with %s", name, tower);
    return option_count(n, text, name, 0, MODE_CLIP_MOST_UNLOCKED, err);
}

enum mode_status lock_find(struct mode_clip_lock *lock, const struct lock_options *o, struct mode_error *err)
{
    *lock = (struct mode_clip_lock){.image = o->image, .text = o->text};
    enum mode_status st = find_unlocked(&lock->image_unlocked_groups, o->image_groups, "--lock-image-unlocked-groups",
                                        o->image, "--lock-image", err);
    return st ? st
              : find_unlocked(&lock->text_unlocked_layers, o->text_layers, "--lock-text-unlocked-layers", o->text,
                              "--lock-text", err);
}
