#include "ranks_option.h"

#include "base/str.h"
#include "dist/ranks.h"
#include "interrupt.h"
#include "nn/backend.h"

#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static bool on_stopping(void *ctx)
{
    (void)ctx;
    return interrupt_signal() != 0;
}

static enum mode_status number(int64_t *value, const char *name, int64_t low, int64_t high, struct mode_error *err)
{
    const char *text = getenv(name);
    if (!text)
        return MODE_FAIL(err, MODE_E_CONFIG, "WORLD_SIZE says that there are several processes, but %s is not set",
                         name);
    enum mode_status st = mode_parse_int(text, name, low, high, value, err);
    return st ? mode_error_prefix(err, MODE_E_CONFIG, "environment") : MODE_OK;
}

/* Ranks from the environment of torchrun and similar launchers. torchrun's own store occupies MASTER_PORT: then the
 * next port is used. */
static enum mode_status from_environment(int64_t *n, int64_t *rank, char **place, struct mode_error *err)
{
    const char *host = getenv("MASTER_ADDR"), *shared = getenv("TORCHELASTIC_USE_AGENT_STORE");
    int64_t port;
    enum mode_status st;
    if (!getenv("WORLD_SIZE")) return MODE_OK;
    if ((st = number(n, "WORLD_SIZE", 1, MODE_RANKS_MAX, err)) || *n == 1) return st;
    if ((st = number(rank, "RANK", 0, *n - 1, err)) || (st = number(&port, "MASTER_PORT", 1, 65534, err))) return st;
    if (!host)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "WORLD_SIZE says that there are several processes, but MASTER_ADDR is not set");
    *place = mode_xasprintf("%s:%lld", host, (long long)port + (shared && strcmp(shared, "True") == 0 ? 1 : 0));
    return MODE_OK;
}

/* Selects the GPU of this process. */
static enum mode_status pick_device(int64_t *device, int64_t rank, struct mode_error *err)
{
    const char *seen = getenv("CUDA_VISIBLE_DEVICES");
    if (*device > 0) return MODE_OK;
    if (getenv("LOCAL_RANK")) return number(device, "LOCAL_RANK", 0, MODE_RANKS_MAX, err);
    *device = seen && !strchr(seen, ',') ? 0 : rank; /* a launcher that shows each process one GPU has chosen it */
    return MODE_OK;
}

/* Checks the form of a rendezvous; other problems show when it is used. */
static enum mode_status check_place(const char *place, struct mode_error *err)
{
    const char *colon = strrchr(place, ':');
    int64_t port;
    if (strchr(place, '/') ? strlen(place) < sizeof((struct sockaddr_un *)0)->sun_path
                           : colon && colon > place && !mode_parse_int(colon + 1, "the port", 1, 65535, &port, NULL))
        return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "--rendezvous: \"%s\" is neither a socket file's path (with a '/', of at most %zu bytes) nor "
                     "HOST:PORT",
                     place, sizeof((struct sockaddr_un *)0)->sun_path - 1);
}

enum mode_status ranks_find(struct ranks *r, struct backend_options *backend, const struct ranks_options *o,
                            struct mode_error *err)
{
    int64_t n = o->n, rank = o->rank;
    char *place = o->rendezvous ? mode_xstrdup(o->rendezvous) : NULL;
    enum mode_status st = MODE_OK;
    *r = (struct ranks){.size = 1};
    if (n == 0 && (rank >= 0 || place))
        st = MODE_FAIL(err, MODE_E_USAGE, "--rank and --rendezvous go with --ranks");
    else if (n == 0)
        st = from_environment(&n, &rank, &place, err);
    if (st || n == 0 || n == 1) goto out;
    if (rank < 0 || rank >= n || !place)
        st = MODE_FAIL(
            err, MODE_E_USAGE,
            "--ranks %lld needs --rank from 0 to %lld (got %lld) and --rendezvous, a path or HOST:PORT (got %s)",
            (long long)n, (long long)n - 1, (long long)rank, place ? place : "none");
    else if (o->rendezvous && (st = check_place(place, err)))
        goto out;
    else if (strncmp(backend->name, "cuda", 4) != 0 && strcmp(backend->name, "auto") != 0)
        st = MODE_FAIL(
            err, MODE_E_USAGE,
            "--backend %s: several processes train one model on GPUs only, one each. HINT: on processors one "
            "process uses all of them",
            backend->name);
    if (st || (st = pick_device(&backend->device, rank, err))) goto out;
    if (strcmp(backend->name, "auto") == 0) backend->name = "cuda";
    *r = (struct ranks){.rank = (int)rank, .size = (int)n, .place = place, .timeout_s = o->timeout_s};
    place = NULL;
out:
    free(place);
    return st;
}

enum mode_status ranks_meet(struct mode_meeting **m, struct mode_backend **be, const struct ranks *r,
                            const struct backend_options *backend, struct mode_error *err)
{
    enum { MOMENT_S = 2 };
    *m = NULL;
    const enum mode_status st = backend_open(be, backend, err);
    if (r->size == 1) return st;
    const struct mode_meeting_options meet = {.rank = r->rank,
                                              .size = r->size,
                                              .place = r->place,
                                              .timeout_s = st && r->timeout_s > MOMENT_S ? MOMENT_S : r->timeout_s,
                                              .stopping = on_stopping};
    if (!st) return mode_meeting_open(m, &meet, err);
    (void)mode_meeting_open(m, &meet, NULL); /* tells processes that arrive that this one has failed */
    mode_meeting_close(m);
    return st;
}

void ranks_clear(struct ranks *r)
{
    free(r->place);
    *r = (struct ranks){.size = 1};
}
