/* ask.h - a short HTTP request whose response is held in memory. Internal to common/remote; shards are fetched by
 * link.h.
 *
 * Redirects are not followed, because responses contain credentials.
 *
 * Threads: any. */
#ifndef MODE_REMOTE_ASK_H
#define MODE_REMOTE_ASK_H

#include "base/str.h"
#include "remote/link.h"

#include <curl/curl.h>

/* Initialises libcurl; once per process, before its first connection. */
void mode__curl_begin(void);

enum { MODE__MOST_HEADERS = 8 };

struct mode__question {
    const char *method, *url;
    struct {
        const char *name, *value;
    } header[MODE__MOST_HEADERS];
    size_t n_header;
    const char *body; /* of a form; NULL = none */
    long ms;          /* timeout of the whole request */
    bool direct;      /* without a proxy: a host in this machine's own network */
    unsigned tries;   /* attempts, while failures are transient */
};

struct mode__reply {
    long code;     /* HTTP status; 0: no response */
    char why[160]; /* without a response: why */
    struct mode_str text;
};

/* MODE_E_STOPPED, else MODE_OK with whatever came. The caller clears the reply in any case. */
enum mode_status mode__ask(struct mode__reply *r, const struct mode__question *q, const struct mode_remote_watch *w,
                           struct mode_error *err);
/* Whether the failure is transient: no response, or a busy server. */
bool mode__reply_may_pass(const struct mode__reply *r);
void mode__reply_clear(struct mode__reply *r);

/* Sleeps. MODE_E_STOPPED as soon as the watch stops it, else MODE_OK after that time. */
enum mode_status mode__pause(unsigned ms, const char *what, const struct mode_remote_watch *w, struct mode_error *err);

/* At most one line of the output of a server or a command, for an error text, printable characters only. The caller
 * frees. */
char *mode__said(const char *text, size_t n);

#endif
