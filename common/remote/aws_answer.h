/* aws_answer.h - parses credentials: JSON from containers, machines and commands, XML from STS. Internal to
 * common/remote.
 *
 * Threads: pure. */
#ifndef MODE_REMOTE_AWS_ANSWER_H
#define MODE_REMOTE_AWS_ANSWER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODE__AWS_NEVER INT64_MAX

struct mode__aws_keys {
    char *id, *secret, *token; /* token: NULL = none */
    char *region;              /* of the machine; NULL: not known */
    int64_t end;               /* expiry, seconds since 1970; MODE__AWS_NEVER: not given */
};

void mode__aws_keys_clear(struct mode__aws_keys *k);
void mode__aws_keys_copy(struct mode__aws_keys *to, const struct mode__aws_keys *from);

/* Parses n bytes. what begins the error text; token: the field of the session token, "Token" or "SessionToken".
 * MODE_E_FORMAT: malformed; the error shows nothing of it. k is empty after a failure. */
enum mode_status mode__aws_keys_of_json(struct mode__aws_keys *k, const char *text, size_t n, const char *token,
                                        const char *what, struct mode_error *err);
enum mode_status mode__aws_keys_of_xml(struct mode__aws_keys *k, const char *text, const char *what,
                                       struct mode_error *err);

/* The text of the first <name> without child elements, with entities decoded; NULL: none. The caller frees. */
char *mode__aws_element(const char *text, const char *name);
/* A string member of a JSON object; NULL: not an object, or no such member. The caller frees. */
char *mode__aws_member(const char *text, size_t n, const char *name);
/* "2026-01-02T03:04:05Z", optionally with a fraction or an offset. */
bool mode__aws_time(int64_t *s, const char *text);

#endif
