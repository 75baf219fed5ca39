/* aws.h - who asks an S3 store, and which one: AWS's own variables and files.
 *
 *     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_DEFAULT_REGION,
 *     AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL; else the profile AWS_PROFILE ("default") of AWS_SHARED_CREDENTIALS_FILE
 *     (~/.aws/credentials) and AWS_CONFIG_FILE (~/.aws/config)
 *
 * Without a key requests are not signed, as public buckets want it. Roles of machines and of containers, SSO and
 * credential_process are not known.
 *
 * Source:  the AWS SDKs and Tools Reference Guide, "shared config and credentials files".
 * Threads: pure, but for the environment. */
#ifndef MODE_REMOTE_AWS_H
#define MODE_REMOTE_AWS_H

#include "base/error.h"

struct mode_aws {
    char *id, *secret, *token; /* NULL: none; id and secret together */
    char *region;              /* "us-east-1" where nobody says another */
    char *endpoint;            /* "https://HOST[:PORT][/PATH]" of a store that is not Amazon's; NULL */
};

/* The caller clears it whatever the result. MODE_E_CONFIG: half a key, a profile that is in neither file, signs that no
 * key has. The sentence names what is wrong and never shows a value. */
enum mode_status mode_aws_find(struct mode_aws *a, struct mode_error *err);
void mode_aws_clear(struct mode_aws *a);

/* Where s3://BUCKET/KEY is asked for, and what of that is signed: *host as it is sent, *path escaped. The caller frees
 * all three. */
char *mode_aws_url(char **host, char **path, const struct mode_aws *a, const char *address);

/* The value of key below [section], without blanks around it; NULL: there is none. The last one counts; lines that
 * begin with a blank, "#" or ";" are passed over. The caller frees. */
char *mode_aws_ini(const char *text, const char *section, const char *key);

#endif
