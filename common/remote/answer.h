/* answer.h - what a server's answer says of a shard: its headers, and of a refusal the first bytes. Inside of
 * common/remote.
 *
 * Threads: pure. */
#ifndef MODE_REMOTE_ANSWER_H
#define MODE_REMOTE_ANSWER_H

#include "base/str.h"
#include "remote/address.h"

#include <stdbool.h>

enum { MODE__MOST_SAID = 4096 };

/* Of the last answer of a chain of redirects. Texts that do not fit are as if they were not there. */
struct mode__answer {
    long code;
    char etag[258], modified[64], region[64], md5[33];
    uint64_t start, whole; /* of the object: first byte that comes, all bytes; UINT64_MAX: not said */
    int64_t length;        /* Content-Length; -1: not said */
    unsigned retry_after_s;
    bool encrypted; /* by the store, with a key of its own: the ETag is no MD5 */
    char said[MODE__MOST_SAID + 1];
    size_t n_said;
};
#define MODE__NO_ANSWER ((struct mode__answer){.whole = UINT64_MAX, .length = -1})

/* A line of n bytes, as it came. The status line begins the answer anew. */
void mode__answer_header(struct mode__answer *a, const char *line, size_t n);
/* Bytes of the body of a refusal; those beyond the first are not kept. */
void mode__answer_said(struct mode__answer *a, const char *data, size_t n);
/* "; the store says AccessDenied", of an S3 store's refusal. */
void mode__answer_add_said(struct mode_str *out, const struct mode__answer *a);
/* Does the store say that the key's session has ended? */
bool mode__answer_is_over(const struct mode__answer *a);
/* How it tells its version. */
void mode__answer_version(struct mode_remote_version *v, const struct mode__answer *a);

#endif
