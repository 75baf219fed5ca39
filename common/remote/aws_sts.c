#include "base/file.h"
#include "remote/ask.h"
#include "remote/aws_fetch.h"
#include "remote/sigv4.h"

#include <stdlib.h>
#include <string.h>

enum { STS_MS = 20000, STS_TRIES = 3, MOST_TOKEN = 1 << 16 };

static void add_field(struct mode_str *form, const char *name, const char *value)
{
    if (!value) return;
    char *escaped = mode_remote_escape(value, false);
    mode_str_printf(form, "&%s=%s", name, escaped);
    mode__wipe(escaped);
}

static enum mode_status make_form(struct mode_str *form, const struct mode__aws_source *s, bool web,
                                  struct mode_error *err)
{
    struct mode_error why;
    char *token = NULL;
    size_t n = 0;
    /* the token file is rewritten from time to time */
    if (web && mode_file_read(s->file, MOST_TOKEN, &token, &n, &why))
        return MODE_FAIL(err, why.status == MODE_E_NOINPUT ? MODE_E_CONFIG : why.status,
                         "%s: AWS_WEB_IDENTITY_TOKEN_FILE: %s", s->shown, why.text);
    while (n && strchr(" \t\r\n", token[n - 1])) token[--n] = '\0';
    if (web && !n) {
        free(token);
        return MODE_FAIL(err, MODE_E_CONFIG, "%s: the file of the web identity is empty", s->shown);
    }
    mode_str_printf(form, "Action=%s&Version=2011-06-15", web ? "AssumeRoleWithWebIdentity" : "AssumeRole");
    add_field(form, "RoleArn", s->role);
    add_field(form, "RoleSessionName", s->session);
    add_field(form, "DurationSeconds", s->duration);
    add_field(form, "ExternalId", s->external_id);
    add_field(form, "WebIdentityToken", token);
    mode__wipe(token);
    return MODE_OK;
}

/* The value of Authorization; the caller frees. */
static char *signature(const struct mode__aws_source *s, const struct mode__aws_keys *by, const char *url,
                       const char *type, const char *body, const char *now)
{
    char digest[MODE_DIGEST_HEX], *host = mode_sigv4_host(url);
    const char *path = strchr(strstr(url, "://") + 3, '/');
    mode_digest_bytes(body, strlen(body), digest);
    const struct mode_sigv4_pair header[] = {
        {"content-type", type}, {"host", host}, {"x-amz-date", now}, {"x-amz-security-token", by->token}};
    const struct mode_sigv4_request r = {
        .method = "POST", .path = path, .header = header, .n_header = by->token ? 4 : 3, .payload = digest};
    const struct mode_sigv4_key key = {by->id, by->secret, s->region, "sts"};
    char *authorization = mode_sigv4_authorization(&r, &key, now);
    free(host);
    return authorization;
}

static enum mode_status refused(const struct mode__aws_source *s, const struct mode__reply *r, const char *url,
                                struct mode_error *err)
{
    if (!r->code) return MODE_FAIL(err, MODE_E_PEER, "%s: %s: %s", s->shown, url, r->why);
    char *code = mode__aws_element(r->text.data, "Code"), *why = mode__aws_element(r->text.data, "Message");
    char *shown_code = mode__said(code ? code : "", code ? strlen(code) : 0),
         *shown = mode__said(why ? why : "", why ? strlen(why) : 0);
    const bool passes = mode__reply_may_pass(r) || strstr(shown_code, "Throttling") ||
                        strcmp(shown_code, "IDPCommunicationError") == 0;
    enum mode_status st = MODE_FAIL(
        err, passes ? MODE_E_PEER : MODE_E_PERM, "%s: %s: HTTP %ld%s%s%s%s%s", s->shown, url, r->code,
        *shown_code ? "; it says " : "", shown_code, *shown ? ": " : "", shown,
        strcmp(shown_code, "ExpiredTokenException") == 0 || strcmp(shown_code, "ExpiredToken") == 0
            ? ". HINT: is this machine's clock right, and is the token in the file renewed?"
        : strcmp(shown_code, "AccessDenied") == 0 ? ". HINT: the role's trust policy must allow it to be assumed"
                                                  : "");
    free(shown_code);
    free(shown);
    free(code);
    free(why);
    return st;
}

enum mode_status mode__aws_of_sts(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                  const struct mode__aws_keys *by, const struct mode_remote_watch *w,
                                  struct mode_error *err)
{
    static const char type[] = "application/x-www-form-urlencoded; charset=utf-8";
    char now[MODE_SIGV4_TIME],
        *authorization = NULL,
        *url = strchr(strstr(s->sts, "://") + 3, '/') ? mode_xstrdup(s->sts) : mode_xasprintf("%s/", s->sts);
    struct mode_str form = {0};
    struct mode__reply r = {0};
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    enum mode_status st = make_form(&form, s, !by, err);
    if (st) goto out;
    struct mode__question q = {.method = "POST",
                               .url = url,
                               .body = form.data,
                               .ms = STS_MS,
                               .tries = STS_TRIES,
                               .header = {{"Content-Type", type}, {"Accept", "application/xml"}},
                               .n_header = 2};
    if (by) {
        mode_sigv4_now(now);
        authorization = signature(s, by, url, type, form.data, now);
        q.header[q.n_header].name = "Authorization";
        q.header[q.n_header++].value = authorization;
        q.header[q.n_header].name = "X-Amz-Date";
        q.header[q.n_header++].value = now;
        q.header[q.n_header].name = "X-Amz-Security-Token";
        q.header[q.n_header].value = by->token;
        q.n_header += by->token != NULL;
    }
    if (!(st = mode__ask(&r, &q, w, err)))
        st = r.code == 200 ? mode__aws_keys_of_xml(k, r.text.data, s->shown, err) : refused(s, &r, url, err);
out:
    mode__wipe(form.data);
    mode__reply_clear(&r);
    free(authorization);
    free(url);
    return st;
}
