#include "remote/link.h"

#include "base/str.h"
#include "remote/answer.h"
#include "remote/ask.h"
#include "remote/aws.h"
#include "remote/queries.h"
#include "remote/sigv4.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* six failing attempts end well before the stall timeout of a task (five minutes) */
enum { CONNECT_SECONDS = 15, SLOW_SECONDS = 30, SLOW_BYTES = 1000, MAX_REDIRECTS = 5, TRIES = 6 };
enum { FIRST_PAUSE_MS = 500, SLICE_MS = 100, MOST_RETRY_AFTER_S = 30 };

static const char no_body[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; /* SHA-256 of "" */

struct mode_remote_link {
    CURL *curl;
    struct mode_aws aws;
    bool knows_aws;
    char *endpoint, *token; /* of the Hugging Face hub; token: NULL = none */
};

struct transfer {
    const char *address;                      /* shown */
    const struct mode_remote_version *wanted; /* NULL: any version */
    uint64_t at, to;                          /* [at, to) is still missing */
    mode_remote_sink *sink;
    void *ctx;
    const struct mode_remote_watch *watch;
    struct mode__answer r;
    uint64_t skip; /* bytes to skip before `at`: the server ignores ranges */
    bool checked, changed, unkept, stopped, enough;
    bool renewed; /* the expired key was renewed, at most once */
};

bool mode_remote_going(const struct mode_remote_watch *w, uint64_t done, uint64_t total)
{
    return !w || !w->going || w->going(w->ctx, done, total);
}

static enum mode_status read_token(struct mode_remote_link *l, struct mode_error *err)
{
    const char *endpoint, *token = getenv("HF_TOKEN");
    enum mode_status st = mode_remote_hub(&endpoint, err);
    if (st) return st;
    l->endpoint = mode_xstrdup(endpoint);
    for (size_t n = strlen(l->endpoint); n && l->endpoint[n - 1] == '/';) l->endpoint[--n] = '\0';
    if (!token || !*token) return MODE_OK;
    if ((st = mode_remote_word(token, "HF_TOKEN", err))) return st;
    l->token = mode_xstrdup(token);
    return MODE_OK;
}

enum mode_status mode_remote_link_open(struct mode_remote_link **link, struct mode_error *err)
{
    mode__curl_begin();
    struct mode_remote_link *l = *link = mode_xcalloc(1, sizeof *l);
    enum mode_status st = read_token(l, err);
    if (!st && !(l->curl = curl_easy_init())) st = MODE_FAIL(err, MODE_E_MEMORY, "libcurl cannot be initialised");
    if (st) mode_remote_link_close(link);
    return st;
}

void mode_remote_link_close(struct mode_remote_link **link)
{
    struct mode_remote_link *l = *link;
    *link = NULL;
    if (!l) return;
    if (l->curl) curl_easy_cleanup(l->curl);
    mode_aws_clear(&l->aws);
    free(l->endpoint);
    free(l->token);
    free(l);
}

/* ---------------------------------------------------------------------------------------------- what comes back */

static size_t on_header(char *line, size_t size, size_t count, void *ctx)
{
    mode__answer_header(&((struct transfer *)ctx)->r, line, size * count);
    return size * count;
}

/* Before the first byte is stored: checks that it is the planned version. */
static bool check_answer(struct transfer *t)
{
    struct mode__answer *r = &t->r;
    struct mode_remote_version now;
    if (r->code == 200) {
        r->start = 0;
        if (r->length >= 0) r->whole = (uint64_t)r->length;
    }
    t->checked = true;
    t->skip = r->start < t->at ? t->at - r->start : 0;
    if (!t->wanted) return true;
    mode__answer_version(&now, r);
    t->changed = now.mark != t->wanted->mark || strcmp(now.text, t->wanted->text) != 0 ||
                 (r->whole != UINT64_MAX && r->whole != t->wanted->bytes);
    return !t->changed && r->start <= t->at;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct transfer *t = ctx;
    const size_t all = size * count;
    size_t n = all;
    struct mode__answer *r = &t->r;
    if (r->code / 100 != 2) {
        mode__answer_said(r, data, n);
        return all;
    }
    if (!t->checked && !check_answer(t)) return 0;
    if (t->skip >= n) {
        t->skip -= n;
        return all;
    }
    data += t->skip;
    n -= (size_t)t->skip;
    t->skip = 0;
    if (n >= t->to - t->at) {
        n = (size_t)(t->to - t->at);
        t->enough = true;
    }
    if (n && t->sink && !t->sink(t->ctx, data, n, t->at)) {
        t->unkept = true;
        return 0;
    }
    t->at += n;
    return t->enough && r->code == 200 && r->whole != t->to ? 0 : all; /* the rest is ignored */
}

static int on_progress(void *ctx, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    struct transfer *t = ctx;
    (void)total;
    (void)now;
    (void)up_total;
    (void)up_now;
    if (mode_remote_going(t->watch, t->at, t->to)) return 0;
    t->stopped = true;
    return 1;
}

/* ---------------------------------------------------------------------------------------------- what is sent */

struct target {
    char *url;
    struct curl_slist *header;
    bool bearer;
};

static void add_header(struct target *t, const char *name, const char *value)
{
    char *line = mode_xasprintf("%s: %s", name, value);
    t->header = curl_slist_append(t->header, line);
    free(line);
}

static void sign(struct target *t, const struct mode_aws *a, const char *method, const char *host, const char *path,
                 const char *range)
{
    char now[MODE_SIGV4_TIME];
    mode_sigv4_now(now);
    struct mode_sigv4_pair header[5] = {{"host", host}, {"x-amz-content-sha256", no_body}, {"x-amz-date", now}};
    size_t n = 3;
    if (range) header[n++] = (struct mode_sigv4_pair){"range", range};
    if (a->token) header[n++] = (struct mode_sigv4_pair){"x-amz-security-token", a->token};
    const struct mode_sigv4_request r = {
        .method = method, .path = path, .header = header, .n_header = n, .payload = no_body};
    const struct mode_sigv4_key key = {a->id, a->secret, a->region, "s3"};
    char *authorization = mode_sigv4_authorization(&r, &key, now);
    add_header(t, "Authorization", authorization);
    for (size_t i = 1; i < n; i++)
        if (strcmp(header[i].name, "range") != 0) add_header(t, header[i].name, header[i].value);
    free(authorization);
}

static enum mode_status aim_s3(struct target *t, struct mode_remote_link *l, const char *address, const char *method,
                               const char *range, const struct mode_remote_watch *w, struct mode_error *err)
{
    char *host, *path;
    if (!l->knows_aws || (int64_t)time(NULL) >= l->aws.again) {
        mode_aws_clear(&l->aws);
        enum mode_status st = mode_aws_find(&l->aws, w, err);
        l->knows_aws = !st;
        if (st) return st;
    }
    t->url = mode_aws_url(&host, &path, &l->aws, address);
    if (l->aws.id) sign(t, &l->aws, method, host, path, range);
    free(host);
    free(path);
    return MODE_OK;
}

static enum mode_status aim(struct target *t, struct mode_remote_link *l, const char *address, const char *method,
                            const char *range, const struct mode_remote_watch *w, struct mode_error *err)
{
    *t = (struct target){0};
    if (mode_remote_is_s3(address)) return aim_s3(t, l, address, method, range, w, err);
    char *query;
    enum mode_status st = mode_remote_query_get(&query, address, err);
    if (st) return st;
    const size_t n = strlen(l->endpoint);
    t->url = query ? mode_xasprintf("%s?%s", address, query) : mode_xstrdup(address);
    t->bearer = l->token && strncasecmp(address, l->endpoint, n) == 0 && address[n] == '/';
    free(query);
    return MODE_OK;
}

/* Performs one request. *rc is libcurl's code; the response is in t->r. */
static enum mode_status ask(CURLcode *rc, struct mode_remote_link *l, struct transfer *t, const char *address,
                            const char *method, const char *range, const char *etag, struct mode_error *err)
{
    CURL *c = l->curl;
    struct target to;
    enum mode_status st = aim(&to, l, address, method, range, t->watch, err);
    if (st) return st;
    const bool s3 = mode_remote_is_s3(address);
    const char *authorities = getenv("SSL_CERT_FILE");
    if (range) add_header(&to, "Range", range);
    if (etag) add_header(&to, "If-Match", etag);
    t->r = MODE__NO_ANSWER;
    t->checked = t->changed = t->unkept = t->stopped = t->enough = false;
    curl_easy_reset(c);
    curl_easy_setopt(c, CURLOPT_URL, to.url);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_NOBODY, strcmp(method, "HEAD") == 0 ? 1L : 0L);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, s3 ? 0L : 1L); /* a signature is valid for one host */
    curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, strncmp(to.url, "https:", 6) == 0 ? "https" : "http,https");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SLOW_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "mode");
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, to.header);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    if (authorities && *authorities) curl_easy_setopt(c, CURLOPT_CAINFO, authorities);
    if (to.bearer) { /* libcurl sends it only to the first host: CURLOPT_UNRESTRICTED_AUTH stays off */
        curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, l->token);
    }
    *rc = curl_easy_perform(c);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(to.header);
    free(to.url);
    return MODE_OK;
}

