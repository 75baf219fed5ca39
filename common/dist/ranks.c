#include "dist/ranks.h"

#include <stdlib.h>

static bool is_number(enum mode_dtype dtype)
{
    return dtype == MODE_DTYPE_F32 || dtype == MODE_DTYPE_F64;
}

enum mode_status mode_ranks_all_gather(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err)
{
    MODE_ASSERT(is_number(dtype) || dtype == MODE_DTYPE_U8);
    return n ? g->ops->all_gather(g, out, in, n, dtype, err) : MODE_OK;
}

enum mode_status mode_ranks_reduce_scatter(struct mode_ranks *g, void *out, const void *in, size_t n,
                                           enum mode_dtype dtype, struct mode_error *err)
{
    MODE_ASSERT(is_number(dtype));
    return n ? g->ops->reduce_scatter(g, out, in, n, dtype, err) : MODE_OK;
}

enum mode_status mode_ranks_all_reduce(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err)
{
    MODE_ASSERT(is_number(dtype));
    return n ? g->ops->all_reduce(g, data, n, dtype, err) : MODE_OK;
}

enum mode_status mode_ranks_broadcast(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                      struct mode_error *err)
{
    MODE_ASSERT(is_number(dtype) || dtype == MODE_DTYPE_U8);
    return n ? g->ops->broadcast(g, data, n, dtype, err) : MODE_OK;
}

enum mode_status mode_ranks_check(struct mode_ranks *g, struct mode_error *err)
{
    return g->ops->check ? g->ops->check(g, err) : MODE_OK;
}

enum mode_status mode_ranks_parcels(struct mode_ranks *g, int n, int *first, struct mode_error *err)
{
    *first = 0;
    return g->ops->parcels ? g->ops->parcels(g, n, first, err) : MODE_OK;
}

void mode_ranks_made(struct mode_ranks *g, int parcel)
{
    if (g->ops->made) g->ops->made(g, parcel);
}

void mode_ranks_begin(struct mode_ranks *g, int parcel)
{
    if (g->ops->begin) g->ops->begin(g, parcel);
}

void mode_ranks_end(struct mode_ranks *g)
{
    if (g->ops->end) g->ops->end(g);
}

void mode_ranks_close(struct mode_ranks **g, bool in_order)
{
    if (!*g) return;
    (*g)->ops->close(*g, in_order);
    free(*g);
    *g = NULL;
}
