/* aws_source.h - decides which of AWS's credential sources applies, before any is queried. Internal to common/remote.
 *
 * In the order of AWS's own tools: keys of the environment; a role of the profile; a web identity; keys of the profile
 * in ~/.aws/credentials; its credential_process; its keys in ~/.aws/config; the container's; the machine's. A profile
 * that uses something unsupported (SSO, a login, MFA) is rejected: there is no fallback to other sources.
 *
 * Source:  the AWS SDKs and Tools Reference Guide, "standardized credential providers".
 * Threads: pure, except that the environment is read. */
#ifndef MODE_REMOTE_AWS_SOURCE_H
#define MODE_REMOTE_AWS_SOURCE_H

#include "remote/aws_profile.h"

#include <stdint.h>

enum mode__aws_kind {
    MODE__AWS_NONE, /* the machine's, but querying it is disabled */
    MODE__AWS_KEYS,
    MODE__AWS_WEB_IDENTITY,
    MODE__AWS_ROLE,
    MODE__AWS_PROCESS,
    MODE__AWS_CONTAINER,
    MODE__AWS_MACHINE
};

struct mode__aws_source {
    enum mode__aws_kind kind;
    char *shown;                                   /* for people: "the role arn:… by the web identity of …" */
    char *id, *secret, *token;                     /* keys */
    char *role, *session, *external_id, *duration; /* roles; NULL if not given */
    char *sts, *region;                            /* roles: the STS endpoint and its region */
    char *file;                                    /* a web identity's token, or the container's */
    char *authorization;                           /* the container's token, if not in a file */
    char *command;                                 /* process */
    char *url;                                     /* container, machine */
    unsigned seconds, tries;                       /* machine: timeout and attempts */
    struct mode__aws_source *by;                   /* role: the source whose keys assume it */
};

/* The caller clears it whatever the result. region: NULL = not given; sts: NULL = Amazon's. MODE_E_CONFIG: half a key,
 * a profile that is in neither file, or that uses something unsupported. */
enum mode_status mode__aws_source_find(struct mode__aws_source *s, const struct mode__aws_files *f, const char *region,
                                       const char *sts, struct mode_error *err);
void mode__aws_source_clear(struct mode__aws_source *s);
/* Identifies a source, as a cache key: a digest, without secrets. The caller frees. */
char *mode__aws_source_name(const struct mode__aws_source *s);

#endif
