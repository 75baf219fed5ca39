/* address.h - checks addresses given in options, before anything is opened. */
#ifndef MODE_MSG_ADDRESS_H
#define MODE_MSG_ADDRESS_H

#include "base/error.h"

#include <netinet/in.h>
#include <stdbool.h>

/* ipc:///path or tcp://host:port; with listens, the port may be "*" or 0 (any free one). MODE_E_CONFIG. */
enum mode_status mode_endpoint_check(const char *endpoint, bool listens, struct mode_error *err);
/* An IPv4 address (or "localhost") and a port. MODE_E_CONFIG. at may be NULL. */
enum mode_status mode_http_address(struct sockaddr_in *at, const char *address, struct mode_error *err);

#endif
