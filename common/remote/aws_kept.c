#include "remote/aws_kept.h"

#include "base/str.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EARLY_S = 900, LATE_S = 600 }; /* seconds before expiry: one thread refreshes; all wait for it */
enum { PAUSE_S = 30, NONE_S = 300, SLICE_MS = 100 };

struct kept {
    char *name; /* of the source */
    struct mode__aws_keys keys;
    bool has, had;
    int64_t early, late; /* seconds since 1970 */
    bool is_asked;       /* a thread is fetching, without the lock */
    unsigned long n_answers;
    struct mode_error error; /* of the last attempt, if it failed */
    enum mode_status status;
    struct kept *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static struct kept *all;

static int64_t seconds(void)
{
    return (int64_t)time(NULL);
}

static struct kept *entry_of(const struct mode__aws_source *s)
{
    char *name = mode__aws_source_name(s);
    struct kept *e = all;
    while (e && strcmp(e->name, name) != 0) e = e->next;
    if (e) {
        free(name);
        return e;
    }
    e = mode_xcalloc(1, sizeof *e);
    e->name = name;
    e->next = all;
    return all = e;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Replaces the keys, and computes when to refresh them. */
static void keep(struct kept *e, struct mode__aws_keys *k)
{
    const int64_t now = seconds(), left = k->end > now ? k->end - now : 0;
    mode__aws_keys_clear(&e->keys);
    e->keys = *k;
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    e->has = e->had = true;
    e->early = e->late = MODE__AWS_NEVER;
    if (e->keys.end == MODE__AWS_NEVER) return;
    e->early = now + left - least(EARLY_S, left / 4);
    e->late = now + left - least(LATE_S, left / 6);
    if (!left) e->early = e->late = now + PAUSE_S; /* one of the two clocks is wrong: the store will report that */
}

static enum mode_status fetch(struct mode__aws_keys *k, const struct mode__aws_source *s,
                              const struct mode_remote_watch *w, struct mode_error *err)
{
    struct mode__aws_keys by = {0};
    int64_t again;
    enum mode_status st;
    switch (s->kind) {
    case MODE__AWS_CONTAINER: return mode__aws_of_container(k, s, w, err);
    case MODE__AWS_MACHINE: return mode__aws_of_machine(k, s, w, err);
    case MODE__AWS_PROCESS: return mode__aws_of_process(k, s, w, err);
    case MODE__AWS_WEB_IDENTITY: return mode__aws_of_sts(k, s, NULL, w, err);
    case MODE__AWS_ROLE:
        st = s->by->kind == MODE__AWS_KEYS ? fetch(&by, s->by, w, err) : mode__aws_keys_get(&by, &again, s->by, w, err);
        if (!st) st = mode__aws_of_sts(k, s, &by, w, err);
        mode__aws_keys_clear(&by);
        return st == MODE_E_NOINPUT ? MODE_E_PEER : st; /* the source of the role has no keys: not the same as no
                                                           role */
    case MODE__AWS_KEYS:
        *k = (struct mode__aws_keys){.id = mode_xstrdup(s->id),
                                     .secret = mode_xstrdup(s->secret),
                                     .token = s->token ? mode_xstrdup(s->token) : NULL,
                                     .end = MODE__AWS_NEVER};
        return MODE_OK;
    case MODE__AWS_NONE: break;
    }
    return MODE_FAIL(err, MODE_E_NOINPUT, "%s", s->shown);
}

/* A failing source is retried soon, and before the present keys expire; one without keys much later. */
static void put_off(struct kept *e)
{
    const int64_t now = seconds(), left = e->has && e->keys.end > now ? e->keys.end - now : 0;
    e->early = now + (e->status == MODE_E_NOINPUT ? NONE_S : least(PAUSE_S, left / 4));
    if (e->late < e->early) e->late = e->early;
}

/* Called by the one fetching thread; releases the lock meanwhile. */
static void ask(struct kept *e, const struct mode__aws_source *s, const struct mode_remote_watch *w)
{
    struct mode__aws_keys k = {0};
    struct mode_error err = {0};
    e->is_asked = true;
    pthread_mutex_unlock(&lock);
    enum mode_status st = fetch(&k, s, w, &err);
    pthread_mutex_lock(&lock);
    e->is_asked = false;
    if (st != MODE_E_STOPPED) { /* stopped: concerns only this thread; the others fetch themselves */
        e->n_answers++;
        e->status = st == MODE_E_NOINPUT && e->had ? MODE_E_PEER : st;
        e->error = err;
        if (st)
            put_off(e);
        else
            keep(e, &k);
    }
    pthread_cond_broadcast(&answered);
}

static void wait_a_little(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += SLICE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&answered, &lock, &until);
}

enum mode_status mode__aws_keys_get(struct mode__aws_keys *k, int64_t *again, const struct mode__aws_source *s,
                                    const struct mode_remote_watch *w, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *k = (struct mode__aws_keys){.end = MODE__AWS_NEVER};
    pthread_mutex_lock(&lock);
    struct kept *e = entry_of(s);
    const unsigned long before = e->n_answers;
    for (bool done = false; !done;) {
        const int64_t now = seconds();
        const bool good = e->has && now < e->keys.end, none = !e->has && e->status == MODE_E_NOINPUT && now < e->early;
        if (e->has && now < e->early)
            done = true;
        else if (none || e->n_answers != before) { /* fetched by this thread, or by the one it waited for */
            if (e->status && !good) st = MODE_FAIL(err, e->status, "%s", e->error.text);
            done = true;
        } else if (!mode_remote_going(w, 0, 0)) {
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped while waiting for its answer", s->shown);
            done = true;
        } else if (!e->is_asked)
            ask(e, s, w);
        else if (good && now < e->late)
            done = true;
        else
            wait_a_little();
    }
    if (!st) mode__aws_keys_copy(k, &e->keys);
    *again = e->early;
    pthread_mutex_unlock(&lock);
    return st;
}

void mode__aws_keys_over(const char *id)
{
    pthread_mutex_lock(&lock);
    for (struct kept *e = all; e; e = e->next)
        if (e->has && strcmp(e->keys.id, id) == 0) e->has = false;
    pthread_mutex_unlock(&lock);
}
