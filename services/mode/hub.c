#include "hub.h"

#include "base/file.h"
#include "base/str.h"
#include "data/weights.h"
#include "hub_snapshot.h"
#include "pipeline/cache.h"
#include "remote/address.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONNECT_SECONDS = 15, SLOW_SECONDS = 60, SLOW_BYTES = 1000, MAX_REDIRECTS = 5, TRIES = 3 };
static const curl_off_t MAX_BYTES = (curl_off_t)16 << 30;

struct fetch {
    enum mode_hub_kind kind;
    CURL *curl;
    const char *endpoint, *id, *revision, *dir, *token; /* token: NULL = none */
    struct mode_hub_id name;
    struct hub_snapshot snapshot;
    bool offline;
};

static bool is_transient(CURLcode rc, long code)
{
    return code == 429 || code >= 500 ||
           (rc && rc != CURLE_HTTP_RETURNED_ERROR && rc != CURLE_WRITE_ERROR && rc != CURLE_FILESIZE_EXCEEDED &&
            rc != CURLE_URL_MALFORMAT && rc != CURLE_UNSUPPORTED_PROTOCOL && rc != CURLE_TOO_MANY_REDIRECTS);
}

/* One attempt to download to a file; *code is the HTTP status, 0 without a response. */
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
    if (f->token) { /* libcurl sends it only to the first host: CURLOPT_UNRESTRICTED_AUTH stays off */
        curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, f->token);
    }
    CURLcode rc = curl_easy_perform(c);
    *code = 0;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, code);
    return rc;
}

static enum mode_status said_no(const struct fetch *f, const char *url, long code, struct mode_error *err)
{
    if (code != 401 && code != 403) return MODE_FAIL(err, MODE_E_PEER, "%s: HTTP %ld", url, code);
    return MODE_FAIL(err, MODE_E_PERM, "%s: HTTP %ld: there is no such model, or it is not public. HINT: %s", url, code,
                     f->token ? "HF_TOKEN is set, but that token may not read it, or is no longer valid"
                              : "HF_TOKEN, a token of an account that may read it");
}

/* The URL of a file. Branch names may contain slashes, which must be escaped. */
static char *address(const struct fetch *f, const char *name)
{
    struct mode_str url = {0};
    mode_str_printf(&url, "%s/%s/resolve/", f->endpoint, f->name.repo);
    for (const char *c = f->revision; *c; c++) mode_str_printf(&url, *c == '/' ? "%%2F" : "%c", *c);
    mode_str_printf(&url, "/%s", name);
    return url.data;
}

static enum mode_status download(const struct fetch *f, const char *name, enum hub_file *file, struct mode_error *err)
{
    char *url = address(f, name), *path = mode_path_join(f->dir, name);
    enum mode_status st = MODE_OK;
    CURLcode rc = CURLE_OK;
    long code = 0;
    FILE *to = fopen(path, "wb");
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
        *file = HUB_FILE_THERE;
        st = mode_file_sync(path, err);
    } else {
        unlink(path);
        if (rc == CURLE_WRITE_ERROR)
            st = MODE_FAIL(err, MODE_E_IO, "%s: writing fails. HINT: is the disk full?", path);
        else if (rc != CURLE_HTTP_RETURNED_ERROR)
            st = MODE_FAIL(err, MODE_E_PEER,
                           "%s: %s. HINT: without a network give the model's folder instead of its name; a mirror is "
                           "named by HF_ENDPOINT",
                           url, curl_easy_strerror(rc));
        else if (code != 404)
            st = said_no(f, url, code, err);
    }
out:
    free(url);
    free(path);
    return st;
}

/* Takes a file of the snapshot, which is a link into Hugging Face's blob store. */
static enum mode_status take(const struct fetch *f, const char *name, struct mode_error *err)
{
    char *link = mode_path_join(f->snapshot.dir, name), *to = mode_path_join(f->dir, name),
         *from = realpath(link, NULL);
    enum mode_status st = from ? mode_file_copy(from, to, true, err) : mode_input_fail(err, errno, link, "be opened");
    if (!st) fprintf(stderr, "%s: %s, from the snapshot\n", f->id, name);
    free(link);
    free(to);
    free(from);
    return st;
}

/* Gets one file, from the snapshot or the hub; *file says whether it exists. */
static enum mode_status fetch(const struct fetch *f, const char *name, enum hub_file *file, struct mode_error *err)
{
    *file = hub_snapshot_look(&f->snapshot, name);
    if (*file == HUB_FILE_THERE) return take(f, name, err);
    if (*file == HUB_FILE_NONE || f->offline) return MODE_OK;
    *file = HUB_FILE_NONE;
    return download(f, name, file, err);
}