/* ---------------------------------------------------------------------------------------------- what it means */

static bool may_pass(CURLcode rc, long code)
{
    switch (code) {
    case 408:
    case 425:
    case 429: return true;
    default:
        if (code >= 500) return true;
    }
    switch (rc) {
    case CURLE_OK:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_ABORTED_BY_CALLBACK: return false;
    default: return true;
    }
}

static enum mode_status refused(const struct mode_remote_link *l, const struct transfer *t, struct mode_error *err)
{
    const struct mode__answer *r = &t->r;
    const bool s3 = mode_remote_is_s3(t->address), hub = strncmp(t->address, l->endpoint, strlen(l->endpoint)) == 0;
    const bool region = s3 && (r->code == 400 || r->code / 100 == 3) && r->region[0];
    struct mode_str why = {0};
    enum mode_status st = MODE_E_PERM;
    mode_str_printf(&why, "%s: HTTP %ld", t->address, r->code);
    mode__answer_add_said(&why, r);
    if (region)
        mode_str_printf(&why, ". HINT: the bucket is in the region %s: AWS_REGION", r->region);
    else if (r->code == 404 || r->code == 410) {
        st = MODE_E_NOINPUT;
        mode_str_printf(&why, ": there is no such shard. HINT: %s",
                        s3 ? "is it written as in the store, and AWS_ENDPOINT_URL right?" : "is the address right?");
    } else if (s3 && (r->code == 400 || r->code == 401 || r->code == 403))
        mode_str_printf(
            &why, ": it may not be read %s key (%s). HINT: %s", l->aws.id ? "with this" : "without a", l->aws.source,
            l->aws.id ? "may the key read that bucket, has its session expired, is this machine's clock right? "
                        "A shard that does not exist is refused too, if the bucket may not be listed"
                      : "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE");
    else if (r->code == 401 || r->code == 403)
        mode_str_printf(&why, ": it may not be read. HINT: %s",
                        hub ? (l->token ? "HF_TOKEN is set, but that token may not read it"
                                        : "HF_TOKEN, a token of an account that may read it")
                            : "a presigned address may be too old; sign the list again and run again");
    else {
        st = MODE_E_NOINPUT;
        mode_str_add_cstr(&why, ": expected the shard");
    }
    st = MODE_FAIL(err, st, "%s", why.data);
    mode_str_clear(&why);
    return st;
}

