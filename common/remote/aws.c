#include "remote/aws.h"

#include "base/str.h"
#include "remote/address.h"
#include "remote/aws_kept.h"
#include "remote/sigv4.h"

#include <stdlib.h>
#include <string.h>

/* Checks values that become part of a URL or a header. */
static enum mode_status check(const struct mode_aws *a, const char *sts, struct mode_error *err)
{
    const char *const address[][2] = {{a->endpoint, "AWS_ENDPOINT_URL"}, {sts, "AWS_ENDPOINT_URL_STS"}};
    enum mode_status st = MODE_OK;
    if ((st = mode_remote_word(a->id, "AWS_ACCESS_KEY_ID", err)) ||
        (st = mode_remote_word(a->secret, "AWS_SECRET_ACCESS_KEY", err)) ||
        (st = mode_remote_word(a->token, "AWS_SESSION_TOKEN", err)) ||
        (st = mode_remote_word(a->region, "AWS_REGION", err)))
        return st;
    for (int i = 0; i < 2; i++)
        if (address[i][0] &&
            ((strncmp(address[i][0], "http://", 7) != 0 && strncmp(address[i][0], "https://", 8) != 0) ||
             strpbrk(address[i][0], "?#@ \"\\")))
            return MODE_FAIL(err, MODE_E_CONFIG, "%s is not the address of a store; expected https://HOST[:PORT]",
                             address[i][1]);
    return MODE_OK;
}

/* Without trailing slashes. */
static char *address_of(const char *first, const char *second, const struct mode__aws_files *f)
{
    const char *set = mode__aws_variable(first);
    char *address = set ? mode_xstrdup(set) : mode__aws_variable_or(second, f, "endpoint_url");
    for (size_t n = address ? strlen(address) : 0; n && address[n - 1] == '/';) address[--n] = '\0';
    return address;
}

static char *region_of(const struct mode__aws_files *f)
{
    const char *set = mode__aws_variable("AWS_REGION");
    return set ? mode_xstrdup(set) : mode__aws_variable_or("AWS_DEFAULT_REGION", f, "region");
}

/* Takes the key of a source; a machine without a role gives none. */
static enum mode_status take_key(struct mode_aws *a, const struct mode__aws_source *s,
                                 const struct mode_remote_watch *w, struct mode_error *err)
{
    struct mode__aws_keys k = {.end = MODE__AWS_NEVER};
    struct mode_error why;
    enum mode_status st = MODE_OK;
    a->again = MODE__AWS_NEVER;
    if (s->kind == MODE__AWS_KEYS) {
        k.id = mode_xstrdup(s->id);
        k.secret = mode_xstrdup(s->secret);
        k.token = s->token ? mode_xstrdup(s->token) : NULL;
    } else if (s->kind != MODE__AWS_NONE)
        st = mode__aws_keys_get(&k, &a->again, s, w, &why);
    a->source = mode_xstrdup(st ? why.text : s->shown);
    if (st && st != MODE_E_NOINPUT) return MODE_FAIL(err, st, "keys for S3: %s", why.text);
    a->id = k.id;
    a->secret = k.secret;
    a->token = k.token;
    a->end = k.end;
    if (!a->region) a->region = k.region ? k.region : mode_xstrdup("us-east-1");
    if (a->region != k.region) free(k.region);
    return MODE_OK;
}

enum mode_status mode_aws_find(struct mode_aws *a, const struct mode_remote_watch *w, struct mode_error *err)
{
    struct mode__aws_files f;
    struct mode__aws_source s = {0};
    char *sts = NULL;
    *a = (struct mode_aws){.end = MODE__AWS_NEVER, .again = MODE__AWS_NEVER};
    enum mode_status st = mode__aws_files_read(&f, err);
    if (st) goto out;
    a->region = region_of(&f);
    a->endpoint = address_of("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", &f);
    sts = address_of("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL", &f);
    if ((st = check(a, sts, err)) || (st = mode__aws_source_find(&s, &f, a->region, sts, err)) ||
        (st = take_key(a, &s, w, err)))
        goto out;
    st = check(a, sts, err);
out:
    mode__aws_source_clear(&s);
    mode__aws_files_clear(&f);
    free(sts);
    return st;
}

void mode_aws_over(struct mode_aws *a)
{
    if (a->id) mode__aws_keys_over(a->id);
    mode_aws_clear(a);
}

void mode_aws_clear(struct mode_aws *a)
{
    free(a->id);
    mode__wipe(a->secret);
    mode__wipe(a->token);
    free(a->region);
    free(a->endpoint);
    free(a->source);
    *a = (struct mode_aws){0};
}

/* Virtual-hosted style for Amazon, unless a dot in the bucket's name breaks the certificate; path style for other
 * stores. */
char *mode_aws_url(char **host, char **path, const struct mode_aws *a, const char *address)
{
    const char *bucket = strstr(address, "://") + 3, *slash = strchr(bucket, '/'), *endpoint = a->endpoint;
    const int n = (int)(slash - bucket);
    char *key = mode_remote_escape(slash + 1, true), *amazon = mode_xasprintf("https://s3.%s.amazonaws.com", a->region),
         *url;
    if (!endpoint && !memchr(bucket, '.', (size_t)n)) {
        *host = mode_xasprintf("%.*s.s3.%s.amazonaws.com", n, bucket, a->region);
        *path = mode_xasprintf("/%s", key);
        url = mode_xasprintf("https://%s%s", *host, *path);
    } else {
        if (!endpoint) endpoint = amazon;
        const char *folder = strchrnul(strstr(endpoint, "://") + 3, '/');
        *host = mode_sigv4_host(endpoint);
        *path = mode_xasprintf("%s/%.*s/%s", folder, n, bucket, key);
        url = mode_xasprintf("%.*s%s", (int)(folder - endpoint), endpoint, *path);
    }
    free(amazon);
    free(key);
    return url;
}