/* Gets the first existing one of the names (NULL-terminated). */
static enum mode_status fetch_one_of(const struct fetch *f, const char *const *names, const char **got,
                                     struct mode_error *err)
{
    enum hub_file file = HUB_FILE_NONE;
    enum mode_status st = MODE_OK;
    *got = NULL;
    for (size_t i = 0; !st && file != HUB_FILE_THERE && names[i]; i++) {
        st = fetch(f, names[i], &file, err);
        if (file == HUB_FILE_THERE) *got = names[i];
    }
    if (st || *got) return st;
    const char *others = names[1] ? " (nor the other usual names)" : "";
    if (f->offline)
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "%s: has no %s%s, and nothing is downloaded because HF_HUB_OFFLINE is set", f->snapshot.dir,
                         names[0], others);
    return MODE_FAIL(
        err, MODE_E_NOINPUT, "%s/%s: has no %s%s: not %s that can be used, or no model at all%s%s", f->endpoint,
        f->name.repo, names[0], others, f->kind == MODE_HUB_CLIP ? "a CLIP model" : "a sentence encoder",
        strcmp(f->revision, "main") ? ", or not of the revision " : "", strcmp(f->revision, "main") ? f->revision : "");
}

/* Gets optional files; without them the folder means something else. */
static enum mode_status fetch_if_there(const struct fetch *f, const char *name, struct mode_error *err)
{
    enum hub_file file;
    enum mode_status st = fetch(f, name, &file, err);
    if (st || file != HUB_FILE_UNKNOWN) return st;
    return MODE_FAIL(err, MODE_E_NOINPUT,
                     "%s: has no %s, and HF_HUB_OFFLINE forbids asking whether the model has one. HINT: if this folder "
                     "is the whole model, give the folder instead of %s",
                     f->snapshot.dir, name, f->id);
}

/* Gets the first existing one of these files, and, if it is an index, the files it names. */
static enum mode_status fetch_weights(const struct fetch *f, const char *const *names, struct mode_error *err)
{
    const char *got;
    char *path = NULL, *parts = NULL, *part;
    enum mode_status st = fetch_one_of(f, names, &got, err);
    if (st) return st;
    path = mode_path_join(f->dir, got);
    st = mode_weights_parts(&parts, path, err);
    for (char *left = parts; !st && (part = strsep(&left, "\n")) && *part;) {
        const char *const only[] = {part, NULL};
        st = fetch_one_of(f, only, &got, err);
    }
    free(path);
    free(parts);
    return st;
}

static const char *const hf_weights[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                         "pytorch_model.bin.index.json", NULL};

