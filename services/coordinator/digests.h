/* digests.h - digests of large inputs, remembered from one planning to the next.
 *
 * Evaluation tasks have tens of GB, most runs of a workspace name the same ones, and to hash them takes minutes. What
 * was digested is known by what it is (what, path) and holds as long as every file there has the name, the size and the
 * modification time that it had (decision 3). While a file was changed within the last two seconds nothing is
 * remembered, as git does with its index: it may be changed once more and keep its time.
 *
 *     if (digests_find(hex, &look, d, "task", dir)) return MODE_OK;
 *     if ((st = mode_evalset_digest(dir, hex, err)) == MODE_OK) digests_keep(d, &look, hex);
 *
 * An entry is a file <workspace>/digests/<name>, sealed by its own digest; one that is damaged or of another time is as
 * good as none, and all of them may be removed. A d of NULL remembers nothing.
 *
 * Threads: one caller; digests_reading and digests_stop may be called by another one. */
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
    bool settled;   /* none was changed just now, all could be seen */
};

void digests_open(struct digests **out, const char *workspace);
void digests_close(struct digests **d);
/* path: a folder with all below it, or a file with those beside it. false: not known, and look is for digests_keep. */
bool digests_find(char value[DIGESTS_VALUE], struct digests_look *look, struct digests *d, const char *what,
                  const char *path);
/* Remembers it, if nothing was changed meanwhile. */
void digests_keep(struct digests *d, const struct digests_look *look, const char *value);

/* The calling thread, which digests from now on, is what digests_reading tells of. */
void digests_watch(struct digests *d);
/* It begins to read something ("the evaluation tasks"; static), of which so much is not known yet; NULL: nothing. */
void digests_begin(struct digests *d, const char *reads);
void digests_expect(struct digests *d, const char *what, const char *path);
/* "reads the evaluation tasks: 3.1 of 20.0 GB", without the numbers where nobody knows them; "" while it reads nothing. */
void digests_reading(char *text, size_t size, struct digests *d);
/* What is being digested ends with MODE_E_STOPPED, and so does what comes after it. */
void digests_stop(struct digests *d);

#endif
