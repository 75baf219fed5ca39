#include "base/parallel.h"

#include "base/options.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* DESIGN: a job is (fn, ctx, n) and a shared item counter. Workers sleep on `wake`; a new job bumps `round`.
 * Each worker takes items until the counter passes n, then reports itself idle; the caller takes items too and
 * then waits for `busy` to reach zero. All fields below are guarded by `lock`, except the item counter. */
static struct {
    pthread_once_t once;
    pthread_mutex_t caller; /* one job at a time */
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    int threads;        /* 0 = not started */
    int wanted;         /* mode_parallel_set_threads */
    atomic_int sharers; /* mode_parallel_share; 0 = not shared */
    int active;         /* threads used in this round */
    uint64_t round;
    int busy;
    mode_item_fn *fn;
    void *ctx;
    int64_t n;
    atomic_int_fast64_t next;
    atomic_uint_fast64_t *items; /* mode_parallel_count_in */
} pool = {.once = PTHREAD_ONCE_INIT,
          .caller = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .idle = PTHREAD_COND_INITIALIZER};

static _Thread_local bool inside;
static _Thread_local int my_thread; /* 0 outside the pool's own threads */

static void do_item(mode_item_fn *fn, void *ctx, int64_t item, int thread)
{
    fn(ctx, item, thread);
    if (pool.items) atomic_fetch_add_explicit(pool.items, 1, memory_order_relaxed);
}

static void take_items(mode_item_fn *fn, void *ctx, int64_t n, int thread)
{
    inside = true;
    for (;;) {
        int64_t i = atomic_fetch_add(&pool.next, 1);
        if (i >= n) break;
        do_item(fn, ctx, i, thread);
    }
    inside = false;
}

static void *worker_main(void *arg)
{
    int thread = (int)(intptr_t)arg;
    my_thread = thread;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.round == seen) pthread_cond_wait(&pool.wake, &pool.lock);
        seen = pool.round;
        if (thread >= pool.active) continue;
        mode_item_fn *fn = pool.fn;
        void *ctx = pool.ctx;
        int64_t n = pool.n;
        pthread_mutex_unlock(&pool.lock);
        take_items(fn, ctx, n, thread);
        pthread_mutex_lock(&pool.lock);
        if (--pool.busy == 0) pthread_cond_signal(&pool.idle);
    }
    return NULL;
}

/* *n = 0: no variable is set. */
static enum mode_status read_environment(int64_t *n, struct mode_error *err)
{
    const char *own = getenv("MODE_THREADS"), *openmp = getenv("OMP_NUM_THREADS");
    char first[64];
    enum mode_status st = MODE_OK;
    *n = 0;
    if (own && *own) st = mode_parse_int(own, "MODE_THREADS", 0, 1024, n, err);
    if (st || *n > 0 || !openmp || !*openmp) return st;
    snprintf(first, sizeof first, "%.*s", (int)strcspn(openmp, ","), openmp);
    return mode_parse_int(first, "OMP_NUM_THREADS", 1, 1024, n, err);
}

enum mode_status mode_parallel_check(struct mode_error *err)
{
    int64_t n;
    return read_environment(&n, err);
}

static int threads_from_environment(void)
{
    int64_t n;
    if (read_environment(&n, NULL) == MODE_OK && n > 0) return (int)n;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    return 1;
}

static void pool_start(void)
{
    int n = pool.wanted > 0 ? pool.wanted : threads_from_environment();
    int started = 1;
    for (int t = 1; t < n; t++) {
        pthread_t id;
        if (pthread_create(&id, NULL, worker_main, (void *)(intptr_t)t) != 0)
            break; /* fewer threads give the same
                                                                                        bytes */
        pthread_detach(id);
        started++;
    }
    pool.threads = started;
}

int mode_parallel_threads(void)
{
    pthread_once(&pool.once, pool_start);
    const int sharers = atomic_load(&pool.sharers), n = sharers > 1 ? pool.threads / sharers : pool.threads;
    return n > 1 ? n : 1;
}

void mode_parallel_set_threads(int n)
{
    MODE_ASSERT(pool.threads == 0);
    pool.wanted = n;
}

void mode_parallel_share(int n)
{
    atomic_store(&pool.sharers, n);
}

void mode_parallel_count_in(atomic_uint_fast64_t *items)
{
    pool.items = items;
}

void mode_parallel_for(int64_t n, mode_item_fn *fn, void *ctx)
{
    int threads = mode_parallel_threads();
    if (n <= 0) return;
    if (threads == 1 || n == 1 || inside) {
        bool was = inside;
        inside = true;
        for (int64_t i = 0; i < n; i++) do_item(fn, ctx, i, my_thread);
        inside = was;
        return;
    }
    pthread_mutex_lock(&pool.caller);
    pthread_mutex_lock(&pool.lock);
    pool.fn = fn;
    pool.ctx = ctx;
    pool.n = n;
    pool.active = threads;
    pool.busy = threads - 1;
    atomic_store(&pool.next, 0);
    pool.round++;
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    take_items(fn, ctx, n, 0);
    pthread_mutex_lock(&pool.lock);
    while (pool.busy > 0) pthread_cond_wait(&pool.idle, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.caller);
}
