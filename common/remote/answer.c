#include "remote/answer.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_VALUE = 258 };

/* The value of a header of that name; one with a NUL, or that does not fit, is ignored. */
static bool header_is(const char *line, size_t n, const char *name, char value[MOST_VALUE], size_t size)
{
    const size_t len = strlen(name);
    if (n <= len || strncasecmp(line, name, len) != 0 || line[len] != ':') return false;
    const char *from = line + len + 1, *end = line + n;
    while (from < end && (*from == ' ' || *from == '\t')) from++;
    while (end > from && strchr("\r\n \t", end[-1])) end--;
    const size_t all = (size_t)(end - from);
    if (all >= size || memchr(from, '\0', all)) return false;
    memcpy(value, from, all);
    value[all] = '\0';
    return true;
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Decodes Content-MD5 to hex; to is "" if it is malformed. */
static void take_md5(char to[33], const char *text)
{
    unsigned char byte[18];
    to[0] = '\0';
    if (strlen(text) != 24 || strcmp(text + 22, "==") != 0) return;
    for (int i = 0; i < 24; i += 4) {
        int d[4];
        for (int k = 0; k < 4; k++) {
            d[k] = base64_digit(text[i + k]);
            if (d[k] < 0 && i + k < 22) return;
            if (d[k] < 0) d[k] = 0;
        }
        byte[i / 4 * 3] = (unsigned char)(d[0] << 2 | d[1] >> 4);
        byte[i / 4 * 3 + 1] = (unsigned char)(d[1] << 4 | d[2] >> 2);
        byte[i / 4 * 3 + 2] = (unsigned char)(d[2] << 6 | d[3]);
    }
    for (int i = 0; i < 16; i++) snprintf(to + 2 * i, 3, "%02x", byte[i]);
}

/* "HTTP/1.1 200 OK": three digits; 0: not such a line. */
static long code_of(const char *line, size_t n)
{
    const char *blank = memchr(line, ' ', n);
    long code = 0;
    for (int i = 1; i <= 3; i++) {
        if (!blank || blank + i >= line + n || blank[i] < '0' || blank[i] > '9') return 0;
        code = 10 * code + blank[i] - '0';
    }
    return code;
}

/* It is shown to people, who may type it in: only safe characters. */
static bool is_region(const char *text)
{
    return text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

void mode__answer_header(struct mode__answer *a, const char *line, size_t n)
{
    char value[MOST_VALUE];
    unsigned long long first, last, whole;
    if (n > 5 && strncmp(line, "HTTP/", 5) == 0) { /* the next response of a redirect chain; the body callback needs
                                                      its code */
        *a = MODE__NO_ANSWER;
        a->code = code_of(line, n);
    } else if (header_is(line, n, "etag", value, sizeof a->etag))
        snprintf(a->etag, sizeof a->etag, "%s", value);
    else if (header_is(line, n, "last-modified", value, sizeof a->modified))
        snprintf(a->modified, sizeof a->modified, "%.63s", value);
    else if (header_is(line, n, "content-length", value, sizeof value))
        a->length = (int64_t)strtoll(value, NULL, 10);
    else if (header_is(line, n, "content-range", value, sizeof value)) {
        if (sscanf(value, "bytes %llu-%llu/%llu", &first, &last, &whole) == 3) {
            a->start = first;
            a->whole = whole;
        }
    } else if (header_is(line, n, "retry-after", value, sizeof value))
        a->retry_after_s = (unsigned)strtoul(value, NULL, 10);
    else if (header_is(line, n, "x-amz-bucket-region", value, sizeof a->region) && is_region(value))
        snprintf(a->region, sizeof a->region, "%.63s", value);
    else if (header_is(line, n, "x-amz-server-side-encryption-customer-algorithm", value, sizeof value) ||
             (header_is(line, n, "x-amz-server-side-encryption", value, sizeof value) &&
              strncmp(value, "aws:", 4) == 0))
        a->encrypted = true;
    else if (header_is(line, n, "content-md5", value, sizeof value))
        take_md5(a->md5, value);
}

void mode__answer_said(struct mode__answer *a, const char *data, size_t n)
{
    if (n > MODE__MOST_SAID - a->n_said) n = MODE__MOST_SAID - a->n_said;
    memcpy(a->said + a->n_said, data, n);
    a->n_said += n;
}

void mode__answer_add_said(struct mode_str *out, const struct mode__answer *a)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const char *code = strstr(a->said, "<Code>");
    const size_t n = code ? strspn(code + 6, letters) : 0;
    if (n && n < 64 && code[6 + n] == '<') mode_str_printf(out, "; the store says %.*s", (int)n, code + 6);
}

bool mode__answer_is_over(const struct mode__answer *a)
{
    return strstr(a->said, "<Code>ExpiredToken<") || strstr(a->said, "<Code>InvalidToken<") ||
           strstr(a->said, "<Code>InvalidTokenId<") || strstr(a->said, "<Code>InvalidAccessKeyId<");
}

void mode__answer_version(struct mode_remote_version *v, const struct mode__answer *a)
{
    const bool weak = strncmp(a->etag, "W/", 2) == 0;
    const char *tag = a->etag + (weak ? 2 : 0);
    size_t n = strlen(tag);
    if (n && tag[0] == '"') {
        tag++;
        n -= n > 1 && tag[n - 2] == '"' ? 2 : 1;
    }
    const time_t modified = a->modified[0] ? curl_getdate(a->modified, NULL) : -1;
    *v = (struct mode_remote_version){.bytes = a->whole};
    if (n) {
        v->mark = weak ? MODE_REMOTE_WEAK : MODE_REMOTE_ETAG;
        snprintf(v->text, sizeof v->text, "%.*s", (int)n, tag);
    } else if (modified >= 0) {
        v->mark = MODE_REMOTE_TIME;
        snprintf(v->text, sizeof v->text, "%lld", (long long)modified);
    }
}
