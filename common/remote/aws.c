#include "remote/aws.h"

#include "base/file.h"
#include "base/str.h"
#include "remote/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_INI = 1 << 20 };

static const char blanks[] = " \t\r";

/* [at, *end) without the blanks around it. */
static const char *trim(const char *at, const char **end)
{
    while (at < *end && strchr(blanks, *at)) at++;
    while (*end > at && strchr(blanks, (*end)[-1])) (*end)--;
    return at;
}

static bool is(const char *at, const char *end, const char *word)
{
    return (size_t)(end - at) == strlen(word) && strncasecmp(at, word, strlen(word)) == 0;
}

char *mode_aws_ini(const char *text, const char *section, const char *key)
{
    char *value = NULL;
    bool inside = false;
    for (const char *line = text, *next; *line; line = next) {
        const char *stop = line + strcspn(line, "\n"), *end = stop;
        next = *stop ? stop + 1 : stop;
        if (strchr(" \t\r#;\n", *line)) continue;
        if (*line == '[') {
            const char *close = memchr(line, ']', (size_t)(end - line)), *name = line + 1;
            if (close) name = trim(name, &close);
            inside = close && (size_t)(close - name) == strlen(section) && strncmp(name, section, strlen(section)) == 0;
            continue;
        }
        const char *equals = inside ? memchr(line, '=', (size_t)(end - line)) : NULL, *name_end = equals;
        if (!equals) continue;
        const char *name = trim(line, &name_end);
        if (!is(name, name_end, key)) continue;
        const char *from = trim(equals + 1, &end);
        free(value);
        value = mode_xasprintf("%.*s", (int)(end - from), from);
    }
    return value;
}

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* One of the two files, "" where it is not there. */
static enum mode_status read_file(char **text, const char *named, const char *usual, struct mode_error *err)
{
    const char *home = getenv("HOME");
    char *path = named ? mode_xstrdup(named) : mode_xasprintf("%s/.aws/%s", home ? home : "", usual);
    enum mode_status st = mode_file_exists(path) ? mode_file_read(path, MOST_INI, text, NULL, err) : MODE_OK;
    if (!st && !*text) *text = mode_xstrdup("");
    free(path);
    return st;
}

struct files {
    char *credentials, *config, *profile, *section; /* of config: "default" or "profile NAME" */
};

static bool is_there(const struct files *f)
{
    char *in_credentials = mode_xasprintf("[%s]", f->profile), *in_config = mode_xasprintf("[%s]", f->section);
    const bool there = strstr(f->credentials, in_credentials) || strstr(f->config, in_config);
    free(in_credentials);
    free(in_config);
    return there;
}

static char *look_up(const struct files *f, const char *key)
{
    char *value = mode_aws_ini(f->credentials, f->profile, key);
    if (!value) value = mode_aws_ini(f->config, f->section, key);
    if (value && !*value) {
        free(value);
        value = NULL;
    }
    return value;
}

static enum mode_status check(const struct mode_aws *a, const struct files *f, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    if (from_environment("AWS_PROFILE") && !a->id && !is_there(f))
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "AWS_PROFILE: there is no profile \"%.100s\" in ~/.aws/credentials or "
                         "~/.aws/config (or the files that AWS_SHARED_CREDENTIALS_FILE and "
                         "AWS_CONFIG_FILE name)",
                         f->profile);
    if (!a->id != !a->secret)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s is set and %s is not; a key for S3 has both (or none, for what is public)",
                         a->id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                         a->id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    if ((st = mode_remote_word(a->id, "AWS_ACCESS_KEY_ID", err)) ||
        (st = mode_remote_word(a->secret, "AWS_SECRET_ACCESS_KEY", err)) ||
        (st = mode_remote_word(a->token, "AWS_SESSION_TOKEN", err)) ||
        (st = mode_remote_word(a->region, "AWS_REGION", err)))
        return st;
    if (a->endpoint && ((strncmp(a->endpoint, "http://", 7) != 0 && strncmp(a->endpoint, "https://", 8) != 0) ||
                        strpbrk(a->endpoint, "?#@ \"\\")))
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "AWS_ENDPOINT_URL is not the address of a store; expected https://HOST[:PORT]");
    return MODE_OK;
}

static char *copy(const char *text)
{
    return text ? mode_xstrdup(text) : NULL;
}

enum mode_status mode_aws_find(struct mode_aws *a, struct mode_error *err)
{
    const char *profile = from_environment("AWS_PROFILE"), *id = from_environment("AWS_ACCESS_KEY_ID"),
               *secret = from_environment("AWS_SECRET_ACCESS_KEY"), *region = from_environment("AWS_REGION"),
               *endpoint = from_environment("AWS_ENDPOINT_URL_S3");
    struct files f = {0};
    *a = (struct mode_aws){0};
    enum mode_status st = read_file(&f.credentials, from_environment("AWS_SHARED_CREDENTIALS_FILE"), "credentials",
                                    err);
    if (!st) st = read_file(&f.config, from_environment("AWS_CONFIG_FILE"), "config", err);
    if (st) goto out;
    f.profile = mode_xstrdup(profile ? profile : "default");
    f.section = strcmp(f.profile, "default") == 0 ? mode_xstrdup("default") : mode_xasprintf("profile %s", f.profile);
    if (id || secret) { /* a key is of one place, not half of each */
        a->id = copy(id);
        a->secret = copy(secret);
        a->token = copy(from_environment("AWS_SESSION_TOKEN"));
    } else {
        a->id = look_up(&f, "aws_access_key_id");
        a->secret = look_up(&f, "aws_secret_access_key");
        a->token = look_up(&f, "aws_session_token");
    }
    if (!region) region = from_environment("AWS_DEFAULT_REGION");
    a->region = region ? mode_xstrdup(region) : look_up(&f, "region");
    if (!a->region) a->region = mode_xstrdup("us-east-1");
    if (!endpoint) endpoint = from_environment("AWS_ENDPOINT_URL");
    a->endpoint = endpoint ? mode_xstrdup(endpoint) : look_up(&f, "endpoint_url");
    for (size_t n = a->endpoint ? strlen(a->endpoint) : 0; n && a->endpoint[n - 1] == '/';) a->endpoint[--n] = '\0';
    st = check(a, &f, err);
out:
    free(f.credentials);
    free(f.config);
    free(f.profile);
    free(f.section);
    return st;
}

void mode_aws_clear(struct mode_aws *a)
{
    if (a->secret) explicit_bzero(a->secret, strlen(a->secret));
    free(a->id);
    free(a->secret);
    free(a->token);
    free(a->region);
    free(a->endpoint);
    *a = (struct mode_aws){0};
}

/* libcurl names no port that goes without saying, and what is signed must be what is sent. */
static void drop_usual_port(char *host, bool tls)
{
    char *port = strrchr(host, ':');
    if (port && strcmp(port, tls ? ":443" : ":80") == 0) *port = '\0';
}

/* Amazon's buckets are hosts, unless a dot in the name keeps the certificate from fitting; other stores' are folders. */
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
        const char *at = strstr(endpoint, "://") + 3, *folder = strchrnul(at, '/');
        *host = mode_xasprintf("%.*s", (int)(folder - at), at);
        drop_usual_port(*host, strncmp(endpoint, "https:", 6) == 0);
        *path = mode_xasprintf("%s/%.*s/%s", folder, n, bucket, key);
        url = mode_xasprintf("%.*s%s", (int)(folder - endpoint), endpoint, *path);
    }
    free(amazon);
    free(key);
    return url;
}
