/* aws_answer.h - keys, as those who give them write them: JSON of containers, machines and commands, XML of STS. Inside
 * of common/remote.
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
    char *region;              /* the machine's; NULL: not known */
    int64_t end;               /* seconds since 1970; MODE__AWS_NEVER: not said */
};

void mode__aws_keys_clear(struct mode__aws_keys *k);
void mode__aws_keys_copy(struct mode__aws_keys *to, const struct mode__aws_keys *from);

/* Of n bytes. what begins the sentence; token: the name of the session's token, "Token" or "SessionToken". MODE_E_FORMAT:
 * it is no such answer; the sentence shows nothing of it. k is empty after a failure. */
enum mode_status mode__aws_keys_of_json(struct mode__aws_keys *k, const char *text, size_t n, const char *token,
                                        const char *what, struct mode_error *err);
enum mode_status mode__aws_keys_of_xml(struct mode__aws_keys *k, const char *text, const char *what,
                                       struct mode_error *err);

/* The text of the first <name> that has no element inside, entities taken; NULL: there is none. The caller frees. */
char *mode__aws_element(const char *text, const char *name);
/* A string of a JSON object; NULL: it is none, or has no such. The caller frees. */
char *mode__aws_member(const char *text, size_t n, const char *name);
/* "2026-01-02T03:04:05Z", with a fraction or an offset where somebody writes them. */
bool mode__aws_time(int64_t *s, const char *text);

#endif
