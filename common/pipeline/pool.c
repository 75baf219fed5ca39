#include "pipeline/pool.h"

#include "base/rng.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum mode_status mode_pool_init(struct mode_pool *pool, uint64_t n_rows, const int32_t *coarse, int32_t expert,
                                double out_ratio, uint64_t seed, struct mode_error *err)
{
    uint64_t n_in = 0, size;
    *pool = (struct mode_pool){.seed = seed, .epoch = UINT64_MAX};
    MODE_ASSERT(coarse || expert == MODE_POOL_ALL);
    if (n_rows == 0) return MODE_FAIL(err, MODE_E_VALUE, "the shards hold no pair to train on");
    if (n_rows >= UINT32_MAX)
        return MODE_FAIL(err, MODE_E_VALUE, "%llu pairs, at most %u are supported in one run",
                         (unsigned long long)n_rows, UINT32_MAX - 1);
    if (!(out_ratio >= 0 && out_ratio <= 1))
        return MODE_FAIL(err, MODE_E_VALUE, "the share of out-of-cluster pairs is %g, expected 0 to 1", out_ratio);
    for (uint64_t i = 0; i < n_rows; i++) n_in += expert == MODE_POOL_ALL || coarse[i] == expert;
    if (n_in == 0)
        return MODE_FAIL(err, MODE_E_VALUE, "none of the %llu pairs is assigned to expert %d",
                         (unsigned long long)n_rows, expert);
    pool->n_in = (uint32_t)n_in;
    pool->n_outside = (uint32_t)(n_rows - n_in);
    pool->n_out = (uint32_t)(out_ratio * (double)pool->n_outside);
    size = (uint64_t)pool->n_in + pool->n_out;
    pool->in = malloc(n_in * sizeof *pool->in);
    pool->outside = malloc((pool->n_outside ? pool->n_outside : 1) * sizeof *pool->outside);
    /* to draw, all rows outside are copied behind the rows inside and shuffled in place */
    pool->order = malloc((pool->n_out ? n_rows : size) * sizeof *pool->order);
    if (!pool->in || !pool->outside || !pool->order)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the order of %llu pairs", (unsigned long long)n_rows);
    uint32_t *in = pool->in, *outside = pool->outside;
    for (uint64_t i = 0; i < n_rows; i++) {
        if (expert == MODE_POOL_ALL || coarse[i] == expert)
            *in++ = (uint32_t)i;
        else
            *outside++ = (uint32_t)i;
    }
    return MODE_OK;
}

enum mode_status mode_pool_by_windows(struct mode_pool *pool, uint32_t n_shards, const uint32_t *row_end,
                                      uint32_t window, struct mode_error *err)
{
    bool *has_turn = mode_xcalloc(n_shards, sizeof *has_turn);
    const uint32_t *in = pool->in, *end = in + pool->n_in;
    for (uint32_t i = 0, from = 0; i < n_shards; from = row_end[i++]) {
        has_turn[i] = pool->n_out > 0 && row_end[i] > from;
        for (; in < end && *in < row_end[i]; in++) has_turn[i] = true;
    }
    pool->windows = mode_xcalloc(1, sizeof *pool->windows);
    enum mode_status st = mode_shard_order_init(pool->windows, n_shards, row_end, has_turn, window, pool->n_out,
                                                pool->seed, err);
    free(has_turn);
    return st;
}

void mode_pool_clear(struct mode_pool *pool)
{
    if (pool->windows) mode_shard_order_clear(pool->windows);
    free(pool->windows);
    free(pool->in);
    free(pool->outside);
    free(pool->order);
    *pool = (struct mode_pool){0};
}

static void build_epoch(struct mode_pool *pool, uint64_t epoch)
{
    if (!pool->windows) memcpy(pool->order, pool->in, (size_t)pool->n_in * sizeof *pool->order);
    if (pool->n_out) {
        uint32_t *out = pool->order + pool->n_in;
        struct mode_rng r = mode_rng_for(pool->seed, MODE_RNG_OUT, epoch, 0);
        memcpy(out, pool->outside, (size_t)pool->n_outside * sizeof *out);
        for (uint32_t i = 0; i < pool->n_out; i++) { /* the first n_out steps of a Fisher-Yates shuffle */
            uint32_t j = i + (uint32_t)mode_rng_below(&r, pool->n_outside - i), t = out[i];
            out[i] = out[j];
            out[j] = t;
        }
    }
    pool->epoch = epoch;
    if (pool->windows) {
        mode_shard_order_build(pool->windows, epoch, pool->in, pool->n_in, pool->order + pool->n_in, pool->n_out,
                               pool->order);
        return;
    }
    struct mode_rng r = mode_rng_for(pool->seed, MODE_RNG_ORDER, epoch, 0);
    mode_rng_shuffle_u32(&r, pool->order, mode_pool_size(pool));
}

void mode_pool_draw(struct mode_pool *pool, uint64_t first, uint64_t n, uint32_t *rows, uint32_t *epochs)
{
    uint32_t size = mode_pool_size(pool);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t epoch = (first + i) / size;
        if (epoch != pool->epoch) build_epoch(pool, epoch);
        rows[i] = pool->order[(first + i) % size];
        epochs[i] = (uint32_t)epoch;
    }
}

void mode_pool_turns(struct mode_pool *pool, uint64_t sample, uint64_t *from, uint64_t *to)
{
    const struct mode_shard_order *o = pool->windows;
    const uint32_t size = mode_pool_size(pool);
    const uint64_t epoch = sample / size;
    if (epoch != pool->epoch) build_epoch(pool, epoch);
    *from = epoch * o->n + mode_shard_order_window(o, (uint32_t)(sample % size));
    *to = *from + o->window;
}
