#include "remote/sigv4.h"

#include "base/file.h"
#include "base/str.h"
#include "remote/address.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SHA256_BYTES = 32, DAY = 8 };

struct pair {
    char *name, *value;
};

static int by_pair(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    const int c = strcmp(x->name, y->name);
    return c ? c : strcmp(x->value, y->value);
}

/* Lower-case name; value trimmed, with inner spaces collapsed. */
static struct pair header_pair(const struct mode_sigv4_pair *p)
{
    struct pair out = {mode_xstrdup(p->name), mode_xstrdup(p->value)};
    char *to = out.value;
    for (char *c = out.name; *c; c++) *c = (char)tolower((unsigned char)*c);
    for (const char *from = p->value + strspn(p->value, " "); *from; from++)
        if (*from != ' ' || (from[1] != ' ' && from[1] != '\0')) *to++ = *from;
    *to = '\0';
    return out;
}

static struct pair query_pair(const struct mode_sigv4_pair *p)
{
    return (struct pair){mode_remote_escape(p->name, false), mode_remote_escape(p->value, false)};
}

static struct pair *sorted(const struct mode_sigv4_pair *from, size_t n,
                           struct pair (*make)(const struct mode_sigv4_pair *))
{
    struct pair *p = mode_xcalloc(n + 1, sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = make(&from[i]);
    if (n) qsort(p, n, sizeof *p, by_pair);
    return p;
}

static void drop(struct pair *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(p[i].name);
        free(p[i].value);
    }
    free(p);
}

static void add_names(struct mode_str *out, const struct pair *p, size_t n)
{
    for (size_t i = 0; i < n; i++) mode_str_printf(out, "%s%s", i ? ";" : "", p[i].name);
}

char *mode_sigv4_canonical(const struct mode_sigv4_request *r)
{
    struct pair *query = sorted(r->query, r->n_query, query_pair),
                *header = sorted(r->header, r->n_header, header_pair);
    struct mode_str out = {0};
    mode_str_printf(&out, "%s\n%s\n", r->method, r->path);
    for (size_t i = 0; i < r->n_query; i++)
        mode_str_printf(&out, "%s%s=%s", i ? "&" : "", query[i].name, query[i].value);
    mode_str_add_char(&out, '\n');
    for (size_t i = 0; i < r->n_header; i++) mode_str_printf(&out, "%s:%s\n", header[i].name, header[i].value);
    mode_str_add_char(&out, '\n');
    add_names(&out, header, r->n_header);
    mode_str_printf(&out, "\n%s", r->payload);
    drop(query, r->n_query);
    drop(header, r->n_header);
    return out.data;
}

static void hmac(unsigned char out[SHA256_BYTES], const void *key, size_t n_key, const char *text, size_t n)
{
    unsigned int size = SHA256_BYTES;
    MODE_ASSERT(HMAC(EVP_sha256(), key, (int)n_key, (const unsigned char *)text, n, out, &size) != NULL);
}

char *mode_sigv4_authorization(const struct mode_sigv4_request *r, const struct mode_sigv4_key *key, const char *time)
{
    char *canonical = mode_sigv4_canonical(r), digest[MODE_DIGEST_HEX], signature[2 * SHA256_BYTES + 1];
    char *scope = mode_xasprintf("%.*s/%s/%s/aws4_request", DAY, time, key->region, key->service),
         *secret = mode_xasprintf("AWS4%s", key->secret);
    unsigned char k[SHA256_BYTES];
    struct pair *header = sorted(r->header, r->n_header, header_pair);
    struct mode_str out = {0};
    mode_digest_bytes(canonical, strlen(canonical), digest);
    char *text = mode_xasprintf("AWS4-HMAC-SHA256\n%s\n%s\n%s", time, scope, digest);
    hmac(k, secret, strlen(secret), time, DAY);
    hmac(k, k, sizeof k, key->region, strlen(key->region));
    hmac(k, k, sizeof k, key->service, strlen(key->service));
    hmac(k, k, sizeof k, "aws4_request", strlen("aws4_request"));
    hmac(k, k, sizeof k, text, strlen(text));
    for (size_t i = 0; i < sizeof k; i++) {
        signature[2 * i] = "0123456789abcdef"[k[i] >> 4];
        signature[2 * i + 1] = "0123456789abcdef"[k[i] & 15];
    }
    signature[2 * SHA256_BYTES] = '\0';
    mode_str_printf(&out, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=", key->id, scope);
    add_names(&out, header, r->n_header);
    mode_str_printf(&out, ",Signature=%s", signature);
    drop(header, r->n_header);
    free(text);
    free(scope);
    free(secret);
    free(canonical);
    return out.data;
}

/* libcurl omits default ports, and the signed host must match the one sent. */
char *mode_sigv4_host(const char *url)
{
    const char *at = strstr(url, "://") + 3;
    char *host = mode_xasprintf("%.*s", (int)strcspn(at, "/"), at), *port = strrchr(host, ':');
    if (port && strcmp(port, strncmp(url, "https:", 6) == 0 ? ":443" : ":80") == 0) *port = '\0';
    return host;
}

void mode_sigv4_now(char now[MODE_SIGV4_TIME])
{
    struct tm tm;
    const time_t clock = time(NULL);
    gmtime_r(&clock, &tm);
    strftime(now, MODE_SIGV4_TIME, "%Y%m%dT%H%M%SZ", &tm);
}
