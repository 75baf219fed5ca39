#include "msg/redis_url.h"

#include "base/options.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static enum mode_status parse_host(struct mode_redis_url *u, const char *rest, struct mode_error *why)
{
    const char *at = strrchr(rest, '@');
    if (at) {
        const char *colon = memchr(rest, ':', (size_t)(at - rest)), *from = colon ? colon + 1 : rest;
        u->password = mode_xasprintf("%.*s", (int)(at - from), from);
        rest = at + 1;
    }
    size_t n = strcspn(rest, ":/");
    int64_t port = 6379, db = 0;
    enum mode_status st = MODE_OK;
    u->host = mode_xasprintf("%.*s", (int)n, rest);
    if (!n) return MODE_FAIL(why, MODE_E_CONFIG, "it names no host");
    rest += n;
    if (*rest == ':') {
        n = strcspn(++rest, "/");
        char *digits = mode_xasprintf("%.*s", (int)n, rest);
        st = mode_parse_int(digits, "the port", 1, 65535, &port, why);
        free(digits);
        rest += n;
    }
    if (!st && *rest == '/' && rest[1]) st = mode_parse_int(rest + 1, "the database", 0, 1 << 20, &db, why);
    u->port = (int)port;
    u->db = (int)db;
    return st;
}

enum mode_status mode_redis_url_parse(struct mode_redis_url *u, const char *url, struct mode_error *err)
{
    struct mode_error why = {.text = "it is of neither kind"};
    enum mode_status st = MODE_E_CONFIG;
    *u = (struct mode_redis_url){0};
    if (strncmp(url, "unix:///", 8) == 0) {
        u->path = mode_xstrdup(url + strlen("unix://"));
        u->path[strcspn(u->path, "?")] = 0;
        st = MODE_OK;
    } else if (strncmp(url, "redis://", 8) == 0) {
        st = parse_host(u, url + 8, &why);
    }
    if (!st) return MODE_OK;
    mode_redis_url_clear(u);
    const char *at = strrchr(url, '@'); /* a password may precede it */
    return MODE_FAIL(err, MODE_E_CONFIG,
                     "the Redis URL is \"%s%.200s\", expected redis://[:password@]host[:port][/db] or "
                     "unix:///path/to/socket: %.200s",
                     at ? "***" : "", at ? at : url, why.text);
}

void mode_redis_url_clear(struct mode_redis_url *u)
{
    free(u->path);
    free(u->host);
    free(u->password);
    *u = (struct mode_redis_url){0};
}
