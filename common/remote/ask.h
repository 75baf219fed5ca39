/* ask.h - a short question over HTTP, and its answer in memory. Inside of common/remote; shards come by link.h.
 *
 * Redirects are not followed: what is asked here is answered with keys.
 *
 * Threads: any. */
#ifndef MODE_REMOTE_ASK_H
#define MODE_REMOTE_ASK_H

#include "base/str.h"
#include "remote/link.h"

#include <curl/curl.h>

/* Once in a process, before its first connection. */
void mode__curl_begin(void);

enum { MODE__MOST_HEADERS = 8 };

struct mode__question {
    const char *method, *url;
    struct {
        const char *name, *value;
    } header[MODE__MOST_HEADERS];
    size_t n_header;
    const char *body; /* of a form; NULL */
    long ms;          /* for all of it */
    bool direct;      /* by no proxy: it is of this machine's own network */
    unsigned tries;   /* while a failure may pass */
};

struct mode__reply {
    long code;     /* 0: nobody answered */
    char why[160]; /* nobody: why not */
    struct mode_str text;
};

/* MODE_E_STOPPED, or MODE_OK: whatever came. The caller clears the reply in any case. */
enum mode_status mode__ask(struct mode__reply *r, const struct mode__question *q, const struct mode_remote_watch *w,
                           struct mode_error *err);
/* May it pass? Nobody answered, or one that is busy. */
bool mode__reply_may_pass(const struct mode__reply *r);
void mode__reply_clear(struct mode__reply *r);

/* MODE_E_STOPPED as soon as it is to stop, else MODE_OK after that time. */
enum mode_status mode__pause(unsigned ms, const char *what, const struct mode_remote_watch *w, struct mode_error *err);

/* At most a line of what a server or a command said, for a sentence: what can be printed. The caller frees. */
char *mode__said(const char *text, size_t n);

#endif
