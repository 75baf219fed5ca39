/* answer.h - an HTTP response about a shard: its headers, and the first bytes of an error body. Internal to
 * common/remote.
 *
 * Threads: pure. */
#ifndef MODE_REMOTE_ANSWER_H
#define MODE_REMOTE_ANSWER_H

#include "base/str.h"
#include "remote/address.h"

#include <stdbool.h>

enum { MODE__MOST_SAID = 4096 };

/* Of the last response in a chain of redirects. Values that do not fit are ignored. */
struct mode__answer {
    long code;
    char etag[258], modified[64], region[64], md5[33];
    uint64_t start, whole; /* of the object: first byte of the body, total size; UINT64_MAX: unknown */
    int64_t length;        /* Content-Length; -1: unknown */
    unsigned retry_after_s;
    bool encrypted; /* server-side encryption: the ETag is not an MD5 */
    char said[MODE__MOST_SAID + 1];
    size_t n_said;
};
#define MODE__NO_ANSWER ((struct mode__answer){.whole = UINT64_MAX, .length = -1})

/* Parses one header line of n bytes. A status line resets the struct. */
void mode__answer_header(struct mode__answer *a, const char *line, size_t n);
/* Adds bytes of an error body; only the first MODE__MOST_SAID are kept. */
void mode__answer_said(struct mode__answer *a, const char *data, size_t n);
/* Appends "; the store says AccessDenied" for an error of an S3 store. */
void mode__answer_add_said(struct mode_str *out, const struct mode__answer *a);
/* Whether the store reports that the key's session has expired. */
bool mode__answer_is_over(const struct mode__answer *a);
/* The version that the response states. */
void mode__answer_version(struct mode_remote_version *v, const struct mode__answer *a);

#endif
