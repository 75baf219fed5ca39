#include "remote/aws_fetch.h"

#include "base/file.h"
#include "remote/ask.h"

#include <stdlib.h>
#include <string.h>

enum { CONTAINER_MS = 5000, CONTAINER_TRIES = 3, MOST_TOKEN = 1 << 16 };

static void add_header(struct mode__question *q, const char *name, const char *value)
{
    q->header[q->n_header].name = name;
    q->header[q->n_header++].value = value;
}

/* The error for a request that failed, with what the source says about it. */
static enum mode_status refused(const struct mode__aws_source *s, const struct mode__reply *r, struct mode_error *err)
{
    char *code = mode__aws_member(r->text.data, r->text.len, "Code"),
         *why = mode__aws_member(r->text.data, r->text.len, code ? "Message" : "message");
    if (!code) code = mode__aws_member(r->text.data, r->text.len, "code");
    char *shown_code = mode__said(code ? code : "", code ? strlen(code) : 0),
         *shown = mode__said(why ? why : "", why ? strlen(why) : 0);
    enum mode_status st = r->code ? MODE_FAIL(err, mode__reply_may_pass(r) ? MODE_E_PEER : MODE_E_PERM,
                                              "%s: HTTP %ld%s%s%s%s", s->shown, r->code,
                                              *shown_code ? "; it says " : "", shown_code, *shown ? ": " : "", shown)
                                  : MODE_FAIL(err, MODE_E_PEER, "%s: %s", s->shown, r->why);
    free(shown_code);
    free(shown);
    free(code);
    free(why);
    return st;
}

/* ---------------------------------------------------------------------------------------------- containers */

/* The token file is rewritten from time to time. */
static enum mode_status read_token(char **token, const struct mode__aws_source *s, struct mode_error *err)
{
    struct mode_error why;
    size_t n = 0;
    *token = NULL;
    if (!s->file) {
        if (s->authorization) *token = mode_xstrdup(s->authorization);
    } else if (mode_file_read(s->file, MOST_TOKEN, token, &n, &why))
        return MODE_FAIL(err, why.status == MODE_E_NOINPUT ? MODE_E_CONFIG : why.status,
                         "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: %s", why.text);
    for (n = *token ? strlen(*token) : 0; n && strchr("\r\n", (*token)[n - 1]);) (*token)[--n] = '\0';
    for (const char *c = *token; c && *c; c++)
        if ((unsigned char)*c < ' ')
            return MODE_FAIL(err, MODE_E_CONFIG, "%s: expected a token on a single line",
                             s->file ? "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" : "AWS_CONTAINER_AUTHORIZATION_TOKEN");
    return MODE_OK;
}

enum mode_status mode__aws_of_container(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                        const struct mode_remote_watch *w, struct mode_error *err)
{
    struct mode__question q = {
        .method = "GET", .url = s->url, .ms = CONTAINER_MS, .tries = CONTAINER_TRIES, .direct = true};
    struct mode__reply r = {0};
    char *token;
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    enum mode_status st = read_token(&token, s, err);
    add_header(&q, "Accept", "application/json");
    if (!st && token) add_header(&q, "Authorization", token);
    if (!st) st = mode__ask(&r, &q, w, err);
    if (!st)
        st = r.code == 200 ? mode__aws_keys_of_json(k, r.text.data, r.text.len, "Token", s->shown, err)
                           : refused(s, &r, err);
    mode__reply_clear(&r);
    mode__wipe(token);
    return st;
}

/* ---------------------------------------------------------------------------------------------- machines */

struct talk {
    const struct mode__aws_source *s;
    const struct mode_remote_watch *watch;
    char *token;
    struct mode__reply reply;
};

static enum mode_status ask_machine(struct talk *t, const char *method, const char *path, struct mode_error *err)
{
    char *url = mode_xasprintf("%s/latest/%s", t->s->url, path);
    struct mode__question q = {
        .method = method, .url = url, .ms = 1000L * t->s->seconds, .tries = t->s->tries, .direct = true};
    if (t->token)
        add_header(&q, "X-aws-ec2-metadata-token", t->token);
    else
        add_header(&q, "X-aws-ec2-metadata-token-ttl-seconds", "21600");
    mode__reply_clear(&t->reply);
    enum mode_status st = mode__ask(&t->reply, &q, t->watch, err);
    free(url);
    return st;
}

/* The response as a single word that is valid in a path or header; NULL: it is not one. The caller frees. */
static char *word_of(const struct mode__reply *r)
{
    const size_t n = strcspn(r->text.data, "\r\n");
    char *word = mode_xasprintf("%.*s", (int)n, r->text.data);
    if (n && !mode_remote_word(word, "", NULL)) return word;
    free(word);
    return NULL;
}

/* Gets the IMDSv2 token for the following requests: a PUT, which no browser or proxy sends by mistake. */
static enum mode_status begin_talk(struct talk *t, struct mode_error *err)
{
    enum mode_status st = ask_machine(t, "PUT", "api/token", err);
    if (st) return st;
    if (!t->reply.code)
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "%s: %s, in %u s. HINT: in a container on EC2 the instance's hop limit must be 2, or "
                         "AWS_METADATA_SERVICE_TIMEOUT longer",
                         t->s->shown, t->reply.why, t->s->seconds);
    if (t->reply.code == 200 && (t->token = word_of(&t->reply))) return MODE_OK;
    if (mode__reply_may_pass(&t->reply)) return refused(t->s, &t->reply, err);
    return MODE_FAIL(err, MODE_E_NOINPUT, "%s: no token (IMDSv2): HTTP %ld", t->s->shown, t->reply.code);
}

static enum mode_status role_of(char **role, struct talk *t, struct mode_error *err)
{
    enum mode_status st = ask_machine(t, "GET", "meta-data/iam/security-credentials/", err);
    *role = NULL;
    if (st) return st;
    if (t->reply.code == 404 || (t->reply.code == 200 && !(*role = word_of(&t->reply))))
        return MODE_FAIL(err, MODE_E_NOINPUT, "%s: the machine has no role", t->s->shown);
    return t->reply.code == 200 ? MODE_OK : refused(t->s, &t->reply, err);
}

/* The machine's region; NULL if not stated. */
static enum mode_status region_of(char **region, struct talk *t, struct mode_error *err)
{
    enum mode_status st = ask_machine(t, "GET", "meta-data/placement/region", err);
    *region = !st && t->reply.code == 200 ? word_of(&t->reply) : NULL;
    return st;
}

enum mode_status mode__aws_of_machine(struct mode__aws_keys *k, const struct mode__aws_source *s,
                                      const struct mode_remote_watch *w, struct mode_error *err)
{
    struct talk t = {.s = s, .watch = w};
    char *role = NULL, *path = NULL, *region = NULL, *code = NULL;
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    enum mode_status st = begin_talk(&t, err);
    if (st || (st = role_of(&role, &t, err)) || (st = region_of(&region, &t, err))) goto out;
    path = mode_xasprintf("meta-data/iam/security-credentials/%s", role);
    if ((st = ask_machine(&t, "GET", path, err))) goto out;
    code = mode__aws_member(t.reply.text.data, t.reply.text.len, "Code");
    if (t.reply.code != 200 || (code && strcmp(code, "Success") != 0))
        st = refused(s, &t.reply, err);
    else
        st = mode__aws_keys_of_json(k, t.reply.text.data, t.reply.text.len, "Token", s->shown, err);
    if (!st) {
        k->region = region;
        region = NULL;
    }
out:
    mode__reply_clear(&t.reply);
    free(t.token);
    free(role);
    free(path);
    free(region);
    free(code);
    return st;
}
