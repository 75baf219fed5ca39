/* link.h - queries a server about a shard, and fetches its bytes.
 *
 * A request with a transient failure (503, 429, a connection that breaks, stalls or is too slow) is retried from the
 * byte where it stopped, with pauses of 0.5 to 8 s, until six attempts in a row bring nothing. 403 and 404 are final.
 * No error text contains a key, a token or a query.
 *
 * Keys: s3:// by aws.h; http by queries.h; HF_TOKEN only for the host of HF_ENDPOINT (https://huggingface.co), never
 * for redirects to others. SSL_CERT_FILE: trusted certificates, instead of the system's.
 *
 * Threads: a link belongs to one thread. */
#ifndef MODE_REMOTE_LINK_H
#define MODE_REMOTE_LINK_H

#include "base/error.h"
#include "remote/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Called several times a second while waiting; returning false stops the call (MODE_E_STOPPED). going may be NULL. */
struct mode_remote_watch {
    bool (*going)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};
bool mode_remote_going(const struct mode_remote_watch *w, uint64_t done, uint64_t total);

struct mode_remote_link;
enum mode_status mode_remote_link_open(struct mode_remote_link **link, struct mode_error *err);
void mode_remote_link_close(struct mode_remote_link **link);

/* The current version. Errors: MODE_E_NOINPUT 404; MODE_E_PERM 401, 403; MODE_E_PEER unreachable, or failing for too
 * long; MODE_E_CONFIG malformed keys; MODE_E_STOPPED. */
enum mode_status mode_remote_look(struct mode_remote_version *v, struct mode_remote_link *link, const char *address,
                                  const struct mode_remote_watch *w, struct mode_error *err);

/* Receives n bytes at offset `at`; false: they cannot be stored. */
typedef bool mode_remote_sink(void *ctx, const void *data, size_t n, uint64_t at);

/* Bytes [from, to) of the pinned version, in order. md5: 32 hex digits for the whole object if the server states them,
 * else "". Errors: those of mode_remote_look; MODE_E_VALUE: the version has changed; MODE_E_IO: the sink. */
enum mode_status mode_remote_get(struct mode_remote_link *link, const char *pinned, uint64_t from, uint64_t to,
                                 mode_remote_sink *sink, void *ctx, char md5[33], const struct mode_remote_watch *w,
                                 struct mode_error *err);

#endif
