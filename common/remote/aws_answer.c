#include "remote/aws_answer.h"

#include "base/str.h"
#include "remote/address.h"
#include "remote/aws_profile.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void mode__aws_keys_clear(struct mode__aws_keys *k)
{
    free(k->id);
    mode__wipe(k->secret);
    mode__wipe(k->token);
    free(k->region);
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
}

void mode__aws_keys_copy(struct mode__aws_keys *to, const struct mode__aws_keys *from)
{
    *to = (struct mode__aws_keys){.id = from->id ? mode_xstrdup(from->id) : NULL,
                                  .secret = from->secret ? mode_xstrdup(from->secret) : NULL,
                                  .token = from->token ? mode_xstrdup(from->token) : NULL,
                                  .region = from->region ? mode_xstrdup(from->region) : NULL,
                                  .end = from->end};
}

static bool number(int *to, const char **at, int digits)
{
    *to = 0;
    for (; digits; digits--, (*at)++) {
        if (**at < '0' || **at > '9') return false;
        *to = 10 * *to + **at - '0';
    }
    return true;
}

bool mode__aws_time(int64_t *s, const char *text)
{
    static const char between[] = "--T::";
    int part[6], hours = 0, minutes = 0, sign = 1;
    const char *at = text;
    for (int i = 0; i < 6; i++) {
        if (i && *at++ != between[i - 1]) return false;
        if (!number(&part[i], &at, i ? 2 : 4)) return false;
    }
    if (*at == '.' || *at == ',') at += 1 + strspn(at + 1, "0123456789");
    if (*at == '+' || *at == '-') {
        sign = *at++ == '-' ? -1 : 1;
        if (!number(&hours, &at, 2)) return false;
        if (*at == ':') at++;
        if (!number(&minutes, &at, 2)) return false;
    } else if (*at++ != 'Z')
        return false;
    if (*at || part[0] < 1970 || part[1] < 1 || part[1] > 12 || part[2] < 1 || part[2] > 31 || part[3] > 23 ||
        part[4] > 59 || part[5] > 60 || hours > 23 || minutes > 59)
        return false;
    struct tm tm = {.tm_year = part[0] - 1900,
                    .tm_mon = part[1] - 1,
                    .tm_mday = part[2],
                    .tm_hour = part[3],
                    .tm_min = part[4],
                    .tm_sec = part[5]};
    *s = (int64_t)timegm(&tm) - sign * (3600 * hours + 60 * minutes);
    return true;
}

/* Keys become part of headers, so each must be a single word. */
static enum mode_status check(struct mode__aws_keys *k, const char *end, const char *what, struct mode_error *err)
{
    struct mode_error why;
    enum mode_status st = MODE_OK;
    k->end = MODE__AWS_NEVER;
    if (!k->id || !*k->id || !k->secret || !*k->secret)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the answer has no %s", what,
                       k->id && *k->id ? "SecretAccessKey" : "AccessKeyId");
    else if (mode_remote_word(k->id, "AccessKeyId", &why) || mode_remote_word(k->secret, "SecretAccessKey", &why) ||
             mode_remote_word(k->token, "the session's token", &why))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %s", what, why.text);
    else if (end && !mode__aws_time(&k->end, end))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: Expiration is not a time; expected one like 2026-01-02T03:04:05Z",
                       what);
    if (k->token && !*k->token) {
        free(k->token);
        k->token = NULL;
    }
    if (st) mode__aws_keys_clear(k);
    return st;
}

/* ---------------------------------------------------------------------------------------------- JSON */

static char *string_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text ? mode_xstrdup(text) : NULL;
}

char *mode__aws_member(const char *text, size_t n, const char *name)
{
    json_t *o = json_loadb(text, n, 0, NULL);
    char *value = string_of(o, name);
    json_decref(o);
    return value;
}

enum mode_status mode__aws_keys_of_json(struct mode__aws_keys *k, const char *text, size_t n, const char *token,
                                        const char *what, struct mode_error *err)
{
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL), *end = json_object_get(o, "Expiration");
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    enum mode_status st;
    if (!json_is_object(o))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the answer is not a JSON object; expected AccessKeyId and others",
                       what);
    else if (end && !json_is_string(end) && !json_is_null(end))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: Expiration is not a string", what);
    else {
        k->id = string_of(o, "AccessKeyId");
        k->secret = string_of(o, "SecretAccessKey");
        k->token = string_of(o, token);
        st = check(k, json_string_value(end), what, err);
    }
    json_decref(o);
    return st;
}

/* ---------------------------------------------------------------------------------------------- XML */

/* Appends the character of an entity such as "&amp;"; false: not an entity. at is after the "&", *next after the
 * ";". */
static bool entity(struct mode_str *out, const char *at, const char *end, const char **next)
{
    static const struct {
        const char *name;
        char sign;
    } named[] = {{"amp;", '&'}, {"lt;", '<'}, {"gt;", '>'}, {"quot;", '"'}, {"apos;", '\''}};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        const size_t n = strlen(named[i].name);
        if ((size_t)(end - at) < n || strncmp(at, named[i].name, n) != 0) continue;
        mode_str_add_char(out, named[i].sign);
        *next = at + n;
        return true;
    }
    if (at == end || *at++ != '#') return false;
    const int base = at < end && *at == 'x' ? 16 : 10;
    long code = 0;
    at += base == 16;
    for (const char *first = at; at < end && *at != ';'; at++) {
        const char *digit = strchr("0123456789abcdef0123456789ABCDEF", *at);
        const long d = digit && *at ? (digit - "0123456789abcdef0123456789ABCDEF") % 16 : base;
        if (d >= base || at - first > 4) return false;
        code = base * code + d;
    }
    if (at == end || code < ' ' || code > '~') return false;
    mode_str_add_char(out, (char)code);
    *next = at + 1;
    return true;
}

/* The text in between, if it has no child elements. */
static char *text_of(const char *from, const char *end)
{
    struct mode_str out = {0};
    mode_str_add_cstr(&out, "");
    while (from < end) {
        if (*from != '&')
            mode_str_add_char(&out, *from++);
        else if (!entity(&out, from + 1, end, &from)) {
            mode_str_clear(&out);
            return NULL;
        }
    }
    return out.data;
}

char *mode__aws_element(const char *text, const char *name)
{
    char *open = mode_xasprintf("<%s>", name), *close = mode_xasprintf("</%s>", name), *value = NULL;
    const char *from = strstr(text, open), *end = from ? strchr(from + 1, '<') : NULL;
    if (end && strncmp(end, close, strlen(close)) == 0) value = text_of(from + strlen(open), end);
    free(open);
    free(close);
    return value;
}

enum mode_status mode__aws_keys_of_xml(struct mode__aws_keys *k, const char *text, const char *what,
                                       struct mode_error *err)
{
    const char *from = strstr(text, "<Credentials>"), *to = from ? strstr(from, "</Credentials>") : NULL;
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    if (!to) return MODE_FAIL(err, MODE_E_FORMAT, "%s: the answer has no <Credentials>", what);
    char *part = mode_xasprintf("%.*s", (int)(to - from), from), *end = mode__aws_element(part, "Expiration");
    k->id = mode__aws_element(part, "AccessKeyId");
    k->secret = mode__aws_element(part, "SecretAccessKey");
    k->token = mode__aws_element(part, "SessionToken");
    enum mode_status st = check(k, end, what, err);
    mode__wipe(part);
    free(end);
    return st;
}