static enum mode_status fetch_encoder(const struct fetch *f, struct mode_error *err)
{
    static const char *const config[] = {"config.json", NULL},
                             *const tokenizer[] = {"tokenizer.json", "vocab.txt", NULL},
                             *const of_tokenizer[] = {"vocab.txt", "tokenizer_config.json"},
                             *const rest[] = {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"};
    const char *got;
    enum hub_file file;
    char *pooling = mode_path_join(f->dir, "1_Pooling");
    enum mode_status st;
    if ((st = mode_dir_make(pooling, err)) || (st = fetch_one_of(f, config, &got, err)) ||
        (st = fetch_one_of(f, tokenizer, &got, err)))
        goto out;
    const bool whole_tokenizer = got == tokenizer[0]; /* it contains the information of these, too */
    if ((st = fetch_weights(f, hf_weights, err))) goto out;
    if (whole_tokenizer)
        for (int i = 0; !st && i < 2; i++) st = fetch(f, of_tokenizer[i], &file, err);
    else
        st = fetch_if_there(f, of_tokenizer[1], err);
    for (size_t i = 0; !st && i < sizeof rest / sizeof *rest; i++) st = fetch_if_there(f, rest[i], err);
    if (!st) rmdir(pooling); /* fails if it is not empty */
out:
    free(pooling);
    return st;
}

/* open_clip's layout if the model has it, else that of transformers. */
static enum mode_status fetch_clip(const struct fetch *f, struct mode_error *err)
{
    static const char *const config[] = {"open_clip_config.json", "config.json", NULL},
                             *const weights[] = {"open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
                                                 "open_clip_pytorch_model.bin", NULL};
    const char *got;
    enum mode_status st = fetch_one_of(f, config, &got, err);
    if (st) return st;
    if (got == config[0]) return fetch_weights(f, weights, err);
    if ((st = fetch_weights(f, hf_weights, err))) return st;
    return fetch_if_there(f, "preprocessor_config.json", err);
}

/* Creates dir, completely or not at all. */
static enum mode_status fetch_into(struct fetch *f, const char *dir, struct mode_error *err)
{
    char *parent = mode_path_folder(dir), *temporary = mode_xasprintf("%s.new-XXXXXX", dir);
    bool made = false;
    f->dir = temporary;
    enum mode_status st = mode_dir_make(parent, err);
    if (!st && !(made = mkdtemp(temporary))) st = mode_output_fail(err, errno, dir, "be made");
    if (!st && !(f->curl = curl_easy_init())) st = MODE_FAIL(err, MODE_E_MEMORY, "libcurl cannot be initialised");
    if (!st) {
        fprintf(stderr, "%s: fetching from %s, once, into %s\n", f->id, f->snapshot.dir ? f->snapshot.dir : f->endpoint,
                dir);
        st = f->kind == MODE_HUB_CLIP ? fetch_clip(f, err) : fetch_encoder(f, err);
    }
    if (!st && chmod(temporary, 0755) == 0 && rename(temporary, dir) != 0) {
        struct stat s; /* another process may have been faster: use its folder */
        if (stat(dir, &s) != 0)
            st = mode_output_fail(err, errno, dir, "be made");
        else
            mode_dir_remove(temporary, NULL);
    }
    if (st) mode_error_rename(err, temporary, dir);
    if (st && made) mode_dir_remove(temporary, NULL);
    if (st && rmdir(parent) == 0) { /* hub/ORG and hub/, if empty */
        *strrchr(parent, '/') = 0;
        rmdir(parent);
    }
    if (f->curl) curl_easy_cleanup(f->curl);
    free(parent);
    free(temporary);
    return st;
}

/* Reads a switch like huggingface_hub, except that unknown words, which it takes as "off", are rejected. */
static enum mode_status read_switch(bool *on, const char *name, struct mode_error *err)
{
    static const char *const words[] = {"1", "on", "yes", "true", "0", "off", "no", "false", ""};
    const char *value = getenv(name);
    size_t i = 0;
    while (value && i < sizeof words / sizeof *words && strcasecmp(value, words[i]) != 0) i++;
    *on = value && i < 4;
    if (i < sizeof words / sizeof *words) return MODE_OK;
    return MODE_FAIL(err, MODE_E_CONFIG, "%s: \"%.40s\" is unknown; expected 1 or 0", name, value);
}

static enum mode_status read_environment(struct fetch *f, struct mode_error *err)
{
    enum mode_status st = mode_remote_hub(&f->endpoint, err);
    f->token = getenv("HF_TOKEN");
    if (f->token && !*f->token) f->token = NULL;
    if (!st) st = mode_remote_word(f->token, "HF_TOKEN", err);
    return st ? st : read_switch(&f->offline, "HF_HUB_OFFLINE", err);
}

enum mode_status mode_hub_fetch(enum mode_hub_kind kind, const char *id, struct mode_error *err)
{
    struct stat s;
    char *dir = mode_cache_hub(kind, id), *endpoint = NULL;
    struct fetch f = {.kind = kind, .id = id};
    enum mode_status st = MODE_OK;
    if (stat(dir, &s) == 0 || (st = read_environment(&f, err))) goto out;
    mode_hub_id_parse(&f.name, id);
    hub_snapshot_find(&f.snapshot, &f.name);
    /* files missing from a snapshot must be of its commit, not of what the name refers to today */
    f.revision = f.snapshot.commit ? f.snapshot.commit : f.name.revision;
    endpoint = mode_xstrdup(f.endpoint);
    for (size_t n = strlen(endpoint); n && endpoint[n - 1] == '/'; n--) endpoint[n - 1] = 0;
    f.endpoint = endpoint;
    if (f.offline && !f.snapshot.dir)
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s: is neither in MoDE's cache (%s) nor in Hugging Face's (%s), and nothing is downloaded "
                       "because HF_HUB_OFFLINE is set. HINT: download it once where there is a network, or give the "
                       "model's folder instead of its name",
                       id, dir, f.snapshot.cache);
    else
        st = fetch_into(&f, dir, err);
out:
    hub_snapshot_clear(&f.snapshot);
    mode_hub_id_clear(&f.name);
    free(endpoint);
    free(dir);
    return st;
}

enum mode_status mode_hub_encoder(char **dir, const char *encoder, struct mode_error *err)
{
    struct stat s;
    const char *id = mode_hub_name(encoder);
    if (!id && stat(encoder, &s) != 0 && errno != EACCES) id = encoder;
    *dir = id ? mode_cache_hub(MODE_HUB_ENCODER, id) : NULL;
    if (!*dir) {
        *dir = mode_xstrdup(encoder);
        return MODE_OK;
    }
    enum mode_status st = mode_hub_fetch(MODE_HUB_ENCODER, id, err);
    if (st) {
        free(*dir);
        *dir = NULL;
    }
    return st;
}

enum mode_status mode_hub_clip(const char **model, char **place, struct mode_error *err)
{
    const char *id = *model ? mode_hub_name(*model) : NULL;
    *place = NULL;
    if (!id) return MODE_OK;
    char *dir = mode_cache_hub(MODE_HUB_CLIP, id);
    if (!dir)
        return MODE_FAIL(err, MODE_E_USAGE,
                         "\"%.200s\" is not a name on the hub; expected " MODE_HUB_PREFIX "ORG/NAME or " MODE_HUB_PREFIX
                         "ORG/NAME@REVISION",
                         *model);
    *model = *place = dir;
    return mode_hub_fetch(MODE_HUB_CLIP, id, err);
}
