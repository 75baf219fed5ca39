/* address.h - where a shard is that lies on another machine, and which of its versions is meant.
 *
 *     https://HOST/PATH.tar   http://HOST/PATH.tar   s3://BUCKET/KEY.tar
 *     https://HOST/PATH.tar#bytes=1048576,etag=5d41402a     pinned: what the server said when the run was planned
 *
 * A pinned address is what tasks name, so that every machine reads the same bytes or none. What is after "?" of an
 * http address may be a key (presigned addresses): it is no part of the address here, shows nowhere, and is kept apart
 * (queries.h).
 *
 * Threads: pure. Every text is the caller's to free. */
#ifndef MODE_REMOTE_ADDRESS_H
#define MODE_REMOTE_ADDRESS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* http://, https:// or s3://, in letters of any case. */
bool mode_remote_is(const char *path);
bool mode_remote_is_s3(const char *address);

/* What a person wrote: *address, and *query, what was after "?", or NULL.
 * MODE_E_CONFIG: a password in it, a folder, a pattern, signs that no address has. The sentence shows no secret. */
enum mode_status mode_remote_address(char **address, char **query, const char *text, struct mode_error *err);
/* A text for people: without what is after "?" of an http address, and without user and password. */
char *mode_remote_shown(const char *text);

enum mode_remote_mark { MODE_REMOTE_BYTES, MODE_REMOTE_ETAG, MODE_REMOTE_WEAK, MODE_REMOTE_TIME };

/* Which version: its bytes, and what else the server tells versions apart by. */
struct mode_remote_version {
    uint64_t bytes;
    enum mode_remote_mark mark; /* MODE_REMOTE_BYTES: by nothing else */
    char text[256];             /* the ETag without its quotes, or Last-Modified in seconds since 1970 */
};

/* "address#bytes=...". */
char *mode_remote_pin(const char *address, const struct mode_remote_version *v);
/* The other way. MODE_E_VALUE: it is not pinned. */
enum mode_status mode_remote_unpin(char **address, struct mode_remote_version *v, const char *pinned,
                                   struct mode_error *err);
/* How many bytes of a pinned address are the address; all of any other path. */
size_t mode_remote_pin_at(const char *path);
/* Bytes of a pinned shard; 0: not pinned. */
uint64_t mode_remote_bytes(const char *pinned);

/* What becomes part of a request's line must be one word: MODE_E_CONFIG with the variable's name, never with its value.
 * NULL is one. */
enum mode_status mode_remote_word(const char *value, const char *name, struct mode_error *err);
/* Where Hugging Face's hub is: HF_ENDPOINT, else its own address. MODE_E_CONFIG: it is no address. */
enum mode_status mode_remote_hub(const char **endpoint, struct mode_error *err);
/* %XX for what is no letter, digit, "-", ".", "_" or "~"; slashes: "/" stays. */
char *mode_remote_escape(const char *text, bool slashes);

#endif
