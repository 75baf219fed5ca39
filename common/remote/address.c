#include "remote/address.h"

#include "base/str.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char pin_mark[] = "#bytes=";
static const char *const marks[] = {[MODE_REMOTE_BYTES] = "",
                                    [MODE_REMOTE_ETAG] = ",etag=",
                                    [MODE_REMOTE_WEAK] = ",weak=",
                                    [MODE_REMOTE_TIME] = ",time="};

/* Length of the scheme with its "://", 0: not a supported one. */
static size_t scheme(const char *path)
{
    static const char *const known[] = {"http://", "https://", "s3://"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncasecmp(path, known[i], strlen(known[i])) == 0) return strlen(known[i]);
    return 0;
}

bool mode_remote_is(const char *path)
{
    return scheme(path) != 0;
}

bool mode_remote_is_s3(const char *address)
{
    return strncasecmp(address, "s3:", 3) == 0;
}

char *mode_remote_shown(const char *text)
{
    const size_t n = scheme(text);
    struct mode_str out = {0};
    if (!n) return mode_xstrdup(text);
    const size_t host = strcspn(text + n, "/?#");
    const char *at = memrchr(text + n, '@', host), *rest = at ? at + 1 : text + n;
    mode_str_add(&out, text, n);
    mode_str_add(&out, rest, mode_remote_is_s3(text) ? strlen(rest) : strcspn(rest, "?"));
    return out.data;
}

static enum mode_status check_bucket(const char *bucket, size_t n, const char *text, struct mode_error *err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789.-_ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    if (n >= 3 && n <= 255 && bucket[0] != '.' && strspn(bucket, letters) >= n) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG, "%s: \"%.*s\" is not the name of a bucket; expected s3://BUCKET/KEY", text,
                     (int)(n < 80 ? n : 80), bucket);
}

static enum mode_status check(const char *text, const char *shown, size_t n, struct mode_error *err)
{
    const bool s3 = mode_remote_is_s3(text);
    const char *host = text + n, *rest = host + strcspn(host, "/?#");
    const size_t whole = s3 ? strlen(rest) : strcspn(rest, "?");
    if (rest == host || whole < 2 || rest[0] != '/' || rest[whole - 1] == '/')
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s: names no shard; expected %s. HINT: folders and buckets are not listed; name shards one "
                         "by one, or by a range such as {00000..00041}.tar",
                         shown, s3 ? "s3://BUCKET/KEY" : "https://HOST/PATH");
    if (memchr(host, '@', (size_t)(rest - host)))
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s: contains a user name or a password, which would be stored and printed. HINT: a presigned "
                         "address in a list (@FILE), or a server that needs none",
                         shown);
    if (memchr(rest, '*', whole) || memchr(rest, '[', whole))
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s: is a pattern, and files of servers are not listed. HINT: a range such as "
                         "{00000..00041}.tar, or a list (@FILE)",
                         shown);
    for (const char *c = host; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f || (!s3 && (*c == ' ' || *c == '#' || *c == '"' || *c == '\\')))
            return MODE_FAIL(
                err, MODE_E_CONFIG,
                "%s: has a character (byte 0x%02x) that is not allowed in an address; expected %%%02X in its place",
                shown, (unsigned char)*c, (unsigned char)*c);
    return s3 ? check_bucket(host, (size_t)(rest - host), shown, err) : MODE_OK;
}

enum mode_status mode_remote_address(char **address, char **query, const char *text, struct mode_error *err)
{
    const size_t n = scheme(text);
    char *shown = mode_remote_shown(text);
    *address = *query = NULL;
    MODE_ASSERT(n);
    enum mode_status st = check(text, shown, n, err);
    free(shown);
    if (st) return st;
    const char *mark = mode_remote_is_s3(text) ? NULL : strchr(text, '?');
    *address = mark ? mode_xasprintf("%.*s", (int)(mark - text), text) : mode_xstrdup(text);
    if (mark && mark[1]) *query = mode_xstrdup(mark + 1);
    return MODE_OK;
}

enum mode_status mode_remote_word(const char *value, const char *name, struct mode_error *err)
{
    for (const char *c = value; c && *c; c++)
        if (*c <= ' ' || *c > '~')
            return MODE_FAIL(err, MODE_E_CONFIG,
                             "%s: character %td does not occur in a token or a key; expected letters, digits and "
                             "punctuation, without spaces or line breaks",
                             name, c - value + 1);
    return MODE_OK;
}

char *mode_remote_escape(const char *text, bool slashes)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    struct mode_str out = {0};
    mode_str_add_cstr(&out, "");
    for (const char *c = text; *c; c++)
        if (strchr(plain, *c) || (slashes && *c == '/'))
            mode_str_add_char(&out, *c);
        else
            mode_str_printf(&out, "%%%02X", (unsigned char)*c);
    return out.data;
}

char *mode_remote_pin(const char *address, const struct mode_remote_version *v)
{
    char *text = mode_remote_escape(v->mark == MODE_REMOTE_BYTES ? "" : v->text, false),
         *pinned = mode_xasprintf("%s%s%" PRIu64 "%s%s", address, pin_mark, v->bytes, marks[v->mark], text);
    free(text);
    return pinned;
}

size_t mode_remote_pin_at(const char *path)
{
    const char *at = mode_remote_is(path) ? strrchr(path, '#') : NULL;
    return at && strncmp(at, pin_mark, sizeof pin_mark - 1) == 0 ? (size_t)(at - path) : strlen(path);
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool unescape(char *to, size_t size, const char *from)
{
    size_t n = 0;
    for (; *from; from++) {
        if (n + 1 == size) return false;
        to[n] = *from;
        if (*from == '%') {
            const int high = hex(from[1]), low = high < 0 ? -1 : hex(from[2]);
            if (low < 0 || high + low == 0) return false;
            to[n] = (char)(16 * high + low);
            from += 2;
        }
        n++;
    }
    to[n] = '\0';
    return n > 0;
}

enum mode_status mode_remote_unpin(char **address, struct mode_remote_version *v, const char *pinned,
                                   struct mode_error *err)
{
    const size_t n = mode_remote_pin_at(pinned);
    char *end = NULL;
    bool good = false;
    *v = (struct mode_remote_version){0};
    *address = NULL;
    if (pinned[n]) {
        const char *digits = pinned + n + sizeof pin_mark - 1;
        v->bytes = strtoull(digits, &end, 10);
        good = end > digits && *end == '\0';
        for (int m = MODE_REMOTE_ETAG; !good && end > digits && m <= MODE_REMOTE_TIME; m++)
            if (strncmp(end, marks[m], strlen(marks[m])) == 0) {
                v->mark = (enum mode_remote_mark)m;
                good = unescape(v->text, sizeof v->text, end + strlen(marks[m]));
                break;
            }
    }
    if (!good)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: expected an address with its version, ...#bytes=N,etag=X", pinned);
    *address = mode_xasprintf("%.*s", (int)n, pinned);
    return MODE_OK;
}

uint64_t mode_remote_bytes(const char *pinned)
{
    const size_t n = mode_remote_pin_at(pinned);
    return pinned[n] ? strtoull(pinned + n + sizeof pin_mark - 1, NULL, 10) : 0;
}

enum mode_status mode_remote_hub(const char **endpoint, struct mode_error *err)
{
    const char *set = getenv("HF_ENDPOINT");
    *endpoint = set && *set ? set : "https://huggingface.co";
    if (strncmp(*endpoint, "http://", 7) == 0 || strncmp(*endpoint, "https://", 8) == 0) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "HF_ENDPOINT: \"%.200s\" is not an address; expected http:// or https:// and a host", set);
}
