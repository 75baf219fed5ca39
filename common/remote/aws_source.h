/* aws_source.h - where a key for S3 comes from: which of AWS's sources counts, before anybody is asked. Inside of
 * common/remote.
 *
 * In the order of AWS's own tools: keys of the environment; a role of the profile; a web identity; keys of the profile
 * in ~/.aws/credentials; its credential_process; its keys in ~/.aws/config; the container's; the machine's. A profile
 * that names what is not done here (SSO, a login, MFA) is refused: nothing else is taken in its place.
 *
 * Source:  the AWS SDKs and Tools Reference Guide, "standardized credential providers".
 * Threads: pure, but for the environment. */
#ifndef MODE_REMOTE_AWS_SOURCE_H
#define MODE_REMOTE_AWS_SOURCE_H

#include "remote/aws_profile.h"

#include <stdint.h>

enum mode__aws_kind {
    MODE__AWS_NONE, /* the machine's, and it is not to be asked */
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
    char *role, *session, *external_id, *duration; /* roles; NULL where it is not said */
    char *sts, *region;                            /* roles: who is asked, and where that is */
    char *file;                                    /* a web identity's token, or the container's */
    char *authorization;                           /* the container's token, where it is in no file */
    char *command;                                 /* process */
    char *url;                                     /* container, machine */
    unsigned seconds, tries;                       /* machine: for an answer; how often */
    struct mode__aws_source *by;                   /* role: who takes it */
};

/* The caller clears it whatever the result. region: NULL = not said; sts: NULL = Amazon's. MODE_E_CONFIG: half a key, a
 * profile that is in neither file, or that names what is not done here. */
enum mode_status mode__aws_source_find(struct mode__aws_source *s, const struct mode__aws_files *f, const char *region,
                                       const char *sts, struct mode_error *err);
void mode__aws_source_clear(struct mode__aws_source *s);
/* Tells sources apart, for whoever keeps what they gave: a digest, without secrets. The caller frees. */
char *mode__aws_source_name(const struct mode__aws_source *s);

#endif
