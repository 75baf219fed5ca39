/* redis_url.h - redis://[:password@]host[:port][/db] or unix:///path/to/socket, parsed. */
#ifndef MODE_MSG_REDIS_URL_H
#define MODE_MSG_REDIS_URL_H

#include "base/error.h"

struct mode_redis_url {
    char *path;            /* of the socket; NULL: host and port */
    char *host, *password; /* password: NULL = none */
    int port, db;
};

/* MODE_E_CONFIG: malformed; the error shows the URL without the part that may be a password. */
enum mode_status mode_redis_url_parse(struct mode_redis_url *u, const char *url, struct mode_error *err);
void mode_redis_url_clear(struct mode_redis_url *u);

#endif
