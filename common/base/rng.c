#include "base/rng.h"

#include <math.h>

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
    uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
    uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k[0];
    uint32_t n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k[1];
    c[1] = (uint32_t)p1;
    c[3] = (uint32_t)p0;
    c[0] = n0;
    c[2] = n2;
}

static void philox_block(struct mode_rng *r)
{
    uint32_t c[4] = {r->ctr[0], r->ctr[1], r->ctr[2], r->ctr[3]};
    uint32_t k[2] = {r->key[0], r->key[1]};
    for (int i = 0; i < 10; i++) {
        philox_round(c, k);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) r->out[i] = c[i];
    r->left = 4;
    r->ctr[0]++;
}

struct mode_rng mode_rng_for(uint64_t seed, enum mode_rng_purpose purpose, uint64_t a, uint64_t b)
{
    struct mode_rng r = {0};
    r.key[0] = (uint32_t)seed;
    r.key[1] = (uint32_t)(seed >> 32);
    r.ctr[1] = (uint32_t)a;
    r.ctr[2] = (uint32_t)b;
    r.ctr[3] = (uint32_t)((b >> 32) & 0xFFFFu) | ((uint32_t)purpose << 16);
    return r;
}

uint32_t mode_rng_u32(struct mode_rng *r)
{
    if (r->left == 0) philox_block(r);
    return r->out[4 - r->left--];
}

uint64_t mode_rng_u64(struct mode_rng *r)
{
    uint64_t hi = mode_rng_u32(r);
    return hi << 32 | mode_rng_u32(r);
}

double mode_rng_uniform(struct mode_rng *r)
{
    return (double)(mode_rng_u64(r) >> 11) * 0x1.0p-53;
}

uint64_t mode_rng_below(struct mode_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n; /* a multiple of n; larger draws are rejected */
    for (;;) {
        uint64_t x = mode_rng_u64(r);
        if (x < limit) return x % n;
    }
}

double mode_rng_normal(struct mode_rng *r)
{
    double u = 1.0 - mode_rng_uniform(r); /* (0, 1] */
    double v = mode_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

void mode_rng_shuffle_u32(struct mode_rng *r, uint32_t *v, uint64_t n)
{
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = mode_rng_below(r, i);
        uint32_t t = v[i - 1];
        v[i - 1] = v[j];
        v[j] = t;
    }
}