static enum mode_status changed(const struct transfer *t, struct mode_error *err)
{
    struct mode_remote_version now;
    mode__answer_version(&now, &t->r);
    if (t->r.code == 412 || t->r.code == 416 || now.bytes == UINT64_MAX) now.bytes = 0;
    char *then = mode_remote_pin("", t->wanted), *is = now.bytes ? mode_remote_pin("", &now) : mode_xstrdup("#another");
    enum mode_status st = MODE_FAIL(err, MODE_E_VALUE,
                                    "%s: has changed since the run was planned (%s then, %s now); a shard must not "
                                    "change. HINT: restore it, or submit the run again",
                                    t->address, then + 1, is + 1);
    free(then);
    free(is);
    return st;
}

/* Waits with exponential backoff and jitter. MODE_E_STOPPED, else MODE_OK. */
static enum mode_status pause_before(int attempt, const struct transfer *t, struct mode_error *err)
{
    static _Atomic unsigned n_pauses;
    unsigned ms = (unsigned)FIRST_PAUSE_MS << (attempt - 1);
    ms += ms * (n_pauses++ * 2654435761u >> 24) / 512; /* up to 50 % jitter */
    if (t->r.retry_after_s * 1000 > ms)
        ms = (t->r.retry_after_s < MOST_RETRY_AFTER_S ? t->r.retry_after_s : MOST_RETRY_AFTER_S) * 1000;
    for (unsigned slept = 0; slept < ms; slept += SLICE_MS) {
        if (!mode_remote_going(t->watch, t->at, t->to))
            return MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while it was fetched", t->address);
        nanosleep(&(struct timespec){.tv_nsec = SLICE_MS * 1000000L}, NULL);
    }
    return MODE_OK;
}

