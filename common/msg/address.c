#include "msg/address.h"

#include "base/options.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static bool is_port(const char *text, int64_t least)
{
    int64_t port;
    return mode_parse_int(text, "the port", least, 65535, &port, NULL) == MODE_OK;
}

enum mode_status mode_endpoint_check(const char *endpoint, bool listens, struct mode_error *err)
{
    const size_t n = strlen(endpoint), most = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        if (endpoint[6] == '/' && n - 6 <= most) return MODE_OK;
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s: an ipc endpoint is ipc:// and an absolute path of at most %zu bytes, this one has %zu. "
                         "HINT: use a shorter folder",
                         endpoint, most, n - 6);
    }
    if (strncmp(endpoint, "tcp://", 6) == 0 && colon > endpoint + 6 &&
        (is_port(colon + 1, listens ? 0 : 1) || (listens && strcmp(colon + 1, "*") == 0)))
        return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG, "\"%s\" is not an endpoint; expected ipc:///path or tcp://host:port",
                     endpoint);
}

enum mode_status mode_http_address(struct sockaddr_in *at, const char *address, struct mode_error *err)
{
    const char *colon = strrchr(address, ':');
    struct in_addr ip;
    char *host = mode_xasprintf("%.*s", colon ? (int)(colon - address) : 0, address);
    const bool good = inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &ip) == 1 &&
                      is_port(colon + 1, 1);
    free(host);
    if (!good)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "\"%s\" is not an IPv4 address and a port from 1 to 65535; expected one like 127.0.0.1:8080",
                         address);
    if (at)
        *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1)), .sin_addr = ip};
    return MODE_OK;
}
