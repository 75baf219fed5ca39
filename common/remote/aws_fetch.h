/* aws_fetch.h - gets the keys of a source (aws_source.h). Internal to common/remote.
 *
 * Sources:  "Container credential provider" and "IMDS credential provider" of the AWS SDKs and Tools Reference Guide;
 *           AWS STS API Reference, "AssumeRole" and "AssumeRoleWithWebIdentity"; "Process credential provider".
 * Threads: any. */
#ifndef MODE_REMOTE_AWS_FETCH_H
#define MODE_REMOTE_AWS_FETCH_H

#include "remote/aws_answer.h"
#include "remote/aws_source.h"
#include "remote/link.h"

/* Errors: MODE_E_NOINPUT the machine has no keys (it may not be one of Amazon's); MODE_E_PERM denied; MODE_E_PEER no
 * response; MODE_E_CONFIG, MODE_E_FORMAT; MODE_E_STOPPED. k is empty after a failure. */
enum mode_status mode__aws_of_container(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                        const struct mode_remote_watch *w, struct mode_error *err);
enum mode_status mode__aws_of_machine(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                      const struct mode_remote_watch *w, struct mode_error *err);
/* by: the keys that assume the role; NULL: a web identity. */
enum mode_status mode__aws_of_sts(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                  const struct mode__aws_keys *by, const struct mode_remote_watch *w,
                                  struct mode_error *err);
enum mode_status mode__aws_of_process(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                      const struct mode_remote_watch *w, struct mode_error *err);

#endif