static enum mode_status given_up(const struct transfer *t, CURLcode rc, int tries, struct mode_error *err)
{
    struct mode_str why = {0};
    if (t->r.code && t->r.code / 100 != 2) {
        mode_str_printf(&why, "HTTP %ld", t->r.code);
        mode__answer_add_said(&why, &t->r);
    } else
        mode_str_add_cstr(&why, rc ? curl_easy_strerror(rc) : "the connection was closed early");
    if (tries > 1) mode_str_printf(&why, ", %d times in a row", tries);
    if (rc == CURLE_PEER_FAILED_VERIFICATION)
        mode_str_add_cstr(&why, ". HINT: SSL_CERT_FILE names the certificates to trust");
    enum mode_status st = MODE_FAIL(err, MODE_E_PEER, "%s: %s", t->address, why.data);
    mode_str_clear(&why);
    return st;
}

/* ---------------------------------------------------------------------------------------------- the two questions */

/* Renews the key when its session has expired or was revoked during a run. Only once, so that a source without a new
 * key is not queried forever. */
static bool renews(struct mode_remote_link *l, struct transfer *t)
{
    const long code = t->r.code;
    if (t->renewed || !mode_remote_is_s3(t->address) || !l->aws.id || (code != 400 && code != 401 && code != 403) ||
        !mode__answer_is_over(&t->r))
        return false;
    mode_aws_over(&l->aws);
    l->knows_aws = false;
    return t->renewed = true;
}

