/* address.h - the address of a shard on another machine, with the version that is meant.
 *
 *     https://HOST/PATH.tar   http://HOST/PATH.tar   s3://BUCKET/KEY.tar
 *     https://HOST/PATH.tar#bytes=1048576,etag=5d41402a     pinned: the version at planning time
 *
 * Tasks refer to pinned addresses, so every machine reads the same bytes or fails. The query (after "?") of an http
 * address may be a credential (presigned URLs): it is not part of the address, is never shown, and is stored separately
 * (queries.h).
 *
 * Threads: pure. The caller frees every returned text. */
#ifndef MODE_REMOTE_ADDRESS_H
#define MODE_REMOTE_ADDRESS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* http://, https:// or s3://, in letters of any case. */
bool mode_remote_is(const char *path);
bool mode_remote_is_s3(const char *address);

/* Parses an address as a person wrote it: *address, and *query, the part after "?", or NULL. MODE_E_CONFIG: a password
 * in it, a folder, a pattern, characters that are not allowed. The error shows no secret. */
enum mode_status mode_remote_address(char **address, char **query, const char *text, struct mode_error *err);
/* A text for people: without the query of an http address, and without user and password. */
char *mode_remote_shown(const char *text);

enum mode_remote_mark { MODE_REMOTE_BYTES, MODE_REMOTE_ETAG, MODE_REMOTE_WEAK, MODE_REMOTE_TIME };

/* A version: its size, and the validator by which the server tells versions apart. */
struct mode_remote_version {
    uint64_t bytes;
    enum mode_remote_mark mark; /* MODE_REMOTE_BYTES: none but the size */
    char text[256];             /* the ETag without its quotes, or Last-Modified in seconds since 1970 */
};

/* "address#bytes=...". */
char *mode_remote_pin(const char *address, const struct mode_remote_version *v);
/* The inverse. MODE_E_VALUE: not pinned. */
enum mode_status mode_remote_unpin(char **address, struct mode_remote_version *v, const char *pinned,
                                   struct mode_error *err);
/* Length of the address within a pinned address; the full length of any other path. */
size_t mode_remote_pin_at(const char *path);
/* Size of a pinned shard in bytes; 0: not pinned. */
uint64_t mode_remote_bytes(const char *pinned);

/* Checks a value that becomes part of an HTTP header: printable ASCII without spaces. MODE_E_CONFIG names the
 * variable, never its value. NULL is fine. */
enum mode_status mode_remote_word(const char *value, const char *name, struct mode_error *err);
/* The URL of the Hugging Face hub: HF_ENDPOINT, else the public one. MODE_E_CONFIG: not a URL. */
enum mode_status mode_remote_hub(const char **endpoint, struct mode_error *err);
/* Percent-encodes everything but letters, digits, "-", ".", "_" and "~"; slashes: keep "/". */
char *mode_remote_escape(const char *text, bool slashes);

#endif
