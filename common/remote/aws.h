/* aws.h - who asks an S3 store, and which one: by AWS's own variables, files and services, in the order of its own tools
 * (aws_source.h).
 *
 *     keys     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *              a web identity (EKS): AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME
 *              the profile AWS_PROFILE ("default") of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials) and
 *              AWS_CONFIG_FILE (~/.aws/config): keys, a role, credential_process
 *              a container's role (ECS, EKS): AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, AWS_CONTAINER_CREDENTIALS_FULL_URI
 *              a machine's role (EC2), unless AWS_EC2_METADATA_DISABLED
 *     region   AWS_REGION, AWS_DEFAULT_REGION, the profile's, the machine's, "us-east-1"
 *     store    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's endpoint_url; else Amazon's
 *
 * Without a key requests are not signed, as public buckets want it. A profile with SSO, a login or MFA is refused.
 *
 * Source:  the AWS SDKs and Tools Reference Guide.
 * Threads: any. */
#ifndef MODE_REMOTE_AWS_H
#define MODE_REMOTE_AWS_H

#include "base/error.h"
#include "remote/link.h"

struct mode_aws {
    char *id, *secret, *token; /* NULL: none; id and secret together */
    char *region;              /* "us-east-1" where nobody says another */
    char *endpoint;            /* "https://HOST[:PORT][/PATH]" of a store that is not Amazon's; NULL */
    char *source;              /* for people: where the key is from; without a key, why there is none */
    int64_t end, again;        /* seconds since 1970: the key's end; when to find anew; INT64_MAX: never */
};

/* The caller clears it whatever the result. MODE_E_CONFIG: half a key, a profile that is in neither file, or that names
 * what is not done, signs that no key has; MODE_E_PERM, MODE_E_PEER, MODE_E_FORMAT: a source refuses, does not answer,
 * gives no key; MODE_E_STOPPED. The sentence names what is wrong and never shows a value. */
enum mode_status mode_aws_find(struct mode_aws *a, const struct mode_remote_watch *w, struct mode_error *err);
/* The store says that the key is over. a is cleared; what is found next is another one, where its source has one. */
void mode_aws_over(struct mode_aws *a);
void mode_aws_clear(struct mode_aws *a);

/* Where s3://BUCKET/KEY is asked for, and what of that is signed: *host as it is sent, *path escaped. The caller frees
 * all three. */
char *mode_aws_url(char **host, char **path, const struct mode_aws *a, const char *address);

#endif
