/* sigv4.h - signs a request to S3 or a compatible store.
 *
 * Source: Amazon's "Signature Version 4 signing process"; its examples are the test. Written here because libcurl's own
 *          signer (7.88) is wrong for empty values and some characters of a query.
 * Threads: pure, except that the clock is read. */
#ifndef MODE_REMOTE_SIGV4_H
#define MODE_REMOTE_SIGV4_H

#include <stddef.h>

struct mode_sigv4_pair {
    const char *name, *value;
};

struct mode_sigv4_request {
    const char *method;                  /* "GET" */
    const char *path;                    /* as sent: percent-encoded once, begins with "/" */
    const struct mode_sigv4_pair *query; /* neither encoded nor sorted */
    size_t n_query;
    const struct mode_sigv4_pair *header; /* every one that is signed, host and x-amz-date among them */
    size_t n_header;
    const char *payload; /* SHA-256 of the body as 64 hex digits, or "UNSIGNED-PAYLOAD" */
};

struct mode_sigv4_key {
    const char *id, *secret, *region, *service;
};

/* The value of the header Authorization; time: "20130524T000000Z". The caller frees. */
char *mode_sigv4_authorization(const struct mode_sigv4_request *r, const struct mode_sigv4_key *key, const char *time);
/* The canonical request, for tests and debugging. The caller frees. */
char *mode_sigv4_canonical(const struct mode_sigv4_request *r);

/* The Host header of https://HOST[:PORT][/PATH]. The caller frees. */
char *mode_sigv4_host(const char *url);
enum { MODE_SIGV4_TIME = 17 };
void mode_sigv4_now(char time[MODE_SIGV4_TIME]);

#endif
