/* sigv4.h - signs a request to S3, or to a store that speaks like it.
 *
 * Source:  Amazon's "Signature Version 4 signing process"; its examples are the test. Written here because libcurl's own
 *          signer (7.88) is wrong for empty values and several signs of a query.
 * Threads: pure, but for the clock. */
#ifndef MODE_REMOTE_SIGV4_H
#define MODE_REMOTE_SIGV4_H

#include <stddef.h>

struct mode_sigv4_pair {
    const char *name, *value;
};

struct mode_sigv4_request {
    const char *method;                  /* "GET" */
    const char *path;                    /* as it is sent: escaped once, begins with "/" */
    const struct mode_sigv4_pair *query; /* neither escaped nor sorted */
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
/* Its parts, for tests and for whoever looks for the one that is wrong. The caller frees. */
char *mode_sigv4_canonical(const struct mode_sigv4_request *r);

/* Of https://HOST[:PORT][/PATH]: the host as it is sent. The caller frees. */
char *mode_sigv4_host(const char *url);
enum { MODE_SIGV4_TIME = 17 };
void mode_sigv4_now(char time[MODE_SIGV4_TIME]);

#endif
