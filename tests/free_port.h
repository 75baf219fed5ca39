/* free_port.h - a free port for a test, below the ephemeral range: no other process is given it between the check and
 * the use. */
#ifndef MODE_TESTS_FREE_PORT_H
#define MODE_TESTS_FREE_PORT_H

#include "base/error.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

static inline int free_port(void)
{
    enum { FIRST = 20000, N = 10000 };
    for (int i = 0; i < N; i++) {
        int port = FIRST + (getpid() + i) % N, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const struct sockaddr_in at = {
            .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        bool is_free = bind(fd, (const struct sockaddr *)&at, sizeof at) == 0;
        close(fd);
        if (is_free) return port;
    }
    MODE_ASSERT(!"no port is free");
    return 0;
}

#endif
