/* digests.h - caches digests of large inputs between plannings.
 *
 * Evaluation tasks have tens of GB, most runs of a workspace use the same ones, and hashing them takes minutes. An
 * entry is identified by (what, path) and is valid while all files there keep name, size and modification time
 * (decision 3). Nothing is cached while a file was modified within the last two seconds, as in git's index: it may
 * change again without a new timestamp.
 *
 *     if (digests_find(hex, &look, d, "task", dir)) return MODE_OK;
 *     if ((st = mode_evalset_digest(dir, hex, err)) == MODE_OK) digests_keep(d, &look, hex);
 *
 * An entry is a file <workspace>/digests/<name>, sealed by its own digest; a damaged or outdated one is ignored, and
 * all may be removed at any time. With d NULL nothing is cached.
 *
 * Threads: one caller; digests_reading and digests_stop may be called from another thread. */
#ifndef MODE_COORDINATOR_DIGESTS_H
#define MODE_COORDINATOR_DIGESTS_H

#include "base/error.h"
#include "base/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DIGESTS_VALUE = 128 }; /* bytes of a value, its NUL included: a digest, an encoder's identity */

struct digests;

struct digests_look {
    const char *what, *path; /* borrowed from the call */
    char stamp[MODE_DIGEST_HEX];
    uint64_t bytes; /* of all files there */
    bool settled;   /* no recent change, and all files could be examined */
};

void digests_open(struct digests **out, const char *workspace);
void digests_close(struct digests **d);
/* path: a folder with everything below it, or a file with its siblings. false: not cached, and look is to be passed to
 * digests_keep. */
bool digests_find(char value[DIGESTS_VALUE], struct digests_look *look, struct digests *d, const char *what,
                  const char *path);
/* Stores the value, unless files have changed meanwhile. */
void digests_keep(struct digests *d, const struct digests_look *look, const char *value);

/* digests_reading reports the progress of the calling thread from now on. */
void digests_watch(struct digests *d);
/* Begins a phase of reading ("the evaluation tasks"; a static string) and announces inputs whose digests are not cached
 * yet; NULL ends it. */
void digests_begin(struct digests *d, const char *reads);
void digests_expect(struct digests *d, const char *what, const char *path);
/* "reads the evaluation tasks: 3.1 of 20.0 GB", without numbers if the size is unknown; "" while it reads nothing. */
void digests_reading(char *text, size_t size, struct digests *d);
/* Makes the current digest and all later ones fail with MODE_E_STOPPED. */
void digests_stop(struct digests *d);

#endif
