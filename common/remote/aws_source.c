#include "remote/aws_source.h"

#include "base/file.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_CHAIN = 8 }; /* length of a chain of roles */

/* Link-local address of Amazon's container credentials, over plain HTTP: no other machine can answer there. */
static const char container_host[] = "http://169.254.170.2";
static const char *const container_hosts[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost"};

static char *copy(const char *text)
{
    return text ? mode_xstrdup(text) : NULL;
}

void mode__aws_source_clear(struct mode__aws_source *s)
{
    if (s->by) mode__aws_source_clear(s->by);
    free(s->by);
    mode__wipe(s->secret);
    mode__wipe(s->token);
    mode__wipe(s->authorization);
    free(s->shown);
    free(s->id);
    free(s->role);
    free(s->session);
    free(s->external_id);
    free(s->duration);
    free(s->sts);
    free(s->region);
    free(s->file);
    free(s->command);
    free(s->url);
    *s = (struct mode__aws_source){0};
}

char *mode__aws_source_name(const struct mode__aws_source *s)
{
    const char *const part[] = {s->id,  s->secret,  s->token, s->role, s->session, s->external_id,  s->duration,
                                s->sts, s->command, s->url,   s->file, s->region,  s->authorization};
    char *by = s->by ? mode__aws_source_name(s->by) : NULL, *hex = mode_xcalloc(1, MODE_DIGEST_HEX);
    struct mode_str all = {0};
    mode_str_printf(&all, "%d %u %u", (int)s->kind, s->seconds, s->tries);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) mode_str_printf(&all, "\n%s", part[i] ? part[i] : "");
    if (by) mode_str_add_cstr(&all, by);
    mode_digest_bytes(all.data, all.len, hex);
    mode__wipe(all.data);
    free(by);
    return hex;
}

/* ---------------------------------------------------------------------------------------------- keys */

static enum mode_status half_a_key(bool id, const char *where, struct mode_error *err)
{
    return MODE_FAIL(
        err, MODE_E_CONFIG, "%s: %s is set and %s is not; a key for S3 has both (or none, for what is public)", where,
        id ? "aws_access_key_id" : "aws_secret_access_key", id ? "aws_secret_access_key" : "aws_access_key_id");
}

