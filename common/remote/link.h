/* link.h - what a server says of a shard, and its bytes.
 *
 * A request that fails for a reason that may pass (503, 429, a connection that is cut, does not answer or trickles) is
 * made again, from the byte where it stopped, with pauses of half a second to eight; it is given up after six in a row
 * that brought nothing. 403 and 404 are answers. No sentence has a key, a token or a query in it.
 *
 * Keys: s3:// by aws.h; http by queries.h; HF_TOKEN for the host of HF_ENDPOINT (https://huggingface.co) alone, whatever
 * redirects say. SSL_CERT_FILE: who is trusted, in the place of the system's list.
 *
 * Threads: a link belongs to one. */
#ifndef MODE_REMOTE_LINK_H
#define MODE_REMOTE_LINK_H

#include "base/error.h"
#include "remote/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Called several times a second while something is waited for; false stops it (MODE_E_STOPPED). going may be NULL. */
struct mode_remote_watch {
    bool (*going)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};
bool mode_remote_going(const struct mode_remote_watch *w, uint64_t done, uint64_t total);

struct mode_remote_link;
enum mode_status mode_remote_link_open(struct mode_remote_link **link, struct mode_error *err);
void mode_remote_link_close(struct mode_remote_link **link);

/* Which version is there. Errors: MODE_E_NOINPUT 404; MODE_E_PERM 401, 403; MODE_E_PEER not to be reached, or for
 * too long; MODE_E_CONFIG keys that are none; MODE_E_STOPPED. */
enum mode_status mode_remote_look(struct mode_remote_version *v, struct mode_remote_link *link, const char *address,
                                  const struct mode_remote_watch *w, struct mode_error *err);

/* Takes n bytes that belong at byte `at`; false: they cannot be kept. */
typedef bool mode_remote_sink(void *ctx, const void *data, size_t n, uint64_t at);

/* Bytes [from, to) of the pinned version, in order. md5: 32 hex digits of the whole object, where the server says them,
 * else "". Errors: those of look; MODE_E_VALUE: another version is there now; MODE_E_IO: the sink. */
enum mode_status mode_remote_get(struct mode_remote_link *link, const char *pinned, uint64_t from, uint64_t to,
                                 mode_remote_sink *sink, void *ctx, char md5[33], const struct mode_remote_watch *w,
                                 struct mode_error *err);

#endif