/* Performs the request and retries transient failures. On MODE_OK t->r is the response, whatever its code. */
static enum mode_status insist(struct mode_remote_link *l, struct transfer *t, const char *address, const char *method,
                               bool ranged, bool (*done)(const struct transfer *t, CURLcode rc), struct mode_error *err)
{
    char range[64], *etag = NULL;
    enum mode_status st = MODE_OK;
    if (t->wanted && t->wanted->mark == MODE_REMOTE_ETAG) etag = mode_xasprintf("\"%s\"", t->wanted->text);
    for (int tries = 0; !st;) {
        CURLcode rc = CURLE_OK;
        const uint64_t before = t->at;
        snprintf(range, sizeof range, "bytes=%" PRIu64 "-%" PRIu64, t->at, t->to - 1);
        if ((st = ask(&rc, l, t, address, method, ranged || t->at ? range : NULL, etag, err))) break;
        if (t->stopped)
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while it was fetched", t->address);
        else if (t->unkept)
            st = MODE_E_IO; /* the caller's sink has failed */
        else if (t->changed || (t->wanted && (t->r.code == 412 || t->r.code == 416)))
            st = changed(t, err);
        else if (renews(l, t))
            continue;
        else if (done(t, rc))
            break;
        else {
            tries = t->at > before ? 1 : tries + 1;
            const bool cut = !rc && t->r.code / 100 == 2; /* the body ended early without an error */
            if (!cut && !may_pass(rc, t->r.code))
                st = rc && rc != CURLE_WRITE_ERROR && t->r.code / 100 != 4 ? given_up(t, rc, tries, err)
                                                                           : refused(l, t, err);
            else if (tries == TRIES)
                st = given_up(t, rc, tries, err);
            else
                st = pause_before(tries, t, err);
        }
    }
    free(etag);
    return st;
}

static bool has_all(const struct transfer *t, CURLcode rc)
{
    (void)rc;
    return t->r.code / 100 == 2 && t->at == t->to;
}

static bool has_answer(const struct transfer *t, CURLcode rc)
{
    const bool answered = !rc || t->enough; /* stopped after the first byte of a full response */
    return answered && !may_pass(CURLE_OK, t->r.code) && t->r.code;
}

enum mode_status mode_remote_look(struct mode_remote_version *v, struct mode_remote_link *l, const char *address,
                                  const struct mode_remote_watch *w, struct mode_error *err)
{
    struct transfer t = {.address = address, .to = 1, .watch = w};
    enum mode_status st = insist(l, &t, address, "HEAD", false, has_answer, err);
    if (st) return st;
    if (t.r.code == 200 && t.r.length >= 0) {
        t.r.whole = (uint64_t)t.r.length;
    } else { /* a presigned URL is often valid for GET only, and GET returns a better error */
        t.at = 0;
        if ((st = insist(l, &t, address, "GET", true, has_answer, err))) return st;
        if (t.r.code == 200 && t.r.length >= 0) t.r.whole = (uint64_t)t.r.length;
    }
    if (t.r.code / 100 != 2) return refused(l, &t, err);
    if (t.r.whole == UINT64_MAX)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "%s: the server does not say how many bytes it has; expected Content-Length or Content-Range",
                         address);
    mode__answer_version(v, &t.r);
    return MODE_OK;
}

/* On S3 the ETag of an object that was not uploaded in parts is its MD5. */
static void find_md5(char md5[33], const struct mode__answer *r, const char *address,
                     const struct mode_remote_version *v)
{
    snprintf(md5, 33, "%s", r->code == 200 ? r->md5 : "");
    if (!md5[0] && mode_remote_is_s3(address) && !r->encrypted && v->mark == MODE_REMOTE_ETAG &&
        strlen(v->text) == 32 && strspn(v->text, "0123456789abcdef") == 32)
        snprintf(md5, 33, "%.32s", v->text);
}

enum mode_status mode_remote_get(struct mode_remote_link *l, const char *pinned, uint64_t from, uint64_t to,
                                 mode_remote_sink *sink, void *ctx, char md5[33], const struct mode_remote_watch *w,
                                 struct mode_error *err)
{
    struct mode_remote_version v;
    char *address;
    md5[0] = '\0';
    enum mode_status st = mode_remote_unpin(&address, &v, pinned, err);
    if (!st && from < to) {
        struct transfer t = {
            .address = address, .wanted = &v, .at = from, .to = to, .sink = sink, .ctx = ctx, .watch = w};
        st = insist(l, &t, address, "GET", to != v.bytes, has_all, err);
        if (!st) find_md5(md5, &t.r, address, &v);
    }
    free(address);
    return st;
}
