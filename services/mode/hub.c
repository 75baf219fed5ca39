#include "hub.h"

#include "base/file.h"
#include "base/str.h"
#include "data/weights.h"
#include "pipeline/hub.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONNECT_SECONDS = 15, SLOW_SECONDS = 60, SLOW_BYTES = 1000, MAX_REDIRECTS = 5, TRIES = 3 };
static const curl_off_t MAX_BYTES = (curl_off_t)16 << 30;

struct fetch {
    CURL *curl;
    const char *endpoint, *id, *dir;
};

static bool is_transient(CURLcode rc, long code)
{
    return code == 429 || code >= 500 ||
           (rc && rc != CURLE_HTTP_RETURNED_ERROR && rc != CURLE_WRITE_ERROR && rc != CURLE_FILESIZE_EXCEEDED &&
            rc != CURLE_URL_MALFORMAT && rc != CURLE_UNSUPPORTED_PROTOCOL && rc != CURLE_TOO_MANY_REDIRECTS);
}

/* One attempt into a file; *code is the HTTP status, 0 where there was none. */
static CURLcode attempt(const struct fetch *f, const char *url, FILE *to, long *code)
{
    CURL *c = f->curl;
    curl_easy_reset(c);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, to);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SLOW_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, MAX_BYTES);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "mode");
    CURLcode rc = curl_easy_perform(c);
    *code = 0;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, code);
    return rc;
}

/* Fetch one file. *there: whether the hub has it; absent is no failure. */
static enum mode_status fetch(const struct fetch *f, const char *name, bool *there, struct mode_error *err)
{
    char *url = mode_xasprintf("%s/%s/resolve/main/%s", f->endpoint, f->id, name), *path = mode_path_join(f->dir, name);
    enum mode_status st = MODE_OK;
    CURLcode rc = CURLE_OK;
    long code = 0;
    FILE *to = fopen(path, "wb");
    *there = false;
    if (!to) {
        st = mode_output_fail(err, errno, path, "be created");
        goto out;
    }
    for (int i = 0; i < TRIES; i++) {
        if (i) sleep(1u << (i - 1));
        rewind(to);
        if (ftruncate(fileno(to), 0) != 0) break;
        rc = attempt(f, url, to, &code);
        if (!rc || !is_transient(rc, code)) break;
    }
    if (fclose(to) != 0 && !rc) rc = CURLE_WRITE_ERROR;
    struct stat s;
    if (!rc && stat(path, &s) == 0) {
        fprintf(stderr, "%s: %s, %lld bytes\n", f->id, name, (long long)s.st_size);
        *there = true;
        st = mode_file_sync(path, err);
    } else {
        unlink(path);
        if (rc == CURLE_WRITE_ERROR)
            st = MODE_FAIL(err, MODE_E_IO, "%s: writing fails. HINT: is the disk full?", path);
        else if (rc != CURLE_HTTP_RETURNED_ERROR)
            st = MODE_FAIL(
                err, MODE_E_PEER,
                "%s: %s. HINT: without a network put the model's folder in the place of its name; a mirror is "
                "named by HF_ENDPOINT",
                url, curl_easy_strerror(rc));
        else if (code == 401 || code == 403)
            st = MODE_FAIL(err, MODE_E_PERM, "%s: HTTP %ld: there is no such model, or not for everybody", url, code);
        else if (code != 404)
            st = MODE_FAIL(err, MODE_E_PEER, "%s: HTTP %ld", url, code);
    }
out:
    free(url);
    free(path);
    return st;
}

/* The first of the names (ended by NULL) that the hub has; needed: none is a failure. */
static enum mode_status fetch_one_of(const struct fetch *f, const char *const *names, const char **got, bool needed,
                                     struct mode_error *err)
{
    bool there = false;
    enum mode_status st = MODE_OK;
    *got = NULL;
    for (size_t i = 0; !st && !there && names[i]; i++) {
        st = fetch(f, names[i], &there, err);
        if (there) *got = names[i];
    }
    if (!st && needed && !there)
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s/%s: has no %s%s: not a sentence encoder that can be used, or no model at all", f->endpoint,
                       f->id, names[0], names[1] ? " (nor the other usual names)" : "");
    return st;
}