static enum mode_status of_environment(struct mode__aws_source *s, struct mode_error *err)
{
    const char *id = mode__aws_variable("AWS_ACCESS_KEY_ID"), *secret = mode__aws_variable("AWS_SECRET_ACCESS_KEY");
    if (!id != !secret)
        return MODE_FAIL(
            err, MODE_E_CONFIG, "%s is set and %s is not; a key for S3 has both (or none, for what is public)",
            id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY", id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    if (!id) return MODE_OK;
    *s = (struct mode__aws_source){.kind = MODE__AWS_KEYS,
                                   .shown = mode_xstrdup("AWS_ACCESS_KEY_ID"),
                                   .id = mode_xstrdup(id),
                                   .secret = mode_xstrdup(secret),
                                   .token = copy(mode__aws_variable("AWS_SESSION_TOKEN"))};
    return MODE_OK;
}

typedef char *get_setting(const struct mode__aws_files *f, const char *profile, const char *key);

/* Both halves of a key must come from the same file. */
static enum mode_status keys_of(struct mode__aws_source *s, const struct mode__aws_files *f, const char *profile,
                                get_setting *get, struct mode_error *err)
{
    char *id = get(f, profile, "aws_access_key_id"), *secret = get(f, profile, "aws_secret_access_key");
    if (!id && !secret) return MODE_OK;
    *s = (struct mode__aws_source){.kind = MODE__AWS_KEYS,
                                   .shown = mode_xasprintf("the profile \"%.100s\"", profile),
                                   .id = id,
                                   .secret = secret,
                                   .token = get(f, profile, "aws_session_token")};
    return id && secret ? MODE_OK : half_a_key(id != NULL, s->shown, err);
}

/* ---------------------------------------------------------------------------------------------- container, machine */

static bool is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;
    if (inet_pton(AF_INET, host, &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

/* A token is sent there: over https to any host, over http only to this machine and to Amazon's link-local
 * addresses. */
static enum mode_status check_container(const char *url, struct mode_error *err)
{
    char *scheme = NULL, *host = NULL;
    CURLU *u = curl_url();
    bool right = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
                 curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                 curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK;
    if (right && strcmp(scheme, "https") != 0) {
        const size_t n = strlen(host);
        if (host[0] == '[' && host[n - 1] == ']') memmove(host, host + 1, n - 2), host[n - 2] = '\0';
        right = strcmp(scheme, "http") == 0 && is_loopback(host);
        for (size_t i = 0; strcmp(scheme, "http") == 0 && i < sizeof container_hosts / sizeof *container_hosts; i++)
            right |= strcasecmp(host, container_hosts[i]) == 0;
    }
    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(u);
    if (right) return MODE_OK;
    return MODE_FAIL(
        err, MODE_E_CONFIG,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI: keys may not be asked for there; expected https://, or http:// "
        "and 169.254.170.2, 169.254.170.23, [fd00:ec2::23] or this machine itself");
}

static enum mode_status of_container(struct mode__aws_source *s, struct mode_error *err)
{
    const char *relative = mode__aws_variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
               *full = mode__aws_variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
               *file = mode__aws_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    if (!relative && !full) return MODE_OK;
    if (relative && *relative != '/')
        return MODE_FAIL(
            err, MODE_E_CONFIG,
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: expected the path of an address, which begins with /");
    if (!relative) {
        enum mode_status st = check_container(full, err);
        if (st) return st;
    }
    *s = (struct mode__aws_source){
        .kind = MODE__AWS_CONTAINER,
        .url = mode_xasprintf("%s%s", relative ? container_host : "", relative ? relative : full),
        .file = copy(file),
        .authorization = file ? NULL : copy(mode__aws_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"))};
    s->shown = mode_xasprintf("the container's role (%s)", relative ? "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
                                                                    : "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    return MODE_OK;
}

static enum mode_status count_of(unsigned *n, const char *name, const struct mode__aws_files *f, const char *key,
                                 struct mode_error *err)
{
    char *text = mode__aws_variable_or(name, f, key), *end = NULL;
    const double value = text ? strtod(text, &end) : 1;
    const bool right = value >= 1 && value <= 60 && (!text || !*end);
    free(text);
    *n = right ? (unsigned)value : 0;
    return right ? MODE_OK : MODE_FAIL(err, MODE_E_CONFIG, "%s: expected a number from 1 to 60", name);
}

static enum mode_status of_machine(struct mode__aws_source *s, const struct mode__aws_files *f, struct mode_error *err)
{
    const char *off = mode__aws_variable("AWS_EC2_METADATA_DISABLED");
    char *url = mode__aws_variable_or("AWS_EC2_METADATA_SERVICE_ENDPOINT", f, "ec2_metadata_service_endpoint"),
         *six = mode__aws_variable_or("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", f,
                                      "ec2_metadata_service_endpoint_mode");
    enum mode_status st = MODE_OK;
    if (!url)
        url = mode_xstrdup(six && strcasecmp(six, "IPv6") == 0 ? "http://[fd00:ec2::254]" : "http://169.254.169.254");
    free(six);
    for (size_t n = strlen(url); n && url[n - 1] == '/';) url[--n] = '\0';
    *s = (struct mode__aws_source){.kind = MODE__AWS_MACHINE, .url = url};
    if (off && strcasecmp(off, "true") == 0) {
        s->kind = MODE__AWS_NONE;
        s->shown = mode_xstrdup("AWS_EC2_METADATA_DISABLED is true");
        return MODE_OK;
    }
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "AWS_EC2_METADATA_SERVICE_ENDPOINT is not an address; expected http://HOST[:PORT]");
    if ((st = count_of(&s->seconds, "AWS_METADATA_SERVICE_TIMEOUT", f, "metadata_service_timeout", err)) ||
        (st = count_of(&s->tries, "AWS_METADATA_SERVICE_NUM_ATTEMPTS", f, "metadata_service_num_attempts", err)))
        return st;
    s->shown = mode_xasprintf("the role of this machine (%s)", url);
    return MODE_OK;
}

/* ---------------------------------------------------------------------------------------------- roles */

struct search {
    const struct mode__aws_files *files;
    const char *region, *sts;
    const char *seen[MOST_CHAIN]; /* profiles of the chain */
    size_t n_seen;
};

/* Sets the STS endpoint and a session name that identifies this client in the logs of the account. */
static void at_sts(struct mode__aws_source *s, const struct search *x, char *session)
{
    s->session = session ? session : mode_xstrdup("mode");
    s->region = mode_xstrdup(x->region ? x->region : "us-east-1");
    s->sts = x->sts ? mode_xstrdup(x->sts) : mode_xasprintf("https://sts.%s.amazonaws.com", s->region);
}

/* environment: variables take precedence over the profile. */
static enum mode_status web_identity(struct mode__aws_source *s, const struct search *x, const char *profile,
                                     bool environment, struct mode_error *err)
{
    static const char *const name[][2] = {{"AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file"},
                                          {"AWS_ROLE_ARN", "role_arn"},
                                          {"AWS_ROLE_SESSION_NAME", "role_session_name"}};
    char *value[3];
    for (int i = 0; i < 3; i++) {
        const char *set = environment ? mode__aws_variable(name[i][0]) : NULL;
        value[i] = set ? mode_xstrdup(set) : mode__aws_setting(x->files, profile, name[i][1]);
    }
    if (!value[0]) {
        free(value[1]);
        free(value[2]);
        return MODE_OK;
    }
    *s = (struct mode__aws_source){.kind = MODE__AWS_WEB_IDENTITY,
                                   .file = value[0],
                                   .role = value[1],
                                   .duration = mode__aws_setting(x->files, profile, "duration_seconds")};
    at_sts(s, x, value[2]);
    s->shown = mode_xasprintf("the role %.200s by the web identity of %.200s", s->role ? s->role : "", s->file);
    if (s->role) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "AWS_WEB_IDENTITY_TOKEN_FILE (web_identity_token_file) is set and AWS_ROLE_ARN (role_arn of the "
                     "profile \"%.100s\") is not; a role by a web identity needs both",
                     profile);
}

static enum mode_status of_profile(struct mode__aws_source *s, struct search *x, const char *profile, bool environment,
                                   struct mode_error *err);

/* credential_source: the source that assumes the role, one of three words. */
static enum mode_status by_word(struct mode__aws_source *s, const struct search *x, const char *word,
                                const char *profile, struct mode_error *err)
{
    enum mode_status st;
    if (strcmp(word, "Environment") == 0)
        st = of_environment(s, err);
    else if (strcmp(word, "EcsContainer") == 0)
        st = of_container(s, err);
    else if (strcmp(word, "Ec2InstanceMetadata") == 0)
        st = of_machine(s, x->files, err);
    else
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "the profile \"%.100s\": credential_source is \"%.40s\"; expected Environment, "
                         "Ec2InstanceMetadata or EcsContainer",
                         profile, word);
    if (st || s->kind != MODE__AWS_NONE) return st;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "the profile \"%.100s\": its role is to be assumed by credential_source = %s, which has no keys "
                     "here%s%s",
                     profile, word, s->shown ? ": " : "", s->shown ? s->shown : "");
}

static enum mode_status taker(struct mode__aws_source *by, struct search *x, const char *profile, const char *source,
                              const char *word, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    if (!source == !word)
        return MODE_FAIL(
            err, MODE_E_CONFIG,
            "the profile \"%.100s\" has role_arn, and %s source_profile %s credential_source; expected one "
            "of them, or web_identity_token_file",
            profile, source ? "both" : "neither", source ? "and" : "nor");
    if (word) return by_word(by, x, word, profile, err);
    if (!mode__aws_has_profile(x->files, source))
        return MODE_FAIL(err, MODE_E_CONFIG, "the profile \"%.100s\": its source_profile \"%.100s\" is in neither file",
                         profile, source);
    if (strcmp(source, profile) == 0) { /* its own keys assume its role */
        if (!(st = keys_of(by, x->files, source, mode__aws_of_credentials, err)) && !by->kind)
            st = keys_of(by, x->files, source, mode__aws_of_config, err);
    } else {
        for (size_t i = 0; i < x->n_seen; i++)
            if (strcmp(x->seen[i], source) == 0 || x->n_seen == MOST_CHAIN)
                return MODE_FAIL(err, MODE_E_CONFIG,
                                 "the profile \"%.100s\": its role is assumed through a chain of profiles that loops "
                                 "back to \"%.100s\", or is longer than %d",
                                 profile, source, MOST_CHAIN);
        st = of_profile(by, x, source, false, err);
    }
    if (st || by->kind) return st;
    return MODE_FAIL(err, MODE_E_CONFIG, "the profile \"%.100s\": its source_profile \"%.100s\" has no keys", profile,
                     source);
}

static enum mode_status role(struct mode__aws_source *s, struct search *x, const char *profile, struct mode_error *err)
{
    char *arn = mode__aws_setting(x->files, profile, "role_arn"),
         *web = mode__aws_setting(x->files, profile, "web_identity_token_file"),
         *mfa = mode__aws_setting(x->files, profile, "mfa_serial"),
         *source = mode__aws_setting(x->files, profile, "source_profile"),
         *word = mode__aws_setting(x->files, profile, "credential_source");
    enum mode_status st = MODE_OK;
    if (!arn || web) goto out;
    *s = (struct mode__aws_source){.kind = MODE__AWS_ROLE,
                                   .role = mode_xstrdup(arn),
                                   .external_id = mode__aws_setting(x->files, profile, "external_id"),
                                   .duration = mode__aws_setting(x->files, profile, "duration_seconds"),
                                   .by = mode_xcalloc(1, sizeof *s->by)};
    at_sts(s, x, mode__aws_setting(x->files, profile, "role_session_name"));
    if (mfa)
        st = MODE_FAIL(err, MODE_E_CONFIG,
                       "the profile \"%.100s\" has mfa_serial, and a code cannot be asked for here. HINT: a "
                       "credential_process, or the keys of an existing session",
                       profile);
    if (!st) st = taker(s->by, x, profile, source, word, err);
    if (!st) s->shown = mode_xasprintf("the role %.200s, assumed by %s", arn, s->by->shown);
out:
    free(arn);
    free(web);
    free(mfa);
    free(source);
    free(word);
    return st;
}

/* ---------------------------------------------------------------------------------------------- profiles */

/* Rejects profile settings that need a person (SSO, login, MFA). */
static enum mode_status refuse_what_is_not_done(const struct mode__aws_files *f, const char *profile,
                                                struct mode_error *err)
{
    static const char *const name[] = {"sso_session", "sso_start_url", "sso_account_id", "sso_role_name",
                                       "login_session"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        char *value = mode__aws_setting(f, profile, name[i]);
        if (!value) continue;
        free(value);
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "the profile \"%.100s\" has %s, and nobody is signed in here. HINT: another profile with "
                         "credential_process = aws configure export-credentials --profile %.100s, or that command's "
                         "keys in the environment",
                         profile, name[i], profile);
    }
    return MODE_OK;
}

static enum mode_status process(struct mode__aws_source *s, const struct mode__aws_files *f, const char *profile)
{
    char *command = mode__aws_setting(f, profile, "credential_process");
    if (!command) return MODE_OK;
    *s = (struct mode__aws_source){.kind = MODE__AWS_PROCESS,
                                   .shown = mode_xasprintf("credential_process of the profile \"%.100s\"", profile),
                                   .command = command};
    return MODE_OK;
}

static enum mode_status of_profile(struct mode__aws_source *s, struct search *x, const char *profile, bool environment,
                                   struct mode_error *err)
{
    const struct mode__aws_files *f = x->files;
    if (x->n_seen < MOST_CHAIN) x->seen[x->n_seen++] = profile;
    enum mode_status st = role(s, x, profile, err);
    if (!st && !s->kind) st = web_identity(s, x, profile, environment, err);
    if (!st && !s->kind) st = refuse_what_is_not_done(f, profile, err);
    if (!st && !s->kind) st = keys_of(s, f, profile, mode__aws_of_credentials, err);
    if (!st && !s->kind) st = process(s, f, profile);
    if (!st && !s->kind) st = keys_of(s, f, profile, mode__aws_of_config, err);
    return st;
}

enum mode_status mode__aws_source_find(struct mode__aws_source *s, const struct mode__aws_files *f, const char *region,
                                       const char *sts, struct mode_error *err)
{
    struct search x = {.files = f, .region = region, .sts = sts};
    *s = (struct mode__aws_source){0};
    enum mode_status st = of_environment(s, err);
    if (!st && !s->kind && mode__aws_variable("AWS_PROFILE") && !mode__aws_has_profile(f, f->profile))
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "AWS_PROFILE: there is no profile \"%.100s\" in ~/.aws/credentials or "
                         "~/.aws/config (or the files that AWS_SHARED_CREDENTIALS_FILE and "
                         "AWS_CONFIG_FILE name)",
                         f->profile);
    if (!st && !s->kind) st = of_profile(s, &x, f->profile, true, err);
    if (!st && !s->kind) st = of_container(s, err);
    if (!st && !s->kind) st = of_machine(s, f, err);
    return st;
}
