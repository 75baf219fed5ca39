#include "remote/ask.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_ANSWER = 1 << 18, MOST_LINE = 200, FIRST_PAUSE_MS = 300, SLICE_MS = 50 };

static void start_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

void mode__curl_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_curl);
}

void mode__reply_clear(struct mode__reply *r)
{
    if (r->text.data) explicit_bzero(r->text.data, r->text.cap);
    mode_str_clear(&r->text);
    *r = (struct mode__reply){0};
}

bool mode__reply_may_pass(const struct mode__reply *r)
{
    return !r->code || r->code == 408 || r->code == 429 || r->code >= 500;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct mode_str *to = ctx;
    const size_t n = size * count;
    if (n > MOST_ANSWER - to->len) return 0;
    mode_str_add(to, data, n);
    return n;
}

static int on_progress(void *ctx, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    (void)total;
    (void)now;
    (void)up_total;
    (void)up_now;
    return !mode_remote_going(ctx, 0, 0);
}

static CURLcode ask_once(CURL *c, struct mode__reply *r, const struct mode__question *q,
                         const struct mode_remote_watch *w)
{
    const char *authorities = getenv("SSL_CERT_FILE");
    struct curl_slist *header = NULL;
    for (size_t i = 0; i < q->n_header; i++) {
        char *line = mode_xasprintf("%s: %s", q->header[i].name, q->header[i].value);
        header = curl_slist_append(header, line);
        explicit_bzero(line, strlen(line));
        free(line);
    }
    mode__reply_clear(r);
    mode_str_add_cstr(&r->text, "");
    curl_easy_reset(c);
    curl_easy_setopt(c, CURLOPT_URL, q->url);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    if (q->body) {
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, q->body);
        curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)strlen(q->body));
    }
    curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, q->ms);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "mode");
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, header);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &r->text);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, w);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    if (q->direct) curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    if (authorities && *authorities) curl_easy_setopt(c, CURLOPT_CAINFO, authorities);
    CURLcode rc = curl_easy_perform(c);
    if (!rc)
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &r->code);
    else
        snprintf(r->why, sizeof r->why, "%s",
                 rc == CURLE_WRITE_ERROR ? "the answer is too long" : curl_easy_strerror(rc));
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(header);
    return rc;
}

enum mode_status mode__pause(unsigned ms, const char *what, const struct mode_remote_watch *w, struct mode_error *err)
{
    for (unsigned slept = 0; slept < ms; slept += SLICE_MS) {
        if (!mode_remote_going(w, 0, 0))
            return MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while waiting for its answer", what);
        nanosleep(&(struct timespec){.tv_nsec = SLICE_MS * 1000000L}, NULL);
    }
    return MODE_OK;
}

enum mode_status mode__ask(struct mode__reply *r, const struct mode__question *q, const struct mode_remote_watch *w,
                           struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *r = (struct mode__reply){0};
    mode__curl_begin();
    CURL *c = curl_easy_init();
    if (!c) return MODE_FAIL(err, MODE_E_MEMORY, "libcurl cannot be initialised");
    for (unsigned i = 0; !st; i++) {
        const CURLcode rc = ask_once(c, r, q, w);
        if (rc == CURLE_ABORTED_BY_CALLBACK)
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while waiting for its answer", q->url);
        else if (rc == CURLE_URL_MALFORMAT || i + 1 >= q->tries || !mode__reply_may_pass(r))
            break;
        else
            st = mode__pause((unsigned)FIRST_PAUSE_MS << i, q->url, w, err);
    }
    curl_easy_cleanup(c);
    return st;
}

char *mode__said(const char *text, size_t n)
{
    struct mode_str out = {0};
    mode_str_add_cstr(&out, "");
    for (; n && (*text == ' ' || *text == '\n' || *text == '\r' || *text == '\t'); n--) text++;
    for (; n && *text != '\n' && *text != '\r' && out.len < MOST_LINE; n--, text++)
        mode_str_add_char(&out, *text >= ' ' && *text <= '~' ? *text : '?');
    while (out.len && (out.data[out.len - 1] == ' ' || out.data[out.len - 1] == '.')) out.data[--out.len] = '\0';
    return out.data;
}