static enum mode_status fetch_all(const struct fetch *f, struct mode_error *err)
{
    static const char *const config[] = {"config.json", NULL},
                             *const weights[] = {"model.safetensors", "model.safetensors.index.json",
                                                 "pytorch_model.bin", "pytorch_model.bin.index.json", NULL},
                             *const tokenizer[] = {"tokenizer.json", "vocab.txt", NULL};
    static const char *const rest[] = {"vocab.txt", "tokenizer_config.json", "modules.json",
                                       "sentence_bert_config.json", "1_Pooling/config.json"};
    const char *got, *tokens;
    char *pooling = mode_path_join(f->dir, "1_Pooling"), *path = NULL, *parts = NULL, *part;
    bool there;
    enum mode_status st;
    if ((st = mode_dir_make(pooling, err)) || (st = fetch_one_of(f, config, &got, true, err)) ||
        (st = fetch_one_of(f, tokenizer, &tokens, true, err)) || (st = fetch_one_of(f, weights, &got, true, err)))
        goto out;
    path = mode_path_join(f->dir, got);
    if ((st = mode_weights_parts(&parts, path, err))) goto out;
    for (char *left = parts; !st && (part = strsep(&left, "\n")) && *part;) {
        const char *const only[] = {part, NULL};
        st = fetch_one_of(f, only, &got, true, err);
    }
    for (size_t i = 0; !st && i < sizeof rest / sizeof *rest; i++)
        if (strcmp(rest[i], tokens) != 0) st = fetch(f, rest[i], &there, err);
    if (!st) rmdir(pooling); /* stays when something is in it */
out:
    free(pooling);
    free(path);
    free(parts);
    return st;
}

static enum mode_status fetch_into(const char *dir, const char *id, struct mode_error *err)
{
    const char *endpoint = getenv("HF_ENDPOINT");
    char *parent = mode_xstrdup(dir), *temporary = mode_xasprintf("%s.new-XXXXXX", dir), *base = NULL;
    struct fetch f = {.id = id, .dir = temporary};
    bool made = false;
    *strrchr(parent, '/') = 0;
    base = mode_xstrdup(endpoint && *endpoint ? endpoint : "https://huggingface.co");
    for (size_t n = strlen(base); n && base[n - 1] == '/'; n--) base[n - 1] = 0;
    f.endpoint = base;
    enum mode_status st = mode_dir_make(parent, err);
    if (!st && !(made = mkdtemp(temporary))) st = mode_output_fail(err, errno, dir, "be made");
    if (!st && !(f.curl = curl_easy_init())) st = MODE_FAIL(err, MODE_E_MEMORY, "libcurl will not start");
    if (!st) {
        fprintf(stderr, "%s: fetching from %s, once, into %s\n", id, f.endpoint, dir);
        st = fetch_all(&f, err);
    }
    if (!st && chmod(temporary, 0755) == 0 && rename(temporary, dir) != 0) {
        struct stat s; /* another process may have been faster: its folder is as good */
        if (stat(dir, &s) != 0)
            st = mode_output_fail(err, errno, dir, "be made");
        else
            mode_dir_remove(temporary, NULL);
    }
    if (st) mode_error_rename(err, temporary, dir);
    if (st && made) mode_dir_remove(temporary, NULL);
    if (st && rmdir(parent) == 0) { /* hub/ORG and hub/, where nothing else is in them */
        *strrchr(parent, '/') = 0;
        rmdir(parent);
    }
    if (f.curl) curl_easy_cleanup(f.curl);
    free(base);
    free(parent);
    free(temporary);
    return st;
}

enum mode_status mode_hub_find(char **dir, const char *encoder, struct mode_error *err)
{
    struct stat s;
    enum mode_status st = MODE_OK;
    *dir = stat(encoder, &s) == 0 || errno == EACCES ? NULL : mode_hub_dir(encoder);
    if (!*dir) {
        *dir = mode_xstrdup(encoder);
        return MODE_OK;
    }
    const char *endpoint = getenv("HF_ENDPOINT");
    if (stat(*dir, &s) != 0 && endpoint && *endpoint && strncmp(endpoint, "http://", 7) != 0 &&
        strncmp(endpoint, "https://", 8) != 0)
        st = MODE_FAIL(err, MODE_E_CONFIG,
                       "HF_ENDPOINT: \"%.200s\" is not an address; expected http:// or https:// and a host", endpoint);
    else if (stat(*dir, &s) != 0)
        st = fetch_into(*dir, encoder, err);
    if (st) {
        free(*dir);
        *dir = NULL;
    }
    return st;
}
