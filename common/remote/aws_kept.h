/* aws_kept.h - the keys that sources gave, until they end. Inside of common/remote.
 *
 * Keys that end are fetched anew before: in their last quarter of an hour (the last quarter of a shorter life) by one
 * thread, while the others go on with those there are; in the last ten minutes (sixth) the others wait for it. While the
 * source fails they are used to their end.
 *
 * Threads: any. */
#ifndef MODE_REMOTE_AWS_KEPT_H
#define MODE_REMOTE_AWS_KEPT_H

#include "remote/aws_fetch.h"

/* k: the caller's to clear, empty after a failure; *again: when to ask again, seconds since 1970. Errors: those of
 * aws_fetch.h; MODE_E_NOINPUT: this machine has none to give, and had none. */
enum mode_status mode__aws_keys_get(struct mode__aws_keys *k, int64_t *again, const struct mode__aws_source *s,
                                    const struct mode_remote_watch *w, struct mode_error *err);
/* The store says that these are over: whoever asks next fetches others. */
void mode__aws_keys_over(const char *id);

#endif
