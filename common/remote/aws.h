/* aws.h - credentials, region and endpoint for S3, from AWS's variables, files and services, in the order of AWS's own
 * tools (aws_source.h).
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
 * Without a key requests are not signed, as for public buckets. A profile with SSO, a login or MFA is rejected.
 *
 * Source:  the AWS SDKs and Tools Reference Guide.
 * Threads: any. */
#ifndef MODE_REMOTE_AWS_H
#define MODE_REMOTE_AWS_H

#include "base/error.h"
#include "remote/link.h"

struct mode_aws {
    char *id, *secret, *token; /* NULL: none; id and secret together */
    char *region;              /* "us-east-1" by default */
    char *endpoint;            /* "https://HOST[:PORT][/PATH]" of a store that is not Amazon's; NULL */
    char *source;              /* for people: the origin of the key, or why there is none */
    int64_t end, again;        /* seconds since 1970: expiry of the key; when to look it up again; INT64_MAX: never */
};

/* The caller clears it whatever the result. MODE_E_CONFIG: half a key, a profile that is in neither file or uses
 * something unsupported, invalid characters in a key; MODE_E_PERM, MODE_E_PEER, MODE_E_FORMAT: a source denies, does
 * not answer, returns no key; MODE_E_STOPPED. The error names what is wrong and never shows a value. */
enum mode_status mode_aws_find(struct mode_aws *a, const struct mode_remote_watch *w, struct mode_error *err);
/* Call when the store reports that the key has expired. a is cleared; the next mode_aws_find returns a new key, if its
 * source has one. */
void mode_aws_over(struct mode_aws *a);
void mode_aws_clear(struct mode_aws *a);

/* The URL of s3://BUCKET/KEY, and the parts of it that are signed: *host as sent, *path percent-encoded. The caller
 * frees all three. */
char *mode_aws_url(char **host, char **path, const struct mode_aws *a, const char *address);

#endif
